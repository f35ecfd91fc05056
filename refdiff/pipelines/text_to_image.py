"""From a prompt to a picture: tokens, context, noise, the loop, the decoder.

Source: Rombach et al. 2022 (arXiv 2112.10752), figure 3; diffusers pipeline_stable_diffusion.py for the conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.core import primitive
from refdiff.core.params import Params
from refdiff.diffusion.guidance import branches, guide, rescaled, scales_of
from refdiff.errors import BadRequest, RefdiffError
from refdiff.models.clip_text import clip_text
from refdiff.models.unet import unet
from refdiff.models.vae import decode
from refdiff.pipelines.request import Request, Streams, make_request, recipe_of
from refdiff.pipelines.sampling import chosen_sampler
from refdiff.samplers import Sampler, Step
from refdiff.text import Tokenizer
from refdiff.xp import Array, array_module, to_device, to_host


@dataclass(frozen=True)
class Component:
    """A network's configuration and its weights."""

    config: Any
    params: Params


@dataclass(frozen=True)
class StoredComponent:
    """A network's configuration and its weights, opened each time they are asked for: in memory while somebody uses them."""

    config: Any
    open: Callable[[], Params]

    @property
    def params(self) -> Params:
        """The weights."""
        return self.open()


@dataclass(frozen=True)
class Output:
    """The pictures, their latents [B,C,h,w] on the host, and all that is needed to make them again."""

    images: list
    latents: np.ndarray
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Pipeline:
    """A text-to-image model that is ready to draw; call it with a prompt."""

    tokenizer: Tokenizer
    text_encoder: Component | StoredComponent
    unet: Component | StoredComponent
    vae: Component | StoredComponent
    scheduler: Mapping[str, Any]
    defaults: Mapping[str, Any]
    source: Mapping[str, str]
    device: str
    dtype: str
    kernels: str
    products: str  # what the kernels multiply: float32, or bfloat16 in that dtype where the processor does it

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str = "",
        *,
        callback: Callable[[Step], None] | None = None,
        **options: Any,
    ) -> Output:
        """Draw a picture for each prompt.

        Options: steps, or timesteps or sigmas (a list, or the name of a published one); sampler (any name of
        `refdiff samplers`), guidance (a scale, or one a step), guidance_rescale (phi, 0
        to 1), guidance_interval (two sigmas: guided between them alone), seed (one, or one a picture), rng ("torch", "cuda",
        "numpy"), width, height, latents [B,C,h,w] of unit variance, eta; image to begin with (PIL, path or uint8 [H,W,3]; one,
        or one a picture), strength (0 to 1, what share of the way from noise is made; 0.8), strength_as ("diffusers",
        "webui": how steps are counted). `callback` sees each step.
        Raises: BadRequest for an option that is unknown or that this model cannot meet
        """
        from refdiff.pipelines.image_to_image import image_to_image  # it is told with the parts of this file

        request = make_request(self, prompt, negative_prompt, options)
        story = text_to_image if request.picture is None else image_to_image
        with primitive.mode(self.kernels, self.products):
            for step in story(self, request):
                if callback is not None:
                    callback(step)
            latents = to_host(step.x)
            return Output(pictures(self, latents), latents, recipe_of(self, request))

    @property
    def precision(self) -> str:
        """The dtype of latents: float32 where only weights and products are narrower."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def downscale(self) -> int:
        """Pixels along each side of one latent pixel."""
        return self.vae.config.downscale


def text_to_image(pipe: Pipeline, request: Request) -> Iterator[Step]:
    """The story: every step of the loop is yielded, the last one holds the finished latents.

    Shapes: latents [B,C,h,w] with h = height / f, w = width / f
    Traps: cfg-swap, uncond-zeros, init-sigma, scale-input
    """
    sampler, streams = sampler_of(pipe, request), Streams(request.rng, request.seeds)
    first = streams.normal(request.latent_shape) if request.latents is None else request.latents
    x = to_device(first.astype(pipe.precision), pipe.device)
    yield from denoising(pipe, request, sampler, x, streams, start=0)


def sampler_of(pipe: Pipeline, request: Request) -> Sampler:
    """The sampler that was asked for, or the model's own."""
    return chosen_sampler(pipe.scheduler, name=request.sampler, eta=request.eta, grid=request.grid)


