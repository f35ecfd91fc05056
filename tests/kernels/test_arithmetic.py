"""The sum of two large arrays is NumPy's, to the bit, in any layout and on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.arithmetic import add
from tests.ops.arrays import reals

F32 = np.float32


def assert_is_the_sum(one, other, order):
    """On 1, 2 and 3 threads, and that the numbers then lie in memory in this order of axes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "SMALL", 0)
        for threads in (1, 2, 3):
            patch.setattr(common, "THREADS", threads)
            found = add(one, other)
            np.testing.assert_array_equal(found, one + other)
            assert found.transpose(order).flags.c_contiguous


@given(st.data(), st.permutations(range(4)))
def test_is_numpys_sum(data, axes):
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 4))
    one, other = (np.ascontiguousarray(data.draw(reals(shape, F32))).transpose(axes) for _ in range(2))
    assert_is_the_sum(one, other, np.argsort(axes))  # the layout of both


@given(st.data(), st.booleans())
def test_adds_a_vector_to_the_pixels_of_each_picture(data, contiguous):
    batch, channels, width = data.draw(st.tuples(st.integers(1, 3), *[st.integers(1, 5)] * 2))
    height = data.draw(st.integers(2, 5))
    x = np.ascontiguousarray(data.draw(reals((batch, height, width, channels), F32))).transpose(0, 3, 1, 2)
    vectors = data.draw(reals((batch, channels, 1, 1), F32))
    if not contiguous:
        vectors = np.repeat(vectors, 2, axis=1)[:, ::2]
    assert_is_the_sum(x, vectors, (0, 2, 3, 1))


@pytest.mark.parametrize(
    ("x", "vectors"),
    [
        (np.zeros((2, 3, 4, 5), F32), np.zeros((2, 3, 1, 1), F32)),  # not NHWC
        (np.zeros((2, 4, 5, 3), F32).transpose(0, 3, 1, 2), np.zeros((1, 3, 1, 1), F32)),
        (np.zeros((2, 4, 5, 3), F32).transpose(0, 3, 1, 2), np.zeros((2, 1, 1, 1), F32)),
        (np.zeros((0, 4, 5, 3), F32).transpose(0, 3, 1, 2), np.zeros((0, 3, 1, 1), F32)),
    ],
)
def test_other_vectors_are_left_to_the_specification(x, vectors):
    with pytest.raises(Unsupported):
        add(x, vectors)


@pytest.mark.parametrize(
    "other", [3.0, np.zeros((2, 1), F32), np.zeros((3, 2), F32).T, np.zeros((2, 3)), np.zeros((2, 6), F32)[:, ::2]]
)
def test_leaves_the_rest_to_the_specification(other):
    with pytest.raises(Unsupported):
        add(np.zeros((2, 3), F32), other)


def test_gaps_are_left_to_the_specification():
    gaps = np.zeros((2, 6), F32)[:, ::2]
    with pytest.raises(Unsupported):
        add(gaps, gaps)
