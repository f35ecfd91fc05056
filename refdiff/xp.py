"""The array module of an array: NumPy on the host, CuPy on a GPU, or any module registered for another array type.

Every function of this package that computes takes its functions from `array_module(x)`, so one text runs on every
device. The three crossings between host and device are here and nowhere else: `to_device`, `to_host`, `array_module`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from refdiff.errors import BadRequest

Array = Any  # numpy.ndarray, cupy.ndarray or a registered array type


@dataclass(frozen=True)
class Device:
    """One place where arrays live: its array type, its array module and the two crossings."""

    name: str
    array_type: type
    module: Any
    to_device: Callable[[Array], Array]
    to_host: Callable[[Array], np.ndarray]
    erf: Callable[[Array], Array]


_BY_NAME: dict[str, Device] = {}
_BY_TYPE: dict[type, Device] = {}


def array_module(x: Array) -> Any:
    """The module (NumPy, CuPy, ...) whose functions take `x`."""
    return np if type(x) is np.ndarray else _device_of(x).module


def to_device(x: Array, device: str) -> Array:
    """Copy a host array to `device` ("cpu" gives it back as it is).

    Raises: BadRequest where the device is unknown or cannot be used here.
    """
    return _device_named(device).to_device(x)


def to_host(x: Array) -> np.ndarray:
    """The NumPy array with the values of `x`; a NumPy array comes back as it is."""
    return _device_of(x).to_host(x)


def like(host: np.ndarray, x: Array) -> Array:
    """A host array on the device of `x`."""
    return host if type(x) is np.ndarray else _device_of(x).to_device(host)


def erf(x: Array) -> Array:
    """The error function, element by element, on the device of `x`."""
    return _device_of(x).erf(x)


def register_device(
    name: str,
    array_type: type,
    module: Any,
    to_device: Callable[[Array], Array],
    to_host: Callable[[Array], np.ndarray],
    erf: Callable[[Array], Array],
) -> None:
    """Teach the package another array type; `name` then works wherever a device is named."""
    device = Device(name, array_type, module, to_device, to_host, erf)
    _BY_NAME[name] = device
    _BY_TYPE[array_type] = device


def _device_of(x: Array) -> Device:
    device = _BY_TYPE.get(type(x))
    if device is not None:
        return device
    if isinstance(x, np.ndarray | np.generic):  # memory-mapped arrays and NumPy scalars
        return _BY_NAME["cpu"]
    if type(x).__module__.split(".")[0] == "cupy":
        return _device_named("cuda")
    raise TypeError(f"{type(x).__name__} is not an array of a known device")


def _device_named(name: str) -> Device:
    if name == "cuda" and name not in _BY_NAME:
        _register_cuda()
    if name not in _BY_NAME:
        raise BadRequest(f'unknown device "{name}": choose one of {", ".join(sorted({*_BY_NAME, "cuda"}))}')
    return _BY_NAME[name]


def _register_cuda() -> None:
    try:
        import cupy
        import cupyx.scipy.special

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise BadRequest(f'device "cuda" needs CuPy: pip install "refdiff[cuda]" ({error})') from error
    except Exception as error:
        raise BadRequest(f'device "cuda" cannot be used: {error}') from error
    if count < 1:
        raise BadRequest('device "cuda" cannot be used: no GPU was found; use --device cpu')
    register_device("cuda", cupy.ndarray, cupy, cupy.asarray, cupy.asnumpy, cupyx.scipy.special.erf)


def _host_erf(x: np.ndarray) -> np.ndarray:
    special: ModuleType = __import__("scipy.special", fromlist=["erf"])  # half of the package's import time: only where used
    return special.erf(x)


register_device("cpu", np.ndarray, np, np.asarray, np.asarray, _host_erf)
