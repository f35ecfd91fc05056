"""A sampler: a solver with the tables and conventions of one of upstream's schedulers.

`from_config` reads the scheduler_config.json of a checkpoint. Every option is honoured, or refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.diffusion import prediction, schedule
from refdiff.diffusion.noise import Stream
from refdiff.errors import BadRequest
from refdiff.samplers.families import FAMILIES, Family, Grid
from refdiff.samplers.step import Step
from refdiff.xp import Array

Model = Callable[[Array, float], Array]  # (the latent as the network wants it, time) -> the network's raw output


@dataclass(frozen=True)
class Sampler:
    """One scheduler's tables with one solver.

    The solver works on x = x0 + sigma noise. Outside, a latent is what upstream's scheduler hands to its caller: in
    variance-preserving form, x / sqrt(1 + sigma^2), for DDIM and PNDM, x itself for Euler.
    """

    config: Mapping[str, Any]
    family: Family
    alphas: np.ndarray
    eta: float

    def timesteps(self, steps: int) -> np.ndarray:
        """The time of every call of the network.  Shapes: -> [n], int64, or float32 for Euler

        Raises: BadRequest for steps outside 1..number of training times
        """
        return self.family.calls(self._grid(steps))

    def sigmas(self, steps: int) -> np.ndarray:
        """The noise before each step and after the last.  Shapes: -> [steps + 1]"""
        return self._grid(steps).sigmas

    def sample(self, model: Model, x: Array, steps: int, *, noise: Stream | None = None, start: int = 0) -> Array:
        """Run all steps and give the last latent back.

        Shapes: [B,...] -> [B,...]; x of unit variance, or for start > 0 a latent with the noise of step `start`
        """
        for step in self.iterate(model, x, steps, noise=noise, start=start):
            x = step.x
        return x

    def iterate(self, model: Model, x: Array, steps: int, *, noise: Stream | None = None, start: int = 0) -> Iterator[Step]:
        """Run the steps one by one; each yields its latent and the denoised one.

        Raises: BadRequest for steps outside 1..number of training times, or start outside 0..steps-1
        """
        grid = self._grid(steps)
        if not 0 <= start < steps:
            raise BadRequest(f"start {start} is not a step: choose 0 to {steps - 1}")
        sigmas = [float(s) for s in grid.sigmas[start:]]
        targets = [float(s) for s in grid.targets[start:]]
        time_of = dict(zip(sigmas, grid.times[start:].tolist(), strict=False))
        convert = prediction.DENOISED[self.config["prediction_type"]]

        def denoise(x: Array, sigma: float) -> Array:
            a, s = prediction.signal_and_noise(sigma)
            scaled = x * a
            return convert(scaled, model(scaled, time_of[sigma]), a, s)

        x = x * (self.family.initial(grid) if start == 0 else 1.0 / self.family.outside(sigmas[0]))
        for step in self.family.solve(denoise, x, sigmas, targets, self.eta, noise):
            yield step._replace(index=start + step.index, x=step.x * self.family.outside(step.sigma))

    def add_noise(self, x0: Array, noise: Array, steps: int, start: int) -> Array:
        """A latent with the noise that step `start` of `steps` expects.  Shapes: [B,...], [B,...] -> [B,...]"""
        sigma = float(self.sigmas(steps)[start])
        return (x0 + sigma * noise) * self.family.outside(sigma)

    def _grid(self, steps: int) -> Grid:
        count = len(self.alphas)
        if type(steps) is not int or not 1 <= steps <= count:
            raise BadRequest(f"{steps} steps cannot be made: choose a whole number from 1 to {count}")
        return self.family.grid(self.config, self.alphas, steps)


SHARED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")  # what describes the model


def from_config(
    config: Mapping[str, Any] | str | Path, *, name: str | None = None, eta: float | None = None, table: str = "float32-torch"
) -> Sampler:
    """The sampler that a scheduler_config.json describes; `name` (ddim, euler, pndm) takes another solver with its betas.

    Raises: BadRequest for a file that cannot be read, an unknown class or name, an option that is unknown or not supported
    """
    data = config if isinstance(config, Mapping) else _read(Path(config))
    known = {family.class_name: family for family in FAMILIES.values()}
    class_name = data.get("_class_name")
    if class_name not in known:
        raise BadRequest(f"unknown scheduler {class_name!r}: known are {', '.join(known)}")
    own = known[class_name]
    family = own if name is None else FAMILIES.get(name)
    if family is None:
        raise BadRequest(f'unknown sampler "{name}": choose one of {", ".join(FAMILIES)}')
    options = own.read_options(data, strict=True)
    if family is not own:
        options = family.read_options({**{k: options[k] for k in SHARED}, **data}, strict=False)
    alphas = schedule.alphas_cumprod(
        schedule=options["beta_schedule"], beta_start=options["beta_start"], beta_end=options["beta_end"],
        count=options["num_train_timesteps"], table=table,
    )  # fmt: skip
    if eta is not None and not 0.0 <= eta <= 1.0:
        raise BadRequest(f"eta {eta} is outside 0..1")
    return Sampler({"_class_name": family.class_name, **options}, family, alphas, 0.0 if eta is None else eta)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} cannot be read as a scheduler's configuration: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{path} does not hold a scheduler's configuration")
    return data
