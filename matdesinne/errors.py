"""Errors that a user can act on: every message says what was expected, what came, and what to do."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "DeviceError",
    "EmptyResultError",
    "InterruptionError",
    "LabellingError",
    "MatDesINNeError",
    "TargetError",
    "TrainingError",
]


class MatDesINNeError(Exception):
    """Base of every error that MatDesINNe raises on purpose."""


class ConfigError(MatDesINNeError, ValueError):
    """A setting is missing, unknown, or out of its range."""


class DatasetError(MatDesINNeError, ValueError):
    """A data set cannot be read or breaks its own declaration."""


class TargetError(MatDesINNeError, ValueError):
    """A target is not a number or an interval that the property can take."""


class CheckpointError(MatDesINNeError, RuntimeError):
    """A file of weights is missing, damaged, or belongs to something else."""


class DeviceError(MatDesINNeError, RuntimeError):
    """The requested accelerator is not there."""


class TrainingError(MatDesINNeError, RuntimeError):
    """A training run cannot go on."""


class EmptyResultError(MatDesINNeError, RuntimeError):
    """No candidate survived a stage of the pipeline."""


class LabellingError(MatDesINNeError, RuntimeError):
    """A labelling run cannot keep its records."""


class InterruptionError(MatDesINNeError, RuntimeError):
    """A run was told to stop; what it has kept lets it go on."""
