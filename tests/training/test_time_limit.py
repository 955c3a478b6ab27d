import time

import pytest
import pytorch_lightning as pl

from matdesinne.errors import ConfigError
from matdesinne.training.fit import fit
from matdesinne.training.time_limit import TimeLimit

from ..toys import CONF, box, make_trainer, prop, tiny_module, toy_data


class Rates(pl.Callback):
    """The learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def trained(tmp_path, limit: TimeLimit, epochs: int) -> list[float]:
    module = tiny_module(CONF / "model" / "mdn.yaml", box(), [prop()], batch_size=32, scheduler=None)
    rates = Rates()
    fit(module, toy_data(), make_trainer(max_epochs=epochs), tmp_path, callbacks=[limit, rates])
    return rates.seen


@pytest.mark.slow
def test_training_ends_in_time(tmp_path):
    start = time.process_time()
    seen = trained(tmp_path, TimeLimit(0.5), 100_000)
    assert time.process_time() - start < 5
    assert max(seen) == pytest.approx(1e-2, rel=0.1) and seen[-1] < 1e-3


def test_rate_falls_to_zero_where_the_epochs_end_sooner(tmp_path):
    seen = trained(tmp_path, TimeLimit(1000, warmup=0.25), 4)
    rise = len(seen) // 4
    assert seen[: rise + 1] == sorted(seen[: rise + 1]) and seen[rise:] == sorted(seen[rise:], reverse=True)
    assert seen[-1] < 0.05 * max(seen)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": 1, "warmup": 1}])
def test_wrong_limits(wrong):
    with pytest.raises(ConfigError, match="seconds > 0"):
        TimeLimit(**wrong)


@pytest.mark.parametrize(("rows", "epochs"), [(1_350_000, 11), (1_440_000, 11), (30_000, 60), (100, 60)])
def test_epochs_of_the_cinn_follow_the_rows(rows, epochs):
    assert tiny_module(CONF / "model" / "cinn.yaml", box(), [prop()]).epochs(rows) == epochs


def test_without_a_number_of_steps_the_epochs_are_as_stated():
    module = tiny_module(CONF / "model" / "cinn.yaml", box(), [prop()], max_steps=None)
    assert module.epochs(10**9) == 60
