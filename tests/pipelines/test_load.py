"""Opening a model: by path, by name, or the embedded one; a folder that cannot be read names the file that is at fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import refdiff
from refdiff.core.params import flatten
from refdiff.errors import BadRequest
from refdiff.pipelines.load import DEFAULTS, fingerprint, model_folder
from refdiff.weights_path import weights_dir

WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors",
           "text_encoder": "model.safetensors"}  # fmt: skip


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of a model, for a test to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_nothing_named_is_the_embedded_model(embedded):
    assert model_folder(None) == model_folder("embedded") == weights_dir() / "embedded"
    assert embedded.source["name"] == "embedded"
    assert {"steps", "guidance", "example"} <= set(embedded.defaults)
    assert (embedded.device, embedded.dtype, embedded.kernels) == ("cpu", "float32", "fast")


def test_a_path_may_be_text(tiny_folder, tiny):
    pipe = refdiff.load(str(tiny_folder), dtype="float64")
    assert pipe.source == tiny.source
    assert pipe.defaults == DEFAULTS
    for component in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert {value.dtype for value in flatten(component.params).values()} == {np.dtype(np.float64)}
    weight = flatten(tiny.unet.params)["conv_in.weight"]
    np.testing.assert_array_equal(pipe.unet.params.conv_in.weight, weight)


def test_what_a_model_says_of_itself(folder):
    (folder / "refdiff.json").write_text('{"steps": 3}')
    assert refdiff.load(folder).defaults == {**DEFAULTS, "steps": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, 'unknown dtype "float8": choose one of float32, float64'),
        ({"kernels": "slow"}, 'unknown kernels "slow": choose one of spec, fast'),
        ({"device": "abacus"}, "abacus"),
    ],
    ids=str,
)
def test_unknown_choices_are_refused(options, message, tiny_folder):
    with pytest.raises(BadRequest) as raised:
        refdiff.load(tiny_folder, **options)
    assert message in str(raised.value)


def overwrite(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def without(name: str):
    return lambda folder: (folder / name).unlink()


def not_a_number(folder: Path) -> None:
    path = folder / "vae" / WEIGHTS["vae"]
    weights = load_file(path)
    weights["decoder.conv_out.bias"][0] = np.nan
    save_file(weights, path)


def cut_short(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS["unet"]
    path.write_bytes(path.read_bytes()[:-10])


SPOILT = {
    "no index": (without("model_index.json"), "model_index.json"),
    "an index that is no JSON": (overwrite("model_index.json", "{"), "model_index.json"),
    "no scheduler": (without("scheduler/scheduler_config.json"), "scheduler_config.json cannot be read"),
    "a scheduler that is no JSON": (overwrite("scheduler/scheduler_config.json", "{"), "scheduler_config.json cannot be read"),
    "a scheduler that is a list": (overwrite("scheduler/scheduler_config.json", "[]"), "does not hold a JSON object"),
    "a word about itself that is no JSON": (overwrite("refdiff.json", "steps"), "refdiff.json cannot be read"),
    "no configuration": (without("unet/config.json"), "unet"),
    "a configuration that is no JSON": (overwrite("vae/config.json", "vae"), "vae"),
    "no weights": (without(f"unet/{WEIGHTS['unet']}"), "unet"),
    "weights cut short": (cut_short, WEIGHTS["unet"]),
    "weights that are no weights": (overwrite(f"text_encoder/{WEIGHTS['text_encoder']}", "weights"), WEIGHTS["text_encoder"]),
    "a weight that is not a number": (not_a_number, "decoder.conv_out.bias"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_folder_that_cannot_be_read_names_what_is_at_fault(name, folder):
    spoil, at_fault = SPOILT[name]
    spoil(folder)
    with pytest.raises(BadRequest) as raised:
        refdiff.load(folder)
    assert at_fault in str(raised.value) and str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("named", ["nowhere", "no/where", "../embedded", ""])
def test_a_model_that_is_not_there(named):
    with pytest.raises(BadRequest):
        refdiff.load(named)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadRequest, match="is a file: name a folder in the diffusers layout"):
        refdiff.load(tmp_path / "model.safetensors")


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(BadRequest, match=r"model_index\.json"):
        refdiff.load(tmp_path)


def test_a_fingerprint_tells_models_apart(folder):
    first = fingerprint(folder)
    assert len(first) == 64 and fingerprint(folder) == first
    (folder / "refdiff.json").write_text("{}")  # not part of what is computed
    assert fingerprint(folder) == first
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "norm_eps": 1e-4}))
    second = fingerprint(folder)
    path = folder / "vae" / WEIGHTS["vae"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert len({first, second, fingerprint(folder)}) == 3


def test_a_fingerprint_does_not_depend_on_where_the_model_lies(folder, tiny):
    assert fingerprint(folder) == tiny.source["fingerprint"]
