"""Every YAML file composes, and what it describes can be built."""

import functools
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.benchmark.preparation import gather
from matdesinne.cli.arguments import verbatim
from matdesinne.cli.config import config_folder, entry_point
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import Source
from matdesinne.localization import Localizer
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.network import DesignNetwork
from matdesinne.oracles.base import Oracle
from matdesinne.pipeline import InverseDesign
from matdesinne.selection import Selection
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property
from matdesinne.training.build import build_module
from matdesinne.training.module import DesignModule, InverseModule
from matdesinne.training.surrogates import SurrogateModule
from matdesinne.training.sweeps import SweepTable

from .toys import CONF, ROOT, load_part, part_config, tiny_module

GROUPS = {
    path.name: sorted(str(file.relative_to(path).with_suffix("")) for file in path.rglob("*.yaml"))
    for path in CONF.iterdir()
    if path.is_dir()
}
TRAIN_GROUPS = ("data", "model", "surrogate", "trainer", "callbacks", "logger")
GENERATE_GROUPS = ("selection", "localization")
LABEL_GROUPS = ("material", "oracle", "executor")
BENCHMARK_GROUPS = ("data", "surrogate", "trainer", "callbacks", "selection", "localization", "experiment")
CSV = [
    "data.source.path=my.csv",
    "data.space.parameters=[{_target_:matdesinne.space.Parameter,name:x1,unit:m,lower:-1,upper:1}]",
    "data.properties=[{_target_:matdesinne.targets.Property,name:y,unit:eV}]",
]


def options(groups) -> list[str]:
    return [f"{group}={name}" for group in groups for name in GROUPS[group]]


def together(groups) -> list[list[str]]:
    """Every option once, one of each group at a time."""
    count = max(len(GROUPS[group]) for group in groups)
    return [[f"{group}={GROUPS[group][i]}" for group in groups if i < len(GROUPS[group])] for i in range(count)]


SIMULATED = ("gaussian_mixture", "slcp", "two_moons")
"""Tasks of simulation-based inference."""
LIBRARIES = ("matdesinne.", "pytorch_lightning.", "torch.optim.", "pytorch_optimizer.", "ase.calculators.", "parsl.")


@functools.cache
def cached(name: str, *overrides: str) -> DictConfig:
    entry_point(lambda config: None)  # registers the resolver
    extra = CSV if "data=csv" in overrides else []
    with initialize_config_dir(config_folder(), version_base="1.3"):
        config = compose(name, [*overrides, *extra], return_hydra_config=True)
    # what Hydra fills in when a script runs
    config.hydra.runtime.output_dir = "outputs"
    return config


def composed(name: str, *overrides: str) -> DictConfig:
    """No test changes it."""
    config = cached(name, *overrides)
    HydraConfig.instance().set_config(config)
    return config


FILES = sorted(CONF.rglob("*.yaml"))


def test_every_file_starts_with_a_comment():
    assert [path for path in FILES if not path.read_text().startswith("# ")] == []


def test_lines_are_short():
    assert [path for path in FILES if any(len(line) > 140 for line in path.read_text().splitlines())] == []


TRAINED = together([group for group in TRAIN_GROUPS if group != "data"])
"""Each data set chooses a surrogate, so it stands alone."""


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [*([word] for word in options(["data"])), *TRAINED], ids=" ".join)
def test_train_composes(overrides):
    config = composed("train", *overrides)
    OmegaConf.to_container(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True)


@pytest.mark.slow
@pytest.mark.parametrize("override", options(GENERATE_GROUPS))
def test_generate_composes(override):
    config = composed("generate", override, "target=1.0")
    OmegaConf.to_container(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", together(BENCHMARK_GROUPS), ids=" ".join)
def test_benchmark_composes(overrides):
    config = composed("benchmark", *overrides)
    OmegaConf.to_container(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True)


def test_design_composes():
    config = composed("design", "table=a.csv", "property=y", "target=1")
    assert config.folder == "outputs/design/a" == config.hydra.run.dir


def test_both_choices_of_a_surrogate_can_be_built():
    config = composed("train", "data=csv", "surrogate=chosen/gp_or_mlp")
    data = instantiate(config.data, _convert_="all")
    made = [build_module(choice, data).network for choice in config.surrogate.choices.values()]
    assert [type(network).__name__ for network in made] == ["GPSurrogate", "MLPSurrogate"]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["seed=1"], *together([*GENERATE_GROUPS, "data"])], ids=" ".join)
def test_explore_composes(overrides):
    config = composed("explore", *overrides)
    OmegaConf.to_container(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True)


LABELLED = together(LABEL_GROUPS)


