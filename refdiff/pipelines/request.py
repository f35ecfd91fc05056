"""What is asked of a pipeline, checked before anything is computed, and the recipe that goes with the result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.pipelines.sampling import GRIDS, chosen_sampler
from refdiff.samplers.listed import numbers
from refdiff.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

OPTIONS = (
    "steps", "sampler", "guidance", "guidance_rescale", "guidance_interval", "seed", "rng", "width", "height", "latents", "eta",
    "image", "strength", "strength_as", *GRIDS,
)  # fmt: skip
LATER = ("mask",)  # in the interface, not built yet


STRENGTH = 0.8  # as diffusers' image-to-image pipeline


@dataclass(frozen=True)
class Request:
    """One call of a pipeline, every option filled in."""

    prompts: tuple[str, ...]
    negative: tuple[str, ...]
    steps: int
    sampler: str | None
    guidance: float | tuple[float, ...]
    guidance_rescale: float
    guidance_interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    rng: str
    width: int
    height: int
    latent_shape: tuple[int, int, int, int]
    latents: np.ndarray | None
    eta: float | None
    picture: np.ndarray | None
    strength: float
    strength_as: str
    grid: Mapping[str, tuple[float, ...]]


class Streams:
    """One random stream a picture, so that picture k of a batch is the picture of its seed alone."""

    def __init__(self, rng: str, seeds: Sequence[int]):
        self._streams = [stream(rng, seed) for seed in seeds]

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next numbers of every stream.  Shapes: [B,...] -> [B,...]"""
        return np.concatenate([s.normal((1, *shape[1:])) for s in self._streams])


