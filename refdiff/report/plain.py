"""A comparison as JSON and as JUnit XML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from refdiff.golden.compare import FAIL, PASS, Report, Row

REPORT_VERSION = "1.0.0"
OF_THE_RUN = ("suite_version", "generator", "model", "inputs", "content_sha256")


def as_json(report: Report, manifest: Mapping[str, Any], story: Sequence[Mapping[str, Any]] | None) -> str:
    """Everything that was found; `story` is the diagnosis, None where none was asked for."""
    first = report.first_wrong
    data = {
        "report_version": REPORT_VERSION,
        "passed": report.passed,
        "first_wrong": None if first is None else first.name,
        "counts": {outcome: report.count(outcome) for outcome in ("pass", "fail", "missing", "unsupported")},
        "extra": list(report.extra),
        "golden": {key: manifest[key] for key in OF_THE_RUN if key in manifest},
        "tensors": [row_data(row) for row in report.rows],
        "diagnosis": None if story is None else list(story),
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def row_data(row: Row) -> dict[str, Any]:
    """One tensor; what is not known is left out, infinite errors are null."""
    found: dict[str, Any] = {"name": row.name, "outcome": row.outcome}
    if row.kind:
        found["kind"] = row.kind
    if row.measure is not None:
        m = row.measure
        found |= {"relative": finite(m.relative), "largest": m.largest, "at": list(m.at), "cosine": m.cosine, "ulp": m.ulp}
    for key in ("inherited", "added", "bound"):
        if getattr(row, key) is not None:
            found[key] = finite(getattr(row, key))
    return {**found, "note": row.note} if row.note else found


def as_junit(report: Report) -> str:
    """A test case for each golden tensor; missing and unsupported ones count as skipped."""
    skipped = sum(row.outcome not in (PASS, FAIL) for row in report.rows)
    counts = {"tests": len(report.rows), "failures": report.count(FAIL), "errors": 0, "skipped": skipped}
    suite = ElementTree.Element("testsuite", {"name": "refdiff", **{key: str(n) for key, n in counts.items()}})
    for row in report.rows:
        stage, _, tensor = row.name.rpartition("/")
        case = ElementTree.SubElement(suite, "testcase", classname=stage.replace("/", "."), name=tensor)
        if row.outcome == FAIL:
            ElementTree.SubElement(case, "failure", message=failure(row))
        elif row.outcome != PASS:
            ElementTree.SubElement(case, "skipped", message=row.outcome)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def failure(row: Row) -> str:
    """Why a tensor fails."""
    if row.measure is None:
        return row.note
    own = "" if row.added is None else f", of which its own part adds {row.added:.3g}"
    return f"relative error {row.measure.relative:.3g}{own}; allowed are {row.bound or 0.0:.3g}" + (
        f"; {row.note}" if row.note else ""
    )


def finite(x: float) -> float | None:
    """None in the place of what JSON has no number for."""
    return x if math.isfinite(x) else None
