"""Rules and formulas on named columns, written as text; they are parsed against a grammar, never executed as Python."""

from __future__ import annotations

__all__ = ["Formula", "Rule"]

import ast
import functools
import math
import re
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.comparisons import COMPARISONS, Column, Columns, Number, Statement, all_of, comparison, opposite
from matdesinne.errors import ConfigError

_LONGEST = 1000
"""Largest number of characters of a rule."""
_DEEPEST = 40
"""Largest depth of the syntax tree of a rule."""
_LARGEST_POWER = 16
_TOKEN = re.compile(r"(?>\d+\.?\d*|\.\d+)(?>[eE][+-]?\d+)?(?![\w.])|[^\W\d]\w*|\*\*|[<>=!]=|[-+*/<>(), ]")
_GRAMMAR = "comparisons of names and numbers by + - * / **, abs, sqrt, min, max, joined by and, or, not"


_Binary = Callable[[Tensor, Tensor], Tensor]

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {"abs": torch.abs, "sqrt": torch.sqrt}
_EXTREMA: dict[str, _Binary] = {"min": torch.minimum, "max": torch.maximum}
_OPERATORS: dict[type[ast.AST], _Binary] = {ast.Add: torch.add, ast.Sub: torch.sub, ast.Mult: torch.mul, ast.Div: torch.div}


class _Expression:
    """A text of the grammar, and the names that it uses."""

    def __init__(self, text: str, example: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"Expected {example}, got {text!r}: write it as text.")
        self.text = " ".join(text.split()) if len(text) <= _LONGEST else text
        self.names: set[str] = set()

    def _checked(self, columns: Columns) -> Columns:
        unknown = sorted(self.names - set(columns))
        if unknown:
            raise ConfigError(f"Expected names out of {sorted(columns)}, got {unknown[0]!r} in {self.text!r}: correct it.")
        return {name: columns[name] for name in self.names}

    def _compiled_number(self, node: ast.AST, depth: int) -> Number:
        self._check_depth(node, depth)
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                number = self._finite(node, value)
                return lambda columns: torch.tensor(number, dtype=torch.float64)
            case ast.Name(id=name):
                self.names.add(name)
                return lambda columns: columns[name].values
            case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
                inner = self._compiled_number(operand, depth + 1)
                return inner if isinstance(sign, ast.UAdd) else lambda columns: -inner(columns)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                base, power = self._compiled_number(left, depth + 1), self._power(right)
                return lambda columns: base(columns) ** power
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                first, second = self._compiled_number(left, depth + 1), self._compiled_number(right, depth + 1)
                function = _OPERATORS[type(operator)]
                return lambda columns: function(first(columns), second(columns))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _UNARY or name in _EXTREMA:
                numbers = [self._compiled_number(argument, depth + 1) for argument in arguments]
                if name in _UNARY and len(numbers) == 1:
                    return lambda columns: _UNARY[name](numbers[0](columns))
                if name in _EXTREMA and len(numbers) > 1:
                    return lambda columns: functools.reduce(_EXTREMA[name], (number(columns) for number in numbers))
                raise self._error(node, f"{'one argument' if name in _UNARY else 'two or more arguments'} of {name}")
        raise self._error(node, "a number")

    def _power(self, node: ast.AST) -> float:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                power = -value
            case ast.Constant(value=int() | float() as value):
                power = value
            case _:
                power = math.inf
        if not abs(power) <= _LARGEST_POWER:
            raise self._error(node, f"a number up to {_LARGEST_POWER} as a power")
        return float(power)

    def _finite(self, node: ast.AST, value: int | float) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(node, "a finite number")
        return number

    def _check_depth(self, node: ast.AST, depth: int) -> None:
        if depth > _DEEPEST:
            raise self._error(node, f"at most {_DEEPEST} levels")

    def _error(self, node: ast.AST, expected: str = _GRAMMAR) -> ConfigError:
        part = ast.get_source_segment(self.text, node) if isinstance(node, ast.expr) else None
        return ConfigError(f"Expected {expected}, got {_short(part or self.text)} in the rule {_short(self.text)}: correct it.")


