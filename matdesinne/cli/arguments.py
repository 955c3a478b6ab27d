"""Settings as a user types them on the command line: checked numbers, values by name, text without quotes."""

from __future__ import annotations

__all__ = ["by_name", "check_keys", "check_numbers", "names_in", "null_groups", "positional", "verbatim"]

import difflib
import functools
import math
import numbers
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from matdesinne.cli.config import config_folder
from matdesinne.errors import ConfigError

_WITH_VALUE = ("--cfg", "-c", "--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp", "--package", "-p")
"""Options of Hydra whose value is the next word."""


def check_numbers(config: DictConfig, minimum: Mapping[str, float], maximum: float = 2**32 - 1) -> None:
    """Checks numbers that a user may have set, before any work starts; a setting that is ``None`` is not checked.

    Args:
        config: holds the numbers.
        minimum: smallest allowed value by the name of a setting (dots lead into groups); a setting whose minimum is an ``int``
            must be a whole number.
        maximum: largest allowed value of all settings.

    Raises:
        ConfigError: for the first setting that is not a number or is out of its range.
    """
    for name, lowest in minimum.items():
        value = OmegaConf.select(config, name)
        if value is None:
            continue
        kind = numbers.Integral if isinstance(lowest, int) else numbers.Real
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and lowest <= value <= maximum):
            whole = "a whole number" if isinstance(lowest, int) else "a number"
            raise ConfigError(f"Expected {name} as {whole} from {lowest:g} to {maximum:g}, got {value!r}: correct {name}=.")


def by_name(config: DictConfig, name: str) -> dict[str, Any]:
    """Returns a setting that maps names of parameters to values; an empty dictionary if it is null.

    Raises:
        ConfigError: if the setting is not a mapping.
    """
    content = {} if config[name] is None else config[name]
    if not isinstance(content, Mapping):
        raise ConfigError(f"Expected {name} by the names of parameters, got {content!r}: e.g. {name}={{a: ...}}.")
    return {str(key): OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in content.items()}


def names_in(*settings: object) -> set[str]:
    """The names that occur in some settings; that of the spread of a property counts as the property's.

    Example:
        >>> sorted(names_in({"band_gap": 1.0}, "strain_energy_std < 0.1", None))
        ['None', 'band_gap', 'strain_energy']
    """
    return {name.removesuffix("_std") for name in re.findall(r"[^\W\d]\w*", " ".join(map(str, settings)))}


def verbatim(*keys: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Lets the values of some settings, which are text, stand on the command line without quotes, as in ``where=a < 1``.

    Hydra's grammar does not allow ``<`` and ``=`` in an unquoted value, so the values are quoted in ``sys.argv`` before Hydra
    reads it. ``null`` and values in quotes are left as they are.
    """

    def quoted(word: str) -> str:
        key, _, value = word.partition("=")
        if key not in keys or value in ("", "null") or value[0] in "'\"":
            return word
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"

    return _rewritten(quoted)


def null_groups(*groups: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Lets ``GROUP=null`` on the command line leave a configuration group out, which Hydra's grammar writes as ``~GROUP``."""
    words = {f"{group}=null": f"~{group}" for group in groups}
    return _rewritten(lambda word: words.get(word, word))


def positional(key: str, others: Mapping[str, tuple[str, Sequence[str]]]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Lets a word without ``=``, such as the name of a file, be the value of a setting.

    Args:
        key: of the setting.
        others: by the name of another configuration, which the word may choose: its setting, and how such words end, in lower
            case.
    """

    def named(word: str) -> list[str]:
        escaped = word.replace("'", "\\'")
        for name, (other, endings) in others.items():
            if word.lower().endswith(tuple(endings)):
                return [f"--config-name={name}", f"{other}='{escaped}'"]
        return [f"{key}='{escaped}'"]

    def decorate(main: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(*config: DictConfig) -> None:
            if not config:
                words = zip(sys.argv, sys.argv[1:], strict=False)
                sys.argv[1:] = [part for option, word in words for part in (named(word) if _bare(option, word) else [word])]
            return main(*config)

        return run

    return decorate


def _bare(before: str, word: str) -> bool:
    """Whether a word is neither a setting, nor an option of Hydra, nor the value of one."""
    return not ("=" in word or word.startswith(("-", "~")) or before in _WITH_VALUE)


def check_keys(command: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Ends a command in one line where a word sets a key that its configuration does not have, such as ``targt=50``.

    Hydra would advise to add it by ``+targt=50``, which nothing reads. Only words without a dot are checked: groups and what
    they hold are Hydra's.
    """

    def decorate(main: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(*config: DictConfig) -> None:
            if not config:
                chosen = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("--config-name=")]
                known = _known_keys(chosen[0] if chosen else command)
                for key in (word.partition("=")[0] for word in sys.argv[1:] if "=" in word):
                    if re.fullmatch(r"[a-z_]+", key) and key not in known:
                        close = difflib.get_close_matches(key, known, 1)
                        advice = f"do you mean {close[0]}=?" if close else f"choose out of {', '.join(sorted(known))}."
                        sys.exit(f"Error: Expected settings of {command}.py, got {key}=: {advice}")
            return main(*config)

        return run

    return decorate


def _known_keys(command: str) -> set[str]:
    """Keys of a command's configuration, and the groups that may be chosen."""
    folder = Path(config_folder())
    content = OmegaConf.load(folder / f"{command}.yaml")
    assert isinstance(content, DictConfig)
    return {str(key) for key in content if key != "defaults"} | {path.name for path in folder.iterdir() if path.is_dir()}


def _rewritten(rewrite: Callable[[str], str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Rewrite each word of the command line before Hydra reads it."""

    def decorate(main: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(*config: DictConfig) -> None:
            if not config:
                sys.argv[1:] = [rewrite(word) for word in sys.argv[1:]]
            return main(*config)

        return run

    return decorate
