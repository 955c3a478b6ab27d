"""Discrete parameters, categories and mixtures: allowed designs, and candidates that are allowed."""

import math

import pyarrow.csv
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.localization import Adam, GradientDescent, Newton
from matdesinne.pipeline import Refinement
from matdesinne.selection import All, Expression, InsideSpace, Tolerance
from matdesinne.space import Category, DesignSpace, Mixture, Parameter
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target
from matdesinne.transforms import DesignTransform

from .toys import prop

NAMES = ("oxide", "nitride", "carbide")
SPACE = DesignSpace(
    [
        Parameter("temperature", "K", 300.0, 500.0),
        Parameter("layers", "1", 1, 4, integer=True),
        Parameter("pressure", "bar", values=[1, 2, 5.5]),
        Parameter("oxide", "1", 0.0, 0.8),
        Parameter("nitride", "1", 0.0, 0.6),
        Parameter("carbide", "1", 0.1, 0.9),
    ],
    mixtures=[Mixture(NAMES)],
    categories=[Category("solvent", ["water", "2-MeTHF", "DMF"])],
)
GRID = DesignSpace([Parameter("a", "1", values=range(5)), Parameter("b", "1", values=[0.1, 0.7, 0.8])])


class Coating(Surrogate):
    """An invented hardness: smooth in the numbers, with an offset for each solvent."""

    def __init__(self, space: DesignSpace = SPACE) -> None:
        super().__init__(space, [prop()])
        self.scale.fit(space.sample(2))
        self.features.fit(space.sample(2))

    def member_predictions(self, features):
        x = self.features.scale.inverse(features)
        names = self.space.names
        column = dict(zip(names, x.T, strict=True))
        y = torch.sin((column["temperature"] - 300) / 80) + 0.5 * column["layers"] + 0.1 * column["pressure"]
        y = y + 8 * column["oxide"] * column["nitride"] + 2 * column["carbide"]
        return (y + column["solvent_DMF"] + 2 * column["solvent_2_MeTHF"])[None, :, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_columns(columns: dict[str, list]) -> None:
    """Every design of a table is valid: the rules are written here again, without the package."""
    for row in range(len(columns["layers"])):
        design = {name: values[row] for name, values in columns.items()}
        assert design["layers"] in (1, 2, 3, 4) and design["pressure"] in (1, 2, 5.5)
        assert design["solvent"] in ("water", "2-MeTHF", "DMF")
        assert 300 <= design["temperature"] <= 500
        assert abs(math.fsum(design[name] for name in NAMES) - 1) < 1e-9
        assert 0 <= design["oxide"] <= 0.8 and 0 <= design["nitride"] <= 0.6 and 0.1 <= design["carbide"] <= 0.9


def table(space: DesignSpace, x: torch.Tensor) -> dict[str, list]:
    return {name: values for name, (_, values) in space.to_columns(x).items()}


def candidates(surrogate: Surrogate, x: torch.Tensor, target: object) -> Candidates:
    wanted = Target.parse(target, surrogate.properties)
    return Candidates(surrogate.space, surrogate.properties, x, wanted, *surrogate.predict_many(x), "sampled")


def test_samples_are_allowed_and_uniform():
    x = SPACE.sample(20_000, generator())
    assert SPACE.allows(x).all()
    check_columns(table(SPACE, x[:500]))
    for i, values in SPACE.constraints.levels.items():
        shares = [(x[:, i] == value).float().mean() for value in values]
        assert max(shares) - min(shares) < 0.02
    labels = x[:, SPACE.constraints.categories["solvent"]]
    assert (labels.mean(dim=0) - 1 / 3).abs().max() < 0.02
    # of uniform points of the triangle, rejection in two of its coordinates gives the same means
    uniform = torch.rand(200_000, 2, generator=generator(1)) * torch.tensor([0.8, 0.6])
    rest = 1 - uniform.sum(dim=1)
    uniform = uniform[(rest >= 0.1) & (rest <= 0.9)]
    assert (x[:, 3:5].mean(dim=0) - uniform.mean(dim=0)).abs().max() < 0.01
    assert (x[:, 3:5].std(dim=0) - uniform.std(dim=0)).abs().max() < 0.01


@pytest.mark.parametrize("bounds", [[(0, 1)] * 3, [(0.3, 0.36)] * 3, [(0, 0.2), (0, 0.2), (0.1, 1)], [(0.1, 0.12)] * 9])
def test_mixtures_of_narrow_bounds(bounds):
    parameters = [Parameter(f"x{i}", "1", float(low), float(high)) for i, (low, high) in enumerate(bounds)]
    space = DesignSpace(parameters, mixtures=[Mixture([p.name for p in parameters])])
    x = space.sample(300, generator())
    assert space.allows(x).all() and len(x) == 300 and x.std(dim=0).min() > 0
    moved = x
    for _ in range(20):
        moved = space.moved(moved, 0.1 * torch.randn(x.shape, generator=generator()))
    assert space.allows(moved).all() and not torch.equal(moved, x)


def test_snap_takes_the_nearest():
    x = SPACE.sample(50, generator())
    assert torch.equal(SPACE.snap(x), x) or (SPACE.snap(x) - x).abs().max() < 1e-6
    rough = x + 0.2 * torch.randn(x.shape, generator=generator())
    near = SPACE.snap(rough)
    assert SPACE.allows(near).all()
    others = SPACE.sample(2000, generator(1))
    for columns in ([1], [2], [3, 4, 5], [6, 7, 8]):
        best = (rough[:, None, columns] - others[:, columns]).norm(dim=2).amin(dim=1)
        assert ((rough - near)[:, columns].norm(dim=1) <= best + 1e-5).all()


def test_a_box_is_as_before():
    space = DesignSpace([Parameter("a", "m", -1.0, 1.0), Parameter("b", "m")])
    x = torch.randn(5, 2, generator=generator())
    assert not space.constraints and space.snap(x) is x
    assert space.to_dict()["parameters"][0] == {"name": "a", "unit": "m", "lower": -1.0, "upper": 1.0, "reference": 0.0}
    assert set(space.to_dict()) == {"parameters", "symmetries", "order"}


def test_a_space_survives_json():
    assert DesignSpace.from_dict(SPACE.to_dict()) == SPACE
    assert SPACE.columns == ("temperature", "layers", "pressure", *NAMES, "solvent")
    assert SPACE.names[-3:] == ("solvent_water", "solvent_2_MeTHF", "solvent_DMF")


def test_narrowed():
    space = SPACE.narrowed({"pressure": [1.5, None], "oxide": [0.2, 0.3]}, {"solvent": "DMF", "layers": 2})
    x = space.sample(200, generator())
    assert space.allows(x).all() and SPACE.allows(x).all()
    assert set(table(space, x)["pressure"]) == {2.0, 5.5} and set(table(space, x)["solvent"]) == {"DMF"}
    assert torch.equal(space.snap(SPACE.sample(9, generator()))[:, 1], torch.full((9,), 2.0))


@pytest.mark.parametrize(
    ("bounds", "fixed", "said"),
    [
        ({}, {"layers": 2.5}, "Expected a value of layers within"),
        ({"pressure": [3, 4]}, {}, "1, 2, 5.5"),
        ({}, {"solvent": "water2"}, "water"),
        ({"solvent": ["water", "DMF"]}, {}, "fixed="),
        ({"oxide": [0.0, 0.1], "nitride": [0, 0.0]}, {"carbide": 0.5}, "allow a sum of 1"),
    ],
)
def test_narrowed_rejects(bounds, fixed, said):
    with pytest.raises(ConfigError, match=said):
        SPACE.narrowed(bounds, fixed)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Parameter("n", "1", integer=True), "lower and upper"),
        (lambda: Mixture(["a"]), "two or more"),
        (lambda: Category("s", ["one"]).columns(), "two or more"),
        (lambda: DesignSpace(SPACE.parameters, mixtures=[Mixture(["oxide", "layers"])]), "continuous"),
        (lambda: DesignSpace(SPACE.parameters, mixtures=[Mixture(["oxide", "zinc"])]), "'zinc'"),
        (lambda: DesignSpace(SPACE.parameters, mixtures=[Mixture(["oxide", "nitride"], 2.0)]), "sum of 2"),
        (lambda: DesignSpace([Parameter("s", "1", 0, 1)], categories=[Category("s", ["a", "b"])]), "distinct"),
    ],
)
def test_rejects(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_the_transform_lets_the_last_component_follow():
    x = SPACE.sample(100, generator())
    transform = DesignTransform(SPACE)
    u = transform(x)
    assert torch.equal(u[:, 5], torch.zeros(100))
    assert (SPACE.snap(transform.inverse(u)) - x).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("localizer", "share", "target"),
    [
        pytest.param(Newton(), 0.9, 4.0, id="newton"),
        pytest.param(Newton(), 0.9, [3.9, 4.1], id="newton, interval"),
        pytest.param(Adam(), 0.5, 4.0, id="adam", marks=pytest.mark.slow),
        pytest.param(GradientDescent(0.04, 100), 0.5, 4.0, id="gradient", marks=pytest.mark.slow),
    ],
)
def test_localized_candidates_are_allowed(localizer, share, target):
    surrogate = Coating()
    start = SPACE.sample(200, generator())
    start = start[(surrogate.predict(start)[0][:, 0] - 4).abs() < 0.6]
    moved = localizer.localize(candidates(surrogate, start, target), surrogate)
    assert SPACE.allows(moved.designs).all()
    check_columns(table(SPACE, moved.designs))
    assert (moved.error < 0.02).float().mean() > share
    assert torch.allclose(moved.mean, surrogate.predict(moved.designs)[0], atol=1e-5)


