"""What our own text gives for a case of the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff import ops
from refdiff.core.params import tree
from refdiff.diffusion.guidance import guide
from refdiff.errors import BadRequest
from refdiff.golden.cases import BLOCK_CONFIG, TEXT_CONFIG, VAE_CONFIG, Case, Tensors
from refdiff.golden.recording import record
from refdiff.models import clip_text, transformer, unet, vae
from refdiff.pipelines.text_to_image import Pipeline, levels
from refdiff.samplers import from_config


class GivenNoise:
    """The draws of a run, one after the other."""

    def __init__(self, draws: np.ndarray):
        self.draws = iter(draws)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next draw."""
        return next(self.draws).reshape(shape)


def run_case(case: Case, pipe: Pipeline | None, *, dtype: str) -> dict[str, np.ndarray]:
    """What our text gives for a case, in that precision.

    `pipe`: the model of `refdiff synth tiny`, for levels that have one
    Raises: BadRequest where it is needed and not there
    """
    if case.constants.get("model") and pipe is None:
        raise BadRequest(f"{case.id} needs the model of `refdiff synth tiny`")
    x = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in case.inputs.items()}
    made = RUNS[case.kind](case, x, pipe)
    return {name: np.asarray(a) for name, a in made.items()}


def _op(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    constants = {key: value for key, value in case.constants.items() if key != "op"}
    if case.constants["op"] == "timestep_embedding":
        constants["dtype"] = x["t"].dtype
    return {"out": getattr(ops, case.constants["op"])(*x.values(), **constants)}


def _block(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    p = tree({name.removeprefix("weights/"): a for name, a in x.items() if name.startswith("weights/")})
    config = unet.UNetConfig.from_dict(BLOCK_CONFIG)
    kind, context, heads = case.constants["block"], x.get("context"), 4
    if kind == "down":
        out, skips = unet.down_block(p, config, x["x"], x["temb"], context, heads=heads)
        return {"out": out, **{f"skip{i}": skip for i, skip in enumerate(skips)}}
    if kind == "up":
        size = tuple(case.constants["size"])
        return {"out": unet.up_block(p, config, x["x"], x["temb"], context, skips=[x["skip"]], size=size, heads=heads)}
    simple: dict[str, Callable[[], Any]] = {
        "resnet": lambda: unet.resnet_block(p, config, x["x"], x["temb"]),
        "transformer": lambda: transformer.spatial_transformer(p, x["x"], context, heads=heads, groups=4),
        "time": lambda: unet.time_embedding(p, config, np.zeros((2, 4, 1, 1), x["t"].dtype), x["t"]),
        "text": lambda: clip_text.encoder_layer(p, clip_text.CLIPTextConfig.from_dict(TEXT_CONFIG), x["x"]),
        "vae-resnet": lambda: vae.resnet_block(p, vae.VAEConfig.from_dict(VAE_CONFIG), x["x"]),
        "vae-attention": lambda: vae.attention_block(p, vae.VAEConfig.from_dict(VAE_CONFIG), x["x"]),
    }
    return {"out": simple[kind]()}


def _text(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    hidden, pooled = clip_text.clip_text(pipe.text_encoder.params, pipe.text_encoder.config, x["ids"])
    return {"hidden": hidden, "pooled": pooled}


def _unet(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    return {"out": unet.unet(pipe.unet.params, pipe.unet.config, x["x"], x["t"], x["context"])}


def _decode(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    return {"out": vae.decode(pipe.vae.params, pipe.vae.config, x["z"])}


def _encode(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    mean, logvar = vae.encode(pipe.vae.params, pipe.vae.config, x["x"])
    return {"mean": mean, "logvar": logvar}


def _tables(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    sampler, steps = from_config(case.constants["scheduler"]), case.constants["steps"]
    return {"timesteps": sampler.timesteps(steps), "sigmas": sampler.sigmas(steps), "initial": np.array(sampler.initial(steps))}


def _run(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    """The times and inputs of the network, and the latent after every step, where it answers with the given predictions."""
    sampler, steps, inputs, times = from_config(case.constants["scheduler"]), case.constants["steps"], [], []

    def model(seen: np.ndarray, t: float) -> np.ndarray:
        inputs.append(seen)
        times.append(t)
        return x["predictions"][len(times) - 1]

    found = [step.x for step in sampler.iterate(model, x["x"], steps, noise=GivenNoise(x["noise"]))]
    return {"times": np.array(times, np.float64), "inputs": np.stack(inputs), "latents": np.stack(found)}


def _guidance(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    return {"out": guide(x["unconditional"], x["conditional"], scale=case.constants["scale"])}


def _pixels(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    return {"out": levels(x["x"])}


def _whole(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, np.ndarray]:
    """A run of the tiny model with the case's scheduler, from the given latents."""
    given = case.constants
    pipe = replace(pipe, scheduler=given["scheduler"])
    height, width = (n * pipe.downscale for n in x["latents"].shape[2:])
    trace = record(
        pipe, given["prompt"], given["negative_prompt"], detail="steps", steps=given["steps"], guidance=given["guidance"],
        latents=x["latents"], width=width, height=height,
    )  # fmt: skip
    return dict(trace.tensors)


def _trajectory(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    found = _whole(case, x, pipe)
    latents = [found[name] for name in found if name.startswith("steps/") and name.endswith("/latents")]
    return {"ids": found["tokens/ids"], "context": found["text_encoder/context"], "latents": np.stack(latents)}


def _image(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    return {"image": _whole(case, x, pipe)["pixels/image"]}


RUNS: Mapping[str, Callable[[Case, Tensors, Any], dict[str, Any]]] = {
    "op": _op, "block": _block, "text_encoder": _text, "unet": _unet, "decode": _decode, "encode": _encode, "tables": _tables,
    "run": _run, "guidance": _guidance, "pixels": _pixels, "trajectory": _trajectory, "image": _image,
}  # fmt: skip
