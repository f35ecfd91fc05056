"""Table look-up for tokens and positions, sinusoids for time."""

from __future__ import annotations

import math
from typing import Any

from refdiff.core.primitive import primitive
from refdiff.xp import Array, array_module


def embedding_vjp(g: Array, out: Array, table: Array, ids: Array) -> tuple:
    """Math: dE[i] = the sum of g over the places where the id is i."""
    xp = array_module(g)
    dtable = xp.zeros(table.shape, dtype=g.dtype)
    xp.add.at(dtable, ids.reshape(-1), g.reshape(-1, g.shape[-1]))
    return dtable, None


@primitive(vjp=embedding_vjp)
def embedding(table: Array, ids: Array) -> Array:
    """The rows of a table.  Shapes: [V,D], [...] integers -> [...,D]"""
    return table[ids]


def timestep_embedding(t: Array, *, width: int, flip_sin_to_cos: bool, freq_shift: float, max_period: float, dtype: Any) -> Array:
    """Sinusoids of the time at geometrically falling frequencies.

    Math: f_i = max_period^(-i / (width/2 - freq_shift)); [sin(t f), cos(t f)], or the cosines first if flipped
    Shapes: [B] -> [B,width], width even
    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5; diffusers embeddings.py, get_timestep_embedding, whose
    rounding is followed: the exponents in `dtype` (so float32 tables match upstream's, float64 ones are exact)
    Traps: temb-flip, temb-shift, temb-interleave, t-int-trunc, t-halfprec
    """
    xp = array_module(t)
    half = width // 2
    exponents = -math.log(max_period) * xp.arange(half, dtype=dtype) / (half - freq_shift)
    frequencies = xp.exp(exponents.astype("float64")).astype(dtype)
    phase = t[:, None].astype(dtype) * frequencies[None, :]
    halves = [xp.cos(phase), xp.sin(phase)] if flip_sin_to_cos else [xp.sin(phase), xp.cos(phase)]
    return xp.concatenate(halves, axis=-1)
