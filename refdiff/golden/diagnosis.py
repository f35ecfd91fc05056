"""Which known bug explains what another program gives: our text is run with each of them on their own inputs.

The first tensor whose part adds an error is looked at. Its part is run again as it is and with every bug that can show there;
the bug whose result is nearest to theirs is named, with the error before and after. With that bug in place the walk goes on, so
a second bug behind the first is found too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from refdiff.golden import mutants
from refdiff.golden.added import belongs, forced, given, relative_errors
from refdiff.golden.compare import Report, Row, aligned, compare, relative
from refdiff.golden.fingerprints import fingerprints
from refdiff.golden.format import Trace
from refdiff.golden.mutants.kind import NOT_HERE, Mutant, Site, Variant, kind_of_stage
from refdiff.golden.stages import Setting, Stage, run_stage, stages_of

EXPLAINED = 0.1  # of the error is left where a bug is said to explain it
PAIRED = 8  # of the best single bugs are tried in pairs


@dataclass(frozen=True)
class Suspect:
    """A bug (or two) in one variant, and the relative error at the wrong tensor without and with it."""

    mutants: tuple[Mutant, ...]
    variants: tuple[str, ...]
    before: float
    after: float

    @property
    def explains(self) -> bool:
        """Nearly nothing of the error is left."""
        return self.after <= EXPLAINED * min(self.before, 1.0)

    @property
    def name(self) -> str:
        """id (variant), or two of them."""
        return " and ".join(f"{m.id} ({v})" for m, v in zip(self.mutants, self.variants, strict=True))


@dataclass(frozen=True)
class Finding:
    """A wrong tensor: the error that was added there, what the error looks like, and the bugs, the likeliest first."""

    tensor: str
    stage: str
    added: float
    bound: float
    marks: tuple[str, ...]
    suspects: tuple[Suspect, ...]

    @property
    def cause(self) -> Suspect | None:
        """The bug that explains it, if one of those known does."""
        best = self.suspects[0] if self.suspects else None
        return best if best is not None and best.explains else None


@dataclass(frozen=True)
class Diagnosis:
    """The comparison by added errors, and a finding for each wrong place, in the order of the run."""

    report: Report
    findings: tuple[Finding, ...]


@np.errstate(all="ignore")  # their numbers may be of any size, and none
def diagnose(setting: Setting, theirs: Trace, golden: Trace, *, most: int = 3) -> Diagnosis:
    """Compare, then look for the cause of the first wrong tensor, with it for that of the next, `most` times.

    A bug may be in some places alone: a tensor that is nearer to our text without the causes is judged without them.

    Raises: BadRequest where the golden trace is of another model
    """
    as_given, theirs = theirs, aligned(theirs, golden)
    ours = plain = forced(setting, theirs, golden)
    first = report = _judged(as_given, theirs, golden, ours)
    findings: list[Finding] = []
    causes: list[tuple[Mutant, Variant]] = []
    while len(findings) < most:
        wrong = report.first_wrong
        if wrong is None or any(wrong.name == finding.tensor for finding in findings):
            break
        here = causes if ours.get(wrong.name) is not plain.get(wrong.name) else []
        finding = _finding(setting, theirs, golden, ours, wrong, here)
        findings.append(finding)
        if finding.cause is None:
            break
        cause = finding.cause
        causes += [(m, m.variants[v]) for m, v in zip(cause.mutants, cause.variants, strict=True)]
        with ExitStack() as stack:
            ours = _nearer(theirs, plain, forced(_with(setting, causes, "", stack), theirs, golden))
        report = _judged(as_given, theirs, golden, ours)
    return Diagnosis(first, tuple(findings))


def _judged(as_given: Trace, theirs: Trace, golden: Trace, ours: Mapping[str, np.ndarray]) -> Report:
    """The comparison by the errors that their parts add to what our text makes of their inputs."""
    added, inherited = relative_errors(theirs.tensors, ours), relative_errors(ours, golden.tensors)
    return compare(as_given, golden, added=added, inherited=inherited)


def _nearer(theirs: Trace, plain: Mapping[str, np.ndarray], changed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each tensor of our text, without and with bugs, that which is nearer to theirs."""
    without, with_bugs = (relative_errors(theirs.tensors, x) for x in (plain, changed))
    return {**plain, **{n: x for n, x in changed.items() if with_bugs.get(n, 0.0) <= without.get(n, math.inf)}}


def apart(x: np.ndarray, y: np.ndarray) -> float:
    """The relative error; of tensors that are not finite in the same places alone, that of the other places."""
    if x.shape != y.shape:
        return math.inf
    finite = np.isfinite(y)
    if finite.all() or not np.array_equal(np.isfinite(x), finite):
        return relative(x, y)
    return relative(x[finite], y[finite])


def _with(setting: Setting, causes: Sequence[tuple[Mutant, Variant]], tensor: str, stack: ExitStack) -> Setting:
    """The setting with bugs in it, for as long as the stack is open."""
    for _, variant in causes:
        setting = stack.enter_context(variant(Site(setting, tensor)))
    return setting


