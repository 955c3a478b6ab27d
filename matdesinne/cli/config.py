"""Where the configurations are, and how a command starts and ends."""

from __future__ import annotations

__all__ = ["OutputFolder", "composed", "config_folder", "entry_point"]

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from matdesinne.errors import InterruptionError, MatDesINNeError
from matdesinne.training import silence_advice
from matdesinne.trust import trusting

T = TypeVar("T")


def _sweep_name() -> str | None:
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None


# ${first:a,b} is the first value that is not null
OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v is not None), replace=True)
# ${stem:path} is the name of a file without folder and ending
OmegaConf.register_new_resolver("stem", lambda path: Path(path).stem, replace=True)
# ${sweep_name:} is the name that the jobs of a sweep share, null for a single run
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)


def config_folder() -> str:
    """Returns the folder of YAML files: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def composed(name: str, words: Sequence[str]) -> DictConfig:
    """Returns the configuration of another command, as the words of its command line change it."""
    running = GlobalHydra.instance().is_initialized()
    with nullcontext() if running else initialize_config_dir(config_folder(), version_base="1.3"):
        return compose(name, list(words))


def entry_point(function: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Makes a Hydra task end with one line and a non-zero status if the user can correct the cause, else with a traceback.

    Classes of the packages in the setting ``trusted`` may be used within it.
    """

    @functools.wraps(function)
    def task(config: DictConfig) -> T:
        silence_advice()
        try:
            with trusting(_named_packages(config)):
                return function(config)
        except InterruptionError as error:  # ends a whole sweep, too
            sys.exit(f"Error: {error}")
        except MatDesINNeError as error:
            _stop(str(error))
        except InstantiationException as error:
            _stop(_instantiation_error(error))
        except MissingMandatoryValue as error:
            _stop(f"Expected a value of {error.full_key}, got none: give {error.full_key}=VALUE.")
        except OmegaConfBaseException as error:
            _stop(_one_line(error))
        except OSError as error:
            _stop(_file_error(error))

    return task


def _named_packages(config: DictConfig) -> Sequence[str]:
    """Returns what ``trusted=`` on the command line names."""
    named = config.get("trusted") or []
    return named if isinstance(named, str | Sequence) else [named]


class OutputFolder(Callback):
    """Makes the folder of a run or a sweep before Hydra does, because Hydra shows a traceback if it cannot be written."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Makes the folder of a single run."""
        _try_folder(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Makes the folder of a sweep."""
        _try_folder(Path(config.hydra.sweep.dir))


def _stop(reason: str) -> NoReturn:
    """Ends the program with one line; in a sweep it ends this job only and the other jobs continue."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise CompactHydraException(f"Error: {reason}") from None
    sys.exit(f"Error: {reason}")


def _try_folder(folder: Path) -> None:
    """Makes a folder and writes a file of the size of Hydra's own files to it."""
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(1 << 16))
        probe.unlink()
    except OSError as error:
        if folder.is_dir():
            probe.unlink(missing_ok=True)
        sys.exit(f"Error: {_file_error(error)}")


def _file_error(error: OSError) -> str:
    return (
        f"Expected files that can be read and written, got {error.strerror or error} ({error.filename or 'no name'}): free "
        "space, correct permissions, or choose another folder; files that were complete before are unchanged."
    )


def _instantiation_error(error: InstantiationException) -> str:
    """Returns one line: the message of this package's error beneath Hydra's, or which object did not take its settings."""
    cause = error.__cause__
    if isinstance(cause, MatDesINNeError):
        return str(cause)
    reason, _, key = _one_line(error).partition(" full_key: ")
    advice = f"correct {key.rstrip('0123456789') or 'them'}."  # Hydra appends the place in a list to its key
    target = re.match(r"Error in call to target '(\S+)'", reason)
    if target is None:
        return f"Expected settings that fit, got: {reason.partition(', set env var')[0]}: {advice}"
    return f"Expected settings that {target[1]} takes, got {_argument_error(target[1], cause)}: {advice}"


def _argument_error(target: str, cause: BaseException | None) -> str:
    """Returns the name of an argument that a class does not take, with those that it does, or the error as it is."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
    if unknown is None:
        return f"{type(cause).__name__} ({cause})"
    try:
        known = list(inspect.signature(get_object(target)).parameters)
    except (TypeError, ValueError, ImportError):
        return f"{unknown[1]!r}"
    return f"{unknown[1]!r}, which is none of {', '.join(known)}{_suggestion(unknown[1], known)}"


def _suggestion(wrong: str, known: Sequence[str]) -> str:
    """Returns which of some names may be meant."""
    begun = [name for name in known if len(wrong) > 2 and name.startswith(wrong)]
    close = begun or difflib.get_close_matches(wrong, known, 1)
    return f" (do you mean {close[0]}?)" if close else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
