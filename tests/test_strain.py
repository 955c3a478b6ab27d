"""In-plane strains of a layer: known deformations, the polar decomposition, symmetry, rounding and bounds."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.pipeline import InverseDesign
from matdesinne.selection import Expression
from matdesinne.space import DesignSpace, Parameter
from matdesinne.strain import LayerStrain
from matdesinne.targets import Target

from .toys import load_part, prop

LAYER = LayerStrain((0, 1, 2), (3.16, 3.16, 120.0))


def vectors(a: float, b: float, gamma: float) -> np.ndarray:
    """The cell vectors as columns, a along x."""
    angle = math.radians(gamma)
    return np.array([[a, b * math.cos(angle)], [0.0, b * math.sin(angle)]])


def cell(deformation: list[list[float]], reference: tuple[float, float, float] = LAYER.reference) -> torch.Tensor:
    """Lengths and angle of the reference cell after a deformation, as one row."""
    first, second = (np.array(deformation) @ vectors(*reference)).T
    a, b = np.linalg.norm(first), np.linalg.norm(second)
    return torch.tensor([[a, b, math.degrees(math.acos(first @ second / (a * b)))]], dtype=torch.float64)


def strains(deformation: list[list[float]]) -> dict[str, float]:
    return {name: values.item() for name, values in LAYER(cell(deformation)).items()}


@pytest.mark.parametrize(
    ("deformation", "expected"),
    [
        ([[1.03, 0], [0, 1.03]], {"strain_1": 0.03, "strain_2": 0.03, "strain_angle": 0, "strain_biaxial": 0.03}),
        (
            [[1.04, 0], [0, 1]],
            {"strain_1": 0.04, "strain_2": 0, "strain_angle": 0, "strain_zigzag": 0.04, "strain_armchair": 0},
        ),
        ([[1, 0], [0, 1.04]], {"strain_1": 0.04, "strain_angle": 90, "strain_zigzag": 0, "strain_armchair": 0.04}),
        ([[1, 0], [0, 0.97]], {"strain_1": 0, "strain_2": -0.03, "strain_angle": 0, "strain_shear": 0.015}),
        ([[1.02, 0.01], [0.01, 1.02]], {"strain_1": 0.03, "strain_2": 0.01, "strain_angle": 45, "strain_shear": 0.01}),
        ([[1.02, -0.01], [-0.01, 1.02]], {"strain_1": 0.03, "strain_2": 0.01, "strain_angle": -45, "strain_biaxial": 0.02}),
        ([[0.8, -0.6], [0.6, 0.8]], {"strain_1": 0, "strain_2": 0, "strain_shear": 0, "strain_angle": 0}),
    ],
    ids=["biaxial", "zigzag", "armchair", "compressed", "sheared", "sheared back", "rotated"],
)
def test_known_deformations(deformation, expected):
    found = strains(deformation)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_simple_shear():
    """The stretches of [[1, s], [0, 1]] are exp(+-asinh(s / 2)), their product is 1."""
    found, size = strains([[1.0, 0.1], [0.0, 1.0]]), math.asinh(0.05)
    assert found["strain_1"] == pytest.approx(math.exp(size) - 1, abs=1e-12)
    assert found["strain_2"] == pytest.approx(math.exp(-size) - 1, abs=1e-12)
    assert found["strain_angle"] == pytest.approx(45 + math.degrees(math.atan(0.05)) / 2, abs=1e-9)


@pytest.mark.parametrize("reference", [(3.16, 3.16, 120.0), (3.1, 4.4, 90.0), (2.46, 2.46, 60.0), (3.0, 5.0, 101.0)])
def test_polar_decomposition(reference):
    """SciPy's, by a singular value decomposition; rotating the cell first changes nothing."""
    layer, generator = LayerStrain((2, 0, 1), reference), np.random.default_rng(0)
    for _ in range(50):
        design = np.array(reference) * generator.uniform(0.8, 1.2, 3)
        gradient = vectors(*design) @ np.linalg.inv(vectors(*reference))
        _, stretch = scipy.linalg.polar(gradient)
        (low, high), axes = np.linalg.eigh(stretch)
        angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
        found = {n: v.item() for n, v in layer(torch.tensor([[design[1], design[2], design[0]]])).items()}
        assert found["strain_1"] == pytest.approx(high - 1, abs=1e-12)
        assert found["strain_2"] == pytest.approx(low - 1, abs=1e-12)
        assert found["strain_biaxial"] == pytest.approx((high + low) / 2 - 1, abs=1e-12)
        assert found["strain_shear"] == pytest.approx((high - low) / 2, abs=1e-12)
        assert (found["strain_angle"] - angle + 90) % 180 == pytest.approx(90, abs=1e-8)
        assert -90 < found["strain_angle"] <= 90
        components = layer.stretch(torch.tensor([[design[1], design[2], design[0]]])).squeeze(1)
        assert components.tolist() == pytest.approx([stretch[0, 0], stretch[1, 1], stretch[0, 1]], abs=1e-12)


