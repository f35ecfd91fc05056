"""Run the parity tests of the networks, and write what they measured: python tools/parity_table.py

Needs the `parity` extra. Writes docs/parity/measured.md: operations, blocks, whole networks, training, known bugs.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "parity" / "measured.md"
SUITES = {
    "Operations and their gradients": "test_ops.py",
    "Blocks": "test_blocks.py",
    "Whole networks": "test_models.py",
    "Ten steps of training": "test_training.py",
}
HEAD = """# Agreement with upstream: the figures

Written by `python tools/parity_table.py`; do not edit. Relative L2 errors of refdiff against torch {torch},
diffusers {diffusers} and transformers {transformers} with the same random weights and inputs, on
{machine}.
"spec" is the plain text of the operations, "fast" the CPU kernels, which take float32 alone. The largest error of
each kind stands beside its bound; the last digits differ from processor to processor.

For float64 the sinusoids of the time are computed in float64 in diffusers too (it always takes float32): they are
replaced at run time. The float32 comparisons leave diffusers as it is.
"""
MUTANTS = """
## Known bugs, put into refdiff on purpose

Each raises the error above the bound of a network (float32 1e-05, float64 1e-12), so the tests above can fail.

| bug | error in float32 | error in float64 |
|---|---|---|
"""


class Collector:
    """A pytest plugin that keeps what the tests measured."""

    def __init__(self) -> None:
        self.measured: dict[str, list[tuple[str, float, float]]] = {}
        self.mutants: dict[str, dict[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after each phase of each test."""
        if report.when != "call":
            return
        file = Path(report.nodeid.split("::")[0]).name
        for kind, value in report.user_properties:
            if kind == "measured":
                self.measured.setdefault(file, []).append(value)
            elif kind == "mutant":
                name, dtype, error = value
                self.mutants.setdefault(name, {})[dtype] = error


def table(rows: Iterable[tuple[str, float, float]]) -> str:
    """One line a comparison: the largest error in each precision and mode."""
    kinds: dict[str, dict[str, tuple[float, float]]] = {}
    for label, error, bound in rows:
        dtype = "float64" if "float64" in label else "float32"
        column = f"{dtype} {'fast' if ', fast' in label else 'spec'}"
        name = re.sub(r", (float32|float64|spec|fast|result \d+|gradient \d+)\b", "", label)
        name += " (gradients)" if ", gradient" in label else ""
        row = kinds.setdefault(name, {})
        row[column] = (max(error, row.get(column, (0.0, bound))[0]), bound)
    columns = ("float32 spec", "float32 fast", "float64 spec")
    lines = ["| comparison | " + " | ".join(columns) + " | bounds |", "|---|---|---|---|---|"]
    for name, row in kinds.items():
        cells = [f"{row[c][0]:.1e}" if c in row else "" for c in columns]
        bounds = ", ".join(dict.fromkeys(f"{row[c][1]:.0e}" for c in columns if c in row))
        lines.append(f"| {name} | {' | '.join(cells)} | {bounds} |")
    return "\n".join(lines)


def processor() -> str:
    """The processor's name and the number of its cores that are ours."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = found[1] if found else platform.processor()
    system = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return f"{name} ({platform.machine()}), {system}"


def main() -> int:
    """Run, then write the page if all passed."""
    collector = Collector()
    folder = ROOT / "tests" / "parity"
    files = [folder / name for name in [*SUITES.values(), "test_mutants.py"] if (folder / name).exists()]
    status = pytest.main(["-q", "-p", "no:cacheprovider", *map(str, files)], plugins=[collector])
    if status != 0:
        print("parity table: not written, because a test failed", file=sys.stderr)
        return int(status)
    versions = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    parts = [HEAD.format(**versions, machine=processor())]
    parts += [
        f"\n## {title}\n\n{table(collector.measured[file])}\n" for title, file in SUITES.items() if file in collector.measured
    ]
    rows = [f"| {name} | {row['float32']:.1e} | {row['float64']:.1e} |" for name, row in collector.mutants.items()]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("".join(parts) + MUTANTS + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
