"""What the tests share: tolerances, tiny spaces and networks, exact surrogates."""

import copy
import functools
import importlib
import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from hydra.utils import instantiate
from hypothesis import settings
from omegaconf import DictConfig, OmegaConf

from matdesinne.candidates import Candidates
from matdesinne.cli.config import config_folder
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import Source
from matdesinne.data.table import DesignTable
from matdesinne.network import Batch, DesignNetwork
from matdesinne.space import DesignSpace, Parameter
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property, Target
from matdesinne.training.build import build_module
from matdesinne.training.module import DesignModule

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def parse_once() -> None:
    """Let Hydra parse each file of conf once: it takes a third of the time of a composition."""
    plain = FileConfigSource.load_config

    @functools.cache
    def parsed(provider: str, name: str) -> bytes:
        return pickle.dumps(plain(FileConfigSource(provider, str(CONF)), name))

    def load(source: FileConfigSource, name: str) -> ConfigResult:
        return pickle.loads(parsed(source.provider, name)) if Path(source.path) == CONF else plain(source, name)

    FileConfigSource.load_config = load


parse_once()

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Relative and absolute tolerance of every comparison; a test may widen it by a factor."""

TINY = {"hidden": 16, "blocks": 2, "depth": 1, "members": 2, "components": 3, "latent": 3, "pieces": 2, "kpoints": 41}

PARAMETERS = ",".join(
    f"{{_target_:matdesinne.space.Parameter,name:{name},unit:m,lower:-1.0,upper:1.0}}" for name in ("x1", "x2")
)
QUICK = [
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "logger=csv",
    "surrogate.network.hidden=16",
    "surrogate.max_epochs=3",
    "surrogate.batch_size=32",
    "surrogate.optimizer.lr=0.01",
    "model.max_epochs=1",
    "data.synthetic.uniform=2000",
    "data.synthetic.chains=200",
    "data.synthetic.steps=1",
]
"""Words for a script that trains for a moment."""

LEARNT = [
    *(word for word in QUICK if not word.startswith("surrogate.")),
    "surrogate=gp",
    "surrogate.optimizer.max_iter=20",
]
"""The same with a surrogate that learns the table of `write_table`."""

OWN = [
    "data=csv",
    "data.source.path=table.csv",
    f"data.space.parameters=[{PARAMETERS}]",
    "data.properties=[{_target_:matdesinne.targets.Property,name:y,unit:eV,floor:-1.0}]",
]
"""Words for the table that `write_table` writes."""


@functools.cache
def part_config(group: str, name: str = "mos2") -> DictConfig:
    """What a file of conf/space or conf/prototype composes to with its defaults; no test changes it."""
    with initialize_config_dir(config_folder(), version_base="1.3"):
        return OmegaConf.select(compose(f"{group}/{name}"), f"{group}/{name}".rpartition("/")[0].replace("/", "."))


def load_part(group: str, name: str = "mos2"):
    return instantiate(part_config(group, name), _convert_="all")


def yaml_files(group: str) -> list[Path]:
    """Files of conf, and of the folder in pytest's option --own."""
    own = Path(os.environ["MATDESINNE_OWN"]) if "MATDESINNE_OWN" in os.environ else None
    return [path for folder in (CONF, own) if folder for path in sorted((folder / group).glob("*.yaml"))]


def tiny_module(
    path: Path,
    space: DesignSpace,
    properties: list[Property],
    seed: int = 0,
    prototype: Prototype | None = None,
    **settings: object,
) -> DesignModule:
    """The LightningModule of a YAML file, its network made small; same seed, same weights.

    A setting goes to the network or to the module, whichever has it; one that neither has is left out.
    """
    config = OmegaConf.load(path)
    changes = {key: value for key, value in {**TINY, **settings}.items() if key in config.network}
    if isinstance(changes.get("hidden"), int) and OmegaConf.is_list(config.network.hidden):
        changes["hidden"] = [changes["hidden"]] * len(config.network.hidden)
    config.network.update(changes)
    config.update({key: value for key, value in settings.items() if key in config})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_module(
            config,
            SimpleNamespace(space=space, properties=tuple(properties), prototype=prototype, training_rows=rows(space)),
        )


def tiny_network(
    path: Path, space: DesignSpace, properties: list[Property], *args: object, **settings: object
) -> DesignNetwork:
    """The network of a YAML file, see `tiny_module`."""
    return tiny_module(path, space, properties, *args, **settings).network


def loss_of(module: DesignModule, batch: Batch) -> dict[str, torch.Tensor]:
    """The losses of a batch, and under "objective" what a step minimises."""
    losses = module.losses(batch)
    return {"objective": losses["loss"], **losses}


