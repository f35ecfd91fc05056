"""Sums of large arrays, on all threads and into memory that was used before."""

from __future__ import annotations

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import nchw, parallel, require_float32
from refdiff.kernels.cpu.results import result


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Both must lie in memory in one order, without gaps.

    Shapes: any, the same -> the same; [B,C,H,W] of NHWC memory, [B,C,1,1] -> [B,C,H,W]
    """
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        raise Unsupported("a single number")
    require_float32(a, b)
    if a.shape != b.shape:
        return _add_vectors(a, b)
    order = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
    one, other = a.transpose(order), b.transpose(order)
    if not (one.flags.c_contiguous and other.flags.c_contiguous):
        raise Unsupported("another layout, or gaps between the numbers")
    out = result(*one.shape)
    parallel(_add, one.size, one.size, one.reshape(-1), other.reshape(-1), out.reshape(-1))
    return out.transpose(np.argsort(order))


def _add(start: int, stop: int, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    np.add(a[start:stop], b[start:stop], out=out[start:stop])


def _add_vectors(x: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The vector of each picture added to all its pixels.  Shapes: [B,C,H,W], [B,C,1,1] -> [B,C,H,W]"""
    if x.ndim != 4 or x.size == 0 or vectors.shape != (*x.shape[:2], 1, 1):
        raise Unsupported("other shapes")
    image = x.transpose(0, 2, 3, 1)
    if not image.flags.c_contiguous:
        raise Unsupported("another layout, or gaps between the numbers")
    out, channels = result(*image.shape), image.shape[3]
    rows = image.reshape(-1, channels)
    parallel(_add_to_rows, len(rows), rows.size, rows, vectors.reshape(-1, channels), out.reshape(-1, channels))
    return nchw(out)


def _add_to_rows(start: int, stop: int, rows: np.ndarray, vectors: np.ndarray, out: np.ndarray) -> None:
    """Shapes: [B*H*W,C], [B,C] -> [B*H*W,C]"""
    pixels = len(rows) // len(vectors)
    for picture in range(start // pixels, -(-stop // pixels)):
        part = slice(max(start, picture * pixels), min(stop, (picture + 1) * pixels))
        np.add(rows[part], vectors[picture], out=out[part])


KERNELS = {"add": add}
