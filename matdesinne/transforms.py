"""Transforms between physical units and the standardised coordinates in which the networks work."""

from __future__ import annotations

__all__ = ["BoxScaler", "DesignTransform", "PhysicalUnits", "Standardizer", "TargetFeatures"]

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.space import DesignSpace

_EDGE = 1e-6
"""Relative distance to a bound below which the normal quantile is cut off, at |u| = 4.75."""


class Standardizer(nn.Module):
    r"""Affine map to zero mean and unit variance, :math:`u = (x - m) / s`.

    Args:
        dimension: number of columns.
    """

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
    distribution, and no sample can leave the box.

    Args:
        space: the design space; its bounds are stored as buffers.
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

    def fit(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute the scales of the unbounded parameters from designs in physical units."""
        self.standardize.fit(x)

    def forward(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Map designs in physical units to R^d."""
        unit = ((x - self.lower) / (self.upper - self.lower)).clamp(_EDGE, 1 - _EDGE)
        return torch.where(self.bounded, torch.special.ndtri(unit), self.standardize(x))

    def inverse(self, u: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Map R^d to designs in physical units, inside the bounds."""
        boxed = self.lower + (self.upper - self.lower) * torch.special.ndtr(u)
        boxed = torch.minimum(torch.maximum(boxed, self.lower), self.upper)
        return torch.where(self.bounded, boxed, self.standardize.inverse(u))

    def log_det(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, " n"]:
        r"""Return the log-determinant :math:`\sum_i \log |du_i / dx_i|` at designs in physical units."""
        u = self.forward(x)
        boxed = 0.5 * u.square() + 0.5 * math.log(2 * math.pi) - (self.upper - self.lower).log()
        return torch.where(self.bounded, boxed, -self.standardize.std.log()).sum(dim=1)


class PhysicalUnits(Standardizer):
    """The identity: networks work in physical units and samples may leave the box, as in the paper."""

    def fit(self, values: Float[Tensor, "n d"]) -> None:
        """Do nothing: the scales stay 0 and 1."""

    def log_det(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return zero for every row."""
        return x.new_zeros(len(x))


class TargetFeatures(nn.Module):
    r"""Fourier features of a standardised target: :math:`(y, \sin 2^j y, \cos 2^j y)_{j < J}`.

    A network learns a sharp dependence on y more easily from them than from y alone (Tancik et al., Fourier features let
    networks learn high frequency functions, 2020, arXiv 2006.10739).

    Args:
        dimension: number of properties.
        frequencies: J, the number of octaves.
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
    """Scales the design box to [-1, 1]^d as `DesignSpace.to_unit` does, and standardises the unbounded parameters.

    Args:
        space: the design space.
    """

    def __init__(self, space: DesignSpace) -> None:
        super().__init__(space.dimension)
        self.space = space

    def fit(self, values: Float[Tensor, "n dx"]) -> None:
        """Compute the scales of the unbounded parameters; take the others from the bounds."""
        super().fit(values)
        bounded = torch.tensor([parameter.bounded for parameter in self.space.parameters], device=values.device)
        self.mean.copy_(torch.where(bounded, self.space.center.to(values), self.mean))
        self.std.copy_(torch.where(bounded, self.space.half_width.to(values), self.std))
