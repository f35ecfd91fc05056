"""The modules of an ONNX graph's values, read from names and metadata as torch's two exporters write them."""

from __future__ import annotations

import sys

import pytest

from refdiff.errors import BadRequest
from refdiff.golden.capture_onnx import capture_onnx
from refdiff.golden.onnx_scopes import SCOPES, Node, modules_of, results, rooted

BLOCK = ("down_blocks.0", "down_blocks.0.resnets.0", "down_blocks.0.resnets.0.conv1")


@pytest.mark.parametrize(
    ("outputs", "name", "metadata"),
    [
        (["/down_blocks.0/resnets.0/conv1/Conv_output_0"], "", {}),
        (["/down_blocks.0/resnets.0/conv1/Conv_output_0"], "fused/Conv", {}),
        (["last_hidden_state"], "/down_blocks.0/resnets.0/conv1/Conv", {}),
        (["conv2d_1"], "node_conv2d_1", {SCOPES: str(["", *BLOCK, "conv2d_1"])}),
    ],
)
def test_both_exporters_tell_the_modules(outputs, name, metadata):
    assert modules_of(outputs, name, metadata) == BLOCK


@pytest.mark.parametrize("text", ["", "[", "3", "['', 3, 'x']", "__import__('os')", "['', 'view']", "[" * 10000])
def test_a_node_outside_of_modules_tells_none(text):
    assert modules_of(["view"], "node_view", {SCOPES: text}) == ()
    assert modules_of(["/Constant_output_0"], "/Constant", {}) == ()
    assert modules_of(["sample"], "", {}) == ()


def chain(*modules: str, **taken: str) -> list[Node]:
    """Nodes 0, 1, ... each in a module (and in those around it), each taking the value before it and what `taken` says."""
    return [
        Node((str(k - 1), *taken.get(f"n{k}", "").split()), (str(k),), tuple(m[:i] for i in ends(m)))
        for k, m in enumerate(modules)
    ]


def ends(module: str) -> list[int]:
    return [i for i in range(1, len(module) + 1) if i == len(module) or module[i] == "."]


def test_the_result_of_a_module_is_its_last_value_that_others_take():
    found = results(chain("a", "a.b", "a.b", "a", "c"), {"4"})
    assert list(found.items()) == [("a.b", "2"), ("a", "3"), ("c", "4")]


def test_what_only_the_module_itself_takes_is_not_its_result():
    nodes = [Node(("x",), ("y", "mask"), ("a",)), Node(("y",), ("shape",), ("a",)), Node(("y",), ("z",), ("c",))]
    assert results(nodes, {"z"}) == {"a": "y", "c": "z"}
    assert results(nodes, {"z", "shape"}) == {"a": "shape", "c": "z"}


def test_a_module_within_another_ends_with_it():
    assert list(results(chain("a", "a.b", "c"), {"2"}).items()) == [("a.b", "1"), ("a", "1"), ("c", "2")]


def test_a_module_that_runs_again_is_left_out():
    assert set(results(chain("act", "conv", "act", "end"), {"3"})) == {"conv", "end"}
    assert set(results(chain("act", "conv", "act_1", "act_1.x", "end"), {"4"})) == {"conv", "end"}
    assert set(results(chain("linear_1", "act", "linear_2"), {"2"})) == {"linear_1", "act", "linear_2"}


def test_a_node_that_says_nothing_does_not_part_a_module():
    nodes = chain("a", "", "a", "c")
    assert nodes[1].modules == ()
    assert results(nodes, {"3"})["a"] == "2"


def test_a_network_within_other_modules_has_its_own_paths():
    found = {"wrap.conv_in": "1", "wrap.decoder.conv_in": "2", "wrap.mid": "3", "other": "4"}
    assert rooted(found, "conv_in") == {"conv_in": "1", "decoder.conv_in": "2", "mid": "3"}
    assert rooted({"conv_in": "1", "mid": "3"}, "conv_in") == {"conv_in": "1", "mid": "3"}
    assert rooted(found, "decoder") == {}


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_told_in_one_line(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    given = {} if package == "onnxruntime" else {"unet": "unet.onnx"}
    with pytest.raises(BadRequest, match="pip install onnx onnxruntime"), capture_onnx(**given):
        pass
