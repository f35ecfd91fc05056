"""What `refdiff conformance` does: run the suite, or judge what a port gave for it."""

from __future__ import annotations

import json
import shlex
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
    """Judge one of: a folder of outputs, a port that is asked, our own text; or write the inputs."""
    from refdiff.errors import BadRequest
    from refdiff.golden import suite

    cases = suite.chosen(options["profile"], options["level"])
    if not cases:
        raise BadRequest(f"the profile {options['profile']} has no cases of {', '.join(options['level'])}")
    asked = [name for name in ("export", "outputs", "runner", "own") if options[name] is not None]
    if len(asked) != 1:
        ways = '--outputs FOLDER or --runner "COMMAND" (judge a port), --export FOLDER (its inputs), --self spec|fast (our own)'
        raise BadRequest(f"give one of {ways}")
    if options["export"] is not None:
        count = suite.export(cases, options["export"])
        click.echo(f"{options['export']}: the inputs of {count} cases, and cases.json")
        return DONE
    return told(list(judged(cases, options)), options)


def judged(cases: list[Expected], options: dict[str, Any]) -> Iterator[Result]:
    """The results of what was asked for.  Raises: BadRequest for a folder or a command that there is not"""
    from refdiff.errors import BadRequest
    from refdiff.golden import runner, suite

    if options["own"] is not None:
        return own(cases, options["own"])
    if options["runner"] is not None:
        return runner.run_cases(words(options["runner"]), cases, timeout=options["timeout"])
    if not options["outputs"].is_dir():
        raise BadRequest(f"{options['outputs']}: there is no such folder")
    return suite.results(cases, options["outputs"])


def words(command: str) -> list[str]:
    """The words of a command line.  Raises: BadRequest where there are none, or a quotation has no end"""
    from refdiff.errors import BadRequest

    try:
        found = shlex.split(command)
    except ValueError as error:
        raise BadRequest(f"--runner {command}: {error}") from error
    if not found:
        raise BadRequest("--runner: the command is empty")
    return found


def own(cases: list[Expected], kernels: str) -> Iterator[Result]:
    """Our own text in float32, with the model of `refdiff synth tiny` made for the purpose."""
    import refdiff
    from refdiff.checkpoints.synthetic import write_synthetic
    from refdiff.core import primitive
    from refdiff.errors import BadRequest
    from refdiff.golden.case_runs import model_of, run_case
    from refdiff.golden.cases import Case
    from refdiff.golden.suite import REFUSED, judged
    from refdiff.text import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_synthetic("tiny", Path(folder) / "tiny", seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
        pipe = refdiff.load(Path(folder) / "tiny", kernels=kernels)
        for case in cases:
            asked = Case(case.id, case.kind, case.constants, case.inputs)
            try:
                with primitive.mode(kernels):
                    given: Any = run_case(asked, model_of(asked, pipe), dtype="float32")
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
