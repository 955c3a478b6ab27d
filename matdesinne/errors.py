"""Errors that a user can correct; every message says what was expected, what was found, and what to do."""

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
    """Base class of the errors that MatDesINNe raises for wrong input."""


class ConfigError(MatDesINNeError, ValueError):
    """A setting is missing, unknown, or out of range."""


class DatasetError(MatDesINNeError, ValueError):
    """A data set cannot be read, or does not agree with its declaration."""


class TargetError(MatDesINNeError, ValueError):
    """A target is not a number or an interval that the property can take."""


class CheckpointError(MatDesINNeError, RuntimeError):
    """A file of weights is missing, damaged, or of another kind of network."""


class DeviceError(MatDesINNeError, RuntimeError):
    """The requested accelerator is not available."""


class TrainingError(MatDesINNeError, RuntimeError):
    """A training run cannot continue."""


class EmptyResultError(MatDesINNeError, RuntimeError):
    """No candidate is left after a stage of the pipeline."""


class LabellingError(MatDesINNeError, RuntimeError):
    """A labelling run cannot store its records."""


class InterruptionError(MatDesINNeError, RuntimeError):
    """A run was stopped by a signal; it can be continued from what it has saved."""
