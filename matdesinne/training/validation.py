"""How a trained generative model does on held-out properties, whatever its loss is: to compare and to tune."""

from __future__ import annotations

__all__ = ["validate"]

import torch

from matdesinne.data.table import DesignTable
from matdesinne.models.base import InverseModel
from matdesinne.models.mmd import mmd
from matdesinne.surrogates.base import Surrogate
from matdesinne.transforms import Standardizer

_ROWS = 2048
_SCALES = (0.45, 1.0, 2.0)


def validate(model: InverseModel, surrogate: Surrogate, held_out: DesignTable, seed: int = 0) -> dict[str, float]:
    r"""Sample one design for each held-out y and compare with what was asked for.

    Args:
        model: samples :math:`\hat x \sim p(x | y)`.
        surrogate: predicts :math:`f(\hat x)`.
        held_out: designs and properties that the model was not trained on; the first 2,048 are used.
        seed: of the samples.

    Returns:
        For each property its ``target_mae_NAME``, the mean of :math:`|f(\hat x) - y|` with both cut at the floor, in the
        property's unit; and ``joint_mmd``, the squared maximum mean discrepancy between :math:`(\hat x, y)` and
        :math:`(x, y)` in standardised units, which also sees what is missing from the samples.
    """
    x, y = held_out.x[:_ROWS], held_out.y[:_ROWS]
    designs = model.cpu().sample(y, torch.Generator().manual_seed(seed))
    found = surrogate.predict_many(designs)[0]
    lowest = torch.tensor([-torch.inf if prop.floor is None else prop.floor for prop in surrogate.properties])
    error = (found.clamp_min(lowest) - y.clamp_min(lowest)).abs().mean(dim=0)
    scale = Standardizer(x.shape[1] + y.shape[1])
    scale.fit(torch.cat([x, y], dim=1))
    joint = mmd(scale(torch.cat([designs, y], dim=1)), scale(torch.cat([x, y], dim=1)), _SCALES, unbiased=True)
    named = {f"target_mae_{prop.name}": value for prop, value in zip(surrogate.properties, error.tolist(), strict=True)}
    return {**named, "joint_mmd": joint.item()}
