"""Rows that an accurate surrogate labels for a fast one."""

import pytest
import torch

from matdesinne.bands import band_gap
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import PackagedSource
from matdesinne.data.synthetic import SyntheticDesigns, distilled_rows, held_out
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.training.fit import fit

from ..toys import CONF, load_part, perturb, prop, tiny_module, tiny_network

GAP = [prop("band_gap", floor=0.0)]
SPACE, PROTOTYPE = (load_part(group) for group in ("space", "prototype"))
BANDS = CONF / "surrogate" / "bands.yaml"
DESIGNS = SyntheticDesigns(uniform=1000, chains=100, steps=1)


@pytest.fixture(scope="module")
def data() -> DesignDataModule:
    return DesignDataModule(PackagedSource("mos2_gpaw"), SPACE, GAP, PROTOTYPE)


@pytest.fixture(scope="module")
def teacher(data):
    """Two members that differ."""
    made = tiny_network(CONF / "surrogate" / "tight_binding.yaml", SPACE, GAP, prototype=PROTOTYPE, members=2)
    made.fit_scales(Batch(data.split.train.x, data.split.train.y, data.split.train.bands))
    perturb(made, 0.05)
    return made.eval()


@pytest.fixture(scope="module")
def distilled(teacher):
    return distilled_rows(teacher, DESIGNS)


@pytest.mark.slow
def test_rows_carry_what_each_teacher_predicts(teacher, distilled, close):
    some = distilled.take(torch.arange(0, len(distilled), 60))
    close(some.y, teacher.predict_many(some.x)[0])
    for labels, member in zip(some.bands, teacher.member_predictions(teacher.scale(some.x)), strict=True):
        assert labels.name == "band_gap" and torch.equal(labels.kpoints, teacher.kpoints)
        close(band_gap(labels.energies), member.detach())
    assert not torch.equal(some.bands[0].energies, some.bands[1].energies)


@pytest.mark.slow
def test_rows_are_uniform_designs_and_chains(distilled):
    assert len(distilled) == 1000 + 100 * 2 and bool((distilled.ids < 0).all())
    assert torch.equal(distilled.x[:1000], SPACE.sample(1000, torch.Generator().manual_seed(0)))
    start = torch.isin(distilled.ids[:1000], distilled.ids[1000:])
    assert bool(torch.isin(distilled.ids[1000:], distilled.ids[:1000][start]).all())


@pytest.mark.slow
def test_distilled_data_keep_the_test_rows(data, distilled):
    before = data.split.train.ids
    made = data.with_rows(*held_out(distilled))
    assert torch.equal(made.split.test.ids, data.split.test.ids) and torch.equal(data.split.train.ids, before)
    assert not torch.isin(made.split.validation.ids, made.split.train.ids).any()


@pytest.mark.slow
def test_each_member_learns_from_one_teacher(data, distilled, tmp_path):
    """The students disagree where the teachers do: those of one teacher would not."""
    rows = data.with_rows(*held_out(distilled))
    module = tiny_module(BANDS, SPACE, GAP, prototype=PROTOTYPE, kpoints=41, members=2, hidden=32, max_epochs=12)
    energies = fit(module, rows, folder=tmp_path).energies(distilled.x).detach()
    students, teachers = (
        band_gap(first) - band_gap(second) for first, second in (energies, [labels.energies for labels in distilled.bands])
    )
    assert torch.corrcoef(torch.cat([students, teachers], dim=1).T)[0, 1] > 0.3


@pytest.mark.slow
def test_another_number_of_students(distilled):
    network = tiny_network(BANDS, SPACE, GAP, prototype=PROTOTYPE, kpoints=41, members=3)
    with pytest.raises(ConfigError, match="as many members as the teacher has, 2, got 3"):
        network.fit_scales(Batch(distilled.x, distilled.y, distilled.bands))
