"""Stable Diffusion written out: every layer explicit over an array module, on NumPy, Numba and CuPy.

import refdiff
pipe = refdiff.load()
pipe("a large red circle on a yellow background", seed=7).images[0].save("out.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refdiff import models  # the networks register themselves
from refdiff.version import __version__

if TYPE_CHECKING:
    from refdiff.pipelines.text_to_image import Pipeline

__all__ = ["__version__", "load", "models", "use_kernels", "use_threads"]


def load(
    path_or_name: Any = None, *, device: str = "cpu", dtype: str = "float32", kernels: str = "fast", low_memory: bool = False
) -> Pipeline:
    """Open a model for drawing: None is the embedded one, otherwise a folder in the diffusers layout.

    With `low_memory` each network is in memory only while it works: the same pictures, slower. In the dtype "bfloat16" weights
    take two bytes, and where the processor multiplies bfloat16 so do linear layers, convolutions and attention, which is faster;
    recipes say so under "products".

    Raises: BadRequest for a folder that cannot be read, an unknown device, dtype or kind of kernels
    """
    from refdiff.pipelines.load import load_pipeline

    return load_pipeline(path_or_name, device=device, dtype=dtype, kernels=kernels, low_memory=low_memory)


class use_kernels:
    """Run ops and models with the kernels "spec" or "fast" from here on, or inside a with block.

    With `products` "bfloat16" the fast kernels of this thread round what linear layers, attention and convolutions multiply to
    it, in Winograd's form its transforms, and sum in float32, where the processor has instructions for that. Products of an odd
    depth, Winograd's of a doubled picture, and gradients stay float32.

    Raises: BadRequest for any other word, and for "bfloat16" with the specification
    """

    def __init__(self, mode: str, products: str = "float32"):
        from refdiff.core import primitive

        self._before = primitive.get_mode(), primitive.products()
        primitive.set_mode(mode, products)
        if mode == "fast":
            import refdiff.kernels.cpu  # noqa: F401 - registers

    def __enter__(self) -> use_kernels:
        return self

    def __exit__(self, *_: object) -> None:
        from refdiff.core import primitive

        primitive.set_mode(*self._before)


def use_threads(count: int) -> None:
    """Let the kernels, and the library behind NumPy's matrix products, run on so many threads from here on.

    The two never compete: a kernel on several threads calls no library, and a product of NumPy runs while no kernel does.
    """
    from threadpoolctl import threadpool_limits

    from refdiff.kernels.cpu import common

    common.set_threads(count)
    threadpool_limits(limits=count, user_api="blas")
