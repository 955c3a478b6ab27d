import functools

import pytest
import torch

from matdesinne.benchmark.posterior import PosteriorRow, c2st, expected_coverage, nearest_rows, posterior_rows
from matdesinne.data.table import DesignTable
from matdesinne.localization import Newton
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.pipeline import InverseDesign, Refinement
from matdesinne.selection import All, InsideSpace

from ..toys import CONF, Linear, box, linear, prop, rows, tiny_network

COUNT = 60


def normal(count: int, seed: int, dimension: int = 2) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_equal_distributions_cannot_be_told_apart():
    assert c2st(normal(400, 0), normal(400, 1)) == pytest.approx(0.5, abs=0.08)


@pytest.mark.slow
def test_distinct_distributions_can():
    assert c2st(normal(300, 0), normal(300, 1) + 6) > 0.98


@pytest.mark.slow
def test_classifier_sees_correlations():
    """Equal in every coordinate alone."""
    x = normal(400, 0)
    assert c2st(torch.stack([x[:, 0], x[:, 0] + 0.1 * x[:, 1]], 1), normal(600, 1)) > 0.75


@pytest.mark.slow
def test_a_larger_sample_weighs_no_more():
    """Else one would be right on most points by always naming it."""
    assert c2st(normal(300, 0), normal(3000, 1)) == pytest.approx(0.5, abs=0.08)


@pytest.mark.slow
def test_accuracy_is_reproducible(untouched_seed):
    assert c2st(normal(100, 0), normal(100, 1), seed=3) == c2st(normal(100, 0), normal(100, 1), seed=3)


@pytest.mark.parametrize("count", [1, 2500], ids=["one", "chunks"])
def test_nearest_by_brute_force(count, close):
    p, q = normal(count, 0), normal(40, 1)
    close(nearest_rows(p, q), (p.unsqueeze(1) - q).norm(dim=2).amin(1), factor=10)


@pytest.mark.parametrize("distance", [0.0, 1e-4])
def test_nearest_keeps_the_digits_of_a_copy(distance):
    """Also far from the origin, where a matrix product loses them; float32 rounds at 1e-5 there."""
    q = normal(100, 0) + 100
    p = q[:3] + torch.tensor([distance, 0.0])
    torch.testing.assert_close(nearest_rows(p, q), torch.full((3,), distance), rtol=0.2, atol=0)


@functools.cache
def model(name: str) -> InverseModel:
    network = tiny_network(CONF / "model" / f"{name}.yaml", box(), [prop()]).eval()
    network.fit_scales(rows(box()))
    return network


def models(*names: str) -> dict[str, InverseModel]:
    return {model(name).label: model(name) for name in names}


def far(*designs: torch.Tensor) -> DesignTable:
    """Training rows away from the box, and some others."""
    x = torch.cat([torch.full((10, 2), 9.0), *designs])
    return DesignTable(x, x.sum(1, keepdim=True), torch.arange(len(x)))


REFINEMENT = Refinement(linear(), All([InsideSpace()]), Newton())


OPTIONS = {"count": COUNT, "tolerance": 0.05, "limit": 40_000, "seed": 0}


def compared(train: DesignTable | None = None, targets=(0.5,), names=("mdn",), refinement=REFINEMENT) -> list[PosteriorRow]:
    return list(posterior_rows(models(*names), refinement, train or far(), targets, **OPTIONS))


@pytest.fixture(scope="module")
def before_and_after() -> list[PosteriorRow]:
    """The row of the samples and that of the localized candidates."""
    return compared()


@pytest.mark.slow
def test_every_model_before_and_after_localization_at_every_target():
    found = compared(names=("mdn", "cvae"), targets=(0.0, 0.5))
    methods = ["MDN", "MatDesINNe-MDN", "cVAE", "MatDesINNe-cVAE"]
    assert sorted((row.method, row.target) for row in found) == sorted((m, t) for m in methods for t in (0.0, 0.5))
    assert {row.seed for row in found} == {0}


@pytest.mark.slow
def test_sizes_of_what_is_compared(before_and_after):
    before, after = before_and_after
    assert (before.samples, before.references) == (COUNT, COUNT)
    assert 0 < after.samples <= COUNT


@pytest.mark.slow
def test_an_exact_posterior_is_near_the_reference():
    """Uniform designs moved straight onto a line are uniform on it but for its ends; an untrained model is not on it."""

    class Uniform:
        label, space, properties = "uniform", box(), linear().properties

        def eval(self):
            return self

        def sample_target(self, target, count, generator):
            x = box().sample(count, generator)[:, :1]
            return torch.cat([x, -x], dim=1), count

    options = {"count": 400, "tolerance": 0.02, "limit": 100_000, "seed": 0}
    exact, _ = posterior_rows({"uniform": Uniform()}, REFINEMENT, far(), [0.0], **options)
    untrained, _ = posterior_rows(models("mdn"), REFINEMENT, far(), [0.0], **options)
    assert abs(exact.mmd) < 0.03 < 0.1 < untrained.mmd
    assert exact.c2st < 0.65 < untrained.c2st


