"""A port for the conformance suite that is diffusers itself: python -m tools.runner_diffusers

Needs the `parity` extra. Speaks the protocol of docs/golden/protocol.md; the model of `refdiff synth tiny` is made when the first
case needs it. Try it: refdiff conformance --runner "python -m tools.runner_diffusers"
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.utils import logging

from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.golden.runner import Unsupported, serve
from refdiff.text import Tokenizer
from tools.upstream import beside, blocks, families, ops, samplers, whole

Tensors = Mapping[str, np.ndarray]
ALONE: Mapping[str, Callable[..., dict[str, Any]]] = {
    "op": ops.op, "block": blocks.block, "guidance": ops.guidance, "pixels": ops.pixels, "tables": samplers.tables,
    "run": samplers.run, "noise": beside.noise, "picture": beside.picture, "posterior": beside.posterior, "start": beside.start,
    "again": beside.again, "piece": families.piece,
}  # fmt: skip
OF_A_MODEL: Mapping[str, Callable[..., dict[str, Any]]] = {
    "text_encoder": whole.text_encoder, "unet": whole.unet, "decode": whole.decode, "encode": whole.encode,
    "trajectory": whole.trajectory, "image": whole.image, "tokens": beside.tokens,
}  # fmt: skip


def run(case: Mapping[str, Any], inputs: Tensors, *, precision: torch.dtype) -> dict[str, np.ndarray]:
    """What upstream gives for a case in that precision.

    Raises: BadRequest where diffusers refuses, Unsupported for a kind of case or a model that is not known here
    """
    x = {name: torch.from_numpy(np.array(a)) for name, a in inputs.items()}
    x = {name: a.to(precision) if a.is_floating_point() else a for name, a in x.items()}
    kind, constants = case["kind"], case["constants"]
    with torch.no_grad():
        if kind in ALONE:
            made = ALONE[kind](x, constants)
        elif kind in OF_A_MODEL and constants["model"] == "tiny":
            made = OF_A_MODEL[kind](x, constants, tiny(precision))
        else:
            raise Unsupported(f"no {kind} of {constants.get('model', 'that kind')} here")
    return {name: np.asarray(a) for name, a in made.items()}


@cache
def tiny(precision: torch.dtype) -> diffusers.StableDiffusionPipeline:
    """diffusers' pipeline with the weights of `refdiff synth tiny`."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        write_synthetic("tiny", model, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
        return whole.opened(model, precision)


def quiet() -> None:
    """One thread, and no warnings of what is meant here."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()


if __name__ == "__main__":
    quiet()
    serve(
        lambda case, inputs: run(case, inputs, precision=torch.float32),
        about={"name": "diffusers", "version": diffusers.__version__},
        can={"kinds": [*ALONE, *OF_A_MODEL]},
    )
