"""What one core makes of a tile of a matrix product in float32, whose factors lie in its caches: products one by one, and spared.

    python -m tools.bench.tiles

Rates count the products that there are, made or spared: those of spared products may be above what a processor multiplies.
"""

from __future__ import annotations

import time

import numpy as np

from refdiff.kernels.cpu import inner
from refdiff.kernels.cpu.common import address, jit
from refdiff.kernels.cpu.halves import FLOAT32, SPARED
from refdiff.kernels.cpu.panels import COLUMNS, ROWS


@jit
def _tiles(count, a, rows, b, depth, zeros, out, kind):
    for _ in range(count):
        inner.multiply(a, rows, np.int64(ROWS), b, depth, (zeros, 0), (out, COLUMNS), (zeros, 1, zeros), kind)


def main() -> None:
    """Print the rates, the best of five runs."""
    for depth in (64, 160, 320):
        a, b, zeros, out = (np.zeros(size, np.float32) for size in (ROWS * depth, depth * COLUMNS, COLUMNS, ROWS * COLUMNS))
        rows, count = np.arange(ROWS) * depth, (1 << 22) // depth
        rates = {}
        for name, kind in (("one by one", FLOAT32), *((("spared", SPARED),) if inner.ABLE else ())):
            taken = []
            for _ in range(6):  # the first of which compiles
                begin = time.perf_counter()
                _tiles(count, address(a), address(rows), address(b), depth, address(zeros), address(out), kind)
                taken.append(time.perf_counter() - begin)
            rates[name] = 2e-9 * count * ROWS * COLUMNS * depth / min(taken[1:])
        print(f"depth {depth}:", ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items()))


if __name__ == "__main__":
    main()
