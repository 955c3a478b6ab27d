"""What `test_devices.py` runs in processes of its own: `python -m tests.several_devices FOLDER DEVICES NAME ...`."""

import sys
import warnings
from pathlib import Path

import torch

from matdesinne.training import fit

from .conftest import CONF, trainer_config
from .test_resume import BATCH_SIZE, data, module

EPOCHS = 3
NOISELESS = {"target_noise": 0.0, "padding_noise": 0.0, "lambda_z": 0.0, "lambda_x": 0.0}
"""The discrepancies of the INN are no means over rows: two halves of a batch do not give that of the whole."""


def train(folder: Path, devices: int, name: str) -> None:
    """With two processes half of the rows of a step each."""
    path = CONF / f"{name}.yaml"
    torch.manual_seed(0)
    made = module(path, settings=NOISELESS)
    object.__setattr__(made.optimization, "batch_size", 2 * BATCH_SIZE // devices)
    config = trainer_config(max_epochs=EPOCHS, devices=devices, strategy="ddp" if devices > 1 else "auto")
    fit(made, data(path), config, folder / name, None)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.randn_like = torch.zeros_like  # the latent noise of the cVAE
    for name in sys.argv[3:]:
        train(Path(sys.argv[1]), int(sys.argv[2]), name)
