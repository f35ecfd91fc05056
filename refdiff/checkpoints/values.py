"""Are all numbers finite, and do they stay so in a narrower dtype?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from refdiff.checkpoints.errors import CheckpointError
from refdiff.core.params import Params, flatten

_CHUNK = 2**18
# The smallest magnitude that rounds to infinity in each dtype: half a step beyond its largest number.
_OVERFLOW = {
    "float16": 65520.0,
    "bfloat16": 2.0**128 - 2.0**119,
    "float32": 2.0**128 - 2.0**103,
    "float64": float("inf"),
}


def check_finite(params: Params, file: Path | str | Callable[[str], Path]) -> None:
    """Refuse NaN and infinite values; `file` is for the message: a path, or a function from a key to its path.

    All processors look at once: it is the first pass over gigabytes that were just opened.
    Raises: CheckpointError naming the first key and its first place
    """
    values = flatten(params)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        places = list(pool.map(first_not_finite, values.values()))
    for (key, value), place in zip(values.items(), places, strict=True):
        if place is not None:
            path = file(key) if callable(file) else file
            raise CheckpointError(
                path, f"holds {value[place]} at {list(place)}: the file is damaged or was badly trained", key=key
            )


def first_not_finite(x: np.ndarray) -> tuple[int, ...] | None:
    """The first index at which a floating array is NaN or infinite, or None.

    It looks at the exponent bits, which are all ones in just these numbers: one pass over the array, in pieces.
    """
    flat = x.reshape(-1)
    kind = np.dtype(f"u{x.dtype.itemsize}")
    infinity = np.array(np.inf, x.dtype).view(kind)
    magnitude = kind.type(2 ** (8 * x.dtype.itemsize - 1) - 1)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK].view(kind) & magnitude
        if piece.max() >= infinity:
            first = start + int(np.argmax(piece >= infinity))
            return tuple(int(i) for i in np.unravel_index(first, x.shape))
    return None


def check_range(host: Mapping[str, np.ndarray], path: Path, dtype: str) -> None:
    """Nothing that is not finite goes into a file, nor anything that the narrower dtype would make infinite.

    Raises: CheckpointError naming the key
    """
    for key, value in host.items():
        place = first_not_finite(value)
        if place is not None:
            raise CheckpointError(path, f"would hold {value[place]} at {list(place)}: nothing was written", key=key)
        if value.size and max(-float(value.min()), float(value.max())) >= _OVERFLOW[dtype]:
            raise CheckpointError(path, f"holds values beyond the range of {dtype}: nothing was written; choose float32", key=key)
