"""Online softmax of a block of scores, whose columns are queries, beside what is known of earlier blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.kernels.cpu.common import inline, part
from refdiff.kernels.cpu.halves import FLOAT32
from refdiff.kernels.cpu.vector import TILE, copy_row, put_float
from refdiff.kernels.cpu.vector_softmax import largest_of_columns, powers_of_columns

COLUMNS = TILE.columns
LEAST, NEVER = np.float32(-3.0e38), np.float32(-np.inf)  # before any score, and of a key that is not seen


@inline
def soften(scores: Any, many: Any, shift: Any, tops: Any, sums: Any, kind: Any) -> None:
    """Turn scores into 2^(score - new top), 0 for those not seen, and (tops, .) into (new tops, 2^(top - new top)).

    Query j sees the keys up to j - shift; all are addresses, `sums` of the row for the sums over keys. `kind` says what the
    powers become: see powers_of_columns.
    Shapes: [S,columns], [2,columns], [columns]
    """
    hidden = many if shift <= -many else max(-shift, 0)  # from here on some query does not see the key
    _hide(scores, hidden, many, shift)
    copy_row(tops, tops + 4 * COLUMNS)
    largest_of_columns(scores, many, tops)
    powers_of_columns(tops + 4 * COLUMNS, 1, tops, sums, FLOAT32)  # whose sum the next call replaces
    powers_of_columns(scores, many, tops, sums, kind)


@part
def _hide(scores: Any, first: Any, many: Any, shift: Any) -> None:
    """The scores of keys that a query does not see, from the key `first` on: their powers are 0."""
    for s in range(first, many):
        for j in range(min(s + shift, COLUMNS)):
            put_float(NEVER, scores + 4 * (s * COLUMNS + j))
