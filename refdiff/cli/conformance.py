"""What `refdiff conformance` does: run the suite, or judge what a port gave for it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from refdiff.golden.suite import Expected, Result

DONE, NO = 0, 1
PASS, FAIL = "pass", "fail"


def conformance(options: dict[str, Any]) -> int:
    """Judge one of: a folder of outputs, our own text; or write the inputs."""
    from refdiff.errors import BadRequest
    from refdiff.golden import suite

    cases = suite.chosen(options["profile"], options["level"])
    if not cases:
        raise BadRequest(f"the profile {options['profile']} has no cases of {', '.join(options['level'])}")
    asked = [name for name in ("export", "outputs", "own") if options[name] is not None]
    if len(asked) != 1:
        raise BadRequest("give one of --outputs FOLDER (judge a port), --export FOLDER (its inputs), --self spec|fast (our own)")
    if options["export"] is not None:
        count = suite.export(cases, options["export"])
        click.echo(f"{options['export']}: the inputs of {count} cases, and cases.json")
        return DONE
    if options["own"] is None and not options["outputs"].is_dir():
        raise BadRequest(f"{options['outputs']}: there is no such folder")
    found = suite.results(cases, options["outputs"]) if options["own"] is None else own(cases, options["own"])
    return told(list(found), options)


def own(cases: list[Expected], kernels: str) -> Iterator[Result]:
    """Our own text in float32, with the model of `refdiff synth tiny` made for the purpose."""
    import refdiff
    from refdiff.checkpoints.synthetic import write_synthetic
    from refdiff.core import primitive
    from refdiff.errors import BadRequest
    from refdiff.golden.case_runs import run_case
    from refdiff.golden.cases import Case
    from refdiff.golden.suite import REFUSED, judged
    from refdiff.text import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_synthetic("tiny", Path(folder) / "tiny", seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
        pipe = refdiff.load(Path(folder) / "tiny", kernels=kernels)
        for case in cases:
            try:
                with primitive.mode(kernels):
                    given: Any = run_case(Case(case.id, case.kind, case.constants, case.inputs), pipe, dtype="float32")
            except BadRequest:
                given = REFUSED
            yield judged(case, given)


def told(results: list[Result], options: dict[str, Any]) -> int:
    """Print what did not pass and the counts; 0 where every case of the profile passed, for nothing else is a pass."""
    for result in results:
        if result.outcome != PASS:
            click.echo(f"{result.outcome:12s} {result.id}{': ' + result.note if result.note else ''}")
            for row in result.rows:
                if row.outcome == FAIL and row.measure is not None and row.bound is not None:
                    error = f"relative error {row.measure.relative:.2e}, at most {row.bound:.1e} ({row.kind})"
                    click.echo(f"{'':12s}   {row.name}: {error} {row.note}")
    counts = Counter(result.outcome for result in results)
    passed = counts[PASS] == len(results)
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
    click.echo(f"{options['profile']}: {outcomes} of {len(results)}")
    if options["json"] is not None:
        data = {"profile": options["profile"], "passed": passed, "results": [plain(result) for result in results]}
        options["json"].write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return DONE if passed else NO


def plain(result: Result) -> dict[str, Any]:
    """A result as JSON can hold it."""
    rows = []
    for row in result.rows:
        error = None if row.measure is None else row.measure.relative
        rows.append({"tensor": row.name, "outcome": row.outcome, "kind": row.kind, "error": error, "bound": row.bound})
    return {"id": result.id, "outcome": result.outcome, "note": result.note, "tensors": rows}