def denoising(pipe: Pipeline, request: Request, sampler: Sampler, x: Array, streams: Streams, *, start: int) -> Iterator[Step]:
    """The loop: every step from `start` on, with the guidance of that step.  Shapes: x [B,C,h,w]"""
    scales = scales_of(request.guidance, sampler.sigmas(request.steps), interval=request.guidance_interval)
    predict = guided_unet(pipe, request, scales)
    index = start  # of the step that is being made

    def network(x: Array, t: float) -> Array:
        return predict(x, t, scales[min(index, len(scales) - 1)])

    for step in sampler.iterate(network, x, request.steps, noise=streams, start=start):
        index = step.index + 1
        yield step


def guided_unet(pipe: Pipeline, request: Request, scales: Sequence[float]) -> Callable[[Array, float, float], Array]:
    """The U-Net between both texts as (x [B,C,h,w], t, scale) -> prediction; a branch that has no part is not computed."""
    phi = request.guidance_rescale
    texts = {(True, False): request.negative, (False, True): request.prompts, (True, True): request.negative + request.prompts}
    wanted = {branches(scale, phi=phi) for scale in scales}
    contexts = {both: encode_text(pipe, texts[both]) for both in wanted}  # [2B,T,D], the unconditional half first, or [B,T,D]

    network = pipe.unet.params  # once for all steps

    def predict(x: Array, t: float, scale: float) -> Array:
        xp = array_module(x)
        both = branches(scale, phi=phi)
        x = xp.concatenate([x, x]) if all(both) else x
        prediction = unet(network, pipe.unet.config, x, xp.full((len(x),), t), contexts[both])
        if not all(both):
            return prediction
        unconditional, conditional = prediction[: len(x) // 2], prediction[len(x) // 2 :]
        guided = guide(unconditional, conditional, scale=scale)
        return rescaled(guided, conditional, phi=phi) if phi > 0.0 else guided

    return predict


def encode_text(pipe: Pipeline, texts: Sequence[str]) -> Array:
    """Every text as the U-Net attends to it; equal texts are encoded once.  Shapes: B texts -> [B,T,D]"""
    distinct = list(dict.fromkeys(texts))
    ids = np.array([pipe.tokenizer.encode(text).ids for text in distinct], dtype=np.int64)
    hidden, _ = clip_text(pipe.text_encoder.params, pipe.text_encoder.config, to_device(ids, pipe.device))
    rows = [distinct.index(text) for text in texts]
    return array_module(hidden).concatenate([hidden[row : row + 1] for row in rows])


def pictures(pipe: Pipeline, latents: np.ndarray) -> list:
    """Latents as PIL images, decoded one at a time.

    Shapes: [B,C,h,w] -> B pictures of h f by w f
    Raises: RefdiffError if a value is not finite
    Traps: vae-scale, px-trunc, px-range
    """
    from PIL import Image

    images, params = [], pipe.vae.params
    for latent in latents:
        z = to_device(latent[None] / np.asarray(pipe.vae.config.scaling_factor, dtype=latent.dtype), pipe.device)
        x = to_host(decode(params, pipe.vae.config, z))[0]
        if not np.isfinite(x).all():
            raise RefdiffError(
                "the picture is not finite (NaN or infinity): the weights are damaged, the dtype is too narrow for"
                " them, or the guidance is too strong"
            )
        images.append(Image.fromarray(levels(x[None])[0]))
    return images


def levels(x: np.ndarray) -> np.ndarray:
    """A decoded picture in whole levels, rounded half to even.

    Shapes: [B,3,H,W], [-1,1] where it is sound -> [B,H,W,3], 0 to 255
    Traps: px-trunc, px-range
    """
    return np.round(np.clip(x / 2 + 0.5, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(0, 2, 3, 1)


def check_prompt(pipe: Pipeline, prompt: str) -> list[str]:
    """What a person should know about a prompt: the part that is cut off, words that the model was never taught."""
    warnings = []
    cut = pipe.tokenizer.encode(prompt).cut
    if cut:
        warnings.append(f'the prompt is longer than {pipe.tokenizer.max_length} tokens; this part is cut off: "{cut}"')
    unknown = pipe.tokenizer.untaught(prompt)
    if unknown:
        example = pipe.defaults.get("example", "")
        hint = f' (it understands, for example: "{example}")' if example else ""
        warnings.append(f"this model was never taught: {', '.join(unknown)}{hint}")
    return warnings


__all__ = ["BadRequest", "Component", "Output", "Pipeline", "check_prompt", "pictures", "text_to_image"]
