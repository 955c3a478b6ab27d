import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.localization import Adam, GradientDescent, MeanGradientDescent, Newton
from matdesinne.space import DesignSpace, Parameter

from .toys import Linear, box, candidates, linear, prop, quadratic, rows, yaml_files

HALF_WIDTHS = torch.tensor([4.0, 0.25])
UNEVEN = DesignSpace([Parameter(f"x{i + 1}", "m", -width, width) for i, width in enumerate(HALF_WIDTHS.tolist())])
SCALED = [Newton(), GradientDescent(rate=0.05, steps=50), Adam(rate=0.05, steps=50)]
SCALED_NAMES = ["newton", "gradient", "adam"]
STOPPING = [Newton(tolerance=0.25), Adam(rate=0.05, tolerance=0.25)]
STOPPING_NAMES = ["newton", "adam"]


class Relative(Linear):
    """y = A u + |u|^2 of designs in half-widths of the box."""

    def member_predictions(self, features):
        return (features @ self.matrix.T + features.square().sum(dim=1, keepdim=True)).unsqueeze(0)


class Root(Linear):
    """y = sign(x) |x|^power: the root of the tangent lies on the other side, farther away for a power below 1/2."""

    def __init__(self, power: float) -> None:
        super().__init__(box(1), [prop()], [[1.0]])
        self.power = power

    def member_predictions(self, features):
        x = self.features.scale.inverse(features)
        return (x.sign() * x.abs().pow(self.power)).unsqueeze(0)


@pytest.fixture
def evaluations(monkeypatch) -> list[int]:
    """Number of rows of each evaluation of a surrogate with its slope."""
    calls, linearize = [], Linear.linearize
    monkeypatch.setattr(Linear, "linearize", lambda self, x: calls.append(len(x)) or linearize(self, x))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("method", SCALED, ids=SCALED_NAMES)
@pytest.mark.parametrize("value", [0.6, 50.0])
def test_path_is_independent_of_units(method, value, close):
    unit, other = (Relative(space, [prop()], [[0.5, 0.3]]).eval() for space in (box(), UNEVEN))
    x = rows(box(), 16, seed=1).x
    expected = method.localize(candidates(unit, x, value), unit)
    moved = method.localize(candidates(other, x * HALF_WIDTHS, value), other)
    close(moved.designs / HALF_WIDTHS, expected.designs)


@pytest.mark.parametrize("kind", [Newton, GradientDescent, Adam, MeanGradientDescent])
def test_defaults_are_those_of_the_configuration(kind):
    configs = map(OmegaConf.load, yaml_files("localization"))
    [made] = [instantiate(config) for config in configs if config.get("_target_", "").endswith(f".{kind.__name__}")]
    assert vars(kind()) == vars(made)


@pytest.mark.parametrize("method", STOPPING, ids=STOPPING_NAMES)
def test_row_at_the_tolerance_stays(method):
    surrogate, x = linear(), torch.tensor([[0.5, 0.25]])
    table = candidates(surrogate, x, 0.5)
    assert table.error.item() == method.tolerance
    assert torch.equal(method.localize(table, surrogate).designs, x)


@pytest.mark.parametrize("method", STOPPING, ids=STOPPING_NAMES)
def test_rows_that_are_there_cost_one_evaluation(method, evaluations):
    surrogate = linear()
    method.localize(candidates(surrogate, torch.zeros(3, 2), 0.1), surrogate)
    assert evaluations == [3]


@pytest.mark.slow
@pytest.mark.parametrize("method", STOPPING, ids=STOPPING_NAMES)
def test_only_rows_that_are_not_there_are_evaluated_again(method, evaluations):
    surrogate = linear()
    method.localize(candidates(surrogate, torch.tensor([[0.0, 0.0], [0.9, 0.9]]), 0.1), surrogate)
    assert evaluations[0] == 2
    assert set(evaluations[1:]) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("method", STOPPING, ids=STOPPING_NAMES)
def test_two_properties_of_one_row(method):
    """A batch of one design with two properties is like any other."""
    surrogate = linear(3, outputs=2)
    table = candidates(surrogate, rows(box(3), 8).x, [0.5, -0.2])
    together = method.localize(table, surrogate)
    alone = [method.localize(table.take(torch.tensor([row])), surrogate).designs for row in range(len(table))]
    torch.testing.assert_close(torch.cat(alone), together.designs)


