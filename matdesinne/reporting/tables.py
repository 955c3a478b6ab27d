"""Tables as Markdown."""

from __future__ import annotations

__all__ = ["markdown_table"]

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Returns a table as Markdown, with a line break at its end.

    Floats have three significant digits, ``None`` is an empty cell, and everything else is printed by `str`. A ``|`` in a cell
    is escaped.

    Example:
        >>> print(markdown_table(["model", "MAE [eV]"], [["cINN", 0.01234], ["MDN", None]]), end="")
        | model | MAE [eV] |
        |---|---|
        | cINN | 0.0123 |
        | MDN |  |
    """
    rows = list(rows)
    assert all(len(row) == len(header) for row in rows)
    head, *lines = [f"| {' | '.join(map(_cell, cells))} |\n" for cells in (header, *rows)]
    return "".join([head, "|---" * len(header) + "|\n", *lines])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if value else "0"  # also for -0.0
    return str(value).replace("|", r"\|").replace("\n", " ")
