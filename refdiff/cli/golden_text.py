"""What the golden commands print: a comparison as a table, a diagnosis as a story, a bug as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

SHOWN = 12  # wrong tensors in a table
WIDTH = 100
NOTE = 200  # letters of a note


def comparison_lines(report: Any, *, diagnose: str, model: str | None, every: bool) -> Iterator[str]:
    """The first wrong tensor, the table, the counts, and the command to go on with."""
    wrong = report.first_wrong
    if wrong is not None:
        yield f"First wrong: {wrong.name}"
        yield f"  {reason(wrong)}"
        yield ""
    chosen = report.rows if every else [row for row in report.rows if row.outcome == "fail"][:SHOWN]
    if chosen:
        yield from table(chosen)
        left = report.count("fail") - len(chosen)
        if not every and left > 0:
            yield f"... and {left} more that fail; --all lists every tensor"
        yield ""
    yield counts(report)
    yield from (f"  {line}" for line in noted(report))
    if wrong is not None:
        yield f"Next: {diagnose}"
        if wrong.added is None and model is None:
            yield "  (errors here are whole: what comes after a wrong tensor may only inherit; --model tells both apart)"
    elif not report.passed:
        yield "Nothing was compared: no tensor of theirs has a golden name."


def note_lines(trace: Any) -> Iterator[str]:
    """What was taken to be so when a trace was made; a file may say anything, so its letters are looked at."""
    for note in trace.notes[:SHOWN]:
        yield "Their trace was made so: " + "".join(c if c.isprintable() else " " for c in note[:NOTE])


def reason(row: Any) -> str:
    """Why a tensor fails."""
    if row.measure is None:
        return row.note
    if row.kind == "exact":
        return f"whole numbers differ by up to {row.measure.largest:g} at {list(row.measure.at)}" + noted_in(row)
    if row.added is not None:
        return (
            f"its own part adds an error of {short(row.added)}, allowed are {short(row.bound)}; "
            f"inherited are {short(row.inherited)}, the whole is {short(row.measure.relative)}" + noted_in(row)
        )
    at = f"the largest difference is {short(row.measure.largest)} at {list(row.measure.at)}"
    return f"relative error {short(row.measure.relative)}, allowed are {short(row.bound)}; {at}" + noted_in(row)


def noted_in(row: Any) -> str:
    """A row's note as the end of a sentence."""
    return f"; {row.note}" if row.note else ""


def counts(report: Any) -> str:
    """How many tensors have each outcome."""
    found = [f"{report.count(outcome)} {outcome}" for outcome in ("pass", "fail", "missing", "unsupported")]
    extra = f"; {len(report.extra)} of theirs are not golden" if report.extra else ""
    return ", ".join(found) + extra


def noted(report: Any) -> Iterator[str]:
    """Layouts that were recognised, each once."""
    told: dict[str, int] = {}
    for row in report.rows:
        if row.note.startswith("layout"):
            told[row.note] = told.get(row.note, 0) + 1
    for note, count in told.items():
        yield f"{note} ({count} tensors were compared so)"


def table(rows: Sequence[Any]) -> list[str]:
    """The rows in columns; those for added errors only where they are known."""
    parted = any(row.added is not None for row in rows)
    headings = [
        "tensor",
        "outcome",
        "kind",
        "error",
        *(["inherited", "added"] if parted else []),
        "bound",
        "largest",
        "cosine",
        "ulp",
    ]
    cells = [headings, *(cells_of(row, parted=parted) for row in rows)]
    return columns(cells)


def cells_of(row: Any, *, parted: bool) -> list[str]:
    """One tensor."""
    parts = [short(row.inherited), short(row.added)] if parted else []
    if row.measure is None:
        return [row.name, row.outcome, row.kind, "-", *parts, short(row.bound), "-", "-", "-"]
    m = row.measure
    numbers = [short(row.bound), short(m.largest), f"{m.cosine:.7f}", f"{m.ulp:.3g}"]
    return [row.name, row.outcome, row.kind, short(m.relative), *parts, *numbers]


def columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Cells as lines, each column as wide as its widest cell."""
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def short(x: float | None) -> str:
    """A number in three figures at most, a dash where there is none."""
    return "-" if x is None else "0" if x == 0.0 else f"{x:.1e}"


def diagnosis_lines(report: Any, story: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The story of each wrong place, in the order of the run."""
    for number, finding in enumerate(story, 1):
        head = "First wrong" if number == 1 else "With that mended, the next wrong"
        yield f"{head}: {finding['tensor']}"
        yield from (f"  {line}" for line in evidence(finding))
        yield ""
        yield from cause_lines(finding) if finding["cause"] else unknown_lines(finding)
        yield ""
    yield counts(report)
    yield from (f"  {line}" for line in noted(report))
    if not story and report.passed:
        absent = report.count("missing") + report.count("unsupported")
        whole = "Nothing is wrong: every part gives what it should, within its bound."
        yield f"Nothing is wrong in what was compared; {absent} golden tensors are not there." if absent else whole


def evidence(finding: dict[str, Any]) -> Iterator[str]:
    """The errors of a wrong tensor and what they look like."""
    if finding["note"]:
        yield finding["note"]
    if finding["added"] is not None:
        yield (
            f"added here {short(finding['added'])} (allowed {short(finding['bound'])}), "
            f"inherited {short(finding['inherited'])}, whole {short(finding['whole'])}"
        )
    yield from (f"it looks like this: {mark}" for mark in finding["looks_like"])


def cause_lines(finding: dict[str, Any]) -> Iterator[str]:
    """The bug that explains a wrong tensor."""
    cause = finding["cause"]
    for bug in cause["bugs"]:
        yield f"The bug: {bug['id']}: {bug['title']} ({bug['variant']})"
        yield from wrapped(bug["why"])
        yield from wrapped(f"Where to look: {bug['where']}.")
        yield from (f"  Happened: {link}" for link in bug["links"])
    with_it = "it" if len(cause["bugs"]) == 1 else "both"
    yield f"  Evidence: the error is {short(cause['before'])}, and {short(cause['after'])} with {with_it} put into our text."
    if finding["nearest"]:
        yield "  Other bugs come less near: " + ", ".join(f"{s['name']} {short(s['after'])}" for s in finding["nearest"]) + "."


def unknown_lines(finding: dict[str, Any]) -> Iterator[str]:
    """No bug explains a wrong tensor."""
    yield "None of the bugs that I know explains it."
    for suspect in finding["nearest"]:
        after = f"{short(suspect['before'])} becomes {short(suspect['after'])}"
        yield f"  Nearest: {suspect['name']}: {suspect['title']}; the error {after} with it."


def wrapped(text: str) -> list[str]:
    """A paragraph, a little to the right."""
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False)


def list_lines() -> list[str]:
    """Every bug that is known: its id, its title, and the stages in which it can first show."""
    from refdiff.golden.mutants import mutants

    return columns([[m.id, m.title, ", ".join(m.stages)] for m in mutants()])


def bug_lines(name: str) -> Iterable[str]:
    """One bug.  Raises: BadRequest for an unknown one"""
    import difflib

    from refdiff.errors import BadRequest
    from refdiff.golden.mutants import mutants
    from refdiff.golden.story import described

    known = {mutant.id: mutant for mutant in mutants()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"near are {', '.join(near)}" if near else "`refdiff explain` lists all"
        raise BadRequest(f'there is no bug "{name}": {hint}')
    bug = described(known[name])
    ways = ", ".join(known[name].variants)
    return [
        f"{bug['id']}: {bug['title']}",
        *wrapped(bug["why"]),
        *wrapped(f"Where to look: {bug['where']}."),
        *wrapped(f"Can show in: {', '.join(bug['stages'])}."),
        *wrapped(f"Tried as: {ways}." if ways else "Not tried by `refdiff diagnose`: text to image does not run through it."),
        *(f"  Happened: {link}" for link in bug["links"]),
    ]
