"""The blocked product: any rows, segments and strides, whole tiles or not, on one thread or two, for every kind of processor."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.kernels.cpu import product as module
from refdiff.kernels.cpu.linear import linear
from refdiff.kernels.cpu.panels import Weight
from refdiff.kernels.cpu.product import product
from refdiff.kernels.cpu.vector import PLAIN, TILES, tile_of
from tests.kernels.threads import assert_same_bits

SIZES = st.sampled_from([1, 2, 3, 5, 7, 15, 16, 17, 33, 97, 130])


@st.composite
def calls(draw):
    """Overlapping rows, segments that begin anywhere, and a weight in any order of memory."""
    count, columns, segments = draw(SIZES), draw(SIZES), draw(st.integers(1, 3))
    depth = draw(SIZES | st.just(module.DEPTH + 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    a = rng.standard_normal(4 * depth + 50).astype(np.float32)
    rows = rng.integers(0, 2 * depth + 20, count)
    starts = rng.integers(0, depth + 20, segments)
    order = draw(st.permutations(range(3)))
    shape = (columns, segments, depth)
    stored = rng.standard_normal([shape[axis] for axis in order]).astype(np.float32)
    weight = stored.transpose(np.argsort(order))
    steps = tuple(step // 4 for step in weight.strides)
    bias = rng.standard_normal(columns).astype(np.float32) if draw(st.booleans()) else None
    return (a, rows, starts, Weight(stored.reshape(-1), shape, steps), bias), weight


def loop(a, rows, starts, weight, bias):
    """The definition, in float64."""
    places = rows[:, None, None] + starts[:, None] + np.arange(weight.shape[2])
    whole = np.einsum("msk,nsk->mn", a.astype(np.float64)[places], weight.astype(np.float64))
    return whole if bias is None else whole + bias


@given(calls())
def test_equals_its_definition(call):
    args, weight = call
    got, want = product(*args, pictures=1), loop(*args[:3], weight, args[4])
    assert got.dtype == np.float32 and got.flags.c_contiguous
    assert np.abs(got - want).max() <= 2e-6 * np.sqrt(weight[0].size) * max(np.abs(want).max(), 1.0)


@given(calls())
def test_two_threads_give_the_bits_of_one(call):
    args, _ = call
    assert_same_bits(lambda: product(*args, pictures=1), (1, 2, 3))


def test_a_row_has_the_same_bits_alone_and_among_many():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((300, 64), (48, 64), (48,)))
    many = linear(x, weight, bias)
    for count in (1, 2, 20, 30, 100):
        np.testing.assert_array_equal(linear(x[:count], weight, bias), many[:count])


def test_nan_and_infinity_reach_their_row_alone():
    a = np.ones((20, 8), np.float32)
    a[3, 5], a[11, 0] = np.nan, np.inf
    weight = np.ones((9, 8), np.float32)
    whole = Weight(weight.reshape(-1), (9, 1, 8), (8, 0, 1))
    got = product(a.reshape(-1), np.arange(20) * 8, np.zeros(1, np.int64), whole, None, pictures=1)
    assert np.isnan(got[3]).all() and np.isposinf(got[11]).all()
    assert (np.delete(got, [3, 11], axis=0) == 8).all()


def test_a_processor_gets_the_first_tile_that_it_can_run():
    assert tile_of({"avx2": True, "avx512f": True}) == TILES["avx512f"]
    assert tile_of({"avx2": True, "avx512f": False}) == TILES["avx2"]
    assert tile_of({"neon": True}) == TILES["neon"]
    assert tile_of({"sse2": True}) == PLAIN


ELSEWHERE = """
import sys
import llvmlite.binding
import numba
import numpy as np

numba.njit(lambda: 0)()  # Numba asks for the processor once, and is told the truth
features = llvmlite.binding.get_host_cpu_features
llvmlite.binding.get_host_cpu_features = lambda: {sys.argv[1]: True, "f16c": True}
from refdiff.kernels.cpu import vector

llvmlite.binding.get_host_cpu_features = features
from refdiff.core import primitive
from refdiff.golden.tolerance import to_bfloat16
from refdiff.kernels.cpu import attention, halves, linear, strassen, winograd
from refdiff.kernels.cpu.halves import BFLOAT16

