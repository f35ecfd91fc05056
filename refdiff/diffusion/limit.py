"""Keeping the denoised picture in its range: clipping, and dynamic thresholding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from refdiff.xp import Array, array_module


def clipped(x0: Array, *, limit: float) -> Array:
    """Every number between -limit and limit.  Shapes: any -> the same"""
    return array_module(x0).clip(x0, -limit, limit)


def thresholded(x0: Array, *, ratio: float, largest: float) -> Array:
    """Each picture clipped at the quantile `ratio` of its absolute numbers, and divided by it where that is above 1.

    Math: s = min(max(quantile(|x0|, ratio), 1), largest); clip(x0, -s, s) / s
    Shapes: [B,...] -> [B,...]
    Source: Saharia et al. 2022 (arXiv 2205.11487), section 2.3
    """
    xp = array_module(x0)
    flat = xp.abs(x0).reshape(len(x0), -1)
    edge = xp.quantile(flat, ratio, axis=1).astype(x0.dtype)
    edge = xp.clip(edge, 1.0, max(largest, 1.0)).reshape(-1, *[1] * (x0.ndim - 1))
    return xp.clip(x0, -edge, edge) / edge


def unlimited(x0: Array) -> Array:
    """The same."""
    return x0


def limiter(options: Mapping[str, Any]) -> Callable[[Array], Array]:
    """What a scheduler's options ask for; thresholding wins where both are asked for, as upstream."""
    if options.get("thresholding"):
        ratio, largest = options["dynamic_thresholding_ratio"], options["sample_max_value"]
        return lambda x0: thresholded(x0, ratio=ratio, largest=largest)
    if options.get("clip_sample"):
        limit = options["clip_sample_range"]
        return lambda x0: clipped(x0, limit=limit)
    return unlimited
