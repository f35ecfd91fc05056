"""What our own text gives for a case of the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from refdiff import ops
from refdiff.core.params import flatten, tree
from refdiff.diffusion import guidance
from refdiff.errors import BadRequest
from refdiff.golden import extras, pieces, stages
from refdiff.golden.cases import BLOCK_CONFIG, TEXT_CONFIG, VAE_CONFIG, Case, Tensors
from refdiff.golden.recording import record
from refdiff.models import clip_text, transformer, unet, vae
from refdiff.pipelines import text_to_image
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.samplers import Sampler
from refdiff.text import Tokenizer


class GivenNoise:
    """The draws of a run, one after the other."""

    def __init__(self, draws: np.ndarray):
        self.draws = iter(draws)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next draw."""
        return next(self.draws).reshape(shape)


def model_of(case: Case, pipe: Pipeline) -> Pipeline:
    """The model of `refdiff synth tiny` as a case wants it."""
    pad = case.constants.get("pad", pipe.tokenizer.settings.pad)
    if pad != pipe.tokenizer.settings.pad:
        right = pipe.tokenizer
        pipe = replace(pipe, tokenizer=Tokenizer(right.vocabulary, replace(right.settings, pad=pad)))
    return replace(pipe, scheduler=case.constants["scheduler"]) if "scheduler" in case.constants else pipe


def run_case(case: Case, pipe: Pipeline | None, *, dtype: str) -> dict[str, np.ndarray]:
    """What our text gives for a case, in that precision.

    `pipe`: what `model_of` says, for cases that have a model
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
    text = {**TEXT_CONFIG, "hidden_act": case.constants.get("hidden_act", TEXT_CONFIG["hidden_act"])}
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
        "text": lambda: clip_text.encoder_layer(p, clip_text.CLIPTextConfig.from_dict(text), x["x"]),
        "vae-resnet": lambda: vae.resnet_block(p, vae.VAEConfig.from_dict(VAE_CONFIG), x["x"]),
        "vae-attention": lambda: vae.attention_block(p, vae.VAEConfig.from_dict(VAE_CONFIG), x["x"]),
    }
    return {"out": simple[kind]()}


def _tokens(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    return {"ids": np.array([pipe.tokenizer.encode(text).ids for text in case.constants["prompts"]], np.int64)}


def _text(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    """With the rows of added words behind the others, where there are any."""
    params, key = pipe.text_encoder.params, "text_model.embeddings.token_embedding.weight"
    if "added" in x:
        values = dict(flatten(params))
        params = tree({**values, key: np.concatenate([values[key], x["added"]])})
    hidden, pooled = clip_text.clip_text(params, pipe.text_encoder.config, x["ids"])
    return {"hidden": hidden, "pooled": pooled}


def _unet(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    return {"out": unet.unet(pipe.unet.params, pipe.unet.config, x["x"], x["t"], x["context"])}


def _decode(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    return {"out": vae.decode(pipe.vae.params, pipe.vae.config, x["z"])}


def _encode(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, Any]:
    mean, logvar = vae.encode(pipe.vae.params, pipe.vae.config, x["x"])
    return {"mean": mean, "logvar": logvar}


def sampler_of(case: Case) -> Sampler:
    """The sampler as the pipeline makes it."""
    pipe: Any = SimpleNamespace(scheduler=case.constants["scheduler"])
    request: Any = SimpleNamespace(sampler=None, eta=None, grid={}, steps=case.constants["steps"])
    return text_to_image.sampler_of(pipe, request)


def _tables(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    sampler, steps = sampler_of(case), case.constants["steps"]
    return {"timesteps": sampler.timesteps(steps), "sigmas": sampler.sigmas(steps), "initial": np.array(sampler.initial(steps))}


def _run(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    """The times and inputs of the network, and the latent after every step, where it answers with the given predictions."""
    sampler, steps, inputs, times = sampler_of(case), case.constants["steps"], [], []

    def model(seen: np.ndarray, t: float) -> np.ndarray:
        inputs.append(seen)
        times.append(t)
        return x["predictions"][len(times) - 1]

    found = [step.x for step in sampler.iterate(model, x["x"], steps, noise=GivenNoise(x["noise"]))]
    return {"times": np.array(times, np.float64), "inputs": np.stack(inputs), "latents": np.stack(found)}


def _again(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    """The last latents of two runs of one sampler, with the same given predictions: equal."""
    sampler, steps = sampler_of(case), case.constants["steps"]

    def drawn() -> np.ndarray:
        predictions = iter(x["predictions"])
        return sampler.sample(lambda seen, t: next(predictions), x["x"], steps)

    return {"first": drawn(), "second": drawn()}


def _guidance(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    if not all(guidance.branches(case.constants["scale"], phi=0.0)):
        return {"out": x["conditional"]}
    return {"out": guidance.guide(x["unconditional"], x["conditional"], scale=case.constants["scale"])}


def _pixels(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    return {"out": text_to_image.levels(x["x"])}


def _noise(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    """Draw after draw, a stream a picture."""
    streams = stages.Streams(case.constants["rng"], case.constants["seeds"])
    return {f"draw{k}": streams.normal(tuple(shape)) for k, shape in enumerate(case.constants["shapes"])}


def _picture(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    return {"out": extras.picture(x["levels"])}


def _posterior(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    return {"latents": vae.posterior_sample(x["mean"], x["logvar"], x["noise"]) * case.constants["scaling_factor"]}


def _start(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    return {"latents": sampler_of(case).add_noise(x["x"], x["noise"], case.constants["steps"], case.constants["start"])}


def _piece(case: Case, x: Tensors, pipe: Any) -> dict[str, Any]:
    """A formula of golden/pieces.py."""
    c = case.constants
    simple: dict[str, Callable[[], Any]] = {
        "sdxl/projection": lambda: pieces.projection(x["pooled"], x["weight"]),
        "sdxl/two-encoders": lambda: pieces.side_by_side(x["first"], x["second"]),
        "sdxl/time-ids": lambda: pieces.told(x["sizes"], x["pooled"]),
        "lora/merged": lambda: pieces.merged(x["weight"], x["down"], x["up"], alpha=c["alpha"]),
        "controlnet/hint": lambda: pieces.hinted(x["levels"]),
        "controlnet/input": lambda: pieces.scaled(x["latents"], float(sampler_of(case).sigmas(c["steps"])[c["step"]])),
        "tiles/row": lambda: pieces.joined(x["tiles"], overlap=c["overlap"]),
    }
    return {"out": simple[c["piece"]]().astype(next(iter(x.values())).dtype)}


def _whole(case: Case, x: Tensors, pipe: Pipeline) -> dict[str, np.ndarray]:
    """A run of the tiny model with the case's scheduler, from the given latents."""
    given = case.constants
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
    "run": _run, "guidance": _guidance, "pixels": _pixels, "trajectory": _trajectory, "image": _image, "tokens": _tokens,
    "again": _again, "noise": _noise, "picture": _picture, "posterior": _posterior, "start": _start, "piece": _piece,
}  # fmt: skip
