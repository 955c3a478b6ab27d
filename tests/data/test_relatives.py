"""Rows of similar materials, as designs of another one's space."""

import pytest
import torch

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.relatives import Relative
from matdesinne.data.sources import PackagedSource
from matdesinne.errors import ConfigError
from matdesinne.targets import Property

from ..toys import box, load_part

STRAIN_ENERGY = [Property("strain_energy", "eV")]
MOS2 = PackagedSource("tmd_strain_mos2")


class Renamed(PackagedSource):
    """The packaged rows under another name."""

    def __init__(self) -> None:
        super().__init__("tmd_strain_mos2")
        self.name = "other"


@pytest.fixture(scope="module")
def spaces():
    return load_part("space", "tmd_strain/mos2"), load_part("space", "tmd_strain/mose2")


def test_rows_keep_their_strain(spaces):
    mos2, mose2 = spaces
    rows = Relative(MOS2, mos2).rows(mose2, STRAIN_ENERGY, torch.empty(0, 3))
    own = MOS2.load(mos2, STRAIN_ENERGY)
    torch.testing.assert_close(rows.x[:, :2] / 3.319, own.x[:, :2] / 3.184)
    torch.testing.assert_close(rows.x[:, 2], own.x[:, 2])
    torch.testing.assert_close(rows.y, own.y)


def test_rows_at_the_strain_of_held_out_ones_are_left_out(spaces):
    mos2, mose2 = spaces
    every = Relative(MOS2, mos2).rows(mose2, STRAIN_ENERGY, torch.empty(0, 3))
    rest = Relative(MOS2, mos2).rows(mose2, STRAIN_ENERGY, every.x[[3, 5]] + 1e-6)
    torch.testing.assert_close(rest.x, every.x[[row for row in range(len(every)) if row not in (3, 5)]])


def test_data_carry_the_rows_of_others_and_no_held_out_strain(spaces):
    mos2, _ = spaces
    relatives = {"own": Relative(MOS2, mos2), "other": Relative(Renamed(), mos2)}
    data = DesignDataModule(MOS2, mos2, STRAIN_ENERGY, validation=0.1, test=0.2, relatives=relatives)
    [other] = data.training_batch().relatives
    torch.testing.assert_close(other.x.sort(dim=0).values, data.split.train.x.sort(dim=0).values)
    assert len(data.split.test) and len(data.split.validation)


def test_other_parameters(spaces):
    with pytest.raises(ConfigError, match=r"data\.relatives"):
        Relative(MOS2, spaces[0]).rows(box(), STRAIN_ENERGY, torch.empty(0, 2))
