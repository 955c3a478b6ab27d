"""What `test_devices.py` runs in processes of its own: `python -m tests.several_devices FOLDER DEVICES NAME ...`."""

import os
import signal
import sys
import warnings
from pathlib import Path

import torch

from matdesinne.errors import InterruptionError
from matdesinne.training.fit import fit
from matdesinne.training.module import DesignModule, adamw

from .toys import CONF, make_trainer
from .training.test_resume import BATCH_SIZE, data, module

EPOCHS = 3
NOISELESS = {"target_noise": 0.0, "padding_noise": 0.0, "lambda_z": 0.0, "lambda_x": 0.0}
"""The discrepancies of the INN are no means over rows: two halves of a batch do not give that of the whole."""
STILL = {
    "randn_like": torch.zeros_like,
    "rand_like": torch.zeros_like,
    "multinomial": lambda weights, count: weights.topk(count).indices,
}
"""Instead of the noise of the cVAE and of the CFM, its times, and the drawn k-points of `tight_binding`: both halves of a batch
draw the same."""
STOPPED_AFTER = 3
"""Steps, of which an epoch has two."""


def train(folder: Path, devices: int, name: str) -> None:
    """With two processes half of the rows of a step each."""
    path = CONF / f"{name}.yaml"
    torch.manual_seed(0)
    made = module(path, settings={**NOISELESS, "batch_size": 2 * BATCH_SIZE // devices})
    # SOAP carries the rounding of a sum of two halves into the fourth digit of the loss
    made.make_optimizer = adamw(lr=1e-3)
    trainer = make_trainer(max_epochs=EPOCHS, devices=devices, strategy="ddp" if devices > 1 else "auto")
    fit(made, data(path), trainer, folder / name)


def stop(task: DesignModule, *_: object) -> None:
    """SIGTERM for the first process alone, in the middle of a step."""
    if task.global_step == STOPPED_AFTER - 1 and task.global_rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, still in STILL.items():
        setattr(torch, name, still)
    for name in sys.argv[3:]:
        train(Path(sys.argv[1]), int(sys.argv[2]), name)
    DesignModule.on_after_backward = stop
    try:
        train(Path(sys.argv[1]) / "stopped", int(sys.argv[2]), sys.argv[3])
    except InterruptionError as error:
        print(error)
