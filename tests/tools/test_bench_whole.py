"""The tables of whole pictures: memory is the process's own, a failure is not a row, and every number has its place."""

from __future__ import annotations

import pytest
from bench_whole import draw_small, page, run

BYTES = 300_000_000


def test_the_memory_is_that_of_the_process():
    _, much = run(["-c", f"print(len(b'x' * {BYTES}))"])
    assert BYTES <= much <= 1.2 * BYTES
    _, after = run(["-c", "pass"])  # not the most of all children so far
    assert after < BYTES


def test_a_program_that_fails_is_no_row():
    with pytest.raises(SystemExit, match="ended with 3"):
        run(["-c", "raise SystemExit(3)"])


def test_the_first_picture_is_a_small_one():
    command = ["generate", "a cat", "--model", "sd15", "--steps", "20", "--width", "512", "-o", "out.png"]
    assert draw_small(command) == ["generate", "a cat", "--steps", "1", "-o", "out.png"]


def test_the_page_has_every_row():
    found = {
        "machine": {"processor": "P", "cores": 2, "numpy": "2"}, "model": "m",
        "whole": {"steps": 20, "size": 512, "seconds": {"refdiff": [100.0], "torch": [150.0, 170.0, 250.0]},
                  "peak_bytes": {"refdiff": 3e9, "torch": 5e9}},
        "growth": [{"program": "refdiff", "size": 256, "seconds": [3.0, 2.0], "peak_bytes": 2e9, "beyond_bytes": 1e8}],
        "error": {"size": 128, "relative": {"refdiff": 1.5e-6, "torch": 1e-6}},
    }  # fmt: skip
    text = page(found)
    for row in (
        "| refdiff | 100.0 | 1.00 | 3.00 |", "| torch | 170.0 | 1.70 | 5.00 |",
        "| 256 | refdiff | 2.00 | 2.00 | 0.10 |", "| refdiff | 1.5e-06 |", "| torch | 1.0e-06 |",
    ):  # fmt: skip
        assert row in text
    assert "growth" not in page({key: found[key] for key in ("machine", "model")})
