"""Training of models and surrogates with Lightning, which this file itself does not import."""

__all__ = ["silence_advice"]

import logging
import warnings


def silence_advice() -> None:
    """Hides Lightning's advice about data loaders and services that are not used here."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning.utilities._pytree")
