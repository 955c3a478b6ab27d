"""From physical units to the standardised coordinates in which networks work, and back; what a surrogate sees of a design."""

from __future__ import annotations

__all__ = ["BoxFeatures", "BoxScaler", "CellFeatures", "DesignTransform", "PhysicalUnits", "Standardizer", "TargetFeatures"]

import itertools
import math
from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS, Prototype, cell_vectors

_EDGE = 1e-6
"""Relative distance to a bound below which the normal quantile is cut off, at |u| = 4.75."""


class Standardizer(nn.Module):
    r"""Affine map to zero mean and unit variance, :math:`u = (x - m) / s`."""

    mean: Tensor
    std: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))

    def fit(self, values: Float[Tensor, "n d"]) -> None:
        """Compute mean and standard deviation over the rows without NaN; a constant column gets the standard deviation 1."""
        values = values[values.isfinite().all(dim=1)]
        self.mean.copy_(values.mean(dim=0))
        std = values.std(dim=0, correction=0)
        # rounding alone gives a constant column a tiny spread
        varies = std > 1e-6 * values.mean(dim=0).abs()
        self.std.copy_(torch.where(varies, std, torch.ones_like(std)))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Convert physical to standardised values."""
        return (x - self.mean) / self.std

    def inverse(self, u: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Convert standardised to physical values."""
        return u * self.std + self.mean


