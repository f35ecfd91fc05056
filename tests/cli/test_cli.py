"""The command line as a person meets it: pictures, recipes, warnings, and one line for every mistake."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from refdiff import cli
from refdiff.version import __version__
from refdiff.weights_path import weights_dir

PROMPT = "a large red circle on a yellow background"
COMMAND = [sys.executable, "-m", "refdiff"]


@pytest.fixture
def run(monkeypatch, capfd):
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["refdiff", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capfd.readouterr()
        return stopped.value.code, out, err

    return call


def one_line(err: str) -> str:
    lines = [line for line in err.replace("\r", "\n").split("\n") if "refdiff: error:" in line]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_draws_a_picture_that_carries_its_recipe(run, tmp_path):
    file = tmp_path / "out.png"
    code, out, _ = run("generate", PROMPT, "-o", str(file), "--steps", "3", "--seed", "5")
    assert (code, out.strip()) == (0, str(file))
    with Image.open(file) as image:
        recipe = json.loads(image.info["refdiff"])
        assert image.size == (64, 64)
        first = np.asarray(image).copy()
    assert recipe["prompt"] == PROMPT
    assert (recipe["seed"], recipe["steps"], recipe["rng"], recipe["sampler"]) == ([5], 3, "torch", "DDIMScheduler")
    assert len(recipe["model"]["fingerprint"]) == 64
    again = tmp_path / "again.png"
    options = [f"--{name}={recipe[name]}" for name in ("steps", "guidance", "rng", "width", "height", "dtype", "kernels")]
    assert run("generate", recipe["prompt"], "-o", str(again), f"--seed={recipe['seed'][0]}", *options)[0] == 0
    with Image.open(again) as image:
        np.testing.assert_array_equal(np.asarray(image), first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.png", "out.png"]


def test_several_pictures_are_those_of_their_seeds(run, tmp_path):
    assert run("generate", PROMPT, "-o", str(tmp_path / "a.png"), "--steps", "2", "--count", "2", "--seed", "8")[0] == 0
    assert run("generate", PROMPT, "-o", str(tmp_path / "b.png"), "--steps", "2", "--seed", "9")[0] == 0
    with (
        Image.open(tmp_path / "a-2.png") as second,
        Image.open(tmp_path / "b.png") as alone,
        Image.open(tmp_path / "a-1.png") as first,
    ):
        np.testing.assert_array_equal(np.asarray(second), np.asarray(alone))
        assert (np.asarray(first) != np.asarray(alone)).any()


def test_begins_with_a_picture(run, tmp_path):
    """Little of it is changed by little strength, and most steps are left out."""
    first, near, far = (tmp_path / name for name in ("first.png", "near.png", "far.png"))
    assert run("generate", PROMPT, "-o", str(first), "--steps", "8")[0] == 0
    for file, strength in ((near, "0.125"), (far, "1.0")):
        folder = tmp_path / file.stem
        options = ["--image", str(first), "--strength", strength, "--steps", "8", "--save-steps", str(folder), "--seed", "9"]
        assert run("generate", PROMPT, "-o", str(file), *options)[0] == 0
    levels = [np.asarray(Image.open(file), dtype=float) for file in (first, near, far)]
    assert np.abs(levels[1] - levels[0]).mean() < 0.3 * np.abs(levels[2] - levels[0]).mean()
    assert [path.name for path in (tmp_path / "near").iterdir()] == ["step-008.png"]


def test_saves_the_picture_at_every_step(run, tmp_path):
    steps = tmp_path / "steps"
    assert run("generate", PROMPT, "-o", str(tmp_path / "a.png"), "--steps", "3", "--save-steps", str(steps))[0] == 0
    assert sorted(path.name for path in steps.iterdir()) == ["step-001.png", "step-002.png", "step-003.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bogus"], "--bogus"),
        (["--steps", "0"], "0 steps"),
        (["--steps", "1001"], "1001 steps"),
        (["--width", "63"], "multiple of 4"),
        (["--height", "-4"], "multiple of 4"),
        (["--sampler", "magic"], "`refdiff samplers` lists all"),
        (["--rng", "dice"], "torch"),
        (["--dtype", "float8"], "float32"),
        (["--kernels", "warp"], "spec"),
        (["--device", "abacus"], "cpu"),
        (["--seed", "-1"], "seed"),
        (["--guidance", "nan"], "guidance"),
        (["--eta", "3"], "eta"),
        (["--count", "0"], "count"),
        (["--count", "2", "--seed", str(2**64 - 1)], "seed"),
        (["--save-steps", __file__], "--save-steps"),
        (["--strength", "0.5"], "give an image too"),
        (["--image", "no-such.png"], "no-such.png cannot be read"),
        (["--model", "no/such/model"], "no/such/model"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(run, tmp_path, arguments, words):
    code, _, err = run("generate", PROMPT, "-o", str(tmp_path / "a.png"), *arguments)
    assert code == 2
    assert words in one_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "words"), [("missing/a.png", "does not exist"), ("a.jpg", ".png"), (".", ".png"), ("folder.png", "is a folder")]
)
def test_an_output_that_cannot_be_is_refused_before_drawing(run, tmp_path, output, words):
    (tmp_path / "folder.png").mkdir()
    code, _, err = run("generate", PROMPT, "-o", str(tmp_path / output))
    assert code == 2
    assert words in one_line(err)


def test_a_folder_that_is_no_model(run, tmp_path):
    code, _, err = run("generate", PROMPT, "-o", str(tmp_path / "a.png"), "--model", str(tmp_path))
    assert code == 2
    assert "model_index.json" in one_line(err)


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = run("generate", PROMPT, "-o", str(tmp_path / "a.png"), "--steps", "1")
    assert code == 2
    assert "disk" in one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_a_long_prompt_is_cut_with_a_warning_that_names_the_part(run, tmp_path):
    code, _, err = run("generate", "a red circle " * 12 + "square", "-o", str(tmp_path / "a.png"), "--steps", "1")
    assert code == 0
    warning = next(line for line in err.splitlines() if "cut off" in line)
    assert warning.endswith('square"')


def test_words_that_were_never_taught_are_named(run, tmp_path):
    code, _, err = run("generate", "a purple elephant", "-o", str(tmp_path / "a.png"), "--steps", "1")
    assert code == 0
    assert "elephant" in err
    assert "purple" not in err.replace("a purple elephant", "")
    assert PROMPT in err


def test_words_of_the_negative_prompt_are_looked_at_too(run, tmp_path):
    code, _, err = run("generate", PROMPT, "--negative", "zebra", "-o", str(tmp_path / "a.png"), "--steps", "1")
    assert code == 0
    assert "--negative: " in err and "zebra" in err


def test_no_command_shows_what_there_is(run):
    code, _, err = run()
    assert code == 2
    assert "Commands:\n" in err and "generate" in err


@pytest.mark.parametrize("wrong", [["--images", "nowhere"], ["--start", "nowhere"], ["--seed", "-1"], ["--device", "abacus"]])
def test_a_training_that_is_refused_leaves_nothing(run, tmp_path, wrong):
    code, _, err = run("train", "vae", str(tmp_path / "run"), "--steps", "2", *wrong)
    assert code == 2
    one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_a_training_in_a_file_is_refused(run, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run("train", "vae", str(tmp_path / "file"), "--steps", "2")
    assert code == 2
    assert "cannot be written" in one_line(err)


def test_an_empty_prompt_is_fine(run, tmp_path):
    assert run("generate", "", "-o", str(tmp_path / "a.png"), "--steps", "1")[0] == 0


def test_inspect_says_what_the_embedded_model_is(run):
    code, out, _ = run("inspect")
    assert code == 0
    assert "UNet2DConditionModel" in out
    assert "in all" in out


def test_inspect_answers_no_for_a_damaged_model(run, tmp_path):
    assert run("synth", "tiny", str(tmp_path / "m"))[0] == 0
    weights = next((tmp_path / "m" / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    code, out, _ = run("inspect", str(tmp_path / "m"))
    assert code == 1
    assert "problem" in out
    code, _, err = run("generate", PROMPT, "-o", str(tmp_path / "a.png"), "--model", str(tmp_path / "m"))
    assert code == 2
    assert weights.name in one_line(err)


def test_inspect_answers_no_for_parts_of_different_models(run, tmp_path):
    assert run("synth", "tiny", str(tmp_path / "m"))[0] == 0
    assert run("inspect", str(tmp_path / "m"))[0] == 0
    shutil.rmtree(tmp_path / "m" / "text_encoder")
    shutil.copytree(weights_dir() / "embedded" / "text_encoder", tmp_path / "m" / "text_encoder")
    code, out, _ = run("inspect", str(tmp_path / "m"))
    assert code == 1
    assert "the parts are of different models" in out


@pytest.mark.parametrize("command", [[], ["generate"], ["inspect"], ["synth"], ["train"], ["train", "vae"], ["train", "unet"]])
def test_every_help_shows_an_example(command):
    result = CliRunner().invoke(cli.refdiff, [*command, "--help"], prog_name="refdiff")
    assert result.exit_code == 0
    assert "Example: refdiff" in result.output


def test_it_runs_as_a_module_too():
    found = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert found.stdout == f"refdiff, version {__version__}\n"


def test_interrupt_leaves_no_half_written_file(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "generate", PROMPT, "-o", str(tmp_path / "a.png"), "--steps", "900", "--count", "3"],
        stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored where the tests run in the background
    )  # fmt: skip
    seen = ""
    while "1/2700" not in seen:  # the loop has begun
        seen += process.stderr.read(1)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
