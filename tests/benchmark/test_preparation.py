from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from matdesinne.benchmark import preparation
from matdesinne.benchmark.parallel import Trainings
from matdesinne.benchmark.preparation import Prepared, evaluator_settings, gather, prepare, train_models
from matdesinne.data.synthetic import SyntheticDesigns
from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.files import write_json
from matdesinne.network import Batch, save_network

from ..toys import CONF, TINY, box, linear, prop, rows, tiny_network, toy_data, trainer_config, yaml_files

SURROGATE = {
    "_target_": "matdesinne.training.surrogates.LightningMLP",
    "network": {"_target_": "matdesinne.surrogates.mlp.MLPSurrogate", "hidden": 16, "members": 2},
}


def config(**changes: object) -> DictConfig:
    base = {
        "models": None,
        "runs": {},
        "property": None,
        "workers": 1,
        "seed": 0,
        "trainer": trainer_config(),
        "callbacks": None,
        "data": {"source": "toy", "split_seed": "${seed}", "order_seed": "${seed}"},
        "surrogate": SURROGATE,
        "surrogates_folder": "kept",
        "evaluator_network": {"members": 3},
    }
    return OmegaConf.merge(base, changes)


def chosen(*names: str, **changes: object) -> dict[str, DictConfig]:
    models = gather(config(models=list(names)), CONF / "model")
    for model in models.values():
        small = {key: value for key, value in {**TINY, **changes}.items() if key in model.network}
        model.network.update({key: [8, 8] if OmegaConf.is_list(model.network[key]) else value for key, value in small.items()})
    return models


def test_models_in_a_folder_of_the_user(tmp_path):
    (tmp_path / "mine.yaml").write_text("_target_: my_package.Mine\n")
    found = gather(config(models=["mine", "mdn"]), CONF / "model", [tmp_path])
    assert found["mine"] == {"_target_": "my_package.Mine"} and list(found) == ["mine", "mdn"]
    assert "mine" not in gather(config(), CONF / "model", [tmp_path])


def test_all_models_are_those_at_the_top():
    assert list(gather(config(), CONF / "model")) == [path.stem for path in yaml_files("model")]


@pytest.mark.slow
@pytest.mark.parametrize("names", [["mdn"], ["paper/cinn_affine", "cvae"], []])
def test_models_by_name(names):
    found = gather(config(models=names), CONF / "model")
    assert {name: model for name, model in found.items()} == {
        name: OmegaConf.load(CONF / "model" / f"{name}.yaml") for name in names
    }


@pytest.mark.parametrize("changes", [{"models": ["mdn", "paper/nothing"]}, {"runs": {"paper/nothing": "runs/one"}}])
def test_unknown_model(changes):
    with pytest.raises(ConfigError, match=r"'paper/cinn_affine'.*\['paper/nothing'\]"):
        gather(config(**changes), CONF / "model")


@pytest.fixture
def fitted(monkeypatch) -> list[Path]:
    """The folders in which something was trained; the training only learns the scales."""
    places = []

    def fit(module, data, trainer, folder, callbacks):
        places.append(folder)
        module.network.fit_scales(data.training_batch(), data.prior)
        write_json(folder / "metrics.json", {"seconds": 7.5})
        return module.network.eval()

    monkeypatch.setattr(preparation, "fit", fit)
    return places


@pytest.mark.slow
def test_models_are_trained_in_folders_of_their_names(fitted, tmp_path):
    trained, seconds = train_models(config(), chosen("mdn", "paper/cinn_affine"), toy_data(), tmp_path, Trainings(1))
    assert list(trained) == list(seconds) == ["MDN", "cINN (affine)"]
    assert fitted == [tmp_path / "mdn", tmp_path / "paper" / "cinn_affine"]
    assert set(seconds.values()) == {7.5}


@pytest.mark.slow
def test_equal_settings_are_not_trained_again(fitted, tmp_path):
    first, _ = train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    second, seconds = train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 1 and seconds == {"MDN": 7.5}
    y = torch.zeros(5, 1)
    samples = [models["MDN"].sample(y, torch.Generator().manual_seed(0)) for models in (first, second)]
    assert torch.equal(*samples)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"data": {"source": "other"}}, {"surrogate": {"network": {"hidden": 17}}}, {"trainer": {"max_epochs": 3}}],
    ids=["seed", "data", "surrogate", "epochs"],
)
def test_other_settings_are_trained_again(fitted, tmp_path, changes):
    for settings in (config(), config(**changes)):
        train_models(settings, chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 2


@pytest.mark.slow
def test_another_model_is_trained_again(fitted, tmp_path):
    for hidden in (16, 17):
        train_models(config(), chosen("mdn", hidden=hidden), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 2


@pytest.mark.slow
def test_other_rows_are_trained_again(fitted, tmp_path):
    for count in (256, 300):
        train_models(config(), chosen("mdn"), toy_data(count), tmp_path, Trainings(1))
    assert len(fitted) == 2


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "", "{", "[]"], ids=["missing", "empty", "truncated", "foreign"])
def test_a_training_that_was_cut_off_is_done_again(fitted, tmp_path, content):
    train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    path = tmp_path / "mdn" / "settings.json"
    path.unlink() if content is None else path.write_text(content)
    train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 2


