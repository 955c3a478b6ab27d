"""Comparisons of columns of numbers: where they hold, with rounding, and by how much."""

from __future__ import annotations

__all__ = ["COMPARISONS", "Column", "Columns", "Number", "Statement", "Truth", "all_of", "comparison", "opposite"]

import ast
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Column(NamedTuple):
    """The float64 values that a name stands for, and the largest difference of two that counts as rounding, in their unit."""

    values: Float[Tensor, " n"]
    rounding: Float[Tensor, " n"]


class Truth(NamedTuple):
    """Rows for which a statement is true, and those for which it is false; for the others it is undefined, such as 0/0 < 1.

    The margin, by how much it is true, is above 0 where it is, and below 0 where it is false.
    """

    yes: Bool[Tensor, "*n"]
    no: Bool[Tensor, "*n"]
    margin: Float[Tensor, "*n"]


Columns = Mapping[str, Column]
Number = Callable[[Columns], Tensor]
Statement = Callable[[Columns], Truth]

COMPARISONS: dict[type[ast.AST], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Lt: lambda difference, rounding: difference < -rounding,
    ast.LtE: lambda difference, rounding: difference <= rounding,
    ast.Gt: lambda difference, rounding: difference > rounding,
    ast.GtE: lambda difference, rounding: difference >= -rounding,
    ast.Eq: lambda difference, rounding: difference.abs() <= rounding,
    ast.NotEq: lambda difference, rounding: difference.abs() > rounding,
}
_MARGINS: dict[type[ast.AST], Callable[[Tensor], Tensor]] = {
    **dict.fromkeys((ast.Lt, ast.LtE), torch.neg),
    **dict.fromkeys((ast.Gt, ast.GtE), torch.clone),
    ast.Eq: lambda difference: -difference.abs(),
    ast.NotEq: torch.abs,
}


def all_of(statements: Sequence[Statement]) -> Statement:
    """The statement that all of some statements hold."""

    def evaluate(columns: Columns) -> Truth:
        yes, no, margins = zip(*(statement(columns) for statement in statements), strict=True)
        margin = functools.reduce(torch.minimum, margins)
        return Truth(functools.reduce(torch.logical_and, yes), functools.reduce(torch.logical_or, no), margin)

    return evaluate


def opposite(statement: Statement) -> Statement:
    """The statement that another one does not hold; it is undefined where that one is."""

    def evaluate(columns: Columns) -> Truth:
        yes, no, margin = statement(columns)
        return Truth(no, yes, -margin)

    return evaluate


def comparison(first: Number, operator: type[ast.AST], second: Number) -> Statement:
    """The statement that two numbers compare by an operator of `COMPARISONS`."""
    compare, margin = COMPARISONS[operator], _MARGINS[operator]

    def evaluate(columns: Columns) -> Truth:
        left, right = first(columns), second(columns)
        difference = left - right
        # the difference of equal infinities is not a number, but they are equal
        difference = torch.where(left == right, 0.0 * difference.nan_to_num(), difference)
        defined, holds = ~difference.isnan(), compare(difference, _rounding(difference, columns))
        return Truth(holds & defined, ~holds & defined, margin(difference))

    return evaluate


def _rounding(difference: Float[Tensor, "*n"], columns: Columns) -> Float[Tensor, "*n"]:
    """Propagate the rounding of the columns to a function of them by its derivatives."""
    total = torch.zeros_like(difference)
    if not difference.requires_grad:
        return total
    leaves = [column.values for column in columns.values()]
    slopes = torch.autograd.grad(difference.sum(), leaves, allow_unused=True, retain_graph=True)
    for slope, column in zip(slopes, columns.values(), strict=True):
        if slope is not None:
            total = total + (slope.abs() * column.rounding).nan_to_num(0.0, 0.0)
    return total.detach()
