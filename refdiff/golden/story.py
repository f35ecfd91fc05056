"""A diagnosis as plain data: what is printed, written as JSON and shown on a page."""

from __future__ import annotations

import math
from typing import Any

from refdiff.golden.diagnosis import Diagnosis, Finding, Suspect
from refdiff.golden.mutants import Mutant

NEAREST = 3
HALF = 0.5  # of the error is left at most where a bug that is not the cause is told of a tensor that has none


def told(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Each finding, in the order of the run; errors that are infinite or not known are None."""
    rows = {row.name: row for row in diagnosis.report.rows}
    found = []
    for finding in diagnosis.findings:
        row = rows[finding.tensor]
        found.append(
            {
                "tensor": finding.tensor,
                "stage": finding.stage,
                "whole": number(row.measure.relative if row.measure else None),
                "inherited": number(row.inherited),
                "added": number(finding.added),
                "bound": number(finding.bound),
                "note": row.note,
                "looks_like": list(finding.marks),
                "cause": None if finding.cause is None else explained(finding.cause),
                "nearest": [nearest(suspect) for suspect in others(finding)],
            }
        )
    return found


def others(finding: Finding) -> list[Suspect]:
    """The nearest bugs that are not the cause, each once."""
    most = HALF * finding.added if finding.cause is None else math.inf
    left = [s for s in finding.suspects if s is not finding.cause and math.isfinite(s.after) and s.after <= most]
    taken = [] if finding.cause is None else [ids(finding.cause)]
    found = []
    for suspect in left:
        if ids(suspect) not in taken:
            taken.append(ids(suspect))
            found.append(suspect)
    return found[:NEAREST]


def ids(suspect: Suspect) -> tuple[str, ...]:
    """Of its bugs."""
    return tuple(mutant.id for mutant in suspect.mutants)


def explained(suspect: Suspect) -> dict[str, Any]:
    """The bug, or the two of them, and the error at the wrong tensor without and with it."""
    bugs = [{**described(m), "variant": v} for m, v in zip(suspect.mutants, suspect.variants, strict=True)]
    return {"bugs": bugs, "before": number(suspect.before), "after": number(suspect.after)}


def nearest(suspect: Suspect) -> dict[str, Any]:
    """A bug that was tried, by its name alone."""
    title = " and ".join(m.title for m in suspect.mutants)
    return {"name": suspect.name, "title": title, "before": number(suspect.before), "after": number(suspect.after)}


def described(mutant: Mutant) -> dict[str, Any]:
    """What is known of a bug."""
    return {
        "id": mutant.id,
        "title": mutant.title,
        "why": mutant.why,
        "where": mutant.where,
        "stages": list(mutant.stages),
        "links": [address(link) for link in mutant.links],
    }


def address(link: str) -> str:
    """The page of a thread that is written owner/repository#number."""
    return f"https://github.com/{link.replace('#', '/issues/')}"


def number(x: float | None) -> float | None:
    """None where there is no finite number."""
    return None if x is None or not math.isfinite(x) else float(x)
