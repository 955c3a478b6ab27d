"""Mutation testing: ``python -m tests.mutants localization selection`` lists the mutants of these modules that no test kills.

cosmic-ray makes the mutants. The tests of each run in a fork of this process, which has loaded torch; no file is changed.
"""

import ast
import gc
import importlib.util
import io
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from difflib import unified_diff
from itertools import count
from pathlib import Path

import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

SECONDS = 40.0
"""Processor time after which the tests of a mutant count as endless."""
NUMBERS, BITS, ORDER = "Add|Sub|Mul|Div|FloorDiv|Mod|Pow", "RShift|LShift|BitOr|BitAnd|BitXor", "Eq|NotEq|Lt|LtE|Gt|GtE"
OPTIONS = ["-x", "-q", "--assert=plain", "--hypothesis-seed=0", "-p", "no:cacheprovider"]
EXCLUDED = re.compile(rf".*_(({NUMBERS})_({BITS})|({BITS})_({NUMBERS})|({ORDER})_Is(Not)?|Is(Not)?_({ORDER}))")
"""Operators that no number takes, so that every test kills them, and the identity of numbers."""


class Annotations(ast.NodeTransformer):
    """Takes them out."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return node


def effect(code: str) -> str:
    """What of a text is executed; nothing of one that is not Python."""
    try:
        return ast.unparse(Annotations().visit(ast.parse(code)))
    except SyntaxError:
        return ""


def mutants(source: str) -> Iterator[str]:
    known = {"", effect(source)}
    kinds = [kind for kind in operator_names() if not EXCLUDED.fullmatch(kind) and not get_operator(kind).arguments()]
    for kind in kinds:
        for occurrence in count():
            code = mutate_code(source, get_operator(kind)(), occurrence)
            if code is None:
                break
            if effect(code) not in known:
                known.add(effect(code))
                yield code


def run(name: str, code: str) -> int:
    """Pytest's exit code for this text of a module."""
    module = f"matdesinne.{name}"
    spec = importlib.util.find_spec(module)
    sys.modules[module] = importlib.util.module_from_spec(spec)
    exec(compile(code, spec.origin, "exec"), vars(sys.modules[module]))
    setattr(sys.modules["matdesinne"], name, sys.modules[module])
    return pytest.main([*OPTIONS, *files(name)])


def files(name: str) -> list[str]:
    """Those with the tests of a module, the quicker ones first."""
    return [*sorted(map(str, Path("tests").glob(f"test_{name}*.py")), reverse=True), f"matdesinne/{name}.py"]


def outcome(name: str, code: str) -> str:
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            failed = run(name, code)
        finally:
            os._exit(failed)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        return "endless"
    return "killed" if status else "survived"


def load(names: list[str]) -> None:
    """Import what the tests need, but for the package itself."""
    with redirect_stdout(io.StringIO()):
        pytest.main([*OPTIONS, "--collect-only", *(file for name in names for file in files(name))])
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] in ("matdesinne", "tests")]:
        del sys.modules[loaded]
    gc.collect()
    gc.freeze()  # pytest collects garbage often


def main(names: list[str]) -> None:
    load(names)
    table = []
    for name in names:
        path = Path("matdesinne", f"{name}.py")
        source, found = path.read_text(), Counter()
        if outcome(name, source) != "survived":
            sys.exit(f"Expected tests that pass for {path}, got others: correct them.")
        for code in mutants(source):
            found[result := outcome(name, code)] += 1
            if result == "survived":
                lines = unified_diff(source.splitlines(), code.splitlines(), n=0, lineterm="")
                print(path, *list(lines)[2:], sep="\n", flush=True)
        share = 1 - found["survived"] / found.total()
        table.append(f"| `{path}` | {found.total()} | {found.total() - found['survived']} | {found['endless']} | {share:.1%} |")
    print("| Module | Mutants | Killed | of these endless | Share |", "| --- | --- | --- | --- | --- |", *table, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
