"""Loads the compiled functions and checks every call against the types that they were compiled with."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

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

    def __init__(self, name: str, address: int, result: Type, parameters: tuple[Type, ...]) -> None:
        self.name, self.parameters = name, parameters
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


_native = _load()

FUNCTIONS: Mapping[str, NativeFunction] = {
    name: NativeFunction(name, address, Type(*result), tuple(Type(*each) for each in parameters))
    for name, (address, result, parameters) in (_native.functions if _native else {}).items()
}


def constant(name: str, otherwise: Any) -> Any:
    """A value that the compiled module says; another one where it was not compiled."""
    return getattr(_native, name) if _native else otherwise


def available() -> bool:
    """Whether the functions are installed and this CPU gains by them: not where it has AMX, which torch uses."""
    return bool(FUNCTIONS) and not getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def call(name: str, *arguments: Tensor | float | None) -> Any:
    """One function, with its arguments checked."""
    return FUNCTIONS[name](*arguments)
