"""A batch whose second half repeats the first is computed once, and nobody can tell."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff import ops
from refdiff.core import primitive
from refdiff.kernels.cpu import repeats
from refdiff.kernels.cpu.repeats import _calls, kept, once, remembered

F32 = np.float32
RNG = np.random.default_rng(0)
IMAGE, KERNEL, BIAS = (RNG.standard_normal(shape).astype(F32) for shape in ((2, 40, 20, 18), (48, 40, 3, 3), (48,)))
TOKENS, MATRIX = RNG.standard_normal((3, 130, 32)).astype(F32), RNG.standard_normal((48, 32)).astype(F32)
CONSTANTS = {"stride": 1, "padding": (1, 1, 1, 1)}
HEADS = {"heads": 2, "scale": 0.25, "causal": False}


def twice(x):
    return np.concatenate([x, x])


@pytest.fixture(autouse=True)
def fast():
    with primitive.mode("fast"):
        yield


@pytest.mark.parametrize(("op", "pictures", "others", "constants"), [
    (ops.conv2d, [IMAGE], [KERNEL, BIAS], CONSTANTS),
    (ops.linear, [TOKENS], [MATRIX, BIAS], {}),
    (ops.linear, [TOKENS.reshape(3, 13, 10, 32)], [MATRIX, BIAS], {}),
    (ops.attention, [TOKENS, TOKENS[:, :50], TOKENS[:, 50:100]], [], HEADS),
])  # fmt: skip
def test_both_halves_have_the_bits_of_one(op, pictures, others, constants):
    half = op(*pictures, *others, **constants)
    both = op(*(twice(x) for x in pictures), *others, **constants)
    np.testing.assert_array_equal(both, twice(half))
    assert both.flags.writeable and [s > 0 for s in both.strides] == [True] * both.ndim
    assert both.strides[1:] == half.strides[1:]  # a picture lies in memory as it did


def called_with(*arrays, batches=1):
    """The batch sizes that a kernel is called with."""
    sizes = []

    def kernel(*args):
        sizes.append(tuple(len(a) for a in args))
        return args[0] + F32(1)

    got = once(kernel, batches)(*arrays)
    np.testing.assert_array_equal(got, arrays[0] + F32(1))
    return sizes


def test_half_of_each_is_computed_only_where_both_halves_of_all_are_the_same_bits():
    x, other = TOKENS, RNG.standard_normal((6, 5)).astype(F32)
    assert called_with(twice(x)) == [(3,)]
    assert called_with(twice(x), twice(other), batches=2) == [(3, 6)]
    assert called_with(twice(x), other, batches=2) == [(6, 6)]
    assert called_with(twice(x), other, batches=1) == [(3, 6)]  # a weight is no batch
    assert called_with(x) == [(3,)] and called_with(x[:2]) == [(2,)] and called_with(twice(x).astype(np.float64)) == [(6,)]
    for place in ((0, 0, 0), (5, 129, 31)):
        changed = twice(x)
        changed[place] += 1
        assert called_with(changed) == [(6,)]
    signs = np.zeros((2, 4), F32)
    signs[1] = -0.0
    assert called_with(signs) == [(2,)]
    assert called_with(np.zeros((2, 0), F32)) == [(2,)] and called_with(np.zeros((0, 2), F32)) == [(0,)]


def test_a_vector_and_a_number_have_no_pictures():
    ones, weight = np.ones(8, F32), RNG.standard_normal((5, 8)).astype(F32)
    np.testing.assert_allclose(ops.linear(ones, weight, None), weight.sum(axis=1), rtol=1e-5)
    assert called_with(ones) == [(8,)]
    np.testing.assert_array_equal(once(lambda x: x + 1, 1)(np.zeros((), F32)), 1)


def test_nan_is_computed_once_or_twice_with_one_result():
    x = TOKENS.copy()
    x[0, 0, 0] = np.nan
    np.testing.assert_array_equal(ops.linear(twice(x), MATRIX, BIAS), twice(ops.linear(x, MATRIX, BIAS)))


def test_a_kernel_that_declines_leaves_the_specification_the_whole_batch():
    y = ops.linear(twice(TOKENS), MATRIX.astype(np.float64), None)
    np.testing.assert_array_equal(y, twice(ops.linear.spec(TOKENS, MATRIX.astype(np.float64), None)))


TEXT = RNG.standard_normal((2, 7, 32)).astype(F32)


def layer_and_calls():
    """A layer that is remembered, and the shapes that it was really called with."""
    calls = []

    def layer(x, weight, bias):
        calls.append(x.shape)
        return ops.linear.spec(x, weight, bias)

    return remembered(layer), calls


def test_a_layer_of_the_same_array_is_computed_twice_and_then_remembered():
    layer, calls = layer_and_calls()
    weight, text = MATRIX.copy(), TEXT.copy()
    want = ops.linear.spec(text, weight, BIAS)
    for _ in range(4):
        got = layer(text, weight, BIAS)
        np.testing.assert_array_equal(got, want)
        got[:] = 0  # whoever has it may write into it
    assert len(calls) == 2
    text[1, 2, 3] += 1
    np.testing.assert_array_equal(layer(text, weight, BIAS), ops.linear.spec(text, weight, BIAS))
    assert len(calls) == 3


@pytest.mark.parametrize("change", ["text", "weight", "bias", "products"])
def test_a_layer_of_anything_else_is_computed(change):
    layer, calls = layer_and_calls()
    text, weight, bias = (a.copy() for a in (TEXT, MATRIX, BIAS))
    for _ in range(3):
        layer(text, weight, bias)
    given = {"text": text, "weight": weight, "bias": bias}
    if change in given:
        given[change] = given[change] + F32(1)
    text, weight, bias = given.values()
    with primitive.mode("fast", "bfloat16" if change == "products" else "float32"):
        np.testing.assert_array_equal(layer(text, weight, bias), ops.linear.spec(text, weight, bias))
    assert len(calls) == 3


def test_what_is_remembered_goes_with_the_weight_and_has_a_bound(monkeypatch):
    layer, calls = layer_and_calls()
    text, weight, before = TEXT.copy(), MATRIX.copy(), kept()
    for _ in range(3):
        layer(text, weight, None)
    assert kept() == before + 4 * 2 * 7 * (32 + 48)
    copy = text.copy()
    layer(copy, weight, None)
    assert kept() == before
    for _ in range(2):
        layer(copy, weight, None)
    assert kept() == before + 4 * 2 * 7 * (32 + 48)
    del copy
    assert kept() == before
    for _ in range(3):
        layer(text, weight, None)
    del weight
    assert kept() == before
    monkeypatch.setattr(repeats, "KEPT", 0)
    weight = MATRIX.copy()
    for _ in range(3):
        layer(text, weight, None)
    assert len(calls) == 2 + 2 + 2 + 3 and kept() == before
    monkeypatch.setattr(repeats, "LARGEST", 0)
    layer(text, weight, None)
    assert len(calls) == 10


def test_keys_and_values_of_a_text_are_computed_for_the_first_two_steps():
    """As the U-Net is called: the same array at every step."""
    text, weight = TEXT.copy(), MATRIX.copy()
    first, *others = (ops.linear(text, weight, None) for _ in range(4))
    assert all(np.array_equal(first, other) and first is not other for other in others)
    assert _calls[id(weight)].numbers is not None
