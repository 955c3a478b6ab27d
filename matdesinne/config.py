"""Where the configurations are, and how a script ends on a mistake of its user."""

from __future__ import annotations

__all__ = ["config_folder", "entry_point", "silence_advice", "verbatim"]

import functools
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from matdesinne.errors import MatDesINNeError

# ${first:a,b}: the first value that is not null
OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v is not None), replace=True)


def config_folder() -> str:
    """The folder of YAML files: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def entry_point(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Make a Hydra task end with one line and a non-zero exit where its user can mend the cause.

    An error that is not the user's keeps its traceback.
    """

    @functools.wraps(function)
    def task(config: DictConfig) -> None:
        silence_advice()
        try:
            function(config)
        except MatDesINNeError as error:
            _stop(str(error))
        except InstantiationException as error:
            _stop(_cause(error))
        except OmegaConfBaseException as error:
            _stop(" ".join(str(error).split()))

    return task


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


def _cause(error: InstantiationException) -> str:
    """The message of our own error beneath Hydra's, or Hydra's in one line."""
    beneath = error.__cause__
    if isinstance(beneath, MatDesINNeError):
        return str(beneath)
    return " ".join(str(error).split())
