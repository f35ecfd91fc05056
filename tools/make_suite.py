"""Make the conformance suite: python tools/make_suite.py

Writes refdiff/golden/data/suite.json and suite.safetensors from refdiff/golden/cases.py: inputs, outputs in float64 by the
specification (stored as float32), and for each output the bounds, between what right programs differ by in each precision and
what the smallest known bug does. A case that is stored stays as it is, bounds and all: only what is new is made (remove the files
to make everything). With --check it only says whether the stored outputs are those that are made now.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import refdiff
import refdiff.kernels.cpu
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.checkpoints.tensor_file import read_safetensors, write_safetensors
from refdiff.core import primitive
from refdiff.core.params import map_arrays
from refdiff.errors import BadRequest
from refdiff.golden import mutants
from refdiff.golden.case_runs import model_of, run_case
from refdiff.golden.cases import REFUSALS, Case, cases
from refdiff.golden.compare import relative
from refdiff.golden.mutants import Site
from refdiff.golden.recording import SUITE_VERSION
from refdiff.golden.stages import Setting
from refdiff.golden.tolerance import HALVES, LEAST, bounds, computing
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.text import Tokenizer

DATA = Path(refdiff.__file__).parent / "golden" / "data"
NETWORKS = ("op", "block", "text_encoder", "unet", "decode", "encode")


def main() -> int:
    """Write, or with --check compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where an output is another")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        write_synthetic("tiny", model, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
        pipes = {dtype: refdiff.load(model, dtype=dtype, kernels="spec") for dtype in ("float64", "float32")}
        if asked.check:
            return check(pipes["float64"])
        index, tensors = made(pipes)
    DATA.mkdir(exist_ok=True)
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in index.items())
    (DATA / "suite.json").write_text(f'{{"suite_version": "{SUITE_VERSION}", "cases": {{\n{text}\n}}}}\n', encoding="ascii")
    write_safetensors(DATA / "suite.safetensors", tensors, dtype=None)
    print(f"{len(index)} cases, {sum(x.nbytes for x in tensors.values()) / 1e6:.2f} MB")
    return 0


def made(pipes: Mapping[str, Pipeline]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The index and the tensors."""
    index: dict[str, Any] = {}
    tensors: dict[str, np.ndarray] = {}
    old, old_tensors = stored()
    for case in cases():
        if case.id in old:
            index[case.id] = old[case.id]
            tensors.update({name: x for name, x in old_tensors.items() if name.startswith((f"{case.id}/in/", f"{case.id}/out/"))})
            continue
        entry: dict[str, Any] = {"kind": case.kind, "constants": dict(case.constants), "inputs": list(case.inputs), "outputs": {}}
        tensors.update({f"{case.id}/in/{name}": x for name, x in case.inputs.items()})
        if case.id in REFUSALS:
            index[case.id] = {**entry, "refused": REFUSALS[case.id][1]}
            continue
        models = {dtype: model_of(case, pipe) for dtype, pipe in pipes.items()}
        right = truth(case, models["float64"])
        tensors.update({f"{case.id}/out/{name}": x for name, x in right.items()})
        index[case.id] = {**entry, "outputs": bounds_of(case, right, models)}
    return index, tensors


def stored() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The index and the tensors that there are."""
    if not (DATA / "suite.json").exists():
        return {}, {}
    index = json.loads((DATA / "suite.json").read_text(encoding="ascii"))
    return index["cases"], dict(read_safetensors(DATA / "suite.safetensors"))


def truth(case: Case, pipe: Pipeline) -> dict[str, np.ndarray]:
    """The outputs in float64, stored as float32; not constant, and finite."""
    found = {
        name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in run_case(case, pipe, dtype="float64").items()
    }
    for name, x in found.items():
        assert np.isfinite(x.astype(np.float64)).all(), (case.id, name)
        assert x.size == 1 or x.min() < x.max() or name in ("timesteps", "skip"), (case.id, name, "is constant")
    return found


def bounds_of(case: Case, right: Mapping[str, np.ndarray], pipes: Mapping[str, Pipeline]) -> dict[str, Any]:
    """For each output and precision the spread of right programs, the smallest bug's effect, and the bound between them."""
    runs = honest(case, pipes["float32"])
    effects = effects_of(case, right, pipes["float64"]) if case.kind in NETWORKS else {}
    found: dict[str, Any] = {}
    for name, want in right.items():
        if want.dtype.kind != "f":
            found[name] = {}
            continue
        own, told = effects.get(name, {}), {}
        for kind, made in runs.items():
            errors = [relative(run[name], want) for run in made if name in run]
            if all(map(math.isfinite, errors)):  # some numbers are too large for float16
                told[kind] = bounds(max(*errors, LEAST[kind]), own)
        if case.kind == "noise":  # drawn, not computed: in float32 whatever is computed in half precision
            told = dict.fromkeys(told, told["float32"])
        found[name] = {"bounds": told}
    return found


def honest(case: Case, pipe: Pipeline) -> dict[str, list[dict[str, np.ndarray]]]:
    """What right programs give: float32 by the specification and by the kernels, and half precisions."""
    found: dict[str, list] = {"float32": []}
    for kernels in ("spec", "fast"):
        with primitive.mode(kernels):
            found["float32"].append(run_case(case, replace(pipe, kernels=kernels), dtype="float32"))
    for kind, near in HALVES.items():
        narrow = replace(case, inputs={n: near(x) if x.dtype.kind == "f" else x for n, x in case.inputs.items()})
        parts = {
            n: replace(getattr(pipe, n), params=map_arrays(near, getattr(pipe, n).params))
            for n in ("text_encoder", "unet", "vae")
        }
        with mock.patch.object(primitive.Primitive, "compute", computing(near)), np.errstate(all="ignore"):
            run = run_case(narrow, replace(pipe, **parts), dtype="float32")
        found[kind] = [{name: near(x) if x.dtype.kind == "f" else x for name, x in run.items()}]
    return found


def effects_of(case: Case, right: Mapping[str, np.ndarray], pipe: Pipeline) -> dict[str, dict[str, float]]:
    """The relative effect of each bug of a network on each output, where it has any."""
    found: dict[str, dict[str, float]] = {}
    setting = Setting.of(pipe, {"prompt": "a fox", "negative_prompt": "", "steps": 1})
    for mutant in mutants.mutants():
        for variant, change in mutant.variants.items():
            if not {"text_encoder", "unet", "vae"} & set(mutant.stages):
                continue
            with change(Site(setting, "")) as changed, np.errstate(all="ignore"):
                try:
                    wrong = run_case(case, changed.pipe, dtype="float64")
                except (ValueError, IndexError, ZeroDivisionError, BadRequest, KeyError):
                    continue
            for name, x in wrong.items():
                effect = relative(x, right[name]) if x.shape == right[name].shape else 0.0
                if effect > 1e-6 and math.isfinite(effect):
                    found.setdefault(name, {})[f"{mutant.id} ({variant})"] = effect
    return found


def check(pipe: Pipeline) -> int:
    """Whether the stored outputs are those that are made now; 1 if any is not."""
    _, kept = stored()
    wrong = []
    for case in cases():
        if case.id not in REFUSALS:
            for name, x in truth(case, model_of(case, pipe)).items():
                old = kept.get(f"{case.id}/out/{name}")
                if old is None or old.shape != x.shape or relative(old, x) > 1e-6:
                    wrong.append(f"{case.id}: {name}")
    print("\n".join(wrong) or "the suite is as the cases make it")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
