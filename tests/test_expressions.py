import builtins
import math
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from matdesinne.comparisons import Column
from matdesinne.errors import ConfigError
from matdesinne.expressions import Formula, Rule

from .toys import cases

VALUES = {
    "a": torch.tensor([-2.0, -0.5, 0.0, 0.5, 3.0], dtype=torch.float64),
    "b": torch.tensor([1.0, 2.0, 0.0, -1.0, math.nan], dtype=torch.float64),
}
COLUMNS = {name: Column(values, torch.full((5,), 1e-6, dtype=torch.float64)) for name, values in VALUES.items()}


def rows(text: str) -> list[int]:
    return Rule(text).holds(COLUMNS).expand(5).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a < 0", [0, 1]),
        ("0 > a", [0, 1]),
        ("-1 < a <= 0.5", [1, 2, 3]),
        ("a < 0 or a > 2", [0, 1, 4]),
        ("not a < 0", [2, 3, 4]),
        ("not (a < 0 or a > 2)", [2, 3]),
        ("a < 0 and b > 1", [1]),
        ("a < 0 or a > 2 and b > 1", [0, 1]),
        ("abs(a) <= 0.5", [1, 2, 3]),
        ("a**2 > 3", [0, 4]),
        ("-a ** 2 < -3", [0, 4]),
        ("b ** -1 == 0.5", [1]),
        ("2*a + 1 == 0", [1]),
        ("(a + 2) / 2 - 1 >= .25e0", [3, 4]),
        ("max(a, 0) == 0", [0, 1, 2]),
        ("min(a, b, 0) == a", [0, 1, 2]),
        ("+a != 0", [0, 1, 3, 4]),
        ("1 < 2", [0, 1, 2, 3, 4]),
        ("  a\n < \t 0  ", [0, 1]),
    ],
)
def test_holds(text, kept):
    assert rows(text) == kept


@pytest.mark.parametrize("text", ["b < 10", "not b < 10", "b == b", "b != b", "not (b < 10 or b > 10)"])
def test_undefined_is_neither_true_nor_false(text):
    assert 4 not in rows(text)


def test_undefined_does_not_hide_what_is_true():
    assert 4 in rows("a == 3 or b < 0") and 0 in rows("a < 0 or sqrt(a) < 1")


def test_the_root_of_a_negative_number_is_undefined():
    assert rows("sqrt(a) < 0.8") == [2, 3] and rows("not sqrt(a) < 0.8") == [4]


def test_one_over_zero_is_large():
    assert rows("1/abs(a) > 10") == [2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "equal"),
    [("a", 0.9e-6), ("10 * a", 0.9e-6), ("a + a", 0.9e-6), ("abs(a)", 0.9e-6), ("(a + 1)**2 - 1", 0.9e-6), ("a", -0.9e-6)],
)
@pytest.mark.parametrize(("times", "expected"), [(1, True), (1.3, False)])
def test_equality_is_up_to_rounding(left, equal, times, expected):
    """In all six comparisons, with the rounding carried through the formula."""
    values = torch.tensor([equal * times], dtype=torch.float64)
    columns = {"a": Column(values, torch.full((1,), 1e-6, dtype=torch.float64))}

    def holds(text):
        return Rule(text).holds(columns).item()

    assert holds(f"{left} == 0") is expected and holds(f"{left} != 0") is not expected
    assert (holds(f"{left} <= 0") and holds(f"{left} >= 0")) is expected
    assert (holds(f"{left} < 0") or holds(f"{left} > 0")) is not expected


def test_numbers_have_no_rounding():
    assert rows("1 + 1e-12 == 1") == []


def test_names():
    assert Rule("abs(a) < b or c == 1").names == {"a", "b", "c"}


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"Expected names out of \['a', 'b'\], got 'd' in 'd < 1'"):
        Rule("d < 1").holds(COLUMNS)


FORBIDDEN = {
    "attribute": "a.real < 1",
    "call": "__import__('os').system('true')",
    "function": "exec(a) < 1",
    "builtin": "eval(a) == 1",
    "keyword": "max(a, key=b) < 1",
    "star": "max(*a) < 1",
    "subscript": "a[0] < 1",
    "lambda": "(lambda: a)() < 1",
    "comprehension": "(a for a in b) < 1",
    "list": "[a for a in b] == 1",
    "string": "'a' < 1",
    "f-string": "f'{a}' < 1",
    "walrus": "(a := 1) < 2",
    "conditional": "(a if a else b) < 1",
    "await": "await a < 1",
    "is": "a is b",
    "in": "a in b",
    "tuple": "(a, b) < 1",
    "true": "True",
    "added truth": "(a < 1) + 1 < 2",
    "negated number": "not a",
    "joined numbers": "a and b",
    "number": "a",
    "power": "9**9**9 < 1",
    "large power": "a**17 < 1",
    "power of a name": "a**b < 1",
    "modulo": "a % 2 == 0",
    "floor": "a // 2 == 0",
    "bits": "a | b < 1",
    "matrix": "a @ b < 1",
    "imaginary": "a < 1j",
    "hexadecimal": "a < 0x1",
    "underscored": "a < 1_0",
    "infinite": "a < 1e999",
    "long number": f"a < {'9' * 500}",
    "two statements": "a < 1; b < 1",
    "statement": "import os",
    "assignment": "a = 1",
    "comment": "a < 1 # b",
    "continued": "a < 1 \\",
    "null byte": "a < 1\0",
    "empty": "",
    "blank": "   ",
    "open": "(a < 1",
    "too long": "a < 1 or " * 200 + "a < 1",
    "parentheses": "(" * 300 + "a" + ")" * 300 + " < 1",
    "signs": "-" * 900 + "a < 1",
    "negations": "not " * 200 + "a < 1",
    "deep sum": "+".join(["a"] * 60) + " < 1",
    "no argument": "abs() < 1",
    "two arguments": "abs(a, b) < 1",
    "one of two": "min(a) < 1",
    "unicode": "a ≤ 1",
}


