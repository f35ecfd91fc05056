"""Traces of diffusers' own pipeline, for the tests of golden outputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from refdiff.golden.added import added_errors
from refdiff.golden.capture import capture
from refdiff.golden.collected import Captured
from refdiff.golden.compare import aligned
from refdiff.golden.format import Trace
from refdiff.golden.stages import Setting
from refdiff.golden.tolerance import LEAST, bounds
from tests.parity.upstream import exact_sinusoids

PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def opened(folder: Path, precision: str) -> StableDiffusionPipeline:
    """diffusers' pipeline with its scheduler made from the folder's file, which the pipeline's constructor would rewrite."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=PRECISIONS[precision])
    pipe.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def captured(pipe: StableDiffusionPipeline, golden: Trace, *, calls: tuple[int, ...]) -> Captured:
    """A run of diffusers with the inputs of a golden trace; outside float32, where it would draw others, with its first noise."""
    inputs = golden.manifest["inputs"]
    precision = next(pipe.unet.parameters()).dtype
    first = None if precision == torch.float32 else torch.from_numpy(golden.tensors["noise/initial"]).to(precision)
    watched = {name: getattr(pipe, name) for name in ("unet", "text_encoder", "vae", "scheduler")}
    prompts = [inputs["prompt"]] if isinstance(inputs["prompt"], str) else list(inputs["prompt"])
    exact = exact_sinusoids() if precision == torch.float64 else nullcontext()
    with exact, capture(**watched, calls=calls) as trace:
        pipe(
            prompts, negative_prompt=[inputs["negative_prompt"]] * len(prompts), latents=first, **options_of(inputs),
            callback_on_step_end=trace.step_end, output_type="np",
        )  # fmt: skip
    return trace


def options_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, in diffusers' words."""
    words = {"steps": "num_inference_steps", "guidance": "guidance_scale", "width": "width", "height": "height", "eta": "eta"}
    generators = [torch.Generator().manual_seed(seed) for seed in inputs["seed"]]
    return {"generator": generators, **{theirs: inputs[ours] for ours, theirs in words.items() if ours in inputs}}


def bounded(golden: Trace, truth: Setting, honest: Trace) -> Trace:
    """The golden trace with float32 bounds that go by the spread of an honest run."""
    errors = added_errors(truth, aligned(honest, golden), golden)
    tensors = {
        name: {"bounds": {"float32": bounds(max(error, LEAST["float32"]), {})}}
        for name, error in errors.items()
        if honest.tensors[name].dtype == np.float32
    }
    return Trace(golden.tensors, {**golden.manifest, "tensors": tensors})