assert vector.TILE == {**vector.TILES, "plain": vector.PLAIN}[sys.argv[1]]
rng = np.random.default_rng(0)
x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((37, 50), (45, 50), (45,)))
assert np.abs(linear.linear(x, w, b) - (x.astype(float) @ w.T.astype(float) + b)).max() < 1e-4
half, brain = w.astype(np.float16), (w.view(np.uint32) >> 16).astype(np.uint16)
for weight, wide in ((half, half.astype(np.float32)), (brain.view(BFLOAT16), (brain.astype(np.uint32) << 16).view(np.float32))):
    np.testing.assert_array_equal(linear.linear(x, weight, b), linear.linear(x, wide, b))
image, kernel = rng.standard_normal((1, 33, 34, 30)).astype(np.float32), rng.standard_normal((35, 33, 3, 3)).astype(np.float32)
y = winograd.conv3x3(image, kernel, b[:35], padding=(1, 1, 1, 1))
padded = np.pad(image.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
parts = [np.einsum("bchw,oc->bohw", padded[:, :, i : i + 34, j : j + 30], kernel[:, :, i, j]) for i in range(3) for j in range(3)]
assert np.abs(y - sum(parts) - b[:35, None, None]).max() < 1e-3
q = rng.standard_normal((1, 60, 20)).astype(np.float32)
scores = (q[0] @ q[0].T).astype(float) / 8
p = np.exp(scores - scores.max(axis=-1, keepdims=True))
want = p / p.sum(axis=-1, keepdims=True) @ q[0]
assert np.abs(attention.attention(q, q, q, heads=1, scale=1 / 8, causal=False) - want).max() < 1e-5
strassen.LEAST_ROWS = strassen.LEAST_DEPTH = 1
rows, deep, many = 4 * strassen.SHORT + 2 * vector.TILE.rows, 4 * vector.TILE.lanes, 4 * vector.TILE.columns
tokens, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, rows, deep), (many, deep)))
direct = linear.linear(tokens.reshape(-1, deep), matrix, None).reshape(2, rows, many)
seven = linear.linear(tokens, matrix, None)
assert strassen.fits(rows, (many, 1, deep)) and not (seven == direct).all() and np.abs(seven - direct).max() < 1e-4
halves.MULTIPLIES = True
with primitive.mode("fast", "bfloat16"):
    rounded = brain.astype(np.uint32) << 16
    y = linear.linear(x, brain.view(BFLOAT16), b)
    assert np.abs(y - (to_bfloat16(x).astype(float) @ rounded.view(np.float32).T.astype(float) + b)).max() < 1e-4
    for length in (61, 3 * attention.KEYS + 9):
        k, v = rng.standard_normal((2, 1, length, 20)).astype(np.float32)
        scores = q[0].astype(float) @ k[0].T.astype(float) / 8
        seen = np.arange(length) <= np.arange(len(scores))[:, None]
        p = np.where(seen, np.exp(scores - np.where(seen, scores, -np.inf).max(axis=-1, keepdims=True)), 0)
        away = attention.attention(q, k, v, heads=1, scale=1 / 8, causal=True) - p / p.sum(axis=-1, keepdims=True) @ v[0]
        assert 1e-4 < np.abs(away).max() < 3e-2, away
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        away = attention.attention(q, k, v, heads=1, scale=1 / 8, causal=False) - p / p.sum(axis=-1, keepdims=True) @ v[0]
        assert 1e-5 < np.abs(away).max() < 3e-2, away
    image, kernel = image[:, :32], kernel[:, :32]
    y = winograd.conv3x3(image, kernel, b[:35], padding=(1, 1, 1, 1), pairs=True)
    away = y - winograd.conv3x3(image, kernel, b[:35], padding=(1, 1, 1, 1))
    assert 5e-3 < np.linalg.norm(away) / np.linalg.norm(y) < 1.4e-2, away
"""


@pytest.mark.parametrize("kind", [*TILES, "plain"])
def test_every_tile_is_right_on_any_processor(kind, tmp_path):
    """LLVM cuts vectors that the processor does not have into those that it has: slow, but the same numbers."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", ELSEWHERE, kind], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