def designs(count: int = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return torch.tensor([2.6, 2.6, 100.0]) + unit * torch.tensor([1.1, 1.1, 40.0])


def test_swapping_a_and_b():
    x = designs()
    found, swapped = LAYER(x), LAYER(x[:, [1, 0, 2]])
    for name in ("strain_1", "strain_2", "strain_biaxial", "strain_shear"):
        torch.testing.assert_close(found[name], swapped[name], rtol=0, atol=1e-12)
    turned = (120.0 - found["strain_angle"] - swapped["strain_angle"] + 90).remainder(180.0)
    torch.testing.assert_close(turned, torch.full_like(turned, 90.0), rtol=0, atol=1e-8)


def test_operations_of_the_space():
    """The symmetries of the monolayer keep the principal strains."""
    space = load_part("space")
    x = space.sample(100, torch.Generator().manual_seed(1)).double()
    images = space.images(x)
    for name in ("strain_1", "strain_2"):
        values = space.layer(images)[name]
        torch.testing.assert_close(values, values[:, :1].expand_as(values), rtol=0, atol=1e-12)


def test_gradients():
    x = designs(20).requires_grad_()
    torch.autograd.gradcheck(lambda x: torch.stack(list(LAYER(x).values())), x)


def test_gradients_are_finite_without_strain():
    x = torch.tensor([LAYER.reference], dtype=torch.float64, requires_grad=True)
    [slopes] = torch.autograd.grad(sum(values.sum() for values in LAYER(x).values()), x)
    assert slopes.isfinite().all()


def test_a_cell_without_area_has_no_strain():
    assert all(values.isnan().all() for values in LAYER(torch.tensor([[3.16, 3.16, 190.0]])).values())


@pytest.mark.parametrize(
    "parameters",
    [
        [Parameter("a", "angstrom", reference=3.0), Parameter("b", "angstrom", reference=3.0)],
        [Parameter("a", "m", reference=3.0), Parameter("b", "m"), Parameter("gamma", "degree", reference=120.0)],
        [Parameter("a", "m", reference=3.0), Parameter("b", "m", reference=3.0), Parameter("gamma", "rad", reference=2.0)],
        [
            Parameter("a", "m", reference=3.0),
            Parameter("b", "kg", reference=3.0),
            Parameter("gamma", "degree", reference=120.0),
        ],
    ],
    ids=["no gamma", "no reference", "radians", "units"],
)
def test_not_a_layer(parameters):
    assert LayerStrain.of(parameters) is None


def test_zigzag_belongs_to_hexagonal_layers():
    assert "strain_zigzag" not in LayerStrain((0, 1, 2), (3.0, 3.1, 120.0)).names
    assert "strain_zigzag" not in LayerStrain((0, 1, 2), (3.0, 3.0, 90.0)).names
    assert "strain_zigzag" in LayerStrain((0, 1, 2), (2.46, 2.46, 60.0)).names


@pytest.mark.parametrize("space", ["mos2", "tmd_strain/wse2"])
def test_spaces_of_the_package(space):
    x = load_part("space", space)
    assert x.layer is not None
    assert x.layer(x.reference.unsqueeze(0))["strain_1"].abs().item() < 1e-6


SPACE = DesignSpace(
    [
        Parameter("a", "angstrom", 2.8, 3.6, 3.16),
        Parameter("b", "angstrom", 2.8, 3.6, 3.16),
        Parameter("gamma", "degree", 100.0, 140.0, 120.0),
        Parameter("field", "V/angstrom", -1.0, 1.0),
    ]
)


def table(*deformations: list[list[float]]) -> Candidates:
    rows = torch.cat([torch.cat([cell(deformation), torch.zeros(1, 1)], dim=1) for deformation in deformations]).float()
    zeros = torch.zeros(len(rows), 1)
    return Candidates(SPACE, [prop("gap")], rows, Target((0.0,), (0.0,)), zeros, zeros, "sampled")


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("strain_1 < 0.022 and strain_2 > -0.022", [True, True, False, True]),
        ("strain_1 <= 0.02", [True, True, False, True]),
        ("strain_1 < 0.02", [True, False, False, True]),
        ("strain_zigzag == 0.04 and strain_armchair == 0", [False, False, True, False]),
        ("strain_shear == 0", [True, True, False, False]),
        ("strain_angle == 45", [False, False, False, True]),
        ("strain_biaxial - strain_a >= 0", [True, True, False, False]),
    ],
)
def test_rules(rule, kept):
    made = table([[1, 0], [0, 1]], [[1.02, 0], [0, 1.02]], [[1.04, 0], [0, 1]], [[1, 0.01], [0.01, 1]])
    assert Expression(rule).mask(made).tolist() == kept


