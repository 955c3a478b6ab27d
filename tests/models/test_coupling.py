import pytest
import torch

from matdesinne.models.coupling import SplineCouplingBlock, affine_network, rational_quadratic_spline, spline_network

from ..conftest import perturb

BOUND = 3.0


def network(kind: str, condition: int, dimension: int = 3, size: float = 0.2):
    if kind == "affine":
        made = affine_network(dimension, condition, blocks=3, hidden=8, depth=1)
    else:
        active = int(kind[-1])
        made = spline_network(dimension, condition, blocks=4, hidden=8, depth=1, active=active, bins=5, bound=BOUND)
    made = made.double()
    perturb(made, size)
    return made


@pytest.fixture(params=["affine", "spline 1", "spline 2"])
def kind(request) -> str:
    return request.param


def inputs(condition: int, count: int = 40, dimension: int = 3):
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return x, [torch.randn(count, condition, generator=generator, dtype=torch.float64)] if condition else []


@pytest.mark.parametrize("condition", [0, 2])
def test_inverse(kind, condition, close):
    made = network(kind, condition)
    x, c = inputs(condition)
    z = made(x, c=c or None)[0]
    assert not torch.allclose(z, x, atol=1e-2)
    close(made(z, c=c or None, rev=True)[0], x, factor=1e4)


@pytest.mark.parametrize("condition", [0, 2])
@pytest.mark.parametrize("rev", [False, True], ids=["forward", "inverse"])
def test_log_det_is_the_jacobian(kind, condition, rev, close):
    made = network(kind, condition)
    x, c = inputs(condition, 6)
    log_det = made(x, c=c or None, rev=rev)[1]
    for row in range(len(x)):
        known = [entry[row : row + 1] for entry in c] or None

        def single(value, known=known):
            return made(value.unsqueeze(0), c=known, rev=rev)[0].squeeze(0)

        jacobian = torch.autograd.functional.jacobian(single, x[row])
        close(log_det[row], torch.linalg.slogdet(jacobian).logabsdet, factor=1e3)


def test_log_dets_cancel(kind, close):
    made = network(kind, 2)
    x, c = inputs(2)
    z, forward = made(x, c=c)
    close(forward + made(z, c=c, rev=True)[1], torch.zeros(len(x)), factor=1e3)


def test_condition_matters(kind):
    made = network(kind, 2)
    x, (c,) = inputs(2)
    assert not torch.allclose(made(x, c=[c])[0], made(x, c=[c + 1])[0])


def test_every_coordinate_moves(kind):
    made = network(kind, 2)
    x, c = inputs(2)
    assert ((made(x, c=c)[0] - x).abs().amax(0) > 1e-3).all()


@pytest.mark.parametrize("active", [1, 2])
def test_fresh_spline_network_is_the_identity(active, close):
    made = spline_network(3, 2, blocks=4, hidden=8, depth=1, active=active, bins=5, bound=BOUND).double()
    x, c = inputs(2)
    z, log_det = made(x, c=c)
    close(z, x, factor=100)
    close(log_det, torch.zeros_like(log_det), factor=100)


def test_fresh_spline_block_is_the_identity(close):
    knots = torch.zeros(50, 1, 3 * 8 - 1, dtype=torch.float64)
    x = torch.linspace(-5, 5, 50, dtype=torch.float64).unsqueeze(1)
    y, log_slope = rational_quadratic_spline(x, knots, BOUND)
    close(y, x)
    close(log_slope, torch.zeros_like(x))


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_spline_is_the_identity_outside(inverse):
    knots = torch.randn(4, 1, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.tensor([[-100.0], [-BOUND], [BOUND], [3.5]], dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(x, knots, BOUND, inverse)
    assert torch.equal(y, x)
    assert (log_slope == 0).all()


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_spline_is_monotone(size, inverse):
    knots = size * torch.randn(1, 1, 3 * 6 - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64).unsqueeze(1)
    y, log_slope = rational_quadratic_spline(x, knots.expand(len(x), 1, -1), BOUND, inverse)
    assert (y.diff(dim=0) > 0).all()
    assert log_slope.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 0.1), (torch.float32, 0.5), (torch.float64, 0.5), (torch.float64, 2.0)]
)
def test_spline_inverse(size, dtype, close):
    generator = torch.Generator().manual_seed(0)
    knots = size * torch.randn(500, 2, 3 * 6 - 1, generator=generator, dtype=torch.float64).to(dtype)
    x = 2 * torch.randn(500, 2, generator=generator, dtype=torch.float64).to(dtype)
    y, forward = rational_quadratic_spline(x, knots, BOUND)
    back, inverse = rational_quadratic_spline(y, knots, BOUND, inverse=True)
    close(back, x, factor=1e3)
    close(forward + inverse, torch.zeros_like(x), factor=3e3)


def test_spline_has_the_bound_as_fixed_point(close):
    knots = torch.randn(1, 1, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(2, 1, 14)
    edge = torch.tensor([[-BOUND + 1e-9], [BOUND - 1e-9]], dtype=torch.float64)
    close(rational_quadratic_spline(edge, knots, BOUND)[0], edge, factor=1e3)


def test_spline_gradients_are_finite():
    knots = torch.randn(200, 1, 14, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x = torch.linspace(-5, 5, 200).unsqueeze(1).requires_grad_()
    y, log_slope = rational_quadratic_spline(x, knots, BOUND)
    (y.sum() + log_slope.sum()).backward()
    assert knots.grad.isfinite().all() and x.grad.isfinite().all()


def test_spline_block_leaves_the_passive_coordinates():
    block = SplineCouplingBlock(
        [(3,)], subnet_constructor=lambda inputs, outputs: torch.nn.Linear(inputs, outputs), active=[1], bins=4, bound=BOUND
    )
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    (z,), _ = block([x])
    assert torch.equal(z[:, [0, 2]], x[:, [0, 2]])
    assert not torch.equal(z[:, 1], x[:, 1])
