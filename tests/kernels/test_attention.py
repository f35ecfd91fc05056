"""Attention by blocks is attention: over the ends of blocks of queries and keys, with scores of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.core import primitive
from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu import attention as module
from refdiff.kernels.cpu import halves
from refdiff.kernels.cpu.vector import PLAIN, TILES
from tests.kernels.threads import assert_same_bits
from tests.ops.arrays import reals, relative_error

F32 = np.float32
COUNTS = st.sampled_from([1, 5, 48, 77, module.KEYS - 1, module.KEYS, module.KEYS + 1, 2 * module.KEYS + 9])


@st.composite
def calls(draw):
    causal = draw(st.booleans())
    batch, heads, depth = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 8, 15, 40]))
    queries = draw(COUNTS)
    keys = draw(COUNTS)
    spread = draw(st.sampled_from([0.1, 1.0, 10.0, 1e3]))
    q = draw(reals((batch, queries, heads * depth), F32, spread))
    k, v = (draw(reals((batch, keys, heads * depth), F32)) for _ in range(2))
    return (q, k, v), {"heads": heads, "scale": depth**-0.5, "causal": causal}


@given(calls())
def test_equals_the_whole_softmax(call):
    arrays, constants = call
    want = ops.attention.spec(*(a.astype(np.float64) for a in arrays), **constants)
    got = module.attention(*arrays, **constants)
    scores = np.abs(arrays[0]).max() * np.abs(arrays[1]).max() * arrays[0].shape[-1] / constants["heads"] * constants["scale"]
    assert got.dtype == F32
    assert relative_error(got, want) < 5e-6 + 2e-7 * scores  # a score's rounding is its exponential's relative error


@given(calls())
def test_two_threads_give_the_bits_of_one(call):
    arrays, constants = call
    assert_same_bits(lambda: module.attention(*arrays, **constants), (1, 2))


def test_what_it_leaves_to_the_specification():
    q = np.ones((1, 3, 4), F32)
    for arrays, scale in (((q, q, q), -1.0), ((q[:, :0], q, q), 1.0), ((q, q[:, :0], q[:, :0]), 1.0)):
        with pytest.raises(Unsupported):
            module.attention(*arrays, heads=1, scale=scale, causal=False)


@pytest.mark.parametrize(("queries", "keys", "values"), [
    ((2, 3, 4), (1, 3, 4), (1, 3, 4)), ((1, 3, 4), (2, 3, 4), (2, 3, 4)), ((1, 3, 4), (1, 3, 4), (1, 2, 4)),
    ((1, 3, 3), (1, 3, 3), (1, 3, 3)), ((1, 3, 4), (1, 3, 8), (1, 3, 8)),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_left_too(queries, keys, values):
    with pytest.raises(Unsupported, match="do not fit"):
        module.attention(*(np.ones(shape, F32) for shape in (queries, keys, values)), heads=2, scale=1.0, causal=False)


def test_what_is_not_seen_has_no_part_even_in_infinities():
    q = np.full((1, 3, 2), -np.inf, F32)
    v = np.ones((1, 3, 2), F32)
    got = module.attention(q, np.ones_like(v), v, heads=1, scale=1.0, causal=True)
    assert np.isnan(got).all()  # as of 0 / 0: nothing of what comes later


def test_nan_in_one_query_or_value_stays_where_it_belongs():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 300, 8)).astype(F32) for _ in range(3))
    q[0, 7] = np.nan
    v[0, 290, 3] = np.nan
    got = module.attention(q, k, v, heads=1, scale=1.0, causal=False)
    assert np.isnan(got[0, 7]).all() and np.isnan(got[0, :, 3]).all()
    assert np.isfinite(np.delete(np.delete(got[0], 7, axis=0), 3, axis=1)).all()


@pytest.mark.parametrize("rise", [-200.0, 20.0, 59.0, 61.0, 130.0, 1e4])
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_later_keys_may_have_any_scores(rise, block, products, monkeypatch):
    """In whole blocks after the first, powers are of the distance to earlier tops, up to ROOM above them; then the tops rise."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, count, 8)).astype(F32) for count in (70, 4 * module.KEYS, 4 * module.KEYS))
    q[..., 0], k[..., 0] = 1.0, 0.0
    k[:, block * module.KEYS + 5 :, 0] = rise * np.log(2.0)  # of which the score rises by so many powers of two
    k[:, 3 * module.KEYS :, 0] *= 2
    monkeypatch.setattr(halves, "MULTIPLIES", True)
    if products == "bfloat16":
        q[..., 1:] = 0.0  # no score is rounded in float32, but for the constant 1 / log(2) and the rise
    with primitive.mode("fast", products):
        got = module.attention(q, k, v, heads=1, scale=1.0, causal=False)
    want = ops.attention.spec(*(a.astype(np.float64) for a in (q, k, v)), heads=1, scale=1.0, causal=False)
    assert np.abs(got - want).max() < (1e-5 + 1e-6 * abs(rise) if products == "float32" else 3e-2)


@pytest.mark.parametrize(("keys", "alike"), [(4096, False), (4096, True), (16384, False), (16384, True)])
def test_long_sums_are_exact(keys, alike):
    """Blocks are summed each from 0: of 16,384 equal scores in one chain the error would be 1e-4."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, count, 8)).astype(F32) for count in (33, keys, keys))
    if alike:
        k[0, 1:], v[0] = 0.7 * k[0, 0], np.abs(v[0]) + 1
    got = module.attention(q, k, v, heads=1, scale=1.0, causal=False)
    want = ops.attention.spec(*(a.astype(np.float64) for a in (q, k, v)), heads=1, scale=1.0, causal=False)
    assert relative_error(got, want) < 1e-6


def test_a_block_is_whole_tiles_of_an_even_number_of_rows():
    assert all(module.KEYS % tile.rows == tile.rows % 2 == 0 for tile in (*TILES.values(), PLAIN))


@pytest.mark.parametrize("feature", [0, 2, 5])
def test_infinities_and_nan_in_a_later_block_are_those_of_a_softmax(feature):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, count, 8)).astype(F32) for count in (40, 3 * module.KEYS, 3 * module.KEYS))
    q[0, 3, 2] = np.nan
    k[0, module.KEYS + 9, feature] = -np.inf
    with np.errstate(invalid="ignore"):
        want = ops.attention.spec(q, k, v, heads=1, scale=1.0, causal=False)
    got = module.attention(q, k, v, heads=1, scale=1.0, causal=False)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    sound = ~np.isnan(want)
    assert sound.any() and np.isnan(want).any() and np.abs(got - want)[sound].max() < 1e-5
