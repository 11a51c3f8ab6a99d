"""Loads the compiled functions, chooses a path, and checks every call against the types that were compiled."""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from committee.errors import CommitteeError

P = ParamSpec("P")
Result = TypeVar("Result")

SCALARS = {
    "void": None,
    "bool": ctypes.c_bool,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "float32": ctypes.c_float,
}


class Type(NamedTuple):
    """Of a parameter or result: a scalar, or a pointer to elements, perhaps to constant ones, perhaps none."""

    element: str
    pointer: bool
    constant: bool
    optional: bool

    def __str__(self) -> str:
        if not self.pointer:
            return self.element
        access = "read" if self.constant else "written"
        return f"a contiguous {self.element} tensor on the CPU, {access}{', or None' if self.optional else ''}"


class NativeFunction:
    """A compiled function that is called with tensors and numbers."""

    def __init__(self, name: str, address: int, from_list: int, result: Type, parameters: tuple[Type, ...]) -> None:
        self.name, self.from_list, self.parameters = name, from_list, parameters
        prototype = ctypes.CFUNCTYPE(SCALARS[result.element], *map(_ctypes_type, parameters))
        self.function: Callable[..., Any] = prototype(address)
        self.tensors = [
            (place, getattr(torch, each.element), each.optional)
            for place, each in enumerate(parameters)
            if each.pointer
        ]

    def __call__(self, *arguments: Tensor | float | None) -> Any:
        """Calls it, tensors as addresses.

        Raises:
            TypeError: an argument is missing or of another type than the function was compiled with.
        """
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, not {len(arguments)}")
        passed: list[Any] = list(arguments)
        for place, dtype, optional in self.tensors:
            tensor = passed[place]
            if tensor is None and optional:
                continue
            if not (isinstance(tensor, Tensor) and tensor.dtype is dtype and tensor.is_contiguous() and tensor.is_cpu):
                raise self.wrong(place, tensor)
            passed[place] = tensor.data_ptr()
        try:
            return self.function(*passed)
        except ctypes.ArgumentError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def wrong(self, place: int, argument: Any) -> TypeError:
        """What to say about an argument of the wrong type."""
        found = repr(argument)
        if isinstance(argument, Tensor):
            contiguous = "contiguous" if argument.is_contiguous() else "non-contiguous"
            found = f"a {contiguous} {str(argument.dtype).removeprefix('torch.')} tensor on {argument.device}"
        return TypeError(f"argument {place + 1} of {self.name} must be {self.parameters[place]}; it is {found}")


def _ctypes_type(parameter: Type) -> Any:
    return ctypes.c_void_p if parameter.pointer else SCALARS[parameter.element]


def _load() -> Any:
    """The compiled module; None where it was not compiled."""
    try:
        return importlib.import_module("committee.kernels._native")
    except ModuleNotFoundError:
        return None


class Path(NamedTuple):
    """A way to compute on a CPU.

    Attributes:
        supported: whether this machine has it.
        preferred: whether this machine prefers it to the paths after it; otherwise it is used only when asked for.
        products: the type of the numbers that convolutions and dense layers multiply.
        functions: by name; none where it is not supported.
    """

    name: str
    supported: bool
    preferred: bool
    products: torch.dtype
    functions: Mapping[str, NativeFunction]


def _bound(functions: Mapping[str, Any]) -> dict[str, NativeFunction]:
    return {
        name: NativeFunction(name, address, from_list, Type(*result), tuple(Type(*each) for each in parameters))
        for name, (address, from_list, result, parameters) in functions.items()
    }


def _path(name: str, supported: bool, preferred: bool, products: str, functions: Mapping[str, Any]) -> Path:
    return Path(name, supported, preferred, getattr(torch, products), _bound(functions))


VARIABLE = "COMMITTEE_CPU"  # of the environment: the name of the path to take
TORCH = Path("torch", True, True, torch.float32, {})  # no kernels: torch does the work

_native = _load()

PATHS: tuple[Path, ...] = (*(_path(*each) for each in (_native.paths if _native else ())), TORCH)
"""Those compiled, the best first; the last is `TORCH`."""

COMMON: Mapping[str, NativeFunction] = _bound(_native.functions if _native else {})
"""Functions that belong to no path."""

_caches: list[Callable[[], None]] = []


def cached_by_path(function: Callable[P, Result]) -> Callable[P, Result]:
    """A function that is called once for each arguments, and again after the path was changed by `use`."""
    cached = cache(function)
    _caches.append(cached.cache_clear)
    return cached  # type: ignore[return-value]  # whose arguments are hashable


@cached_by_path
def path() -> Path:
    """The path that this process computes on: the one that COMMITTEE_CPU names, or the best of those supported.

    Raises:
        CommitteeError: COMMITTEE_CPU names a path that there is not, or that this machine does not have.
    """
    name = asked_for()
    if not name:
        return next(each for each in PATHS if each.supported and each.preferred)
    if name not in runnable_paths():
        offered = [each for each in runnable_paths() if not each.endswith("-emulated")]  # those are for tests
        raise CommitteeError(
            f"{VARIABLE} must be unset or name a path that this machine and this installation have "
            f"({', '.join(offered)}); got {name!r}"
        )
    return next(each for each in PATHS if each.name == name)


def asked_for() -> str:
    """What COMMITTEE_CPU says; empty where it says nothing."""
    return os.environ.get(VARIABLE, "")


def runnable_paths() -> list[str]:
    """The names of the paths that this process can take."""
    return [each.name for each in PATHS if each.supported]


@contextmanager
def use(name: str) -> Iterator[None]:
    """Compute on another path, on the best one for ""; processes that are started meanwhile do so, too.

    Raises:
        CommitteeError: as `path` does.
    """
    before = os.environ.get(VARIABLE)
    _ask_for(name)
    try:
        path()
        yield
    finally:
        _ask_for(before)


def _ask_for(name: str | None) -> None:
    if name is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = name
    for clear in _caches:
        clear()


def constant(name: str, otherwise: Any) -> Any:
    """A value that the compiled module says; another one where it was not compiled."""
    return getattr(_native, name) if _native else otherwise


Call = tuple[NativeFunction, tuple[Tensor | float | None, ...]]
recordings: dict[int, list[Call]] = {}  # of the threads that record: what each has called, by its number


def call(name: str, *arguments: Tensor | float | None) -> Any:
    """One function of the path, with its arguments checked."""
    function = path().functions[name]
    if recordings and (calls := recordings.get(threading.get_ident())) is not None:
        calls.append((function, arguments))
    return function(*arguments)
