"""What a whole picture costs, from a cold process: seconds and memory, beside diffusers on PyTorch; and how both grow, and err.

    refdiff synth sd15 sd15 && refdiff synth sd15 sd15-half --dtype float16
    python tools/bench_whole.py sd15-half --out docs/benchmarks

Three tables, of which --part chooses:
- whole: prompt to picture, each program in fresh processes that take turns, with the memory that the process had at most; the
  model's files were read before, so that none waits for the disk;
- growth: one guided step of the U-Net at each of --sizes, seconds and memory, and what it took beyond the weights;
- error: the U-Net's output in float32, refdiff's and PyTorch's, against refdiff's in float64 (the specification) on the same
  inputs at --error-size pixels. In float64 the weights alone take 7 GB.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_cpu import ROOT, ask, machine, relative, start

PROMPT = "a photograph of an astronaut riding a horse"
REFDIFF = ["-c", "from refdiff.cli import main; main()", "generate", PROMPT, "--quiet"]
PARTS = ("whole", "growth", "error")


def main() -> int:
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Stable Diffusion 1.x folder, best in float16")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, default=20, help="of a whole picture, default 20")
    parser.add_argument("--size", type=int, default=512, help="pixels along one side of a whole picture, default 512")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 768, 1024], help="of the table of growth")
    parser.add_argument("--error-size", type=int, default=256, help="of the table of errors, default 256")
    parser.add_argument("--runs", type=int, default=1, help="of every program, default 1")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--out", type=Path, help="the folder for the page and the raw numbers")
    options = parser.parse_args()
    options.model = options.model.resolve()
    options.torch = importlib.util.find_spec("diffusers") is not None and not options.without_torch
    measured = {"whole": whole, "growth": growth, "error": error}
    found = {"machine": machine(), "model": options.model.name, **{part: measured[part](options) for part in options.part}}
    text = page(found)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "whole.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "whole.md").write_text(text)
    return 0


def whole(options: argparse.Namespace) -> dict:
    """Seconds, run by run, and the most memory, of each program from its start to its end."""
    model, steps, size = str(options.model), str(options.steps), str(options.size)
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.png")
        draw = [*REFDIFF, "--model", model, "--steps", steps, "--width", size, "--height", size, "-o", out]
        commands = {"refdiff": draw, "refdiff --low-memory": [*draw, "--low-memory"]}
        if options.torch:
            commands["diffusers on torch"] = ["-m", "tools.bench.whole_torch", PROMPT, model, steps, size, out]
        run(draw_small(draw))  # the kernels are compiled once for a machine
        for path in filter(Path.is_file, options.model.rglob("*")):  # whoever comes first would else wait for the disk
            path.read_bytes()
        for _ in range(options.runs):
            for name, command in commands.items():
                taken, peak = run(command)
                seconds.setdefault(name, []).append(taken)
                peaks[name] = max(peak, peaks.get(name, 0))
    return {"steps": options.steps, "size": options.size, "seconds": seconds, "peak_bytes": peaks}


def draw_small(command: list[str]) -> list[str]:
    """The same command for one step by the embedded model."""
    at = command.index("--model")
    return [*command[:at], "--steps", "1", "-o", command[-1]]


# A process is counted with what its parent had in memory when it was started, so a small one starts it and is asked.
STARTER = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)  # Linux counts it in KiB
"""


def run(command: list[str]) -> tuple[float, int]:
    """Seconds and bytes of a process.  Raises: SystemExit where it fails"""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": path}
    begin = time.perf_counter()
    starter = [sys.executable, "-S", "-c", STARTER, *command]
    told = subprocess.run(starter, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds = time.perf_counter() - begin
    code, peak = map(int, told.split())
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}; what it says is above")
    return seconds, peak


def growth(options: argparse.Namespace) -> list[dict]:
    """For each program and size: the fastest run, the most memory, and how much of it came after the weights were read."""
    names = ["refdiff", "torch"] if options.torch else ["refdiff"]
    return [grown(options, name, size) for size in options.sizes for name in names]


def grown(options: argparse.Namespace, name: str, size: int) -> dict:
    """One row of the table of growth."""
    asked = argparse.Namespace(model=options.model, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        worker = start(name, "unet", asked, size, Path(folder) / "out.npy")
        before = resident(worker.pid)
        answers = [ask(worker, name) for _ in range(options.runs + 1)]
        finish(worker)
    peak = answers[-1]["peak_bytes"]
    seconds = [answer["seconds"] for answer in answers[1:]]
    return {"program": name, "size": size, "seconds": seconds, "peak_bytes": peak, "beyond_bytes": peak - before}


def resident(pid: int) -> int:
    """The bytes that a process has in memory now, as Linux tells."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def finish(worker: subprocess.Popen) -> None:
    """Let a worker end."""
    worker.stdin.close()  # type: ignore[union-attr]
    worker.wait()


def error(options: argparse.Namespace) -> dict:
    """|x - truth| / |truth| of each program's float32, truth being refdiff's float64; one after the other, for their memory."""
    wanted = [("refdiff", "float64"), ("refdiff", "float32"), *([("torch", "float32")] if options.torch else [])]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, dtype in wanted:
            out = Path(folder) / f"{name}-{dtype}.npy"
            worker = start(name, "unet", argparse.Namespace(model=options.model, dtype=dtype), options.error_size, out)
            ask(worker, name)
            finish(worker)
            results[name, dtype] = np.load(out).astype(np.float64)
    truth = results.pop(("refdiff", "float64"))
    return {"size": options.error_size, "relative": {name: relative(x, truth) for (name, _), x in results.items()}}


def page(found: dict) -> str:
    """The tables as Markdown."""
    told = found["machine"]
    versions = ", ".join(f"{key} {value}" for key, value in told.items() if key not in ("processor", "cores"))
    lines = ["# Whole pictures, memory and errors", "", f"{told['processor']}, {told['cores']} cores; {versions}."]
    lines += [f"Model: {found['model']}. By `tools/bench_whole.py`; raw numbers in whole.json.", ""]
    if "whole" in found:
        row = found["whole"]
        lines += [f"Prompt to picture in a fresh process, {row['steps']} steps, {row['size']}x{row['size']} pixels, float32:", ""]
        lines += ["| program | seconds | over refdiff's | memory, GB |", "|---|---|---|---|"]
        ours = statistics.median(row["seconds"]["refdiff"])
        for name, taken in row["seconds"].items():
            middle = statistics.median(taken)
            lines.append(f"| {name} | {middle:.1f} | {middle / ours:.2f} | {row['peak_bytes'][name] / 1e9:.2f} |")
        lines.append("")
    if "growth" in found:
        lines += ["One guided step of the U-Net, float32:", ""]
        lines += ["| pixels | program | seconds | memory, GB | beyond the weights, GB |", "|---|---|---|---|---|"]
        for row in found["growth"]:
            numbers = f"{min(row['seconds']):.2f} | {row['peak_bytes'] / 1e9:.2f} | {row['beyond_bytes'] / 1e9:.2f}"
            lines.append(f"| {row['size']} | {row['program']} | {numbers} |")
        lines.append("")
    if "error" in found:
        row = found["error"]
        lines += [f"The U-Net's float32 against refdiff's float64, {row['size']}x{row['size']} pixels, relative L2:", ""]
        lines += ["| program | error |", "|---|---|", *(f"| {name} | {e:.1e} |" for name, e in row["relative"].items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
