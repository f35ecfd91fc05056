"""Products that are spared: sums in pairs are the same sums, and what pairs have too much is taken away again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.kernels.cpu import inner, winograd
from refdiff.kernels.cpu.attention import attention
from refdiff.kernels.cpu.common import address, jit
from refdiff.kernels.cpu.halves import FLOAT32, SPARED, source
from refdiff.kernels.cpu.linear import linear
from refdiff.kernels.cpu.panels import COLUMNS, LANES, ROWS
from tests.ops.arrays import relative_error

F32 = np.float32
pytestmark = pytest.mark.skipif(not inner.ABLE, reason="a vector holds fewer numbers than a tile has rows")


@jit
def _run(a, rows, many, b, depth, base, out, ends, kind):
    inner.multiply(a, rows, many, b, depth, (base, COLUMNS), (out, COLUMNS), ends, kind)


@jit
def _ends(a, step, depth, b, of_rows, of_columns):
    inner.row_ends(a, step, depth, of_rows)
    inner.column_ends(b, depth, of_columns)


@jit
def _scales(first, second, count, panel, other, depth, of_rows, of_columns, kind):
    inner.row_scale((first, second), count, of_rows, kind)
    inner.column_scales((panel, other), depth, of_columns)


def padded(a):
    """The rows of A and behind them what may be read."""
    out = np.full(ROWS * a.shape[1] + inner.READ_ON, np.nan, F32)
    out[: a.size] = a.ravel()
    return out


def ends(a, b):
    of_rows, of_columns = np.full(LANES, np.nan, F32), np.full(COLUMNS, np.nan, F32)
    lies = padded(a)
    _ends(address(lies), a.shape[1], a.shape[1], address(b), address(of_rows), address(of_columns))
    return of_rows, of_columns


def product(a, b, base):
    of_rows, of_columns = ends(a, b)
    rows, lies, out = np.minimum(np.arange(ROWS), len(a) - 1) * a.shape[1], padded(a), np.full((ROWS, COLUMNS), np.nan, F32)
    sides = address(of_rows), 1, address(of_columns)
    _run(address(lies), address(rows), len(a), address(b), a.shape[1], address(base), address(out), sides, SPARED)
    return out[: len(a)]


@st.composite
def factors(draw, values):
    many, depth = draw(st.integers(1, ROWS)), draw(st.one_of(st.integers(1, 20), st.sampled_from([47, 48, 64, 97, 160])))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    shapes = (many, depth), (depth, COLUMNS), (ROWS, COLUMNS)
    return tuple(values(rng, shape).astype(F32) for shape in shapes)


def whole(rng, shape):
    return rng.integers(-99, 100, shape)


def normal(rng, shape):
    return rng.standard_normal(shape)


@given(factors(whole))
def test_of_whole_numbers_it_is_exact(call):
    """Nothing is rounded then: a wrong sign, pair or end would show."""
    a, b, base = call
    np.testing.assert_array_equal(product(a, b, base), base[: len(a)] + a.astype(np.float64) @ b)


@given(factors(whole))
def test_ends_are_what_pairs_have_too_much(call):
    a, b, _ = call
    pairs = range(a.shape[1] // inner.STEP * 2)
    signs = [-1 if pair % 2 == 0 else 1 for pair in pairs]
    of_rows, of_columns = ends(a, b)
    want = sum(
        (s * a[:, 3 * p].astype(np.float64) * a[:, 3 * p + 1] for s, p in zip(signs, pairs, strict=True)), np.zeros(len(a))
    )
    np.testing.assert_array_equal(of_rows[: len(a)], want)
    want = sum((s * b[3 * p].astype(np.float64) * b[3 * p + 1] for s, p in zip(signs, pairs, strict=True)), np.zeros(COLUMNS))
    np.testing.assert_array_equal(of_columns, want)


@given(factors(normal), st.sampled_from([0, 3]))
def test_equals_the_product(call, mean):
    """The largest error of 2,000 such calls was 2.6e-7 of the square root of the depth times the largest number."""
    a, b, base = (x + F32(mean) for x in call)
    want = base[: len(a)] + a.astype(np.float64) @ b
    assert np.abs(product(a, b, base) - want).max() < 5e-7 * np.sqrt(a.shape[1]) * np.abs(want).max()


@given(st.integers(0, 2**20), st.sampled_from([1e-12, 1.0, 1e12]), st.sampled_from([LANES, 5 * LANES]))
def test_scales_are_powers_of_two_near_the_mean_size(seed, size, count):
    rng = np.random.default_rng(seed)
    rows, panels = (rng.standard_normal(shape).astype(F32) * F32(size) for shape in ((2, count), (2, count, COLUMNS)))
    of_rows, of_columns = np.zeros(2, F32), np.zeros((2, COLUMNS), F32)
    _scales(*map(address, rows), count, *map(address, panels), count, address(of_rows), address(of_columns), FLOAT32)
    for (scale, undo), mean in (
        (of_rows, np.abs(rows).mean(axis=1).sum()),
        (of_columns, np.abs(panels).mean(axis=1).sum(axis=0)),
    ):
        assert np.all(scale * undo == 1) and np.all(np.frexp(scale)[0] == 0.5)
        assert np.all((undo <= mean * (1 + 1e-6)) & (mean < 2 * undo * (1 + 1e-6)))


def test_rows_of_zeros_and_of_large_numbers_have_a_scale():
    for value, scale in ((0.0, 2.0**63), (3e38, 2.0**-63), (np.inf, 2.0**-63)):
        x, of_rows, of_columns = np.full((LANES, COLUMNS), value, F32), np.zeros(2, F32), np.zeros((2, COLUMNS), F32)
        _scales(*[address(x)] * 2, LANES, *[address(x)] * 2, LANES, address(of_rows), address(of_columns), FLOAT32)
        assert of_rows[0] == scale and np.all(of_columns[0] == scale) and of_rows[0] * of_rows[1] == 1


def test_weights_of_two_bytes_are_measured_as_what_they_are():
    x = np.random.default_rng(0).standard_normal((1, 4 * LANES)).astype(np.float16)
    found = []
    for weight in (x, x.astype(F32)):
        at, kind = source(weight)
        out, panel = np.zeros(2, F32), np.zeros((2, COLUMNS), F32)
        _scales(at, at, x.size, *[address(panel)] * 2, 0, address(out), address(panel), kind)
        found.append(out)
    np.testing.assert_array_equal(*found)


needs_it = pytest.mark.skipif(not inner.SPARES, reason="this processor has no units for sums alone")


@needs_it
@pytest.mark.parametrize("power", [-50, 50])
def test_sizes_of_factors_change_no_bit(power):
    """As they do not where products are made one by one."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 256, 256)).astype(F32), rng.standard_normal((64, 256)).astype(F32)
    size = F32(2.0**power)
    np.testing.assert_array_equal(linear(x * size, weight, None), linear(x, weight, None) * size)
    np.testing.assert_array_equal(linear(x, weight * size, None), linear(x, weight, None) * size)
    for side in (16, 48):  # a few tiles, and many
        image, taps, zeros = (
            rng.standard_normal((1, 64, side, side)).astype(F32),
            rng.standard_normal((64, 64, 3, 3)),
            np.zeros(64, F32),
        )
        taps, padding = taps.astype(F32), (1, 1, 1, 1)
        want = winograd.conv3x3(image, taps, zeros, padding=padding) * size
        np.testing.assert_array_equal(winograd.conv3x3(image * size, taps, zeros, padding=padding), want)
        np.testing.assert_array_equal(winograd.conv3x3(image, taps * size, zeros, padding=padding), want)
    q, k, v = rng.standard_normal((3, 1, 300, 40)).astype(F32)
    want = attention(q, k, v, heads=1, scale=0.2, causal=False)
    np.testing.assert_array_equal(attention(q, k, v * size, heads=1, scale=0.2, causal=False), want * size)
    np.testing.assert_array_equal(attention(q * size, k / size, v, heads=1, scale=0.2, causal=False), want)


