"""Where the configurations are, and how a script ends on a mistake of its user."""

from __future__ import annotations

__all__ = ["config_folder", "entry_point", "silence_advice"]

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

from matdesinne.errors import InterruptionError, MatDesINNeError

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
        except InterruptionError as error:  # of a sweep, too
            sys.exit(f"Error: {error}")
        except MatDesINNeError as error:
            _stop(str(error))
        except InstantiationException as error:
            _stop(_cause(error))
        except OmegaConfBaseException as error:
            _stop(" ".join(str(error).split()))

    return task


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
