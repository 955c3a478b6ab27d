"""Packages of a user whose models and surrogates may run, beside those of this package."""

from __future__ import annotations

__all__ = ["advice", "is_trusted", "trusted_packages", "trusting"]

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matdesinne.errors import ConfigError

_OWN = __name__.partition(".")[0]
_trusted: frozenset[str] = frozenset()


@contextmanager
def trusting(packages: Sequence[str] | str) -> Iterator[None]:
    """Let configurations and saved networks name classes of some packages, until the end of a ``with`` block.

    The commands do so for the packages of ``trusted=[...]``. Nothing that is read from a file, such as the settings that are
    saved with a run, adds a package: otherwise a file from elsewhere could choose what code runs.

    Args:
        packages: names of packages or modules at the top level that Python can import.

    Raises:
        ConfigError: if a name is that of no package.

    Example:
        >>> with trusting(["json"]):
        ...     is_trusted("json.decoder.JSONDecoder")
        True
        >>> is_trusted("json.decoder.JSONDecoder")
        False
    """
    global _trusted
    names = [packages] if isinstance(packages, str) else list(packages)
    for name in names:
        _check(name)
    before, _trusted = _trusted, _trusted | frozenset(names)
    try:
        yield
    finally:
        _trusted = before


def trusted_packages() -> list[str]:
    """The packages of `trusting`, for another process."""
    return sorted(_trusted)


def is_trusted(name: str) -> bool:
    """Whether a class, given by its full name, belongs to this package or to one of `trusting`."""
    return name.partition(".")[0] in {_OWN, *_trusted}


def advice(name: str) -> str:
    """What to do about a class of a package that is not trusted."""
    package = name.partition(".")[0]
    return (
        f"add trusted=[{package}] to the command (in Python: with matdesinne.trust.trusting(['{package}'])) if you trust its "
        "code; the settings that are saved with a run do not."
    )


def _check(name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"Expected names of packages in trusted, got {name!r}: e.g. trusted=[my_package].")
    if name == "__main__" or importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"Expected a package that Python finds in trusted, got {name!r}: install it, or add the folder that contains it to "
            "PYTHONPATH."
        )
