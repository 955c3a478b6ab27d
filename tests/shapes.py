"""Checks the shapes that annotations state: while the tests run, no function of the package takes or gives another array.

jaxtyping's own import hook hands each function to typeguard or beartype: the first reads "n dx" as Python, the second knows
no `Self`. This one checks what jaxtyping states and nothing else: `Float[Tensor, "n dx"]`, also in unions and tuples.
"""

import contextlib
import functools
import importlib.abc
import importlib.machinery
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from jaxtyping import AbstractArray, jaxtyped

ARRAYS = ("Tensor,", "ndarray,")


class ShapeError(AssertionError):
    """An array of another shape or kind than its annotation states."""


def agrees(value: object, hint: object) -> bool:
    """Whether a value is what a hint states of arrays; of anything else it is."""
    parts = typing.get_args(hint)
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return isinstance(value, hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(agrees(value, part) for part in parts if part is not types.NoneType) or value is None
    if typing.get_origin(hint) is tuple and isinstance(value, tuple) and Ellipsis not in parts:
        return len(value) == len(parts) and all(map(agrees, value, parts))
    return True


def checked(function: types.FunctionType, names: dict[str, Any]) -> Callable[..., Any]:
    """The function with a check of its arguments and its result; axes of one name are of one size within a call.

    A function that refuses an argument by an error of its own does so. What a call is told depends on kinds, types and shapes
    alone: those that agreed are not asked again.
    """
    signature = inspect.signature(function)
    assert all(entry.kind is not entry.VAR_POSITIONAL for entry in signature.parameters.values()), function
    stated = functools.cache(lambda: annotations(function, names))
    positions = functools.cache(lambda: [(i, name) for i, name in enumerate(signature.parameters) if name in stated()])
    agreed: set[object] = set()

    def fault(name: str, value: object) -> str | None:
        if name not in stated() or agrees(value, stated()[name]):
            return None
        found = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)
        return f"{function.__module__}.{function.__qualname__} states {name}: {stated()[name]}, got {found}"

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        given = {name: args[i] if i < len(args) else kwargs.get(name, ...) for i, name in positions()}
        before = tuple(map(kind, given.values()))
        result = function(*args, **kwargs)
        key = before, kind(result) if "return" in stated() else None
        if key in agreed:
            return result
        with jaxtyped("context"):
            given = {name: value for name, value in given.items() if value is not ...}
            faults = [text for name, value in [*given.items(), ("return", result)] if (text := fault(name, value))]
        if faults:
            raise ShapeError("; ".join(faults))
        agreed.add(key)
        return result

    return wrapper


def kind(value: object) -> object:
    """What a check looks at."""
    if isinstance(value, tuple):
        return tuple(map(kind, value))
    return type(value), getattr(value, "dtype", None), tuple(getattr(value, "shape", ()))


def annotations(function: types.FunctionType, names: dict[str, Any]) -> dict[str, object]:
    """The annotations of arrays; one that needs a name which only a type checker imports is left out."""
    found = {}
    for name, hint in function.__annotations__.items():
        text = getattr(hint, "__forward_arg__", hint)
        if any(kind in str(text) for kind in ARRAYS):
            with contextlib.suppress(NameError):
                found[name] = eval(text, names) if isinstance(text, str) else text
    return found


def states_arrays(function: object) -> bool:
    return inspect.isfunction(function) and any(
        kind in str(text) for text in function.__annotations__.values() for kind in ARRAYS
    )


def members(module: types.ModuleType) -> Iterator[tuple[object, str, object]]:
    """Holder, name and value of the functions and methods that a module defines."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        yield module, name, value
        if inspect.isclass(value):
            yield from ((value, inner, entry) for inner, entry in list(vars(value).items()))


def check_module(module: types.ModuleType) -> None:
    names = vars(module)
    for holder, name, value in members(module):
        if states_arrays(value):
            setattr(holder, name, checked(value, names))
        elif isinstance(value, classmethod | staticmethod) and states_arrays(value.__func__):
            setattr(holder, name, type(value)(checked(value.__func__, names)))
        elif isinstance(value, property) and states_arrays(value.fget):
            setattr(holder, name, property(checked(value.fget, names), value.fset, value.fdel, value.__doc__))


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module and wraps its functions."""

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        check_module(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of one package."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if name.split(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install(package: str) -> None:
    """Check what is imported of a package from now on."""
    sys.meta_path.insert(0, Finder(package))
