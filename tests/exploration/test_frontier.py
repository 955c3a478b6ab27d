"""Frontiers that are known exactly, the names of strains, and labels beside a frontier."""

from pathlib import Path

import pandas
import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError, DatasetError
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.frontier.kinds import simple_strains, strain_kinds
from matdesinne.exploration.frontier.search import FrontierSearch
from matdesinne.exploration.frontier.section import frontier_section
from matdesinne.surrogates.combined import CombinedSurrogate

from ..test_minimization import Bowl, problem
from ..toys import box, linear, load_part, prop
from .conftest import GAP, Tilted

FEW = {"points": 3, "starts": 2}


class Stretched(Bowl):
    """y = sum of w (x - reference)^2."""

    def member_predictions(self, features):
        x = self.features.scale.inverse(features) - self.space.reference
        return (x.square() @ self.matrix.T).unsqueeze(0)


def layer() -> CombinedSurrogate:
    """A gap that rises by 4 eV per angstrom of a and of b, and an energy that is least where both grow alike."""
    space = load_part("space", "tmd_strain/mos2")
    gap = Tilted(space, [GAP], [[4.0, 4.0, 0.0]])
    energy = Stretched(space, [prop("strain_energy")], [[5.0, 5.0, 0.1]])
    return CombinedSurrogate([gap, energy]).eval()


def section(surrogate, folder: Path, **settings):
    config = OmegaConf.create({"run": "none", "frontier": {"_target_": f"{FrontierSearch.__module__}.FrontierSearch"}})
    config.frontier.update({**FEW, **settings})
    return frontier_section(Exploration((), surrogate, None, folder, 0), config)


def test_the_least_of_a_quadratic_on_a_plane():
    """With a x = c the sum of w x^2 is at least c^2 / (sum of a^2 / w)."""
    found = FrontierSearch(minimize="energy", points=4, starts=2).find(problem([1.0, 2.0], [2.0, 4.0]))
    assert found.values.tolist() == [-2.0, 0.0, 2.0]
    torch.testing.assert_close(found.cost, found.values**2 / 1.5, rtol=0, atol=5e-3)
    assert (found.designs.mean[:, 0].double() - found.values).abs().max() < 1e-4


def test_any_property_against_any_formula():
    found = FrontierSearch(minimize="abs(x1)", property_name="energy", points=3, starts=2).find(problem([1.0, 1.0], [1.0, 1.0]))
    assert found.prop.name == "energy" and found.unit == ""
    within = found.values <= 1.0
    assert found.cost[within].max() < 1e-2  # x2 alone reaches an energy of 1


def test_without_an_energy_there_is_no_frontier():
    assert FrontierSearch().find(linear()) is None


@pytest.mark.parametrize("settings", [{"property_name": "wrong"}, {"minimize": "wrong"}, {"points": 0}])
def test_wrong_settings_are_named(settings):
    with pytest.raises(ConfigError, match=r"wrong|at least 1"):
        FrontierSearch(**{"minimize": "energy", **settings}).find(problem([1.0, 1.0], [1.0, 1.0]))


@pytest.mark.parametrize(
    ("xx", "yy", "xy", "name"),
    [
        (1.0, 1.0, 0.0, "unstrained"),
        (1.03, 1.03, 0.0, "biaxial tension"),
        (0.98, 0.98, 0.001, "biaxial compression"),
        (1.03, 1.0, 0.0, "uniaxial tension along zigzag"),
        (1.0, 1.03, 0.0, "uniaxial tension along armchair"),
        (1.0, 0.97, 0.0, "uniaxial compression along armchair"),
        (1.02, 0.98, 0.0, "shear, longest along zigzag"),
        (1.0, 1.0, 0.02, "shear, longest 15° from zigzag"),
        (1.04, 1.02, 0.0, "biaxial 3.0 % and shear 1.0 %, longest along zigzag"),
    ],
)
def test_strains_are_named(xx, yy, xy, name):
    strain = load_part("space", "tmd_strain/mos2").layer
    assert strain_kinds(strain, strain.cells(torch.tensor([[xx, yy, xy]]).double().T)) == [name]


def test_uniaxial_strain_along_the_three_zigzag_directions_has_one_name():
    strain = load_part("space", "tmd_strain/mos2").layer
    angle = torch.deg2rad(torch.tensor([0.0, 60.0, 120.0], dtype=torch.float64))
    stretch = torch.stack([1 + 0.03 * angle.cos() ** 2, 1 + 0.03 * angle.sin() ** 2, 0.03 * angle.cos() * angle.sin()])
    assert set(strain_kinds(strain, strain.cells(stretch))) == {"uniaxial tension along zigzag"}


def test_simple_strains_are_what_they_are_called():
    space = load_part("space", "tmd_strain/mos2")
    found = {strain.name: strain for strain in simple_strains(space)}
    assert list(found) == ["biaxial", "uniaxial, zigzag", "uniaxial, armchair"]
    for name, strain in found.items():
        assert space.contains(strain.designs).all()
        kinds = set(strain_kinds(space.layer, strain.designs[strain.strain.abs() > 0.005]))
        assert (
            all(kind.startswith(name.split(",")[0]) and kind.endswith(name.split(", ")[-1]) for kind in kinds)
            or name == "biaxial"
        )
        assert len(kinds) == 2  # tension and compression
    assert found["biaxial"].strain.max() == pytest.approx(0.1, abs=2e-3)  # the bound of a
    assert simple_strains(box()) == []


def test_a_layer_is_told_with_its_strains(tmp_path, undrawn):
    told = section(layer(), tmp_path)
    assert "Strains of its designs: unstrained (1), biaxial tension (2)." in told.text
    table = pandas.read_csv(tmp_path / "frontier.csv")
    reached = table[table.target > 0]
    stretch = reached.target / 8  # of a and b alike, in angstrom
    assert reached.minimum.to_numpy() == pytest.approx((10 * stretch**2).to_numpy(), abs=2e-3)
    assert {"a", "b", "gamma", "band_gap", "strain_energy", "strain", "strain_1"} <= set(table.columns)
    assert {path.name for path in tmp_path.iterdir()} == {f"frontier.{end}" for end in ("csv", "parquet", "png", "pdf")}


def test_labels_stand_beside_the_frontier(tmp_path, undrawn):
    """Those of ``frontier_labels`` are found; a failed row is left out."""
    labels = {"a": [3.2, 3.2, 3.3], "b": [3.2] * 3, "gamma": [120.0] * 3, "status": ["done", "failed", "done"]}
    labels |= {"band_gap": [0.1, None, 0.2], "strain_energy": [0.3, None, 0.4]}
    (tmp_path / "frontier_labels").mkdir()
    pandas.DataFrame(labels).to_parquet(tmp_path / "frontier_labels" / "labels.parquet")
    assert "Labels of 2 designs differ" in section(layer(), tmp_path).text
    checked = pandas.read_csv(tmp_path / "frontier_checked.csv")
    assert checked.band_gap_label.tolist() == [0.1, 0.2] and checked.minimised_label.tolist() == [0.3, 0.4]
    assert checked.band_gap.tolist() == pytest.approx([8 * 0.016, 4 * 0.132], abs=1e-4)


def test_labels_that_lack_a_property_are_refused(tmp_path, undrawn):
    pandas.DataFrame({"a": [3.2], "b": [3.2], "gamma": [120.0], "band_gap": [0.1]}).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DatasetError, match="strain_energy"):
        section(layer(), tmp_path, checked=[str(tmp_path)])
