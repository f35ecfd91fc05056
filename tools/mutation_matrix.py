"""Which bug is seen where, and is it named: python tools/mutation_matrix.py --out docs/golden

Every variant of every known bug is put into our own text, which then stands for a port that has it, in float32, float16 and
bfloat16; `diagnose` is given its trace. A bug counts as visible where its effect on some tensor is more than four times what
right programs differ by there. Then random pairs of bugs. Rows are kept as they are made, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import refdiff
import refdiff.kernels.cpu
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.core import primitive
from refdiff.golden import mutants
from refdiff.golden.added import added_errors
from refdiff.golden.compare import aligned
from refdiff.golden.diagnosis import diagnose
from refdiff.golden.format import Trace
from refdiff.golden.mutants import Mutant, Site
from refdiff.golden.mutants.kind import NOT_HERE
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting
from refdiff.golden.tolerance import HALVES, computing, honest_traces, narrowed_trace, with_bounds
from refdiff.text import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.golden.settings import CASES
from tests.golden.test_bugs import table

PAIRS, SEED = 200, 0
ROOM = 4.0  # times the spread, from which on an effect is visible
# A bug is tried in the cases of tests/golden in which it is known to show, then in these, until one is found where it is seen.
ASKED: Mapping[str, Any] = {"steps": 2, "guidance": 5.0, "seed": 3, "width": 32, "height": 32}
EVERYDAY = ("plain", "words", "odd", "karras", "pndm", "dpm", "ancestral", "back", "pieces", "quiet")
PLACES = ("steps/000/unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "steps/000/unet/mid_block.resnets.0.conv1")


def main() -> int:
    """Make the rows that are not there yet, then the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder for matrix.json and matrix.md")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th row from the i-th; then once more without it")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    shard, shards = map(int, asked.shard.split("/"))
    file = asked.out / (f"matrix.{shard}.json" if shards > 1 else "matrix.json")
    rows = [row for part in sorted(asked.out.glob("matrix*.json")) for row in json.loads(part.read_text())] if shards == 1 else []
    rows = json.loads(file.read_text()) if shards > 1 and file.exists() else list({row["id"]: row for row in rows}.values())
    done = {row["id"] for row in rows}
    for number, (name, make) in enumerate(tasks(asked.pairs)):
        if name not in done and number % shards == shard:
            rows.append({"id": name, **make()})
            write(file, rows)
            print(name, {k: v for k, v in rows[-1].items() if k != "id"}, flush=True)
    write(file, rows)
    if shards == 1:
        (asked.out / "matrix.md").write_text(page(rows))
    return 0


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """A row a line."""
    file.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


def tasks(pairs: int) -> Iterator[tuple[str, Any]]:
    """Every row by its name, and how it is made."""
    singles = [(mutant, variant) for mutant in mutants.mutants() for variant in mutant.variants]
    for mutant, variant in singles:
        yield f"{mutant.id} ({variant}), float32", lambda m=mutant, v=variant: single(m, v, "float32")
    chance = random.Random(SEED)
    for number in range(pairs):
        one, other = chance.sample(singles, 2)
        yield f"pair {number}: {one[0].id} ({one[1]}) and {other[0].id} ({other[1]})", lambda a=one, b=other: pair(a, b)
    for mutant, variant in singles:
        for dtype in HALVES:
            yield f"{mutant.id} ({variant}), {dtype}", lambda m=mutant, v=variant, d=dtype: single(m, v, d)


@cache
def pipes() -> dict[str, Any]:
    """The model of `refdiff synth tiny` in both precisions."""
    folder = Path(tempfile.mkdtemp()) / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return {dtype: refdiff.load(folder, dtype=dtype, kernels="spec") for dtype in ("float32", "float64")}


def recorded(pipe: Any, name: str) -> Trace:
    """A trace of a case."""
    case = CASES[name]
    return record(pipe, case.prompt, case.negative, detail="layers", **{**ASKED, **case.options})


@cache
def golden(name: str) -> tuple[Setting, Trace]:
    """The truth in a case, with bounds."""
    pipe = CASES[name].change(pipes()["float64"])
    trace = recorded(pipe, name)
    setting = Setting.of(pipe, trace.manifest["inputs"])
    honest = honest_traces(pipe, trace.manifest["inputs"], detail="layers", at=(0,))
    return setting, with_bounds(trace, setting, honest)


