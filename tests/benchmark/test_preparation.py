from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from matdesinne.benchmark import preparation
from matdesinne.benchmark.parallel import Trainings
from matdesinne.benchmark.preparation import _evaluator, gather, prepare, train_models
from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.files import write_json
from matdesinne.network import save_network

from ..conftest import CONF, TINY, box, prop, rows, tiny_module, toy_data, trainer_config, yaml_files

SURROGATE = {"_target_": "matdesinne.surrogates.mlp.MLPSurrogate", "hidden": 16, "members": 2}


def config(**changes: object) -> DictConfig:
    base = {
        "models": None,
        "runs": {},
        "property": None,
        "workers": 1,
        "seed": 0,
        "trainer": trainer_config(),
        "data": {"source": "toy"},
        "surrogate": SURROGATE,
        "surrogates_folder": "kept",
        "evaluator": {},
    }
    return OmegaConf.merge(base, changes)


def chosen(*names: str, **changes: object) -> dict[str, DictConfig]:
    models = gather(config(models=list(names)), CONF / "model")
    for model in models.values():
        small = {key: value for key, value in {**TINY, **changes}.items() if key in model}
        model.update({key: [8, 8] if OmegaConf.is_list(model[key]) else value for key, value in small.items()})
    return models


def test_all_models_are_those_at_the_top():
    assert list(gather(config(), CONF / "model")) == [path.stem for path in yaml_files("model")]


@pytest.mark.parametrize("names", [["mdn"], ["paper/cinn", "cvae"], []])
def test_models_by_name(names):
    found = gather(config(models=names), CONF / "model")
    assert {name: model for name, model in found.items()} == {
        name: OmegaConf.load(CONF / "model" / f"{name}.yaml") for name in names
    }


@pytest.mark.parametrize("changes", [{"models": ["mdn", "paper/nothing"]}, {"runs": {"paper/nothing": "runs/one"}}])
def test_unknown_model(changes):
    with pytest.raises(ConfigError, match=r"'paper/cinn'.*\['paper/nothing'\]"):
        gather(config(**changes), CONF / "model")


@pytest.fixture
def fitted(monkeypatch) -> list[Path]:
    """The folders in which something was trained; the training only learns the scales."""
    places = []

    def fit(module, data, trainer, folder, loggers):
        places.append(folder)
        module.fit_scales(data.training_batch(), data.prior)
        write_json(folder / "metrics.json", {"seconds": 7.5})
        return module.eval()

    monkeypatch.setattr(preparation, "fit", fit)
    return places


def test_models_are_trained_in_folders_of_their_names(fitted, tmp_path):
    trained, seconds = train_models(config(), chosen("mdn", "paper/cinn"), toy_data(), tmp_path, Trainings(1))
    assert list(trained) == list(seconds) == ["MDN", "cINN"]
    assert fitted == [tmp_path / "mdn", tmp_path / "paper" / "cinn"]
    assert set(seconds.values()) == {7.5}


def test_equal_settings_are_not_trained_again(fitted, tmp_path):
    first, _ = train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    second, seconds = train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 1 and seconds == {"MDN": 7.5}
    y = torch.zeros(5, 1)
    samples = [models["MDN"].sample(y, torch.Generator().manual_seed(0)) for models in (first, second)]
    assert torch.equal(*samples)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"data": {"source": "other"}}, {"surrogate": {"hidden": 17}}, {"trainer": {"max_epochs": 3}}],
    ids=["seed", "data", "surrogate", "epochs"],
)
def test_other_settings_are_trained_again(fitted, tmp_path, changes):
    for settings in (config(), config(**changes)):
        train_models(settings, chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 2


def test_another_model_is_trained_again(fitted, tmp_path):
    for hidden in (16, 17):
        train_models(config(), chosen("mdn", hidden=hidden), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 2


def test_other_rows_are_trained_again(fitted, tmp_path):
    for count in (256, 300):
        train_models(config(), chosen("mdn"), toy_data(count), tmp_path, Trainings(1))
    assert len(fitted) == 2


@pytest.mark.parametrize("content", [None, "", "{", "[]"], ids=["missing", "empty", "truncated", "foreign"])
def test_a_training_that_was_cut_off_is_done_again(fitted, tmp_path, content):
    train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    path = tmp_path / "mdn" / "settings.json"
    path.unlink() if content is None else path.write_text(content)
    train_models(config(), chosen("mdn"), toy_data(), tmp_path, Trainings(1))
    assert len(fitted) == 2


def test_a_run_is_taken_as_it_is(fitted, tmp_path):
    model = tiny_module(CONF / "model" / "mdn.yaml", box(), [prop()])
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


def test_two_settings_of_one_method(fitted, tmp_path):
    trained, _ = train_models(config(), chosen("cinn", "paper/cinn"), toy_data(), tmp_path, Trainings(1))
    assert len(trained) == 2


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """What surrogates were asked for."""
    calls = []
    monkeypatch.setattr(preparation, "cached_surrogate", lambda *arguments: calls.append(arguments))
    return calls


def test_independent_surrogate_has_changes(asked):
    settings = config(evaluator={"hidden": 99, "kpoints": 41}, seed=5)
    _evaluator(settings, toy_data())
    # what the surrogate does not know is for another kind of it
    assert asked[0][0].surrogate == {**SURROGATE, "hidden": 99}
    assert settings.surrogate == SURROGATE


def test_independent_surrogate_can_be_another_one(asked):
    other = {"_target_": "matdesinne.surrogates.inn.INNSurrogate", "blocks": 3}
    _evaluator(config(evaluator=other), toy_data())
    assert asked[0][0].surrogate == other


def test_independent_surrogate_has_its_own_seed_and_all_rows(asked):
    _evaluator(config(seed=5), toy_data())
    _, data, seed, folder = asked[0]
    assert (len(data.training_rows), seed, folder) == (256, 1000, Path("kept"))


def test_independent_surrogate_is_the_same_in_every_repeat(asked):
    for seed in (0, 1):
        _evaluator(config(seed=seed), toy_data(split_seed=seed, order_seed=seed))
    first, second = asked
    assert first[0].data == second[0].data and first[2:] == second[2:]
    assert all(torch.equal(getattr(first[1].split.train, name), getattr(second[1].split.train, name)) for name in ("x", "y"))
    assert torch.equal(first[1].split.validation.ids, second[1].split.validation.ids)


def test_independent_surrogate_is_not_trained_on_labels_of_the_other(asked):
    class Labels:
        def make(self, space, surrogate):
            raise AssertionError

    _evaluator(config(), toy_data(labels=Labels()).labelled_by(None))
    assert len(asked[0][1].training_rows) == 256


def test_one_property_only(tmp_path, monkeypatch):
    two = toy_data()
    two.properties = (prop("y"), prop("w"))
    monkeypatch.setattr(preparation, "instantiate", lambda *_, **__: two)
    with pytest.raises(ConfigError, match="one property"):
        prepare(config(), chosen("mdn"), tmp_path)