@needs_it
def test_its_error_is_near_that_of_products_one_by_one(monkeypatch):
    """L2, white noise: of this convolution 1.7e-6 and 1.5e-6."""
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 320, 64, 64), (32, 320, 3, 3), (32,)))
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)), stride=1, padding=(1, 1, 1, 1))
    found = []
    for spares in (True, False):
        monkeypatch.setattr(winograd, "SPARES", spares)
        found.append(relative_error(winograd.conv3x3(x, weight.copy(), bias, padding=(1, 1, 1, 1)), want))
    assert found[0] != found[1] and found[0] < 1.3 * found[1] < 2.6e-6


def sizes_of_heads():
    """Queries, keys and values of one picture, and a scale."""
    rng = np.random.default_rng(0)
    return *(rng.standard_normal((1, 300, 80)).astype(F32) for _ in range(3)), 40**-0.5


def attended(q, k, v, scale):
    """Two heads in float64."""
    q, k, v = (a[0].astype(np.float64).reshape(len(a[0]), 2, -1).transpose(1, 0, 2) for a in (q, k, v))
    with np.errstate(invalid="ignore"):
        scores = scale * q @ k.swapaxes(1, 2)
        p = np.exp(scores - scores.max(axis=2, keepdims=True))
        return (p / p.sum(axis=2, keepdims=True) @ v).transpose(1, 0, 2).reshape(1, len(p[0]), -1)