def test_no_copy_of_far_rows(before_and_after):
    for row in before_and_after:
        assert row.copies == 0
        assert row.nearest > 1


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "place"), [("sampled", 0), ("localized", 1)])
def test_copies_of_training_rows_are_counted(stage, place):
    design = InverseDesign(model("mdn"), linear(), REFINEMENT.selection, REFINEMENT.localization)
    designs = design.run(0.5, COUNT, torch.Generator().manual_seed(0)).stages[stage].designs
    row = compared(far(designs[:3]))[place]
    near = (designs.unsqueeze(1) - designs[:3]).norm(dim=2).amin(1) < 1e-3
    assert (row.copies, row.nearest) == (int(near.sum()), 0.0)
    assert 3 <= row.copies < 10


@pytest.mark.slow
def test_distances_are_in_half_widths(before_and_after):
    """A box of tenfold units, the same designs: the same distance."""
    wide = Linear(box(scale=10.0), [prop()], [[0.1, 0.1]]).eval()
    network = tiny_network(CONF / "model" / "mdn.yaml", box(scale=10.0), [prop()]).eval()
    batch = rows(box())
    network.fit_scales(batch._replace(x=10 * batch.x))
    train = far()
    scaled = DesignTable(10 * train.x, train.y, train.ids)
    found = next(posterior_rows({"MDN": network}, Refinement(wide, All([]), Newton()), scaled, [0.5], **OPTIONS))
    assert found.nearest == pytest.approx(before_and_after[0].nearest, rel=1e-4)


@pytest.mark.slow
def test_a_target_that_nothing_reaches_has_no_refined_row():
    assert {row.target for row in compared(targets=[0.5, 50.0]) if row.method.startswith("MatDesINNe")} == {0.5}


def test_few_references_are_compared_all_the_same():
    assert list(posterior_rows(models("mdn"), REFINEMENT, far(), [0.5], **{**OPTIONS, "limit": 20}))


@pytest.mark.slow
def test_accepted_error_is_that_of_the_refinement():
    # one short step: not all arrive within 0.01
    loose = Refinement(linear(), All([InsideSpace()]), Newton(steps=2, longest_step=0.2), accepted_error=10.0)
    assert compared(refinement=loose)[1].samples == COUNT


class Shell(DensityModel):
    """p(x | y) of y = x + noise on [-1, 1]: a normal distribution cut at the bounds, of a width of its own."""

    label = "shell"

    def __init__(self, noise: float, width: float, floor: float | None = None) -> None:
        super().__init__(box(1), [prop(floor=floor)], noise)
        self.width = width
        self.asked = []

    @property
    def latent_dimension(self) -> int:
        return 1

    def _edges(self, y):
        return (torch.special.ndtr((edge - y) / self.width) for edge in (-1, 1))

    def decode(self, z, v, truncate=True):
        assert not truncate  # the density is that of samples without truncation
        low, high = self._edges(v)
        level = low + (high - low) * torch.special.ndtr(z)
        return self.transform((v + self.width * torch.special.ndtri(level)).clamp(-1, 1))

    def standard_log_prob(self, u, v):
        self.asked.append(v)
        low, high = self._edges(v)
        x = self.transform.inverse(u)
        log_normal = torch.distributions.Normal(v, self.width).log_prob(x) - (high - low).log()
        return log_normal[:, 0] - self.transform.log_det(x)


LEVELS = [0.25, 0.5, 0.9]


def covered(model: Shell, count: int = 2000) -> dict[float, float]:
    generator = torch.Generator().manual_seed(0)
    return expected_coverage(
        model, Linear(box(1), model.properties, [[1.0]]).eval(), LEVELS, count=count, samples=100, generator=generator
    )


@pytest.mark.slow
def test_coverage_of_the_exact_density_is_the_level():
    found = covered(Shell(0.1, 0.1))
    # four standard errors of 2,000 designs, and the step of 100 ranks
    assert all(share == pytest.approx(level, abs=0.05) for level, share in found.items())
    assert list(found) == LEVELS


@pytest.mark.slow
@pytest.mark.parametrize(("width", "sign"), [(0.04, -1), (0.25, 1)], ids=["narrow", "wide"])
def test_coverage_of_a_density_of_wrong_width(width, sign):
    assert all(sign * (share - level) > 0.05 for level, share in covered(Shell(0.1, width)).items())


def test_coverage_is_asked_above_the_floor():
    model = Shell(0.0, 0.1, floor=0.5)
    covered(model, 100)
    assert all((y > 0.5).all() for y in model.asked)
    assert len(model.asked[0]) == 100


def test_coverage_leaves_the_global_seed(untouched_seed):
    covered(Shell(0.1, 0.1), 10)
