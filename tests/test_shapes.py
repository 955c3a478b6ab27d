"""That the check of shapes, under which all tests run, can fail."""

import pytest
import torch

from matdesinne.models.base import InverseModel
from matdesinne.targets import Target
from matdesinne.transforms import BoxFeatures

from .shapes import ShapeError, agrees
from .toys import CONF, box, linear, prop, rows, tiny_network

TARGET = Target((0.5,), (0.5,))


@pytest.mark.parametrize(
    "y",
    [torch.zeros(4), torch.zeros(4, 1, 1), torch.zeros(4, 1, dtype=torch.int64)],
    ids=["1-d", "3-d", "int"],
)
def test_an_argument_of_another_shape(y):
    with pytest.raises(ShapeError, match=r"Target\.residual states y"):
        TARGET.residual(y)


def test_a_result_of_another_shape(monkeypatch):
    made = linear()
    monkeypatch.setattr(made, "member_predictions", lambda features: torch.zeros(2, len(features) + 1, 1))
    with pytest.raises(ShapeError, match="states return"):
        made.predict(rows(box(), 5).x)


def test_axes_of_one_name_are_of_one_size():
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop()])
    model.fit_scales(rows(box()))
    with pytest.raises(ShapeError, match="log_prob states"):
        model.log_prob(torch.zeros(4, 2), torch.zeros(1, 1))


def test_what_a_subclass_states_is_checked():
    assert all(hasattr(function, "__wrapped__") for function in (InverseModel.sample, BoxFeatures.forward, Target.residual))


@pytest.mark.parametrize(("value", "right"), [(None, True), (torch.zeros(2), True), (torch.zeros(2, 2), False)])
def test_unions(value, right):
    from jaxtyping import Float
    from torch import Tensor

    assert agrees(value, Float[Tensor, " n"] | None) is right
    assert agrees((value, 3), tuple[Float[Tensor, " n"] | None, int]) is right
