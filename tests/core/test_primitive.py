"""The dispatch: the spec, the kernel of the mode and the array module, and the way back when a kernel declines."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core import primitive as dispatch
from refdiff.core.primitive import (
    FALLBACKS,
    KERNELS,
    PRIMITIVES,
    Unsupported,
    get_mode,
    mode,
    primitive,
    register_kernel,
    watched,
)
from refdiff.core.tape import Variable, value_and_grad
from refdiff.errors import BadRequest


@pytest.fixture(autouse=True)
def the_specification_first():
    """Whatever mode the suite runs in."""
    with mode("spec"):
        yield


def double_vjp(g, out, x, *, times):
    """The rule of `double`."""
    return (g * 2.0 * times,)


@pytest.fixture
def double(monkeypatch):
    """An op of its own, forgotten after the test."""
    for name, table in [("PRIMITIVES", PRIMITIVES), ("KERNELS", KERNELS), ("FALLBACKS", FALLBACKS)]:
        monkeypatch.setattr(dispatch, name, dict(table))

    @primitive(vjp=double_vjp)
    def double(x, *, times):
        """Twice x."""
        return x * 2.0 * times

    return double


X = np.array([1.0, 2.0])


def test_knows_its_name_and_text(double):
    assert (double.name, double.__name__, double.__doc__) == ("double", "double", "Twice x.")
    assert repr(double) == "<primitive double>"
    assert double.__wrapped__ is double.spec
    assert dispatch.PRIMITIVES["double"] is double
    assert dispatch.PRIMITIVES["double_vjp"] is double.vjp


def test_a_kernel_runs_in_fast_mode_alone(double):
    register_kernel(double.name, "numpy", lambda x, *, times: np.full_like(x, -1))
    np.testing.assert_array_equal(double(X, times=3), X * 6)
    with mode("fast"):
        np.testing.assert_array_equal(double(X, times=3), [-1, -1])
    with mode("spec"):
        np.testing.assert_array_equal(double(X, times=3), X * 6)


def test_a_kernel_of_another_array_module_is_left_alone(double):
    register_kernel(double.name, "cupy", lambda x, *, times: pytest.fail("the wrong kernel"))
    with mode("fast"):
        np.testing.assert_array_equal(double(X, times=1), X * 2)


def test_a_kernel_that_declines_is_recorded_and_the_spec_runs(double):
    def kernel(x, *, times):
        if times != 1:
            raise Unsupported(f"times = {times}")
        return np.full_like(x, -1)

    register_kernel(double.name, "numpy", kernel)
    with mode("fast"):
        np.testing.assert_array_equal(double(X, times=1), [-1, -1])
        for _ in range(2):
            np.testing.assert_array_equal(double(X, times=5), X * 10)
    assert {k: v for k, v in dispatch.FALLBACKS.items() if k[0] == "double"} == {("double", "times = 5"): 2}


def test_an_error_inside_a_kernel_is_not_hidden(double):
    def kernel(x, *, times):
        raise ValueError("broken")

    register_kernel(double.name, "numpy", kernel)
    with mode("fast"), pytest.raises(ValueError, match="broken"):
        double(X, times=1)


def test_a_gradient_rule_has_kernels_of_its_own(double):
    register_kernel(double.vjp.name, "numpy", lambda g, out, x, *, times: (np.full_like(x, 7),))

    def f(v):
        return double(v["a"], times=1).mean()

    np.testing.assert_array_equal(value_and_grad(f, {"a": X})[1]["a"], [1, 1])
    with mode("fast"):
        np.testing.assert_array_equal(value_and_grad(f, {"a": X})[1]["a"], [7, 7])


def test_a_recorded_call_runs_the_kernel_too(double):
    register_kernel(double.name, "numpy", lambda x, *, times: np.full_like(x, -1))
    with mode("fast"):
        y = double(Variable(X), times=1)
    assert type(y) is Variable
    np.testing.assert_array_equal(y.value, [-1, -1])


def test_the_mode_comes_back_after_an_error():
    before = get_mode()
    with pytest.raises(RuntimeError), mode("fast"), mode("spec"):
        raise RuntimeError
    assert get_mode() == before


def test_an_unknown_mode_is_refused():
    with pytest.raises(BadRequest, match='unknown kernels "quick": choose one of spec, fast'), mode("quick"):
        pass
    assert get_mode() in dispatch.MODES


def test_a_call_without_an_array_is_refused_in_fast_mode(double):
    with mode("fast"), pytest.raises(TypeError, match="without an array"):
        double("text", times=1)


def test_a_misspelt_constant_is_refused(double):
    for kernels in dispatch.MODES:
        with mode(kernels), pytest.raises(TypeError, match="tmies"):
            double(X, tmies=1)


def test_memory_mapped_arrays_take_the_same_path(double, tmp_path):
    np.save(tmp_path / "x.npy", X)
    register_kernel(double.name, "numpy", lambda x, *, times: np.full(2, -1))
    with mode("fast"):
        np.testing.assert_array_equal(double(np.load(tmp_path / "x.npy", mmap_mode="r"), times=1), [-1, -1])


def test_the_one_who_watches_is_told_every_call_and_why_the_spec_ran(double):
    told = []

    def note(op, args, seconds, reason):
        told.append((op.name, args[0].shape, seconds >= 0, reason))

    @primitive(vjp=None)
    def quadruple(x):
        """Twice twice: the inner calls are not told."""
        return double(double(x, times=1), times=1)

    def picky(x, *, times):
        if times > 1:
            raise Unsupported("too often")
        return x * 2.0

    with watched(note):
        quadruple(X)
        with mode("fast"):
            double(X, times=1)
            register_kernel(double.name, "numpy", picky)
            double(X, times=1)
            double(X, times=2)
    double(X, times=1)
    reasons = ["the specification was asked for", "no kernel for numpy", "", "too often"]
    names = ["quadruple", *["double"] * 3]
    assert told == [(name, (2,), True, reason) for name, reason in zip(names, reasons, strict=True)]