def test_a_run_is_taken_as_it_is(fitted, tmp_path):
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop()])
    model.fit_scales(rows(box()))
    save_network(model, tmp_path / "run", "model")
    trained, seconds = train_models(
        config(runs={"mdn": str(tmp_path / "run")}), chosen("mdn"), toy_data(), tmp_path, Trainings(1)
    )
    assert fitted == [] and seconds == {}
    assert torch.equal(trained["MDN"].network[0].weight, model.network[0].weight)


def test_a_missing_run(fitted, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        train_models(config(runs={"mdn": "nowhere"}), chosen("mdn"), toy_data(), tmp_path, Trainings(1))


@pytest.mark.slow
def test_two_settings_of_one_method(fitted, tmp_path):
    trained, _ = train_models(config(), chosen("inn", "paper/inn"), toy_data(), tmp_path, Trainings(1))
    assert list(trained) == ["INN", "INN (paper/inn)"]


SYNTHETIC = SyntheticDesigns(uniform=2000, chains=100, steps=1)


@pytest.mark.slow
def test_synthetic_designs_are_made_if_a_model_is_to_be_trained(fitted, tmp_path, monkeypatch, close):
    made = []
    monkeypatch.setattr(
        SyntheticDesigns, "make", lambda *arguments, make=SyntheticDesigns.make: made.append(make(*arguments)) or made[-1]
    )
    for _ in range(2):
        trained, _ = train_models(config(), chosen("mdn"), toy_data(synthetic=SYNTHETIC), tmp_path, Trainings(1), linear())
    (designs,) = made
    network = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop()])
    network.fit_scales(Batch(designs.train.x, designs.train.y), designs.prior)
    close(trained["MDN"].target_reference, network.target_reference)


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """The arguments with which surrogates were trained or loaded."""
    calls = []

    def trained_surrogate(*arguments):
        calls.append(arguments)
        return linear()

    monkeypatch.setattr(preparation, "trained_surrogate", trained_surrogate)
    monkeypatch.setattr(preparation, "train_models", lambda *_: ({}, {}))
    return calls


def prepared(monkeypatch, tmp_path, data=None, **changes: object) -> preparation.Prepared:
    monkeypatch.setattr(preparation, "instantiate", lambda *_, **__: data or toy_data())
    return prepare(config(**changes), {}, tmp_path, evaluate=True)


def test_evaluator_has_another_network():
    settings = config(evaluator_network={"hidden": 99, "kpoints": 41})
    # the network has no k-points: that size is for another kind of surrogate
    expected = {**SURROGATE, "network": {**SURROGATE["network"], "hidden": 99, "members": 3}}
    assert evaluator_settings(settings) == expected
    assert settings.surrogate == SURROGATE


@pytest.mark.parametrize("evaluator", [None, {"_target_": "matdesinne.training.surrogates.LightningSurrogateINN"}])
def test_evaluator_can_be_another_surrogate(evaluator):
    settings = config(evaluator=evaluator)
    assert evaluator_settings(settings)["_target_"] == (evaluator or SURROGATE)["_target_"]


def test_evaluator_has_its_own_seed_and_all_rows(asked, monkeypatch, tmp_path):
    prepared(monkeypatch, tmp_path, seed=5)
    assert [(len(data.training_rows), seed) for _, data, _, seed in asked[:2]] == [(204, 5), (256, 1000)]
    # after the trainings both are loaded
    assert [seed for *_, seed in asked[2:]] == [5, 1000]


@pytest.mark.slow
def test_evaluator_is_the_same_in_every_repeat(asked, monkeypatch, tmp_path):
    for seed in (0, 1):
        prepared(monkeypatch, tmp_path, toy_data(split_seed=seed, order_seed=seed), seed=seed)
    (first_config, first, *settings), (second_config, second, *others) = [call for call in asked if call[-1] == 1000][1::2]
    assert OmegaConf.to_container(first_config.data, resolve=True) == OmegaConf.to_container(second_config.data, resolve=True)
    assert settings == others
    assert all(torch.equal(getattr(first.split.train, name), getattr(second.split.train, name)) for name in ("x", "y"))
    assert torch.equal(first.split.validation.ids, second.split.validation.ids)


def test_evaluator_is_not_trained_on_labels_of_the_surrogate(asked, monkeypatch, tmp_path):
    prepared(monkeypatch, tmp_path, toy_data(synthetic=SYNTHETIC))
    assert {len(data.training_rows) for _, data, *_ in asked} == {204, 256}


@pytest.mark.slow
@pytest.mark.parametrize("accurate", [None, {"_target_": "matdesinne.training.tight_binding.LightningTightBinding"}])
def test_an_accurate_surrogate_is_made_where_it_is_configured(asked, monkeypatch, tmp_path, accurate):
    ready = prepared(monkeypatch, tmp_path, accurate_surrogate=accurate)
    assert ready.evaluator is not None
    assert (ready.accurate_surrogate is None) == (accurate is None)
    assert len(asked) == (4 if accurate is None else 6)


def test_one_property_only(tmp_path, monkeypatch):
    two = toy_data()
    two.properties = (prop("y"), prop("w"))
    monkeypatch.setattr(preparation, "instantiate", lambda *_, **__: two)
    with pytest.raises(ConfigError, match="one property"):
        prepare(config(), chosen("mdn"), tmp_path)


def test_networks_move_to_a_device():
    model = tiny_network(CONF / "model" / "cvae.yaml", box(), [prop()])
    ready = Prepared({"cVAE": model}, {}, linear(), linear(), None, toy_data()).to(torch.device("meta"))
    assert {network.device.type for network in (model, ready.surrogate, ready.evaluator)} == {"meta"}
