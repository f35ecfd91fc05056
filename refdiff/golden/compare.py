"""Another program's tensors beside golden ones: how far apart, in which layout, and which is the first that is wrong.

NumPy is enough; no model is needed. With a model, golden/added.py also tells the error that a stage inherited from the one that
it added, and a report then goes by what was added.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from refdiff.golden.format import Trace

T = TypeVar("T")
PASS, FAIL, MISSING, UNSUPPORTED = "pass", "fail", "missing", "unsupported"
# Relative L2 errors that are allowed where a manifest has none of its own, by the precision of the tensor.
ADDED = {"exact": 0.0, "float64": 1e-10, "float32": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}
WHOLE = {"exact": 0.0, "float64": 1e-8, "float32": 1e-3, "float16": 5e-2, "bfloat16": 3e-1}
PIECE = 1 << 13  # numbers that are looked at together: they stay in the cache, and products of them in one thread
FEW = 16  # numbers: too few to tell their precision
PROMPTS_FIRST = "layout: the prompts before the negative prompts"
LAYOUTS = {(0, 2, 3, 1): "NHWC", (0, 3, 1, 2): "NCHW for NHWC", (1, 0): "transposed", (0, 2, 1): "last two axes swapped"}


@dataclass(frozen=True)
class Measure:
    """How far a tensor is from the golden one: relative L2, largest difference and its place, cosine, units in the last place."""

    relative: float
    largest: float
    at: tuple[int, ...]
    cosine: float
    ulp: float


@dataclass(frozen=True)
class Row:
    """One tensor of a comparison. `added` is the error that its own part made of their inputs, where a model told it, and
    `inherited` the error of what our part makes of them.
    """

    name: str
    outcome: str
    kind: str = ""
    measure: Measure | None = None
    added: float | None = None
    bound: float | None = None
    note: str = ""
    inherited: float | None = None


@dataclass(frozen=True)
class Report:
    """A comparison, in the order in which the golden tensors were made."""

    rows: tuple[Row, ...]
    extra: tuple[str, ...]  # theirs that the golden trace does not have

    @property
    def first_wrong(self) -> Row | None:
        """The first tensor that fails."""
        return next((row for row in self.rows if row.outcome == FAIL), None)

    @property
    def passed(self) -> bool:
        """Nothing fails, and something was compared."""
        return self.first_wrong is None and any(row.outcome == PASS for row in self.rows)

    def count(self, outcome: str) -> int:
        """How many tensors have that outcome."""
        return sum(row.outcome == outcome for row in self.rows)


def compare(
    theirs: Trace,
    golden: Trace,
    *,
    added: Mapping[str, float] | None = None,
    inherited: Mapping[str, float] | None = None,
) -> Report:
    """Walk the golden tensors in their order.

    `added`: for tensors of which it is known, the relative error that their own part added (`golden.added`); a tensor of which
    it is known is judged by that alone, any other by its whole error. `inherited` is only told. A tensor that is not there is
    unsupported where their manifest lists it so, else missing.
    """
    added, inherited = added or {}, inherited or {}
    theirs, turned = negative_first(theirs, golden)
    unsupported = frozenset(theirs.manifest.get("unsupported", ()))
    usual = usual_kind(theirs)

    def row(name: str) -> Row:
        if name not in theirs.tensors:
            return Row(name, UNSUPPORTED if name in unsupported else MISSING)
        found = _row(name, theirs, golden, added.get(name), usual)
        notes = [found.note] * bool(found.note) + [PROMPTS_FIRST] * (name in turned)
        return replace(found, inherited=inherited.get(name), note="; ".join(notes))

    rows = on_threads(row, golden.tensors)
    return Report(tuple(rows), tuple(name for name in theirs.tensors if name not in golden.tensors))


def on_threads(function: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """What a function gives for each name, in their order; one tensor a thread, for in a large trace each takes a while."""

    @np.errstate(all="ignore")  # their numbers may be NaN or too large
    def quietly(name: str) -> T:
        return function(name)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(quietly, names))


def aligned(theirs: Trace, golden: Trace) -> Trace:
    """Their tensors in the golden layout, where one can be recognised."""

    def known(name: str) -> np.ndarray:
        x, want = theirs.tensors[name], golden.tensors.get(name)
        return x if want is None else recognised(x, want)[0]

    theirs, _ = negative_first(theirs, golden)
    return Trace(dict(zip(theirs.tensors, on_threads(known, theirs.tensors), strict=True)), theirs.manifest)


def negative_first(theirs: Trace, golden: Trace) -> tuple[Trace, frozenset[str]]:
    """Their trace with the negative prompts' rows before the prompts', and the names of the tensors that had them behind.

    Both orders are in use. One tensor tells it for all that hold both texts, so a single one in the other order stays wrong:
    the ids, where they do not the context, where they have neither the first prediction.
    """
    tells = ("tokens/ids", "text_encoder/context", "steps/000/prediction")
    name = next((name for name in tells if name in theirs.tensors and name in golden.tensors), "")
    x, want = theirs.tensors.get(name), golden.tensors.get(name)
    if x is None or want is None or x.shape != want.shape or x.ndim == 0 or len(x) % 2:
        return theirs, frozenset()
    with np.errstate(all="ignore"):  # their numbers may be NaN or too large
        as_is, other = relative(x, want), relative(_other_half_first(x), want)
    if other > 0.3 or other >= 0.3 * as_is:
        return theirs, frozenset()
    rows = len(x)
    both = frozenset(n for n, y in theirs.tensors.items() if _of_both_texts(n) and y.ndim and len(y) == rows)
    turned = {n: _other_half_first(y) if n in both else y for n, y in theirs.tensors.items()}
    return Trace(turned, theirs.manifest), both


def _of_both_texts(name: str) -> bool:
    """Whether a tensor has rows for the negative prompts and for the prompts."""
    return name.startswith(("tokens/", "text_encoder/")) or "/unet/" in name or name.endswith("/prediction")


def _other_half_first(x: np.ndarray) -> np.ndarray:
    """The second half of the rows, then the first."""
    return np.roll(x, len(x) // 2, axis=0)


def _row(name: str, theirs: Trace, golden: Trace, added: float | None, usual: str) -> Row:
    x, want = theirs.tensors[name], golden.tensors[name]
    got, note = recognised(x, want)
    kind = kind_of_noise(theirs, got) if name.startswith("noise/") else kind_of(got)
    if got.size < FEW and kind == "float32" and not name.startswith("schedule/"):
        kind = kind_of_few(got, usual)
    kind = "float32" if kind == "float64" and want.dtype == np.float32 else kind  # no better than what it is held against
    if got.shape != want.shape:
        return Row(name, FAIL, kind, note=f"shape {list(x.shape)}, golden {list(want.shape)}")
    if not np.isfinite(got).all():
        return Row(name, FAIL, kind, note="it holds NaN or infinity" + (f"; {note}" if note else ""))
    if want.dtype.kind in "iub" and np.array_equal(got, np.rint(got)):  # ids and levels, of whatever type
        return _exact(name, got, want, added, note)
    measure = measured(got, want)
    bound = bound_of(golden, name, kind, whole=added is None)
    error = measure.relative if added is None else added
    return Row(name, PASS if error <= bound else FAIL, kind, measure, added, bound, note)


def _exact(name: str, got: np.ndarray, want: np.ndarray, added: float | None, note: str) -> Row:
    """Whole numbers: ids, times, levels; a level of a picture may be one off where rounding is tipped, but not in the mean."""
    difference = got.astype(np.int64) - want.astype(np.int64)
    levels = want.dtype == np.uint8
    tipped = levels and np.abs(difference).max(initial=0) <= 1 and (difference != 0).mean() <= 0.01
    outcome = PASS if tipped or not difference.any() or added == 0.0 else FAIL
    return Row(name, outcome, "exact", measured(got.astype(np.float64), want.astype(np.float64)), added, 0.0, note)


def bound_of(golden: Trace, name: str, kind: str, *, whole: bool) -> float:
    """The relative error that is allowed: the manifest's own, else the table's."""
    own = golden.facts(name).get("bounds", {}).get(kind, {})
    key = "whole" if whole else "added"
    return float(own[key]) if key in own else (WHOLE if whole else ADDED)[kind]


def kind_of(x: np.ndarray) -> str:
    """The precision of the numbers: that of the array, or a half precision where all its numbers fit into one.

    A float32 array may hold what another program made in half precision, for NumPy has no bfloat16. A few numbers, and whole
    ones (times), tell nothing of that.
    """
    if x.dtype.kind != "f":
        return "exact"
    if x.dtype != np.float32 or x.size < FEW:
        return str(x.dtype)
    whole = brain = half = True
    flat = x.reshape(-1)
    for start in range(0, x.size, PIECE):
        piece = np.ascontiguousarray(flat[start : start + PIECE])
        whole = whole and bool((piece == np.rint(piece)).all())
        brain = brain and not (piece.view(np.uint32) & np.uint32(0xFFFF)).any()
        with np.errstate(over="ignore"):
            half = half and np.array_equal(piece.astype(np.float16).astype(np.float32), piece)
        if not (whole or brain or half):
            break
    return "bfloat16" if brain and not whole else "float16" if half and not whole else "float32"


def kind_of_few(x: np.ndarray, usual: str) -> str:
    """A few numbers are of the run's usual precision if they fit into it; whole ones (times) are never rounded."""
    if usual not in ("float16", "bfloat16") or (x == np.rint(x)).all():
        return "float32"
    if usual == "bfloat16":
        fits = not (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFF)).any()
    else:
        fits = np.array_equal(x.astype(np.float16).astype(np.float32), x)
    return usual if fits else "float32"


