"""What an error looks like: cheap relations between a wrong tensor and the right one that name a mistake at a glance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refdiff.golden.compare import relative

NEAR = 0.02  # relative error with which a relation is said to hold
MANY = 64  # numbers, of which it can be said that they have nothing to do with others
FEW = 4  # places that are told one by one


def fingerprints(got: np.ndarray, want: np.ndarray) -> tuple[str, ...]:
    """Every relation that holds and that explains nearly all of the error.  Shapes: the same, any"""
    if got.shape != want.shape or got.size < 2:
        return ()
    a, b = got.astype(np.float64), want.astype(np.float64)
    if not np.isfinite(a).all():
        return (f"{int((~np.isfinite(a)).sum())} of {a.size} numbers are NaN or infinite",)
    if relative(a, b) == 0.0:
        return ()
    return (*_scaled(a, b), *_moved(a, b), *_placed(a, b)) or tuple(_unrelated(a, b))


def _scaled(a: np.ndarray, b: np.ndarray) -> Iterator[str]:
    """One factor, or one number added, for all."""
    error = relative(a, b)
    if not a.any():
        yield "all zeros"
        return
    factor = float((a * b).sum() / max((b * b).sum(), 1e-300))
    if relative(a, factor * b) < min(NEAR, 0.1 * error) and abs(factor - 1.0) > 1e-6:
        yield f"a constant ratio: {factor:.6g} times the golden one"
    shift = float((a - b).mean())
    if relative(a, b + shift) < min(NEAR, 0.1 * error):
        yield f"a constant difference: {shift:.6g} more than the golden one"


def _unrelated(a: np.ndarray, b: np.ndarray) -> Iterator[str]:
    """Numbers that have no more to do with the golden ones than two draws of a random stream."""
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    cosine = float((a * b).sum()) / size if size else 1.0
    if a.size >= MANY and abs(cosine) < 4.0 / np.sqrt(a.size):
        yield f"no relation to the golden one (cosine {cosine:.2f}), as with another seed or other weights"


def _moved(a: np.ndarray, b: np.ndarray) -> Iterator[str]:
    """The right numbers in other places."""
    bound = min(NEAR, 0.1 * relative(a, b))
    for axis in range(b.ndim):
        if b.shape[axis] % 2 == 0:
            first, second = np.split(b, 2, axis=axis)
            if relative(a, np.concatenate([second, first], axis=axis)) < bound:
                yield f"the halves of axis {axis} are swapped"
            turned = np.stack([first, second], axis=axis + 1).reshape(b.shape)
            if b.shape[axis] > 2 and relative(a, turned) < bound:
                yield f"the halves of axis {axis} are interleaved"
        if b.shape[axis] > 1 and relative(a, np.flip(b, axis)) < bound:
            yield f"axis {axis} is turned around"
    for i in range(b.ndim):
        for j in range(i + 1, b.ndim):
            if b.shape[i] == b.shape[j] > 1 and relative(a, b.swapaxes(i, j)) < bound:
                yield f"axes {i} and {j} are swapped"
    if b.size <= 1 << 22 and relative(np.sort(a, axis=None), np.sort(b, axis=None)) < 1e-3 * bound:
        yield "the same numbers in another order"


def _placed(a: np.ndarray, b: np.ndarray) -> Iterator[str]:
    """An error in some places alone."""
    wrong = np.abs(a - b) > 1e-3 * np.abs(b).max()
    if not wrong.any() or wrong.all():
        return
    if a.ndim == 4 and min(a.shape[2:]) > 4:
        inner = wrong[:, :, 2:-2, 2:-2]
        if not inner.any():
            yield "only the border is wrong"
    for axis in range(a.ndim):
        others = tuple(i for i in range(a.ndim) if i != axis)
        lines = wrong.any(axis=others)
        places = np.flatnonzero(lines)
        if not 0 < len(places) < len(lines):
            continue
        if len(places) == 1:
            yield f"only {places[0]} of axis {axis} ({len(lines)} long) is wrong"
        elif places[-1] - places[0] + 1 == len(places):
            yield f"only {places[0]} to {places[-1]} of axis {axis} ({len(lines)} long) are wrong"
        elif len(places) <= FEW:
            yield f"only {', '.join(map(str, places))} of axis {axis} ({len(lines)} long) are wrong"
