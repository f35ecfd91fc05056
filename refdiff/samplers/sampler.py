"""A sampler: a solver with the tables and conventions of one of upstream's schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.diffusion.noise import Stream
from refdiff.errors import BadRequest
from refdiff.samplers.family import ENDED, SHARES, Family
from refdiff.samplers.grids import Grid
from refdiff.samplers.listed import check_sigmas, check_timesteps, numbers
from refdiff.samplers.options import check_settings, choose, read
from refdiff.samplers.step import Step
from refdiff.samplers.strength import start_of
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
    settings: Mapping[str, Any]
    given: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def with_timesteps(self, times: Sequence[float] | np.ndarray | str) -> Sampler:
        """The same with these times, latest first, or the published ones of that name; steps is then their number.

        Raises: BadRequest where upstream's scheduler takes none, or none with these options, and for times out of order or range
        """
        chosen = numbers(times, "timesteps")
        check_timesteps(self.family, {**self.config, **self.settings}, chosen, len(self.alphas))
        return self._with("given_timesteps", chosen)

    def with_sigmas(self, sigmas: Sequence[float] | np.ndarray | str) -> Sampler:
        """The same with these sigmas, largest first, or the published ones of that name; steps is then their number.

        As upstream: for Euler the one after the last step stands at the end of the list, and is not a step; for flows they
        are shares of noise, still to be shifted, and 0 follows.
        Raises: BadRequest as `with_timesteps`
        """
        chosen = numbers(sigmas, "sigmas")
        check_sigmas(self.family, self.config, chosen)
        return self._with("given_sigmas", chosen)

    def _with(self, kind: str, chosen: tuple[float, ...]) -> Sampler:
        changed = replace(self, given={**self.given, kind: chosen})
        if len(changed.given) > 1 and (SHARES not in self.family.listed.values() or len({*map(len, changed.given.values())}) > 1):
            raise BadRequest("timesteps and sigmas together are for flows alone, and as many of the one as of the other")
        return changed

    @property
    def steps(self) -> int | None:
        """The number of steps where the times or sigmas are given."""
        lengths = [len(chosen) for chosen in self.given.values()]
        ended = "given_sigmas" in self.given and self.family.listed["sigmas"] == ENDED
        return lengths[0] - ended if lengths else None

    def timesteps(self, steps: int) -> np.ndarray:
        """The time of every call of the network.

        Shapes: -> [steps] int64, or float32 for Euler; [steps+1] for PNDM, which calls it twice at its second time; for RePaint,
        as upstream lists them, with the moves back up
        Raises: BadRequest for steps outside 1..number of training times
        """
        grid = self._grid(steps)
        return grid.times if grid.calls is None else grid.calls

    def sigmas(self, steps: int) -> np.ndarray:
        """The noise before each step and after the last.  Shapes: -> [steps+1], more for RePaint, whose ways lead up as well"""
        return self._grid(steps).sigmas

    def initial(self, steps: int) -> float:
        """The factor from unit noise to the first latent.  Traps: init-sigma"""
        grid = self._grid(steps)
        return grid.initial * self.family.outside(float(grid.sigmas[0]))

    def sample(
        self,
        model: Model,
        x: Array,
        steps: int,
        *,
        noise: Stream | None = None,
        start: int = 0,  # house: 0 is the whole run
    ) -> Array:
        """Run all steps and give the last latent back.

        Shapes: x [B,...] of unit variance, or for start > 0 with the noise of step `start` (`add_noise`) -> [B,...]
        Raises: BadRequest as `iterate`
        """
        for step in self.iterate(model, x, steps, noise=noise, start=start):
            x = step.x
        return x

    def iterate(
        self,
        model: Model,
        x: Array,
        steps: int,
        *,
        noise: Stream | None = None,
        start: int = 0,  # house: 0 is the whole run
    ) -> Iterator[Step]:
        """Run the steps one by one; each yields its latent and the denoised one.

        Raises: BadRequest for steps outside 1..number of training times, start outside 0..steps-1, or eta without noise
        """
        grid = self._grid(steps)
        _require_step(start, steps)
        if noise is None and self.family.draws(self.config, self.settings):
            told = {key: value for key, value in self.settings.items() if key not in self.family.arrays}
            raise BadRequest(f"{self.config['_class_name']} with {told} needs noise: give a random stream")
        return self._steps(model, x, grid, noise, start)

    def _steps(self, model: Model, x: Array, grid: Grid, noise: Stream | None, start: int) -> Iterator[Step]:
        sigmas = [float(s) for s in grid.sigmas[start:]]
        policy: dict[str, Any] = {name: values[start:].tolist() for name, values in grid.policy.items()}
        settings = {k: v for k, v in self.settings.items() if k not in self.family.planning}
        given = {"noise": noise} if self.family.stochastic else {}
        network = self.family.network(self.config)
        time_of = {**dict(zip(grid.sigmas.tolist(), grid.times.tolist(), strict=False)), **grid.between}

        def denoise(x: Array, sigma: float) -> Array:
            seen = x * network.scale(sigma)
            time = time_of[sigma] if grid.time_at is None or sigma in time_of else grid.time_at(sigma)
            return network.denoised(seen, model(seen, time), sigma)

        x = x * (grid.initial if start == 0 else 1.0 / self.family.outside(sigmas[0]))
        for step in self.family.solve(denoise, x, sigmas, **policy, **self.family.constants(self.config), **settings, **given):
            yield replace(step, index=start + step.index, x=step.x * self.family.outside(step.sigma))

    def add_noise(self, x0: Array, noise: Array, steps: int, start: int) -> Array:
        """A latent with the noise that step `start` of `steps` expects, as `sample` takes it: for 0 in units of `initial`.

        Shapes: [B,...], [B,...] -> [B,...]
        Raises: BadRequest for steps outside 1..number of training times, or start outside 0..steps-1
        Traps: img2img-t
        """
        sigmas = self.sigmas(steps)
        _require_step(start, steps)
        sigma = float(sigmas[start])
        noisy = self.family.noised(x0, noise, sigma) * self.family.outside(sigma)
        return noisy / self.initial(steps) if start == 0 else noisy

    def start_of(self, strength: float, steps: int, *, convention: str) -> int:
        """The `start` of a run that changes a picture by `strength`, as "diffusers" or as "webui" counts.

        Raises: BadRequest for steps that cannot be made, and as `strength.start_of`
        """
        self._grid(steps)
        return start_of(strength, steps, convention=convention)

    def _grid(self, steps: int) -> Grid:
        count = len(self.alphas)
        if self.steps is not None and steps != self.steps:
            raise BadRequest(f"{steps} steps cannot be made: the grid that is given has {self.steps}")
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= count:
            raise BadRequest(f"{steps} steps cannot be made: choose a whole number from 1 to {count}")
        return self.family.grid({**self.config, **self.settings, **self.given}, self.alphas, steps)


def _require_step(start: int, steps: int) -> None:
    if not 0 <= start < steps:
        raise BadRequest(f"start {start} is not a step: choose 0 to {steps - 1}")


def from_config(
    config: Mapping[str, Any] | str | Path,
    *,
    name: str | None = None,
    eta: float | None = None,
    settings: Mapping[str, Any] | None = None,
    table: str = "float32-torch",
) -> Sampler:
    """The sampler that a scheduler_config.json describes: its contents, its file or its folder.

    `name` ("ddim", "euler", ...) takes another solver for the same model; `settings` are what upstream's callers give to
    each step (s_churn, s_noise, ...), `eta`, 0 to 1, one of them: DDIM's share of fresh noise; `table` is the precision
    of the schedule: "float32-torch", as upstream's, or "float64".
    Raises: BadRequest for a file that cannot be read, a class or name or option that is unknown, a value not supported
    """
    family, options = choose(read(config), name)
    chosen = dict(settings or {})
    if eta is not None and (eta != 0.0 or "eta" in family.settings):
        chosen["eta"] = eta
    altered = family.altered(options)
    family = replace(family, **altered) if altered else family
    check_settings(family, chosen)
    table_of_signal = family.table(options, table)
    return Sampler({"_class_name": family.class_name, **options}, family, table_of_signal, {**family.settings, **chosen})
