"""Opening and saving a component: every key used once, and one clear error for every wrong file."""

import json
import os

import numpy as np
import pytest

from refdiff.checkpoints import CheckpointError, check_finite, open_component, read_safetensors, save_component
from refdiff.checkpoints.tensor_file import narrow_bfloat16, widen_bfloat16
from refdiff.core.params import flatten, map_arrays, tree
from refdiff.errors import BadRequest
from tests.checkpoints.conftest import random_weights
from tests.checkpoints.folders import TEXT_ENCODER, VAE, write_by_hand, write_config

POSITION = "text_model.embeddings.position_embedding.weight"
FC1 = "text_model.encoder.layers.1.mlp.fc1.weight"
MODEL = "model.safetensors"


def assert_same(params, weights):
    flat = flatten(params)
    assert sorted(flat) == sorted(weights)
    for key, value in weights.items():
        np.testing.assert_array_equal(flat[key], value, err_msg=key)


def refused(folder, name="text_encoder", **options):
    with pytest.raises(CheckpointError) as caught:
        open_component(folder, name, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_component_opens_as_views_in_the_order_of_the_declaration(text_folder, text_weights):
    config, params = open_component(text_folder, "text_encoder", check_values=False)
    assert config.hidden_size == 6 and list(flatten(params)) == list(text_weights)
    assert_same(params, text_weights)
    for value in flatten(params).values():
        assert not value.flags.owndata and not value.flags.writeable


def test_a_key_may_stand_without_its_prefix(text_folder, text_weights):
    bare = {key.removeprefix("text_model."): value for key, value in text_weights.items()}
    write_by_hand(text_folder / "text_encoder" / MODEL, bare)
    assert_same(open_component(text_folder, "text_encoder")[1], text_weights)


@pytest.mark.parametrize("prefix", ["text_model.", ""])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_the_positions_of_old_files_are_passed_over_if_they_count(text_folder, text_weights, prefix, dtype):
    positions = {f"{prefix}embeddings.position_ids": np.arange(5, dtype=dtype)[None]}
    write_by_hand(text_folder / "text_encoder" / MODEL, {**text_weights, **positions})
    assert_same(open_component(text_folder, "text_encoder")[1], text_weights)


@pytest.mark.parametrize("positions", [np.arange(5)[::-1], np.arange(6), np.arange(1, 6), np.zeros((5, 1), np.int64)])
def test_positions_that_do_not_count_are_refused(text_folder, text_weights, positions):
    key = "text_model.embeddings.position_ids"
    write_by_hand(text_folder / "text_encoder" / MODEL, {**text_weights, key: positions})
    error = refused(text_folder)
    assert error.key == key and "is not 0, 1, ..., 4" in str(error)


@pytest.mark.parametrize("axes", [0, 2])
def test_the_old_attention_of_an_autoencoder(vae_folder, axes):
    weights = random_weights(VAE)
    old = {}
    for key, value in weights.items():
        is_projection = ".attentions." in key and ".to_" in key
        for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value.reshape(value.shape + (1,) * axes) if is_projection and value.ndim == 2 else value
    assert len(set(old) - set(weights)) == 16
    write_by_hand(vae_folder / "vae" / "diffusion_pytorch_model.safetensors", old)
    assert_same(open_component(vae_folder, "vae")[1], weights)


def spoil(weights, case):
    w = dict(weights)
    if case == "missing":
        del w[FC1]
    elif case == "unknown":
        w["text_projection.weight"] = np.zeros((6, 6), np.float32)
    elif case == "misshapen":
        w[FC1] = np.ascontiguousarray(w[FC1].T)
    elif case == "flattened":
        w[FC1] = w[FC1].reshape(-1)
    elif case == "twice":
        w[FC1.removeprefix("text_model.")] = w[FC1]
    elif case == "integers":
        w[FC1] = np.zeros(w[FC1].shape, np.int64)
    elif case == "NaN":
        w[FC1] = w[FC1].copy()
        w[FC1][5, 2] = np.nan
    elif case == "infinite":
        w[FC1] = w[FC1].astype(np.float16)
        w[FC1][0, 3] = -np.inf
    return w


@pytest.mark.parametrize(
    ("case", "key", "words"),
    [
        ("missing", FC1, "is missing; CLIPTextModel with this config.json needs it"),
        ("unknown", "text_projection.weight", "is not a parameter of CLIPTextModel"),
        ("misshapen", FC1, "has the shape [6, 7]; CLIPTextModel with this config.json needs [7, 6]"),
        ("flattened", FC1, "has the shape [42]"),
        ("twice", FC1.removeprefix("text_model."), "is another spelling"),
        ("integers", FC1, "has the dtype I64"),
        ("NaN", FC1, "holds nan at [5, 2]"),
        ("infinite", FC1, "holds -inf at [0, 3]"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(text_folder, text_weights, case, key, words):
    path = text_folder / "text_encoder" / MODEL
    write_by_hand(path, spoil(text_weights, case))
    error = refused(text_folder)
    assert error.key == key and error.file == path and words in str(error)
    assert repr(key) in str(error) and str(path) in str(error)


def test_the_number_of_further_wrong_keys_is_told(text_folder, text_weights):
    kept = {key: value for key, value in text_weights.items() if "layers.1" not in key}
    write_by_hand(text_folder / "text_encoder" / MODEL, kept)
    assert "(and 15 more)" in str(refused(text_folder))


def test_values_are_checked_where_asked_or_where_it_costs_nothing(text_folder, text_weights, monkeypatch):
    write_by_hand(text_folder / "text_encoder" / MODEL, spoil(text_weights, "NaN"))
    _, params = open_component(text_folder, "text_encoder", check_values=False)
    with pytest.raises(CheckpointError, match=f"somewhere: tensor '{FC1}' holds nan"):
        check_finite(params, "somewhere")
    monkeypatch.setattr("refdiff.checkpoints.component.CHECKED_AT_ONCE", 1000)
    open_component(text_folder, "text_encoder")
    assert refused(text_folder, check_values=True).key == FC1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_among_many_is_found(dtype, bad):
    x = np.full((3, 200_001), np.finfo(dtype).max, dtype)
    x[1, 1:] = -np.finfo(dtype).max
    check_finite(tree({"a.x": x}), "w")
    x[2, 77_777] = bad
    with pytest.raises(CheckpointError, match=r"tensor 'a.x' holds .* at \[2, 77777\]"):
        check_finite(tree({"a.x": x}), "w")
    check_finite(tree({"none": np.zeros((0, 3), dtype), "scalar": np.ones((), dtype)}), "w")


def test_of_several_damaged_tensors_the_first_is_named():
    """Whichever is found first: a small one is looked through long before a large one that stands before it."""
    large, small = np.ones((1 << 22), np.float32), np.full(3, np.inf, np.float32)
    large[-1] = np.nan
    for _ in range(5):
        with pytest.raises(CheckpointError, match="tensor 'b' holds nan"):
            check_finite(tree({"a": np.ones(3, np.float32), "b": large, "c": small}), "w")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "must hold an object"),
        ('{"hidden_size": 6, "hidden_size": 8}', "'hidden_size' stands twice"),
        ("{}", "names no architecture"),
        ('{"_class_name": "Transformer9"}', "architecture 'Transformer9', which is unknown; known are AutoencoderKL"),
        ('{"_class_name": ["CLIPTextModel"]}', "names no architecture"),
        (json.dumps({**TEXT_ENCODER, "hidden_size": "six"}), "option hidden_size = 'six'"),
        (json.dumps({**TEXT_ENCODER, "rope_theta": 9}), "unknown option rope_theta"),
        (json.dumps({**VAE, "down_block_types": 3}), "AutoencoderKL"),
    ],
)
def test_a_wrong_config_is_one_line_with_its_file(text_folder, config, words):
    (text_folder / "text_encoder" / "config.json").write_text(config)
    error = refused(text_folder)
    assert words in str(error) and str(error).startswith(str(text_folder / "text_encoder" / "config.json"))


def test_the_architecture_may_be_named_by_its_model_type(text_folder, text_weights):
    named = {key: value for key, value in TEXT_ENCODER.items() if key != "architectures"}
    write_config(text_folder / "text_encoder", named)
    assert_same(open_component(text_folder, "text_encoder")[1], text_weights)


def test_a_missing_folder_component_or_config_is_named(text_folder):
    assert "is not a folder" in str(refused(text_folder / "nowhere"))
    assert "has no component 'unet'; here are text_encoder" in str(refused(text_folder, "unet"))
    os.remove(text_folder / "text_encoder" / "config.json")
    assert "config.json: cannot be read: No such file" in str(refused(text_folder))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", [TEXT_ENCODER, VAE], ids=["text_encoder", "vae"])
def test_what_is_saved_is_opened_again(text_folder, tmp_path, dtype, kind):
    weights = random_weights(kind)
    write_config(tmp_path / "source", kind)
    write_by_hand(tmp_path / "source" / MODEL, weights)
    config, params = open_component(tmp_path, "source")
    save_component(tmp_path / "new", "part", config, params, dtype=dtype)
    again, back = open_component(tmp_path / "new", "part")
    assert again == config
    round_off = (lambda x: widen_bfloat16(narrow_bfloat16(x))) if dtype == "bfloat16" else (lambda x: x.astype(dtype))
    assert_same(back, {key: round_off(value) for key, value in weights.items()})
    name = "diffusion_pytorch_model.safetensors" if kind is VAE else MODEL
    assert sorted(os.listdir(tmp_path / "new" / "part")) == sorted(["config.json", name])
    assert set(read_safetensors(tmp_path / "new" / "part" / name)) == set(weights)  # canonical names


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [("float16", 65519.0, True), ("float16", -65520.0, False), ("bfloat16", 3.3e38, True), ("bfloat16", 3.4e38, False)],
)
def test_what_a_dtype_would_make_infinite_is_not_written(text_folder, tmp_path, dtype, value, fits):
    config, params = open_component(text_folder, "text_encoder")
    params = map_arrays(lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.float32(value), x), params)
    if fits:
        save_component(tmp_path / "new", "te", config, params, dtype=dtype)
        open_component(tmp_path / "new", "te", check_values=True)
    else:
        with pytest.raises(CheckpointError, match=f"beyond the range of {dtype}: nothing was written; choose float32"):
            save_component(tmp_path / "new", "te", config, params, dtype=dtype)
        assert not (tmp_path / "new").exists()


