"""The conformance suite: its cases with the outputs that are right, and the judgement of what a port gives.

The files in data/ are made by tools/make_suite.py: suite.json (an entry for each case: constants, and for each output the bounds
of tolerance.py) and suite.safetensors (`id/in/name`, `id/out/name`). Versions are semantic: a case never changes what it means;
one that is wrong is withdrawn, and another takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.checkpoints.tensor_file import read_safetensors, write_safetensors
from refdiff.errors import BadRequest
from refdiff.golden.compare import FAIL, MISSING, PASS, UNSUPPORTED, Report, Row, compare, relative
from refdiff.golden.format import Trace, read_trace

REFUSED = "refused"
# The cases that a port must pass to claim a profile: every one whose id, with a / after it, begins with one of these.
PROFILES: Mapping[str, tuple[str, ...]] = {
    "sd15-text-to-image": (
        "L0/linear", "L0/conv2d/3x3", "L0/conv2d/1x1", "L0/conv2d/down/", "L0/group_norm", "L0/layer_norm", "L0/silu",
        "L0/quick_gelu", "L0/geglu", "L0/softmax", "L0/attention", "L0/upsample_nearest", "L0/timestep_embedding/cosines-first",
        "L1/text", "L1/unet", "L1/vae", "L2/text_encoder", "L2/tokens", "L2/unet", "L2/vae/decode/", "L3/ddim/", "L3/pndm/",
        "L3/euler/", "L3/dpmpp-2m", "L3/again", "L3/guidance/", "L3/pixels", "L3/refuse", "L4/ddim", "L4/euler", "L5/",
    ),
    "sd15-image-to-image": ("L0/conv2d/down-one-side", "L2/vae/encode", "L3/image-to-image"),
    "torch-noise": ("L3/noise",),
    "sd2": ("L1/sd2", "L2/sd2", "L3/ddim-v"),
    "textual-inversion": ("L2/textual-inversion",),
    "sdxl": ("L0/sdxl",),
    "lora": ("L0/lora",),
    "controlnet": ("L0/controlnet",),
    "tiles": ("L0/tiles",),
    "samplers": ("L3/",),
    "everything": ("L",),
}  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """A case as it is stored: what is asked, and what is right; `refused` says why it must be refused, if it must."""

    id: str
    kind: str
    constants: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Trace
    refused: str


@dataclass(frozen=True)
class Result:
    """What a port did with a case."""

    id: str
    outcome: str
    rows: tuple[Row, ...] = ()
    note: str = ""


@cache
def suite() -> Mapping[str, Expected]:
    """Every case by its id, in order."""
    return read_suite(Path(str(files("refdiff.golden").joinpath("data"))))


def read_suite(folder: Path) -> dict[str, Expected]:
    """The suite in a folder.  Raises: BadRequest where it is damaged"""
    try:
        index = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequest(f"{folder}: holds no suite: {error}") from error
    tensors = read_safetensors(folder / "suite.safetensors")
    return {name: _expected(name, entry, tensors) for name, entry in index["cases"].items()}


def _expected(name: str, entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Expected:
    inputs = {short: tensors[f"{name}/in/{short}"] for short in entry["inputs"]}
    outputs = {short: tensors[f"{name}/out/{short}"] for short in entry["outputs"]}
    manifest = {"tensors": entry["outputs"], "order": list(outputs)}
    return Expected(name, entry["kind"], entry["constants"], inputs, Trace(outputs, manifest), entry.get("refused", ""))


def chosen(profile: str, levels: Iterable[str]) -> list[Expected]:
    """The cases of a profile, of these levels alone if any are named.  Raises: BadRequest for a profile that there is not"""
    if profile not in PROFILES:
        raise BadRequest(f'unknown profile "{profile}": choose one of {", ".join(PROFILES)}')
    starts, wanted = PROFILES[profile], set(levels)
    found = [case for name, case in suite().items() if f"{name}/".startswith(starts)]
    return [case for case in found if not wanted or case.id.partition("/")[0] in wanted]


def judged(case: Expected, given: Mapping[str, np.ndarray] | str) -> Result:
    """What a port gave for a case, or a word in its place: "unsupported", "missing", "refused", or why there is nothing."""
    if isinstance(given, str):
        if case.refused and given != MISSING:
            return Result(case.id, PASS if given == REFUSED else FAIL, note=given)
        return Result(case.id, given if given in (UNSUPPORTED, MISSING) else FAIL, note=given)
    if case.refused:
        return Result(case.id, FAIL, note=f"it must be refused: {case.refused}")
    report = judgement(Trace(given), case.outputs)
    missing = [row.name for row in report.rows if row.outcome == MISSING]
    if missing:
        return Result(case.id, FAIL, report.rows, note=f"not given: {', '.join(missing)}")
    wrong = report.first_wrong
    return Result(case.id, FAIL if wrong else PASS, report.rows, note="" if wrong is None else wrong.name)


def judgement(theirs: Trace, right: Trace) -> Report:
    """Every tensor judged by the case's own bounds: a case is one part, so all of its error was added there."""
    errors = {
        name: relative(theirs.tensors[name], want)
        for name, want in right.tensors.items()
        if name in theirs.tensors and theirs.tensors[name].shape == want.shape
    }
    return compare(theirs, right, added=errors)


def results(cases: Iterable[Expected], folder: Path) -> Iterator[Result]:
    """The judgement of a folder of outputs: for each case ID the file or folder ID.safetensors, ID.npz or ID/*.npy, or a file
    ID.refused where the port refuses the case.
    """
    for case in cases:
        paths = [folder / f"{case.id}.safetensors", folder / f"{case.id}.npz", folder / case.id]
        path = next((path for path in paths if path.exists()), None)
        nothing = REFUSED if (folder / f"{case.id}.refused").is_file() else MISSING
        yield judged(case, nothing if path is None else read_trace(path).tensors)


def export(cases: Iterable[Expected], folder: Path) -> int:
    """Write the inputs of cases for a port that reads files: ID.safetensors and cases.json.  Raises: BadRequest as the writer"""
    index = {}
    for case in cases:
        index[case.id] = {"kind": case.kind, "constants": case.constants, "outputs": list(case.outputs.tensors)}
        if case.inputs:
            write_safetensors(folder / f"{case.id}.safetensors", case.inputs, dtype=None)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return len(index)