def usual_kind(theirs: Trace) -> str:
    """The precision that most of their tensors have, of those that tell one and are neither tables nor noise."""
    told = [x for name, x in theirs.tensors.items() if x.size >= FEW and not name.startswith(("schedule/", "noise/"))]
    kinds = Counter(kind for x in told if (kind := kind_of(x.reshape(-1)[:PIECE])) != "exact")
    return kinds.most_common(1)[0][0] if kinds else ""


def kind_of_noise(theirs: Trace, x: np.ndarray) -> str:
    """Noise is drawn, not computed: in half precision it is sound only where the latents made of it are so too."""
    latents = (kind_of(y) for name, y in theirs.tensors.items() if name.startswith("steps/") and name.endswith("/latents"))
    return next((kind for kind in latents if kind not in ("float16", "bfloat16")), kind_of(x))


def measured(got: np.ndarray, want: np.ndarray) -> Measure:
    """How far apart two tensors of one shape are."""
    sums, largest, place, ulp = np.zeros(4), 0.0, 0, 0.0
    for start, a, b in _pieces(got, want):
        apart = a - b
        sums += (apart @ apart, b @ b, a @ a, a @ b)
        np.abs(apart, out=apart)
        k = int(apart.argmax())
        if apart[k] > largest:
            largest, place = float(apart[k]), start + k
        ulp = max(ulp, _ulp(a, b))
    at = np.unravel_index(place, got.shape) if got.size else ()
    product = math.sqrt(sums[2] * sums[1])
    cosine = float(sums[3]) / product if product else float(largest == 0.0)
    return Measure(_quotient(float(sums[0]), float(sums[1])), largest, tuple(map(int, at)), cosine, ulp)


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want|, L2; infinite where `want` is 0 and `got` is not, or where `got` is not finite."""
    sums = np.zeros(2)
    for _, a, b in _pieces(got, want):
        a -= b
        sums += (a @ a, b @ b)
    return _quotient(float(sums[0]), float(sums[1]))


def _quotient(apart: float, size: float) -> float:
    """The root of apart / size."""
    if not math.isfinite(apart):
        return math.inf
    return math.sqrt(apart / size) if size else (0.0 if apart == 0.0 else math.inf)


def _pieces(got: np.ndarray, want: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Two tensors of one shape in float64 and row-major order, so much at a time that it stays in the cache."""
    a, b = got.reshape(-1), want.reshape(-1)
    for start in range(0, a.size, PIECE):
        yield start, a[start : start + PIECE].astype(np.float64), b[start : start + PIECE].astype(np.float64)


