import copy
import functools
import itertools
import math

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.training.module import DesignModule, adamw
from matdesinne.training.optimizers import Muon
from matdesinne.training.schedules import warmup_cosine, warmup_exponential

from ..toys import CONF, box, prop, tiny_module, toy_data, trainer


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (warmup_cosine, {"warmup": 1.0}),
        (warmup_cosine, {"warmup": -0.1}),
        (warmup_exponential, {"final": 0.0}),
        (warmup_exponential, {"final": 1.1}),
        (warmup_exponential, {"final": 0.5, "warmup": 1.0}),
    ],
)
def test_schedule_rejects(schedule, settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ConfigError, match="Expected"):
        schedule(optimizer, 100, **settings)


def learning_rates(folder, monkeypatch, scheduler) -> list[float]:
    """Of every step, and of the one that would follow."""
    module = tiny_module(CONF / "surrogate" / "mlp.yaml", box(), [prop()], batch_size=10)
    module.make_optimizer, module.make_scheduler = adamw(lr=1.0), scheduler
    seen = []
    monkeypatch.setattr(
        DesignModule, "on_train_batch_end", lambda task, *_: seen.append(task.optimizers().param_groups[0]["lr"])
    )
    trainer(folder, max_epochs=2).fit(module, datamodule=toy_data(250))
    return seen


def test_learning_rate_rises_and_falls(tmp_path, monkeypatch):
    seen = learning_rates(tmp_path, monkeypatch, functools.partial(warmup_cosine, warmup=0.25))
    peak = seen.index(max(seen))
    assert max(seen) == pytest.approx(1.0)
    assert peak == pytest.approx(0.25 * len(seen), abs=2)
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert seen[peak:] == sorted(seen[peak:], reverse=True)
    assert seen[-1] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("final", [0.02, 1.0])
def test_learning_rate_falls_exponentially(tmp_path, monkeypatch, final):
    seen = learning_rates(
        tmp_path, monkeypatch, lambda optimizer, total_steps: warmup_exponential(optimizer, total_steps, final)
    )
    assert seen[-1] == pytest.approx(final, rel=0.02)
    assert seen[len(seen) // 2] == pytest.approx(math.sqrt(final), rel=0.3)
    ratios = [after / before for before, after in itertools.pairwise(seen)]
    assert min(ratios) == pytest.approx(max(ratios))


def test_no_scheduler_keeps_the_rate(tmp_path, monkeypatch):
    assert set(learning_rates(tmp_path, monkeypatch, None)) == {1.0}


def test_a_scheduler_of_torch_steps_once_an_epoch(tmp_path, monkeypatch):
    seen = learning_rates(tmp_path, monkeypatch, functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5))
    assert sorted(set(seen), reverse=True)[:2] == [1.0, 0.5]


def test_muon_moves_square_matrices_orthogonally(tmp_path):
    module = tiny_module(CONF / "model" / "cinn.yaml", box(), [prop()], depth=3, batch_size=250)
    module.make_optimizer, module.make_scheduler = lambda parameters: Muon(parameters, lr=1e-3), None
    before = [parameter.clone() for parameter in module.parameters()]
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=toy_data(250))
    changes = [(after - old).detach() for after, old in zip(module.parameters(), before, strict=True)]
    square = [change for change in changes if change.ndim == 2 and change.shape[0] == change.shape[1] and change.any()]
    assert square
    for change in square:
        size = len(change)
        # Newton and Schulz's iteration leaves singular values between 0.7 and 1.2 of the rate; a vanishing gradient gives less
        assert torch.linalg.matrix_norm(change, 2) <= 1.3e-3 * size**0.5
        assert change.square().mean().sqrt() > 0.5e-3


def test_muon_moves_all_else_as_adamw():
    start = [torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5)]
    moved = []
    for kind in (Muon, torch.optim.AdamW):
        parameters = [torch.nn.Parameter(value.clone()) for value in start]
        optimizer = kind(parameters, lr=0.1, betas=(0.9, 0.98), weight_decay=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            sum(parameter.square().sum() for parameter in parameters).backward()
            optimizer.step()
        moved.append(parameters)
    for first, second in zip(*moved, strict=True):
        torch.testing.assert_close(first, second)


def test_muon_is_that_of_its_reference():
    """The library's, which iterates in bfloat16."""
    from pytorch_optimizer import Muon as Reference

    start = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = [
        Muon([ours], lr=0.01, weight_decay=0.1),
        Reference([{"params": [theirs], "lr": 0.01 * 4, "weight_decay": 0.1, "use_muon": True}]),
    ]
    for _ in range(3):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (parameter @ start).square().sum().backward()
            optimizer.step()
    assert (ours - theirs).abs().max() < 0.1 * (ours - start).abs().max()


def test_muon_moves_each_matrix_of_a_stack_by_itself():
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(2, 8, 8, generator=generator), torch.randn(3, 2, 8, 8, generator=generator)
    stack = [torch.nn.Parameter(start.clone())]
    single = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    for parameters in (stack, single):
        optimizer = Muon(parameters, lr=0.01, weight_decay=0.1)
        for gradient in gradients:
            for parameter, part in zip(parameters, [gradient] if len(parameters) == 1 else gradient, strict=True):
                parameter.grad = part.clone()
            optimizer.step()
    torch.testing.assert_close(stack[0].detach(), torch.stack([matrix.detach() for matrix in single]))


def test_muon_state_survives_a_checkpoint():
    def made():
        parameters = [torch.nn.Parameter(torch.eye(3)), torch.nn.Parameter(torch.ones(2))]
        return parameters, Muon(parameters, lr=0.1)

    def step(parameters, optimizer):
        optimizer.zero_grad()
        sum((parameter**3).sum() for parameter in parameters).backward()
        optimizer.step()

    parameters, optimizer = made()
    step(parameters, optimizer)
    again, other = made()
    for parameter, value in zip(again, parameters, strict=True):
        parameter.data.copy_(value.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(parameters, optimizer)
    step(again, other)
    assert all(torch.equal(first, second) for first, second in zip(parameters, again, strict=True))
