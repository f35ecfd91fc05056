"""Where the weights lie: single files, variants, shards with an index, and every contradiction between them."""

import json

import numpy as np
import pytest

from refdiff.checkpoints import CheckpointError, open_component
from refdiff.core.params import flatten
from tests.checkpoints.folders import write_by_hand

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(text_folder, text_weights):
    """The small text encoder in three files with an index; its folder, and the map from key to file."""
    folder = text_folder / "text_encoder"
    (folder / "model.safetensors").unlink()
    places = {key: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, key in enumerate(text_weights)}
    for name in set(places.values()):
        write_by_hand(folder / name, {key: text_weights[key] for key, file in places.items() if file == name})
    write_index(folder, places)
    return folder, places


def write_index(folder, places):
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def refused(folder, **options):
    with pytest.raises(CheckpointError) as caught:
        open_component(folder.parent, folder.name, **options)
    return caught.value


def test_shards_open_as_one(sharded, text_weights):
    folder, _ = sharded
    flat = flatten(open_component(folder.parent, "text_encoder")[1])
    assert list(flat) == list(text_weights)
    assert all(np.array_equal(flat[key], value) for key, value in text_weights.items())


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_pytorch_model.safetensors",
        "model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "model.fp16.safetensors",
    ],
)
def test_every_name_of_a_single_file(text_folder, name):
    folder = text_folder / "text_encoder"
    (folder / "model.safetensors").rename(folder / name)
    assert open_component(text_folder, "text_encoder")[0].hidden_size == 6


@pytest.mark.parametrize("name", ["model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"])
def test_shards_of_a_variant(sharded, name):
    folder, _ = sharded
    (folder / INDEX).rename(folder / name)
    assert open_component(folder.parent, "text_encoder")[0].hidden_size == 6


def test_full_precision_comes_before_the_variant(text_folder, text_weights):
    halves = {key: value.astype(np.float16) for key, value in text_weights.items()}
    write_by_hand(text_folder / "text_encoder" / "model.fp16.safetensors", halves)
    _, params = open_component(text_folder, "text_encoder")
    assert params.text_model.final_layer_norm.bias.dtype == np.float32


def test_two_layouts_at_once_are_refused(sharded, text_weights):
    folder, _ = sharded
    write_by_hand(folder / "model.safetensors", text_weights)
    assert f"holds both model.safetensors and {INDEX}: remove the one" in str(refused(folder))


def test_a_shard_that_is_missing_is_named_with_a_key(sharded):
    folder, places = sharded
    name = "model-00002-of-00003.safetensors"
    (folder / name).unlink()
    error = refused(folder)
    assert error.file == folder / INDEX and places[error.key] == name and f"should be in {name}" in str(error)


def test_a_key_that_its_shard_lacks_is_named(sharded):
    folder, places = sharded
    name = "model-00001-of-00003.safetensors"
    write_index(folder, {**places, "text_model.more": name})
    error = refused(folder)
    assert error.file == folder / name and error.key == "text_model.more" and "is missing, though" in str(error)


def test_a_key_that_the_index_does_not_know_is_named(sharded):
    folder, places = sharded
    key, name = next(iter(places.items()))
    write_index(folder, {k: v for k, v in places.items() if k != key})
    error = refused(folder)
    assert error.file == folder / name and error.key == key and "does not place it here" in str(error)


def test_a_key_in_two_shards_is_named(sharded, text_weights):
    folder, places = sharded
    keys = list(places)
    write_by_hand(folder / places[keys[1]], {k: text_weights[k] for k in keys if places[k] == places[keys[1]] or k == keys[0]})
    error = refused(folder)
    assert error.key == keys[0] and error.file == folder / places[keys[1]]


def test_a_missing_parameter_is_laid_to_the_index_and_a_bad_value_to_its_shard(sharded, text_weights):
    folder, places = sharded
    key, name = list(places.items())[4]
    spoiled = {k: text_weights[k] * (np.nan if k == key else 1) for k in places if places[k] == name}
    write_by_hand(folder / name, spoiled)
    assert (refused(folder).key, refused(folder).file) == (key, folder / name)
    write_by_hand(folder / name, {k: v for k, v in spoiled.items() if k != key})
    write_index(folder, {k: v for k, v in places.items() if k != key})
    assert (refused(folder).key, refused(folder).file) == (key, folder / INDEX)


@pytest.mark.parametrize(
    "name", ["../w.safetensors", "/w.safetensors", "a/w.safetensors", "a\\w.safetensors", "w.bin", "\0.safetensors"]
)
def test_an_index_may_not_name_files_elsewhere(sharded, name):
    folder, places = sharded
    write_index(folder, dict.fromkeys(places, name))
    assert "is not a safetensors file beside it" in str(refused(folder))


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(sharded, text):
    folder, _ = sharded
    (folder / INDEX).write_text(text)
    assert "has no weight_map" in str(refused(folder))


def test_no_weights_and_pickled_weights_are_told_apart(text_folder):
    folder = text_folder / "text_encoder"
    (folder / "model.safetensors").unlink()
    assert "holds no weights: diffusion_pytorch_model.safetensors or model.safetensors is missing" in str(refused(folder))
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "holds pytorch_model.bin, a pickle, which can run any code" in str(refused(folder))