class DesignTransform(nn.Module):
    r"""Maps the design space to R^d: bounded parameters by the normal quantile, the others by standardisation.

    For a bounded parameter :math:`u = \Phi^{-1}((x - l) / (h - l))`. A uniform prior on the box becomes the standard normal
    distribution, and no sample can leave the box. The bounds are buffers. The last parameter of a mixture follows from the
    others: its u is 0.
    """

    lower: Tensor
    upper: Tensor
    bounded: Tensor

    def __init__(self, space: DesignSpace) -> None:
        super().__init__()
        bounded = torch.tensor([parameter.bounded for parameter in space.parameters])
        self.register_buffer("bounded", bounded)
        self.register_buffer("lower", torch.where(bounded, space.lower, torch.zeros_like(space.lower)))
        self.register_buffer("upper", torch.where(bounded, space.upper, torch.ones_like(space.upper)))
        self.standardize = Standardizer(space.dimension)
        self.mixtures = space.constraints.mixtures

    def fit(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute the scales of the unbounded parameters from designs in physical units."""
        self.standardize.fit(x)

    def forward(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Map designs in physical units to R^d."""
        unit = ((x - self.lower) / (self.upper - self.lower)).clamp(_EDGE, 1 - _EDGE)
        u = torch.where(self.bounded, torch.special.ndtri(unit), self.standardize(x))
        return u.masked_fill(self._following(), 0.0) if self.mixtures else u

    def inverse(self, u: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Map R^d to designs in physical units, inside the bounds."""
        boxed = self.lower + (self.upper - self.lower) * torch.special.ndtr(u)
        for columns, total in self.mixtures:
            rest = total - boxed[..., columns[:-1]].sum(dim=-1, keepdim=True)
            boxed = torch.cat([boxed[..., : columns[-1]], rest, boxed[..., columns[-1] + 1 :]], dim=-1)
        boxed = torch.minimum(torch.maximum(boxed, self.lower), self.upper)
        return torch.where(self.bounded, boxed, self.standardize.inverse(u))

    def _following(self) -> Bool[Tensor, " dx"]:
        """Columns that follow from others."""
        mask = torch.zeros_like(self.bounded)
        mask[[columns[-1] for columns, _ in self.mixtures]] = True
        return mask

    def log_det(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, " n"]:
        r"""Return the log-determinant :math:`\sum_i \log |du_i / dx_i|` at designs in physical units."""
        u = self.forward(x)
        boxed = 0.5 * u.square() + 0.5 * math.log(2 * math.pi) - (self.upper - self.lower).log()
        slopes = torch.where(self.bounded, boxed, -self.standardize.std.log())
        return (slopes.masked_fill(self._following(), 0.0) if self.mixtures else slopes).sum(dim=1)


class PhysicalUnits(Standardizer):
    """The identity: networks work in physical units and samples may leave the box, as in the paper."""

    def fit(self, values: Float[Tensor, "n d"]) -> None:
        """Do nothing: the scales stay 0 and 1."""

    def log_det(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return zero for every row."""
        return x.new_zeros(len(x))


class TargetFeatures(nn.Module):
    r"""Fourier features of a standardised target: :math:`(y, \sin 2^j y, \cos 2^j y)_{j < J}`, J the number of frequencies.

    A network learns a sharp dependence on y more easily from them than from y alone (Tancik et al., Fourier features let
    networks learn high frequency functions, 2020, arXiv 2006.10739).
    """

    octaves: Tensor

    def __init__(self, dimension: int, frequencies: int) -> None:
        super().__init__()
        self.size = dimension * (1 + 2 * frequencies)
        self.register_buffer("octaves", 2.0 ** torch.arange(frequencies), persistent=False)

    def forward(self, y: Float[Tensor, "n dy"]) -> Float[Tensor, "n f"]:
        """Compute the features of a standardised target."""
        phase = (y.unsqueeze(-1) * self.octaves).flatten(start_dim=1)
        return torch.cat([y, phase.sin(), phase.cos()], dim=1)


class BoxScaler(Standardizer):
    """Scales the design box to [-1, 1]^d as `DesignSpace.to_unit` does, and standardises the unbounded parameters."""

    def __init__(self, space: DesignSpace) -> None:
        super().__init__(space.dimension)
        self.space = space

    def fit(self, values: Float[Tensor, "n dx"]) -> None:
        """Compute the scales of the unbounded parameters; take the others from the bounds."""
        super().fit(values)
        bounded = torch.tensor([parameter.bounded for parameter in self.space.parameters], device=values.device)
        self.mean.copy_(torch.where(bounded, self.space.center.to(values), self.mean))
        self.std.copy_(torch.where(bounded, self.space.half_width.to(values), self.std))


class _Features(nn.Module):
    """Computes standardised inputs of a network from designs in physical units; `size` is their number."""

    size: int
    scale: Standardizer

    def fit(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute the scales from designs in physical units."""
        self.scale.fit(self._unscaled(x))

    def forward(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n f"]:
        """Return the standardised features."""
        return self.scale(self._unscaled(x))

    @abstractmethod
    def _unscaled(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n f"]:
        """The features in physical units."""


class BoxFeatures(_Features):
    """The parameters themselves, the box scaled to [-1, 1], or by another `scale`."""

    def __init__(self, space: DesignSpace, scale: Standardizer | None = None) -> None:
        super().__init__()
        self.size = space.dimension
        self.scale = BoxScaler(space) if scale is None else scale

    def _unscaled(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        return x


class CellFeatures(_Features):
    """Logarithms of interatomic distances and of the cell height, the potential drop, and the other parameters.

    A band structure depends on the distances between atoms, and is a smoother function of them than of the cell angles. The
    pairs are those closer than a cutoff in angstrom in the reference cell; pairs that differ by a translation count once. The
    height is that of the cell over its ab plane; the potential drop is the electric field times the height.
    """

    vectors: Tensor

    def __init__(self, space: DesignSpace, prototype: Prototype, cutoff: float = 3.2) -> None:
        super().__init__()
        prototype.check(space)
        self.space = space
        self.field_column = space.index("electric_field") if "electric_field" in space.names else None
        used = (*CELL_PARAMETERS, "electric_field")
        self.other_columns = [i for i, name in enumerate(space.names) if name not in used]
        [reference] = cell_vectors(space.values(space.reference.double().unsqueeze(0), CELL_PARAMETERS))
        self.register_buffer("vectors", _pair_vectors(prototype, reference, cutoff).float(), persistent=False)
        self.size = len(self.vectors) + 1 + (self.field_column is not None) + len(self.other_columns)
        self.scale = Standardizer(self.size)

    def _unscaled(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n f"]:
        cell = cell_vectors(self.space.values(x, CELL_PARAMETERS))
        distances = torch.linalg.vector_norm(self.vectors @ cell, dim=2)
        height = cell[:, 2, 2:]
        columns = [distances.log(), height.log(), x[:, self.other_columns]]
        if self.field_column is not None:
            columns.append(x[:, self.field_column : self.field_column + 1] * height)
        return torch.cat(columns, dim=1)


def _pair_vectors(prototype: Prototype, cell: Float[Tensor, "3 3"], cutoff: float) -> Float[Tensor, "p 3"]:
    """Return fractional vectors between atoms closer than the cutoff; of a vector and its negative only one."""
    positions = torch.tensor(prototype.positions, dtype=torch.float64)
    reach = [math.ceil(cutoff / float(length)) for length in torch.linalg.vector_norm(cell, dim=1)]
    vectors: list[Tensor] = []
    for first, second in itertools.combinations_with_replacement(range(len(positions)), 2):
        for image in itertools.product(*(range(-n, n + 1) for n in reach)):
            vector = positions[second] - positions[first] + torch.tensor(image, dtype=torch.float64)
            length = float(torch.linalg.vector_norm(vector @ cell))
            known = any(min((vector - v).norm(), (vector + v).norm()) < 1e-6 for v in vectors)
            if 1e-6 < length <= cutoff and not known:
                vectors.append(vector)
    return torch.stack(vectors)