def _finding(setting: Setting, theirs: Trace, golden: Trace, ours: Mapping[str, np.ndarray], wrong: Row, causes: list) -> Finding:
    """The cause of one wrong tensor; its place may depend on what is right before it, so the earlier causes stay in."""
    tensor, bound = wrong.name, wrong.bound or 0.0
    stage = next((stage for stage in stages_of(setting) if belongs(tensor, stage)), None)
    before = apart(theirs.tensors[tensor], ours[tensor]) if tensor in ours else math.inf
    if stage is None:
        return Finding(tensor, "", before, bound, (), ())
    trial = Trial(setting, theirs, golden, stage, tensor, tuple(causes), before)
    suspects = sorted(trial.singles(), key=lambda suspect: suspect.after)
    if not suspects or not suspects[0].explains:
        suspects = sorted([*suspects, *trial.pairs(suspects)], key=lambda suspect: suspect.after)
    marks = fingerprints(theirs.tensors[tensor], ours[tensor]) if tensor in ours else ()
    return Finding(tensor, stage.name, before, bound, marks, tuple(trial.settled(suspects)))


@dataclass(frozen=True)
class Trial:
    """A wrong tensor that every bug is tried on."""

    setting: Setting
    theirs: Trace
    golden: Trace
    stage: Stage
    tensor: str
    causes: tuple[tuple[Mutant, Variant], ...]
    before: float

    @property
    def kinds(self) -> set[str]:
        """What the wrong tensor may show: its stage, and guidance where the loop hides it."""
        kind = kind_of_stage(self.stage.name)
        hidden = kind == "loop" and not any(name.endswith("/guided") for name in self.theirs.tensors)
        return {kind, "guidance"} if hidden else {kind}

    def singles(self) -> Iterator[Suspect]:
        """Every bug that can show in this stage, in every variant, that changes the error."""
        for mutant in mutants.mutants():
            if self.kinds.intersection(mutant.stages):
                for name, variant in mutant.variants.items():
                    after = self.error([(mutant, variant)])
                    if after < 0.98 * self.before:
                        yield Suspect((mutant,), (name,), self.before, after)

    def pairs(self, singles: Sequence[Suspect]) -> Iterator[Suspect]:
        """The best single bugs two by two."""
        for one, other in itertools.combinations(singles[:PAIRED], 2):
            both = [(s.mutants[0], s.mutants[0].variants[s.variants[0]]) for s in (one, other)]
            after = self.error(both)
            if after < 0.5 * min(one.after, other.after):
                yield Suspect((*one.mutants, *other.mutants), (*one.variants, *other.variants), self.before, after)

    def settled(self, suspects: Sequence[Suspect]) -> list[Suspect]:
        """Where several explain the tensor alike, the one with which most of the stage is right comes first."""
        best = suspects[0].after if suspects else 0.0
        alike = [s for s in suspects if s.explains and s.after <= max(3.0 * best, 1e-6)]
        if len(alike) < 2:
            return list(suspects)
        alike.sort(key=lambda s: (self.wrong_after(s), s.after))
        return [*alike, *(s for s in suspects if s not in alike)]

    def error(self, bugs: Sequence[tuple[Mutant, Variant]]) -> float:
        """The relative error at the tensor with these bugs in our text; infinite where they cannot be made here."""
        made = self.run(bugs, until=self.tensor)
        x = made.get(self.tensor)
        return math.inf if x is None else apart(self.theirs.tensors[self.tensor], x)

    def wrong_after(self, suspect: Suspect) -> float:
        """The sum of the logarithms of what is left at every tensor of the stage, and of the loop that uses its tables."""
        bugs = [(m, m.variants[v]) for m, v in zip(suspect.mutants, suspect.variants, strict=True)]
        made = self.run(bugs, until=None)
        if self.stage.name == "schedule":
            made |= replace(self, stage=next(s for s in stages_of(self.setting) if s.name == "loop")).run(bugs, until=None)
        errors = relative_errors(self.theirs.tensors, made).values()
        return sum(math.log10(max(error, 1e-7)) for error in errors if math.isfinite(error))

    def run(self, bugs: Sequence[tuple[Mutant, Variant]], *, until: str | None) -> dict[str, np.ndarray]:
        """The stage on their inputs, with the bugs; parts before the tensor of which theirs is known are not run."""
        with ExitStack() as stack, np.errstate(all="ignore"):
            setting = _with(self.setting, [*self.causes, *bugs], self.tensor, stack)
            look = given(setting, self.theirs, self.golden)
            try:
                return run_stage(
                    setting, self.stage, look, replaced=self.others(), know=self.know if until else None, until=until
                )
            except NOT_HERE:
                return {}

    def others(self) -> dict[str, np.ndarray]:
        """Their tensors that go on in the place of ours: all but the wrong one."""
        return {name: x for name, x in self.theirs.tensors.items() if name != self.tensor}

    def know(self, path: str) -> np.ndarray | None:
        """Their result of a part in which the wrong tensor does not lie."""
        name = f"{self.stage.name}/{path}"
        x = self.theirs.tensors.get(name)
        inside = self.tensor == name or self.tensor.startswith(f"{name}.")
        if x is None or inside or (path == "time_embedding" and self.tensor.endswith("/time_proj")):
            return None
        want = self.golden.tensors.get(name)
        return None if want is None or want.shape != x.shape else self.setting.array(x)
