"""The training loop: a task gives losses and batches, the loop updates, records, saves and resumes.

Everything random in a batch depends on the seed and the number of the step alone, so a run that is killed at any moment
and started again computes the same numbers as one that was not.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from threadpoolctl import ThreadpoolController

from refdiff.core.params import tree
from refdiff.core.tape import value_and_grad
from refdiff.core.threads import shared_by
from refdiff.errors import BadRequest
from refdiff.training.optimizer import (
    OptimizerSettings,
    adamw_step,
    clip_scale,
    ema_share,
    ema_step,
    flatten_vector,
    learning_rate,
    unflatten_vector,
)
from refdiff.xp import Array, to_device, to_host

STATE_FILE = "state.npz"
VECTORS = ("vector", "m", "v", "average")


class Task(Protocol):
    """What is trained: the first parameters, the batch of a step, and the loss of a batch."""

    def initial(self) -> dict[str, np.ndarray]:
        """The parameters before the first update."""
        ...

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of one step, the samples along their first axis."""
        ...

    def loss(self, params: Any, batch: Mapping[str, Array]) -> Any:
        """The loss of a batch, a mean over its samples."""
        ...


@dataclass(frozen=True)
class State:
    """Where a run stands after `step` updates; vectors hold all parameters in the task's order."""

    step: int
    vector: Array
    m: Array
    v: Array
    average: Array
    losses: list[float]


def train(
    task: Task, settings: OptimizerSettings, *, steps: int, folder: Path, device: str, save_seconds: float
) -> Iterator[State]:
    """Update until `steps`, from the state saved in `folder` if there is one; yields that state and each that follows.

    The state is saved every `save_seconds` and at the end, each time to a temporary file that then takes the old one's place.

    Raises: BadRequest if the folder holds a run with other settings or other parameters.
    """
    first = task.initial()
    shapes = {key: value.shape for key, value in first.items()}
    state = open_state(folder, first, settings, steps, device)
    yield state
    saved_at = time.monotonic()
    while state.step < steps:
        state = update(task, settings, state, shapes, steps=steps, device=device)
        if state.step == steps or time.monotonic() - saved_at > save_seconds:
            save_state(folder, state)
            saved_at = time.monotonic()
        yield state


def update(
    task: Task, settings: OptimizerSettings, state: State, shapes: Mapping[str, tuple], *, steps: int, device: str
) -> State:
    """One step: batch, loss, gradients, clipping, AdamW, moving average."""
    step = state.step + 1
    batch = {name: to_device(value, device) for name, value in task.batch(step).items()}
    rate, share = learning_rate(step, steps, settings), ema_share(step, decay=settings.ema_decay)
    loss, gradient = loss_and_gradient(task, unflatten_vector(state.vector, shapes), batch)
    with _blas().limit(limits=1):  # so that the length, too, is summed in one order
        gradient *= clip_scale(gradient, clip_norm=settings.clip_norm)
    vector, m, v = adamw_step(state.vector, gradient, state.m, state.v, rate=rate, step=step, settings=settings)
    average = ema_step(state.average, vector, share=share)
    value = float(to_host(loss))
    if not np.isfinite(value):
        raise BadRequest(f"the loss of step {step} is {value}: lower the learning rate, or start again from an earlier state")
    return State(step, vector, m, v, average, [*state.losses, value])


def loss_and_gradient(task: Task, params: Mapping[str, Array], batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """The mean loss of a batch and its gradient as one vector: each half of the batch in a thread of its own.

    The halves are always two (a batch of one sample is one part), are added in order, and multiply their matrices in one order,
    so the numbers do not depend on the number of processors.
    """
    count = len(next(iter(batch.values())))
    halves = [half for half in (slice(0, count // 2), slice(count // 2, count)) if half.start < half.stop]

    def of_half(half: slice) -> tuple[Array, Array]:
        part = {name: value[half] for name, value in batch.items()}
        with shared_by(len(halves)):
            loss, grads = value_and_grad(lambda variables: task.loss(tree(variables), part), params)
        share = (half.stop - half.start) / count
        vector = flatten_vector(grads, list(params))
        vector *= share
        return loss * share, vector

    with _blas().limit(limits=1):
        first, *others = _pool().map(of_half, halves)
    if not others:
        return first
    ((loss, gradient),) = others
    gradient += first[1]
    return first[0] + loss, gradient


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def averaged(state: State, task: Task) -> dict[str, np.ndarray]:
    """The moving average of the parameters, by name, on the host."""
    shapes = {key: value.shape for key, value in task.initial().items()}
    return unflatten_vector(to_host(state.average), shapes)


def open_state(folder: Path, first: Mapping[str, np.ndarray], settings: OptimizerSettings, steps: int, device: str) -> State:
    """The saved state, or a new one from the parameters `first`; the settings are kept beside it and must not change.

    Raises: BadRequest for a state of other settings or parameters, a damaged one, or one whose settings are lost
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = json.dumps({"steps": steps, **asdict(settings)}, indent=1)
    run_file, state_file = folder / "run.json", folder / STATE_FILE
    if not state_file.exists():
        write_atomically(run_file, lambda f: f.write(run.encode()))
        vector = to_device(flatten_vector(first, list(first)), device)
        return State(0, vector, vector * 0, vector * 0, vector, [])
    if not run_file.is_file():
        raise BadRequest(
            f"{run_file} is missing, and with it the settings of {state_file}: put it back, or remove that to begin anew"
        )
    if run_file.read_bytes() != run.encode():
        raise BadRequest(
            f"{folder} holds a run with other settings (see {run_file}): continue with those, or name another folder"
        )
    saved = read_arrays(state_file, ("step", "losses", *VECTORS))
    if saved["step"].shape != () or {saved[name].shape for name in VECTORS} != {(saved["vector"].size,)}:
        raise damaged(state_file, "its parts do not belong together")
    if saved["vector"].size != sum(value.size for value in first.values()):
        raise BadRequest(f"{state_file} belongs to a model with other parameters: name another folder")
    vector, m, v, average = (to_device(saved[name], device) for name in VECTORS)
    return State(int(saved["step"]), vector, m, v, average, saved["losses"].tolist())


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a file that a run has saved.  Raises: BadRequest for a file that is damaged or not its own"""
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> BadRequest:
    """The error for a file of a run that cannot be gone on with."""
    return BadRequest(f"{path} is damaged ({reason}): put a copy of it back, or remove it to make it anew")


def save_state(folder: Path, state: State) -> None:
    """Write the state so that a kill at any moment leaves the old one or the new one, never half a file."""
    vector, m, v, average = (to_host(x) for x in (state.vector, state.m, state.v, state.average))
    losses = np.array(state.losses, dtype=np.float64)
    write_atomically(
        folder / STATE_FILE, lambda f: np.savez(f, step=state.step, losses=losses, vector=vector, m=m, v=v, average=average)
    )


def write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    """Call `write` on a temporary file beside `path`, then put it in the place of `path`.

    Raises: BadRequest where it cannot be written, such as on a full disk; what was there before is then still there
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise BadRequest(f"{path}: cannot be written: {reason}; mend that, and the same command goes on") from error
    finally:
        temporary.unlink(missing_ok=True)


def step_random(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step, the same whatever came before."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))
