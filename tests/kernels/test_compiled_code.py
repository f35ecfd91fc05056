"""Compiled code is kept on disk as long as no kernel's source changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import refdiff

ONCE = """
import numpy as np
from refdiff.kernels.cpu import linear, product
linear.linear(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), None)
print(sum(product._product.stats.cache_hits.values()), sum(product._product.stats.cache_misses.values()))
"""


def hits_and_misses(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "kept")}
    run = subprocess.run([sys.executable, "-c", ONCE], env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_it_is_made_anew_when_what_a_kernel_calls_has_changed(tmp_path):
    shutil.copytree(Path(refdiff.__file__).parent, tmp_path / "refdiff", ignore=shutil.ignore_patterns("__pycache__", "data"))
    assert hits_and_misses(tmp_path) == "0 1"
    assert hits_and_misses(tmp_path) == "1 0"
    with open(tmp_path / "refdiff" / "kernels" / "cpu" / "vector.py", "a") as f:
        f.write("# one line more\n")
    assert hits_and_misses(tmp_path) == "0 1"
