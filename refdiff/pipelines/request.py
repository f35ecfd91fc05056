"""What is asked of a pipeline, checked before anything is computed, and the recipe that goes with the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.version import __version__

OPTIONS = (
    "steps", "sampler", "guidance", "guidance_rescale", "guidance_interval", "seed", "rng", "width", "height", "latents", "eta",
)  # fmt: skip
LATER = ("image", "mask", "strength")  # in the interface, not built yet


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
            raise BadRequest(f"option {name}: drawing from an image is not built yet")
        if name not in OPTIONS and name not in LATER:
            raise BadRequest(f"unknown option {name}: known are {', '.join(OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    prompts = _prompts(prompt)
    if not isinstance(negative_prompt, str):
        raise BadRequest(f"the negative prompt {negative_prompt!r} is not a text: give one, for all pictures")
    side = pipe.unet.config.sample_size * pipe.downscale
    width, height = _size(pipe, "width", given.get("width", side)), _size(pipe, "height", given.get("height", side))
    shape = (len(prompts), pipe.unet.config.in_channels, height // pipe.downscale, width // pipe.downscale)
    steps = given.get("steps", pipe.defaults["steps"])
    if not _is_whole(steps) or steps < 1:
        raise BadRequest(f"{steps} steps cannot be made: choose a whole number from 1 on")
    return Request(
        prompts, (negative_prompt,) * len(prompts), int(steps), given.get("sampler"),
        _guidance(given.get("guidance", pipe.defaults["guidance"])), _share(given.get("guidance_rescale", 0.0)),
        _interval(given.get("guidance_interval")), _seeds(given.get("seed", 0), len(prompts)), given.get("rng", "torch"),
        width, height, shape, _latents(given.get("latents"), shape), given.get("eta"),
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
        "eta": request.eta or 0.0,
        "steps": request.steps,
        "guidance": request.guidance if isinstance(request.guidance, float) else list(request.guidance),
        "guidance_rescale": request.guidance_rescale,
        "guidance_interval": None if request.guidance_interval is None else list(request.guidance_interval),
        "width": request.width,
        "height": request.height,
        "model": dict(pipe.source),
        "dtype": pipe.dtype,
        "device": pipe.device,
        "kernels": pipe.kernels,
        "versions": {"refdiff": __version__, "numpy": np.__version__},
    }


def _prompts(prompt: Any) -> tuple[str, ...]:
    """One text, or several."""
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt) if isinstance(prompt, Sequence) else ()
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise BadRequest("there is no prompt: give one, or a list of at least one, each of them a text")
    return prompts


def _size(pipe: Any, name: str, value: Any) -> int:
    f = pipe.downscale
    if not _is_whole(value) or value < f or value % f:
        below = max(value // f * f, f) if _is_whole(value) else f
        raise BadRequest(f"{name} {value} is not on this model's grid: choose a multiple of {f}, such as {below} or {below + f}")
    return int(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))


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
