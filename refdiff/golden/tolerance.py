"""Bounds that mean something: between what honest programs differ by and what the smallest bug does, tensor by tensor.

For every tensor and every precision are kept: `spread`, the largest error that an honest run adds there against the truth in
float64; `mutant`, the smallest effect of a known bug there that is well above it, and which bug that is; `added`, the bound,
between them; `unseen`, the bugs whose effect there is below the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.checkpoints.tensor_file import narrow_bfloat16, widen_bfloat16
from refdiff.core import primitive
from refdiff.core.params import map_arrays
from refdiff.golden import mutants
from refdiff.golden.added import added_errors, belongs
from refdiff.golden.compare import relative
from refdiff.golden.format import Trace
from refdiff.golden.mutants.kind import NOT_HERE, Site, kind_of_stage, standing
from refdiff.golden.recording import record
from refdiff.golden.stages import Setting, run_stage, stages_of
from refdiff.pipelines.text_to_image import Pipeline

LEAST = {"float64": 1e-13, "float32": 1.5e-7, "float16": 1.2e-3, "bfloat16": 1e-2}  # a spread below is taken for this
ROOM = 4.0  # times the spread: the least bound
MOST = 16.0  # times the spread: the largest


def with_bounds(golden: Trace, truth: Setting, honest: Mapping[str, Sequence[Trace]]) -> Trace:
    """The trace with the bounds of every tensor in its manifest.

    `truth`: the setting in float64; `honest`: for each precision the traces of programs that are right
    """
    effects = effects_of(golden, truth)
    tensors = {name: dict(facts) for name, facts in golden.manifest.get("tensors", {}).items()}
    for kind, traces in honest.items():
        errors = [added_errors(truth, trace, golden) for trace in traces]
        for name in golden.tensors:
            seen = [found[name] for found in errors if name in found and math.isfinite(found[name])]
            if seen:
                told = tensors.setdefault(name, {}).setdefault("bounds", {})
                told[kind] = bounds(max(*seen, LEAST[kind]), effects.get(name, {}))
    return Trace(golden.tensors, {**golden.manifest, "tensors": tensors})


def bounds(spread: float, effects: Mapping[str, float]) -> dict[str, Any]:
    """The bound of one tensor, and what it stands between."""
    above = {name: effect for name, effect in effects.items() if effect > 2.0 * ROOM * spread}
    smallest = min(above, key=above.__getitem__, default=None)
    effect = math.inf if smallest is None else above[smallest]
    bound = min(max(ROOM * spread, math.sqrt(spread * min(effect, MOST**2 * spread))), MOST * spread)
    unseen = sorted(name for name, effect in effects.items() if 0.0 < effect <= bound)
    found: dict[str, Any] = {"spread": spread, "added": bound, "unseen": unseen}
    return found if smallest is None else {**found, "mutant": {"id": smallest, "effect": effect}}


def effects_of(golden: Trace, truth: Setting) -> dict[str, dict[str, float]]:
    """The relative error that each bug adds at each tensor, where it adds any."""
    found: dict[str, dict[str, float]] = {}
    for mutant in mutants.mutants():
        for name, variant in mutant.variants.items():
            for stage in stages_of(truth):
                if kind_of_stage(stage.name) not in mutant.stages or not any(belongs(n, stage) for n in golden.tensors):
                    continue
                with variant(Site(truth, "")) as setting, np.errstate(all="ignore"):
                    try:
                        made = run_stage(
                            setting, stage, golden.tensors.__getitem__, replaced=golden.tensors, know=None, until=None
                        )
                    except NOT_HERE:
                        continue
                for tensor, x in made.items():
                    want = golden.tensors.get(tensor)
                    effect = 0.0 if want is None or want.shape != x.shape else relative(x, want)
                    if effect > 1e-12:
                        found.setdefault(tensor, {})[f"{mutant.id} ({name})"] = effect
    return found


def honest_traces(pipe: Pipeline, inputs: Mapping[str, Any], *, detail: str, at: Sequence[int]) -> dict[str, list[Trace]]:
    """Runs of our own that are right, by precision: float32 by the specification and by the kernels, and in half precisions."""
    options = {key: value for key, value in inputs.items() if key not in ("prompt", "negative_prompt")}

    def run(kernels: str, narrowed: Callable[[np.ndarray], np.ndarray]) -> Trace:
        parts = {n: _with_params(getattr(pipe, n), narrowed) for n in ("text_encoder", "unet", "vae")}
        other = replace(pipe, dtype="float32", kernels=kernels, products="float32", **parts)
        return record(other, inputs["prompt"], inputs["negative_prompt"], detail=detail, at=at, **options)

    def single(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32)

    found = {"float32": [run("spec", single), run("fast", single)]}
    for kind, near in HALVES.items():
        with standing([(primitive.Primitive, "compute", computing(near))]):
            trace = run("spec", near)
        found[kind] = [narrowed_trace(trace, near)]
    return found


def narrowed_trace(trace: Trace, near: Callable[[np.ndarray], np.ndarray]) -> Trace:
    """A trace as a program gives it that keeps pictures and what networks compute in a half precision, but no tables or times."""

    def kept(name: str) -> bool:
        return name.startswith(("schedule/", "tokens/", "noise/")) or name.endswith("/time")

    return Trace({name: x if kept(name) or x.dtype.kind != "f" else near(x) for name, x in trace.tensors.items()})


def _with_params(part: Any, narrowed: Callable[[np.ndarray], np.ndarray]) -> Any:
    return replace(part, params=map_arrays(narrowed, part.params))


def computing(near: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Every op as a program gives it that keeps its results in a half precision and its sums in float32."""

    def compute(self: primitive.Primitive, *args: Any, **constants: Any) -> Any:
        found = self.spec(*args, **constants)
        return near(found) if isinstance(found, np.ndarray) and found.dtype.kind == "f" else found

    return compute


def to_float16(x: np.ndarray) -> np.ndarray:
    """As float16 holds it.  Shapes: any -> the same, float32"""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """As bfloat16 holds it.  Shapes: any -> the same, float32"""
    return widen_bfloat16(narrow_bfloat16(x))


HALVES = {"float16": to_float16, "bfloat16": to_bfloat16}
