"""Surrogates of one design space side by side, so that candidates have the properties of all of them."""

from __future__ import annotations

__all__ = ["CombinedSurrogate"]

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.surrogates.base import Linearization, Surrogate


class CombinedSurrogate(Surrogate):
    """Predicts the properties of all its parts, in their order.

    Each part keeps its own features, ensemble and calibration. It is saved part by part, see `InverseDesign.save`.

    Args:
        parts: surrogates of one space with different properties, at least one.

    Raises:
        ConfigError: if the spaces differ, or a property occurs twice.

    Example:
        >>> from matdesinne.surrogates.mlp import MLPSurrogate
        >>> from matdesinne.space import DesignSpace, Parameter
        >>> from matdesinne.targets import Property
        >>> space = DesignSpace([Parameter("strain", "1", -0.2, 0.2)])
        >>> gap, energy = (MLPSurrogate(space, [Property(name, "eV")], hidden=8) for name in ("band_gap", "energy"))
        >>> mean, std = CombinedSurrogate([gap, energy]).predict(torch.zeros(5, 1))
        >>> mean.shape, std.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(self, parts: Sequence[Surrogate]) -> None:
        if not parts:
            raise ConfigError("Expected at least one surrogate to combine, got none: give some.")
        properties = [prop for part in parts for prop in part.properties]
        names = [prop.name for prop in properties]
        if len(set(names)) < len(names):
            raise ConfigError(f"Expected surrogates of different properties, got {names}: drop one of them.")
        if any(part.space != parts[0].space for part in parts):
            raise ConfigError(f"Expected surrogates of {names} for one design space, got several: train them on one.")
        super().__init__(parts[0].space, properties)
        self.prototype = next((part.prototype for part in parts if part.prototype is not None), None)
        self.parts = nn.ModuleList(parts)
        self.scale = parts[0].scale
        self.spread_offset = torch.cat([part.spread_offset for part in parts])
        self.spread_quantiles = torch.cat([part.spread_quantiles for part in parts])

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales of every part from its columns of y."""
        for part, y in zip(self.separate(), batch.y.split(self._widths(), dim=1), strict=True):
            part.fit_scales(batch._replace(y=y))

    def calibrate_by(self, mean: Float[Tensor, "n dy"], spread: Float[Tensor, "n dy"], y: Float[Tensor, "n dy"]) -> None:
        """Scale the spreads, and those of the parts, by the errors of predictions; see `Surrogate.calibrate_by`."""
        super().calibrate_by(mean, spread, y)
        sizes = self._widths()
        for part, offset, quantiles in zip(
            self.separate(), self.spread_offset.split(sizes), self.spread_quantiles.split(sizes), strict=True
        ):
            part.spread_offset.copy_(offset)
            part.spread_quantiles.copy_(quantiles)

    def separate(self) -> list[Surrogate]:
        """Return the parts."""
        return [part for part in self.parts if isinstance(part, Surrogate)]

    def needed(self, asked: Sequence[bool]) -> tuple[Surrogate, list[int]]:
        """Return the parts that predict some of the properties, and the columns of all that these predict.

        Args:
            asked: for each property, whether it is needed; where none is, the first part is returned.
        """
        places = torch.arange(len(self.properties)).split(self._widths())
        chosen = [i for i, columns in enumerate(places) if any(asked[j] for j in columns.tolist())] or [0]
        parts = [part for i, part in enumerate(self.separate()) if i in chosen]
        part = parts[0] if len(parts) == 1 else self if len(parts) == len(self.parts) else CombinedSurrogate(parts).eval()
        return part, torch.cat([places[i] for i in chosen]).tolist()

    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "m n dy"]:
        """The parts have features and ensembles of their own: call theirs.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("Expected the members of one surrogate, got several surrogates: ask one of the parts.")

    def to_config(self) -> dict[str, object]:
        """The parts are described one by one.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("Expected a surrogate that is described alone, got several: save the parts, or an InverseDesign.")

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        return self._side_by_side(lambda part: part._mean_and_spread(x))

    def _mean(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        return torch.cat([part._mean(x) for part in self.separate()], dim=1)

    def _linearize(self, x: Float[Tensor, "n dx"]) -> Linearization:
        parts = [part.linearize(x) for part in self.separate()]
        return Linearization(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))

    def _side_by_side(self, function: Callable[[Surrogate], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        mean, spread = zip(*map(function, self.separate()), strict=True)
        return torch.cat(mean, dim=1), torch.cat(spread, dim=1)

    def _widths(self) -> list[int]:
        return [len(part.properties) for part in self.separate()]
