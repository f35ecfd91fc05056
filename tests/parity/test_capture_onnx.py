"""A program in ONNX Runtime, captured without an edit: right where it is right, and its bugs, put into the graph, are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from refdiff.errors import BadRequest
from refdiff.golden.added import compare_with
from refdiff.golden.capture_onnx import capture_onnx
from refdiff.golden.compare import FAIL, MISSING, PASS
from refdiff.golden.diagnosis import diagnose
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting
from tests.parity.golden import bounded, opened
from tests.parity.onnx_program import FILES, Program, export

ASKED = {"prompt": "a red circle", "negative_prompt": "blue", "steps": 2, "guidance": 5.0, "eta": 0.0, "seed": 1}
SIZE = {"width": 40, "height": 36}
LATENT = (9, 10)
NOT_SHOWN = {"text_encoder/pooled", "noise/initial", "latents/initial", "pixels/image", "schedule/sigmas"}
NOT_EXPOSED = {"text_encoder/text_model.embeddings.position_embedding"}  # a constant that the newer exporter folds


@pytest.fixture(scope="module")
def golden(pipe):
    made = record(pipe, detail="layers", **ASKED, **SIZE)
    return Setting.of(pipe, made.manifest["inputs"]), made


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory) -> Path:
    """The files of the older exporter."""
    target = tmp_path_factory.mktemp("exported")
    export(opened(folder, "float32"), target, LATENT, dynamo=False)
    return target


@pytest.fixture(scope="module")
def newer(folder, tmp_path_factory) -> Path:
    """The files of the newer exporter, which takes half a minute."""
    target = tmp_path_factory.mktemp("newer")
    export(opened(folder, "float32"), target, LATENT, dynamo=True)
    return target


def drawn(program, golden) -> np.ndarray:
    """The picture of what the golden trace was asked for."""
    _, trace = golden
    told = {name: ASKED[name] for name in ("steps", "guidance")}
    return program.draw(trace.tensors["noise/initial"], ASKED["prompt"], ASKED["negative_prompt"], **told)


def captured(files, folder, golden):
    """The program's run, its sessions made before they are watched."""
    program = Program(files, opened(folder, "float32"))
    with capture_onnx(**{name: files / file for name, file in FILES.items()}, scheduler=program.scheduler) as trace:
        drawn(program, golden)
    return trace


@pytest.mark.parametrize("exporter", ["exported", "newer"])
def test_a_right_program_passes_in_every_layer(request, folder, golden, exporter):
    trace = captured(request.getfixturevalue(exporter), folder, golden)
    report = compare_with(golden[0], trace, golden[1])
    assert [(row.name, row.added, row.note) for row in report.rows if row.outcome == FAIL] == []
    missing = {row.name for row in report.rows if row.outcome == MISSING} - NOT_SHOWN - NOT_EXPOSED
    assert [name for name in missing if not name.endswith(("/guided", "/latents"))] == []
    assert report.count(PASS) > 400
    assert trace.notes == ("no prompt is empty: the text that was encoded last is taken for the negative prompt",)


def edited(files, target: Path, name: str, change) -> Path:
    """The exported files with a change in one graph."""
    for file in files.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    model = onnx.load(target / FILES[name])
    change(model.graph)
    onnx.save(model, target / FILES[name])
    return target


def larger_eps(graph) -> None:
    """The norm before each transformer with the other norms' eps, 1e-5 for 1e-6."""
    norms = [node for node in graph.node if "/attentions." in node.name and node.op_type == "InstanceNormalization"]
    assert len(norms) > 5
    for node in norms:
        (attribute,) = (a for a in node.attribute if a.name == "epsilon")
        assert attribute.f == np.float32(1e-6)
        attribute.f = 1e-5


def unscaled(graph) -> None:
    """Scores of attention that are not divided by the root of a head's width, half of which is put into each factor."""
    factors = {node.input[1] for node in graph.node if node.op_type == "Mul" and "/self_attn/" in node.name}
    constants = [node for node in graph.node if node.op_type == "Constant" and node.output[0] in factors]
    assert len(constants) == len(factors) > 0
    for node in constants:
        node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array(1.0, np.float32)))


def transposed_square(graph) -> None:
    """One square weight transposed."""
    (node,) = (node for node in graph.node if node.name == "/mid_block/attentions.0/transformer_blocks.0/attn1/to_v/MatMul")
    put(graph, node.input[1], lambda weight: weight.T)


def no_quant_conv(graph) -> None:
    """The convolution before the decoder does nothing."""
    put(graph, "post_quant_conv.weight", lambda weight: np.eye(len(weight))[:, :, None, None])
    put(graph, "post_quant_conv.bias", np.zeros_like)


def put(graph, name: str, change) -> None:
    """Another weight."""
    (weight,) = (weight for weight in graph.initializer if weight.name == name)
    changed = change(onnx.numpy_helper.to_array(weight)).astype(np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(changed), name))


BROKEN = {
    "gn-eps": ("unet", larger_eps),
    "attn-no-scale": ("text_encoder", unscaled),
    "w-square-T": ("unet", transposed_square),
    "vae-quant-conv": ("vae", no_quant_conv),
}


@pytest.fixture(scope="module")
def held(folder, golden, exported):
    """The golden trace with bounds that go by the right program."""
    return bounded(golden[1], golden[0], captured(exported, folder, golden))


@pytest.mark.parametrize("bug", BROKEN)
def test_a_bug_in_the_graph_is_named(folder, golden, held, exported, tmp_path, bug):
    theirs = captured(edited(exported, tmp_path, *BROKEN[bug]), folder, golden)
    finding = diagnose(golden[0], theirs, held).findings[0]
    assert finding.cause is not None, (finding.tensor, finding.added, finding.suspects[:3])
    assert finding.cause.mutants[0].id == bug, finding.suspects[:3]


def test_the_program_gets_what_it_would_get(folder, golden, exported):
    files = exported
    program = Program(files, opened(folder, "float32"))
    alone = drawn(program, golden)
    with capture_onnx(unet=files / FILES["unet"], vae=files / FILES["vae"], calls=(1,)) as trace:
        watched = drawn(program, golden)
    assert np.abs(watched - alone).max() < 1e-4
    np.testing.assert_array_equal(trace.tensors["vae/image"], watched)
    assert "steps/001/unet/conv_in" in trace.tensors
    assert "steps/000/unet/conv_in" not in trace.tensors
    np.testing.assert_array_equal(drawn(program, golden), alone)  # nothing is watched any more


def test_a_file_that_was_not_run_is_told(exported):
    with capture_onnx(vae=exported / FILES["vae"]) as trace:
        pass
    assert trace.tensors == {}
    assert trace.notes == ("vae_decoder.onnx was not run",)


def test_what_is_no_model_is_refused(tmp_path, exported):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff" * 100)
    swapped = exported / FILES["vae"]
    for asked in ({"unet": tmp_path / "none.onnx"}, {"unet": damaged}, {"unet": swapped}):
        with pytest.raises(BadRequest) as error, capture_onnx(**asked):
            pass
        assert len(str(error.value).splitlines()) == 1
