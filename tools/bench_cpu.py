"""How fast refdiff is on this processor, beside the programs that would be picked instead, with the same weights and inputs.

    refdiff synth sd15 sd15 --dtype float16
    python tools/bench_cpu.py sd15 --out docs/benchmarks

Every program is a process of its own, and they take turns, so that a slow minute is slow for all. Each is warmed up once; then
the median of --runs runs counts. A program that is not installed is left out, and the page says so. The outputs are compared
with refdiff's in float32; those of training are the losses of all its steps, and a picture of stable-diffusion.cpp cannot be: its
noise is its own. That program keeps the weights as the folder has them, so give it one in float16; the others compute in --dtype
with any.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# The program and the package that it needs.
PROGRAMS = {"refdiff": "refdiff", "torch": "torch", "openvino": "openvino", "sdcpp": "stable_diffusion_cpp"}
WORKS = {"unet": "U-Net, one guided step", "vae": "VAE decoder", "train": "U-Net and text encoder, one step of training"}
WITHOUT = {"openvino": ("train",), "sdcpp": ("train", "vae")}  # what a program does not do, or does not tell the time of
TRAINED = ROOT / "weights" / "embedded"  # whatever the model, training is measured with this one
BATCH = 64  # pictures of a step of training
GFLOP = {("unet", 512): 1606.0, ("vae", 512): 2515.0}  # of the direct form, counted from the shapes


def main() -> int:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Stable Diffusion 1.x folder")
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--size", type=int, nargs="+", default=[512], help="pixels along one side, default 512")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], choices=PROGRAMS, help="programs to leave out")
    parser.add_argument("--out", type=Path, help="the folder for the page and the raw numbers")
    options = parser.parse_args()
    names = [name for name, package in PROGRAMS.items() if name not in options.without and importlib.util.find_spec(package)]
    rows = [
        measure(options, names, work, size) for work in options.work for size in ([BATCH] if work == "train" else options.size)
    ]
    rates = peak(options.dtype)
    found = {"machine": machine(), "peak_gflops": rates, "programs": names, "runs": options.runs, "rows": rows}
    text = page(found)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "cpu.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "cpu.md").write_text(text)
    return 0


def measure(options: argparse.Namespace, names: list[str], work: str, size: int) -> dict:
    """One row: each program's seconds, run by run, its peak memory, and how far its output is from refdiff's in float32."""
    names = [name for name in names if work not in WITHOUT.get(name, ())]
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder) / f"{name}.npy" for name in names}
        workers = {name: start(name, work, options, size, outputs[name]) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        peaks = {}
        for turn in range(options.runs + 1):
            for name, worker in workers.items():
                answer = ask(worker, name)
                peaks[name] = answer["peak_bytes"]
                if turn:
                    seconds[name].append(answer["seconds"])
        for worker in workers.values():
            stop(worker)
        exact = outputs.get("refdiff")
        if exact is not None and options.dtype != "float32":
            exact = Path(folder) / "float32.npy"
            worker = start("refdiff", work, argparse.Namespace(model=options.model, dtype="float32"), size, exact)
            ask(worker, "refdiff")
            stop(worker)
        ours = None if exact is None else np.load(exact).astype(np.float64)
        differences = {name: relative(np.load(path), ours) for name, path in outputs.items() if name != "sdcpp"}
    return {
        "work": work, "size": size, "dtype": options.dtype, "seconds": seconds, "peak_bytes": peaks, "difference": differences,
    }  # fmt: skip


def start(name: str, work: str, options: argparse.Namespace, size: int, out: Path) -> subprocess.Popen:
    """A worker that is ready."""
    command = [
        sys.executable,
        "-m",
        "tools.bench.worker",
        name,
        work,
        str(TRAINED if work == "train" else options.model.resolve()),
        str(size),
        options.dtype,
        str(out),
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    worker = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    read(worker, name)
    return worker


def ask(worker: subprocess.Popen, name: str) -> dict:
    """Let a worker do its work once."""
    worker.stdin.write("\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    return read(worker, name)


def stop(worker: subprocess.Popen) -> None:
    """Let a worker end."""
    worker.stdin.close()  # type: ignore[union-attr]
    worker.wait()


def read(worker: subprocess.Popen, name: str) -> dict:
    """The next JSON line of a worker; what else it prints goes to our error stream."""
    for line in worker.stdout:  # type: ignore[union-attr]
        if line.startswith("{"):
            return json.loads(line)
        print(line, end="", file=sys.stderr)
    raise SystemExit(f"{name} stopped; what it says is above")


def relative(x: np.ndarray, ours: np.ndarray | None) -> float | None:
    """|x - ours| / |ours|, L2."""
    return None if ours is None else float(np.linalg.norm(x - ours) / np.linalg.norm(ours))


def peak(dtype: str) -> dict[str, float]:
    """GFLOP/s of products of 2048 x 2048: refdiff's own and NumPy's library's in float32, and refdiff's in `dtype`."""
    from refdiff.core import primitive
    from refdiff.kernels.cpu import linear

    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((2048, 2048)).astype(np.float32) for _ in range(2))

    def ours(products: str) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with primitive.mode("fast", products):
                return linear.linear(x[None], w, None)  # one picture: its rows are enough for any way

        return run

    runs = {
        "refdiff": ours("float32"),
        "numpy": lambda: x @ w,
        **({} if dtype == "float32" else {f"refdiff {dtype}": ours(dtype)}),
    }
    found = {}
    for name, run in runs.items():
        run()
        taken = []
        for _ in range(5):
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
        found[name] = 2 * 2048**3 / min(taken) / 1e9
    return found


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    )
    versions = {
        p: importlib.metadata.version(p)
        for p in ("numpy", "numba", "torch", "diffusers", "openvino", "stable_diffusion_cpp_python")
        if importlib.util.find_spec(p.removesuffix("_python"))
    }
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count() or 1, **versions}


def page(found: dict) -> str:
    """The table as Markdown."""
    told, best = found["machine"], max(found["peak_gflops"].values())
    versions = ", ".join(f"{key} {value}" for key, value in told.items() if key not in ("processor", "cores"))
    rates = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in found["peak_gflops"].items())
    lines = [
        "# Speed on a CPU", "", f"{told['processor']}, {told['cores']} cores; {versions}.",
        f"Medians of {found['runs']} runs, in turns, after one to warm up, by `tools/bench_cpu.py`; raw numbers in cpu.json.",
        "The size is that of a picture's side in pixels; of training, how many pictures a step takes.",
        "", f"Matrix products of 2048 x 2048 in the same run: {rates}.", "",
        "| work | size | program | seconds | over refdiff's | GFLOP/s, direct form | of the peak | memory, GB | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    absent = ", ".join(name for name in PROGRAMS if name not in found["programs"])
    if absent:
        lines.insert(-2, f"Left out, or not installed: {absent}.\n")
    if "sdcpp" in found["programs"]:
        lines.insert(
            -2, "sdcpp is stable-diffusion.cpp, with weights of float16 where the folder has them; its step is timed by itself.\n"
        )
    for row in found["rows"]:
        for name, taken in row["seconds"].items():
            middle = statistics.median(taken)
            flops = GFLOP.get((row["work"], row["size"]))
            rate = "" if flops is None else f"{flops / middle:.0f}"
            share = "" if flops is None else f"{flops / middle / best:.2f}"
            ratio = middle / statistics.median(row["seconds"].get("refdiff", taken))
            apart = f"{row['difference'][name]:.1e}" if name in row["difference"] else "not comparable"
            lines.append(
                f"| {WORKS[row['work']]}, {row['dtype']} | {row['size']} | {name} | {middle:.2f} | {ratio:.2f} | {rate} |"
                f" {share} | {row['peak_bytes'][name] / 1e9:.2f} | {apart} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
