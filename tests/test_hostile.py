"""Files made to do harm or to be unreadable: nothing in them is executed, each is refused with its reason."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file

from matdesinne.candidates import Candidates
from matdesinne.data.table import read_numbers
from matdesinne.errors import CheckpointError, DatasetError
from matdesinne.network import DesignNetwork, load_network, save_network
from matdesinne.training.checkpoints import read_network
from matdesinne.training.fit import fit
from matdesinne.training.mdn import LightningMDN

from .toys import CONF, box, make_trainer, prop, tiny_module, toy_data

NAMES = ["x1", "x2", "y"]


class Canary:
    """Leaves a file where it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.fixture
def canary(tmp_path):
    yield Canary(tmp_path / "sung")
    assert not (tmp_path / "sung").exists(), "something was executed"


def module() -> LightningMDN:
    return tiny_module(CONF / "model" / "mdn.yaml", box(), [prop(floor=0.0)], hidden=4)


def network() -> DesignNetwork:
    return module().network


def whole(**changes) -> dict:
    """What Lightning reads of a checkpoint."""
    made = module()
    hyper_parameters = {**made.hparams, "network": {**made.network.to_config(), **changes}}
    return {
        "pytorch-lightning_version": pl.__version__,
        "hyper_parameters": hyper_parameters,
        "state_dict": dict(made.state_dict()),
    }


def zipped(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)


def flipped(path: Path) -> None:
    """One bit of a weight."""
    torch.save(whole(), path)
    content = bytearray(path.read_bytes())
    content[content.index(network().network[0].weight.detach().numpy().tobytes()[:16])] ^= 1
    path.write_bytes(content)


CHECKPOINTS = {
    "pickle": lambda path, bad: path.write_bytes(pickle.dumps(bad)),
    "old-pickle": lambda path, bad: path.write_bytes(pickle.dumps(bad, protocol=0)),
    "pickle-inside": lambda path, bad: torch.save({**whole(), "more": bad}, path),
    "pickle-as-weights": lambda path, bad: torch.save({**whole(), "state_dict": bad}, path),
    "pickle-as-setting": lambda path, bad: torch.save(whole(settings=bad), path),
    "legacy-format": lambda path, bad: torch.save(whole(), path, _use_new_zipfile_serialization=False),
    "whole-module": lambda path, bad: torch.save(network(), path),
    "class-of-os": lambda path, bad: torch.save(whole(name="os.system"), path),
    "class-of-torch": lambda path, bad: torch.save(whole(name="torch.nn.modules.linear.Linear"), path),
    "class-behind-ours": lambda path, bad: torch.save(whole(name="matdesinne.network.importlib.import_module"), path),
    "class-beside-ours": lambda path, bad: torch.save(whole(name="matdesinnevil.models.MDN"), path),
    "class-that-is-none": lambda path, bad: torch.save(whole(name="matdesinne.data.table.read_frame"), path),
    "class-with-null": lambda path, bad: torch.save(whole(name="matdesinne.\0.MDN"), path),
    "target-in-settings": lambda path, bad: torch.save(whole(settings={"_target_": "os.system", "_args_": ["false"]}), path),
    "flipped-bit": lambda path, bad: flipped(path),
    "empty-zip": lambda path, bad: zipped(path),
    "zip-of-a-pickle": lambda path, bad: zipped(path, a__data__pkl=pickle.dumps(bad), a__version=b"3\n"),
    "zip-that-climbs": lambda path, bad: zipped(path, **{"../../sung": b"x"}),
    "folder": lambda path, bad: path.mkdir(),
    "device": lambda path, bad: path.symlink_to("/dev/null"),
}


hostile_checkpoints = pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)


@pytest.mark.slow
@hostile_checkpoints
def test_checkpoint(tmp_path, canary, make):
    make(tmp_path / "module.ckpt", canary)
    with pytest.raises(CheckpointError, match="Expected"):
        read_network(tmp_path / "module.ckpt")


@pytest.mark.slow
@hostile_checkpoints
def test_checkpoint_of_a_run_that_is_resumed(tmp_path, canary, make):
    (tmp_path / "checkpoints").mkdir()
    make(tmp_path / "checkpoints" / "last.ckpt", canary)
    with pytest.raises(CheckpointError, match="Expected"):
        fit(module(), toy_data(), make_trainer(), tmp_path, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if name not in ("flipped-bit", "legacy-format")])
def test_checkpoint_read_by_lightning(tmp_path, canary, name):
    """Its own method raises what it raises, and executes nothing; it does not look at checksums."""
    CHECKPOINTS[name](tmp_path / "module.ckpt", canary)
    with pytest.raises(Exception):  # noqa: B017
        LightningMDN.load_from_checkpoint(tmp_path / "module.ckpt", weights_only=True)


@pytest.mark.slow
def test_checkpoint_of_these_tests_is_whole(tmp_path):
    """What the others differ from by one thing."""
    torch.save(whole(), tmp_path / "module.ckpt")
    assert isinstance(read_network(tmp_path / "module.ckpt"), DesignNetwork)
    assert isinstance(LightningMDN.load_from_checkpoint(tmp_path / "module.ckpt", weights_only=True), LightningMDN)


def described(folder: Path, **changes: object) -> None:
    plain = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**plain, **changes}))


def header(folder: Path, text: bytes, length: int | None = None) -> None:
    described(folder, sha256=None)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text)


def swapped(folder: Path) -> None:
    save_file({key: value + 1 for key, value in network().state_dict().items()}, folder / "model.safetensors")


