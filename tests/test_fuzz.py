"""Whatever bytes and values come, no error but ours: some 11,000 cases in `make fuzz`, other ones in every run."""

import functools
import io
import json
import math
import random
import struct
import warnings
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from matdesinne.data.table import read_numbers
from matdesinne.errors import CheckpointError, ConfigError, DatasetError, TargetError
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, save_network
from matdesinne.targets import Property, Target
from matdesinne.training.checkpoints import read_network
from matdesinne.training.mdn import LightningMDN

from . import toys
from .toys import CONF, box, prop, tiny_module

pytestmark = pytest.mark.slow

NAMES = ["x1", "x2", "y"]
SEEDS = st.integers(0, 2**64 - 1)
PALETTE = b',"\n\r0189.-eE\x00\xff{}[]'
TABLE = b"x1,x2,y\n0.5,0.25,0.75\n-0.5,0.25,-0.25\n1.0,-1e-3,2.5\n"


SLOW_STRATEGIES = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
cases = functools.partial(toys.cases, suppress_health_check=SLOW_STRATEGIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("fuzz")
    for name in ("described", "other", "weights"):
        save_network(module().network, made, name)
    return made


def mutations(content: bytes, blocks: bool = True):
    """Some bytes exchanged, and perhaps a stretch cut out, doubled, or everything after a place gone."""

    def change(seed: int) -> bytes:
        chance, changed = random.Random(seed), bytearray(content)
        for _ in range(chance.randint(0, 6)):
            changed[chance.randrange(len(changed))] = chance.choice([chance.randrange(256), *PALETTE])
        start = chance.randint(0, len(changed))
        end = chance.randint(start, len(changed))
        kind = chance.choice(["keep", "cut", "double", "truncate"]) if blocks else "keep"
        if kind == "cut":
            del changed[start:end]
        elif kind == "double":
            changed[start:start] = changed[start:end]
        elif kind == "truncate":
            del changed[start:]
        return bytes(changed)

    return SEEDS.map(change)


def finite_or_refused(path: Path, header: bool = True) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = read_numbers(path, NAMES, header=header)
        except DatasetError as error:
            assert path.name in str(error) and "\n" not in str(error)
        else:
            assert values.shape[1] == 3 and values.isfinite().all()


@cases(1200)
@given(content=mutations(TABLE))
def test_csv_mutations(folder, content):
    (folder / "table.csv").write_bytes(content)
    finite_or_refused(folder / "table.csv")


@cases(500)
@given(content=st.binary(max_size=100), header=st.booleans())
def test_csv_of_anything(folder, content, header):
    (folder / "any.csv").write_bytes(content)
    finite_or_refused(folder / "any.csv", header)


CELLS = [
    "0.5",
    "-1e-3",
    "nan",
    "inf",
    "-Infinity",
    "1e999",
    "0x10",
    "1_0",
    " 1 ",
    "\u0661",
    "",
    '"',
    '"1"',
    "True",
    "None",
    "1,2",
    "1\n2",
]


@cases(1000)
@given(seed=SEEDS)
def test_csv_of_cells(folder, seed):
    chance = random.Random(seed)
    lines = [",".join(chance.choices(CELLS, k=chance.choice([3, 3, 3, 2, 4]))) for _ in range(chance.randint(0, 4))]
    (folder / "cells.csv").write_text("\n".join(["x1,x2,y", *lines]))
    finite_or_refused(folder / "cells.csv")


def parquet() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: [0.5, 1.0, -0.25] for name in NAMES}), stream)
    return stream.getvalue()


@cases(1500)
@given(content=mutations(parquet()))
def test_parquet_mutations(folder, content):
    (folder / "table.parquet").write_bytes(content)
    finite_or_refused(folder / "table.parquet")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
NUMBERS = st.floats() | st.integers(-3, 3) | st.none()
PAIR = st.lists(NUMBERS, min_size=2, max_size=2)
WANTED = NUMBERS | st.lists(NUMBERS, min_size=1, max_size=3) | st.lists(PAIR, max_size=2)
WANTED |= st.dictionaries(st.sampled_from(["y", "w", "z"]), NUMBERS | PAIR, max_size=2)
PROPERTIES = [[prop()], [prop(floor=0.0)], [prop("y"), prop("w", floor=-1.0)]]


@cases(300)
@given(value=PLAIN, properties=st.sampled_from(PROPERTIES))
def test_targets_of_other_types(value, properties):
    understood_or_refused(value, properties)


