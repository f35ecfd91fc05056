"""What a golden trace of the full-size model takes: python tools/full_size_trace.py DIR --out docs/golden

DIR is a full-size checkpoint, such as `refdiff synth sd15 DIR` makes. One step at 512x512, every block, in float32: recorded and
written, compared with a second trace whose numbers are all one float32 further up, without the model and with it (each part run
again on their inputs). Each is a process of its own; its time is from its start to its end, its memory the most that it had.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import refdiff
from refdiff.golden import Trace, compare, read_trace, record, write_trace
from refdiff.golden.added import compare_with
from refdiff.golden.stages import Setting

WORKS = {
    "record": "record and write, `refdiff trace --dtype float32`",
    "compare": "compare, `refdiff compare`",
    "model": "compare with the model, `refdiff compare --model`",
}


def main() -> int:
    """Each work in its own process, then the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, help="the folder for full_size.md")
    parser.add_argument("--work", choices=WORKS, help="this one alone, in the folder --files")
    parser.add_argument("--files", type=Path)
    asked = parser.parse_args()
    if asked.work:
        print(done(asked.work, asked.model, asked.files))
        return 0
    if asked.out is None:
        parser.error("--out is needed")
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(work, asked.model, folder) for work in WORKS]
    (asked.out / "full_size.md").write_text(page(rows))
    print(page(rows))
    return 0


def measured(work: str, model: Path, folder: str) -> str:
    """A row: seconds and memory of a process, and what it says that it did."""
    begin = time.perf_counter()
    command = [sys.executable, __file__, str(model), "--work", work, "--files", folder]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    seconds = time.perf_counter() - begin
    if work == "record":
        shift(Path(folder))
    result, _, memory = said.rpartition("; ")
    return f"| {WORKS[work]} | {seconds:.0f} | {memory} | {result} |"


def done(work: str, model: Path, folder: Path) -> str:
    """Do one of the works; what came of it, and this process's memory in GB."""
    if work == "record":
        trace = record(refdiff.load(model), "a red fox", steps=1, width=512, height=512)
        write_trace(folder / "golden.safetensors", trace)
        said = f"{len(trace.tensors)} tensors, {sum(x.nbytes for x in trace.tensors.values()) / 1e9:.2f} GB"
    else:
        theirs, golden = (read_trace(folder / f"{name}.safetensors") for name in ("theirs", "golden"))
        if work == "compare":
            report = compare(theirs, golden)
        else:
            report = compare_with(Setting.of(refdiff.load(model), golden.manifest["inputs"]), theirs, golden)
        said = f"{report.count('pass')} pass, {report.count('fail')} fail"
    return f"{said}; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f}"


def shift(folder: Path) -> None:
    """theirs.safetensors: the golden trace with every real number one float32 further up."""
    golden = read_trace(folder / "golden.safetensors")
    up = {name: np.nextafter(x, np.float32(np.inf)) if x.dtype == np.float32 else x for name, x in golden.tensors.items()}
    write_trace(folder / "theirs.safetensors", Trace(up))


PAGE = """# A golden trace at full size

Made by `python tools/full_size_trace.py DIR --out docs/golden`, DIR from `refdiff synth sd15 DIR`: one step at 512x512, every
block, float32; theirs is the golden trace with every number one float32 further up. Bars: to record in under 2 minutes on two
cores, to compare in under 1 minute, with under 8 GB. The times are of whole processes, loading and writing included.

{machine}, {cores} cores; Python {python}, numpy {numpy}.

| work | seconds | memory, GB | result |
| --- | --- | --- | --- |
{rows}
"""


def page(rows: list[str]) -> str:
    """The figures, and of what they are."""
    facts = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__}
    return PAGE.format(rows="\n".join(rows), **facts)


if __name__ == "__main__":
    sys.exit(main())