def test_rules_name_the_strains_of_layers_only():
    with pytest.raises(ConfigError, match=r"strain_1.*strain_2.*strain_angle.*got 'strain_3'"):
        Expression("strain_3 < 1").mask(table([[1, 0], [0, 1]]))


def test_rounding_covers_float32():
    """Designs in float32 differ from those in double precision by no more than the rounding says, also without strain."""
    x = torch.cat([designs(), torch.tensor([LAYER.reference], dtype=torch.float64)])
    allowed = LAYER.rounding(x, torch.finfo(torch.float32).eps * x)
    exact, rounded = LAYER(x), LAYER(x.float())
    for name in exact:
        assert ((exact[name] - rounded[name]).abs() <= 1.01 * allowed[name] + 1e-15).all(), name


def test_bounds_of_strains():
    narrow = SPACE.narrowed({"strain_1": [None, 0.022], "strain_2": [-0.022, None], "field": [0, 0.5]})
    x = narrow.sample(2000, torch.Generator().manual_seed(0))
    found = SPACE.layer(x)
    assert found["strain_1"].max() <= 0.022 and found["strain_2"].min() >= -0.022
    assert found["strain_1"].max() > 0.0215 and found["strain_2"].min() < -0.0215
    assert narrow.contains(x).all() and x[:, 3].min() >= 0


def test_bounds_of_parameters_follow_from_those_of_strains():
    """They lose nothing: no design of the whole space within the strains is outside them."""
    narrow = SPACE.narrowed({"strain_1": [None, 0.03], "strain_2": [-0.04, None]})
    x = SPACE.sample(400_000, torch.Generator().manual_seed(0))
    within = x[SPACE.layer.contains(x, narrow.strain_bounds)]
    assert len(within) > 1000 and narrow.contains(within, tolerance=0.0).all()
    bisector = np.array([0.5, math.sqrt(0.75)])
    along = np.outer(bisector, bisector)
    ends = [
        cell((long * along + short * (np.eye(2) - along)).tolist())[0, 2].item() for long, short in ((1.03, 0.96), (0.96, 1.03))
    ]
    assert [narrow.parameters[2].lower, narrow.parameters[2].upper] == pytest.approx(ends, abs=1e-4)


def test_bounds_of_biaxial_strain_and_shear():
    narrow = SPACE.narrowed({"strain_biaxial": [0.0, 0.02], "strain_shear": [0, 0.01]})
    assert narrow.parameters[0].upper == pytest.approx(3.16 * 1.03)
    assert narrow.parameters[0].lower == pytest.approx(3.16 * 0.99)


def test_bounds_are_kept_in_files():
    narrow = SPACE.narrowed({"strain_1": [None, 0.022]})
    assert DesignSpace.from_dict(json.loads(json.dumps(narrow.to_dict(), allow_nan=False))) == narrow


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"strain_3": [0, 1]}, "strain_1.*got strain_3"),
        ({"strain_1": [0.2, 0.1]}, "lower <= upper.*got strain_1"),
        ({"strain_1": ["x", 0.1]}, "numbers.*'x'"),
        ({"strain_1": 0.1}, r"\[lower, upper\] for strain_1"),
        ({"strain_1": [None, -0.3]}, "for a"),
    ],
)
def test_wrong_bounds(bounds, message):
    with pytest.raises(ConfigError, match=message):
        SPACE.narrowed(bounds)


def test_a_strain_is_bounded_and_not_fixed():
    with pytest.raises(ConfigError, match="strain_1"):
        SPACE.narrowed(fixed={"strain_1": 0.1})


def test_bounds_that_exclude_each_other():
    narrow = SPACE.narrowed({"strain_shear": [0.05, None], "strain_1": [None, 0.01], "strain_2": [-0.01, None]})
    with pytest.raises(ConfigError, match="widen the bounds"):
        narrow.sample(10)


def test_candidates_keep_bounds_of_strains():
    """Samples outside are replaced, and localization does not leave the bounds, which stay with the candidates."""
    bounds = {"strain_1": [None, 0.06], "strain_2": [-0.06, None]}
    run = InverseDesign.load("pretrained").run(1.0, 100, torch.Generator().manual_seed(0), bounds)
    assert len(run.stages["sampled"]) == 100 and len(run.candidates) > 50
    for candidates in run.stages.values():
        found = candidates.space.layer(candidates.designs)
        assert found["strain_1"].max() <= 0.06 + 1e-5 and found["strain_2"].min() >= -0.06 - 1e-5
    assert run.candidates.space.strain_bounds == {"strain_1": (-math.inf, 0.06), "strain_2": (-0.06, math.inf)}
