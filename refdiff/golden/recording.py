"""Recording a trace: the stages of a run one after the other, each fed by those before it."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from refdiff.errors import BadRequest
from refdiff.golden.format import Trace
from refdiff.golden.stages import Setting, Stage, looped, run_stage, stages_of
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.version import __version__

SUITE_VERSION = "0.2.0"
DETAILS = ("steps", "blocks", "layers")
# What a network is for: its inputs and results.
FINAL = ("context", "pooled", "latents", "image", "picture", "mean", "logvar")
# The tensors between blocks: what `blocks` keeps of a network. A block's last part is the block, and is kept once.
BLOCK = re.compile(
    r"(.*\.)?((resnets|attentions|layers|downsamplers|upsamplers)\.\d+"
    r"|mid_block|conv_in|conv_out|time_proj|time_embedding|embeddings|final_layer_norm|quant_conv|post_quant_conv)"
)


def record(
    pipe: Pipeline,
    prompt: str,
    negative_prompt: str = "",
    *,
    detail: str = "blocks",
    at: Sequence[int] = (0,),
    **options: Any,
) -> Trace:
    """Draw a picture and keep what every stage makes.

    `detail`: "steps" (what goes from stage to stage), "blocks" (and the result of every block of every network) or "layers"
    (and of every layer), for the calls `at` of the U-Net; `options` as the pipeline takes them (steps, sampler, guidance, ...),
    and `extras`: names of groups of stages beside the story (`golden.extras`).
    The precision is the pipeline's: load it with dtype "float64" for the truth.
    Raises: BadRequest for an unknown detail, a call that there is not, or as the pipeline
    """
    if detail not in DETAILS:
        raise BadRequest(f'unknown detail "{detail}": choose one of {", ".join(DETAILS)}')
    inputs = {"prompt": prompt, "negative_prompt": negative_prompt, **options}
    setting = Setting.of(pipe, inputs)
    stages = stages_of(setting)
    calls = sum(stage.name.endswith("/unet") for stage in stages)
    if not all(0 <= k < calls for k in at):
        raise BadRequest(f"calls {list(at)} of the U-Net: this run has calls 0 to {calls - 1}")
    chosen = {f"steps/{k:03d}/unet" for k in at}
    keep = partial(_kept, detail=detail, chosen=chosen)
    made: dict[str, np.ndarray] = {}
    for stage in stages:
        if stage.name == "loop":
            made |= _loop(setting, {s.name: s for s in stages}, made, keep)
        elif not stage.name.startswith("steps/"):
            made |= _whole(setting, stage, made, keep)
    return Trace(made, {"inputs": _plain(setting, inputs), **_facts(pipe)})


Keep = Callable[[str], bool]
Tensors = Mapping[str, np.ndarray]


def _whole(setting: Setting, stage: Stage, made: Tensors, keep: Keep) -> dict[str, np.ndarray]:
    return run_stage(setting, stage, made.__getitem__, replaced={}, know=None, until=None, keep=keep)


def _loop(setting: Setting, stages: Mapping[str, Stage], made: Tensors, keep: Keep) -> dict[str, np.ndarray]:
    """The loop with the network in it."""
    found: dict[str, np.ndarray] = {}

    def predict(k: int, x: Any, t: float) -> Any:
        at = f"steps/{k:03d}"
        known = {**made, **found, f"{at}/input": x, f"{at}/time": np.array(t)}
        found[f"{at}/time"], found[f"{at}/input"] = np.array(t), x
        for name in (f"{at}/unet", f"{at}/guidance"):
            new = _whole(setting, stages[name], known, keep)
            found.update(new)
            known.update(new)
        return setting.array(found[f"{at}/guided"])

    for name, x in looped(setting, made["noise/initial"], predict):
        found.setdefault(name, x)
    return found


def _kept(name: str, *, detail: str, chosen: set[str]) -> bool:
    stage, _, rest = name.rpartition("/")
    if stage.endswith("/unet"):
        if stage not in chosen:
            return False
    elif stage not in ("text_encoder", "vae", "encode") or rest in FINAL:
        return True
    return detail == "layers" or (detail == "blocks" and BLOCK.fullmatch(rest) is not None)


def _plain(setting: Setting, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, with what was left out filled in, as JSON can hold it."""
    request = setting.request
    filled = {
        "steps": request.steps, "sampler": request.sampler, "guidance": request.guidance, "seed": list(request.seeds),
        "rng": request.rng, "width": request.width, "height": request.height, "eta": request.eta,
        "guidance_rescale": request.guidance_rescale,
    }  # fmt: skip
    return {**inputs, **{key: value for key, value in filled.items() if value is not None}}


def _facts(pipe: Pipeline) -> dict[str, Any]:
    return {
        "suite_version": SUITE_VERSION,
        "generator": {"name": "refdiff", "version": __version__, "dtype": pipe.dtype},
        "model": dict(pipe.source),
        "scheduler": dict(pipe.scheduler),
        "about": {
            "kernels": pipe.kernels, "device": pipe.device, "numpy": np.__version__, "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }  # fmt: skip
