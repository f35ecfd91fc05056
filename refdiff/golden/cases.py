"""The cases of the conformance suite: what each computes, from which inputs, by our own text.

Levels: L0 ops, L1 blocks, L2 components, L3 schedules and steps of samplers (no network), L4 trajectories, L5 images. A case has
an id that never changes its meaning, all the inputs that it needs as tensors, and constants as JSON; what a port must give is
in its outputs. Weights of blocks are inputs too; components and trajectories use the checkpoint of `refdiff synth tiny`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.checkpoints.generator import SPREAD, centred_integers
from refdiff.core.params import Declaration, flatten_declaration
from refdiff.models import clip_text, transformer, unet, vae
from refdiff.samplers import from_config

Tensors = Mapping[str, np.ndarray]
LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5")


@dataclass(frozen=True)
class Case:
    """One case: `kind` says what is computed, with these constants, of these inputs."""

    id: str
    kind: str
    constants: Mapping[str, Any]
    inputs: Tensors

    @property
    def level(self) -> str:
        """L0 to L5."""
        return self.id.partition("/")[0]


def normal(name: str, *shape: int, scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Numbers that belong to a name, nearly normal, the same everywhere: docs/synthetic_weights.md.  Shapes: -> shape, float32"""
    key = int.from_bytes(hashlib.sha256(f"suite/{name}".encode()).digest()[:8], "little")
    whole = centred_integers(key, 0, int(np.prod(shape, dtype=np.int64)))
    return (whole.astype(np.float64) / SPREAD * scale + offset).astype(np.float32).reshape(shape)


def cases() -> Iterator[Case]:
    """Every case, without its outputs."""
    yield from op_cases()
    yield from block_cases()
    yield from component_cases()
    yield from sampler_cases()
    yield from refused_cases()
    yield from whole_cases()
    from refdiff.golden.more_cases import more_cases  # they are made of the parts of this file

    yield from more_cases()


OPS: dict[str, tuple[str, Mapping[str, tuple[int, ...]], Mapping[str, Any]]] = {
    "linear/bias": ("linear", {"x": (2, 5, 6), "weight": (7, 6), "bias": (7,)}, {}),
    "linear/square": ("linear", {"x": (2, 5, 6), "weight": (6, 6), "bias": (6,)}, {}),
    "conv2d/3x3": ("conv2d", {"x": (2, 3, 5, 7), "weight": (4, 3, 3, 3), "bias": (4,)}, {"stride": 1, "padding": (1, 1, 1, 1)}),
    "conv2d/1x1": ("conv2d", {"x": (2, 3, 5, 7), "weight": (4, 3, 1, 1), "bias": (4,)}, {"stride": 1, "padding": (0, 0, 0, 0)}),
    "conv2d/down": ("conv2d", {"x": (2, 3, 5, 8), "weight": (4, 3, 3, 3), "bias": (4,)}, {"stride": 2, "padding": (1, 1, 1, 1)}),
    "conv2d/down-one-side": (
        "conv2d", {"x": (2, 3, 6, 8), "weight": (4, 3, 3, 3), "bias": (4,)}, {"stride": 2, "padding": (0, 1, 0, 1)},
    ),
    "group_norm/eps-1e-6": ("group_norm", {"x": (2, 8, 3, 5), "weight": (8,), "bias": (8,)}, {"groups": 4, "eps": 1e-6}),
    "group_norm/small-variance": (
        "group_norm", {"x*0.003": (2, 8, 3, 5), "weight": (8,), "bias": (8,)}, {"groups": 4, "eps": 1e-5},
    ),
    "layer_norm/eps-1e-5": ("layer_norm", {"x": (2, 5, 8), "weight": (8,), "bias": (8,)}, {"eps": 1e-5}),
    "layer_norm/small-variance": ("layer_norm", {"x*0.003": (2, 5, 8), "weight": (8,), "bias": (8,)}, {"eps": 1e-5}),
    "silu": ("silu", {"x*3": (3, 40)}, {}),
    "gelu": ("gelu", {"x*2": (3, 40)}, {}),
    "quick_gelu": ("quick_gelu", {"x*2": (3, 40)}, {}),
    "geglu": ("geglu", {"x*2": (2, 5, 16)}, {}),
    "softmax": ("softmax", {"x*4": (3, 11)}, {}),
    "softmax/large": ("softmax", {"x*300": (3, 11)}, {}),
    "attention/self": (
        "attention", {"q": (2, 5, 12), "k": (2, 5, 12), "v": (2, 5, 12)}, {"heads": 2, "scale": 6**-0.5, "causal": False},
    ),
    "attention/cross": (
        "attention", {"q": (2, 6, 12), "k": (2, 4, 12), "v": (2, 4, 12)}, {"heads": 3, "scale": 0.5, "causal": False},
    ),
    "attention/causal": (
        "attention", {"q": (2, 5, 12), "k": (2, 5, 12), "v": (2, 5, 12)}, {"heads": 2, "scale": 6**-0.5, "causal": True},
    ),
    "upsample_nearest": ("upsample_nearest", {"x": (2, 3, 3, 4)}, {"height": 6, "width": 8}),
}  # fmt: skip


