"""Cases of the conformance suite for what stands beside the networks: prompts, noise, pictures, second runs, other families.

Each came with a bug that no case before it could see: tools/suite_matrix.py shows which case sees which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refdiff.golden.cases import NEGATIVE, PROMPT, SAMPLERS, SD, Case, normal, weights
from refdiff.models import clip_text, transformer

END = "<|endoftext|>"
ACCENTS = ["\u00e9 cafe\u0323\u0308 zx\u0323\u0308,", "na\u00efve \u0130stanbul stra\u00dfe"]
PROMPTS: Mapping[str, list[str]] = {
    "everyday": ["", PROMPT, NEGATIVE, "masterpiece, (best quality:1.2), [[blurry]], 8k uhd, f/1.8, 85mm", "a  cat\tand\na dog "],
    "case-and-digits": ["A RED Circle's 2024", "they're we've I'm you'll DON'T", "'sx 're rock 'n' roll", "1920x1080 3.14 r2d2"],
    "letters": [*ACCENTS, "\u72d0 \U0001f98a \u0444\u043e\u043a\u0441"],
    "long": ["green square " * 45, "red " * 75, "red " * 74, "xkqzjw vbnmrtp qqqqq " * 20],
}


def more_cases() -> Iterator[Case]:
    """All of them, by level."""
    yield from family_cases()
    yield from block_cases()
    yield from component_cases()
    yield from sampler_cases()
    yield from loop_cases()


def family_cases() -> Iterator[Case]:
    """L0: single formulas of SDXL, LoRA, ControlNet and of an autoencoder that works in tiles."""
    sizes = np.array([[768, 1024, 0, 0, 960, 1024], [768, 1024, 16, 48, 960, 1024]], np.float32)
    pooled, levels = normal("sdxl/pooled", 2, 8), np.rint(np.abs(normal("controlnet/levels", 1, 16, 8, 3, scale=90.0)))
    lora = {"weight": normal("lora/weight", 6, 5), "down": normal("lora/down", 2, 5), "up": normal("lora/up", 6, 2)}
    two = {"first": normal("sdxl/first", 2, 5, 6), "second": normal("sdxl/second", 2, 5, 8)}
    latents = {"latents": normal("controlnet/latents", 1, 4, 2, 3)}
    given: Mapping[str, tuple[Mapping[str, np.ndarray], Mapping[str, Any]]] = {
        "sdxl/projection": ({"pooled": pooled, "weight": normal("sdxl/weight", 8, 8)}, {}),
        "sdxl/two-encoders": (two, {}),
        "sdxl/time-ids": ({"sizes": sizes, "pooled": pooled}, {"width": 16}),
        "lora/merged": (lora, {"alpha": 3.0}),
        "controlnet/hint": ({"levels": np.minimum(levels, 255.0)}, {}),
        "controlnet/input": (latents, {"scheduler": SAMPLERS["euler"], "steps": 5, "step": 2}),
        "tiles/row": ({"tiles": normal("tiles", 3, 3, 8, 12)}, {"overlap": 4}),
    }
    for name, (inputs, constants) in given.items():
        yield Case(f"L0/{name}", "piece", {"piece": name, **constants}, inputs)


def block_cases() -> Iterator[Case]:
    """L1: scores of attention too large for a softmax that subtracts no maximum; the activation of Stable Diffusion 2's texts."""
    inputs = {"x": normal("x", 2, 8, 5, 6), "context": normal("context", 2, 7, 12)}
    loud = weights("loud", transformer.spatial_transformer_params(8, 12))
    for name in ("to_q", "to_k"):
        loud[f"weights/transformer_blocks.0.attn1.{name}.weight"] *= np.float32(12.0)
    yield Case("L1/unet/transformer-loud", "block", {"block": "transformer"}, {**inputs, **loud})
    text = weights("text-gelu", clip_text.encoder_layer_params(12, 24))
    constants = {"block": "text", "hidden_act": "gelu"}
    yield Case("L1/sd2/text-layer", "block", constants, {"x": normal("text", 2, 7, 12), **text})


