"""Parameter trees: the path of a parameter is its key, both ways, and errors name it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.core.params import Leaf, flatten, flatten_declaration, join, map_arrays, numbered, tree

FLAT = {
    "conv_in.weight": np.ones((2, 1)),
    "down_blocks.0.resnets.0.norm1.weight": np.zeros(2),
    "down_blocks.0.resnets.1.norm1.weight": np.ones(2),
    "down_blocks.1.downsamplers.0.conv.bias": np.full(3, 2.0),
}


def test_reads_by_attribute_and_position():
    p = tree(FLAT)
    assert p.conv_in.weight is FLAT["conv_in.weight"]
    assert p.down_blocks[0].resnets[1].norm1.weight is FLAT["down_blocks.0.resnets.1.norm1.weight"]
    assert [len(block.names()) for block in p.down_blocks] == [1, 1]
    assert len(p.down_blocks[0].resnets) == 2
    assert "downsamplers" in p.down_blocks[1]
    assert "downsamplers" not in p.down_blocks[0]
    assert "path" not in p.down_blocks[0].names()


def test_every_node_knows_its_path():
    p = tree(FLAT)
    assert (p.path, p.conv_in.path, p.down_blocks[0].resnets[1].path) == ("", "conv_in", "down_blocks.0.resnets.1")
    assert repr(p.down_blocks[1]) == "<parameters down_blocks.1: downsamplers>"
    assert repr(p) == "<parameters (root): conv_in, down_blocks>"


def test_a_missing_name_is_told_with_its_path_and_its_neighbours():
    p = tree(FLAT)
    with pytest.raises(AttributeError, match=r"no parameter down_blocks\.1\.resnets; here are downsamplers"):
        _ = p.down_blocks[1].resnets
    with pytest.raises(AttributeError, match="no parameter conv_out; here are conv_in, down_blocks"):
        _ = p.conv_out
    with pytest.raises(IndexError, match=r"no parameter down_blocks\.2"):
        _ = p.down_blocks[2]
    assert not hasattr(p, "conv_out")


def test_the_list_positions_keep_their_order_beyond_ten():
    flat = {f"layers.{i}.weight": np.full(1, i) for i in range(12)}
    assert [int(layer.weight[0]) for layer in tree(flat).layers] == list(range(12))


names = st.sampled_from(["a", "b", "conv", "0", "1", "2"])


@given(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=8))
def test_flatten_undoes_tree(paths):
    keys = {".".join(path) for path in paths}
    leaves = {key for key in keys if not any(other.startswith(key + ".") for other in keys)}
    flat = {key: np.full(2, i) for i, key in enumerate(sorted(leaves))}
    again = flatten(tree(flat))
    assert set(again) == set(flat)
    assert all(again[key] is flat[key] for key in flat)


def test_map_arrays_changes_the_values_alone():
    p = tree(FLAT)
    doubled = map_arrays(lambda a: a * 2, p)
    assert list(flatten(doubled)) == list(flatten(p))
    np.testing.assert_array_equal(doubled.down_blocks[1].downsamplers[0].conv.bias, np.full(3, 4.0))
    np.testing.assert_array_equal(p.down_blocks[1].downsamplers[0].conv.bias, np.full(3, 2.0))


def test_copies_and_pickles():
    p = tree(FLAT)
    for again in (copy.deepcopy(p), pickle.loads(pickle.dumps(p)), copy.copy(p)):
        assert list(flatten(again)) == list(flatten(p))
        assert again.down_blocks[0].resnets.path == "down_blocks.0.resnets"


def test_a_declaration_flattens_in_its_order():
    weight, bias = Leaf((3, 2, 5, 5), "weight"), Leaf((3,), "bias")
    declaration = {"blocks": numbered([{"conv": {"weight": weight, "bias": bias}}, {"gain": bias}]), "last": weight}
    assert list(flatten_declaration(declaration).items()) == [
        ("blocks.0.conv.weight", weight),
        ("blocks.0.conv.bias", bias),
        ("blocks.1.gain", bias),
        ("last", weight),
    ]
    assert (weight.fan_in, bias.fan_in) == (50, 1)
    assert flatten_declaration({"w": weight}, "unet") == {"unet.w": weight}
    assert (join("", "a"), join("a.b", "c")) == ("a", "a.b.c")
