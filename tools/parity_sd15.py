"""SD 1.5 at full size against diffusers' own pipeline: the same folder, prompt, first latents, DDIM and guidance.

    python tools/parity_sd15.py FOLDER [--out docs/parity/sd15.md]

FOLDER holds the model that `refdiff synth sd15 FOLDER` writes, or any Stable Diffusion 1.x. Needs the extra `parity`,
10 GB of memory, and minutes. The exit code is 1 where the final latents differ by more than the bound.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import refdiff
from refdiff.pipelines.load import fingerprint

BOUND = 1e-4
PROMPT = "a photograph of an astronaut riding a horse, 35 mm, f/2.8"
NEGATIVE = "blurry, low quality"
STEPS, GUIDANCE, SEED = 10, 7.5, 1234
PACKAGES = ("numpy", "numba", "torch", "diffusers", "transformers")


def main() -> int:
    """Run both programs, write the report, and say whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="where to write the report as well as printing it")
    args = parser.parse_args()
    latents = np.random.default_rng(SEED).standard_normal((1, 4, 64, 64)).astype(np.float32)
    print("diffusers ...", flush=True)
    theirs = upstream(args.folder, latents)
    print("refdiff ...", flush=True)
    ours = this(args.folder, latents)
    text = report(args.folder, ours, theirs)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0 if len(ours) == STEPS and error(ours[-1], theirs[-1]) <= BOUND else 1


def this(folder: Path, latents: np.ndarray) -> list[np.ndarray]:
    """The latents after every step, by refdiff."""
    found: list[np.ndarray] = []
    pipe = refdiff.load(folder)
    pipe(
        PROMPT, NEGATIVE, sampler="ddim", steps=STEPS, guidance=GUIDANCE, latents=latents,
        callback=lambda step: found.append(step.x),
    )  # fmt: skip
    return found


def upstream(folder: Path, latents: np.ndarray) -> list[np.ndarray]:
    """The latents after every step, by diffusers."""
    found: list[np.ndarray] = []
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)

    def keep(_pipe, _step, _time, values):
        found.append(values["latents"].numpy().copy())
        return values

    pipe(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=torch.from_numpy(latents),
        output_type="latent", callback_on_step_end=keep,
    )  # fmt: skip
    return found


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The relative L2 error, in float64."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def report(folder: Path, ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """A page of Markdown with every figure."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    rows = [
        f"| {i + 1} | {error(a, b):.2e} | {np.abs(a - b).max():.2e} | {b.std():.4f} |"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]
    head = f"""# SD 1.5 at full size against diffusers

Made by `python tools/parity_sd15.py FOLDER --out docs/parity/sd15.md`; the folder by `refdiff synth sd15 FOLDER`.

- Model {fingerprint(folder)[:12]}: float32, 64x64 latents, batch 2 (guidance {GUIDANCE}), DDIM, {STEPS} steps
- First latents: SEED = {SEED}, `numpy.random.default_rng(SEED).standard_normal((1, 4, 64, 64))`
- Prompt: {PROMPT!r}; negative prompt: {NEGATIVE!r}
- {versions}; {platform.machine()}, Python {platform.python_version()}

**Final latents: relative L2 error {error(ours[-1], theirs[-1]):.2e}; at most {BOUND:.0e} is allowed.**

| after step | relative L2 error | largest difference | deviation of the latents |
|---|---|---|---|
"""
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