def part_of_label(word: str, group: str) -> DictConfig:
    """What the settings of label.py say of a group where they have this word."""
    return composed("label", *next(words for words in LABELLED if word in words), "points=points.csv")[group]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", LABELLED, ids=" ".join)
def test_label_composes(overrides):
    config = composed("label", *overrides, "points=points.csv")
    OmegaConf.to_container(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "material"),
    [
        (name, material)
        for name in GROUPS["oracle"]
        for material in GROUPS["material"]
        if material == "mos2" or "${material." in (CONF / "oracle" / f"{name}.yaml").read_text()
    ],
)
def test_oracle(name, material):
    parts = {"material": part_of_label(f"material={material}", "material"), "oracle": part_of_label(f"oracle={name}", "oracle")}
    oracle = instantiate(OmegaConf.create(parts).oracle, _convert_="all")
    assert isinstance(oracle, Oracle)
    json.dumps(oracle.settings())


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS["material"])
def test_material_is_a_monolayer_about_its_reference(name):
    material = instantiate(part_of_label(f"material={name}", "material"), _convert_="all")
    material["prototype"].check(material["space"])
    space, free = material["space"], "/" in name
    assert space.contains(space.reference)
    if not free:  # the ranges of the free-standing layers are wider in tension
        torch.testing.assert_close((space.lower + space.upper) / 2, space.reference)
    atoms = material["prototype"].atoms(space.design(space.reference.tolist()))
    metal, above, below = atoms.get_chemical_symbols()
    assert f"{metal.lower()}{above.lower()}2" == Path(name).name and above == below
    # bond lengths of the family, 2.39 to 2.53 angstrom
    assert all(2.38 < atoms.get_distance(0, i, mic=True) < 2.55 for i in (1, 2))


@pytest.mark.slow
def test_default_oracle_is_that_of_the_card():
    """The numerics that matdesinne/datasets/mos2_gpaw.md states."""
    oracle = instantiate(composed("label").oracle, _convert_="all")
    card = (ROOT / "matdesinne" / "datasets" / "mos2_gpaw.md").read_text()
    numerics = oracle.settings()
    assert f"PW({numerics['cutoff']}), xc {numerics['functional']}" in " ".join(card.split())
    assert f"FermiDirac({numerics['smearing']}), {numerics['bands']} bands" in " ".join(card.split())
    assert f"Mixer({', '.join(str(part) for part in numerics['mixing'])})" in card
    assert numerics["grids"] == {"": 9}


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_experiment_can_be_built(name):
    config = composed("benchmark", f"experiment={name}")
    data = instantiate(config.data, _convert_="all")
    models = gather(config, CONF / "model")
    assert all(isinstance(build_module(model, data).network, InverseModel) for model in models.values())
    assert isinstance(build_module(config.surrogate, data).network, Surrogate)
    assert isinstance(instantiate(config.selection, _convert_="all"), Selection)
    assert isinstance(instantiate(config.localization, _convert_="all"), Localizer)


@pytest.mark.slow
def test_command_line_changes_an_experiment():
    config = composed("benchmark", "experiment=paper", "published.targets=[1.0]", "surrogate.network.blocks=2")
    assert (config.published.targets, config.surrogate.network.blocks) == ([1.0], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GROUPS["hparams_search"] if name != "optuna"])
def test_search_varies_settings_that_exist(name):
    """The first and the last combination compose; a search for a surrogate trains no model."""
    search = composed("train", f"hparams_search={name}")
    params = {key: str(values).split(",") for key, values in search.hydra.sweeper.params.items()}
    assert any(len(values) > 1 for values in params.values())
    for end in (0, -1):
        chosen = [values[end] for values in params.values()]
        words = [f"{key}={value}" for key, value in zip(params, chosen, strict=True)]
        config = composed("train", f"hparams_search={name}", "data=mos2_vasp", *words)
        assert all(str(OmegaConf.select(config, key)) == value for key, value in zip(params, chosen, strict=True))
        assert (config.get("model") is None) is (name == "surrogate")
    metric = "val/mae" if name == "surrogate" else "val/target_mae"
    assert search.hydra.callbacks.sweep_table.metric == metric


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["hparams_search=surrogate"]], ids=["default", "search"])
def test_sweeps_end_with_a_table(words):
    config = composed("train", *words).hydra.callbacks.sweep_table
    assert isinstance(instantiate(config), SweepTable)