FOLDERS = {
    "pickle": lambda folder, bad: (folder / "model.safetensors").write_bytes(pickle.dumps(bad)),
    "torch": lambda folder, bad: torch.save(bad, folder / "model.safetensors"),
    "class-of-os": lambda folder, bad: described(folder, name="os.system"),
    "class-of-torch": lambda folder, bad: described(folder, name="torch.nn.Linear"),
    "target": lambda folder, bad: described(folder, settings={"_target_": "os.system", "command": "false"}),
    "prototype": lambda folder, bad: described(folder, settings={"prototype": {"_target_": "os.system"}}),
    "weights-of-others": lambda folder, bad: swapped(folder),
    "endless-header": lambda folder, bad: header(folder, b"{}", 2**63),
    "deep-header": lambda folder, bad: header(folder, b"[" * 100_000),
    "huge-tensor": lambda folder, bad: header(folder, b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'),
    "deep-json": lambda folder, bad: (folder / "model.json").write_text("[" * 100_000),
    "wide-number": lambda folder, bad: (folder / "model.json").write_text('{"name": ' + "9" * 10_000 + "}"),
    "not-utf8": lambda folder, bad: (folder / "model.json").write_bytes(b"\xff\xfe{}"),
    "list": lambda folder, bad: (folder / "model.json").write_text("[]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_folder_of_weights(tmp_path, canary, make):
    save_network(network(), tmp_path, "model")
    make(tmp_path, canary)
    with pytest.raises(CheckpointError, match="Expected"):
        load_network(DesignNetwork, tmp_path, "model")


def extension(path: Path, bad: Canary) -> None:
    """A column whose type would be unpickled by an old pyarrow."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(bad)}
    fields = [pyarrow.field(name, pyarrow.binary(), metadata=metadata) for name in NAMES]
    pyarrow.parquet.write_table(pyarrow.table([[b"?"]] * 3, schema=pyarrow.schema(fields)), path)


def pandas_of(path: Path, bad: Canary) -> None:
    """Metadata that tell pandas to build types of its own."""
    entry = {"name": "x1", "field_name": "x1", "pandas_type": "object", "numpy_type": "os.system", "metadata": None}
    metadata = {"pandas": json.dumps({"index_columns": ["x1"], "columns": [entry], "column_indexes": []})}
    table = pyarrow.table({name: ["1.0"] for name in NAMES})
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def typed(kind: pyarrow.DataType, value: object):
    def make(path: Path, bad: Canary) -> None:
        pyarrow.parquet.write_table(pyarrow.table({name: pyarrow.array([value], kind) for name in NAMES}), path)

    return make


def lines(*more: str):
    return lambda path, bad: path.write_text("\n".join(["x1,x2,y", *more]), encoding="utf-8", errors="surrogatepass")


TABLES = {
    "formula.csv": lines("=SYSTEM(),0,0"),
    "python.csv": lines("__import__('os').system('false'),0,0"),
    "null.csv": lines("0,\0,0"),
    "quote.csv": lines('"0,0,0', "0,0,0"),
    "short.csv": lines("0,0"),
    "long.csv": lines("0,0,0,0"),
    "surrogate.csv": lines("\ud800,0,0"),
    "wide.csv": lines("0,0," + "9" * 1_000_000),
    "twice.csv": lambda path, bad: path.write_text("x1,x1,x2,y\n0,0,0,0\n"),
    "utf16.csv": lambda path, bad: path.write_text("x1,x2,y\n0,0,0\n", encoding="utf-16"),
    "binary.csv": lambda path, bad: path.write_bytes(bytes(range(256)) * 50),
    "pickle.csv": lambda path, bad: path.write_bytes(pickle.dumps(bad)),
    "folder.csv": lambda path, bad: path.mkdir(),
    "pickle.parquet": lambda path, bad: path.write_bytes(pickle.dumps(bad)),
    "empty.parquet": lambda path, bad: path.write_bytes(b""),
    "magic.parquet": lambda path, bad: path.write_bytes(b"PAR1" + b"\xff" * 16 + b"PAR1"),
    "extension.parquet": extension,
    "pandas.parquet": pandas_of,
    "null.parquet": typed(pyarrow.float64(), None),
    "text.parquet": typed(pyarrow.string(), "os.system"),
    "list.parquet": typed(pyarrow.list_(pyarrow.float64()), [1.0]),
    "date.parquet": typed(pyarrow.date32(), 3),
    "bytes.parquet": typed(pyarrow.binary(), b"\xff"),
    "struct.parquet": typed(pyarrow.struct([("a", pyarrow.int8())]), {"a": 1}),
}


@pytest.mark.parametrize("name", TABLES)
def test_table(tmp_path, canary, name):
    TABLES[name](tmp_path / name, canary)
    with pytest.raises(DatasetError, match=name.replace(".", r"\.")):
        read_numbers(tmp_path / name, NAMES)


def metadata(content: str):
    def make(path: Path) -> None:
        schema = pyarrow.schema([("x1", pyarrow.float64())], metadata={"matdesinne": content})
        pyarrow.parquet.write_table(pyarrow.table([[1.0]], schema=schema), path)

    return make


@pytest.mark.parametrize(
    "make",
    [
        metadata("[" * 100_000),
        metadata("[]"),
        metadata('{"space": {"_target_": "os.system"}, "properties": [], "target": [], "stage": ""}'),
        metadata('{"space": {"parameters": [], "symmetries": []}, "properties": [], "target": [], "stage": ""}'),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"PAR1PAR1"),
    ],
    ids=["deep", "list", "target", "nothing", "folder", "magic"],
)
def test_candidates(tmp_path, make):
    make(tmp_path / "candidates.parquet")
    with pytest.raises(DatasetError, match=r"candidates\.parquet"):
        Candidates.read_parquet(tmp_path / "candidates.parquet")
