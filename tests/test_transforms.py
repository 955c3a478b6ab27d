import math

import pytest
import torch
from torch.distributions import Normal

from matdesinne.space import DesignSpace, Parameter
from matdesinne.transforms import BoxScaler, DesignTransform, PhysicalUnits, Standardizer, TargetFeatures

from .toys import box

MIXED = DesignSpace([Parameter("a", "m", 2.0, 5.0), Parameter("b", "m"), Parameter("c", "m", lower=0.0)])


def mixed_rows(dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(200, 3, generator=generator, dtype=torch.float64)
    return (torch.tensor([2.0, -7.0, 0.0]) + unit * torch.tensor([3.0, 20.0, 1e-2])).to(dtype)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def transform(request) -> tuple[DesignTransform, torch.Tensor]:
    x = mixed_rows(request.param)
    made = DesignTransform(MIXED).to(request.param)
    made.fit(x)
    return made, x


def test_standardizer_moments(close):
    x = mixed_rows()
    scale = Standardizer(3).double()
    scale.fit(x)
    close(scale(x).mean(0), torch.zeros(3))
    close(scale(x).std(0, correction=0), torch.ones(3))


def test_standardizer_inverse(close):
    x = mixed_rows()
    scale = Standardizer(3).double()
    scale.fit(x)
    close(scale.inverse(scale(x)), x)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6 / 3, -273.15])
@pytest.mark.parametrize("count", [2, 1001])
def test_standardizer_keeps_the_unit_of_a_constant(value, count):
    scale = Standardizer(1)
    scale.fit(torch.full((count, 1), value))
    assert scale.std.item() == 1.0


def test_standardizer_fits_one_row():
    scale = Standardizer(1)
    scale.fit(torch.tensor([[3.0]]))
    assert (scale.mean.item(), scale.std.item()) == (3.0, 1.0)


def test_standardizer_learns_from_the_rows_without_nan(close):
    x = mixed_rows()
    holes = x.clone()
    holes[::3, 1] = math.nan
    scale, expected = Standardizer(3).double(), Standardizer(3).double()
    scale.fit(holes)
    expected.fit(x[holes[:, 1].isfinite()])
    close(scale.mean, expected.mean)
    close(scale.std, expected.std)


def test_transform_inverse(transform, close):
    made, x = transform
    close(made.inverse(made(x)), x, factor=10)


def test_transform_log_det_is_the_jacobian(transform, close):
    made, x = transform
    if x.dtype == torch.float32:
        pytest.skip("autograd reference in float64 only")
    for row in x[:5]:
        jacobian = torch.autograd.functional.jacobian(lambda v: made(v.unsqueeze(0)).squeeze(0), row)
        close(made.log_det(row.unsqueeze(0))[0], torch.linalg.slogdet(jacobian).logabsdet, factor=10)


def test_transform_makes_uniform_normal(generator):
    x = box().sample(20_000, generator)
    u = DesignTransform(box())(x)
    assert u.mean(0).abs().max() < 0.03
    assert (u.std(0) - 1).abs().max() < 0.03


def test_transform_is_the_normal_quantile(close):
    x = torch.tensor([[-0.5, 0.9]], dtype=torch.float64)
    close(DesignTransform(box()).double()(x), Normal(0.0, 1.0).icdf((x + 1) / 2), factor=1e3)


@pytest.mark.parametrize("u", [-100.0, -6.0, 6.0, 100.0])
def test_transform_inverse_stays_inside(u):
    x = DesignTransform(box()).inverse(torch.full((1, 2), u))
    assert box().contains(x, tolerance=0).all()


def test_transform_is_finite_at_the_bounds():
    u = DesignTransform(box())(torch.tensor([[-1.0, 1.0]]))
    assert u.isfinite().all()


def test_transform_is_independent_of_units(close):
    x = mixed_rows()
    tenfold = DesignSpace([Parameter(p.name, p.unit, 10 * p.lower, 10 * p.upper) for p in MIXED.parameters])
    first, second = DesignTransform(MIXED).double(), DesignTransform(tenfold).double()
    first.fit(x)
    second.fit(10 * x)
    close(second(10 * x), first(x), factor=10)


def test_transform_state_is_complete():
    state = DesignTransform(MIXED).state_dict()
    assert {"lower", "upper", "bounded", "standardize.mean", "standardize.std"} == set(state)


def test_box_scaler_maps_the_box_to_one(close):
    scale = BoxScaler(MIXED).double()
    scale.fit(mixed_rows())
    close(scale(torch.tensor([[2.0, 0.0, 0.0], [5.0, 0.0, 0.0]], dtype=torch.float64))[:, 0], [-1.0, 1.0])


def test_box_scaler_standardizes_the_rest(close):
    x = mixed_rows()
    scale = BoxScaler(MIXED).double()
    scale.fit(x)
    close(scale(x)[:, 1:].std(0, correction=0), torch.ones(2))


@pytest.mark.parametrize(("dimension", "frequencies"), [(1, 0), (1, 4), (2, 3)])
def test_features_size(dimension, frequencies):
    features = TargetFeatures(dimension, frequencies)
    assert features(torch.randn(5, dimension)).shape == (5, features.size)


def test_features_values(close):
    y = torch.tensor([[0.3]], dtype=torch.float64)
    expected = [0.3, math.sin(0.3), math.sin(0.6), math.cos(0.3), math.cos(0.6)]
    close(TargetFeatures(1, 2).double()(y), [expected], factor=10)


def test_features_add_nothing_to_a_checkpoint():
    assert not TargetFeatures(1, 2).state_dict()


@pytest.fixture
def physical() -> PhysicalUnits:
    made = PhysicalUnits(3)
    made.fit(mixed_rows())
    return made


def test_physical_units_change_nothing(physical):
    x = mixed_rows()
    assert torch.equal(physical(x), x)
    assert torch.equal(physical.inverse(x), x)


def test_physical_units_have_no_volume(physical):
    assert torch.equal(physical.log_det(mixed_rows()), torch.zeros(200, dtype=torch.float64))


def test_physical_units_have_the_state_of_a_standardizer(physical):
    assert set(physical.state_dict()) == set(Standardizer(3).state_dict())