def port(bugs: Sequence[tuple[Mutant, str]], name: str, dtype: str, place: str) -> Trace | None:
    """What a port with these bugs gives; none where sizes do not fit."""
    setting, _ = golden(name)
    near = HALVES.get(dtype)
    changed = Setting.of(CASES[name].change(pipes()["float64" if dtype == "float64" else "float32"]), setting.inputs)
    with ExitStack() as stack, np.errstate(all="ignore"):
        for mutant, variant in bugs:
            changed = stack.enter_context(mutant.variants[variant](Site(changed, place)))
        stack.enter_context(mock.patch.object(primitive.Primitive, "compute", computing(near)) if near else nullcontext())
        try:
            trace = recorded(changed.pipe, name)
        except NOT_HERE:
            return None
    return narrowed_trace(trace, near) if near else Trace(trace.tensors)


def added_by(mutant: Mutant, variant: str, name: str, place: str) -> Mapping[str, float]:
    """The errors that a bug adds in float64."""
    return added_by_id(mutant.id, variant, name, place)


@cache
def added_by_id(bug: str, variant: str, name: str, place: str) -> Mapping[str, float]:
    """The same, remembered."""
    setting, truth = golden(name)
    mutant = next(mutant for mutant in mutants.mutants() if mutant.id == bug)
    exact = port([(mutant, variant)], name, "float64", place)
    if exact is None:
        return {}
    others = {n: 1.0 for n, x in exact.tensors.items() if n in truth.tensors and x.shape != truth.tensors[n].shape}
    return {**added_errors(setting, aligned(exact, truth), truth), **others}


def visible(added: Mapping[str, float], truth: Trace, dtype: str) -> bool:
    """Whether some tensor is further off than right programs are."""
    spreads = {name: truth.facts(name).get("bounds", {}).get(dtype, {}).get("spread", 0.0) for name in added}
    return any(error > ROOM * spreads[name] for name, error in added.items())


def settings_of(mutant: Mutant, variant: str) -> tuple[str, ...]:
    """The cases in which a bug may be seen, those first in which it is known to show."""
    known = [case for case, name, shown in table() if (name, shown) == (mutant.id, variant)]
    of_the_same = [case for case, name, _ in table() if name == mutant.id]
    return tuple(dict.fromkeys((*known, *of_the_same, *EVERYDAY)))


def shows(mutant: Mutant, variant: str, name: str, dtype: str) -> str | None:
    """The place in which a bug is seen in a case, if there is one."""
    truth = golden(name)[1]
    return next((place for place in PLACES if visible(added_by(mutant, variant, name, place), truth, dtype)), None)


def single(mutant: Mutant, variant: str, dtype: str) -> dict[str, Any]:
    """One bug in the first case in which it can be seen."""
    for name in settings_of(mutant, variant):
        place = shows(mutant, variant, name, dtype)
        if place is not None:
            theirs = port([(mutant, variant)], name, dtype, place)
            return {"dtype": dtype, "setting": name, "visible": True, **told(theirs, *golden(name), {mutant.id})}
    return {"dtype": dtype, "setting": None, "visible": False}


def pair(one: tuple[Mutant, str], other: tuple[Mutant, str]) -> dict[str, Any]:
    """Two bugs at once, in float32: in the first case in which both are seen, or else in one in which one of them is."""
    best: tuple[str, str] | None = None
    for name in dict.fromkeys((*settings_of(*one), *settings_of(*other))):
        places = [place for bug in (one, other) if (place := shows(*bug, name, "float32")) is not None]
        best = (name, places[0]) if places and best is None or len(places) == 2 else best
        if len(places) == 2:
            break
    if best is None:
        return {"dtype": "float32", "setting": None, "visible": False}
    theirs = port([one, other], best[0], "float32", best[1])
    return {"dtype": "float32", "setting": best[0], "visible": True, **told(theirs, *golden(best[0]), {one[0].id, other[0].id})}