class Rule(_Expression):
    """A condition on the columns of a table, such as ``abs(strain_a) < 0.05 and electric_field == 0``.

    Two sides are equal when they differ by no more than the rounding of their columns, propagated to first order; this holds
    for all six comparisons. Where a side is undefined (the root of a negative number, 0/0) neither the rule nor its negation
    holds.

    Args:
        text: comparisons (also chains of them) of names and numbers by ``+ - * / **``, ``abs``, ``sqrt``, ``min``, ``max``,
            joined by ``and``, ``or``, ``not``; at most 1,000 characters and 40 levels, powers up to 16.

    Raises:
        ConfigError: if the text is anything else.

    Example:
        >>> rule = Rule("0 <= a < 2 or a == 3")
        >>> values = torch.tensor([-1.0, 1.0, 2.0, 3.0])
        >>> rule.holds({"a": Column(values, torch.zeros(4))}).tolist()
        [False, True, False, True]
    """

    def __init__(self, text: str) -> None:
        super().__init__(text, "a rule such as 'abs(strain_a) < 0.05'")
        tree = _parse(self.text)
        joined = isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)
        parts = tree.values if isinstance(tree, ast.BoolOp) and joined else [tree]
        self._parts = [self._compiled_statement(part, 2 if joined else 1) for part in parts]

    def holds(self, columns: Columns) -> Bool[Tensor, "*n"]:
        """Return a mask of the rows for which the rule is true.

        Raises:
            ConfigError: if a name has no column.
        """
        used = self._checked(columns)
        with torch.enable_grad():
            leaves = {name: Column(c.values.detach().double().requires_grad_(), c.rounding) for name, c in used.items()}
            return all_of(self._parts)(leaves).yes

    def margins(self, columns: Columns) -> list[Float[Tensor, "*n"]]:
        """Return by how much each of the statements that ``and`` joins is true, on the graph of the columns.

        A comparison is true by the difference of its sides, ``or`` by its truest part, and what is false by less than 0.

        Raises:
            ConfigError: if a name has no column.
        """
        with torch.enable_grad():
            used = {
                name: column if column.values.requires_grad else column._replace(values=column.values.clone().requires_grad_())
                for name, column in self._checked(columns).items()
            }
            return [part(used).margin for part in self._parts]

    def _compiled_statement(self, node: ast.AST, depth: int) -> Statement:
        self._check_depth(node, depth)
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return all_of([self._compiled_statement(value, depth + 1) for value in values])
            case ast.BoolOp(op=ast.Or(), values=values):
                opposites = [opposite(self._compiled_statement(value, depth + 1)) for value in values]
                return opposite(all_of(opposites))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return opposite(self._compiled_statement(operand, depth + 1))
            case ast.Compare(left=left, ops=operators, comparators=others):
                sides = [self._compiled_number(side, depth + 1) for side in (left, *others)]
                if not all(type(operator) in COMPARISONS for operator in operators):
                    raise self._error(node)
                pairs = zip(sides[:-1], operators, sides[1:], strict=True)
                return all_of([comparison(first, type(operator), second) for first, operator, second in pairs])
        raise self._error(node, "a comparison")


class Formula(_Expression):
    """A number for each row of a table, such as ``strain_energy + 0.1 * abs(strain_a)``, differentiable in the columns.

    Args:
        text: names and numbers joined as on one side of a `Rule`.

    Raises:
        ConfigError: if the text is anything else, or names no column.

    Example:
        >>> a = torch.tensor([1.0, 2.0])
        >>> Formula("a ** 2 + 1").value({"a": Column(a, torch.zeros(2))}).tolist()
        [2.0, 5.0]
    """

    def __init__(self, text: str) -> None:
        super().__init__(text, "a formula such as 'strain_energy'")
        self._number = self._compiled_number(_parse(self.text), 1)
        if not self.names:
            raise ConfigError(f"Expected a formula of columns, got {_short(self.text)}: name at least one.")

    def value(self, columns: Columns) -> Float[Tensor, " n"]:
        """Return the number of each row, on the graph of the columns.

        Raises:
            ConfigError: if a name has no column.
        """
        return self._number(self._checked(columns))


def _parse(text: str) -> ast.AST:
    """Return the syntax tree of a text that contains only tokens of the grammar."""
    if len(text) > _LONGEST:
        raise ConfigError(f"Expected a rule of at most {_LONGEST} characters, got {len(text)}: shorten it.")
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise ConfigError(
                f"Expected {_GRAMMAR}, got {text[place]!r} as character {place + 1} of {_short(text)}: correct it."
            )
        place = token.end()
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        place = max(error.offset or 1, 1)
        raise ConfigError(f"Expected {_GRAMMAR}, got a fault at character {place} of {_short(text)}: correct it.") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ConfigError(f"Expected at most {_DEEPEST} levels, got more in {_short(text)}: simplify the rule.") from error


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
