"""Text to image cut into stages: each takes named tensors and gives named tensors, so that each can be run alone.

The story is that of pipelines/text_to_image.py. A stage that is given another program's tensors is run on those: what it then
gives differs from theirs by the error that was added there, whatever was wrong before.

| stage | takes | gives |
|---|---|---|
| tokens | the prompts | tokens/ids [2B,T], the negative prompts first |
| text_encoder | tokens/ids | text_encoder/(every layer), text_encoder/context [2B,T,D], text_encoder/pooled [2B,D] |
| schedule | | schedule/alphas_cumprod [n], schedule/timesteps, schedule/sigmas |
| noise | the seeds | noise/initial [B,C,h,w] |
| loop | noise/initial, steps/K/guided | latents/initial, steps/K/time, steps/K/input, steps/K/latents [B,C,h,w] |
| steps/K/unet | steps/K/input, steps/K/time, text_encoder/context | steps/K/unet/(every layer), steps/K/prediction [2B,C,h,w] |
| steps/K/guidance | steps/K/prediction | steps/K/guided [B,C,h,w] |
| vae | the last latents | vae/latents, vae/(every layer), vae/image [B,3,H,W] |
| pixels | vae/image | pixels/image [B,H,W,3], whole numbers |

golden/extras.py has stages beside the story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.core import primitive
from refdiff.core.tap import Know, observe
from refdiff.diffusion import guidance
from refdiff.models import clip_text, unet, vae
from refdiff.pipelines import text_to_image
from refdiff.pipelines.request import Request, Streams, make_request
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.samplers import Sampler
from refdiff.xp import Array, array_module, to_device, to_host

Given = Callable[[str], np.ndarray]  # name -> the tensor that a stage takes
Made = Iterator[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """A model and what is asked of it; the same for every stage."""

    pipe: Pipeline
    request: Request
    inputs: Mapping[str, Any]

    @classmethod
    def of(cls, pipe: Pipeline, inputs: Mapping[str, Any]) -> Setting:
        """From what a manifest says was asked.  Raises: BadRequest as the pipeline"""
        options = {key: value for key, value in inputs.items() if key not in ("prompt", "negative_prompt", "extras")}
        return cls(pipe, make_request(pipe, inputs["prompt"], inputs["negative_prompt"], options), inputs)

    @property
    def sampler(self) -> Sampler:
        """Made anew, so that a change of the tables is seen."""
        return text_to_image.sampler_of(self.pipe, self.request)

    @property
    def scales(self) -> tuple[float, ...]:
        """The guidance of each step."""
        request = self.request
        return guidance.scales_of(request.guidance, self.sampler.sigmas(request.steps), interval=request.guidance_interval)

    def array(self, x: np.ndarray) -> Array:
        """A tensor where the model is, real numbers in its precision."""
        return to_device(x.astype(self.pipe.precision) if x.dtype.kind == "f" else x, self.pipe.device)


@dataclass(frozen=True)
class Stage:
    """A part of the story: what it takes, and a function of the setting and of what is given."""

    name: str
    takes: tuple[str, ...]
    run: Callable[[Setting, Given], Made]


def stages_of(setting: Setting) -> list[Stage]:
    """The stages in the order of the story, the loop before the steps of which it is made."""
    count = len(setting.sampler.timesteps(setting.request.steps))  # calls of the network; PNDM and Heun make more than steps
    guided = tuple(f"steps/{k:03d}/guided" for k in range(count))
    found = [
        Stage("tokens", (), tokens), Stage("text_encoder", ("tokens/ids",), text_encoder), Stage("schedule", (), schedule),
        Stage("noise", (), noise), Stage("loop", ("noise/initial", *guided), loop),
    ]  # fmt: skip
    for k in range(count):
        found += step_stages(k)
    last = f"steps/{setting.request.steps - 1:03d}/latents"
    found += [Stage("vae", (last,), decoder), Stage("pixels", ("vae/image",), pixels)]
    from refdiff.golden.extras import stages_of_extras  # they are made of the parts of this file

    return [*found, *stages_of_extras(setting.inputs.get("extras", ()))]


def step_stages(k: int) -> list[Stage]:
    """The network and the guidance of its call k."""
    at = f"steps/{k:03d}"
    takes = (f"{at}/input", f"{at}/time", "text_encoder/context")
    network = Stage(f"{at}/unet", takes, lambda s, given: network_of(s, given, at, k))
    mixing = Stage(f"{at}/guidance", (f"{at}/prediction",), lambda s, given: mixed(s, given, at, k))
    return [network, mixing]


def tokens(setting: Setting, given: Given) -> Made:
    """The ids of the negative prompts, then of the prompts."""
    texts = setting.request.negative + setting.request.prompts
    yield "tokens/ids", np.array([setting.pipe.tokenizer.encode(text).ids for text in texts], dtype=np.int64)


def text_encoder(setting: Setting, given: Given) -> Made:
    """The text transformer."""
    part = setting.pipe.text_encoder
    hidden, pooled = clip_text.clip_text(part.params, part.config, setting.array(given("tokens/ids")))
    yield "text_encoder/context", to_host(hidden)
    yield "text_encoder/pooled", to_host(pooled)


def schedule(setting: Setting, given: Given) -> Made:
    """The tables of the sampler."""
    sampler, steps = setting.sampler, setting.request.steps
    yield "schedule/alphas_cumprod", sampler.alphas
    yield "schedule/timesteps", sampler.timesteps(steps)
    yield "schedule/sigmas", sampler.sigmas(steps)


def noise(setting: Setting, given: Given) -> Made:
    """The first numbers of each picture's stream, or the latents that were given."""
    request = setting.request
    drawn = Streams(request.rng, request.seeds).normal(request.latent_shape)
    yield "noise/initial", drawn if request.latents is None else request.latents