def _ulp(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference in units in the last place of float32."""
    with np.errstate(over="ignore"):
        a, b = (_ordered(x.astype(np.float32)) for x in (got, want))
    return float((np.maximum(a, b) - np.minimum(a, b)).max(initial=0))


def _ordered(x: np.ndarray) -> np.ndarray:
    """The bits of a float32 as whole numbers that grow with it, both zeros in the middle."""
    bits, middle = np.ascontiguousarray(x).view(np.uint32), np.uint32(1 << 31)
    return np.where(bits < middle, bits + middle, -bits)


def recognised(x: np.ndarray, want: np.ndarray) -> tuple[np.ndarray, str]:
    """Their tensor in the golden layout, and what was done to it; as it is where no layout makes it much nearer.

    Pixels in a row, [B,C,H*W], are put in rows and columns however wrong they are.
    """
    best, note = x, ""
    error = relative(x, want) if x.shape == want.shape else math.inf
    if error <= 0.05 or x.size != want.size:
        return best, note
    if want.ndim == 4 and x.shape == (*want.shape[:2], want.shape[2] * want.shape[3]):
        best, note = x.reshape(want.shape), "layout: pixels in a row"
        error = relative(best, want)
    for other, told in _turned(x, want):
        found = relative(other, want)
        if found <= 0.3 and found < 0.3 * error:
            best, note, error = other, told, found
    return best, note


def _turned(x: np.ndarray, want: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """The tensor with its axes in every order that gives the golden shape, tokens taken for pixels and back."""
    if x.ndim == want.ndim and x.ndim <= 5:
        for axes in itertools.permutations(range(x.ndim)):
            if axes != tuple(range(x.ndim)) and tuple(x.shape[a] for a in axes) == want.shape:
                yield x.transpose(axes), f"layout: {LAYOUTS.get(axes, f'axes {axes}')}"
    if want.ndim == 4 and x.ndim == 3 and x.shape == (want.shape[0], want.shape[2] * want.shape[3], want.shape[1]):
        yield x.reshape(want.shape[0], *want.shape[2:], want.shape[1]).transpose(0, 3, 1, 2), "layout: tokens for pixels"
    if want.ndim == 3 and x.ndim == 4 and (x.shape[0], x.shape[2] * x.shape[3], x.shape[1]) == want.shape:
        yield x.transpose(0, 2, 3, 1).reshape(want.shape), "layout: pixels for tokens"
    squeezed = tuple(n for n in x.shape if n != 1)
    if x.shape != want.shape and squeezed == tuple(n for n in want.shape if n != 1):
        yield x.reshape(want.shape), "layout: axes of length 1 left out or put in"