def test_wrong_parameters_are_not_saved(text_folder, text_weights, tmp_path):
    config, _ = open_component(text_folder, "text_encoder")
    for case, words in (
        ("missing", f"parameter {FC1} is missing"),
        ("unknown", "parameter text_projection.weight is not one of this configuration"),
        ("misshapen", rf"parameter {FC1} has the shape \[6, 7\]; the configuration needs \[7, 6\]"),
        ("NaN", r"would hold nan at \[5, 2\]: nothing was written"),
    ):
        with pytest.raises(BadRequest, match=words):
            save_component(tmp_path / "new", "te", config, tree(spoil(text_weights, case)), dtype="float32")
    with pytest.raises(BadRequest, match='unknown dtype "half"'):
        save_component(tmp_path / "new", "te", config, tree(text_weights), dtype="half")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_another_layout_is_not_mixed(text_folder, text_weights):
    config, params = open_component(text_folder, "text_encoder")
    index = text_folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(BadRequest, match="holds model.safetensors.index.json already"):
        save_component(text_folder, "text_encoder", config, params, dtype="float16")
    index.unlink()
    save_component(text_folder, "text_encoder", config, params, dtype="float16")
    assert open_component(text_folder, "text_encoder")[1].text_model.final_layer_norm.bias.dtype == np.float16
    assert_same(params, text_weights)  # the mapped old file is still whole