@needs_it
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-10, 1e-3, 1e3, 1e10])
def test_features_of_values_may_be_of_any_size(size):
    """Each of its own: a feature of zeros stays one of zeros, and a small one is not lost beside others."""
    q, k, v, scale = sizes_of_heads()
    v[..., 3] *= F32(size)
    got, want = attention(q, k, v, heads=2, scale=scale, causal=False), attended(q, k, v, scale)
    for feature in (3, 4):
        error, largest = np.abs(got - want)[..., feature].max(), np.abs(want)[..., feature].max()
        assert error <= 3e-6 * largest


@needs_it
@pytest.mark.parametrize("which", ["key", "value"])
@pytest.mark.parametrize("number", [1e4, 1e6, -1e30, np.inf, -np.inf])
def test_a_number_far_from_others_makes_the_products_of_its_head_one_by_one(which, number, monkeypatch):
    """Which then are those of a processor that spares none; the other head is as it was."""
    q, k, v, scale = sizes_of_heads()
    q[..., 0] = -abs(q[..., 0])  # a key of infinity then has a score of -infinity
    before = attention(q, k, v, heads=2, scale=scale, causal=False)
    (k if which == "key" else v)[0, 7, 0] = abs(number) if which == "key" else number
    got = attention(q, k, v, heads=2, scale=scale, causal=False)
    monkeypatch.setattr("refdiff.kernels.cpu.attention.SPARES", False)
    want = attention(q, k, v, heads=2, scale=scale, causal=False)
    np.testing.assert_array_equal(got[..., :40], want[..., :40])
    np.testing.assert_array_equal(got[..., 40:], before[..., 40:])
    assert not np.array_equal(got[..., 40:], want[..., 40:])
    if which == "key":
        assert np.isfinite(got).all()


@needs_it
def test_a_picture_has_the_same_bits_alone_and_in_a_batch():
    """What is measured of one is not of the others, and the last rows of memory are no others."""
    rng = np.random.default_rng(0)
    for count in (1, 7, 24, 300):
        q, k, v = rng.standard_normal((3, 2, count, 80)).astype(F32)
        v[1] *= 1000
        both = attention(q, k, v, heads=2, scale=0.2, causal=False)
        for i in range(2):
            one = slice(i, i + 1)
            np.testing.assert_array_equal(attention(q[one], k[one], v[one], heads=2, scale=0.2, causal=False), both[one])
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((2, 40, 18, 18), (33, 40, 3, 3), (33,)))
    x[1] *= 1000
    for large in (1, 1 << 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(winograd, "LARGE", large)
            both = winograd.conv3x3(x, weight, bias, padding=(1, 1, 1, 1))
            for i in range(2):
                np.testing.assert_array_equal(winograd.conv3x3(x[i : i + 1], weight, bias, padding=(1, 1, 1, 1)), both[i : i + 1])


def test_a_convolution_of_more_channels_than_one_step_takes(monkeypatch):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 400, 10, 9), (33, 400, 3, 3), (33,)))
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)), stride=1, padding=(1, 1, 1, 1))
    for large in (1, 1 << 40):
        monkeypatch.setattr(winograd, "LARGE", large)
        assert relative_error(winograd.conv3x3(x, weight, bias, padding=(1, 1, 1, 1)), want) < 3e-6


@needs_it
@pytest.mark.parametrize(("room", "bound"), [(2.0, 1e-6), (3.9, 2e-6), (9.0, 1e-6), (80.0, 2e-5)])
def test_attention_whose_scores_rise_after_the_first_block(room, bound):
    """Beyond SPARED_ROOM powers are multiplied one by one, beyond ROOM tops rise; a score of 80 has itself an error of 4e-6."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1200, 40)) for _ in range(3))
    q, k = q * 0.1, k * 0.1
    q[..., 0], k[..., 0], k[:, 700::50, 0] = 1, 0, room * np.log(2)
    q, k, v = (a.astype(F32) for a in (q, k, v))
    p = np.exp(q[0].astype(np.float64) @ k[0].T.astype(np.float64))
    want = (p / p.sum(axis=1, keepdims=True)) @ v[0]
    assert relative_error(attention(q, k, v, heads=1, scale=1.0, causal=False)[0], want) < bound
