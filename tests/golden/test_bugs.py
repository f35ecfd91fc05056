"""Every known bug of a port is reproduced: its trace is told from the golden one, and `diagnose` names it first."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import bugs_page
import numpy as np
import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.errors import BadRequest
from refdiff.golden import mutants
from refdiff.golden.diagnosis import diagnose
from refdiff.golden.format import read_trace, write_trace
from refdiff.golden.mutants import Site
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting
from refdiff.text import Tokenizer
from tests.golden.settings import CASES

LAYER = "steps/000/unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OURS = {"te-position-offset", "gn-eps-outside", "te-quickgelu-in-geglu"}  # beside the 81 of the research
# case: id/variant ...; an id of which no variant is named here shows as its first variant in "plain".
SHOWN = {
    "words": (
        "tok-pad-eos-vs-0/0", "tok-bpe-no-eow/no mark", "tok-bpe-no-eow/a blank first", "tok-pretok/case kept",
        "tok-pretok/digits together", "tok-pretok/at blanks alone", "tok-merge-unit/clusters",
        "tok-reference-quirk/whole words", "tok-trunc/start", "tok-trunc/end of long texts",
    ),
    "padded": ("tok-pad-eos-vs-0/the end token",),
    "added": ("te-pool-argmax/largest id", "te-pool-argmax/end token 2"),
    "gelu": ("te-quickgelu-for-gelu/sigmoid",),
    "two pictures": ("noise-rng/the batch at once",),
    "odd": ("up-size/other side",),
    "linspace": ("spacing/trailing", "spacing/linspace cut off", "prev-t-stride/the next of the list"),
    "pndm": ("pndm-dup/once", "state-reuse/the last answers", "wrong-default/ddim"),
    "euler": ("init-sigma/left out", "init-sigma/twice", "scale-input/left out", "sigma-tail/smallest of training"),
    "karras": ("karras-ends/0.03 to 14.6", "karras-ends/exchanged", "t-int-trunc/floor", "t-halfprec/bfloat16"),
    "ancestral": ("anc-split/exchanged", "noise-rng/another generator in the steps"),
    "dpm": ("dpmpp-h/turned around", "state-reuse/the last answers"),
    "last step": ("lower-order-final/not lowered",),
    "velocity": ("vpred-as-eps/noise",),
    "half guidance": ("cfg-off/off at 1 and below",),
    "flow": ("flow-shift-2x/once more", "flow-shift-2x/not at all"),
    "back": (
        "vae-pad/symmetric", "vae-sample-mode/mean", "vae-sample-mode/no root", "img2img-t/one later", "img2img-t/one earlier",
        "px-range/0 to 1",
    ),
    "pieces": (
        "te-proj-T/transposed", "te2-dropped/zeros", "sdxl-time-ids/widths first", "cfg-pooled-swap/pooled",
        "lora-alpha/no alpha", "uncond-zeros/encoded where zeros are meant", "cn-range/-1 to 1", "cn-unscaled/unscaled",
        "vae-tiles/no fade",
    ),
    "quiet": ("gn-eps/1e-5 in the transformers", "gn-eps-outside/outside", "ln-eps-outside/outside", "ln-eps/1e-06"),
    "loud": ("softmax-naive/float32",),
    "large": ("vae-fp16/float16",),
    "plain": (
        "noise-dtype/float16", "noise-dtype/bfloat16", "wrong-default/pndm",
        "wrong-default-cfg-values/all of the scheduler", "w-missing/weight",
    ),
}  # fmt: skip


def table():
    """(case, id, variant), by case."""
    found = [(case, *shown.rsplit("/", 1)) for case, all_shown in SHOWN.items() for shown in all_shown]
    named = {bug for _, bug, _ in found}
    return found + [("plain", bug.id, next(iter(bug.variants))) for bug in mutants.mutants() if bug.id not in named]


BUGS = {bug.id: bug for bug in mutants.mutants()}


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """(case, dtype) -> its pipeline, and its golden trace and setting in float64."""
    folder = tmp_path_factory.mktemp("bugs") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    pipes = {dtype: refdiff.load(folder, dtype=dtype, kernels="spec") for dtype in ("float32", "float64")}

    @cache
    def made(name):
        case = CASES[name]
        truth = case.change(pipes["float64"])
        golden = recorded(truth, case)
        return Setting.of(truth, golden.manifest["inputs"]), golden, case.change(pipes["float32"])

    return made


def recorded(pipe, case):
    options = {"steps": 2, "guidance": 5.0, "seed": 3, "width": 32, "height": 32, **case.options}
    with np.errstate(all="ignore"):
        return record(pipe, case.prompt, case.negative, detail="layers", **options)


def trace_with(bug, variant, narrow, golden, case):
    """The trace of a program in float32 that has the bug."""
    with BUGS[bug].variants[variant](Site(Setting.of(narrow, golden.manifest["inputs"]), LAYER)) as changed:
        return recorded(changed.pipe, case)


@pytest.mark.parametrize(("name", "bug", "variant"), table())
def test_a_bug_is_seen_and_named_first(setting, name, bug, variant):
    truth, golden, narrow = setting(name)
    theirs = trace_with(bug, variant, narrow, golden, CASES[name])
    found = diagnose(truth, theirs, golden, most=1)
    assert found.findings, "not seen"
    suspects = found.findings[0].suspects
    assert suspects, f"{found.findings[0].tensor}: no suspect"
    assert suspects[0].mutants[0].id == bug, [suspect.name for suspect in suspects[:3]]
    assert suspects[0].explains


@pytest.mark.parametrize("name", CASES)
def test_a_sound_program_has_none(setting, name):
    truth, golden, narrow = setting(name)
    assert diagnose(truth, recorded(narrow, CASES[name]), golden, most=1).findings == ()


def test_all_81_are_told_and_made():
    told = set(BUGS)
    assert len(told - OURS) == 81
    assert {bug for bug, mutant in BUGS.items() if not mutant.variants} == set()
    assert told == {bug for _, bug, _ in table()}
    assert max(Counter(table()).values()) == 1


def test_every_bug_says_what_a_porter_needs():
    for bug in BUGS.values():
        assert bug.title and bug.why.endswith((".", "?")) and bug.where and bug.stages, bug.id
        assert all(link.count("#") == 1 and link.count("/") == 1 for link in bug.links), bug.id


def test_extras_survive_a_file(setting, tmp_path):
    truth, golden, _ = setting("back")
    write_trace(tmp_path / "golden.safetensors", golden)
    again = read_trace(tmp_path / "golden.safetensors")
    assert [name for name in again.tensors if name.startswith(("posterior/", "start/"))] == [
        "posterior/noise", "posterior/latents", "start/noise", "start/latents",
    ]  # fmt: skip
    assert Setting.of(truth.pipe, json.loads(json.dumps(again.manifest["inputs"]))).inputs["extras"] == ["encode"]


def test_an_unknown_extra_is_refused(setting):
    truth, _, _ = setting("plain")
    with pytest.raises(BadRequest, match="choose of encode, again, pieces"):
        record(truth.pipe, "a red circle", steps=1, extras=["pictures"])


def test_a_sampler_run_twice_gives_the_same(setting):
    for name in ("pndm", "dpm"):
        _, golden, _ = setting(name)
        assert np.array_equal(golden.tensors["again/first"], golden.tensors["again/second"])


def test_the_page_is_up_to_date():
    assert bugs_page.PAGE.read_text(encoding="utf-8") == bugs_page.page(), "run python tools/bugs_page.py"
