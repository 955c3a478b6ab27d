"""In-plane strain of a layer: principal strains and their direction, biaxial strain and shear, from a, b and gamma."""

from __future__ import annotations

__all__ = ["LayerStrain", "StrainBounds"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.parameters import Parameter

StrainBounds = Mapping[str, tuple[float, float]]
"""Lower and upper bound of strains by their names, infinite where open."""

_PRINCIPAL = ("strain_1", "strain_2", "strain_angle", "strain_biaxial", "strain_shear")
_HEXAGONAL = ("strain_zigzag", "strain_armchair")
_ISOTROPIC = 1e-6
"""Half the difference of the principal strains up to which they are equal: about the rounding of a design in float32."""
_EQUAL = 1e-6
"""Relative difference up to which the two lengths of a reference cell are equal."""


@dataclass(frozen=True)
class LayerStrain:
    r"""Strain of the cell (a, b, gamma) of a layer against its reference cell, in the plane.

    The deformation gradient :math:`F = A A_0^{-1}` maps the vectors of the reference cell, the columns of :math:`A_0` with a
    along x, to those of the design. With :math:`C = F^T F`, the right stretch tensor is

    .. math:: U = \sqrt{C} = \frac{C + \det F \, I}{\sqrt{\operatorname{tr} C + 2 \det F}}.

    ``strain_1`` >= ``strain_2`` are its eigenvalues less 1, as fractions; ``strain_angle`` is the direction of ``strain_1``
    in the reference cell, counted from a towards b in degrees in (-90, 90], and 0 where both are equal. ``strain_biaxial`` is
    half their sum, ``strain_shear`` half their difference. In a hexagonal layer the vector a runs along zigzag:
    ``strain_zigzag`` is :math:`U_{xx} - 1`, ``strain_armchair`` :math:`U_{yy} - 1`.

    Swapping a and b, which describes the same layer, keeps all of these but ``strain_angle``, which becomes gamma of the
    reference less itself, and the strains along zigzag and armchair, which then count from another one of the three equivalent
    zigzag directions.

    All are differentiable, but for ``strain_angle`` where the principal strains are equal; there the derivatives of
    ``strain_1``, ``strain_2`` and ``strain_shear``, which have a kink, are those of a shear of 0.

    References:
        Hoger and Carlson 1984, Determination of the stretch and rotation in the polar decomposition of the deformation
        gradient, Quarterly of Applied Mathematics 42, 113.

    Args:
        columns: of a, b and gamma in a design.
        reference: values of a, b and gamma in the unstrained layer, gamma in degrees.

    Example:
        >>> layer = LayerStrain((0, 1, 2), (3.16, 3.16, 120.0))
        >>> strains = layer(torch.tensor([[3.16 * 1.02, 3.16 * 1.02, 120.0]], dtype=torch.float64))
        >>> {name: round(strains[name].item(), 6) for name in ("strain_1", "strain_2", "strain_shear")}
        {'strain_1': 0.02, 'strain_2': 0.02, 'strain_shear': 0.0}
    """

    columns: tuple[int, int, int]
    reference: tuple[float, float, float]

    @classmethod
    def of(cls, parameters: Sequence[Parameter]) -> LayerStrain | None:
        """Find a, b and gamma, in degrees, with the references of a cell among parameters; ``None`` where one is missing."""
        place = {parameter.name: i for i, parameter in enumerate(parameters)}
        if not {"a", "b", "gamma"} <= set(place):
            return None
        a, b, gamma = (parameters[place[name]] for name in ("a", "b", "gamma"))
        cell = a.unit == b.unit and gamma.unit == "degree" and a.reference > 0 and b.reference > 0 and 0 < gamma.reference < 180
        if not cell:
            return None
        return cls((place["a"], place["b"], place["gamma"]), (a.reference, b.reference, gamma.reference))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the strains; zigzag and armchair are those of a hexagonal reference cell."""
        a, b, gamma = self.reference
        hexagonal = abs(a - b) <= _EQUAL * a and min(abs(gamma - 60), abs(gamma - 120)) <= _EQUAL * gamma
        return (*_PRINCIPAL, *_HEXAGONAL) if hexagonal else _PRINCIPAL

    @staticmethod
    def unit(name: str) -> str:
        """Unit of a strain: degree for the angle, else 1."""
        return "degree" if name == "strain_angle" else "1"

    def __call__(self, x: Float[Tensor, "*n dx"]) -> dict[str, Float[Tensor, "*n"]]:
        """Compute the strains of designs in double precision, by name; NaN where gamma is not between 0 and 180 degrees."""
        xx, yy, xy = self.stretch(x)
        mean, half = (xx + yy) / 2, (xx - yy) / 2
        shear, isotropic = _length(half, xy)
        angle = torch.rad2deg(torch.atan2(xy.where(~isotropic, 0.0), half.where(~isotropic, 1.0))) / 2
        angle = torch.where(angle <= -90, 90.0, angle).where(~mean.isnan(), torch.nan)
        values = (mean + shear - 1, mean - shear - 1, angle, mean - 1, shear, xx - 1, yy - 1)
        return {name: column for name, column in zip((*_PRINCIPAL, *_HEXAGONAL), values, strict=True) if name in self.names}

    def stretch(self, x: Float[Tensor, "*n dx"]) -> Float[Tensor, "components ..."]:
        """Compute the components xx, yy and xy of the right stretch tensor of designs in double precision."""
        a, b, gamma = (x[..., column].double() for column in self.columns)
        a0, b0, gamma0 = self.reference
        x0, y0 = b0 * math.cos(math.radians(gamma0)), b0 * math.sin(math.radians(gamma0))
        gamma = torch.deg2rad(gamma)
        xx, yy = a / a0, b * gamma.sin() / y0
        xy = (b * gamma.cos() - xx * x0) / y0
        determinant = (xx * yy).where((xx > 0) & (yy > 0), torch.nan)
        root = (xx.square() + xy.square() + yy.square() + 2 * determinant).sqrt()
        return torch.stack(
            [(xx.square() + determinant) / root, (xy.square() + yy.square() + determinant) / root, xx * xy / root]
        )

    def cells(self, stretch: Float[Tensor, "components ..."]) -> Float[Tensor, "... 3"]:
        """Compute a, b and gamma, in this order, of the layer with a right stretch tensor; the inverse of `stretch`.

        Example:
            >>> layer = LayerStrain((0, 1, 2), (3.16, 3.16, 120.0))
            >>> layer.cells(torch.tensor([1.02, 1.02, 0.0], dtype=torch.float64))
            tensor([  3.2232,   3.2232, 120.0000], dtype=torch.float64)
        """
        xx, yy, xy = stretch
        a0, b0, gamma0 = self.reference
        x0, y0 = b0 * math.cos(math.radians(gamma0)), b0 * math.sin(math.radians(gamma0))
        first, second = (a0 * xx, a0 * xy), (x0 * xx + y0 * xy, x0 * xy + y0 * yy)
        a, b = (torch.hypot(*vector) for vector in (first, second))
        cross, dot = first[0] * second[1] - first[1] * second[0], first[0] * second[0] + first[1] * second[1]
        return torch.stack([a, b, torch.rad2deg(torch.atan2(cross, dot))], dim=-1)

    def rounding(self, x: Float[Tensor, "n dx"], rounding: Float[Tensor, "n dx"]) -> dict[str, Float[Tensor, " n"]]:
        """Propagate the largest rounding of the parameters to the strains, to first order; an upper bound, by name."""
        with torch.enable_grad():
            leaf = x.detach().double().requires_grad_()
            components = self.stretch(leaf)
            slopes = [torch.autograd.grad(component.sum(), leaf, retain_graph=True)[0] for component in components]
        xx, yy, xy = ((slope.abs() * rounding).sum(dim=1).nan_to_num(0.0) for slope in slopes)
        mean = half = (xx + yy) / 2
        shear = half + xy
        size, isotropic = _length((components[0] - components[1]).detach() / 2, components[2].detach())
        angle = torch.rad2deg(shear / size / 2).clamp_max(90.0).where(~isotropic, 0.0)
        values = (mean + shear, mean + shear, angle, mean, shear, xx, yy)
        return dict(zip((*_PRINCIPAL, *_HEXAGONAL), values, strict=True))

    def read_bounds(self, bounds: Mapping[str, Sequence[float | str | None]]) -> dict[str, tuple[float, float]]:
        """Check bounds ``[lower, upper]`` of strains by their names, ``None`` where open.

        Raises:
            ConfigError: if a name is unknown, or a bound is no number or above the other one.
        """
        checked = {}
        for name, (lower, upper) in bounds.items():
            if name not in self.names:
                raise ConfigError(f"Expected strains out of {list(self.names)}, got {name}: correct the name.")
            edges = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
            numbers = [float(edge) for edge in edges if isinstance(edge, int | float) and not isinstance(edge, bool)]
            if len(numbers) < 2 or not numbers[0] <= numbers[1]:
                raise ConfigError(
                    f"Expected numbers lower <= upper for the bounds of a strain, got {name}: [{lower!r}, {upper!r}]: "
                    "correct them; strains are fractions, 0.02 is 2 %."
                )
            checked[name] = (numbers[0], numbers[1])
        return checked

    def contains(self, x: Float[Tensor, "*n dx"], bounds: StrainBounds, tolerance: float = 0.0) -> Bool[Tensor, "*n"]:
        """Return a mask of the designs whose strains are within bounds, up to a tolerance (of the angle: 180 degrees of it)."""
        inside = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        strains = self(x) if bounds else {}
        for name, (lower, upper) in bounds.items():
            slack = tolerance * (180.0 if name == "strain_angle" else 1.0)
            inside &= (strains[name] >= lower - slack) & (strains[name] <= upper + slack)
        return inside

    def implied(self, bounds: StrainBounds) -> list[tuple[float, float]]:
        r"""Bounds of a, b and gamma, in this order, that follow from bounds of the strains, infinite where none do.

        With principal stretches between l and u, no length changes by a factor outside [l, u], and the angle of two vectors
        changes most where their bisector is a principal direction:
        :math:`\tan(\gamma/2) = (u/l)^{\pm 1} \tan(\gamma_0/2)`.
        """
        edges = {name: bounds.get(name, (-math.inf, math.inf)) for name in _PRINCIPAL}
        shear = edges["strain_shear"][1]
        most = 1 + min(edges["strain_1"][1], edges["strain_biaxial"][1] + shear)
        least = max(1 + max(edges["strain_2"][0], edges["strain_biaxial"][0] - shear), 0.0)
        a, b, gamma = self.reference
        angle = (-math.inf, math.inf)
        if least > 0 and most < math.inf:
            half = math.tan(math.radians(gamma / 2))
            angle = (2 * math.degrees(math.atan(half * least / most)), 2 * math.degrees(math.atan(half * most / least)))
        return [(a * least, a * most), (b * least, b * most), angle]


def _length(x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Bool[Tensor, "*n"]]:
    """Length of (x, y), with a gradient of 0 at the origin, and whether it is as good as 0."""
    square = x.square() + y.square()
    origin = square == 0
    length = square.where(~origin, 1.0).sqrt().where(~origin, 0.0)
    return length, length <= _ISOTROPIC