def op_cases() -> Iterator[Case]:
    """L0."""
    for name, (op, shapes, constants) in OPS.items():
        inputs = {}
        for what, shape in shapes.items():
            short, _, scale = what.partition("*")
            gain = short == "weight" and len(shape) == 1
            size, offset = (0.2, 1.0) if gain else (float(scale or 1), 0.0)
            inputs[short] = normal(f"{name}/{short}", *shape, scale=size, offset=offset)
        yield Case(f"L0/{name}", "op", {"op": op, **constants}, inputs)
    for flip, shift, times in ((True, 0.0, (1.0, 981.0, 500.5)), (False, 1.0, (0.0, 999.0, 7.25))):
        constants = {"op": "timestep_embedding", "width": 16, "flip_sin_to_cos": flip, "freq_shift": shift, "max_period": 10000.0}
        name = "L0/timestep_embedding/" + ("cosines-first" if flip else "sines-first-shifted")
        yield Case(name, "op", constants, {"t": np.array(times, np.float32)})


BLOCK_CONFIG = {
    "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "attention_head_dim": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 12, "norm_num_groups": 4, "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0, "sample_size": 8,
}  # fmt: skip
VAE_CONFIG = {
    "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 4, "scaling_factor": 0.18215, "sample_size": 16,
}  # fmt: skip
TEXT_CONFIG = {
    "vocab_size": 99, "hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": 9, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "eos_token_id": 2,
}  # fmt: skip


def weights(prefix: str, declaration: Declaration) -> dict[str, np.ndarray]:
    """Weights of a block as inputs: nothing trivial, no gain of 1."""
    found = {}
    for name, leaf in flatten_declaration(declaration).items():
        scale = leaf.fan_in**-0.5 if leaf.init in ("weight", "embedding") and len(leaf.shape) > 1 else 0.2
        offset = 1.0 if leaf.init == "gain" else 0.0
        found[f"weights/{name}"] = normal(f"{prefix}/{name}", *leaf.shape, scale=scale, offset=offset)
    return found


def block_cases() -> Iterator[Case]:
    """L1: each with its weights, two images, sizes that are not square."""
    x, temb, context = normal("x", 2, 8, 5, 6), normal("temb", 2, 32), normal("context", 2, 7, 12)
    resnet, wider = unet.resnet_params(8, 8, 32), unet.resnet_params(8, 16, 32)
    attends = transformer.spatial_transformer_params(8, 12)
    down = unet.block_params([8], 8, 32, 12, "downsamplers")
    up = unet.block_params([16], 8, 32, 12, "upsamplers")
    text = clip_text.encoder_layer_params(12, 24)
    given = {"x": x, "temb": temb}
    yield Case("L1/unet/resnet", "block", {"block": "resnet"}, {**given, **weights("resnet", resnet)})
    yield Case("L1/unet/resnet-wider", "block", {"block": "resnet"}, {**given, **weights("wider", wider)})
    yield Case("L1/unet/transformer", "block", {"block": "transformer"}, {"x": x, "context": context, **weights("tf", attends)})
    yield Case("L1/unet/down", "block", {"block": "down"}, {**given, "context": context, **weights("down", down)})
    skip = {"skip": normal("skip", 2, 8, 5, 6)}
    yield Case(
        "L1/unet/up-odd", "block", {"block": "up", "size": [9, 11]}, {**given, "context": context, **skip, **weights("up", up)}
    )
    time = {"linear_1": unet.linear_params(8, 32, bias=True), "linear_2": unet.linear_params(32, 32, bias=True)}
    yield Case("L1/unet/time", "block", {"block": "time"}, {"t": np.array([981.0, 20.5], np.float32), **weights("time", time)})
    yield Case("L1/text/layer", "block", {"block": "text"}, {"x": normal("text", 2, 7, 12), **weights("text", text)})
    yield Case("L1/vae/resnet", "block", {"block": "vae-resnet"}, {"x": x, **weights("vr", vae.resnet_params(8, 16))})
    yield Case("L1/vae/attention", "block", {"block": "vae-attention"}, {"x": x, **weights("va", vae.attention_block_params(8))})


def component_cases() -> Iterator[Case]:
    """L2, on the weights of `refdiff synth tiny`."""
    ids = np.full((2, 77), 49407, np.int64)
    ids[:, 0], ids[0, 1:5], ids[1, 1:9] = 49406, (320, 736, 4918, 537), (550, 4254, 2368, 525, 320, 10789, 267, 1125)
    yield Case("L2/text_encoder", "text_encoder", {"model": "tiny"}, {"ids": ids})
    context = normal("L2/context", 2, 77, 24)
    for name, size in (("even", (16, 24)), ("odd", (9, 13))):
        inputs = {"x": normal(f"L2/{name}", 2, 4, *size), "t": np.array([981.3, 20.5], np.float32), "context": context}
        yield Case(f"L2/unet/{name}", "unet", {"model": "tiny"}, inputs)
    yield Case("L2/vae/decode", "decode", {"model": "tiny"}, {"z": normal("L2/z", 1, 4, 6, 5)})
    yield Case("L2/vae/encode", "encode", {"model": "tiny"}, {"x": np.tanh(normal("L2/image", 1, 3, 32, 24))})


