"""torch's normals, number by number."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion import cephes
from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest

FIXTURE = json.loads((Path(__file__).parent / "normals.json").read_text())
SHAPES = [tuple(shape) for shape in FIXTURE["shapes"]]
names = st.sampled_from(["torch", "numpy", "cuda", "cuda:2x1024"])


def ulps(got: np.ndarray, want: np.ndarray) -> int:
    """The largest distance, in float32 numbers that lie between."""
    ordered = [np.where(i < 0, -(2**31) - i, i) for i in (x.view(np.int32).astype(np.int64) for x in (got, want))]
    return int(np.max(np.abs(ordered[0] - ordered[1])))


@pytest.mark.parametrize("row", FIXTURE["rows"], ids=[str(row["seed"]) for row in FIXTURE["rows"]])
def test_torchs_numbers_draw_after_draw(row):
    """Within 1 ulp on any machine; NumPy's float64 functions, which small draws use, may round otherwise elsewhere."""
    source = stream("torch", row["seed"])
    for shape, draw in zip(SHAPES, row["draws"], strict=True):
        got = source.normal(shape)
        want = np.frombuffer(base64.b64decode(draw), dtype="<f4").astype(np.float32).reshape(shape)
        assert got.dtype == np.float32 and got.shape == shape
        assert ulps(got, want) <= 1, shape
        assert np.count_nonzero(got != want) <= 0.001 * got.size, shape


def test_ulps_can_count():
    one = np.array([1.0, -1e-45, 0.0], dtype=np.float32)
    assert ulps(one, one) == 0
    assert ulps(one, np.nextafter(one, np.float32(9.0))) == 1
    assert ulps(np.array([-1e-45], dtype=np.float32), np.array([1e-45], dtype=np.float32)) == 2


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (15,), (16,), (2, 3, 5)])
@pytest.mark.parametrize("name", ["torch", "numpy", "cuda", "cuda:2x1024"])
def test_shapes(name, shape):
    got = stream(name, 7).normal(shape)
    assert got.shape == shape and got.dtype == np.float32


@given(names, st.integers(0, 2**64 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_same_seed_same_numbers(name, seed, sizes):
    one, other = stream(name, seed), stream(name, seed)
    for size in sizes:
        np.testing.assert_array_equal(one.normal((size,)), other.normal((size,)))


@given(names, st.integers(0, 2**32 - 2))
def test_other_seed_other_numbers(name, seed):
    assert not np.array_equal(stream(name, seed).normal((16,)), stream(name, seed + 1).normal((16,)))


def test_torch_takes_32_bits_of_the_seed():
    np.testing.assert_array_equal(stream("torch", 5).normal((20,)), stream("torch", 2**32 + 5).normal((20,)))


@given(names, st.integers(0, 2**32))
def test_the_stream_goes_on(name, seed):
    source = stream(name, seed)
    assert not np.array_equal(source.normal((16,)), source.normal((16,)))


@given(st.integers(1, 15), st.integers(0, 15), st.integers(0, 999))
def test_small_draws_are_one_row(first, second, seed):
    """Below sixteen the numbers come one by one: how they are divided between the calls does not matter."""
    if first + second < 16:
        source = stream("torch", seed)
        parts = np.concatenate([source.normal((first,)), source.normal((second,))])
        np.testing.assert_array_equal(parts, stream("torch", seed).normal((first + second,)))


@pytest.mark.parametrize("name", ["torch", "numpy", "cuda", "cuda:2x1024"])
def test_they_are_standard_normal(name):
    """Mean, variance, skewness, kurtosis and the correlation of neighbours, each within four standard errors."""
    x = stream(name, 11).normal((200_000,)).astype(np.float64)
    n = len(x)
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.var() - 1.0) < 4 * (2 / n) ** 0.5
    assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3.0) < 4 * (96 / n) ** 0.5
    assert abs((x[:-8] * x[8:]).mean()) < 4 / n**0.5


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, 1.0, "1", None, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(BadRequest, match="not a whole number from 0"):
        stream("torch", seed)


@pytest.mark.parametrize("name", ["philox", "", "Torch", "Cuda"])
def test_unknown_streams_are_refused(name):
    with pytest.raises(BadRequest, match="torch.*numpy.*cuda"):
        stream(name, 0)


def test_cephes_is_right():
    """Its own rounding is the fixture's business; here, that it computes these functions at all."""
    x = np.geomspace(2.0**-24, 1.0, 5001).astype(np.float32)
    np.testing.assert_allclose(cephes.log(x), np.log(x.astype(np.float64)), rtol=2e-7, atol=1e-9)
    angles = np.linspace(0.0, 2.0 * np.pi, 5001).astype(np.float32)
    sine, cosine = cephes.sine_cosine(angles)
    np.testing.assert_allclose(sine, np.sin(angles.astype(np.float64)), rtol=0, atol=1.2e-7)
    np.testing.assert_allclose(cosine, np.cos(angles.astype(np.float64)), rtol=0, atol=1.2e-7)
