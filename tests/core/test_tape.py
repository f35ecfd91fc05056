"""The tape: graphs of every form, and what it does with arguments that carry no gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.core.primitive import PRIMITIVES, primitive
from refdiff.core.tape import Variable, backward, value_and_grad


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def gradient(f, params):
    """The gradient and a check of it: central differences of the value along a random direction."""
    before = {key: value.copy() for key, value in params.items()}
    for value in params.values():
        value.flags.writeable = False
    value, grads = value_and_grad(f, params)
    assert list(grads) == list(params)
    for key in params:
        assert grads[key].shape == params[key].shape
        assert grads[key].dtype == params[key].dtype
        np.testing.assert_array_equal(params[key], before[key])
    u = {key: normal(*value.shape, seed=9) for key, value in params.items()}
    h = 1e-6
    ahead, behind = (value_and_grad(f, {k: v + s * u[k] for k, v in params.items()})[0] for s in (h, -h))
    slope = sum(float((grads[key] * u[key]).sum()) for key in params)
    np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-7, atol=1e-9)
    return grads


def test_the_value_and_gradient_of_a_line():
    x = np.array([1.0, 2.0, 5.0])
    value, grads = value_and_grad(lambda v: (v["a"] * x).mean(), {"a": np.array([2.0, 0.0, -1.0])})
    assert value == pytest.approx(-1.0)
    np.testing.assert_allclose(grads["a"], x / 3)


def test_a_variable_used_twice_gets_both_gradients():
    a = normal(3)
    grads = gradient(lambda v: (v["a"] * v["a"]).mean(), {"a": a})
    np.testing.assert_allclose(grads["a"], 2 * a / 3)


def test_the_same_variable_twice_in_one_call():
    a = normal(2, 3)
    grads = gradient(lambda v: ops.square(ops.concatenate([v["a"], v["a"]], axis=0)).mean(), {"a": a})
    np.testing.assert_allclose(grads["a"], 4 * a / 12)


def test_a_diamond():
    def f(v):
        top = ops.exp(v["a"])
        left, right = top * 2.0, ops.square(top)
        return (left * right + top).mean()

    a = normal(4)
    e = np.exp(a)
    grads = gradient(f, {"a": a})
    np.testing.assert_allclose(grads["a"], (6 * e**3 + e) / 4)


STEPS = [
    lambda x, y: x + y * 0.3,
    lambda x, y: x - y,
    lambda x, y: ops.silu(x) * 0.5,
    lambda x, y: (-x) / 3.0,
    lambda x, y: ops.split(ops.concatenate([x, y], axis=1), 2, axis=1)[0],
    lambda x, y: x.transpose(1, 0).reshape(2, 3) * 0.7,
]


@given(st.integers(0, 2**31))
def test_random_graphs(seed):
    """Nodes that draw their arguments from all earlier nodes: shared, nested and unused ones."""
    random = np.random.default_rng(seed)
    plan = [(random.integers(0, len(STEPS)), random.integers(0, i + 2), random.integers(0, i + 2)) for i in range(12)]

    def f(v):
        nodes = [v["a"], v["b"]]
        for kind, left, right in plan:
            nodes.append(STEPS[kind](nodes[left], nodes[right]))
        return (nodes[-1] * nodes[-2]).mean()

    gradient(f, {"a": normal(2, 3, seed=seed), "b": normal(2, 3, seed=seed + 1)})


def test_an_unused_parameter_gets_zeros():
    _, grads = value_and_grad(lambda v: v["a"].mean(), {"a": normal(2), "unused": normal(3, 2).astype(np.float32)})
    np.testing.assert_array_equal(grads["unused"], np.zeros((3, 2)))
    assert grads["unused"].dtype == np.float32


def test_a_branch_that_reaches_no_end_gets_nothing():
    def f(v):
        ops.exp(v["a"])  # recorded, then dropped
        return (v["a"] * 3.0).mean()

    np.testing.assert_allclose(value_and_grad(f, {"a": normal(2)})[1]["a"], [1.5, 1.5])


def test_plain_arrays_and_numbers_beside_variables():
    fixed = normal(3)
    grads = gradient(lambda v: ((2.0 - v["a"]) * fixed + (1.0 + v["a"]) + fixed * v["a"] - fixed).mean(), {"a": normal(3)})
    np.testing.assert_allclose(grads["a"], np.full(3, 1 / 3))


def test_a_list_with_plain_arrays_between_variables():
    a, fixed = normal(2, 1), normal(2, 2)
    grads = gradient(lambda v: ops.square(ops.concatenate([fixed, v["a"], fixed], axis=1)).mean(), {"a": a})
    np.testing.assert_allclose(grads["a"], 2 * a / 10)


def test_numbers_that_are_not_learned_stay_plain():
    """Calls without a variable are not recorded, so a frozen model in front of the loss costs no memory."""
    seen = []
    value_and_grad(lambda v: (seen.append(ops.exp(np.ones(2))), v["a"].mean())[1], {"a": normal(2)})
    assert type(seen[0]) is np.ndarray


def test_further_inputs_are_passed_on_and_not_differentiated():
    x = normal(2)
    value, grads = value_and_grad(lambda v, x, y: (v["a"] * x * y).mean(), {"a": normal(2)}, x, 2.0)
    np.testing.assert_allclose(grads["a"], x)
    assert set(grads) == {"a"}


def test_gradients_keep_float32():
    params = {"a": normal(2, 4, 3, 3).astype(np.float32), "w": normal(4).astype(np.float32)}

    def f(v):
        y = ops.group_norm_silu(v["a"], v["w"], v["w"], groups=2, eps=1e-5)
        return ops.square(y * 2.0 - 1.0).mean()

    value, grads = value_and_grad(f, params)
    assert value.dtype == np.float32
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}


def test_a_deep_graph_needs_no_recursion():
    def f(v):
        x = v["a"]
        for _ in range(5000):
            x = x + 1.0
        return x.mean()

    np.testing.assert_array_equal(value_and_grad(f, {"a": np.zeros(2)})[1]["a"], [0.5, 0.5])


def test_backward_takes_any_seed():
    a = Variable(normal(3))
    g = np.array([1.0, 0.0, -2.0])
    np.testing.assert_allclose(backward(a * 4.0, g)[id(a)], 4 * g)


def test_an_operation_without_a_gradient_is_named():
    @primitive(vjp=None)
    def without_gradient(x):
        return x

    try:
        with pytest.raises(TypeError, match="without_gradient has no gradient rule"):
            value_and_grad(lambda v: without_gradient(v["a"]).mean(), {"a": normal(2)})
    finally:
        del PRIMITIVES["without_gradient"]


def test_a_variable_shows_its_shape():
    a = Variable(normal(2, 3))
    assert (a.shape, a.ndim, a.dtype) == ((2, 3), 2, np.float64)
    assert repr(a) == "<variable (2, 3) float64>"