@pytest.mark.slow
def test_second_nearest_values_are_tried():
    """Where the numbers of layers alone decide, a candidate between two goes to the one that reaches the target."""
    surrogate = Coating()
    x = SPACE.sample(400, generator())
    start = candidates(surrogate, x[(surrogate.predict(x)[0][:, 0] - 4).abs() < 1.5], 4.0)
    free = SPACE.constraints.free()
    first = SPACE.constraints.neighbours(Newton()._moved(start, surrogate, SPACE.constraints.free(between_levels=True)).designs)
    assert len(first) == 4 and all(SPACE.allows(x).all() for x in first)
    alone = Newton()._moved(
        Candidates(SPACE, surrogate.properties, first[0], start.target, start.mean, start.std, ""), surrogate, free
    )
    every = Newton().localize(start, surrogate)
    assert (every.error < 1e-3).sum() > (alone.error < 1e-3).sum()


def test_bounds_of_a_mixture_hold_in_a_corner():
    """The target pushes two components to their bounds."""
    surrogate = Coating()
    narrow = SPACE.narrowed({"oxide": [0.3, 0.5]}, {"solvent": "water"})
    found = candidates(surrogate, narrow.sample(100, generator()), 9.0)
    found = Candidates(narrow, found.properties, found.designs, found.target, found.mean, found.std, "sampled")
    moved = Newton().localize(found, surrogate)
    assert narrow.allows(moved.designs).all()
    check_columns(table(narrow, moved.designs))
    assert moved.error.mean() < found.error.mean()