@cases(3400)
@given(value=WANTED, properties=st.sampled_from(PROPERTIES))
def test_targets(value, properties):
    understood_or_refused(value, properties)


def understood_or_refused(value, properties):
    try:
        target = Target.parse(value, properties)
    except TargetError as error:
        assert "Expected" in str(error)
        return
    assert all(
        low <= high and low < math.inf and high > -math.inf for low, high in zip(target.lower, target.upper, strict=True)
    )
    assert not any(math.isinf(representative) for representative in target.values)
    assert any(target.asked)
    assert Target.from_list(json.loads(json.dumps(target.to_list(), allow_nan=False))) == target
    assert target.format(properties)


@cases(300)
@given(
    name=st.text(max_size=5), floor=st.none() | st.floats(), margin=st.floats(), resolution=st.floats(), censored=st.booleans()
)
def test_properties(name, floor, margin, resolution, censored):
    try:
        Property(name, "eV", floor, margin, censored, resolution)
    except ConfigError as error:
        assert "Expected" in str(error)


@functools.cache
def module() -> LightningMDN:
    return tiny_module(CONF / "model" / "mdn.yaml", box(), [prop(floor=0.0)], hidden=4)


def weights() -> bytes:
    return safetensors_bytes(module().network.state_dict())


def description() -> str:
    return json.dumps(module().network.to_config())


def plain_checkpoint() -> dict:
    hyper_parameters = {**module().hparams, "network": dict(module().network.to_config())}
    return {"hyper_parameters": hyper_parameters, "state_dict": dict(module().state_dict()), "epoch": 3}


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save(plain_checkpoint(), stream)
    return stream.getvalue()


def loaded_or_refused(load) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            made = load()
        except CheckpointError as error:
            assert "Expected" in str(error)
        else:
            assert isinstance(made, InverseModel)


@cases(800)
@given(content=mutations(description().encode()))
def test_descriptions(folder, content):
    (folder / "described.json").write_bytes(content)
    loaded_or_refused(lambda: load_network(InverseModel, folder, "described"))


@cases(300)
@given(data=st.data())
def test_settings_of_another_kind(folder, data):
    """One entry anywhere in the description becomes something else."""
    plain = json.loads(description())
    place = plain
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        deeper = isinstance(place[key], dict | list) and place[key]
        if not deeper or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(PLAIN.filter(lambda value: not isinstance(value, int) or abs(value) < 1000))
    (folder / "other.json").write_text(json.dumps(plain))
    loaded_or_refused(lambda: load_network(InverseModel, folder, "other"))


@cases(1000)
@given(content=mutations(weights()) | mutations(weights()[:2000], blocks=False))
def test_weights(folder, content):
    (folder / "weights.safetensors").write_bytes(content)
    loaded_or_refused(lambda: load_network(InverseModel, folder, "weights"))


@cases(200)
@given(header=PLAIN, shape=st.lists(st.integers(-1, 2**62), max_size=3), offsets=st.lists(st.integers(-1, 2**62), max_size=3))
def test_headers_of_weights(folder, header, shape, offsets):
    """Without a checksum, as files of an earlier version are."""
    entry = {"network.0.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    text = json.dumps(header if isinstance(header, dict) and header else entry).encode()
    (folder / "header.json").write_text(description())
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    loaded_or_refused(lambda: load_network(InverseModel, folder, "header"))


@cases(500)
@given(content=mutations(checkpoint()))
def test_checkpoints(folder, content):
    (folder / "module.ckpt").write_bytes(content)
    loaded_or_refused(lambda: read_network(folder / "module.ckpt"))


@cases(100)
@given(what=PLAIN, where=st.sampled_from(["whole", "hyper_parameters", "network", "state_dict", "name", "settings", "tensor"]))
def test_checkpoints_of_plain_containers(folder, what, where):
    content = plain_checkpoint()
    if where == "whole":
        content = what
    elif where in ("name", "settings"):
        content["hyper_parameters"]["network"][where] = what
    elif where == "network":
        content["hyper_parameters"][where] = what
    elif where == "tensor":
        content["state_dict"][next(iter(content["state_dict"]))] = what
    else:
        content[where] = what
    torch.save(content, folder / "plain.ckpt")
    loaded_or_refused(lambda: read_network(folder / "plain.ckpt"))
