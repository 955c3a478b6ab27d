"""Where the configurations are, and how a script ends on a mistake of its user."""

from __future__ import annotations

__all__ = ["OutputFolder", "by_name", "check_numbers", "config_folder", "entry_point", "silence_advice", "verbatim"]

import functools
import logging
import math
import numbers
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from matdesinne.errors import ConfigError, InterruptionError, MatDesINNeError

T = TypeVar("T")

# ${first:a,b}: the first value that is not null
OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v is not None), replace=True)


def _sweep_name() -> str | None:
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None


# ${sweep_name:}: what the jobs of a sweep share; null for a single run
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)


def config_folder() -> str:
    """The folder of YAML files: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def entry_point(function: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Make a Hydra task end with one line and a non-zero exit where its user can mend the cause.

    An error that is not the user's keeps its traceback.
    """

    @functools.wraps(function)
    def task(config: DictConfig) -> T:
        silence_advice()
        try:
            return function(config)
        except InterruptionError as error:  # of a sweep, too
            sys.exit(f"Error: {error}")
        except MatDesINNeError as error:
            _stop(str(error))
        except InstantiationException as error:
            _stop(_cause(error))
        except OmegaConfBaseException as error:
            _stop(" ".join(str(error).split()))
        except OSError as error:
            _stop(_file_error(error))

    return task


class OutputFolder(Callback):
    """Make the folder of a run, or of a sweep, before Hydra does: Hydra has only a traceback for one that cannot be written."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Try the folder of a single run."""
        _try_folder(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Try the folder of a sweep."""
        _try_folder(Path(config.hydra.sweep.dir))


def check_numbers(config: DictConfig, least: Mapping[str, float], most: float = 2**32 - 1) -> None:
    """Check numbers that a user may have set, before any work.

    Args:
        config: holds them.
        least: by the name of a setting (dots lead into groups) the smallest value; a whole number where it is an ``int``.
            A setting that is ``None`` is left out.
        most: the largest value of all.

    Raises:
        ConfigError: naming the first that is no number, or out of its range.
    """
    for name, lowest in least.items():
        value = OmegaConf.select(config, name)
        if value is None:
            continue
        kind = numbers.Integral if isinstance(lowest, int) else numbers.Real
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not (fits and math.isfinite(value) and lowest <= value <= most):
            whole = "a whole number" if isinstance(lowest, int) else "a number"
            raise ConfigError(f"Expected {name} as {whole} from {lowest:g} to {most:g}, got {value!r}: correct {name}=.")


def verbatim(*keys: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Let the values of some keys stand on the command line as they are: Hydra's own grammar has no ``<`` and no ``=``.

    Args:
        keys: whose values are text; ``null`` and what is in quotes is left as it is.
    """

    def decorate(main: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(*config: DictConfig) -> None:
            sys.argv[1:] = [_quoted(word, keys) for word in sys.argv[1:]]
            main(*config)

        return run

    return decorate


def _quoted(word: str, keys: tuple[str, ...]) -> str:
    key, _, value = word.partition("=")
    if key not in keys or value in ("", "null") or value[0] in "'\"":
        return word
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def silence_advice() -> None:
    """Keep Lightning's advice to itself: it is about loaders and services that are not used here."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning.utilities._pytree")


def _stop(reason: str) -> NoReturn:
    """End the program with one line; in a sweep end this job only, the others go on."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise CompactHydraException(f"Error: {reason}") from None
    sys.exit(f"Error: {reason}")


def by_name(config: DictConfig, name: str) -> dict[str, Any]:
    """A setting that gives values by the names of parameters; nothing where it is null.

    Raises:
        ConfigError: if it is something else.
    """
    content = {} if config[name] is None else config[name]
    if not isinstance(content, Mapping):
        raise ConfigError(f"Expected {name} by the names of parameters, got {content!r}: e.g. {name}={{a: ...}}.")
    return {str(key): OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in content.items()}


def _try_folder(folder: Path) -> None:
    """Make a folder and write as much as Hydra's own files take."""
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(1 << 16))
        probe.unlink()
    except OSError as error:
        probe.unlink(missing_ok=True) if folder.is_dir() else None
        sys.exit(f"Error: {_file_error(error)}")


def _file_error(error: OSError) -> str:
    return (
        f"Expected files that can be read and written, got {error.strerror or error} ({error.filename or 'no name'}): free "
        "space, correct permissions, or choose another folder; files that were whole before are so still."
    )


def _cause(error: InstantiationException) -> str:
    """The message of our own error beneath Hydra's, or Hydra's in one line."""
    beneath = error.__cause__
    if isinstance(beneath, MatDesINNeError):
        return str(beneath)
    return f"Expected settings that fit, got: {' '.join(str(error).split())}"
