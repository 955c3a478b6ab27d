"""Coupling block that moves one coordinate by the distribution function of a mixture: places thin shells sharply."""

from __future__ import annotations

__all__ = ["MixtureCouplingBlock", "MixtureNetwork"]

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from matdesinne.models.networks import ResidualPerceptron

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
_LOG_SCALE_MINIMUM, _LOG_SCALE_MAXIMUM = -9.0, 4.0
"""Range of the log-width of a component; the coordinate spans one unit. The widest is flat to 1e-5, and the mass of a wider one
would be a difference that rounding eats."""
_FARTHEST = 60.0
"""In widths; a component farther outside [0, 1] would have no mass inside that a floating-point number can hold."""
_REACH = 6.0
"""An unbounded coordinate, in standard deviations, is looked for within this distance of its mean."""
_TAIL, _WEAK, _REST = 4.0, 0.05, 1e-3
"""Truncation ends a component at so many widths, and leaves one of less than this share of the strongest out, but for a
thousandth of both, which keeps the density positive: the logistic's long tails fill the gaps between the branches of a thin
shell, and after a weak component in an early coordinate no later coordinate may find the target."""
_CROWDED = 0.75
"""Share of the rows of a search below which those that are not done go on without the others."""
_START_WIDTH, _START_SPREAD = {True: -2.5, False: -4.0}, {True: 0.8, False: 0.3}
"""Logarithm of the first width, and spread of the first means, of a bounded and of an unbounded coordinate."""
_DISCRETE_WIDTH = -7.5
"""Logarithm of the first width where a coordinate takes few values: components that begin wider never see the gaps between."""


