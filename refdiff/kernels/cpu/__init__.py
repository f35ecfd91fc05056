"""Kernels for the CPU, in Numba and NumPy's matrix products: float32, NHWC memory behind NCHW views.

A kernel takes what its spec takes and raises Unsupported for an input that it does not take (another dtype, an odd kernel
size): the spec then runs. Importing this package registers them; the mode "fast" uses them.
"""

from pathlib import Path

from refdiff.core.primitive import register_kernel
from refdiff.kernels.cpu import activation, arithmetic, attention, conv, linear, norm, optimizer, product, resample, scores

MODULES = (activation, arithmetic, attention, conv, linear, norm, optimizer, resample, scores)


def register() -> None:
    """Register every kernel of this package against the primitive of the same name."""
    for module in MODULES:
        for name, kernel in module.KERNELS.items():
            register_kernel(name, "numpy", kernel)


def compiled_before() -> bool:
    """Whether an earlier process left compiled kernels for this one."""
    folder = product._product.stats.cache_path
    return folder is not None and any(Path(folder).glob("*.nbi"))


register()