def perturb(module: torch.nn.Module, size: float = 0.3, seed: int = 0) -> None:
    """Move the weights away from their start, where a coupling is the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))


def box(dimension: int = 2, scale: float = 1.0) -> DesignSpace:
    return DesignSpace([Parameter(f"x{i + 1}", "m", -scale, scale) for i in range(dimension)])


def line(dimension: int = 2) -> DesignSpace:
    return DesignSpace([Parameter(f"x{i + 1}", "m") for i in range(dimension)])


def prop(name: str = "y", floor: float | None = None, censored: bool = False, margin: float = 0.0) -> Property:
    return Property(name, "eV", floor, margin, censored)


def rows(space: DesignSpace, count: int = 256, outputs: int = 1, seed: int = 0) -> Batch:
    """Designs from the box (or a normal) with y = the sum of the coordinates, and their difference."""
    generator = torch.Generator().manual_seed(seed)
    x = space.sample(count, generator) if space.bounded else torch.randn(count, space.dimension, generator=generator)
    y = torch.stack([x.sum(dim=1), x[:, 0] - x[:, -1]], dim=1)
    return Batch(x, y[:, :outputs])


class TableSource(Source):
    """A table that is there already."""

    def __init__(self, table: DesignTable) -> None:
        self.table = table

    def load(self, space, properties, root=None):
        return self.table

    @property
    def name(self):
        return "memory"


def toy_data(count: int = 256, space: DesignSpace | None = None, **settings: object) -> DesignDataModule:
    space = space or box()
    batch = rows(space, count)
    source = TableSource(DesignTable(batch.x, batch.y, torch.arange(count)))
    return DesignDataModule(source, space, [prop()], **{"test": 0.1, "validation": 0.1, **settings})


def trainer(folder: Path, **settings: object) -> pl.Trainer:
    options = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(default_root_dir=folder, **{**options, **settings})


def trainer_config(**changes: object) -> DictConfig:
    """What conf/trainer composes to, for two quiet epochs."""
    quick = {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False}
    return OmegaConf.merge(OmegaConf.load(CONF / "trainer" / "default.yaml"), quick, changes)


def make_trainer(**changes: object):
    """What train.py gives to `fit`."""
    return instantiate(trainer_config(**changes))


def write_table(folder: Path, change=None) -> Path:
    x = box().sample(120, torch.Generator().manual_seed(0))
    lines = ["x1,x2,y", *(f"{a},{b},{a + b}" for a, b in x.tolist())]
    lines = change(lines) if change else lines
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


@functools.cache
def composed(name: str, *choices: str) -> DictConfig:
    with initialize_config_dir(config_folder(), version_base="1.3"):
        return compose(name, list(choices), return_hydra_config=True)


def script_config(name: str, folder: Path, *overrides: str) -> DictConfig:
    """What Hydra gives to a script's task that runs in this process with this folder.

    As Hydra does, it composes the groups, which takes a third of a second once for each choice of them, and then sets values.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [word for word in parsed if word.input_line[0].isalpha() and is_value(word.key_or_group)]
    config = copy.deepcopy(composed(name, *(word.input_line for word in parsed if word not in values)))
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    config.hydra.overrides.task = [word.input_line for word in parsed if not word.is_hydra_override()]
    config.hydra.runtime.cwd = os.getcwd()
    config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def is_value(key: str) -> bool:
    """Whether a word sets a value; others choose a file of a group."""
    return "@" not in key and "/" not in key and not (CONF / key).is_dir()


def run_train(config: DictConfig) -> float:
    """What train.py does with a configuration of `script_config`, in this process."""
    return importlib.import_module("train").main(config)


def cases(count: int, **options: object) -> settings:
    """So many cases of a property test in `make fuzz`, a tenth of them otherwise."""
    return settings(max_examples=count * settings.default.max_examples // 1000, **options)


class Linear(Surrogate):
    """y = A x."""

    def __init__(self, space: DesignSpace, properties: list[Property], matrix: list[list[float]]) -> None:
        super().__init__(space, properties)
        self.register_buffer("matrix", torch.tensor(matrix))
        self.fit_scales(Batch(rows(space, 2).x, torch.tensor([[0.0], [2.0]]).expand(2, len(properties))))

    def member_predictions(self, features):
        return (self.features.scale.inverse(features) @ self.matrix.T).unsqueeze(0)


class Quadratic(Linear):
    """y = (A x) + |x|^2, two members that differ by `gap`."""

    gap = 0.02

    def member_predictions(self, features):
        x = self.features.scale.inverse(features)
        mean = x @ self.matrix.T + x.square().sum(dim=1, keepdim=True)
        return torch.stack([mean - self.gap / 2, mean + self.gap / 2])


def linear(dimension: int = 2, outputs: int = 1) -> Linear:
    matrix = [[1.0] * dimension, [1.0] + [0.0] * (dimension - 2) + [-1.0]][:outputs]
    return Linear(box(dimension), [prop("y"), prop("w")][:outputs], matrix).eval()


def quadratic(dimension: int = 2) -> Quadratic:
    return Quadratic(box(dimension), [prop()], [[0.5] * dimension]).eval()


def candidates(surrogate: Surrogate, x: torch.Tensor, target: object) -> Candidates:
    wanted = target if isinstance(target, Target) else Target.parse(target, surrogate.properties)
    mean, std = surrogate.predict_many(x)
    return Candidates(surrogate.space, surrogate.properties, x, wanted, mean, std, "sampled")


def wandb_log_names(folder: Path, *names: str) -> bool:
    """Whether the log of the one offline run of Weights & Biases in a folder names these metrics, at the latest after 30 s.

    Its service writes the log on its own time, on a busy machine after the run has ended.
    """
    [log] = folder.glob("wandb/offline-run-*/*.wandb")
    for _ in range(300):
        content = log.read_bytes()
        if all(name.encode() in content for name in names):
            return True
        time.sleep(0.1)
    return False
