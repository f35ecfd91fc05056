"""Every op equals a naive loop written from the paper: any shape, memory layout and precision, both kernel modes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refdiff.kernels.cpu
import refdiff.models
import refdiff.training.losses
import refdiff.training.optimizer  # noqa: F401 (so that every op is known)
from refdiff import ops
from refdiff.core.primitive import MODES, PRIMITIVES, mode
from tests.ops import witness
from tests.ops.arrays import arrays_in, reals, relative_error
from tests.ops.cases import CASES

# The largest error over 400 generated calls an op: float32 1.3e-6 (quick_gelu), float64 2.7e-15 (gelu_tanh).
BOUND = {np.float32: 5e-6, np.float64: 1e-14}
DTYPES = st.sampled_from(list(BOUND))


def test_every_op_with_a_gradient_has_a_case():
    assert sorted(CASES) == sorted(name for name, op in PRIMITIVES.items() if op.vjp is not None)


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_equals_the_loop(name, kernels, data):
    dtype = data.draw(DTYPES)
    call = data.draw(CASES[name].calls(dtype))
    before = [array.copy() for array in arrays_in(call.args)]
    with mode(kernels):
        got = PRIMITIVES[name](*call.args, **call.constants)
    want = CASES[name].witness(*call.args, **call.constants)
    assert got.dtype == dtype
    assert got.shape == want.shape
    assert relative_error(got, want) < BOUND[dtype]
    for array, copy in zip(arrays_in(call.args), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@given(data=st.data())
def test_timestep_embedding_equals_the_loop(data):
    dtype = data.draw(DTYPES)
    t = data.draw(st.lists(st.floats(0, 999) | st.integers(0, 999), min_size=1, max_size=3))
    kind = data.draw(st.sampled_from([dtype, np.int64])) if all(type(v) is int for v in t) else dtype
    t = np.array(t, dtype=kind)
    t.flags.writeable = False
    constants = {
        "width": 2 * data.draw(st.integers(2, 8)),
        "flip_sin_to_cos": data.draw(st.booleans()),
        "freq_shift": data.draw(st.sampled_from([0.0, 1.0])),
        "max_period": data.draw(st.sampled_from([10000.0, 100.0])),
    }
    got = ops.timestep_embedding(t, dtype=dtype, **constants)
    want = witness.timestep_embedding(t, **constants)
    assert got.dtype == dtype
    assert got.shape == want.shape
    # A phase of up to 999 is rounded: half a unit in the last place of the frequency and one of the product.
    assert np.abs(got - want).max() < 999 * 4 * np.finfo(dtype).eps


@given(data=st.data())
def test_split_and_crop_equal_their_definition(data):
    x = data.draw(reals((2, 6, 4, 5), np.float32))
    parts, axis = data.draw(st.sampled_from([(2, 1), (3, 1), (4, 2), (5, -1), (2, 0), (1, 3)]))
    for got, want in zip(ops.split(x, parts, axis=axis), np.split(x, parts, axis=axis), strict=True):
        np.testing.assert_array_equal(got, want)
    height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    np.testing.assert_array_equal(ops.crop(x, height=height, width=width), x[:, :, :height, :width])


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply"])
def test_a_python_number_keeps_the_precision(name, dtype):
    x = np.array([[1.5, -2.0]], dtype=dtype)
    for args in [(x, 0.3), (0.3, x)]:
        got = PRIMITIVES[name](*args)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, CASES[name].witness(*(np.asarray(a, dtype=dtype) for a in args)), rtol=1e-6)
