"""One program in a process of its own: it makes itself ready, then does the work once for every line that it is sent."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Arguments: program, work, model, size, dtype, where the last result goes."""
    program, work, model, size, dtype, out = sys.argv[1:]
    run = importlib.import_module(f"tools.bench.with_{program}").prepare(work, Path(model), int(size), dtype)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - begin
        if isinstance(result, tuple):  # of which a part alone counts
            result, seconds = result
        np.save(out, result)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts it in KiB
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
