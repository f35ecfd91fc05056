"""docs/golden/recipe.md: each of its programs, in the languages that are here, writes what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refdiff.golden import read_trace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "golden" / "recipe.md").read_text(encoding="utf-8")
# A language's mark on the page: the file, and the commands that build and run it.
LANGUAGES = {
    "cpp": ("writer.cpp", [["g++", "-std=c++17", "-o", "writer", "writer.cpp"], ["./writer"]]),
    "rust": ("writer.rs", [["rustc", "-o", "writer", "writer.rs"], ["./writer"]]),
    "js": ("writer.js", [["node", "writer.js"]]),
}
HERE = [name for name, (_, commands) in LANGUAGES.items() if shutil.which(commands[0][0])]


def blocks(mark: str) -> list[str]:
    """The blocks of that language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language == mark]


def test_every_language_has_one_program():
    assert [len(blocks(mark)) for mark in LANGUAGES] == [1, 1, 1]


@pytest.mark.parametrize("mark", HERE)
def test_a_program_writes_a_trace(mark, tmp_path):
    file, commands = LANGUAGES[mark]
    (tmp_path / file).write_text(blocks(mark)[0])
    for command in commands:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    found = read_trace(tmp_path / "theirs").tensors
    assert {name: (x.shape, str(x.dtype)) for name, x in found.items()} == {
        "steps/000/unet/conv_in": ((1, 2, 3, 1), "float32"),
        "steps/000/time": ((), "float32"),
    }
    np.testing.assert_array_equal(found["steps/000/unet/conv_in"].ravel(), np.arange(6))
    shown, printed = [block for block in blocks("") if "read_trace" in block or block.startswith("steps/")]
    program = re.fullmatch(r'python -c "(.*)"\s*', shown, flags=re.DOTALL)
    assert program is not None
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program[1]], cwd=tmp_path, env=there, check=True, capture_output=True, text=True)
    assert sorted(run.stdout.splitlines()) == sorted(printed.strip().splitlines())
