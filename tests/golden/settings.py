"""Tiny models and requests in which every known bug shows, and which bug shows in which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refdiff.core.params import flatten, tree
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.text.settings import SpecialToken
from refdiff.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Case:
    """A model, changed from the tiny one, and what is asked of it."""

    options: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Pipeline], Pipeline] = lambda pipe: pipe
    prompt: Any = "a red circle"
    negative: str = ""


def scheduled(**options: Any) -> Callable[[Pipeline], Pipeline]:
    """With other options of the scheduler."""
    return lambda pipe: replace(pipe, scheduler={**pipe.scheduler, **options})


def padded(pipe: Pipeline) -> Pipeline:
    """Whose texts are padded with the token 0 at a word's end, as Stable Diffusion 2's are with the token 0."""
    right = pipe.tokenizer
    return replace(pipe, tokenizer=Tokenizer(right.vocabulary, replace(right.settings, pad="!")))


def with_a_word(pipe: Pipeline) -> Pipeline:
    """With a token that was added behind the end token, as textual inversion does."""
    settings, number, part = pipe.tokenizer.settings, pipe.tokenizer.vocab_size, pipe.text_encoder
    word = SpecialToken("<cat>", normalised=True, left=False, right=False, alone=False, special=False)
    tokenizer = Tokenizer(pipe.tokenizer.vocabulary, replace(settings, special=(*settings.special, (number, word))))
    values, key = dict(flatten(part.params)), "text_model.embeddings.token_embedding.weight"
    values[key] = np.concatenate([values[key], values[key][:1]])
    changed = replace(part, config=replace(part.config, vocab_size=number + 1), params=tree(values))
    return replace(pipe, tokenizer=tokenizer, text_encoder=changed)


def with_gelu(pipe: Pipeline) -> Pipeline:
    """Whose text encoder has the exact GELU, as Stable Diffusion 2's."""
    part = pipe.text_encoder
    return replace(pipe, text_encoder=replace(part, config=replace(part.config, hidden_act="gelu")))


def scaled(name: str, factor: Callable[[str], float]) -> Callable[[Pipeline], Pipeline]:
    """With the weights of a network times a factor, so that some of its numbers are large."""

    def change(pipe: Pipeline) -> Pipeline:
        part = getattr(pipe, name)
        values = {key: x * x.dtype.type(factor(key)) for key, x in flatten(part.params).items()}
        changed: dict[str, Any] = {name: replace(part, params=tree(values))}
        return replace(pipe, **changed)

    return change


def quiet(pipe: Pipeline) -> Pipeline:
    """With small numbers before the first normalisations, where an epsilon counts."""
    early = ("conv_in.", "down_blocks.0.resnets.0.conv2.")
    pipe = scaled("unet", lambda key: 0.01 if key.startswith(early) else 1.0)(pipe)
    return scaled("text_encoder", lambda key: 0.01 if ".embeddings." in key else 1.0)(pipe)


LOUD = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_"
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
LAST_STEP = {"set_alpha_to_one": False, "_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": "sigma_min"}
WORDS = "A RED Circle's 2024 \u00e9 cafe\u0323\u0308 zx\u0323\u0308, " + "green square " * 45
CASES = {
    "plain": Case(),
    "words": Case(prompt=WORDS, negative="blurry"),
    "padded": Case(change=padded),
    "added": Case(change=with_a_word, prompt="a <cat> here"),
    "gelu": Case(change=with_gelu),
    "two pictures": Case(prompt=["a red circle", "a blue square"]),
    "odd": Case({"width": 36, "height": 44}),
    "linspace": Case({"steps": 3}, scheduled(timestep_spacing="linspace")),
    "pndm": Case({"steps": 3, "extras": ["again"]}, scheduled(_class_name="PNDMScheduler", skip_prk_steps=True)),
    "euler": Case({"steps": 3, "sampler": "euler"}),
    "karras": Case({"steps": 3, "sampler": "Euler Karras"}),
    "ancestral": Case({"steps": 3, "sampler": "euler_ancestral"}),
    "dpm": Case({"steps": 4, "sampler": "dpm_multistep", "extras": ["again"]}),
    "last step": Case({"steps": 4}, scheduled(**LAST_STEP)),
    "velocity": Case(change=scheduled(prediction_type="v_prediction")),
    "half guidance": Case({"guidance": 0.5}),
    "flow": Case(change=lambda pipe: replace(pipe, scheduler=FLOW)),
    "back": Case({"steps": 4, "extras": ["encode"]}),
    "pieces": Case({"extras": ["pieces"]}),
    "quiet": Case({"steps": 1}, quiet),
    "loud": Case({"steps": 1}, scaled("unet", lambda key: 12.0 if key.startswith((f"{LOUD}q", f"{LOUD}k")) else 1.0)),
    "large": Case(change=scaled("vae", lambda key: 3e5 if key == "decoder.conv_in.weight" else 1.0)),
}
