"""RePaintScheduler."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from refdiff.diffusion.limit import clipped, unlimited
from refdiff.diffusion.noise import Stream
from refdiff.errors import BadRequest
from refdiff.samplers.family import (
    FLAG,
    MODEL,
    Family,
    Network,
    Options,
    always,
    diffusion_network,
    diffusion_table,
    preserving,
)
from refdiff.samplers.grids_score import repaint_grid
from refdiff.samplers.repaint import Down, filling, repaint
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array, array_module


def network(options: Options) -> Network:
    """A network that predicts noise: there is no other for RePaint."""
    return diffusion_network({**options, "prediction_type": "epsilon"})


def constants(options: Options) -> dict[str, Any]:
    """The way down, with what is done to the picture and the share of fresh noise."""
    limit = (lambda x0: clipped(x0, limit=1.0)) if options["clip_sample"] else unlimited
    return {"way": functools.partial(filling, limit=limit, eta=options["eta"])}


def altered(options: Options) -> dict[str, Any]:
    """Nothing.

    Raises: BadRequest for an eta outside 0..1
    """
    eta = options["eta"]
    if type(eta) not in (int, float) or not 0.0 <= eta <= 1.0:
        raise BadRequest(f"eta {eta} is outside 0..1")
    return {}


def solve(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    betas: Sequence[Sequence[float]],
    way: Callable[..., Down],
    original_image: Array,
    mask: Array,
    noise: Stream | None,
) -> Iterator[Step]:
    """`repaint` by `filling`.

    Raises: BadRequest without a picture and a mask
    """
    if original_image is None or mask is None:
        raise BadRequest("RePaintScheduler fills in a picture: give settings original_image and mask, 1 where it is kept")
    image, mask = (array_module(x).asarray(given, dtype=x.dtype) for given in (original_image, mask))
    down = way(denoise, original_image=image, mask=mask, noise=noise)
    yield from repaint(x, sigmas, betas=betas, down=down, noise=noise)


REPAINT = Family(
    class_name="RePaintScheduler",
    defaults={
        **{key: value for key, value in MODEL.items() if key != "prediction_type"}, "eta": 0.0, "clip_sample": True,
    },
    only={"beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"), "clip_sample": FLAG},
    grid=repaint_grid, solve=solve, table=diffusion_table, network=network, constants=constants,
    settings={"jump_length": 10, "jump_n_sample": 10, "original_image": None, "mask": None}, stochastic=True, draws=always,
    outside=preserving, altered=altered, planning=("jump_length", "jump_n_sample"), arrays=("original_image", "mask"),
)  # fmt: skip
