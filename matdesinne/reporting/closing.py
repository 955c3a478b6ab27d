"""What a generation says last: how good the surrogate is, what to expect of the candidates, and which to make next."""

from __future__ import annotations

__all__ = ["box_distance", "closing_lines", "diverse_candidates", "nearest_rows", "write_next_designs"]

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.data.table import DesignTable
from matdesinne.files import write_table
from matdesinne.reporting.accuracy import Accuracy
from matdesinne.reporting.report import ROUNDING
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate

_ACCURATE = 0.5
"""Share of the candidates, those with the smallest spread, among which diverse ones are chosen."""
_MOST_ROWS = 20_000
_FAR = 10
"""An error of so many times the property's resolution is a failure, as in the paper: 0.1 eV for band gaps."""


def closing_lines(
    candidates: Candidates,
    surrogate: Surrogate,
    accuracy: Sequence[Accuracy] = (),
    measured: DesignTable | None = None,
) -> str:
    """Say, in a line for each property, how good the surrogate is and how near to the target the candidates can be expected.

    A candidate's distance to the target is at most that of its prediction plus half the width of the prediction's interval;
    the line has the median over the candidates.

    Args:
        candidates: of a target.
        surrogate: what predicted them.
        accuracy: of the surrogate on test rows, where it is known.
        measured: rows of the table, to say how far away they are.
    """
    lines, surrogate = [entry.sentence() for entry in accuracy], surrogate.cpu()
    for j, asked in enumerate(candidates.target.asked):
        lines.append(_expected(candidates, surrogate, j) if asked else _open(candidates, surrogate, j))
    if measured is not None and candidates.space.bounded:
        distance, _ = nearest_rows(candidates.space, candidates.designs, measured)
        lines.append(f"The nearest measured row is {distance.median().item():.2g} of the box's diagonal away (median).")
    return "\n".join(lines)


def _expected(candidates: Candidates, surrogate: Surrogate, j: int) -> str:
    """How near to the target the candidates can be expected."""
    prop = candidates.properties[j]
    lower, upper = torch.tensor(candidates.target.lower), torch.tensor(candidates.target.upper)
    # a prediction inside an interval may err by its distance to the nearer end and is still on target
    inside = torch.minimum(candidates.mean - lower, upper - candidates.mean).clamp_min(0.0)
    widths = [(surrogate.half_width(candidates.std, level) - inside).clamp_min(0.0) for level in (0.68, 0.9)]
    likely, nearly_sure = ((candidates.error + width)[:, j].median().item() for width in widths)
    if nearly_sure == 0 and lower[j] < upper[j]:
        line = f"Expect {prop.name} inside the interval asked for, for at least 90 % of the candidates"
    else:
        own = candidates.error[:, j].mean().item()
        own = own if own > ROUNDING * likely else 0.0
        line = (
            f"Expect {prop.name} within {likely:.3g}{prop.suffix} of the target for 68 % of the candidates, within "
            f"{nearly_sure:.3g}{prop.suffix} for 90 % (by the surrogate alone: {own:.1g})"
        )
    expected = surrogate.expected_error(candidates.std)[:, j].mean().item()
    line += f"; the mean error of the predictions is {expected:.2g}{prop.suffix}."
    if prop.resolution:
        far = _FAR * prop.resolution
        beyond = 1 - surrogate.coverage(candidates.std, far + inside)[:, j].mean().item()
        line += f" At most {100 * beyond:.2g} % are expected to be farther off than {far:g}{prop.suffix}."
    return line


def _open(candidates: Candidates, surrogate: Surrogate, j: int) -> str:
    """What the candidates have of a property that was not asked for."""
    prop, mean = candidates.properties[j], candidates.mean[:, j]
    error = surrogate.expected_error(candidates.std)[:, j].mean().item()
    return (
        f"{prop.name}, not asked for: {mean.min().item():.3g} to {mean.max().item():.3g}{prop.suffix}, mean error "
        f"{error:.2g}{prop.suffix}."
    )


def diverse_candidates(candidates: Candidates, count: int) -> Candidates:
    """Choose candidates far from each other among the half with the smallest spread.

    The first one has the smallest spread; each next one is the farthest from those before, in coordinates scaled by the box.
    """
    spread = (candidates.std / candidates.std.amax(dim=0).clamp_min(1e-30)).amax(dim=1)
    accurate = spread.argsort()[: max(count, int(_ACCURATE * len(candidates)))]
    x = candidates.space.to_unit(candidates.designs[accurate])
    chosen = [0]
    distance = (x - x[0]).square().sum(dim=1)
    while len(chosen) < min(count, len(accurate)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(dim=1))
    return candidates.take(accurate[torch.tensor(chosen)])


def write_next_designs(path: Path, candidates: Candidates, surrogate: Surrogate, measured: DesignTable) -> None:
    """Write a short list of designs to make: predictions, half the width of their 90 % intervals, the nearest measured row."""
    width = surrogate.cpu().half_width(candidates.std, 0.9)
    columns = candidates.space.to_columns(candidates.designs)
    distance, nearest = nearest_rows(candidates.space, candidates.designs, measured)
    for j, prop in enumerate(candidates.properties):
        columns[prop.name] = (prop.unit, candidates.mean[:, j].tolist())
        columns[f"{prop.name}_within_90"] = (prop.unit, width[:, j].tolist())
        columns[f"nearest_row_{prop.name}"] = (prop.unit, measured.y[nearest, j].tolist())
    columns["nearest_row"] = ("1", measured.ids[nearest].tolist())
    columns["nearest_row_distance"] = ("1", distance.tolist())
    write_table(path, columns)


def box_distance(space: DesignSpace, first: Float[Tensor, "n dx"], second: Float[Tensor, "m dx"]) -> Float[Tensor, "n m"]:
    """Distances of designs in shares of the diagonal of the box."""
    return torch.cdist(space.to_unit(first), space.to_unit(second)) / (2 * space.dimension**0.5)


def nearest_rows(
    space: DesignSpace, designs: Float[Tensor, "n dx"], measured: DesignTable
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Distance of each design to the nearest measured row in shares of the box's diagonal, and the place of that row."""
    least = box_distance(space, designs, measured.x[:_MOST_ROWS]).min(dim=1)
    return least.values, least.indices
