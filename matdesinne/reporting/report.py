"""Reports as one HTML file with embedded figures and scripts, which loads nothing from elsewhere."""

from __future__ import annotations

__all__ = ["Picture", "Section", "Table", "write_report"]

import base64
import hashlib
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from markupsafe import Markup

import matdesinne
from matdesinne.errors import ConfigError
from matdesinne.files import write_text
from matdesinne.reporting.interactive import CandidateView, view_libraries

_PACKAGES = ("torch", "numpy", "hydra-core", "matplotlib", "bokeh", "chemiscope", "ase", "gpaw", "umap-learn")
"""Distributions whose versions the report lists if they are installed."""


ROUNDING = 1e-5
"""Numbers smaller than this share of those beside them are rounding errors of float32, and are shown as 0."""


@dataclass(frozen=True)
class Picture:
    """A figure of a section: the PNG file to embed, its caption, and the alternative text for screen readers."""

    path: Path
    caption: str
    alt: str

    def __post_init__(self) -> None:
        """Check that there is an alternative text."""
        if not self.alt.strip():
            raise ConfigError(f"Expected an alternative text for {self.path.name}, got none: say what the figure shows.")

    @property
    def source(self) -> str:
        """Returns the file as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.path.read_bytes()).decode('ascii')}"


@dataclass(frozen=True)
class Table:
    """A table of a section: texts, numbers (floats are shown with four significant digits), or ``None`` for an empty cell."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        """Check the number of values in every row."""
        assert all(len(row) == len(self.heads) for row in self.rows)

    @property
    def shown(self) -> list[list[object]]:
        """The rows, with 0 for floats that are nothing but rounding errors beside the largest of their column."""
        columns = [_without_rounding(column) for column in zip(*self.rows, strict=True)]
        return [list(row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Section:
    """A section of a report; its title differs from the others', and empty lines separate the paragraphs of its text."""

    title: str
    text: str = ""
    figures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    view: CandidateView | None = None


def write_report(path: str | Path, title: str, summary: str, sections: Sequence[Section], settings: object) -> None:
    """Write the sections, the settings and the versions of the software as one HTML file.

    The page loads nothing and is light or dark as the reader's browser asks. It runs no script but those of its views, which
    its Content-Security-Policy names by their hashes. The settings are nested plain containers, shown as
    ``outer.inner = value``.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(cell=_cell, paragraphs=lambda text: [part for part in text.split("\n\n") if part.strip()])
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    scripts = view_libraries([section.view for section in sections if section.view is not None])
    content = template.render(
        title=title,
        summary=summary,
        sections=sections,
        settings=dict(_flat(settings)),
        versions=_versions(),
        scripts=[Markup(script) for script in scripts],  # of packages, no text of a user
        hashes=[_hash(script) for script in scripts],
        markup=Markup,
    )
    write_text(path, content)


def _without_rounding(column: Sequence[object]) -> list[object]:
    largest = max((abs(value) for value in column if isinstance(value, float) and math.isfinite(value)), default=0.0)
    return [0.0 if isinstance(value, float) and abs(value) <= ROUNDING * largest else value for value in column]


def _hash(script: str) -> Markup:
    """Returns a script as a Content-Security-Policy names it."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return Markup(f"'sha256-{digest}'")


def _cell(value: object) -> str:
    """Returns the text of a cell: floats with four significant digits, ``None`` as an empty cell."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(settings: object, name: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(settings, Mapping) or not settings:
        yield name, "null" if settings is None else settings
        return
    for key, value in settings.items():
        yield from _flat(value, f"{name}.{key}" if name else str(key))


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version(), "matdesinne": matdesinne.__version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
