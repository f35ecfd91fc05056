"""Where a run begins that changes a picture by a share of the whole way."""

from __future__ import annotations

from collections.abc import Callable

from refdiff.errors import BadRequest


def as_diffusers(strength: float, steps: int) -> int:
    """steps - min(int(steps strength), steps): the share of the steps that is made, rounded down."""
    return steps - min(int(steps * strength), steps)


def as_webui(strength: float, steps: int) -> int:
    """steps - int(steps min(strength, 0.999)) - 1: one step more than diffusers, but for strength 1."""
    return steps - int(steps * min(strength, 0.999)) - 1


CONVENTIONS: dict[str, Callable[[float, int], int]] = {"diffusers": as_diffusers, "webui": as_webui}


def start_of(strength: float, steps: int, *, convention: str) -> int:
    """The first step of a run of `strength`, 1 being the whole run from noise alone.

    "diffusers" is its image-to-image pipeline; "webui" is AUTOMATIC1111 with a k-diffusion sampler.
    Raises: BadRequest for a strength outside 0..1, one that leaves no step to make, or an unknown convention
    Source: diffusers' get_timesteps; AUTOMATIC1111's setup_img2img_steps and sample_img2img
    Traps: img2img-t
    """
    if convention not in CONVENTIONS:
        raise BadRequest(f'unknown convention of strength "{convention}": choose one of {", ".join(CONVENTIONS)}')
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0.0 <= strength <= 1.0:
        raise BadRequest(f"strength {strength!r} is not a number from 0 to 1")
    start = CONVENTIONS[convention](strength, steps)
    if start >= steps:
        raise BadRequest(f"strength {strength} of {steps} steps leaves no step to make: raise one of them")
    return start
