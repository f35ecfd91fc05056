"""A run that is stopped or killed at any moment and started again has the very numbers of one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refdiff.core import primitive
from refdiff.core.primitive import get_mode
from refdiff.errors import BadRequest
from refdiff.training.loop import STATE_FILE, State, loss_and_gradient, save_state, step_random, write_atomically
from tests.training.examples import PARTS, SETTINGS, TASKS, UNET_TASK, VAE_TASK, Blocks, go_on, last, same_bits

STEPS = 5
MANY_STEPS = 12
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, State]:
    return {name: last(task, tmp_path_factory.mktemp("whole"), steps=STEPS) for name, task in TASKS.items()}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_stopped_after_any_step(name, stop, whole, tmp_path):
    states = go_on(TASKS[name], tmp_path, steps=STEPS, save_seconds=0)
    for _ in range(stop + 1):  # the state before the first step comes first
        reached = next(states)
    states.close()
    assert reached.step == stop
    assert (tmp_path / STATE_FILE).exists() == (stop > 0)
    first, *rest = go_on(TASKS[name], tmp_path, steps=STEPS, save_seconds=0)
    same_bits(first, reached)
    assert [state.step for state in rest] == list(range(stop + 1, STEPS + 1))
    same_bits([first, *rest][-1], whole[name])


def test_stopped_again_and_again(whole, tmp_path):
    for step in range(STEPS + 1):
        states = go_on(VAE_TASK, tmp_path, steps=STEPS, save_seconds=0)
        assert next(states).step == max(step - 1, 0)
        if step:
            reached = next(states)
        states.close()
    same_bits(reached, whole["vae"])


def test_stopped_long_after_the_last_save(whole, tmp_path):
    states = go_on(VAE_TASK, tmp_path, steps=STEPS, save_seconds=1e9)
    assert [next(states).step for _ in range(STEPS)] == list(range(STEPS))
    states.close()
    assert not (tmp_path / STATE_FILE).exists()
    same_bits(last(VAE_TASK, tmp_path, steps=STEPS), whole["vae"])


def test_a_finished_run_yields_its_end_alone(whole, tmp_path):
    last(VAE_TASK, tmp_path, steps=STEPS)
    (state,) = go_on(VAE_TASK, tmp_path, steps=STEPS, save_seconds=0)
    same_bits(state, whole["vae"])


@pytest.mark.parametrize("name", TASKS)
def test_fast_kernels_resume_too(name, whole, tmp_path):
    with primitive.mode("fast"):
        uncut = last(TASKS[name], tmp_path / "uncut", steps=STEPS)
        states = go_on(TASKS[name], tmp_path / "cut", steps=STEPS, save_seconds=0)
        [next(states) for _ in range(3)]
        states.close()
        same_bits(last(TASKS[name], tmp_path / "cut", steps=STEPS), uncut)
    np.testing.assert_allclose(uncut.losses, whole[name].losses, rtol=1e-5)


SCRIPT = """
import os, signal, sys
from pathlib import Path
import refdiff.kernels.cpu
from refdiff.core import primitive
from tests.training.examples import VAE_TASK, go_on

primitive.set_mode(sys.argv[5])
folder, steps, moment, number = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
calls = 0

def dying(function, before):
    def call(*args):
        global calls
        calls += 1
        if before and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if moment == "while the file is written":
    os.fsync = dying(os.fsync, True)
if moment == "before the file takes its place":
    os.replace = dying(os.replace, True)
if moment == "after the file took its place":
    os.replace = dying(os.replace, False)
for state in go_on(VAE_TASK, folder, steps=steps, save_seconds=0):
    print(state.step, flush=True)