def test_a_grid_keeps_distinct_designs(caplog):
    class Plane(Surrogate):
        def member_predictions(self, features):
            return self.features.scale.inverse(features).sum(dim=1)[None, :, None]

    surrogate = Plane(GRID, [prop()])
    surrogate.features.fit(GRID.sample(2))
    surrogate.scale.fit(GRID.sample(2))
    with caplog.at_level("INFO"):
        run = Refinement(surrogate, All([InsideSpace(), Tolerance(2.0)]), Newton(), 0.35).refine(
            GRID.sample(500, generator()), Target.parse(2.0, surrogate.properties)
        )
    assert "candidates repeat another one" in caplog.text and "are dropped" in caplog.text
    found = {tuple(row) for row in zip(*table(GRID, run.candidates.designs).values(), strict=True)}
    assert found == {(1.0, 0.7), (1.0, 0.8), (2.0, 0.1)} and len(run.candidates) == 3


def test_candidates_as_files(tmp_path):
    surrogate = Coating()
    made = candidates(surrogate, SPACE.sample(40, generator()), 4.0)
    made.write_csv(tmp_path / "candidates.csv")
    made.write_parquet(tmp_path / "candidates.parquet")
    written = pyarrow.csv.read_csv(tmp_path / "candidates.csv").to_pydict()
    check_columns(written)
    again = Candidates.read_parquet(tmp_path / "candidates.parquet")
    assert again.space == SPACE and torch.allclose(again.designs, made.designs, atol=1e-6)
    check_columns(table(again.space, again.designs))


def test_rules_name_labels_by_their_columns():
    surrogate = Coating()
    made = candidates(surrogate, SPACE.sample(60, generator()), 4.0)
    kept = made.take(Expression("solvent_water == 1 and layers > 1").mask(made))
    assert len(kept) and set(table(SPACE, kept.designs)["solvent"]) == {"water"}
