"""refdiff's side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import refdiff.kernels.cpu  # noqa: F401 - registers
from refdiff.core import primitive
from refdiff.models import unet, vae
from refdiff.pipelines.load import conversion, open_on
from refdiff.training.loop import State, update
from refdiff.training.optimizer import flatten_vector
from tools.bench.inputs import TIME, unet_inputs, vae_inputs
from tools.bench.training import SETTINGS, STEPS, unet_task


def prepare(work: str, model: Path, size: int, dtype: str) -> Callable[[], np.ndarray]:
    """A function that does the work once; float64 is done by the specification."""
    primitive.set_mode("spec" if dtype == "float64" else "fast", "bfloat16" if dtype == "bfloat16" else "float32")
    if work == "train":
        return training(model, size)
    convert = conversion(device="cpu", dtype=dtype, widening=dtype != "float64")
    component = open_on(model, work, convert, kept=True)
    config, params = component.config, component.params
    numbers = "float32" if dtype == "bfloat16" else dtype
    if work == "vae":
        latents = vae_inputs(size).astype(numbers)
        return lambda: vae.decode(params, config, latents)
    latents, context = (a.astype(numbers) for a in unet_inputs(size))
    return lambda: unet.unet(params, config, latents, np.array([TIME, TIME]), context)


def training(model: Path, batch_size: int) -> Callable[[], np.ndarray]:
    """A function that makes the next step and gives the losses so far."""
    task = unet_task(model, batch_size)
    first = task.initial()
    shapes = {key: value.shape for key, value in first.items()}
    vector = flatten_vector(first, list(first))
    state = State(0, vector, vector * 0, vector * 0, vector, [])

    def step() -> np.ndarray:
        nonlocal state
        state = update(task, SETTINGS, state, shapes, steps=STEPS, device="cpu")
        return np.array(state.losses)

    return step
