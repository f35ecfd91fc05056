"""The simulated device refuses what CuPy refuses, computes what NumPy computes, and counts what crosses."""

from __future__ import annotations

import cupy
import numpy as np
import pytest

from refdiff import xp as xp_of
from refdiff.errors import BadRequest
from tests.device.cupy_surface import signature
from tests.device.simulated import ImplicitTransfer, SimulatedArray, count_transfers, implicit_transfers, simulated
from tests.device.simulated_array import METHODS

HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def x() -> SimulatedArray:
    return xp_of.to_device(HOST, "simulated")


def test_is_a_device_of_the_package(x):
    assert xp_of.array_module(x) is simulated
    assert xp_of.array_module(x).__name__ == "simulated"
    np.testing.assert_array_equal(xp_of.to_host(x), HOST)
    assert type(xp_of.like(HOST, x)) is SimulatedArray
    np.testing.assert_allclose(xp_of.to_host(xp_of.erf(x)), xp_of.erf(HOST))
    with pytest.raises(BadRequest, match="simulated"):
        xp_of.to_device(HOST, "no such device")


def test_is_not_an_array_to_numpy(x):
    assert not isinstance(x, np.ndarray)
    with pytest.raises(TypeError, match="to_host"):
        np.asarray(x)


def test_the_device_has_its_own_memory(x):
    host = HOST.copy()
    device = xp_of.to_device(host, "simulated")
    back = xp_of.to_host(device)
    host[0, 0] = back[0, 1] = 99
    np.testing.assert_array_equal(xp_of.to_host(device), HOST)


