"""The product that the gradient of a weight is: a sum over the rows of two matrices, of which one need not be in memory.

out[m,n] = the sum over k of g[k,m] x[places[k] + columns[n]]. For a linear layer `places` are the rows of the input; for a
convolution they are where the windows begin in the padded image, and `columns` the places of a window: so nothing is gathered
but the panel of the moment, which stays in the first cache.
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import PER_NUMBER, jit, parallel, part, scratch
from refdiff.kernels.cpu.halves import FLOAT32
from refdiff.kernels.cpu.panels import COLUMNS, ROWS, transpose
from refdiff.kernels.cpu.product import DEPTH
from refdiff.kernels.cpu.tile import multiply_tile
from refdiff.kernels.cpu.vector import copy_row


def weight_gradient(g: np.ndarray, x: np.ndarray, places: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The product as the module says it; every number is summed in the order of k, whatever the number of threads.

    Shapes: [K,M], [?], [K], [N] -> [M,N]
    """
    depth, many = g.shape
    panels, lines = -(-len(columns) // COLUMNS), np.minimum(np.arange(-(-many // ROWS) * ROWS), many - 1) * DEPTH
    across = np.full(panels * COLUMNS, columns[-1], dtype=np.int64)
    across[: len(columns)] = columns
    out = np.zeros((len(lines), panels * COLUMNS), dtype=np.float32)
    parallel(_panels, panels, depth * many * len(columns) // PER_NUMBER, g, x, places, across, lines, out)
    return np.ascontiguousarray(out[:many, : len(columns)])


def _panels(start: int, stop: int, g: np.ndarray, *rest: np.ndarray) -> None:
    args = (start, stop, g, *rest, scratch("turned", DEPTH * g.shape[1]), scratch("packed", DEPTH * COLUMNS))
    _sum_over_rows(*args)


@jit
def _sum_over_rows(start, stop, g, x, places, columns, lines, out, turned, packed):
    """The panels start..stop of `out`, whose rows and columns are whole tiles."""
    many, width = g.shape[1], out.shape[1]
    turned_at, lines_at, packed_at, out_at = turned.ctypes.data, lines.ctypes.data, packed.ctypes.data, out.ctypes.data
    for k in range(0, len(g), DEPTH):
        deep = min(DEPTH, len(g) - k)
        transpose(np.int64(g.ctypes.data + 4 * k * many), many, deep, many, np.int64(turned_at), np.int64(DEPTH), FLOAT32)
        for p in range(start, stop):
            _pack_windows(x, places[k : k + deep], columns[p * COLUMNS : (p + 1) * COLUMNS], packed)
            for m in range(0, len(lines), ROWS):
                to = out_at + 4 * (m * width + p * COLUMNS)
                multiply_tile(turned_at, lines_at + 8 * m, many - m, packed_at, deep, (to, width), (to, width), FLOAT32)


@part
def _pack_windows(x, places, columns, packed):
    """packed[k,j] = x[places[k] + columns[j]]."""
    first, run = columns[0], True
    for j in range(COLUMNS):
        run = run and columns[j] == first + j
    x_at, packed_at = x.ctypes.data + 4 * first, packed.ctypes.data
    for k in range(len(places)):
        if run:
            copy_row(x_at + 4 * places[k], packed_at + 4 * k * COLUMNS)
        else:
            for j in range(COLUMNS):
                packed[k * COLUMNS + j] = x[places[k] + columns[j]]