"""


@pytest.fixture
def start(tmp_path):
    """Start a training in a process of its own; it is killed at the end of the test if it is still there."""
    (tmp_path / "script.py").write_text(SCRIPT)
    started = []

    def call(steps: int, moment: str, number: int) -> subprocess.Popen:
        told = [str(tmp_path / "run"), str(steps), moment, str(number), get_mode()]
        command = [sys.executable, str(tmp_path / "script.py"), *told]
        started.append(subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("moment", "number", "saved"),
    [
        ("while the file is written", 1, 0),  # the file of the settings
        ("while the file is written", 2, 0),
        ("before the file takes its place", 4, 2),
        ("after the file took its place", 4, 3),
    ],
)
def test_killed_during_a_save(moment, number, saved, start, whole, tmp_path):
    process = start(STEPS, moment, number)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    left_over = [path.name for path in (tmp_path / "run").glob("*.part")]
    assert len(left_over) == (moment != "after the file took its place")
    first, *rest = go_on(VAE_TASK, tmp_path / "run", steps=STEPS, save_seconds=0)
    assert first.step == saved
    same_bits(rest[-1], whole["vae"])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json", STATE_FILE]


def test_killed_from_outside(start, tmp_path):
    process = start(MANY_STEPS, "from outside", 0)
    seen = [process.stdout.readline() for _ in range(4)]
    time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert (process.returncode, seen[-1]) == (-signal.SIGKILL, "3\n")
    first, *rest = go_on(VAE_TASK, tmp_path / "run", steps=MANY_STEPS, save_seconds=1e9)
    assert 3 <= first.step < MANY_STEPS
    same_bits(rest[-1], last(VAE_TASK, tmp_path / "whole", steps=MANY_STEPS))


def test_half_a_file_left_by_a_kill_does_no_harm(whole, tmp_path):
    states = go_on(VAE_TASK, tmp_path, steps=STEPS, save_seconds=0)
    [next(states) for _ in range(3)]
    states.close()
    (tmp_path / f"{STATE_FILE}.part").write_bytes((tmp_path / STATE_FILE).read_bytes()[:1000])
    (tmp_path / "run.json.part").write_text("{")
    same_bits(last(VAE_TASK, tmp_path, steps=STEPS), whole["vae"])


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")

    def half(f):
        f.write(b"ne")
        raise OSError("the disk is full")

    with pytest.raises(BadRequest, match="cannot be written: the disk is full"):
        write_atomically(tmp_path / "file", half)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def damage_by(change: str, folder: Path) -> None:
    """Damage the state in a folder, or take away what belongs to it."""
    file = folder / STATE_FILE
    with np.load(file) as data:
        parts = dict(data)
    whole = file.read_bytes()
    if change == "no settings":
        (folder / "run.json").unlink()
    elif change == "a bit":
        file.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    elif change == "a part":
        np.savez(file, **{name: value for name, value in parts.items() if name != "m"})
    elif change == "a size":
        np.savez(file, **{**parts, "m": parts["m"][1:]})
    else:
        file.write_bytes(whole[: {"cut": len(whole) // 2, "empty": 0}[change]])


@pytest.mark.parametrize("change", ["cut", "empty", "a bit", "a part", "a size", "no settings"])
def test_a_damaged_state_is_one_line_that_says_how_to_mend_it(change, tmp_path):
    last(VAE_TASK, tmp_path, steps=2)
    damage_by(change, tmp_path)
    with pytest.raises(BadRequest, match=r"state\.npz.*: put .* back, or remove") as refused:
        next(go_on(VAE_TASK, tmp_path, steps=2, save_seconds=0))
    assert "\n" not in str(refused.value)


def test_a_batch_of_one_is_its_own_half():
    params = VAE_TASK.initial()
    batch = {name: value[:1] for name, value in VAE_TASK.batch(1).items()}
    twice = {name: np.concatenate([value, value]) for name, value in batch.items()}
    (loss, gradient), (loss_twice, gradient_twice) = (loss_and_gradient(VAE_TASK, params, b) for b in (batch, twice))
    assert np.isfinite(loss) and loss == pytest.approx(loss_twice, rel=1e-6)
    np.testing.assert_allclose(gradient, gradient_twice, rtol=1e-4, atol=1e-6)


def test_a_state_is_read_as_it_was_saved(whole, tmp_path):
    save_state(tmp_path, whole["vae"])
    with np.load(tmp_path / STATE_FILE) as data:
        assert sorted(data) == sorted([*PARTS, "step", "losses"])
        assert data["losses"].dtype == np.float64
        assert data["losses"].tolist() == whole["vae"].losses


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-3}, {"clip_norm": 2.0}, {"ema_decay": 0.9}, {"steps": STEPS + 1}], ids=str
)
def test_other_settings_are_refused(change, tmp_path):
    last(VAE_TASK, tmp_path, steps=STEPS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    steps = change.pop("steps", STEPS)
    with pytest.raises(BadRequest, match=r"other settings \(see .*run\.json\): continue with those, or name another folder"):
        next(go_on(VAE_TASK, tmp_path, steps=steps, save_seconds=0, settings=replace(SETTINGS, **change)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_model_is_refused(tmp_path):
    last(VAE_TASK, tmp_path, steps=2)
    with pytest.raises(BadRequest, match="belongs to a model with other parameters: name another folder"):
        next(go_on(UNET_TASK, tmp_path, steps=2, save_seconds=0))


class Broken(Blocks):
    """Pictures that are not a number in one step."""

    def batch(self, rng, count):
        images, things, captions = super().batch(rng, count)
        return images * (np.nan if rng.bit_generator.state["state"]["key"][1] == 2 else 1), things, captions


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path):
    states = go_on(replace(VAE_TASK, pictures=Broken()), tmp_path, steps=3, save_seconds=0)
    assert [next(states).step, next(states).step] == [0, 1]
    with pytest.raises(BadRequest, match="the loss of step 2 is nan: lower the learning rate, or start again from an earlier"):
        next(states)
    with np.load(tmp_path / STATE_FILE) as data:
        assert data["step"] == 1
        assert all(np.isfinite(data[part]).all() for part in PARTS)


def test_the_random_numbers_of_a_step_are_its_own():
    draws = {(seed, step): step_random(seed, step).random(4).tobytes() for seed in range(4) for step in range(50)}
    assert len(set(draws.values())) == len(draws)
    assert step_random(3, 4).random(4).tobytes() == draws[3, 4]
