"""What each op promises beyond its formula: limits, extremes, symmetries, and the corners where ports go wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.core.primitive import MODES, PRIMITIVES, mode
from tests.ops.arrays import reals

pytestmark = pytest.mark.parametrize("kernels", MODES)
F32 = np.float32


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(F32)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "quick_gelu"])
def test_activations_neither_overflow_nor_warn(name, kernels):
    x = np.array([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], dtype=F32)
    op = PRIMITIVES[name]
    with mode(kernels):
        y = op(x)
        (slope,) = op.vjp(np.ones_like(x), y, x)
    np.testing.assert_allclose(y, np.where(x > 0, x, 0), atol=1e-5)
    np.testing.assert_allclose(slope, np.where(x > 0, 1, np.where(x < 0, 0, 0.5)), atol=1e-5)


@given(data=st.data())
def test_softmax_of_huge_scores_is_a_distribution(kernels, data):
    x = data.draw(reals((3, 5), F32, data.draw(st.sampled_from([1.0, 100.0, 1e4, 1e30]))))
    with mode(kernels):
        p = ops.softmax(x)
        shifted = ops.softmax(x[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-6)
    assert (p >= 0).all()
    np.testing.assert_allclose(shifted, p, rtol=1e-6)


def test_a_causal_token_sees_no_later_one(kernels):
    q, k, v = normal(2, 5, 6), normal(2, 5, 6)[::-1].copy(), normal(2, 5, 6) + 1
    later_k, later_v = k.copy(), v.copy()
    later_k[:, 3:] = 9.0
    later_v[:, 3:] = -7.0
    constants = {"heads": 2, "scale": 0.5, "causal": True}
    with mode(kernels):
        y, changed = ops.attention(q, k, v, **constants), ops.attention(q, later_k, later_v, **constants)
    np.testing.assert_array_equal(y[:, :3], changed[:, :3])
    assert (y[:, 3:] != changed[:, 3:]).any(axis=-1).all()
    np.testing.assert_allclose(y[:, 0], v[:, 0], rtol=1e-6)


def test_a_head_owns_its_own_features(kernels):
    q, k, v = normal(1, 4, 6), normal(1, 3, 6) + 1, normal(1, 3, 6) - 1
    other_q = q.copy()
    other_q[..., :2] += 1
    with mode(kernels):
        y = ops.attention(q, k, v, heads=3, scale=1.0, causal=False)
        changed = ops.attention(other_q, k, v, heads=3, scale=1.0, causal=False)
        alone = ops.attention(q[..., 2:4], k[..., 2:4], v[..., 2:4], heads=1, scale=1.0, causal=False)
    np.testing.assert_array_equal(y[..., 2:], changed[..., 2:])
    assert (y[..., :2] != changed[..., :2]).all()
    np.testing.assert_allclose(y[..., 2:4], alone, rtol=1e-5)


def test_attention_does_not_mind_the_order_of_what_it_attends_to(kernels):
    q, k, v = normal(2, 3, 4), normal(2, 7, 4) * 30, normal(2, 7, 4)
    with mode(kernels):
        y = ops.attention(q, k, v, heads=2, scale=0.7, causal=False)
        turned = ops.attention(q, k[:, ::-1], v[:, ::-1], heads=2, scale=0.7, causal=False)
    np.testing.assert_allclose(y, turned, rtol=2e-5, atol=1e-6)


def test_convolution_is_a_correlation(kernels):
    x = np.zeros((1, 1, 5, 5), F32)
    x[0, 0, 2, 2] = 1
    weight = np.arange(9, dtype=F32).reshape(1, 1, 3, 3)
    with mode(kernels):
        y = ops.conv2d(x, weight, np.zeros(1, F32), stride=1, padding=(1, 1, 1, 1))
    np.testing.assert_array_equal(y[0, 0, 1:4, 1:4], weight[0, 0, ::-1, ::-1])


@pytest.mark.parametrize(
    ("padding", "first_seen"), [((1, 1, 1, 1), [-1, 1, 3]), ((0, 1, 0, 1), [0, 2]), ((2, 0, 2, 0), [-2, 0, 2])]
)
def test_where_a_stride_of_two_begins(padding, first_seen, kernels):
    size = 5 if len(first_seen) == 3 else 4
    x = np.broadcast_to(np.arange(1, size + 1, dtype=F32)[:, None], (1, 1, size, size))
    weight = np.zeros((1, 1, 3, 3), F32)
    weight[0, 0, 0, 1] = 1
    with mode(kernels):
        y = ops.conv2d(x, weight, np.zeros(1, F32), stride=2, padding=padding)
    np.testing.assert_array_equal(y[0, 0, :, 1], [row + 1 if row >= 0 else 0 for row in first_seen])


def test_a_constant_group_becomes_its_offset(kernels):
    weight, bias = normal(4), normal(4) + 2
    with mode(kernels):
        y = ops.group_norm(np.full((2, 4, 3, 3), 7.0, F32), weight, bias, groups=2, eps=1e-6)
        single = ops.group_norm(normal(2, 4, 1, 1), weight, bias, groups=4, eps=1e-6)
        row = ops.layer_norm(np.full((2, 4), -3.0, F32), weight, bias, eps=1e-5)
    np.testing.assert_allclose(y, np.broadcast_to(bias[:, None, None], y.shape), atol=1e-3)
    np.testing.assert_allclose(single[:, :, 0, 0], np.broadcast_to(bias, (2, 4)), atol=1e-3)
    np.testing.assert_allclose(row, np.broadcast_to(bias, (2, 4)), rtol=1e-6)


def test_a_group_is_a_run_of_channels_of_one_image(kernels):
    x = normal(2, 6, 3, 2)
    other = x.copy()
    other[0, 2:4] *= 5
    with mode(kernels):
        y, changed = (ops.group_norm(a, np.ones(6, F32), np.zeros(6, F32), groups=3, eps=1e-2) for a in (x, other))
    same = (y == changed).all(axis=(2, 3))
    np.testing.assert_array_equal(same, [[True, True, False, False, True, True], [True] * 6])


@pytest.mark.parametrize("size", [1, 2, 5, 17])
def test_upsampling_by_two_repeats_each_pixel(size, kernels):
    x = normal(1, 2, size, size + 1)
    with mode(kernels):
        y = ops.upsample_nearest(x, height=2 * size, width=2 * size + 2)
        odd = ops.crop(y, height=2 * size - 1, width=2 * size + 1)
    np.testing.assert_array_equal(y, x.repeat(2, axis=2).repeat(2, axis=3))
    np.testing.assert_array_equal(odd, y[:, :, :-1, :-1])


def test_the_gradient_of_a_repeated_id_is_the_sum(kernels):
    table, ids = normal(4, 2), np.array([[1, 1, 3]])
    g = np.array([[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]], dtype=F32)
    with mode(kernels):
        dtable, none = ops.embedding.vjp(g, table[ids], table, ids)
    np.testing.assert_array_equal(dtable, [[0, 0], [11, 22], [0, 0], [100, 200]])
    assert none is None


def test_gradients_at_the_kinks(kernels):
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=F32)
    with mode(kernels):
        (of_clip,) = ops.clip.vjp(np.ones_like(x), x, x, low=-1.0, high=1.0)
        (of_absolute,) = ops.absolute.vjp(np.ones_like(x), x, x)
    np.testing.assert_array_equal(of_clip, [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(of_absolute, [-1, -1, 0, 1, 1])


def test_the_time_embedding_at_known_places(kernels):
    t = np.array([0.0, 1.0, 10.0])
    constants = {"max_period": 10000.0, "dtype": np.float64}
    with mode(kernels):
        flipped = ops.timestep_embedding(t, width=4, flip_sin_to_cos=True, freq_shift=0.0, **constants)
        plain = ops.timestep_embedding(t, width=4, flip_sin_to_cos=False, freq_shift=0.0, **constants)
        shifted = ops.timestep_embedding(t, width=4, flip_sin_to_cos=False, freq_shift=1.0, **constants)
    np.testing.assert_allclose(
        plain, [[0, 0, 1, 1], *([np.sin(v), np.sin(v / 100), np.cos(v), np.cos(v / 100)] for v in (1, 10))]
    )
    np.testing.assert_array_equal(flipped, plain[:, [2, 3, 0, 1]])
    np.testing.assert_allclose(shifted[:, 1], np.sin(t / 10000.0))
