"""The array module of the simulated device: CuPy's names and signatures, computed by NumPy's functions."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cupy
import numpy as np

from tests.device.cupy_surface import signature
from tests.device.simulated_array import SimulatedArray, compute, operand, plain, plain_index, wrap
from tests.device.transfers import note_to_device, note_to_host

# Answers about arrays that CuPy gives as plain Python values.
HOST_ANSWERS = {
    *("can_cast", "common_type", "iscomplexobj", "isfortran", "isrealobj", "isscalar", "may_share_memory"),
    *("min_scalar_type", "ndim", "result_type", "shape", "shares_memory", "size"),
}
# What these give has a length that depends on the values, so the device has to say it.
DATA_DEPENDENT = {"argwhere", "bincount", "compress", "extract", "flatnonzero", "histogram", "nonzero", "unique"}
# Parameters that must be plain Python values.
HOST_PARAMETERS = {
    *("axes", "axis", "axis1", "axis2", "ddof", "decimals", "indices_or_sections", "k", "num", "pad_width", "reps"),
    *("shape", "shift", "start", "step", "stop"),
}
# First parameters that must be a device array: CuPy does not turn lists and numbers into arrays where NumPy does.
ARRAY_PARAMETERS = {"M", "a", "a1", "ar1", "arr", "array", "arr1", "ary", "condition", "m", "v", "x"}
FROM_HOST = {"array", "asanyarray", "asarray", "ascontiguousarray", "asfortranarray"}
NOT_SIMULATED = {"cuda", "polynomial", "random", "testing"}


class Module:
    """A module of CuPy, simulated."""

    def __init__(self, name: str, theirs: ModuleType, ours: ModuleType):
        self.__name__, self._theirs, self._ours = name, theirs, ours

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._theirs, name):
            raise AttributeError(f"{self._theirs.__name__} has no {name}")
        value = self._simulate(name, getattr(self._theirs, name), getattr(self._ours, name, None))
        setattr(self, name, value)
        return value

    def _simulate(self, name: str, theirs: Any, ours: Any) -> Any:
        if theirs is ours or isinstance(theirs, numbers.Number):
            return theirs
        if name == "ndarray":
            return SimulatedArray
        if name == "asnumpy":
            return to_host
        if ours is None or name in NOT_SIMULATED or isinstance(ours, type):
            raise AttributeError(f"{self._theirs.__name__}.{name} is not simulated (tests/device/simulated_module.py)")
        if isinstance(ours, ModuleType):
            return Module(f"{self.__name__}.{name}", theirs, ours)
        if isinstance(ours, np.ufunc):
            return Ufunc(theirs, ours)
        return _creation(theirs, ours) if name in FROM_HOST else _function(name, theirs, ours)


class Ufunc:
    """A ufunc of CuPy, simulated: device arrays and numbers in, device arrays out."""

    def __init__(self, theirs: Any, ours: np.ufunc):
        self.__name__, self._theirs, self._ours = ours.__name__, theirs, ours

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        signature(self._theirs).bind(*args, **kwargs)
        return compute(self._ours, [operand(a) for a in args], kwargs)

    def at(self, a: SimulatedArray, indices: Any, b: Any) -> None:
        """Apply at the indices, a repeated one as often as it stands there."""
        if not getattr(self._theirs, "_scatter_op", None):
            raise TypeError(f"cupy.{self.__name__}.at does not exist")
        self._ours.at(operand(a), plain_index(indices), operand(b))


def to_device(x: Any) -> SimulatedArray:
    """A copy of host values on the simulated device; a device array comes back as it is."""
    if type(x) is SimulatedArray:
        return x
    note_to_device("to_device")
    return SimulatedArray(np.array(x, order="K"))


def to_host(x: SimulatedArray) -> np.ndarray:
    """A copy of the values on the host."""
    return x.get()


def _function(name: str, theirs: Callable, ours: Callable) -> Callable:
    """CuPy's function `theirs`, computed by NumPy's `ours`."""
    how = signature(theirs)
    first = next(iter(how.parameters), "")
    wants_array = first in ARRAY_PARAMETERS and name not in HOST_ANSWERS

    def call(*args: Any, **kwargs: Any) -> Any:
        given = how.bind(*args, **kwargs).arguments
        if wants_array:
            _require_device_array(given[first], name)
        for parameter in HOST_PARAMETERS & given.keys():
            _require_plain(given[parameter], f"{parameter} of cupy.{name}")
        if name in DATA_DEPENDENT or (name == "where" and len(given) == 1):
            note_to_host(f"the length of cupy.{name}")
        result = compute(ours, [plain(a) for a in args], kwargs)
        return wrap(np.asarray(result)) if isinstance(result, bool) and name not in HOST_ANSWERS else result

    return call


def _creation(theirs: Callable, ours: Callable) -> Callable:
    """CuPy's asarray and its relatives: what they are given goes to the device unless it is there already."""
    how = signature(theirs)

    def call(obj: Any, *args: Any, **kwargs: Any) -> SimulatedArray:
        how.bind(obj, *args, **kwargs)
        if not _holds_device_arrays(obj):
            obj = to_device(obj)
        return wrap(ours(plain(obj), *args, **kwargs))

    return call


def _holds_device_arrays(x: Any) -> bool:
    return type(x) is SimulatedArray or (type(x) in (list, tuple) and any(_holds_device_arrays(v) for v in x))


def _require_device_array(x: Any, name: str) -> None:
    if type(x) is not SimulatedArray:
        raise TypeError(f"cupy.{name} wants a device array, not {type(x).__name__}")


def _require_plain(x: Any, what: str) -> None:
    if _holds_device_arrays(x):
        raise TypeError(f"{what} must be a plain Python value, not a device array")


simulated = Module("simulated", cupy, np)