def loop(setting: Setting, given: Given) -> Made:
    """What the sampler makes of the guided predictions."""
    yield from looped(setting, given("noise/initial"), lambda k, x, t: setting.array(given(f"steps/{k:03d}/guided")))


def looped(setting: Setting, first: np.ndarray, predict: Callable[[int, Array, float], Array]) -> Made:
    """The loop around any network: predict(step, its input [B,C,h,w], time) -> the guided prediction."""
    request, seen = setting.request, []

    def model(x: Array, t: float) -> Array:
        at = f"steps/{len(calls):03d}"
        calls.append(t)
        seen.extend([(f"{at}/time", np.array(t)), (f"{at}/input", to_host(x))])
        return predict(len(calls) - 1, x, t)

    calls: list[float] = []
    streams = Streams(request.rng, request.seeds)
    streams.normal(request.latent_shape)  # the first latents have been drawn
    x = setting.array(first)
    yield "latents/initial", to_host(x * setting.sampler.initial(request.steps))
    for step in setting.sampler.iterate(model, x, request.steps, noise=streams):
        yield from seen
        seen.clear()
        yield f"steps/{step.index:03d}/latents", to_host(step.x)


def parted(setting: Setting, k: int) -> tuple[bool, bool]:
    """Whether call k of the network sees the negative prompts, and the prompts."""
    scales = setting.scales
    return guidance.branches(scales[min(k, len(scales) - 1)], phi=setting.request.guidance_rescale)


def network_of(setting: Setting, given: Given, at: str, k: int) -> Made:
    """The U-Net between both texts."""
    part, (negative, positive) = setting.pipe.unet, parted(setting, k)
    x, context = setting.array(given(f"{at}/input")), setting.array(given("text_encoder/context"))
    half = len(context) // 2
    context = context if negative and positive else context[half:] if positive else context[:half]
    x = array_module(x).concatenate([x, x]) if negative and positive else x
    times = np.full(len(x), float(given(f"{at}/time")))
    yield f"{at}/prediction", to_host(unet.unet(part.params, part.config, x, times, context))


def mixed(setting: Setting, given: Given, at: str, k: int) -> Made:
    """Guidance, where both texts were seen."""
    prediction = setting.array(given(f"{at}/prediction"))
    if not all(parted(setting, k)):
        yield f"{at}/guided", to_host(prediction)
        return
    unconditional, conditional = prediction[: len(prediction) // 2], prediction[len(prediction) // 2 :]
    scales, phi = setting.scales, setting.request.guidance_rescale
    guided = guidance.guide(unconditional, conditional, scale=scales[min(k, len(scales) - 1)])
    yield f"{at}/guided", to_host(guidance.rescaled(guided, conditional, phi=phi) if phi > 0.0 else guided)


def decoder(setting: Setting, given: Given) -> Made:
    """The picture of the last latents."""
    part = setting.pipe.vae
    latents = setting.array(given(f"steps/{setting.request.steps - 1:03d}/latents"))
    z = latents / np.asarray(part.config.scaling_factor, dtype=latents.dtype)
    yield "vae/latents", to_host(z)
    yield "vae/image", to_host(vae.decode(part.params, part.config, z))


def pixels(setting: Setting, given: Given) -> Made:
    """Whole levels, rounded half to even."""
    x = given("vae/image")
    yield "pixels/image", text_to_image.levels(x)


class _Enough(Exception):
    """The tensor that was asked for is there."""


def every(name: str) -> bool:
    """All tensors."""
    return True


def run_stage(
    setting: Setting,
    stage: Stage,
    given: Given,
    *,
    replaced: Mapping[str, np.ndarray],
    know: Know | None,
    until: str | None,
    keep: Callable[[str], bool] = every,
) -> dict[str, np.ndarray]:
    """Everything that a stage makes, by name.

    `replaced`: tensors that go on in the place of the stage's own; `know`: parts that need not be run (`core.tap`), named as in
    the model; `until`: a name after which the rest is left out; `keep`: which tensors are kept, so that the rest needs no room.
    """
    made: dict[str, np.ndarray] = {}
    prefix = stage.name

    def see(name: str, x: Array) -> None:
        if keep(f"{prefix}/{name}"):
            made[f"{prefix}/{name}"] = to_host(x)
        if until == f"{prefix}/{name}":
            raise _Enough

    def change(name: str, x: Array) -> Array:
        other = replaced.get(f"{prefix}/{name}")
        return x if other is None or other.shape != x.shape else setting.array(other).astype(x.dtype)

    with primitive.mode(setting.pipe.kernels, setting.pipe.products), observe(see, change=change, know=know):
        try:
            for name, x in stage.run(setting, given):
                made[name] = x
                if name == until:
                    break
        except _Enough:
            pass
    return made
