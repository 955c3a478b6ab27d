"""What the LightningModules share: steps, logging, optimizer and scheduler, checkpoints of plain containers."""

from __future__ import annotations

__all__ = ["DesignModule", "InverseModule", "LikelihoodModule", "TrainingOptions", "adamw", "training_options"]

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import ClassVar, Generic, TypedDict, TypeVar, Unpack

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError, TrainingError
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.network import Batch, DesignNetwork, check_at_least, network_from_config
from matdesinne.training.checkpoints import LastCheckpoint
from matdesinne.training.schedules import warmup_cosine

N = TypeVar("N", bound=DesignNetwork)
M = TypeVar("M", bound=InverseModel)
D = TypeVar("D", bound=DensityModel)

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[..., LRScheduler]


class TrainingOptions(TypedDict, total=False):
    """How a module is trained; the trainer's own ``max_epochs`` and ``gradient_clip_val`` come first."""

    optimizer: MakeOptimizer  #: makes the optimizer of some parameters
    scheduler: MakeScheduler | None  #: makes the scheduler of an optimizer, with `total_steps` where it takes that argument
    batch_size: int  #: rows of a training step
    max_epochs: int  #: largest number of passes over the training rows
    max_steps: int | None  #: training steps after whose epoch the training ends; ``None`` for `max_epochs` alone
    gradient_clip_val: float | None  #: largest norm of the gradient; ``None`` for no clipping


class DesignModule(pl.LightningModule, ABC, Generic[N]):
    """Trains one network on the batches of a `DesignDataModule`.

    A subclass fills `losses` and states its `defaults`. Its checkpoints hold plain containers, so that Lightning's
    ``load_from_checkpoint(path)`` needs no pickle; it makes a module with the default optimizer and scheduler.

    Args:
        network: what is trained, in place; or its description, from which a checkpoint makes it again.
        options: see `TrainingOptions`; the `defaults` of the class where one is omitted.

    Raises:
        ConfigError: if an option is out of range.
    """

    defaults: ClassVar[TrainingOptions]
    """The training options of the configuration in ``conf``."""
    trains_in_parts = False
    """Whether a step leaves parameters without a gradient; with several processes DDP must be told."""

    def __init__(self, network: N | Mapping[str, object], **options: Unpack[TrainingOptions]) -> None:
        super().__init__()
        unknown = sorted(options.keys() - TrainingOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {unknown[0]!r}")
        chosen: TrainingOptions = {**self.defaults, **options}
        self.make_optimizer, self.make_scheduler = chosen["optimizer"], chosen["scheduler"]
        self.batch_size, self.max_epochs = chosen["batch_size"], chosen["max_epochs"]
        self.gradient_clip_val = chosen["gradient_clip_val"]
        self.max_steps = chosen.get("max_steps")
        check_at_least(1, batch_size=self.batch_size, max_epochs=self.max_epochs, max_steps=self.max_steps or 1)
        clip = self.gradient_clip_val
        if clip is not None and not (isinstance(clip, int | float) and clip > 0):
            raise ConfigError(f"Expected gradient_clip_val > 0, got {clip!r}: correct gradient_clip_val.")
        self.network: N = network_from_config(network) if isinstance(network, Mapping) else network  # type: ignore[assignment]
        self.save_hyperparameters(ignore=["network", "optimizer", "scheduler"])  # the arguments of the subclass
        numbers = {name: getattr(self, name) for name in ("batch_size", "max_epochs", "max_steps", "gradient_clip_val")}
        self.save_hyperparameters({**numbers, "network": self.network.to_config()})
        self._bad_step: Tensor | None = None

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss under ``"loss"`` and its terms under their own names, as scalars.

        Where a step minimises something else than the loss, such as one of its terms, that stands under ``"objective"``.
        """

    def rows(self, batch: Batch) -> int:
        """Number of rows over which `losses` takes means; batches, and processes, count by it."""
        return len(batch.x)

    def setup(self, stage: str) -> None:
        """Learn the scales from the training rows, and tell the data module the size of a batch."""
        if stage in ("fit", "validate"):
            data = self._data()
            data.batch_size = self.batch_size
            if stage == "fit":
                self.fit_scales(data)

    def fit_scales(self, data: DesignDataModule) -> None:
        """Learn what is not trained by gradients."""
        self.network.fit_scales(data.training_batch())

    def epochs(self, rows: int) -> int:
        """Passes over so many training rows: `max_epochs`, or fewer if these make more than `max_steps`."""
        if self.max_steps is None:
            return self.max_epochs
        return min(self.max_epochs, math.ceil(self.max_steps / max(rows // self.batch_size, 1)))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a scheduler of its rate for each step or, for one without ``total_steps``, each epoch."""
        name = type(self.network).__name__
        try:
            optimizer = self.make_optimizer(self.network.parameters())
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Expected settings of the optimizer of {name} that fit, got: {error}: correct optimizer."
            ) from error
        if self.make_scheduler is None:
            return optimizer
        takes_steps = "total_steps" in inspect.signature(self.make_scheduler).parameters
        steps = {"total_steps": max(int(self.trainer.estimated_stepping_batches), 1)} if takes_steps else {}
        scheduler = self.make_scheduler(optimizer, **steps)
        interval = "step" if takes_steps else "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; the loss and its terms are logged once an epoch."""
        try:
            losses = self.losses(batch)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # of a matrix that is not finite
            raise self._not_finite("training", str(error), self.global_step) from error
        objective = losses.pop("objective", losses["loss"]) * self._share(batch)
        self._log_losses("train", losses, batch)
        step = torch.where(objective.detach().isfinite(), -1, self.global_step)
        self._bad_step = step if self._bad_step is None else torch.where(self._bad_step < 0, step, self._bad_step)
        if objective.device.type == "cpu":  # elsewhere a look at every step would hold up the device
            self._check_training_loss()
        return objective

    def on_train_epoch_end(self) -> None:
        """Stop before a checkpoint of weights that are not finite."""
        self._check_training_loss()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same losses on validation rows."""
        losses = self.losses(batch)
        losses.pop("objective", None)
        self._log_losses("val", losses, batch)

    def on_validation_epoch_end(self) -> None:
        """Stop where the loss cannot be compared any more."""
        value = self.trainer.callback_metrics.get("val/loss")
        if value is not None and not value.isfinite():
            raise self._not_finite("validation", f"{value:g}", self.global_step)

    def _data(self) -> DesignDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, DesignDataModule):
            raise ConfigError(f"Expected a DesignDataModule to train on, got {type(data).__name__}: give it as datamodule=.")
        return data

    def _log_losses(self, stage: str, losses: Mapping[str, Tensor], batch: Batch) -> None:
        named = {f"{stage}/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=self.rows(batch), prog_bar=stage == "val", sync_dist=True)

    def _check_training_loss(self) -> None:
        if self._bad_step is not None and self._bad_step >= 0:
            raise self._not_finite("training", "a loss that is not", int(self._bad_step))

    def _not_finite(self, stage: str, got: str, step: int) -> TrainingError:
        checkpoints = [callback.path for callback in self.trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]
        kept = [str(path) for path in checkpoints if path.is_file()]
        return TrainingError(
            f"Expected a finite {stage} loss of {type(self.network).__name__}, got {got} in step {step} (epoch "
            f"{self.current_epoch}): lower optimizer.lr or check the data; last good checkpoint: "
            f"{kept[0] if kept else 'none yet'}."
        )

    def _share(self, batch: Batch) -> float | Tensor:
        """Weight of this process's rows in the mean over all processes, which average their gradients."""
        if self.trainer.world_size == 1:
            return 1.0
        rows = torch.tensor(float(self.rows(batch)), device=self.device)
        mean = self.trainer.strategy.reduce(rows.clone(), reduce_op="mean")
        return rows / mean.clamp_min(1 / self.trainer.world_size)


