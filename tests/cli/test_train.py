"""A run goes on only with what it was begun with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refdiff.cli.train import note_command
from refdiff.errors import BadRequest
from refdiff.training.loop import STATE_FILE

OPTIONS = {"seed": 3, "images": None, "start": None, "vae": Path("runs/vae/model"), "steps": 10}
RECIPE = {"unet_batch": {"batch_size": 32, "time_quantiles": ((0.0, 1.0), (0.0, 1000.0))}}


def test_the_command_is_noted_beside_the_state(tmp_path):
    note_command(tmp_path, OPTIONS, RECIPE)
    told = json.loads((tmp_path / "command.json").read_text())
    assert told["command"].startswith("refdiff ")
    assert told["given"] == {"seed": "3", "images": None, "start": None, "vae": "runs/vae/model"}
    assert told["recipe"]["unet_batch"]["batch_size"] == 32


def test_the_same_again_goes_on(tmp_path):
    note_command(tmp_path, OPTIONS, RECIPE)
    (tmp_path / STATE_FILE).touch()
    note_command(tmp_path, OPTIONS, RECIPE)


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"images": Path("pictures")}, {"start": Path("m")}, {"vae": Path("other")}], ids=str
)
def test_other_data_is_refused(tmp_path, change):
    note_command(tmp_path, OPTIONS, RECIPE)
    before = (tmp_path / "command.json").read_text()
    note_command(tmp_path, {**OPTIONS, "steps": 20}, RECIPE)  # no state yet, and steps are the loop's business
    (tmp_path / STATE_FILE).touch()
    with pytest.raises(BadRequest, match=f"{next(iter(change))} .* name another folder"):
        note_command(tmp_path, {**OPTIONS, **change}, RECIPE)
    assert (tmp_path / "command.json").read_text() == before


def test_another_recipe_is_refused(tmp_path):
    note_command(tmp_path, OPTIONS, RECIPE)
    (tmp_path / STATE_FILE).touch()
    with pytest.raises(BadRequest, match="unet_batch"):
        note_command(tmp_path, OPTIONS, {"unet_batch": {"batch_size": 16}})


def test_other_data_is_refused_once_there_are_latents(tmp_path):
    note_command(tmp_path, OPTIONS, RECIPE)
    (tmp_path / "latents.npz").touch()
    with pytest.raises(BadRequest, match="vae runs/vae/model, not other: go on with that"):
        note_command(tmp_path, {**OPTIONS, "vae": Path("other")}, RECIPE)


@pytest.mark.parametrize("text", ["{", "[]", '{"given": 3}'])
def test_a_damaged_note_is_one_line(text, tmp_path):
    (tmp_path / STATE_FILE).touch()
    (tmp_path / "command.json").write_text(text)
    with pytest.raises(BadRequest, match="remove .*command.json"):
        note_command(tmp_path, OPTIONS, RECIPE)
