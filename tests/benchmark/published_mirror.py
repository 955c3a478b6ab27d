"""A folder of files like those of the paper's repository, from plain arrays: state dictionaries and whole pickled networks."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

FILES = {
    "forward": "INN/INN_forward/MoS2_forward.pkl",
    "inn": "INN/INN_backward/MoS2_backward.pkl",
    "cinn": "cINN/MoS2_cinn.pkl",
    "mdn": "MDN/MoS2_mdn.pkl",
    "cvae": "cVAE/MoS2_cvae.pt",
}
CARD = {"forward": "inn_forward", "inn": "inn_backward", "cinn": "cinn", "mdn": "mdn", "cvae": "cvae"}
"""Names of the arrays in a folder of plain arrays (published_weights)."""
WHOLE = {
    "mdn": (
        "models",
        {"": "MixtureDensityNetwork", "pi_network": "CategoricalNetwork", "normal_network": "MixtureDiagNormalNetwork"},
    ),
    "cvae": ("__main__", {"": "CVAE", "encoder": "Encoder", "decoder": "Decoder"}),
}
"""Module and classes of the networks that the repository pickles as a whole."""

Arrays = Mapping[str, torch.Tensor]


def card_arrays(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The published arrays."""
    loaded = {name: np.load(folder / f"{file}.npz") for name, file in CARD.items()}
    return {name: {key: torch.tensor(arrays[key]) for key in arrays.files} for name, arrays in loaded.items()}


def random_arrays(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Arrays of the published names and shapes with random numbers."""
    generator = torch.Generator().manual_seed(seed)

    def draw(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
        return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def flow(condition: int) -> dict[str, torch.Tensor]:
        shapes: dict[str, tuple[int, ...]] = {"tmp_var_1": (5, 7)}
        for block in range(1, 12, 2):
            for half, inputs, outputs in (("s1", 3, 8), ("s2", 4, 6)):
                start = f"module_list.{block}.{half}"
                shapes |= {f"{start}.0.weight": (256, inputs + condition), f"{start}.0.bias": (256,)}
                shapes |= {f"{start}.2.weight": (outputs, 256), f"{start}.2.bias": (outputs,)}
        return draw(**shapes)

    def mlp(start: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        first = {f"{start}.0.weight": (1, inputs), f"{start}.0.bias": (1,)}
        return first | {f"{start}.2.weight": (outputs, 1), f"{start}.2.bias": (outputs,)}

    layers = (("encoder.linear", 8, 128), ("encoder.mu", 128, 3), ("encoder.var", 128, 3))
    layers += (("decoder.latent_to_hidden", 4, 128), ("decoder.hidden_to_out", 128, 7))
    cvae = {f"{name}.{kind}": (o, i) if kind == "weight" else (o,) for name, i, o in layers for kind in ("weight", "bias")}
    mdn = mlp("pi_network.network", 1, 3) | mlp("normal_network.network", 1, 42)
    return {"forward": flow(0), "inn": flow(0), "cinn": flow(1), "mdn": draw(**mdn), "cvae": draw(**cvae)}


def write_mirror(folder: Path, arrays: Mapping[str, Arrays]) -> Path:
    """Write every file as the repository has it."""
    for name, file in FILES.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in WHOLE:
            _pickle_network(path, arrays[name], *WHOLE[name])
        else:
            torch.save(dict(arrays[name]), path)
    return folder


def _pickle_network(path: Path, arrays: Arrays, module: str, classes: Mapping[str, str]) -> None:
    """Pickle a whole network whose classes are defined in a module of this name while it is written."""
    kinds = {place: type(name, (nn.Module,), {"__module__": module}) for place, name in classes.items()}
    home = sys.modules.get(module) or ModuleType(module)
    added = module not in sys.modules
    sys.modules[module] = home
    for kind in kinds.values():
        setattr(home, kind.__name__, kind)
    try:
        torch.save(_network(arrays, kinds), path)
    finally:
        for kind in kinds.values():
            delattr(home, kind.__name__)
        if added:
            del sys.modules[module]


def _network(arrays: Arrays, kinds: Mapping[str, type[nn.Module]]) -> nn.Module:
    root = kinds[""]()
    for place in [place for place in kinds if place]:
        root.add_module(place, kinds[place]())
    for name, value in arrays.items():
        *parents, layer, kind = name.split(".")
        parent = root
        for part in parents:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Sequential())
            parent = getattr(parent, part)
        if not hasattr(parent, layer):
            parent.add_module(layer, nn.Linear(1, 1))
            if isinstance(parent, nn.Sequential) and layer == "2":
                parent.add_module("1", nn.ELU())
        getattr(parent, layer)._parameters[kind] = nn.Parameter(value)
    return root