def told(theirs: Trace | None, setting: Setting, truth: Trace, ids: set[str]) -> dict[str, Any]:
    """What the diagnosis says of a port with these bugs: seen, where, and the rank, from 1, of a right name that explains it."""
    if theirs is None:
        return {"detected": True, "first": "it does not run", "rank": None}
    found = diagnose(setting, theirs, truth)
    wrong = found.report.first_wrong
    ranks = []
    for finding in found.findings:
        named = [k for k, suspect in enumerate(finding.suspects, 1) if suspect.explains and ids & {m.id for m in suspect.mutants}]
        ranks += named[:1]
    best = found.findings[0].suspects[0].name if found.findings and found.findings[0].suspects else None
    return {
        "detected": wrong is not None,
        "first": wrong.name if wrong else None,
        "rank": min(ranks, default=None),
        "cause": bool(ranks),
        "named": best,
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The matrix as a page."""
    singles = [row for row in rows if not row["id"].startswith("pair")]
    lines = [
        "# Which bug is seen, and is it named",
        "",
        "Made by `python tools/mutation_matrix.py --out docs/golden`; matrix.json has every row.",
        "",
    ]
    lines += [
        "| precision | variants | visible | detected | named first | in the first three |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for dtype in ("float32", *HALVES):
        lines.append(summary(dtype, [row for row in singles if row["dtype"] == dtype]))
    lines.append(summary("pairs, float32", [row for row in rows if row["id"].startswith("pair")]))
    earlier = sum(row["visible"] and row["first"] != "it does not run" and "cause" not in row for row in rows)
    if earlier:
        lines += [
            "",
            f"{earlier} rows are of an earlier run, in which a name counted also where it was only the nearest, not the cause.",
        ]
    lines += by_stage(singles)
    lines += [
        "",
        "| bug (variant) | setting | first wrong tensor | float32 | float16 | bfloat16 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = list(dict.fromkeys(row["id"].rpartition(", ")[0] for row in singles))
    for name in names:
        own = {row["dtype"]: row for row in singles if row["id"].rpartition(", ")[0] == name}
        first = own.get("float32", {})
        cells = [cell(own.get(dtype)) for dtype in ("float32", *HALVES)]
        lines.append(f"| {name} | {first.get('setting') or ''} | {first.get('first') or ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def by_stage(singles: list[dict[str, Any]]) -> list[str]:
    """How many are named first of those detected, by the stage of the first wrong tensor."""
    found = [row for row in singles if row["visible"] and row["detected"]]
    lines = ["", "Named first, of those detected, by the stage in which the first wrong tensor lies:", ""]
    lines += [f"| stage | {' | '.join(('float32', *HALVES))} |", "| --- | --- | --- | --- |"]
    for stage in dict.fromkeys(stage_of(row) for row in found):
        ranks = [[row.get("rank") for row in found if (stage_of(row), row["dtype"]) == (stage, d)] for d in ("float32", *HALVES)]
        lines.append(f"| {stage} | {' | '.join(f'{of.count(1)} of {len(of)}' for of in ranks)} |")
    return lines


def stage_of(row: dict[str, Any]) -> str:
    """Of a tensor's name; the tensors of a step are the sampler's, but the U-Net's and the guided prediction."""
    first, *rest = str(row["first"]).split("/")
    if first != "steps":
        return first
    return {"unet": "U-Net", "guided": "guidance"}.get(rest[1], "sampler")


def summary(title: str, rows: list[dict[str, Any]]) -> str:
    """A line of counts; shares are of those that were detected and ran."""
    seen = [row for row in rows if row["visible"]]
    found = [row for row in seen if row["detected"]]
    ranked = Counter(row.get("rank") for row in found if row.get("first") != "it does not run")
    total = sum(ranked.values())
    first, three = ranked[1], sum(n for rank, n in ranked.items() if rank is not None and rank <= 3)

    def share(n: int) -> str:
        return f"{n} ({100 * n / total:.1f} %)" if total else "0"

    return f"| {title} | {len(rows)} | {len(seen)} | {len(found)} | {share(first)} | {share(three)} |"


def cell(row: dict[str, Any] | None) -> str:
    """The rank of the right name, or why there is none."""
    if row is None:
        return "not run"
    if not row["visible"]:
        return "not visible"
    if not row["detected"]:
        return "**not seen**"
    if row["first"] == "it does not run":
        return "does not run"
    return f"named {row['rank']}" if row["rank"] else f"seen, named {row.get('named')}"


if __name__ == "__main__":
    sys.exit(main())
