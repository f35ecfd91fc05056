"""Every gradient rule is the transpose of the Jacobian: <v, J u> = <J^T v, u>, for every argument and random u, v.

J u comes from the spec alone, by the complex step: f(x + i h u) / h has the imaginary part J u to full precision at
h = 1e-30, because nothing is subtracted (Squire, Trapp 1998). |x| of a complex number is its modulus, so there the
analytic sqrt(x^2) steps in.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.core.primitive import MODES, PRIMITIVES, mode
from tests.ops.arrays import arrays_in, reals
from tests.ops.cases import CASES, Call

# |<v, J u> - <J^T v, u>| over the size of its terms. The largest of 400 generated calls an op: gelu_tanh with 1.2e-15
# in float64 and 3.1e-7 in float32.
BOUND = {np.float64: 1e-14, np.float32: 2e-6}
ANALYTIC_FORM = {"absolute": lambda x: np.sqrt(x * x)}


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_the_gradient_is_the_transpose_of_the_jacobian(name, kernels, data):
    op, dtype = PRIMITIVES[name], data.draw(st.sampled_from(list(BOUND)))
    call = data.draw(CASES[name].calls(dtype))
    with mode(kernels):
        out = op.compute(*call.args, **call.constants)
        v = data.draw(reals(np.shape(out), dtype))
        before = [array.copy() for array in arrays_in((v, *call.args))]
        grads = op.vjp.compute(v, out, *call.args, **call.constants)
    for array, copy in zip(arrays_in((v, *call.args)), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert len(grads) == len(call.args)
    arrays, flat_grads = arrays_in(call.args), _matching(grads, call.args)
    for i, (array, grad) in enumerate(zip(arrays, flat_grads, strict=True)):
        if array.dtype.kind == "i":
            assert grad is None
            continue
        assert grad.shape == array.shape
        assert grad.dtype == dtype
        u = data.draw(reals(array.shape, np.float64))
        ju = _directional_derivative(name, call, i, u)
        assert abs(float((v * ju).sum() - (grad * u).sum())) <= BOUND[dtype] * _scale(u, v, ju, grad)


def _scale(u, v, ju, grad) -> float:
    """What the terms of either product can amount to (Cauchy-Schwarz), for a Jacobian of norm 1 at least."""
    size_u, size_v, size_ju, size_grad = (float(np.linalg.norm(np.ravel(a))) for a in (u, v, ju, grad))
    return size_u * size_v + size_ju * size_v + size_grad * size_u


def _matching(grads, args):
    """The gradients in the order of `arrays_in(args)`; a place without an array must have none."""
    found = []
    for grad, arg in zip(grads, args, strict=True):
        if isinstance(arg, list):
            found += list(grad)
        elif isinstance(arg, np.ndarray):
            found.append(grad)
        else:
            assert grad is None
    return found


def _directional_derivative(name: str, call: Call, which: int, u: np.ndarray) -> np.ndarray:
    """J u of the float64 spec, with respect to array number `which`."""
    h = 1e-30
    spec = ANALYTIC_FORM.get(name, PRIMITIVES[name].spec)
    return np.imag(spec(*_shifted(call, which, 1j * h * u), **call.constants)) / h


def _shifted(call: Call, which: int, step: np.ndarray) -> list:
    count = iter(range(1000))

    def shift(arg):
        if isinstance(arg, list):
            return [shift(item) for item in arg]
        if not isinstance(arg, np.ndarray):
            return arg
        wide = arg if arg.dtype.kind == "i" else arg.astype(np.float64)
        return wide + step if next(count) == which else wide

    return [shift(arg) for arg in call.args]