def test_every_group_is_reached():
    reached = {
        *TRAIN_GROUPS,
        *GENERATE_GROUPS,
        *BENCHMARK_GROUPS,
        "hparams_search",
        "hydra",
        "space",
        "prototype",
        "relatives",
        *LABEL_GROUPS,
    }
    assert set(GROUPS) <= reached


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS["relatives"])
def test_similar_materials_have_rows(name):
    for relative in load_part("relatives", name).values():
        assert len(relative.rows(relative.space, [Property("strain_energy", "eV")], torch.empty(0, 3))) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in GROUPS["space"] if "/" not in name and name not in ("monolayer", "ballistics", "kinematics", *SIMULATED)],
)
def test_monolayers_share_their_symmetries(name):
    symmetries = OmegaConf.load(ROOT / "matdesinne" / "pretrained" / "config.yaml").data.space.symmetries
    space = part_config("space", name)
    assert space.symmetries == symmetries and list(space) == ["_target_", "parameters", "symmetries"]
    assert len(instantiate(space, _convert_="all").group()) == 4


@pytest.mark.slow
def test_space_of_the_packaged_weights():
    assert composed("train").data.space == OmegaConf.load(ROOT / "matdesinne" / "pretrained" / "config.yaml").data.space


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GROUPS["data"] if name != "layer"])  # design.py fills that in
def test_data(name):
    config = composed("train", f"data={name}")
    assert isinstance(instantiate(config.data, _convert_="all"), DesignDataModule)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mos2_gpaw", "kinematics", "ballistics", *SIMULATED])
def test_data_can_be_read(name):
    few = {"mos2_gpaw": [], "kinematics": ["data.source.drawn=4000"], "ballistics": ["data.source.drawn=4000"]}
    count = [] if name == "mos2_gpaw" else ["data.source.count=2000"]
    config = composed("train", f"data={name}", *count, *few.get(name, []))
    split = instantiate(config.data, _convert_="all").split
    assert len(split.train) > len(split.validation) > 0


@pytest.mark.slow
def test_published_data_can_be_read(published_folder, monkeypatch):
    monkeypatch.setenv("MATDESINNE_MOS2_VASP", str(published_folder))
    data = instantiate(composed("train", "data=mos2_vasp").data, _convert_="all")
    assert sum(len(ids) for ids in data.split.row_ids().values()) == 10_798 - 368
    assert data.duplicates == 368


@pytest.mark.slow
# the paper's rows are also a part of benchmark.yaml, where they must not choose: experiment=paper does
@pytest.mark.parametrize("name", [name for name in GROUPS["data"] if name != "paper/mos2_vasp"])
def test_data_chooses_a_surrogate_that_fits(name):
    chosen = composed("train", f"data={name}").surrogate.network._target_
    assert chosen.endswith("BandSurrogate") is (name == "mos2_gpaw")


@pytest.mark.slow
def test_surrogate_on_the_command_line_wins():
    assert composed("train", "data=mos2_gpaw", "surrogate=mlp").surrogate.network._target_.endswith("MLPSurrogate")


