"""Invertible networks out of FrEIA blocks, and the spline block that FrEIA lacks."""

from __future__ import annotations

__all__ = ["SplineCouplingBlock", "affine_network", "rational_quadratic_spline", "spline_network"]

from collections.abc import Callable, Sequence

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock, InvertibleModule
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from matdesinne.models.networks import perceptron

_MINIMUM = 1e-3
"""Smallest bin width and height (as a share of the interval) and smallest slope, for a stable inverse."""


def affine_network(dimension: int, condition: int, blocks: int, hidden: int, depth: int, clamp: float = 2.0) -> SequenceINN:
    """FrEIA's affine coupling blocks (RealNVP with global scaling and a random rotation between them).

    Args:
        dimension: number of coordinates.
        condition: number of conditioning features, 0 for none.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        clamp: bound on the log-scale of one block.
    """
    network = SequenceINN(dimension)
    for _ in range(blocks):
        network.append(
            AllInOneBlock,
            cond=0 if condition else None,
            cond_shape=(condition,) if condition else None,
            subnet_constructor=_subnet(hidden, depth),
            affine_clamping=clamp,
            permute_soft=dimension > 1,
        )
    return network


def spline_network(
    dimension: int, condition: int, blocks: int, hidden: int, depth: int, active: int, bins: int, bound: float
) -> SequenceINN:
    """Rational-quadratic spline coupling blocks; each moves `active` coordinates, the next block the next ones in turn.

    Args:
        dimension: number of coordinates.
        condition: number of conditioning features, 0 for none.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        active: how many coordinates one block transforms, given all the others.
        bins: number of bins of each spline.
        bound: the splines act on [-bound, bound], the identity outside.
    """
    network = SequenceINN(dimension)
    for block in range(blocks):
        network.append(
            SplineCouplingBlock,
            cond=0 if condition else None,
            cond_shape=(condition,) if condition else None,
            subnet_constructor=_subnet(hidden, depth),
            active=[(block * active + offset) % dimension for offset in range(active)],
            bins=bins,
            bound=bound,
        )
    return network


class SplineCouplingBlock(InvertibleModule):
    """Monotone rational-quadratic spline coupling on FrEIA's interface.

    The coordinates in `active` are transformed by splines whose knots come from the other coordinates and the condition.

    References:
        Durkan, Bekasov, Murray, Papamakarios, Neural spline flows, NeurIPS 2019, arXiv 1906.04032.

    Args:
        dims_in: FrEIA's list with one shape.
        dims_c: FrEIA's list of the shapes of the conditions.
        subnet_constructor: ``f(inputs, outputs) -> Module``; an output of zero gives the identity.
        active: the coordinates to transform.
        bins: number of bins.
        bound: the spline acts on [-bound, bound].
    """

    passive_index: Tensor
    active_index: Tensor

    def __init__(
        self,
        dims_in: list[tuple[int, ...]],
        dims_c: list[tuple[int, ...]] | None = None,
        *,
        subnet_constructor: Callable[[int, int], nn.Module],
        active: Sequence[int],
        bins: int = 16,
        bound: float = 5.0,
    ) -> None:
        super().__init__(dims_in, dims_c)
        dimension = dims_in[0][0]
        passive = [i for i in range(dimension) if i not in active]
        self.register_buffer("passive_index", torch.tensor(passive, dtype=torch.long), persistent=False)
        self.register_buffer("active_index", torch.tensor(list(active), dtype=torch.long), persistent=False)
        self.bins, self.bound = bins, bound
        condition = sum(shape[0] for shape in self.dims_c)
        self.subnet = subnet_constructor(len(passive) + condition, len(active) * (3 * bins - 1))

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        """Transform the active coordinates; the log-determinant is that of the chosen direction."""
        value = x_or_z[0]
        known = torch.cat([value[:, self.passive_index], *c], dim=1)
        knots = self.subnet(known).unflatten(1, (len(self.active_index), 3 * self.bins - 1))
        moved, log_slope = rational_quadratic_spline(value[:, self.active_index], knots, self.bound, inverse=rev)
        return (value.index_copy(1, self.active_index, moved),), log_slope.sum(dim=1)

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes do not change."""
        return input_dims


def rational_quadratic_spline(
    x: Float[Tensor, "n d"], knots: Float[Tensor, "n d p"], bound: float, inverse: bool = False
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    r"""Monotone map of [-bound, bound] onto itself, the identity outside.

    Args:
        x: values.
        knots: unnormalised widths (K), heights (K) and inner slopes (K - 1) of K bins; all zero is the identity.
        bound: half the length of the interval.
        inverse: map back.

    Returns:
        The mapped values and the logarithm of the slope of the map that was applied.

    References:
        Durkan et al. 2019, arXiv 1906.04032, equations 4 to 8; Gregory and Delbourgo 1982, doi 10.1093/imanum/2.2.123.
    """
    bins = (knots.shape[-1] + 1) // 3
    left, width = _edges(knots[..., :bins], bound)
    bottom, height = _edges(knots[..., bins : 2 * bins], bound)
    # softplus(slope + log(e - 1)) is 1 at 0: the identity
    inner = functional.softplus(knots[..., 2 * bins :] + 0.5413248546129181) + _MINIMUM
    slopes = functional.pad(inner, (1, 1), value=1.0)

    inside = (x > -bound) & (x < bound)
    clipped = x.clamp(-bound, bound)
    starts = bottom if inverse else left
    index = (torch.searchsorted(starts.detach(), clipped.detach().unsqueeze(-1), right=True) - 1).clamp(0, bins - 1)

    def pick(table: Tensor) -> Tensor:
        return table.gather(-1, index).squeeze(-1)

    x0, w, y0, h = pick(left), pick(width), pick(bottom), pick(height)
    d0, d1 = pick(slopes[..., :-1]), pick(slopes[..., 1:])
    s = h / w
    curvature = d0 + d1 - 2 * s
    if inverse:
        rise = clipped - y0
        a = h * (s - d0) + rise * curvature
        b = h * d0 - rise * curvature
        xi = -2 * s * rise / (-b - (b * b + 4 * a * s * rise).clamp_min(0).sqrt())
        moved = x0 + xi * w
    else:
        xi = (clipped - x0) / w
        moved = y0 + h * (s * xi * xi + d0 * xi * (1 - xi)) / (s + curvature * xi * (1 - xi))
    slope = s * s * (d1 * xi * xi + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2) / (s + curvature * xi * (1 - xi)) ** 2
    log_slope = -slope.log() if inverse else slope.log()
    return torch.where(inside, moved, x), torch.where(inside, log_slope, torch.zeros_like(log_slope))


def _edges(raw: Float[Tensor, "n d k"], bound: float) -> tuple[Tensor, Tensor]:
    """Lower edges and sizes of the bins of [-bound, bound]."""
    bins = raw.shape[-1]
    share = _MINIMUM + (1 - _MINIMUM * bins) * raw.softmax(dim=-1)
    size = 2 * bound * share
    edge = functional.pad(size.cumsum(dim=-1)[..., :-1], (1, 0)) - bound
    return edge, size


def _subnet(hidden: int, depth: int) -> Callable[[int, int], nn.Module]:
    return lambda inputs, outputs: perceptron(inputs, outputs, hidden, depth, zero_last=True)