REFUSED = {
    "operator with a NumPy array": (TypeError, lambda x: x + HOST),
    "operator from a NumPy array": (TypeError, lambda x: HOST + x),
    "operator with a 0-d NumPy array": (TypeError, lambda x: x + np.array(1.0)),
    "operator with a list": (TypeError, lambda x: x + [1, 2, 3]),
    "in place with a NumPy array": (TypeError, lambda x: x.__iadd__(HOST)),
    "comparison with None": (TypeError, lambda x: x == None),  # noqa: E711
    "NumPy ufunc": (TypeError, lambda x: np.exp(x)),
    "NumPy function": (TypeError, lambda x: np.sum(x)),
    "NumPy concatenate": (TypeError, lambda x: np.concatenate([x, x])),
    "ufunc with a NumPy array": (TypeError, lambda x: simulated.add(x, HOST)),
    "ufunc with a list": (TypeError, lambda x: simulated.maximum(x, [1, 2, 3])),
    "function with a NumPy array in a list": (TypeError, lambda x: simulated.concatenate([x, HOST])),
    "function on a NumPy array": (TypeError, lambda x: simulated.sum(HOST)),
    "function on a list": (TypeError, lambda x: simulated.mean([1.0, 2.0])),
    "function on a number": (TypeError, lambda x: simulated.sum(1.0)),
    "where on a plain condition": (TypeError, lambda x: simulated.where(True, x, x)),
    "assigning a NumPy array": (TypeError, lambda x: x.__setitem__(slice(None), HOST)),
    "NumPy array as an index": (TypeError, lambda x: x[np.array([0])]),
    "device number as a shape": (TypeError, lambda x: simulated.zeros(x[0, 0])),
    "device number in range": (TypeError, lambda x: range(simulated.argmax(x))),
    "NumPy array out=": (TypeError, lambda x: simulated.add(x, x, out=HOST.copy())),
    "sum(where=)": (TypeError, lambda x: simulated.sum(x, where=x > 0)),
    "sum(initial=)": (TypeError, lambda x: simulated.sum(x, initial=0)),
    "method sum(where=)": (TypeError, lambda x: x.sum(where=True)),
    "ufunc where=": (TypeError, lambda x: simulated.add(x, x, where=x > 0)),
    "clip by keyword": (TypeError, lambda x: simulated.clip(x, min=0, max=1)),
    "take(mode=)": (TypeError, lambda x: simulated.take(x, 0, axis=0, mode="clip")),
    "as_strided(writeable=)": (TypeError, lambda x: simulated.lib.stride_tricks.as_strided(x, writeable=False)),
    "einsum of an unknown keyword": (TypeError, lambda x: simulated.einsum("ij->i", x, order="F")),
    "multiply.at": (TypeError, lambda x: simulated.multiply.at(x, 0, 2.0)),
    "longdouble": (TypeError, lambda x: x.astype(np.longdouble)),
    "strings": (TypeError, lambda x: simulated.array(["a"])),
    "hash": (TypeError, lambda x: hash(x)),
    "formatting": (TypeError, lambda x: f"{x[0, 0]:.2f}"),
    "0-d iteration": (TypeError, lambda x: list(x.sum())),
    "errstate": (AttributeError, lambda x: simulated.errstate),
    "unknown function": (AttributeError, lambda x: simulated.no_such_function),
    "random": (AttributeError, lambda x: simulated.random),
    "ctypes": (AttributeError, lambda x: x.ctypes),
    "unknown attribute": (AttributeError, lambda x: x.no_such_attribute),
    "new attribute": (AttributeError, lambda x: setattr(x, "note", 1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(x, name):
    error, use = REFUSED[name]
    with pytest.raises(error):
        use(x)


IMPLICIT = {
    "float": lambda x: float(x[0, 1]),
    "int": lambda x: int(x[0, 1]),
    "bool": lambda x: bool(x[0, 1] > 0),
    "complex": lambda x: complex(x[0, 1]),
    "item": lambda x: x[0, 1].item(),
    "tolist": lambda x: x.tolist(),
    "in": lambda x: 1 in x[0],
    "max of Python": lambda x: max(x[0]),
}


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_transfers_are_refused_and_counted_where_allowed(x, name):
    with pytest.raises(ImplicitTransfer, match="to_host"):
        IMPLICIT[name](x)
    with implicit_transfers(), count_transfers() as crossed:
        assert IMPLICIT[name](x) == IMPLICIT[name](HOST)
    assert crossed.to_host >= 1 and crossed.to_device == 0
    with pytest.raises(ImplicitTransfer):
        IMPLICIT[name](x)


SAME = {
    "operators": lambda xp, x: (2 - x) * x / (x + 1.5) ** 2 // 0.25 - -x % 2,
    "matmul": lambda xp, x: x @ x.T,
    "comparison": lambda xp, x: (x > 2) & ~(x == 4),
    "NumPy scalars": lambda xp, x: np.float32(2) * x + np.float64(1),
    "0-d sum": lambda xp, x: x.sum() * 2,
    "reductions": lambda xp, x: x.mean(axis=-1, keepdims=True) + xp.var(x, axis=0),
    "index": lambda xp, x: x[:, ::-1][..., None, 1],
    "fancy index": lambda xp, x: x[xp.arange(2), xp.asarray([2, 0])],
    "mask": lambda xp, x: x[x > 2],
    "where": lambda xp, x: xp.where(x > 2, x, 0.0),
    "ufunc": lambda xp, x: xp.exp(-x) + xp.maximum(x, 3),
    "overflow": lambda xp, x: xp.isinf(xp.divide(x + 1, 0)),
    "concatenate": lambda xp, x: xp.concatenate([x, x * 2], axis=1),
    "split": lambda xp, x: xp.split(x, 3, axis=1)[2],
    "einsum": lambda xp, x: xp.einsum("ij,kj->ik", x, x),
    "tensordot": lambda xp, x: xp.tensordot(x, x, axes=([1], [1])),
    "pad": lambda xp, x: xp.pad(x, ((0, 0), (1, 2))),
    "windows": lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, 2, axis=1),
    "strides": lambda xp, x: xp.lib.stride_tricks.as_strided(x, shape=(2, 2), strides=x.strides),
    "linalg": lambda xp, x: xp.linalg.norm(x, axis=1),
    "allclose": lambda xp, x: xp.allclose(x, x),
    "stack from a list of arrays": lambda xp, x: xp.array([x[0], x[1]]),
    "cast": lambda xp, x: x.astype(xp.float64).reshape(3, 2).transpose(1, 0).ravel(),
    "creation": lambda xp, x: xp.zeros_like(x) + xp.full((2, 3), 2, dtype=x.dtype) + xp.arange(3, dtype=x.dtype),
    "half": lambda xp, x: x.astype(xp.float16) * 3,
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_computes_as_numpy_does(x, name):
    device, host = SAME[name](simulated, x), SAME[name](np, HOST)
    assert type(device) is SimulatedArray
    assert device.dtype == np.asarray(host).dtype
    np.testing.assert_array_equal(xp_of.to_host(device), host)


def test_writes_in_place_and_through_views(x):
    x[0] = 7
    view = x[:, 1:]
    view *= 2
    simulated.add.at(x, (simulated.asarray([1, 1]), simulated.asarray([0, 0])), 1.0)
    y = simulated.multiply(x, 2, out=x)
    assert y is x
    np.testing.assert_array_equal(xp_of.to_host(x), [[14, 28, 28], [10, 16, 20]])


def test_answers_about_an_array_are_plain_values(x):
    assert (x.shape, x.ndim, x.size, len(x), x.nbytes, x.dtype) == ((2, 3), 2, 6, 2, 24, np.float32)
    assert x.flags.c_contiguous and not x.T.flags.c_contiguous
    assert simulated.result_type(x, np.float64) == np.float64
    assert simulated.ndim(x) == 2 and simulated.pi == np.pi and simulated.float32 is np.float32


def test_counts_transfers(x):
    with count_transfers() as outer:
        x * 2 + simulated.zeros(3)
        assert outer.total == 0
        with count_transfers() as inner:
            simulated.asarray([1.0])
            simulated.asarray(x)
            xp_of.to_host(x)
        simulated.asnumpy(x)
        x.get()
    xp_of.to_host(x)
    assert (inner.to_device, inner.to_host, inner.total) == (1, 1, 2)
    assert (outer.to_device, outer.to_host) == (1, 3)
    assert outer.events == ["to_device", "x.get()", "x.get()", "x.get()"]


@pytest.mark.parametrize(
    "waits",
    [lambda x: x[x > 2], lambda x: simulated.nonzero(x), lambda x: x.nonzero(), lambda x: simulated.where(x > 2)],
)
def test_results_of_unknown_length_cost_a_transfer(x, waits):
    with count_transfers() as crossed:
        waits(x)
    assert (crossed.to_device, crossed.to_host) == (0, 1)


def test_an_operator_leaves_the_array_to_a_type_that_asks_for_it(x):
    class Recorded:
        __array_ufunc__ = None

        def __rmul__(self, other):
            return "recorded"

    assert x * Recorded() == "recorded"


def test_every_method_is_one_of_cupy():
    assert not [name for name in METHODS if not hasattr(cupy.ndarray, name)]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (cupy.add, "(x1, x2, /, out=None, *, casting='same_kind', dtype=None)"),
        (cupy.ndarray.sum, "(self, axis=None, dtype=None, out=None, keepdims=False)"),
        (cupy.ndarray.swapaxes, "(self, axis1, axis2)"),
        (cupy.ndarray.dot, "(self, b, out=None)"),
        (cupy.einsum, "(subscripts, *operands, dtype=None, optimize=False)"),
        (cupy.clip, "(a, a_min, a_max, out=None)"),
    ],
)
def test_reads_signatures_from_cupy(function, text):
    assert str(signature(function)) == text


def test_says_where_cupy_gives_no_signature():
    with pytest.raises(LookupError, match="divmod"):
        signature(cupy.divmod)
