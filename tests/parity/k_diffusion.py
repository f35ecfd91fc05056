"""k-diffusion's modules `sampling` and `external` alone, without the package around them, which needs a dozen libraries more."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path


def load() -> tuple[types.ModuleType, types.ModuleType]:
    """The modules k_diffusion.sampling and k_diffusion.external of the installed package."""
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None and found.origin is not None, "k-diffusion is not installed: pip install --no-deps k-diffusion"
    folder = Path(found.origin).parent
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = [str(folder)]
    utils.append_dims = lambda x, dims: x.reshape(*x.shape, *[1] * (dims - x.ndim))
    package.utils = utils
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    return importlib.import_module("k_diffusion.sampling"), importlib.import_module("k_diffusion.external")


sampling, external = load()