class InverseModule(DesignModule[M]):
    """Trains a generative model; a subclass fills `standard_losses`."""

    @abstractmethod
    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """`losses` of designs u and targets v in standardised coordinates."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of designs given noisy properties; in validation the noise is the same in every epoch."""
        generator = None if self.training else torch.Generator(batch.y.device).manual_seed(0)
        y = self.network.add_target_noise(batch.y, generator)
        return self.standard_losses(*self.network.standardize(batch.x, y))

    def fit_scales(self, data: DesignDataModule) -> None:
        """Learn the scales, and property values of the prior for targets that are intervals."""
        rows = data.training_rows  # without those of similar materials, which would be read for nothing
        self.network.fit_scales(Batch(rows.x, rows.y, rows.bands), data.prior)


class LikelihoodModule(InverseModule[D]):
    r"""Trains a model whose density is known by maximum likelihood: loss :math:`-\log p(u | y)`."""

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Negative log-likelihood."""
        return {"loss": -self.network.standard_log_prob(u, v).mean()}


def adamw(lr: float, weight_decay: float = 0.0) -> MakeOptimizer:
    """The AdamW that the defaults of most modules name."""
    return partial(torch.optim.AdamW, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)


def training_options(
    optimizer: MakeOptimizer,
    *,
    warmup: float,
    batch_size: int,
    max_epochs: int,
    gradient_clip_val: float,
    max_steps: int | None = None,
) -> TrainingOptions:
    """The `defaults` of a module whose learning rate follows `warmup_cosine`."""
    options: TrainingOptions = {
        "optimizer": optimizer,
        "scheduler": partial(warmup_cosine, warmup=warmup),
        "batch_size": batch_size,
        "max_epochs": max_epochs,
        "gradient_clip_val": gradient_clip_val,
    }
    return options if max_steps is None else {**options, "max_steps": max_steps}