def component_cases() -> Iterator[Case]:
    """L2: the tokenizer; an id behind the end token, as textual inversion adds; latents too large for float16."""
    for name, prompts in PROMPTS.items():
        yield Case(f"L2/tokens/{name}", "tokens", {"model": "tiny", "prompts": prompts, "pad": END}, {})
    everyday = {"model": "tiny", "prompts": PROMPTS["everyday"], "pad": "!"}
    yield Case("L2/sd2/tokens", "tokens", everyday, {})
    ids = np.full((2, 77), 49407, np.int64)
    ids[:, 0], ids[0, 1:4], ids[1, 1:5] = 49406, (320, 49408, 537), (49408, 4254, 49408, 525)
    inputs = {"ids": ids, "added": normal("L2/added", 1, 24)}
    yield Case("L2/textual-inversion", "text_encoder", {"model": "tiny"}, inputs)
    yield Case("L2/vae/decode-large", "decode", {"model": "tiny"}, {"z": normal("L2/z-large", 1, 4, 6, 5, scale=3e5)})


MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler", **SD, "final_sigmas_type": "sigma_min"}
MORE_SAMPLERS: Mapping[str, Mapping[str, Any]] = {
    "ddim-linspace": {**SAMPLERS["ddim"], "timestep_spacing": "linspace"},
    "ddim-linear-betas": {**SAMPLERS["ddim"], "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "dpmpp-2m-to-sigma-min": MULTISTEP,
    "dpmpp-2m-not-lowered": {**MULTISTEP, "lower_order_final": False},
}


def sampler_cases() -> Iterator[Case]:
    """L3: options of schedulers, guidance below 1, and a second run of one sampler."""
    x, shape = normal("again/x", 2, 4, 3, 5), (2, 4, 3, 5)
    for name, config in MORE_SAMPLERS.items():
        yield Case(f"L3/{name}/tables-7", "tables", {"scheduler": config, "steps": 7}, {})
        inputs = {"x": normal(f"{name}/x", *shape), "predictions": normal(f"{name}/p", 5, *shape)}
        inputs["noise"] = normal(f"{name}/noise", 5, *shape)
        yield Case(f"L3/{name}/run-5", "run", {"scheduler": config, "steps": 5}, inputs)
    for name, calls in (("pndm", 6), ("dpmpp-2m", 5)):
        inputs = {"x": x, "predictions": normal(f"again/{name}", calls, 2, 4, 3, 5)}
        yield Case(f"L3/again/{name}", "again", {"scheduler": SAMPLERS[name], "steps": 5}, inputs)
    guidance = {"unconditional": normal("uncond", 2, 4, 3, 5), "conditional": normal("cond", 2, 4, 3, 5)}
    yield Case("L3/guidance-below-1", "guidance", {"scale": 0.5}, guidance)


def loop_cases() -> Iterator[Case]:
    """L3: the numbers that are drawn, and the way from a picture to the latents that image to image begins with."""
    drawn = {"rng": "torch", "seeds": [3, 2**32 + 5], "shapes": [[2, 4, 5, 7], [2, 4, 5, 7], [2, 1, 3, 3]]}
    yield Case("L3/noise/torch", "noise", drawn, {})
    levels = np.clip(np.rint(normal("picture", 2, 16, 8, 3, scale=80.0, offset=128.0)), 0.0, 255.0).astype(np.uint8)
    yield Case("L3/image-to-image/picture", "picture", {}, {"levels": levels})
    shape = (2, 4, 3, 5)
    posterior = {"mean": normal("posterior/mean", *shape), "logvar": normal("posterior/logvar", *shape, offset=-1.0)}
    posterior["noise"] = normal("posterior/noise", *shape)
    yield Case("L3/image-to-image/posterior", "posterior", {"scaling_factor": 0.18215}, posterior)
    for name in ("ddim", "euler", "dpmpp-2m-karras"):
        inputs = {"x": normal("start/x", *shape), "noise": normal("start/noise", *shape)}
        constants = {"scheduler": SAMPLERS[name], "steps": 5, "start": 2}
        yield Case(f"L3/image-to-image/start-{name}", "start", constants, inputs)
