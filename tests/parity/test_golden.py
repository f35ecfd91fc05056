"""Golden traces with diffusers as the other program: filled by it; what is broken in its own modules is named.

Measured: float64 layers within 2e-15 of refdiff's; float32 ones within 5e-6 (the sinusoids of the time), the others 2e-6.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.golden.added import added_errors
from refdiff.golden.compare import MISSING, aligned, compare
from refdiff.golden.diagnosis import diagnose
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting
from refdiff.text import Tokenizer
from refdiff.weights_path import weights_dir
from tests.parity.broken import BUGS
from tests.parity.golden import bounded, captured, opened

ASKED = {
    "prompt": "a large red circle on a yellow background",
    "negative_prompt": "blue",
    "steps": 2,
    "guidance": 5.0,
    "eta": 0.5,
}
SIZES = {"tiny": {"width": 80, "height": 72}, "embedded": {"width": 64, "height": 48}}  # odd ones for the tiny model
# What modules do not show.
UNSEEN = {
    "text_encoder/pooled",
    "noise/initial",
    "latents/initial",
    "steps/000/guided",
    "steps/001/guided",
    "pixels/image",
    "schedule/sigmas",
}


@pytest.fixture(scope="session", params=["tiny", "embedded"])
def folder(request, tmp_path_factory) -> Path:
    if request.param == "embedded":
        return weights_dir() / "embedded"
    path = tmp_path_factory.mktemp("golden") / "tiny"
    write_synthetic("tiny", path, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return path


@pytest.fixture(scope="session")
def truth(folder) -> tuple:
    """The model in float64, and its golden trace."""
    pipe = refdiff.load(folder, dtype="float64", kernels="spec")
    return pipe, record(pipe, detail="layers", at=(0, 1), seed=3, **ASKED, **SIZES[folder.name])


def judged(pipe, theirs, golden):
    """The comparison by added errors."""
    setting = Setting.of(pipe, golden.manifest["inputs"])
    return compare(theirs, golden, added=added_errors(setting, aligned(theirs, golden), golden))


def told(report) -> list[str]:
    """The tensors that fail, with their errors."""
    return [f"{row.name} {row.kind} {row.added} {row.note}" for row in report.rows if row.outcome == "fail"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_tensor_of_upstream_is_golden(folder, truth, precision):
    """In float64 the loop is left out: upstream's tables are float32, and it draws other noise."""
    pipe, golden = truth
    theirs = captured(opened(folder, precision), golden, calls=(0, 1))
    report = judged(pipe, theirs, golden)
    assert {row.name for row in report.rows if row.outcome == MISSING} == UNSEEN
    seen = [row for row in report.rows if row.name not in UNSEEN]
    layers = [row for row in seen if "/unet/" in row.name or row.name.startswith(("vae/", "text_encoder/"))]
    assert len(layers) > 400
    assert [row.name for row in layers if row.outcome != "pass"] == []
    assert all(row.kind == precision for row in layers)
    if precision == "float32":
        assert told(report) == []


@pytest.fixture(scope="module")
def bounded_truth(truth, folder) -> tuple:
    """What is asked of the tiny model, and its golden trace with bounds that go by diffusers' own run."""
    pipe, golden = truth
    setting = Setting.of(pipe, golden.manifest["inputs"])
    return setting, bounded(golden, setting, captured(opened(folder, "float32"), golden, calls=(0,)))


@pytest.mark.parametrize("folder", ["tiny"], indirect=True)
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_upstreams_modules_is_named(folder, bounded_truth, name):
    """None of these is made by the text of a mutant: diffusers' and transformers' own modules are broken."""
    setting, golden = bounded_truth
    pipe = opened(folder, "float32")
    with BUGS[name].broken(pipe):
        theirs = captured(pipe, golden, calls=(0,))
    finding = diagnose(setting, theirs, golden).findings[0]
    assert finding.cause is not None, (finding.tensor, finding.added, finding.suspects[:3])
    assert finding.cause.mutants[0].id == BUGS[name].id, finding.suspects[:3]
