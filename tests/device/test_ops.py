"""Every op and every gradient rule on the simulated device: NumPy's numbers, and nothing crosses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refdiff.ops
from refdiff.core.primitive import PRIMITIVES
from refdiff.core.tape import value_and_grad
from refdiff.ops.activation import sigmoid
from tests.device.compare import assert_same, on_device, run_on_device
from tests.device.simulated import SimulatedArray
from tests.ops.cases import CASES


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_op_and_gradient(name, dtype, data):
    op, call = PRIMITIVES[name], data.draw(CASES[name].calls(np.dtype(dtype).type))
    out = np.asarray(op.compute(*call.args, **call.constants))
    device_out, crossed = run_on_device(op, *call.args, **call.constants)
    assert_same(device_out, out)
    assert crossed.total == 0, crossed.events

    g = np.cos(np.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    gradients, crossed = run_on_device(op.vjp, g, out, *call.args, **call.constants)
    assert_same(gradients, op.vjp.compute(g, out, *call.args, **call.constants))
    assert crossed.total == 0, crossed.events


def test_every_primitive_with_a_gradient_is_here():
    assert CASES.keys() == {name for name, op in PRIMITIVES.items() if op.vjp is not None}


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_timestep_embedding(dtype, flip):
    constants = {"width": 8, "flip_sin_to_cos": flip, "freq_shift": 0.0, "max_period": 1e4, "dtype": dtype}
    t = np.array([0.0, 1.0, 999.0], dtype=dtype)
    device, crossed = run_on_device(refdiff.ops.timestep_embedding, t, **constants)
    assert_same(device, refdiff.ops.timestep_embedding(t, **constants))
    assert crossed.total == 0


def test_functions_that_are_no_primitives():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 4)).astype(np.float32)
    for function in (
        sigmoid,
        lambda a: refdiff.ops.split(a, 2, axis=1),
        lambda a: refdiff.ops.crop(a, height=3, width=2),
    ):
        device, crossed = run_on_device(function, x)
        assert_same(device, function(x))
        assert crossed.total == 0


def test_the_tape_records_device_arrays():
    rng = np.random.default_rng(0)
    params = {"weight": rng.standard_normal((3, 4)), "unused": rng.standard_normal(2)}
    x = rng.standard_normal((5, 4))

    def loss(p, x):
        h = refdiff.ops.silu(refdiff.ops.linear(x, p["weight"], None))
        return (refdiff.ops.square(2.0 - h * 3.0 + h / 2.0 - 0.5) - h).mean()

    value, gradients = value_and_grad(loss, params, x)
    (device_value, device_gradients), crossed = run_on_device(lambda p, a: value_and_grad(loss, p, a), params, x)
    assert_same(device_value, np.asarray(value))
    assert_same(device_gradients, gradients)
    assert crossed.total == 0, crossed.events


def test_a_host_array_among_device_arrays_is_refused():
    x, weight = np.ones((2, 4), np.float32), np.ones((3, 4), np.float32)
    with pytest.raises(TypeError, match="Unsupported type"):
        refdiff.ops.linear(on_device(x), weight, None)
    with pytest.raises(TypeError, match="Unsupported type"):
        refdiff.ops.concatenate([on_device(x), x], axis=0)


def test_device_arrays_keep_their_memory_order_on_the_way():
    x = np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2)
    device = on_device(x)
    assert type(device) is SimulatedArray and device.strides == x.strides
    assert_same(device, x)
