"""The simulated device: an array type that behaves on this machine as CuPy's does on a GPU, and the module beside it.

What CuPy does not have is not here either: every function, method and keyword is looked up in the installed CuPy before
NumPy computes. Where CuPy is lenient about crossing between host and device (NumPy functions that take its arrays,
NumPy arrays as an index, float(x)), the simulation is strict and refuses.

Importing this file registers the device under the name "simulated".
"""

import scipy.special

from refdiff.xp import register_device
from tests.device.simulated_array import SimulatedArray, operand
from tests.device.simulated_module import simulated, to_device, to_host
from tests.device.transfers import ImplicitTransfer, Transfers, count_transfers, implicit_transfers

__all__ = [
    "ImplicitTransfer",
    "SimulatedArray",
    "Transfers",
    "count_transfers",
    "implicit_transfers",
    "simulated",
    "to_device",
    "to_host",
]


def _erf(x: SimulatedArray) -> SimulatedArray:
    return SimulatedArray(scipy.special.erf(operand(x)))


register_device("simulated", SimulatedArray, simulated, to_device, to_host, _erf)
