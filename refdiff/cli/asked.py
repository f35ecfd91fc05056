"""What the options of `refdiff generate` ask for, before a model is read."""

from __future__ import annotations

import os
from typing import Any


def steps_asked(pipe: Any, options: dict[str, Any]) -> int:
    """How many steps a picture has: as many as times are listed, or what is asked for, or the model's own number."""
    times = times_of(options["timesteps"])
    if times is not None and options["steps"] is None:
        return len(times)
    return pipe.defaults["steps"] if options["steps"] is None else options["steps"]


def times_of(text: str | None) -> tuple[float, ...] | None:
    """The times that a list or a name means.  Raises: BadRequest where it means none"""
    from refdiff.errors import BadRequest
    from refdiff.samplers.listed import numbers

    if text is None:
        return None
    if text[:1].isalpha():
        return numbers(text, "timesteps")
    try:
        return numbers([float(part) for part in text.split(",")], "timesteps")
    except ValueError as error:
        raise BadRequest(f"--timesteps {text}: give numbers with commas between them, such as 999,850,700") from error


def steps_made(steps: int, options: dict[str, Any]) -> int:
    """How many steps a picture takes: with an image, only those from where its strength begins."""
    from refdiff.pipelines.request import STRENGTH
    from refdiff.samplers.strength import start_of

    if options["image"] is None or steps < 1:
        return max(steps, 0)
    strength = STRENGTH if options["strength"] is None else options["strength"]
    return steps - start_of(strength, steps, convention="diffusers")


def check_options(options: dict[str, Any]) -> None:
    """What would fail only after the model was read or something was drawn.  Raises: BadRequest"""
    from refdiff.diffusion.noise import stream
    from refdiff.errors import BadRequest
    from refdiff.samplers.names import named

    if options["sampler"] is not None:
        named(options["sampler"])
    stream(options["rng"], options["seed"] + options["count"] - 1)
    folder = options["save_steps"]
    if folder is not None:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise BadRequest(f"--save-steps {folder}: {nearest} is not a folder that can be written to: name another")
