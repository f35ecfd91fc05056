"""The array type of the simulated device: a private NumPy array behind the methods and operators that CuPy has."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import cupy
import numpy as np

from tests.device.cupy_surface import signature
from tests.device.transfers import note_implicit, note_to_device, note_to_host

# Asking for one of these on the host waits for the device, however innocent it looks.
IMPLICIT = ("__bool__", "__complex__", "__float__", "__int__", "item", "tobytes", "tolist")
HOST_PROPERTIES = ("dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides")
ARRAY_PROPERTIES = ("T", "imag", "mT", "real")
# What these give has a length that depends on the values, so the device has to say it.
DATA_DEPENDENT = {"compress", "nonzero"}
METHODS = (
    *("all", "any", "argmax", "argmin", "argpartition", "argsort", "astype", "choose", "clip", "compress", "conj"),
    *("conjugate", "copy", "cumprod", "cumsum", "diagonal", "dot", "fill", "flatten", "max", "mean", "min", "nonzero"),
    *("partition", "prod", "put", "ravel", "repeat", "reshape", "round", "searchsorted", "sort", "squeeze", "std"),
    *("sum", "swapaxes", "take", "trace", "transpose", "var", "view"),
)
OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
COMPARISONS = ("__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__ne__")
UNARY = ("__abs__", "__invert__", "__neg__", "__pos__")


class SimulatedArray:
    """An array of the simulated device."""

    __slots__ = ("_values",)
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100

    def __init__(self, values: np.ndarray):
        if values.dtype not in cupy_dtypes():
            raise TypeError(f"Unsupported dtype {values.dtype}: CuPy has no such arrays")
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if hasattr(cupy.ndarray, name):
            raise AttributeError(f"cupy.ndarray.{name} is not simulated (tests/device/simulated_array.py)")
        raise AttributeError(f"cupy.ndarray has no {name}")

    def __getitem__(self, key: Any) -> SimulatedArray:
        return SimulatedArray(np.asarray(self._values[plain_index(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[plain_index(key)] = operand(value)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[SimulatedArray]:
        return (self[i] for i in range(len(self._values)))

    def __repr__(self) -> str:
        return f"<simulated array {self.shape} {self.dtype}>"

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use refdiff.xp.to_host")

    def __array_function__(self, function: Callable, *args: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} on a device array: take it from xp = array_module(x)")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or not any(isinstance(x, np.generic) for x in inputs):
            operand(next((x for x in inputs if isinstance(x, np.ndarray)), 0))
            raise TypeError(f"numpy.{ufunc.__name__} on a device array: take it from xp = array_module(x)")
        return compute(ufunc, [operand(x) for x in inputs], kwargs)  # np.float32(2) * x

    def get(self) -> np.ndarray:
        """The values on the host, as CuPy's method of this name gives them."""
        note_to_host("x.get()")
        return self._values.copy()


def compute(numpy_function: Callable, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on plain values as a GPU would: silent about overflow, and into `out` where it is given."""
    with np.errstate(all="ignore"):
        result = numpy_function(*args, **{k: plain(v) for k, v in kwargs.items()})
    out = kwargs.get("out")
    return wrap(result) if out is None else out


def operand(x: Any) -> Any:
    """One side of an operator: the values of a device array, or a number.

    Raises: TypeError for anything else, a NumPy array above all.
    """
    if type(x) is SimulatedArray:
        return x._values
    if isinstance(x, numbers.Number | np.generic):
        return x
    raise TypeError(f"Unsupported type {type(x)}: a device array meets only device arrays and numbers")


def plain(value: Any) -> Any:
    """An argument as NumPy computes with it, device arrays inside lists included.

    Raises: TypeError where a NumPy array is among them.
    """
    if type(value) is SimulatedArray:
        return value._values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: bring it to the device first")
    if type(value) in (list, tuple):
        return type(value)(plain(v) for v in value)
    return value


def wrap(value: Any) -> Any:
    """A result of NumPy as CuPy gives it: every array and every scalar is a device array."""
    if isinstance(value, np.ndarray | np.generic):
        return SimulatedArray(np.asarray(value))
    if type(value) is list:
        return [wrap(v) for v in value]
    return tuple(wrap(v) for v in value) if isinstance(value, tuple) else value


def plain_index(key: Any) -> Any:
    """An index as NumPy wants it; counts the transfers behind masks and lists.

    Raises: TypeError for a NumPy array.
    """
    if type(key) is tuple:
        return tuple(plain_index(k) for k in key)
    if type(key) is list:
        note_to_device("an index list")
    if type(key) is SimulatedArray and key.dtype == bool and key.ndim:
        note_to_host("the length of x[mask]")
    return plain(key)


@functools.cache
def cupy_dtypes() -> frozenset[np.dtype]:
    """The element types that CuPy computes with."""
    return frozenset(np.dtype(c) for c in "?bBhHiIlLqQefdFD")


def _implicit(name: str) -> Callable:
    def method(self: SimulatedArray) -> Any:
        note_implicit(f"{name} of a device array")
        return getattr(self._values, name)()

    return method


def _method(name: str) -> Callable:
    theirs = signature(getattr(cupy.ndarray, name))

    def method(self: SimulatedArray, *args: Any, **kwargs: Any) -> Any:
        theirs.bind(self, *args, **kwargs)
        if name in DATA_DEPENDENT:
            note_to_host(f"the length of x.{name}()")
        return compute(getattr(self._values, name), [plain(a) for a in args], kwargs)

    return method


def _operator(name: str) -> Callable:
    def method(self: SimulatedArray, other: Any) -> Any:
        if getattr(type(other), "__array_ufunc__", 0) is None:  # the other type takes over, as NumPy's protocol has it
            return NotImplemented
        return compute(getattr(self._values, name), [operand(other)], {})

    return method


def _in_place(name: str) -> Callable:
    def method(self: SimulatedArray, other: Any) -> Any:
        compute(getattr(self._values, name), [operand(other)], {})
        return self

    return method


def _unary(name: str) -> Callable:
    return lambda self: compute(getattr(self._values, name), [], {})


def _property(name: str, result: Callable) -> property:
    return property(lambda self: result(getattr(self._values, name)))


def _furnish() -> None:
    """Give the class what cupy.ndarray has, and nothing that it has not."""
    members: dict[str, Any] = {name: _implicit(name) for name in IMPLICIT}
    members |= {name: _method(name) for name in METHODS if hasattr(cupy.ndarray, name)}
    members |= {name: _property(name, lambda x: x) for name in HOST_PROPERTIES}
    members |= {name: _property(name, wrap) for name in ARRAY_PROPERTIES}
    members |= {f"__{side}{name}__": _operator(f"__{side}{name}__") for name in OPERATORS for side in ("", "r")}
    members |= {name: _operator(name) for name in COMPARISONS}
    members |= {f"__i{name}__": _in_place(f"__i{name}__") for name in OPERATORS}
    members |= {name: _unary(name) for name in UNARY}
    for name, member in members.items():
        if hasattr(cupy.ndarray, name):
            setattr(SimulatedArray, name, member)


_furnish()
