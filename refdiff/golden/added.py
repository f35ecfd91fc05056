"""The error that each part of another program adds: our part is run on their inputs, and what it gives is beside their output."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refdiff.golden.compare import Report, aligned, compare, on_threads, relative
from refdiff.golden.format import Trace
from refdiff.golden.stages import Given, Setting, Stage, mixed, run_stage, stages_of


def forced(setting: Setting, theirs: Trace, golden: Trace) -> dict[str, np.ndarray]:
    """What our text makes of their inputs: every tensor that they have, each computed from those of theirs before it.

    In a network every tensor of theirs goes on in the place of ours, so one run gives all of them.
    """
    found: dict[str, np.ndarray] = {}
    for stage in stages_of(setting):
        if any(belongs(name, stage) for name in theirs.tensors):
            try:
                look = given(setting, theirs, golden)
                keep = theirs.tensors.__contains__  # all layers of a large model would take gigabytes
                found |= run_stage(setting, stage, look, replaced=theirs.tensors, know=None, until=None, keep=keep)
            except IndexError:  # ids that are in no vocabulary: what they lead to is not known
                continue
    return found


def given(setting: Setting, theirs: Trace, golden: Trace) -> Given:
    """Their tensor of a name where they have it in the golden shape, else the golden one.

    Few programs show the guided prediction: where they do not, it is what our guidance makes of their prediction.
    """

    def look(name: str) -> np.ndarray:
        x, want = theirs.tensors.get(name), golden.tensors.get(name)
        if x is not None and (want is None or x.shape == want.shape):  # None: their run has more calls of the network
            return x
        at, _, last = name.rpartition("/")
        if last == "guided" and f"{at}/prediction" in theirs.tensors:
            return dict(mixed(setting, look, at, int(at.rpartition("/")[2])))[name]
        return golden.tensors[name]

    return look


def belongs(name: str, stage: Stage) -> bool:
    """Whether a stage gives a tensor of that name."""
    where, _, last = name.rpartition("/")
    if stage.name == "loop":
        return name == "latents/initial" or (where.startswith("steps/") and last in ("time", "input", "latents"))
    if stage.name.endswith("/unet"):
        return where == stage.name or name == stage.name.removesuffix("unet") + "prediction"
    if stage.name.endswith("/guidance"):
        return name == stage.name.removesuffix("guidance") + "guided"
    return where == stage.name


def added_errors(setting: Setting, theirs: Trace, golden: Trace) -> dict[str, float]:
    """For each tensor of theirs the relative error that its own part added."""
    ours = forced(setting, theirs, golden)
    return relative_errors(theirs.tensors, ours)


def relative_errors(tensors: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The relative errors of tensors beside others of the same names and shapes.

    Of theirs beside ours (`forced`) they are the errors added, of ours beside the golden ones the errors inherited.
    """
    names = [name for name, x in tensors.items() if name in others and x.shape == others[name].shape]
    return dict(zip(names, on_threads(lambda name: relative(tensors[name], others[name]), names), strict=True))


def compare_with(setting: Setting, theirs: Trace, golden: Trace) -> Report:
    """The comparison by added errors, with the inherited ones beside them."""
    known = aligned(theirs, golden)
    with np.errstate(all="ignore"):  # their numbers may be NaN or too large
        ours = forced(setting, known, golden)
    added = relative_errors(known.tensors, ours)
    return compare(theirs, golden, added=added, inherited=relative_errors(ours, golden.tensors))
