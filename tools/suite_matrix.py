"""Which case of the conformance suite sees which bug: python tools/suite_matrix.py --out docs/golden

Every variant of every known bug is put into our own text, which then stands for a port in float32 that has it, and is asked for
the cases of the suite, level by level, until three have failed. A bug that is visible in float32 in the golden traces of
matrix.json must fail a case; the tool ends with 1 where one does not. Rows are kept as they are made, so that a run that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.golden import mutants
from refdiff.golden.case_runs import model_of, run_case
from refdiff.golden.cases import Case
from refdiff.golden.compare import FAIL
from refdiff.golden.mutants import Mutant, Site
from refdiff.golden.mutants.kind import NOT_HERE
from refdiff.golden.recording import SUITE_VERSION
from refdiff.golden.stages import Setting
from refdiff.golden.suite import Expected, judged, suite
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.text import Tokenizer

ENOUGH = 3  # cases that fail
STOPS = " (it does not run)"
ASKED = {"prompt": "a fox", "negative_prompt": "", "steps": 1}
# A bug of one layer is put into one of these, and it is enough that a case sees it in one.
OF_A_LAYER = ("w-square-T", "w-missing")
PLACES = ("steps/000/unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "steps/000/unet/mid_block.resnets.0.conv1")
HEAD = """# Which case sees which bug

Written by `python tools/suite_matrix.py --out docs/golden`; do not edit. Version {version} of the conformance suite, {cases}
cases that must be answered. Of each bug, put into our own text in float32, the first {enough} cases that fail, from L0 on.
"Visible" is what [matrix.md](matrix.md) says of golden traces in float32.

{counts}

A variant that no case sees is what the cases themselves have: `noise-rng (torch)` is the stream that is asked for, and
`vae-scale (SD 1.x's)` the factor of the model. A case that does not run with a bug is none that passes, and is said so.

| bug (variant) | visible | cases that fail |
|---|---|---|
"""


def main() -> int:
    """Make the rows that are not there yet, then the page; 1 where a bug that is visible fails no case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of matrix.json, and for suite_matrix.json and .md")
    asked = parser.parse_args()
    file = asked.out / "suite_matrix.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done, pipe = {row["id"] for row in rows}, tiny()
    for mutant in mutants.mutants():
        for variant in mutant.variants:
            name = f"{mutant.id} ({variant})"
            if name not in done:
                rows.append({"id": name, "cases": failing(mutant, variant, pipe)})
                file.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
                print(name, rows[-1]["cases"], flush=True)
    seen = visible(asked.out / "matrix.json")
    (asked.out / "suite_matrix.md").write_text(page(rows, seen), encoding="utf-8")
    missed = [row["id"] for row in rows if row["id"] in seen and not row["cases"]]
    print("\n".join(f"no case sees {name}" for name in missed) or "every visible bug fails a case")
    return 1 if missed else 0


def tiny() -> Pipeline:
    """The model of `refdiff synth tiny`."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        write_synthetic("tiny", model, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
        return refdiff.load(model, kernels="spec")


def visible(file: Path) -> set[str]:
    """The bugs that a golden trace shows in float32."""
    rows = [row for row in json.loads(file.read_text()) if row["visible"] and row["dtype"] == "float32"]
    return {row["id"].removesuffix(", float32") for row in rows if not row["id"].startswith("pair ")}


def failing(mutant: Mutant, variant: str, pipe: Pipeline) -> list[str]:
    """The first cases that a port with this bug fails, those first in which it runs."""
    found, stopped = [], []
    for case in sorted(suite().values(), key=lambda case: case.id.partition("/")[0]):
        given = [] if case.refused else with_bug(mutant, variant, case, pipe)
        if None in given:
            stopped.append(case.id + STOPS)
        elif any(judged(case, one).outcome == FAIL for one in given if one is not None):
            found.append(case.id)
        if len(found) == ENOUGH:
            break
    return (found + stopped)[:ENOUGH]


def with_bug(mutant: Mutant, variant: str, expected: Expected, pipe: Pipeline) -> list[dict[str, np.ndarray] | None]:
    """What ports with this bug give for a case, one a place; none where it does not run."""
    case, made = Case(expected.id, expected.kind, expected.constants, expected.inputs), list[Any]()
    setting = Setting.of(model_of(case, pipe), ASKED)
    for place in PLACES if mutant.id in OF_A_LAYER else PLACES[:1]:
        with mutant.variants[variant](Site(setting, place)) as changed, np.errstate(all="ignore"):
            try:
                made.append(run_case(case, changed.pipe, dtype="float32"))
            except (*NOT_HERE, RuntimeError):  # RuntimeError: it asks for more noise than is given
                made.append(None)
    return made


def page(rows: Sequence[dict[str, Any]], seen: set[str]) -> str:
    """The matrix as a page."""
    ran = {row["id"] for row in rows if any(not name.endswith(STOPS) for name in row["cases"])}
    counts = [
        "| variants | visible | of these fail a case | of the others |", "|---|---|---|---|",
        f"| {len(rows)} | {len(seen)} | {len(seen & ran)} | {len(ran - seen)} |",
    ]  # fmt: skip
    lines = [f"| {row['id']} | {'yes' if row['id'] in seen else 'no'} | {', '.join(row['cases']) or 'none'} |" for row in rows]
    asked = sum(not case.refused for case in suite().values())
    return HEAD.format(version=SUITE_VERSION, cases=asked, enough=ENOUGH, counts="\n".join(counts)) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