def make_request(pipe: Any, prompt: str | Sequence[str], negative_prompt: str, options: Mapping[str, Any]) -> Request:
    """Fill in what was left out, from the model's own defaults.

    Raises: BadRequest naming the option, for one that is unknown, not built yet, or that the model cannot meet
    """
    for name, value in options.items():
        if name in LATER and value is not None:
            raise BadRequest(f"option {name}: drawing inside a mask is not built yet")
        if name not in OPTIONS and name not in LATER:
            raise BadRequest(f"unknown option {name}: known are {', '.join(OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    if "sampler" not in given and pipe.defaults["eta"] is not None:  # it goes with the model's own sampler
        given.setdefault("eta", pipe.defaults["eta"])
    prompts = _prompts(prompt)
    if not isinstance(negative_prompt, str):
        raise BadRequest(f"the negative prompt {negative_prompt!r} is not a text: give one, for all pictures")
    _require_together(given)
    images = images_of(given["image"], len(prompts)) if "image" in given else []
    side = pipe.unet.config.sample_size * pipe.downscale
    natural = [max(n // pipe.downscale, 1) * pipe.downscale for n in images[0].size] if images else [side, side]
    width, height = (check_size(pipe, name, given.get(name, n)) for name, n in zip(("width", "height"), natural, strict=True))
    shape = (len(prompts), pipe.unet.config.in_channels, height // pipe.downscale, width // pipe.downscale)
    grid = {kind: numbers(given[kind], kind) for kind in GRIDS if kind in given}
    return Request(
        prompts, (negative_prompt,) * len(prompts), _steps(pipe, given, grid), given.get("sampler"),
        _guidance(given.get("guidance", pipe.defaults["guidance"])), _share(given.get("guidance_rescale", 0.0)),
        _interval(given.get("guidance_interval")), _seeds(given.get("seed", 0), len(prompts)), given.get("rng", "torch"),
        width, height, shape, _latents(given.get("latents"), shape), given.get("eta"),
        pixels_of(images, width, height) if images else None, given.get("strength", STRENGTH),
        given.get("strength_as", "diffusers"), grid,
    )  # fmt: skip


def recipe_of(pipe: Any, request: Request) -> dict[str, Any]:
    """All that decides a picture, for its file."""
    return {
        "prompt": list(request.prompts),
        "negative_prompt": request.negative[0],
        "seed": list(request.seeds),
        "rng": request.rng,
        "latents": "given" if request.latents is not None else "drawn",
        "sampler": request.sampler or pipe.scheduler.get("_class_name"),
        **({} if request.eta is None else {"eta": request.eta}),
        "steps": request.steps,
        **{kind: list(chosen) for kind, chosen in request.grid.items()},
        "guidance": request.guidance if isinstance(request.guidance, float) else list(request.guidance),
        "guidance_rescale": request.guidance_rescale,
        "guidance_interval": None if request.guidance_interval is None else list(request.guidance_interval),
        **_recipe_of_image(request),
        "width": request.width,
        "height": request.height,
        "model": dict(pipe.source),
        "dtype": pipe.dtype,
        "device": pipe.device,
        "kernels": pipe.kernels,
        "products": pipe.products,
        "versions": {"refdiff": __version__, "numpy": np.__version__},
    }


def _recipe_of_image(request: Request) -> dict[str, Any]:
    """What a run that begins with a picture adds; the picture is told by the hash of its pixels."""
    if request.picture is None:
        return {}
    digest = hashlib.sha256(np.ascontiguousarray(request.picture).tobytes()).hexdigest()
    return {"image": f"sha256 {digest}", "strength": request.strength, "strength_as": request.strength_as}


def images_of(image: Any, count: int) -> list[Image]:
    """The pictures to begin with, as PIL images: the one given for all, or one a prompt.

    Raises: BadRequest for what is no picture, no path of one, or another number of them
    """
    given = list(image) if isinstance(image, list | tuple) else [image] * count
    if len(given) != count:
        raise BadRequest(f"{len(given)} images for {count} prompts: give one, or one a prompt")
    images = [_opened(one) for one in given]
    if len({one.size for one in images}) > 1:
        raise BadRequest(f"the images are of different sizes, {sorted({one.size for one in images})}: make them alike")
    return images


def _opened(image: Any) -> Image:
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadRequest(f"an image of {image.dtype} {list(image.shape)}: give a PIL image, a path, or uint8 [H,W,3]")
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if not isinstance(image, str | Path):
        raise BadRequest(f"{image!r} is no image: give a PIL image, a path, or uint8 [H,W,3]")
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRequest(f"the image {image} cannot be read: {error}") from error


def pixels_of(images: Sequence[Image], width: int, height: int) -> np.ndarray:
    """The pictures as the encoder wants them, resized by Lanczos where they are not of this size.

    Shapes: -> [B,3,height,width] float32 in [-1,1]
    """
    from PIL import Image

    sized = [one if one.size == (width, height) else one.resize((width, height), Image.Resampling.LANCZOS) for one in images]
    levels = np.stack([np.asarray(one) for one in sized]).transpose(0, 3, 1, 2)
    return levels.astype(np.float32) / np.float32(255.0) * np.float32(2.0) - np.float32(1.0)


def _require_together(given: Mapping[str, Any]) -> None:
    """Raises: BadRequest for options that need an image, or do not go with one"""
    if "image" not in given:
        alone = [name for name in ("strength", "strength_as") if name in given]
        if alone:
            raise BadRequest(f"{alone[0]} says how much of an image to change: give an image too")
    elif "latents" in given:
        raise BadRequest("latents and an image are two beginnings: give one of them")


def _prompts(prompt: Any) -> tuple[str, ...]:
    """One text, or several."""
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt) if isinstance(prompt, Sequence) else ()
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise BadRequest("there is no prompt: give one, or a list of at least one, each of them a text")
    return prompts


def check_size(pipe: Any, name: str, value: Any) -> int:
    """`value`, if it lies on the grid of pixels that become whole latents.  Raises: BadRequest"""
    f = pipe.downscale
    if not _is_whole(value) or value < f or value % f:
        below = max(value // f * f, f) if _is_whole(value) else f
        raise BadRequest(f"{name} {value} is not on this model's grid: choose a multiple of {f}, such as {below} or {below + f}")
    return int(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))


def _steps(pipe: Any, given: Mapping[str, Any], grid: Mapping[str, tuple[float, ...]]) -> int:
    """The number of steps: what was asked for, the model's own, or that of the grid that was listed."""
    steps = given.get("steps")
    if grid:
        listed = chosen_sampler(pipe.scheduler, name=given.get("sampler"), eta=given.get("eta"), grid=grid).steps
        if steps not in (None, listed):
            raise BadRequest(f"{steps} steps and {' and '.join(grid)} for {listed}: leave steps out")
        steps = listed
    steps = pipe.defaults["steps"] if steps is None else steps
    if not _is_whole(steps) or steps < 1:
        raise BadRequest(f"{steps} steps cannot be made: choose a whole number from 1 on")
    return int(steps)


def _guidance(value: Any) -> float | tuple[float, ...]:
    """The scale, or one a step."""
    if _is_number(value):
        return float(value)
    listed = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else []
    if not listed or not all(_is_number(scale) for scale in listed):
        raise BadRequest(f"guidance {value!r} is not a number, nor a list of one number a step")
    return tuple(float(scale) for scale in listed)


def _share(value: Any) -> float:
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        raise BadRequest(f"guidance_rescale {value!r} is not a number from 0 to 1")
    return float(value)


def _interval(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    ends = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(ends) != 2 or any(type(end) not in (int, float) for end in ends) or not 0.0 <= ends[0] < ends[1]:
        raise BadRequest(f"guidance_interval {value!r} is not two sigmas, the lower one first")
    return float(ends[0]), float(ends[1])


def _seeds(seed: Any, count: int) -> tuple[int, ...]:
    """One seed a picture: the ones given, or the one given and those that follow it."""
    if _is_whole(seed):
        return tuple(int(seed) + k for k in range(count))
    seeds = tuple(seed) if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str) else ()
    if not seeds or not all(_is_whole(s) for s in seeds):
        raise BadRequest(f"the seed {seed!r} is not a whole number, nor a list of one a picture")
    if len(seeds) != count:
        raise BadRequest(f"{len(seeds)} seeds for {count} prompts: give one, or one a prompt")
    return tuple(int(s) for s in seeds)


def _latents(latents: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if latents is None:
        return None
    latents = np.asarray(latents)
    if latents.shape != shape:
        raise BadRequest(f"latents of the shape {list(latents.shape)} do not fit: this request needs {list(shape)}")
    if latents.dtype.kind not in "fiu" or not np.isfinite(latents).all():
        raise BadRequest("the latents hold values that are no finite real numbers: give standard normals, or leave them out")
    return latents
