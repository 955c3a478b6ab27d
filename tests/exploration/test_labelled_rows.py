import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.exploration.designs import data_settings, labelled_rows
from matdesinne.targets import Property

from ..toys import OWN, box, prop, script_config, write_table
from .conftest import GAP, mos2


@pytest.mark.slow
def test_pretrained_weights_know_their_data(tmp_path):
    """The file beside them says what train.py would write now, as make weights calls it."""
    settings = script_config("train", tmp_path, "data.calibration=[mos2_gpaw_calibration]").data
    OmegaConf.resolve(settings)
    assert data_settings("pretrained") == settings


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["mos2", "mose2", "ws2", "wse2"])
def test_pretrained_weights_of_layers_know_their_data(tmp_path, layer):
    settings = script_config("train", tmp_path, f"data=tmd_strain/{layer}").data
    OmegaConf.resolve(settings)
    assert data_settings(f"pretrained/{layer}") == settings


@pytest.mark.slow
def test_rows_with_labels_only():
    settings = data_settings("pretrained")
    assert settings is not None
    coarse, fine = (labelled_rows(settings, mos2(), [Property(name, "eV")]) for name in ("band_gap", "band_gap_fine"))
    assert (len(coarse), len(fine)) == (1404, 182)
    assert fine.y.isfinite().all()
    assert coarse.ids.tolist() == sorted(coarse.ids.tolist())


@pytest.mark.parametrize("name", ["os.system", "matdesinne.files.os.system", "matdesinne.pipeline.Path", "matdesinne.x.Y"])
def test_run_cannot_choose_foreign_code(tmp_path, name):
    OmegaConf.save({"data": {"source": {"_target_": name}}}, tmp_path / "config.yaml")
    with pytest.raises(CheckpointError, match=name):
        data_settings(str(tmp_path))


@pytest.mark.parametrize("content", [None, "seed: 0\n"], ids=["none", "no data"])
def test_run_without_settings(tmp_path, content):
    if content:
        (tmp_path / "config.yaml").write_text(content)
    assert data_settings(str(tmp_path)) is None


def test_former_names_in_the_settings_of_a_run(tmp_path):
    synthetic = {"_target_": "matdesinne.data.labels.SurrogateLabels", "steps": 8}
    data = {"_target_": "matdesinne.data.datamodule.DesignData", "labels": synthetic, "test": 0.1}
    OmegaConf.save({"data": data}, tmp_path / "config.yaml")
    assert data_settings(str(tmp_path)) == {
        "_target_": "matdesinne.data.datamodule.DesignDataModule",
        "test": 0.1,
        "synthetic": {"_target_": "matdesinne.data.synthetic.SyntheticDesigns", "steps": 8},
    }


@pytest.mark.slow
def test_rows_of_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(write_table(tmp_path))
    settings = script_config("train", tmp_path, *OWN).data
    found = labelled_rows(settings, box(), [prop()])
    assert len(found) == 120
    torch.testing.assert_close(found.y[:, 0], found.x.sum(dim=1))


@pytest.mark.slow
def test_rows_of_another_material():
    settings = data_settings("pretrained")
    assert settings is not None
    with pytest.raises(ConfigError, match=r"data=\.\.\."):
        labelled_rows(settings, box(), [GAP])


@pytest.mark.slow
def test_settings_build_the_packaged_data():
    assert instantiate(data_settings("pretrained"), _convert_="all").space == mos2()
