"""What a diagnosis says of bugs that are in one place alone, and what an error looks like."""

from __future__ import annotations

import numpy as np
import pytest

import refdiff
from refdiff.golden.compare import PROMPTS_FIRST, Report, Row, compare
from refdiff.golden.diagnosis import Diagnosis, Finding, Suspect, diagnose
from refdiff.golden.fingerprints import fingerprints
from refdiff.golden.format import Trace, read_trace
from refdiff.golden.mutants import Site, mutants
from refdiff.golden.stages import Setting, run_stage, stages_of
from refdiff.golden.story import told as told_of

PLACE = "steps/000/unet/down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"


def test_a_bug_in_one_place_leaves_the_others_right(tiny, golden_file, theirs_with):
    golden, right = read_trace(golden_file), read_trace(theirs_with("")).tensors
    setting = Setting.of(refdiff.load(tiny, dtype="float64", kernels="spec"), golden.manifest["inputs"])
    stage = next(stage for stage in stages_of(setting) if stage.name == "steps/000/unet")
    bug = next(bug for bug in mutants() if bug.id == "attn-no-scale")
    with bug.variants["none"](Site(setting, PLACE)) as changed:
        broken = run_stage(changed, stage, right.__getitem__, replaced=right, know=None, until=PLACE)[PLACE]
    after = run_stage(setting, stage, right.__getitem__, replaced={PLACE: broken}, know=None, until=None)
    before = {name: x for name, x in right.items() if name.startswith(("text_encoder/", "steps/000/input", "steps/000/time"))}
    theirs = Trace({name: x.astype(np.float32) for name, x in (before | after | {PLACE: broken}).items()}, {})

    (finding,) = diagnose(setting, theirs, golden).findings

    assert (finding.tensor, finding.cause.name) == (PLACE, "attn-no-scale (none)")


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([5], ("only 5 of axis 1 (20 long) is wrong",)),
        ([4, 5, 6, 7, 8, 9], ("only 4 to 9 of axis 1 (20 long) are wrong",)),
        ([0, 19], ("only 0, 19 of axis 1 (20 long) are wrong",)),
        ([0, 2, 5, 7, 11, 19], ()),
    ],
)
def test_the_places_of_an_error_are_told_where_they_are_a_few_or_a_row(places, told):
    right = np.random.default_rng(0).standard_normal((3, 20))
    wrong = right.copy()
    wrong[:, places] += np.arange(1.0, 4.0)[:, None] ** 2

    assert fingerprints(wrong, right) == told


def test_other_noise_has_no_relation():
    a, b = np.random.default_rng(0).standard_normal((2, 4, 8, 8))
    (mark,) = fingerprints(a, b)
    assert mark.startswith("no relation to the golden one (cosine ")
    assert fingerprints(b + 0.5 * a, b) == ()


def test_a_bug_that_leaves_most_of_the_error_is_not_called_near():
    bug = next(iter(mutants()))
    suspects = tuple(Suspect((bug,), (name,), 1.0, after) for name, after in (("close", 0.4), ("far", 0.9)))
    for given, names in ((suspects, [f"{bug.id} (close)"]), (suspects[1:], [])):
        finding = Finding("x", "unet", 1.0, 1e-5, (), given)
        (story,) = told_of(Diagnosis(Report((Row("x", "fail"),), ()), (finding,)))
        assert [near["name"] for near in story["nearest"]] == names


def both_texts(tensors):
    """The names of those of a trace that hold the negative prompt and the prompt."""
    found = {n for n in tensors if n.startswith(("tokens/", "text_encoder/", "steps/000/unet/")) or n.endswith("prediction")}
    return {n for n in found if len(tensors[n]) == 2}


@pytest.mark.parametrize("left_out", [(), ("tokens/ids",), ("tokens/ids", "text_encoder/context")])
def test_a_right_program_that_has_the_prompts_first_is_right(tiny, golden_file, theirs_with, left_out):
    golden, right = read_trace(golden_file), read_trace(theirs_with("")).tensors
    setting = Setting.of(refdiff.load(tiny, dtype="float64", kernels="spec"), golden.manifest["inputs"])
    turned = {n: np.concatenate([x[1:], x[:1]]) if n in both_texts(right) else x for n, x in right.items() if n not in left_out}

    for report in (compare(Trace(turned), golden), diagnose(setting, Trace(turned), golden).report):
        assert report.passed
        assert {row.name for row in report.rows if PROMPTS_FIRST in row.note} == both_texts(turned)


@pytest.mark.parametrize("name", ["text_encoder/context", "steps/000/prediction"])
def test_one_tensor_that_has_the_prompts_first_is_wrong(golden_file, name):
    golden = read_trace(golden_file)
    x = golden.tensors[name]
    wrong = Trace({**golden.tensors, name: np.concatenate([x[1:], x[:1]])})
    assert compare(wrong, golden).first_wrong.name == name