@pytest.mark.parametrize("text", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_rejects(text):
    with pytest.raises(ConfigError, match=r"Expected .*, got "):
        Rule(text)


@pytest.mark.parametrize("value", [3, None, ["a < 1"], b"a < 1"])
def test_rejects_what_is_no_text(value):
    with pytest.raises(ConfigError, match="as text"):
        Rule(value)


def test_an_error_says_where():
    with pytest.raises(ConfigError, match="got '%' as character 3"):
        Rule("a % 2 == 0")
    with pytest.raises(ConfigError, match=r"got 'exec\(b\)' in the rule"):
        Rule("a < 1 and exec(b) < 2")


PIECES = [
    *"ab()+-*/<>=,. \t\n'\"[]{}:;@%&|^~!\\\0",
    *("**", "==", "!=", "<=", ">=", ":=", "->", "...", "0", "1", "0.5", "1e9", "9**9**9**9", "1e400", "0x1f", "1j"),
    *(" and ", " or ", " not ", " if ", " else ", " for ", " in ", " is ", "lambda a: ", "await ", "yield ", "import os"),
    *("abs(", "sqrt(", "min(", "max(", "__import__('os')", "open('/etc/passwd')", "().__class__", "exec(", "eval(", "f'{a}'"),
    *("a < 1", "b == 0", "abs(a)", "-1 < a <= 1", "(" * 60, ")" * 60, "- " * 300, "not " * 60, "9" * 400, "é", "ﬁ", "٣"),
]
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.tuples(st.sampled_from(sorted(FORBIDDEN.values())), st.integers(0, 60), st.sampled_from(PIECES)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
    ),
)


@contextmanager
def canary() -> Iterator[list[str]]:
    """What is called meanwhile of all by which a text could do something."""
    calls = []
    names = [(builtins, name) for name in ("eval", "exec", "open", "input", "breakpoint")] + [(os, "system"), (os, "popen")]
    with ExitStack() as patches:
        for place, name in names:
            watched = mock.patch.object(place, name, lambda *words, called=name, **settings: calls.append(called))
            patches.enter_context(watched)
        yield calls


def test_the_canary_sings():
    with canary() as calls:
        eval("1")
    assert calls == ["eval"]


@pytest.mark.slow
@given(texts=st.lists(TEXTS, min_size=50, max_size=50))
@cases(200, suppress_health_check=list(HealthCheck))
def test_texts_raise_our_error_or_are_rules(texts):
    with canary() as calls:
        for text in texts:
            try:
                found = Rule(text).holds(COLUMNS)
            except ConfigError:
                continue
            assert found.dtype == torch.bool
    assert calls == []


def made(random: random.Random, depth: int) -> str:
    """A rule of the grammar with all its brackets."""
    if depth == 0:
        return random.choice(["a", "b", "0.5", "2"])
    first, second = made(random, depth - 1), made(random, depth - 1)
    return random.choice([f"({first} + {second})", f"({first} * -{second})", f"abs({first})", f"max({first}, {second})"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_python(seed):
    """On formulas that Python reads in the same way: operators, their order, chains, and, or, not."""
    source = random.Random(seed)
    left, middle, right = (made(source, 3) for _ in range(3))
    text = f"{left} < {middle} <= {right} or not {right} > {left} and {middle} != {left}"
    names = {"abs": abs, "max": max}
    values = zip(VALUES["a"].tolist(), VALUES["b"].tolist(), strict=True)
    expected = [eval(text, {**names, "a": a, "b": b}) for a, b in list(values)[:4]]
    columns = {name: Column(column[:4], torch.zeros(4)) for name, column in VALUES.items()}
    assert Rule(text).holds(columns).expand(4).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", [1.0, -2.0]), ("2 * abs(a) + 1", [3.0, 5.0]), ("max(a, -a) ** 2 - a / 4", [0.75, 4.5]), ("-min(a, 0)", [0.0, 2.0])],
)
def test_formula(text, expected):
    columns = {"a": Column(torch.tensor([1.0, -2.0]).double(), torch.zeros(2))}
    assert Formula(text).value(columns).tolist() == pytest.approx(expected)


def test_formula_is_differentiable():
    a = torch.tensor([1.0, 3.0], requires_grad=True)
    Formula("a ** 2 + 2 * a").value({"a": Column(a, torch.zeros(2))}).sum().backward()
    assert a.grad.tolist() == [4.0, 8.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "a number") for text in ("a < 1", "a and 1", "not a")),
        ("1 + 1", "name at least one"),
        ("__import__('os')", "comparisons"),
        ("a ** 99", "power"),
        (None, "as text"),
        ("", "fault"),
    ],
)
def test_no_formula(text, words):
    with pytest.raises(ConfigError, match=words):
        Formula(text)


def test_formula_needs_its_columns():
    with pytest.raises(ConfigError, match=r"\['a'\], got 'b'"):
        Formula("a + b").value({"a": Column(torch.zeros(1), torch.zeros(1))})