@pytest.mark.slow
@pytest.mark.parametrize("group", ["model", "surrogate"])
def test_modules(group):
    space = load_part("space")
    config = composed("train")
    data = instantiate(config.data, _convert_="all")
    kind = {"model": InverseModel, "surrogate": Surrogate}[group]
    for path in (CONF / group / f"{name}.yaml" for name in GROUPS[group]):
        if "defaults" in OmegaConf.load(path) or path.parent.name == "sbi":
            continue  # made of others, or of an extra; below it is made at its full size
        made = tiny_module(path, space, data.properties, prototype=data.prototype)
        assert isinstance(made, pl.LightningModule) and isinstance(made.network, kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "override"),
    [(words, word) for words in TRAINED for word in words if re.match("(model|surrogate)=(?!.*/gp_or_mlp)", word)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_module_at_its_full_size(overrides, override):
    """Network, optimizer and scheduler can be made."""
    if override.startswith("model=sbi/"):
        pytest.importorskip("sbi", reason="the extra `peers` is not installed")
    config = composed("train", *overrides)
    data = instantiate(config.data, _convert_="all")
    group = override.split("=")[0]
    kind = {"model": InverseModule, "surrogate": SurrogateModule}[group]
    made = build_module(config[group], data)
    assert isinstance(made, kind)
    assert sum(p.numel() for p in made.parameters()) > (
        5 if override.startswith("surrogate=gp") else 90
    )  # the published MDN has 94
    made.trainer = SimpleNamespace(estimated_stepping_batches=1000)
    optimizers = made.configure_optimizers()
    optimizer = optimizers["optimizer"] if isinstance(optimizers, dict) else optimizers
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.defaults["lr"] == config[group].optimizer.lr
    assert isinstance(optimizers, dict) is (config[group].scheduler is not None)


SETTINGS = [CONF / group / f"{name}.yaml" for group in ("model", "surrogate") for name in GROUPS[group] if "/" not in name]
FROM_THE_DATA = {"space", "properties", "prototype", "kpoints"}


def comparable(value: object) -> object:
    """Partials by what they call with which arguments; a tuple is as good as a list."""
    if isinstance(value, functools.partial):
        return value.func, comparable(value.args), comparable(value.keywords)
    if isinstance(value, Mapping):
        return {key: comparable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(entry) for entry in value]
    return value


@pytest.mark.slow
@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_defaults_of_constructors_are_those_of_the_file(path):
    config = OmegaConf.load(path)
    for settings in (config, config.network):
        kind = get_class(settings._target_)
        parameters = inspect.signature(kind).parameters
        names = [key for key in settings if key not in ("_target_", "network", *FROM_THE_DATA)]
        plain = instantiate({key: settings[key] for key in names}, _convert_="all")
        stated = {key: parameter.default for key, parameter in parameters.items()} | dict(getattr(kind, "defaults", {}))
        defaults = {key: stated[key] for key in names}
        assert comparable(defaults) == comparable(plain)
    # what a file does not name is what the paper's files are for, or comes from the data
    unnamed = set(parameters) - set(config.network) - FROM_THE_DATA
    assert unnamed <= {"coordinates", "paper_network"}
    kind = get_class(config._target_)
    assert {*inspect.signature(kind).parameters, *kind.defaults} - {"options"} <= set(config)


@pytest.mark.slow
@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_network_and_its_module_need_no_settings(path):
    config, data = OmegaConf.load(path), instantiate(composed("train").data, _convert_="all")
    bare = OmegaConf.create({"_target_": config._target_, "network": {"_target_": config.network._target_}})
    one, two = build_module(config, data), build_module(bare, data)
    assert one.network.to_config() == two.network.to_config()
    assert comparable(dict(one.hparams)) == comparable(dict(two.hparams))


@pytest.mark.parametrize(
    "kind", [DesignNetwork, InverseModel, DensityModel, Surrogate, DesignModule, InverseModule, SurrogateModule, Source]
)
def test_an_abstract_class_is_abstract(kind):
    assert inspect.isabstract(kind)
    with pytest.raises(TypeError, match="abstract"):
        kind()


@pytest.mark.parametrize(
    ("group", "kind"),
    [("selection", Selection), ("localization", Localizer), ("prototype", Prototype)],
)
def test_parts(group, kind):
    for name in GROUPS[group]:
        assert isinstance(instantiate(OmegaConf.load(CONF / group / f"{name}.yaml"), _convert_="all"), kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GROUPS["space"] if Path(name).name not in ("monolayer", "layer")])
def test_space(name):
    assert isinstance(load_part("space", name), DesignSpace)


@pytest.mark.parametrize("name", GROUPS["trainer"])
def test_trainer(name):
    make = instantiate(OmegaConf.load(CONF / "trainer" / f"{name}.yaml"))
    assert isinstance(make(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False), pl.Trainer)


@pytest.mark.parametrize("name", GROUPS["callbacks"])
def test_callbacks(name):
    callbacks = [instantiate(callback) for callback in OmegaConf.load(CONF / "callbacks" / f"{name}.yaml").values()]
    assert all(isinstance(callback, pl.Callback) for callback in callbacks)
    assert [type(callback).__name__ for callback in callbacks] == {"default": ["EarlyStopping"], "none": []}[name]


@pytest.mark.slow
def test_generate_defaults_are_those_of_the_library():
    config = composed("generate", "target=1.0")
    made = instantiate(config.localization, _convert_="all")
    from matdesinne.localization import Newton

    assert vars(made) == vars(Newton())
    import inspect

    assert config.accepted_error == inspect.signature(InverseDesign.load).parameters["accepted_error"].default


@pytest.mark.slow
def test_targets_are_ours_or_of_the_libraries_in_use():
    def walk(node):
        if isinstance(node, dict):
            if "_target_" in node:
                yield node["_target_"]
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    named = {(path, name) for path in FILES for name in walk(OmegaConf.to_container(OmegaConf.load(path), resolve=False))}
    assert len(named) > len(FILES) / 2
    assert {(path, name) for path, name in named if not name.startswith(LIBRARIES)} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["abs(a) < 0.05", "a == 0", "a <= 1 and b != 2", "it's \\ odd", "'quoted = 1'", '"quoted"', "null", "3"]
)
def test_a_verbatim_value_reaches_the_task(value, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script", f"where={value}", "seed=3"])
    seen = []
    plain = hydra.main(version_base="1.3", config_path=config_folder(), config_name="generate")
    verbatim("where")(plain(lambda config: seen.extend([config.where, config.seed])))()
    assert seen == [None if value == "null" else value.strip("'\""), 3]
