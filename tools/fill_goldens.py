"""The conformance suite's outputs by pinned upstream, held against the stored ones: python -m tools.fill_goldens

Needs the `parity` extra. The stored outputs are our specification's in float64 (tools/make_suite.py); upstream computes the same
cases in float32 and again with float64 inputs and weights. With --out docs/golden it writes upstream.md. Ends with 1 where
upstream does not pass a case.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from refdiff.errors import BadRequest
from refdiff.golden.compare import PASS, UNSUPPORTED, Row
from refdiff.golden.runner import Unsupported
from refdiff.golden.suite import REFUSED, Expected, Result, judged, suite
from tools.runner_diffusers import quiet, run

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
HEAD = """# Upstream on the conformance suite

Written by `python -m tools.fill_goldens --out docs/golden`; do not edit. What torch {torch}, diffusers {diffusers} and
transformers {transformers} give for every case, as relative L2 errors against the stored outputs, which are refdiff's
specification in float64, stored in float32 (half a last digit: 3e-8). Of each case the tensor nearest to its bound. "float64" is
upstream with float64 inputs and weights; its schedulers' tables and its sinusoids stay in float32. The bound is that of float32.
Of a picture a level in a pixel is no fault. The last digits differ from processor to processor.

{counts}

| case | tensor | float32 | float64 | bound |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Filled:
    """What upstream gave for a case, by precision; why it gave nothing."""

    case: Expected
    results: dict[str, Result]
    why: str


def main() -> int:
    """Compute, print, and with --out write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the folder for upstream.md")
    asked = parser.parse_args()
    quiet()
    found = list(filled(suite().values()))
    text = page(found)
    print(text)
    if asked.out is not None:
        (asked.out / "upstream.md").write_text(text, encoding="utf-8")
    return 0 if all(result.outcome in (PASS, UNSUPPORTED) for one in found for result in one.results.values()) else 1


def filled(cases: Iterable[Expected]) -> Iterator[Filled]:
    """Every case by upstream in both precisions."""
    for case in cases:
        results, why = {}, ""
        for name, precision in PRECISIONS.items():
            given: Any
            try:
                given = run({"kind": case.kind, "constants": case.constants}, case.inputs, precision=precision)
            except BadRequest as error:
                given, why = REFUSED, str(error)
            except Unsupported as error:
                given, why = UNSUPPORTED, str(error)
            results[name] = judged(case, given)
        yield Filled(case, results, why)


def page(found: list[Filled]) -> str:
    """The table of all cases."""
    counts = Counter(f"{result.outcome} in {name}" for one in found for name, result in one.results.items())
    told = f"{len(found)} cases: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) + "."
    versions = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return HEAD.format(counts=told, **versions) + "\n".join(line(one) for one in found) + "\n"


def line(one: Filled) -> str:
    """A case: its tensor that is nearest to its bound in float32, or a word."""
    row = nearest(one.results["float32"])
    what = one.why.replace("|", "/") if row is None else row.name
    cells = [cell(result, "" if row is None else row.name) for result in one.results.values()]
    bound = "" if row is None else f"{row.bound:.1e}"
    return f"| {one.case.id} | {what} | {' | '.join(cells)} | {bound} |"


def cell(result: Result, tensor: str) -> str:
    """The error of that tensor; of whole numbers a word where they are equal; and the outcome where it is no pass."""
    errors = [row.measure.relative for row in result.rows if row.measure is not None and tensor in ("", row.name)]
    whole = "equal" if not any(errors) else f"{max(errors):.1e}"
    word = result.note if not errors else f"{errors[0]:.1e}" if tensor else whole
    return word + ("" if result.outcome == PASS else f" **{result.outcome}**")


def nearest(result: Result) -> Row | None:
    """The tensor with the largest share of its bound; none where there are no real numbers."""
    shares = [(row.measure.relative / row.bound, row) for row in result.rows if row.measure is not None and row.bound]
    return max(shares, key=lambda share: share[0], default=(0.0, None))[1]


if __name__ == "__main__":
    sys.exit(main())
