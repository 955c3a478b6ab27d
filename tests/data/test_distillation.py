"""Rows that an accurate surrogate labels for a fast one."""

import pytest
import torch

from matdesinne.bands import band_gap
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import PackagedSource
from matdesinne.data.synthetic import distilled_rows, held_out
from matdesinne.network import Batch

from ..toys import CONF, load_part, perturb, prop, tiny_network

GAP = [prop("band_gap", floor=0.0)]
SPACE, PROTOTYPE = (load_part(group) for group in ("space", "prototype"))


@pytest.fixture(scope="module")
def data() -> DesignDataModule:
    return DesignDataModule(PackagedSource("mos2_gpaw"), SPACE, GAP, PROTOTYPE)


@pytest.fixture(scope="module")
def teacher(data):
    made = tiny_network(CONF / "surrogate" / "tight_binding.yaml", SPACE, GAP, prototype=PROTOTYPE)
    made.fit_scales(Batch(data.split.train.x, data.split.train.y, data.split.train.bands))
    perturb(made, 0.05)
    return made.eval()


@pytest.mark.slow
def test_rows_carry_what_the_teacher_predicts(teacher, close):
    rows = distilled_rows(teacher, 20, seed=0)
    close(rows.y, teacher.predict_many(rows.x)[0])
    assert torch.equal(rows.y, band_gap(rows.bands[0].energies))
    assert rows.bands[0].name == "band_gap" and torch.equal(rows.bands[0].kpoints, teacher.kpoints)


@pytest.mark.slow
def test_rows_follow_the_seed(teacher):
    first, same, other = (distilled_rows(teacher, 5, seed).x for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.slow
def test_distilled_data_keep_the_test_rows(data, teacher):
    distilled = data.with_rows(*held_out(distilled_rows(teacher, 100, seed=0)))
    assert torch.equal(distilled.split.test.ids, data.split.test.ids)
    assert len(distilled.split.validation) == 2 and len(distilled.split.train) == 98
    assert bool((torch.cat([distilled.split.train.ids, distilled.split.validation.ids]) < 0).all())


@pytest.mark.slow
def test_distilled_data_leave_the_others_alone(data, teacher):
    before = data.split.train.ids
    data.with_rows(*held_out(distilled_rows(teacher, 100, seed=0)))
    assert torch.equal(data.split.train.ids, before)
