"""Capturing programs that are written by hand over diffusers' modules, in another way than its pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refdiff.golden.added import compare_with
from refdiff.golden.capture import capture
from refdiff.golden.compare import FAIL, MISSING, PASS
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting
from tests.parity.golden import opened

ASKED = {"prompt": "a red circle", "steps": 2, "guidance": 5.0, "eta": 0.0, "seed": 1, "width": 80, "height": 72}
NOT_SHOWN = {"text_encoder/pooled", "noise/initial", "latents/initial", "pixels/image", "schedule/sigmas"}


@torch.no_grad()
def text_by_text(theirs, golden, *, first_prompt: bool) -> None:
    """A loop that encodes each text, and calls the U-Net for each, one after the other."""
    inputs, scheduler = golden.manifest["inputs"], theirs.scheduler

    def encoded(text):
        asked = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
        return theirs.text_encoder(theirs.tokenizer(text, **asked).input_ids)[0]

    positive, negative = encoded(inputs["prompt"]), encoded(inputs["negative_prompt"])
    scheduler.set_timesteps(inputs["steps"])
    x = torch.from_numpy(golden.tensors["noise/initial"].astype(np.float32)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t)
        texts = [positive, negative] if first_prompt else [negative, positive]
        made = [theirs.unet(given, t, encoder_hidden_states=text).sample for text in texts]
        conditional, unconditional = made if first_prompt else made[::-1]
        guided = unconditional + inputs["guidance"] * (conditional - unconditional)
        x = scheduler.step(guided, t, x, eta=0.0).prev_sample
    theirs.vae.decode(x / theirs.vae.config.scaling_factor)


@pytest.mark.parametrize("first_prompt", [False, True], ids=["negative first", "prompt first"])
@pytest.mark.parametrize("negative", ["", "blue"])
def test_a_unet_called_for_each_text_apart(folder, pipe, negative, first_prompt):
    golden = record(pipe, negative_prompt=negative, detail="layers", **ASKED)
    theirs = opened(folder, "float32")
    watched = {name: getattr(theirs, name) for name in ("unet", "text_encoder", "vae", "scheduler")}
    with capture(**watched) as trace:
        text_by_text(theirs, golden, first_prompt=first_prompt)
    report = compare_with(Setting.of(pipe, golden.manifest["inputs"]), trace, golden)
    assert [(row.name, row.added, row.note) for row in report.rows if row.outcome == FAIL] == []
    assert report.count(PASS) > 400
    missing = {row.name for row in report.rows if row.outcome == MISSING} - NOT_SHOWN
    assert all(name.endswith(("/guided", "/latents")) for name in missing)
    assert bool(trace.notes) == (negative != "")