def test_newton_with_one_evaluation_tells_the_error_of_the_start():
    surrogate, x = linear(), torch.tensor([[0.5, 0.25]])
    moved = Newton(steps=1).localize(candidates(surrogate, x, 0.5), surrogate)
    assert torch.equal(moved.designs, x)
    assert moved.error.item() == 0.25


def test_newton_stops_within_its_tolerance():
    surrogate = quadratic()
    moved = Newton(tolerance=1e-2).localize(candidates(surrogate, rows(box(), 64, seed=1).x, 0.6), surrogate)
    assert 1e-3 < moved.error.max() <= 1e-2


def test_newton_halves_a_step_that_does_not_help():
    surrogate = Root(0.5).eval()
    moved = Newton(steps=3, longest_step=1.0).localize(candidates(surrogate, torch.tensor([[0.25]]), 0.0), surrogate)
    assert moved.designs.item() == 0.0


@pytest.mark.slow
def test_newton_keeps_no_design_that_is_worse():
    surrogate = Root(1 / 3).eval()
    table = candidates(surrogate, torch.tensor([[0.125]]), 0.0)
    errors = [
        Newton(steps=steps, longest_step=1.0).localize(table, surrogate).error.item() for steps in (1, 2, 3, 5, 10, 20, 40)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_newton_at_a_bound_leaves_the_whole_step_to_the_others(side, close):
    surrogate = linear()
    x = side * torch.tensor([[1.0, 0.0]])
    moved = Newton(steps=2, longest_step=1.0).localize(candidates(surrogate, x, side * 1.5), surrogate)
    close(moved.designs, side * torch.tensor([[1.0, 0.5]]))


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_newton_goes_inwards_from_a_bound(side, close):
    surrogate = linear()
    moved = Newton(steps=2, longest_step=1.0).localize(candidates(surrogate, torch.full((1, 2), side), side), surrogate)
    close(moved.designs, torch.full((1, 2), side / 2))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_newton_solves_for_two_properties_beside_bounds(seed, generator):
    """Holding one coordinate may turn another one outwards."""
    generator.manual_seed(seed)
    matrix = torch.randn(2, 7, generator=generator)
    surrogate = Linear(box(7), [prop("y"), prop("w")], matrix.tolist()).eval()
    x = 0.1 * torch.randn(1, 7, generator=generator)
    x[:, :4] = torch.randn(1, 4, generator=generator).sign()
    wanted = (x @ matrix.T + 0.02 * torch.randn(1, 2, generator=generator))[0].tolist()
    moved = Newton(steps=2).localize(candidates(surrogate, x, wanted), surrogate)
    assert moved.error.max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("slope", [1e-7, 1e-6, 1e-5, 1e-3])
def test_newton_goes_downhill_on_a_slight_slope(slope, outputs):
    surrogate = linear(3, outputs).double()
    surrogate.matrix.mul_(slope)
    table = candidates(surrogate, torch.zeros(1, 3, dtype=torch.float64), [0.5] * outputs if outputs > 1 else 0.5)
    assert (Newton().localize(table, surrogate).error < table.error).all()


def test_adam_is_that_of_torch(close):
    """In half-widths of the box, the rate along half a cosine; the slopes are so slight that Adam's epsilon counts."""
    surrogate = Linear(UNEVEN, [prop()], [[1e-4, -1e-3]]).eval().double()
    x = 0.5 * rows(UNEVEN, 16, seed=1).x.double()
    scale = HALF_WIDTHS.double()
    u = (x / scale).requires_grad_()
    optimizer = torch.optim.Adam([u], lr=0.02, betas=(0.8, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for _ in range(10):
        optimizer.zero_grad()
        (surrogate.predict(u * scale)[0] - 3e-4).square().sum().backward()
        optimizer.step()
        schedule.step()
    moved = Adam(rate=0.02, steps=10, decay=(0.8, 0.9), tolerance=1e-12).localize(candidates(surrogate, x, 3e-4), surrogate)
    close(moved.designs / scale, u.detach())


def test_adam_without_memory_moves_each_coordinate_by_its_rate(close):
    surrogate, x = linear(), torch.tensor([[0.1, -0.2]])
    moved = Adam(rate=0.01, steps=2, decay=(0.0, 0.0)).localize(candidates(surrogate, x, 50.0), surrogate)
    close(moved.designs, x + 0.01 * (1.0 + 0.5))
