"""Narrower bounds of a parameter, as a user writes them."""

from __future__ import annotations

__all__ = ["narrower_edges", "read_edges"]

from collections.abc import Sequence

import torch

from matdesinne.errors import ConfigError


def read_edges(name: str, edges: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Check that two edges were given.

    Raises:
        ConfigError: if not.
    """
    if isinstance(edges, str) or not isinstance(edges, Sequence) or len(edges) != 2:
        raise ConfigError(f"Expected [lower, upper] for {name}, got {edges!r}: give two numbers, null for the bound it has.")
    return edges[0], edges[1]


def narrower_edges(
    name: str, unit: str, known: tuple[float, float], wanted: tuple[float | None, float | None]
) -> tuple[float, float]:
    """Edges inside known ones, rounded inwards to float32; a single value is the nearest number that there is.

    Args:
        name: of the parameter.
        unit: of the parameter.
        known: the edges that it has.
        wanted: narrower ones, ``None`` for a known one.

    Raises:
        ConfigError: if they are no numbers, or not in order inside the known ones.
    """
    lower, upper = (have if want is None else want for have, want in zip(known, wanted, strict=True))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (lower, upper))
    if not (numbers and known[0] <= lower <= upper <= known[1]):
        raise ConfigError(
            f"Expected {known[0]:g} <= lower <= upper <= {known[1]:g} {unit} for {name}, got {lower!r} and {upper!r}: "
            "stay in the design space."
        )
    nearest = torch.tensor([lower, upper], dtype=torch.float32)
    inwards = torch.nextafter(nearest, nearest.flip(0))
    first, last = nearest.tolist()
    first = first if first >= lower else float(inwards[0])
    last = last if last <= upper else float(inwards[1])
    return first, max(first, last)