SD = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "num_train_timesteps": 1000,
}  # fmt: skip
SAMPLERS: dict[str, Mapping[str, Any]] = {
    "ddim": {"_class_name": "DDIMScheduler", **SD, "clip_sample": False, "set_alpha_to_one": False},
    "ddim-v": {"_class_name": "DDIMScheduler", **SD, "clip_sample": False, "prediction_type": "v_prediction"},
    "pndm": {"_class_name": "PNDMScheduler", **SD, "skip_prk_steps": True, "set_alpha_to_one": False},
    "euler": {"_class_name": "EulerDiscreteScheduler", **SD, "timestep_spacing": "leading"},
    "euler-trailing": {"_class_name": "EulerDiscreteScheduler", **SD, "timestep_spacing": "trailing"},
    "euler-ancestral": {"_class_name": "EulerAncestralDiscreteScheduler", **SD, "timestep_spacing": "leading"},
    "heun": {"_class_name": "HeunDiscreteScheduler", **SD},
    "lms-karras": {"_class_name": "LMSDiscreteScheduler", **SD, "use_karras_sigmas": True},
    "dpmpp-2m": {"_class_name": "DPMSolverMultistepScheduler", **SD},
    "dpmpp-2m-karras": {"_class_name": "DPMSolverMultistepScheduler", **SD, "use_karras_sigmas": True},
    "dpmpp-2m-sde": {"_class_name": "DPMSolverMultistepScheduler", **SD, "algorithm_type": "sde-dpmsolver++"},
    "unipc": {"_class_name": "UniPCMultistepScheduler", **SD},
    "deis": {"_class_name": "DEISMultistepScheduler", **SD},
    "ddpm": {"_class_name": "DDPMScheduler", **SD, "clip_sample": False},
    "lcm": {"_class_name": "LCMScheduler", **SD, "clip_sample": False},
    "flow-euler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
}
COUNTS = (1, 2, 7, 20)


def sampler_cases() -> Iterator[Case]:
    """L3: tables, and a run of given predictions with given noise."""
    for name, config in SAMPLERS.items():
        for steps in COUNTS:
            if not (name == "lcm" and steps > 7):
                yield Case(f"L3/{name}/tables-{steps}", "tables", {"scheduler": config, "steps": steps}, {})
        steps = 5
        calls = len(from_config(config).timesteps(steps))
        inputs = {"x": normal(f"{name}/x", 2, 4, 3, 5), "predictions": normal(f"{name}/p", calls, 2, 4, 3, 5)}
        inputs["noise"] = normal(f"{name}/noise", steps, 2, 4, 3, 5)
        yield Case(f"L3/{name}/run-5", "run", {"scheduler": config, "steps": steps}, inputs)
    guidance = {"unconditional": normal("uncond", 2, 4, 3, 5), "conditional": normal("cond", 2, 4, 3, 5)}
    yield Case("L3/guidance", "guidance", {"scale": 7.5}, guidance)
    yield Case("L3/pixels", "pixels", {}, {"x": normal("pixels", 2, 3, 9, 7, scale=0.7)})


REFUSALS = {
    "L3/refuse/no-steps": ({"steps": 0, "scheduler": SAMPLERS["ddim"]}, "a run has at least one step"),
    "L3/refuse/too-many-steps": ({"steps": 1001, "scheduler": SAMPLERS["ddim"]}, "there are 1000 training times"),
    "L3/refuse/unknown-schedule": (
        {"steps": 5, "scheduler": {**SAMPLERS["ddim"], "beta_schedule": "cubic"}}, "there is no beta_schedule of that name",
    ),
    "L3/refuse/unknown-prediction": (
        {"steps": 5, "scheduler": {**SAMPLERS["ddim"], "prediction_type": "guess"}}, "there is no prediction_type of that name",
    ),
    "L3/refuse/unknown-scheduler": ({"steps": 5, "scheduler": {"_class_name": "NoSuchScheduler"}}, "there is no such class"),
}  # fmt: skip


def refused_cases() -> Iterator[Case]:
    """Requests that must be refused, not guessed at."""
    for name, (constants, _) in REFUSALS.items():
        yield Case(name, "tables", constants, {})


PROMPT, NEGATIVE = "a photograph of a small red fox, 35 mm", "blurry, low quality"


def whole_cases() -> Iterator[Case]:
    """L4 and L5, on the weights of `refdiff synth tiny`: the ids and the first latents are given."""
    latents = normal("L4/latents", 1, 4, 12, 10)
    asked = {"model": "tiny", "steps": 4, "guidance": 7.5, "prompt": PROMPT, "negative_prompt": NEGATIVE}
    for name in ("ddim", "euler", "dpmpp-2m-karras", "pndm"):
        yield Case(f"L4/{name}", "trajectory", {**asked, "scheduler": SAMPLERS[name]}, {"latents": latents})
    yield Case("L5/ddim", "image", {**asked, "scheduler": SAMPLERS["ddim"]}, {"latents": latents})
