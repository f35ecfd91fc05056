"""What a diagnosis says of bugs that are in one place alone, and what an error looks like."""

from __future__ import annotations

import numpy as np
import pytest

import refdiff
from refdiff.golden.diagnosis import diagnose
from refdiff.golden.fingerprints import fingerprints
from refdiff.golden.format import Trace, read_trace
from refdiff.golden.mutants import Site, mutants
from refdiff.golden.stages import Setting, run_stage, stages_of

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
