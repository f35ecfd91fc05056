"""Running one thing on the host and on the simulated device, and holding the results against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdiff.xp import to_device, to_host
from tests.device.simulated import SimulatedArray, Transfers, count_transfers


def on_device(value: Any) -> Any:
    """The same nested value with every NumPy array on the simulated device, memory order kept."""
    if isinstance(value, np.ndarray):
        return to_device(value, "simulated")
    if type(value) in (list, tuple):
        return type(value)(on_device(v) for v in value)
    return {k: on_device(v) for k, v in value.items()} if isinstance(value, dict) else value


def run_on_device(function: Callable, *args: Any, **constants: Any) -> tuple[Any, Transfers]:
    """What the function gives for the arguments on the simulated device, and what crossed while it ran."""
    there = on_device(args)
    with count_transfers() as crossed:
        result = function(*there, **constants)
    return result, crossed


def assert_same(device: Any, host: Any) -> None:
    """Equal but for the last bits: NumPy computes both, but may add up in another order where memory lies differently.

    Raises: AssertionError where a value, a shape or a dtype differs, or where a result is not on the device.
    """
    if type(host) in (list, tuple):
        assert len(device) == len(host)
        for d, h in zip(device, host, strict=True):
            assert_same(d, h)
    elif isinstance(host, dict):
        assert device.keys() == host.keys()
        for key in host:
            assert_same(device[key], host[key])
    elif host is None:
        assert device is None
    else:
        assert type(device) is SimulatedArray, f"a {type(device).__name__} came back, not a device array"
        assert (device.dtype, device.shape) == (host.dtype, host.shape)
        size = float(np.abs(host).max()) if host.size and np.issubdtype(host.dtype, np.floating) else 0.0
        tolerance = 64 * float(np.finfo(host.dtype).eps) * size if size else 0.0
        np.testing.assert_allclose(to_host(device), host, rtol=0, atol=tolerance)
