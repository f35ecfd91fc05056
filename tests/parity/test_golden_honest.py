"""No false alarm: programs that are right, in other ways than ours, have no tensor that fails.

The bounds are those of compare.py, for golden traces without any of their own. Half precision is judged in its own class.
"""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import refdiff
import refdiff.kernels.cpu
from refdiff.golden.added import added_errors
from refdiff.golden.compare import FAIL, PASS, aligned, compare
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting
from tests.parity.golden import captured, opened

ASKED = {"prompt": "a red circle", "negative_prompt": "", "steps": 2, "guidance": 5.0, "eta": 0.0, "seed": 0}
LARGE = {"width": 96, "height": 64}
TWO = {"prompt": ["a red circle", "seven small stars, seen from above"], "negative_prompt": "blue", "seed": 11}
EULER, DPM = {"sampler": "euler", "eta": None}, {"sampler": "DPMSolverMultistepScheduler", "eta": None}
CLASSES = {"euler": "EulerDiscreteScheduler", "DPMSolverMultistepScheduler": "DPMSolverMultistepScheduler"}
# What is asked, the precision, what is done to diffusers' pipeline before.
RUNS = {
    "as it is": ({}, "float32", ""),
    "plain attention": ({}, "float32", "plain"),
    "torch's own attention": ({}, "float32", "fused"),
    "attention in slices": ({}, "float32", "sliced"),
    "channels last": ({}, "float32", "channels last"),
    "channels last, plain attention": (LARGE, "float32", "channels last, plain"),
    "two threads": (LARGE, "float32", "two threads"),
    "two threads, channels last": (TWO, "float32", "two threads, channels last"),
    "two prompts": (TWO, "float32", ""),
    "two prompts, slices": (TWO | LARGE, "float32", "sliced"),
    "odd sizes": ({"width": 72, "height": 80, "seed": 5}, "float32", ""),
    "a long prompt": ({"prompt": "a very large red circle " * 30, "seed": 9}, "float32", ""),
    "no prompt": ({"prompt": "", "seed": 2}, "float32", ""),
    "strong guidance": ({"guidance": 12.0, "seed": 3}, "float32", ""),
    "three steps": ({"steps": 3, "seed": 4}, "float32", ""),
    "fresh noise": ({"eta": 1.0, "seed": 6}, "float32", ""),
    "Euler": (EULER, "float32", ""),
    "DPM++ 2M": (DPM | {"steps": 4}, "float32", ""),
    "float16": ({}, "float16", ""),
    "float16, plain attention": (LARGE, "float16", "plain"),
    "bfloat16": ({}, "bfloat16", ""),
    "bfloat16, channels last": (LARGE | {"seed": 8}, "bfloat16", "channels last"),
}


def prepared(folder: Path, precision: str, how: str):
    """diffusers' pipeline, changed in ways that change no result."""
    pipe = opened(folder, precision)
    if "plain" in how:
        pipe.unet.set_attn_processor(AttnProcessor())
    if "fused" in how:
        pipe.unet.set_attn_processor(AttnProcessor2_0())
    if "sliced" in how:
        pipe.enable_attention_slicing(1)
    if "channels last" in how:
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def recorded(pipe, asked):
    """A golden trace of what is asked."""
    given = {name: value for name, value in {**ASKED, **asked}.items() if value is not None}
    return record(pipe, detail="layers", **given)


def failing(pipe, theirs, golden) -> list[str]:
    """The tensors that fail by added error."""
    setting = Setting.of(pipe, golden.manifest["inputs"])
    report = compare(theirs, golden, added=added_errors(setting, aligned(theirs, golden), golden))
    assert report.count(PASS) > 400
    return [f"{row.name} {row.kind} {row.added} > {row.bound} {row.note}" for row in report.rows if row.outcome == FAIL]


@pytest.mark.parametrize("name", RUNS)
def test_an_honest_run_of_upstream(folder, pipe, name):
    asked, precision, how = RUNS[name]
    golden = recorded(pipe, asked)
    theirs = prepared(folder, precision, how)
    if asked.get("sampler"):
        theirs.scheduler = getattr(diffusers, CLASSES[asked["sampler"]]).from_config(dict(pipe.scheduler))
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if "two threads" in how else 1)
    try:
        trace = captured(theirs, golden, calls=(0,))
    finally:
        torch.set_num_threads(threads)
    assert failing(pipe, trace, golden) == []


@pytest.mark.parametrize("kernels", ["spec", "fast"])
def test_an_honest_run_of_our_own(folder, pipe, kernels):
    golden = recorded(pipe, LARGE)
    narrow = refdiff.load(folder, dtype="float32", kernels=kernels)
    assert failing(pipe, recorded(narrow, LARGE), golden) == []