class MixtureNetwork(nn.Module):
    """One block for each coordinate, each given the coordinates before it: the likelihood is a product of conditionals.

    It passes designs on as FrEIA's ``SequenceINN`` does, whose import would take a second.

    Args:
        condition: number of conditioning features.
        hidden: width of the first and of the last block's subnetwork; the others are interpolated.
        depth: hidden layers of each subnetwork.
        components: logistic components of each conditional.
    """

    def __init__(self, dimension: int, condition: int, hidden: Sequence[int], depth: int, components: int) -> None:
        super().__init__()
        # the last coordinate first, so that every block still sees the untransformed coordinates before its own
        self.module_list = nn.ModuleList()
        for position in reversed(range(dimension)):
            width = round(hidden[0] + position / max(dimension - 1, 1) * (hidden[1] - hidden[0]))
            settings = {"position": position, "hidden": width, "depth": depth, "components": components}
            self.module_list.append(MixtureCouplingBlock([(dimension,)], [(condition,)], **settings))

    def __getitem__(self, index: int) -> MixtureCouplingBlock:
        """A block; the first is that of the last coordinate."""
        block = self.module_list[index]
        assert isinstance(block, MixtureCouplingBlock)
        return block

    def __iter__(self) -> Iterator[MixtureCouplingBlock]:
        """The blocks in their order."""
        return (self[index] for index in range(len(self.module_list)))

    def forward(
        self, x_or_z: Tensor, c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True, truncate: bool = False
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Transform every coordinate, in reverse order where `rev`; the log-determinant is that of the chosen direction.

        With `truncate` the mixtures have no far tails and no weak components.
        """
        total = x_or_z.new_zeros(len(x_or_z))
        for block in reversed(list(self)) if rev else self:
            (x_or_z,), log_det = block((x_or_z,), c=c, rev=rev, jac=jac, truncate=truncate)
            total = total + log_det
        return x_or_z, total

    def log_density(self, u: Float[Tensor, "n d"], condition: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Log-density of all coordinates: the sum over the blocks, whose mixtures are evaluated at once."""
        bounded, seen = self[0].bounded, _seen(u, self[0].bounded)
        raw = torch.cat([block.subnet(torch.cat([condition, seen[:, : block.position]], dim=1)) for block in self])
        values, bounded = u.flip(1).T.flatten(), bounded.flip(0).repeat_interleave(len(u))  # the blocks come in reverse order
        return _log_density(values, bounded, _mixture(raw, truncate=False)).view(len(self.module_list), -1).sum(dim=0)


class _Mixture(NamedTuple):
    """Logistic components, each cut to an interval: log-weights, means, inverse widths, and the mass in the interval."""

    log_weight: Tensor
    mean: Tensor
    rate: Tensor
    low: Tensor
    flipped: Tensor
    mass: Tensor
    truncated: bool


class MixtureCouplingBlock(nn.Module):
    r"""Transform one normal coordinate given those before it, on FrEIA's interface.

    With v in [0, 1] (:math:`\Phi(u_j)` of a bounded coordinate, a linear map of an unbounded one) and a mixture of logistic
    distributions cut to [0, 1] whose parameters come from :math:`u_{<j}` and the condition, :math:`z_j = \Phi^{-1}(F(v))`:
    standard normal when u_j follows the mixture. A mixture of narrow components places a coordinate on several branches of a
    thin shell at once, where an affine map has one.

    References:
        Ho et al., Flow++, ICML 2019, arXiv 1902.00275 (mixture of logistics couplings); here truncated, in an
        autoregressive order.

    Args:
        dims_in: FrEIA's list with one shape.
        dims_c: FrEIA's list with the shape of the condition.
        position: j.
    """

    bounded: Tensor

    def __init__(
        self, dims_in: list[tuple[int]], dims_c: list[tuple[int]], *, position: int, hidden: int, depth: int, components: int
    ) -> None:
        super().__init__()
        self.position, self.components = position, components
        self.subnet = ResidualPerceptron(position + dims_c[0][0], 3 * components, hidden, depth)
        with torch.no_grad():
            self.subnet.last.weight.mul_(0.05)
        self.register_buffer("bounded", torch.ones(dims_in[0][0], dtype=torch.bool))
        self.begin(self.bounded)

    def begin(self, bounded: Bool[Tensor, " d"], discrete: bool = False) -> None:
        """Start anew, knowing which coordinates are bounded.

        The block's own coordinate is `discrete` if it takes few values: each needs a narrow component.
        """
        self.bounded.copy_(bounded)
        own = bool(bounded[self.position])
        with torch.no_grad():
            bias = self.subnet.last.bias.view(3, self.components)
            bias[0] = 0.0
            bias[1] = torch.atanh(torch.linspace(-_START_SPREAD[own], _START_SPREAD[own], self.components))
            bias[2] = _DISCRETE_WIDTH if discrete else _START_WIDTH[own]

    def log_density(self, u: Float[Tensor, "n d"], condition: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Log-density of coordinate j given those before it, in the coordinates of u."""
        return _log_density(u[:, self.position], self.bounded[self.position], self._mixture(u, condition, truncate=False))

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True, truncate: bool = False
    ) -> tuple[tuple[Tensor], Tensor]:
        """Transform coordinate j; the log-determinant is that of the chosen direction."""
        value = x_or_z[0]
        mixture, bounded = self._mixture(value, c[0], truncate), self.bounded[self.position]
        old = value[:, self.position]
        if rev:
            unit = _quantile(torch.special.ndtr(old), mixture)
            u = new = torch.where(bounded, _normal_quantile(unit), _REACH * (2 * unit - 1))
        else:
            u, unit = old, _unit(old, bounded)
            new = _normal_quantile(_cdf(unit, mixture))
        log_det = value.new_zeros(len(value))
        if jac:
            z = old if rev else new
            log_det = _log_density_unit(unit, mixture) + _log_slope(u, bounded) + 0.5 * z.square() + _HALF_LOG_2_PI
        moved = torch.cat([value[:, : self.position], new.unsqueeze(1), value[:, self.position + 1 :]], dim=1)
        return (moved,), -log_det if rev else log_det

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes do not change."""
        return input_dims

    def _mixture(self, value: Float[Tensor, "n d"], condition: Float[Tensor, "n c"], truncate: bool) -> _Mixture:
        seen = _seen(value[:, : self.position], self.bounded[: self.position])
        return _mixture(self.subnet(torch.cat([condition, seen], dim=1)), truncate)


def _seen(u: Float[Tensor, "n d"], bounded: Bool[Tensor, " d"]) -> Float[Tensor, "n d"]:
    """What a subnetwork sees of coordinates: the box, not its normal quantiles, which have long tails."""
    return torch.where(bounded, 2 * torch.special.ndtr(u) - 1, u)


def _mixture(raw: Float[Tensor, "n m3"], truncate: bool) -> _Mixture:
    weight, mean, width = raw.unflatten(1, (3, -1)).movedim(1, 0).contiguous()
    log_width = (_LOG_SCALE_MINIMUM + functional.softplus(width - _LOG_SCALE_MINIMUM)).clamp_max(_LOG_SCALE_MAXIMUM)
    reach, rate = _FARTHEST * log_width.exp(), (-log_width).exp()
    mean = torch.minimum(torch.maximum(0.5 + 0.6 * mean.tanh(), -reach), 1 + reach)
    low, high = -mean * rate, (1 - mean) * rate
    if truncate:
        short = torch.maximum(low, (high - _TAIL).clamp_max(-_TAIL)), torch.minimum(high, (low + _TAIL).clamp_min(_TAIL))
        low, high = torch.cat([short[0], low], dim=1), torch.cat([short[1], high], dim=1)
        weak = weight < weight.amax(dim=1, keepdim=True) + math.log(_WEAK)
        weight = torch.cat([weight.masked_fill(weak, -torch.inf) + math.log1p(-_REST), weight + math.log(_REST)], dim=1)
        mean, rate = mean.repeat(1, 2), rate.repeat(1, 2)
    log_weight = weight - weight.logsumexp(dim=1, keepdim=True)  # log_softmax is slow over so few columns
    # sigmoid(high) - sigmoid(low) loses its digits where both are near 1: take the mirror image there
    flipped = low + high > 0
    low, high = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
    mass = (high.sigmoid() - low.sigmoid()).clamp_min(1e-30)
    return _Mixture(log_weight, mean, rate, low.sigmoid(), flipped, mass, truncate)


def _unit(uj: Float[Tensor, " n"], bounded: Bool[Tensor, "*#n"]) -> Float[Tensor, " n"]:
    """The coordinate v in [0, 1]."""
    return torch.where(bounded, torch.special.ndtr(uj), ((uj + _REACH) / (2 * _REACH)).clamp(0, 1))


def _log_slope(uj: Float[Tensor, " n"], bounded: Bool[Tensor, "*#n"]) -> Float[Tensor, " n"]:
    """Logarithm of dv / du."""
    return torch.where(bounded, -0.5 * uj.square() - _HALF_LOG_2_PI, -math.log(2 * _REACH))


def _log_density(uj: Float[Tensor, " n"], bounded: Bool[Tensor, "*#n"], mixture: _Mixture) -> Float[Tensor, " n"]:
    return _log_density_unit(_unit(uj, bounded), mixture) + _log_slope(uj, bounded)


def _log_density_unit(unit: Float[Tensor, " n"], mixture: _Mixture) -> Float[Tensor, " n"]:
    t = (unit.unsqueeze(1) - mixture.mean) * mixture.rate
    log_component = -t - 2 * functional.softplus(-t) + mixture.rate.log() - mixture.mass.log()
    if mixture.truncated:
        share = _share(t, mixture)
        log_component = log_component.masked_fill((share < 0) | (share > 1), -torch.inf)
    return torch.logsumexp(mixture.log_weight + log_component, dim=1)


def _normal_quantile(level: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Finite also at levels that round to 0 or 1."""
    edge = torch.finfo(level.dtype).eps
    return torch.special.ndtri(level.clamp(edge, 1 - edge))


def _share(t: Float[Tensor, "n m"], mixture: _Mixture) -> Float[Tensor, "n m"]:
    """Content of each component's interval up to t (beyond t where it is flipped); outside [0, 1] outside the interval."""
    return (torch.where(mixture.flipped, -t, t).sigmoid() - mixture.low) / mixture.mass


def _cdf(unit: Float[Tensor, " n"], mixture: _Mixture) -> Float[Tensor, " n"]:
    share = _share((unit.unsqueeze(1) - mixture.mean) * mixture.rate, mixture).clamp(0, 1)
    return (mixture.log_weight.exp() * torch.where(mixture.flipped, 1 - share, share)).sum(dim=1).clamp(0, 1)


def _quantile(level: Float[Tensor, " n"], mixture: _Mixture, steps: int = 60) -> Float[Tensor, " n"]:
    """Invert the distribution function: Newton steps, bisection where they leave the bracket; each row on its own."""
    weight, sign = mixture.log_weight.exp(), torch.where(mixture.flipped, -1.0, 1.0)
    gain, rate = sign * weight / mixture.mass, sign * mixture.rate
    components = [mixture.mean, rate, mixture.low, mixture.low + mixture.mass, gain, gain * rate]
    goal = level - (weight * mixture.flipped).sum(dim=1)
    resolution = 4 * torch.finfo(level.dtype).eps
    quantile, rows = torch.empty_like(level), torch.arange(len(level), device=level.device)
    low, high, unit = torch.zeros_like(level), torch.ones_like(level), torch.full_like(level, 0.5)
    active = torch.ones_like(level, dtype=torch.bool)
    for step in range(steps):
        excess, slope = _excess_and_slope(unit, goal, components)
        low, high = torch.where(excess < 0, unit, low), torch.where(excess < 0, high, unit)
        newton = unit - excess / slope.clamp_min(1e-12)
        # every third step halves the bracket, so that a flat stretch cannot hold the search up
        trusted = (newton > low) & (newton < high) & (step % 3 != 2)
        following = torch.where(trusted, newton, 0.5 * (low + high))
        active = active & (excess.abs() > resolution)
        moved = active & ((following - unit).abs() > resolution)
        unit, active = torch.where(active, following, unit), moved
        left = int(active.sum())
        if left < _CROWDED * len(rows):
            quantile[rows] = unit
            rows, goal, low, high, unit = (values[active] for values in (rows, goal, low, high, unit))
            components = [values[active] for values in components]
            active = active[active]
        if left == 0:
            return quantile
    quantile[rows] = unit
    return quantile


def _excess_and_slope(
    unit: Float[Tensor, " n"], goal: Float[Tensor, " n"], components: Sequence[Float[Tensor, "n m"]]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The distribution function less its goal, and the density; rate and gain carry the sign of a component's mirror image."""
    mean, rate, low, high, gain, steepness = components
    s = unit.unsqueeze(1).sub(mean).mul_(rate).sigmoid_()
    content = s.clamp(low, high)
    inside = content == s
    excess = content.sub_(low).mul_(gain).sum(dim=1) - goal
    return excess, torch.addcmul(s, s, s, value=-1).mul_(steepness).mul_(inside).sum(dim=1)
