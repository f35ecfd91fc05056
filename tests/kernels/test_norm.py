"""GroupNorm by chunks of pixels is GroupNorm, on one thread or two, for a picture alone or in a batch."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff import ops
from refdiff.kernels.cpu import common, norm

F32 = np.float32
SIZES = [(1, 3), (1, norm.CHUNK), (5, 103), (32, 33)]  # fewer pixels than a chunk, one chunk, two, several


def _call(height, width):
    rng = np.random.default_rng(height)
    x = rng.standard_normal((2, height, width, 24)).astype(F32).transpose(0, 3, 1, 2) * F32(0.1) + F32(3)
    weight, bias = rng.standard_normal((2, 24)).astype(F32)
    return (x, weight, bias), {"groups": 4, "eps": 1e-5}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["group_norm", "group_norm_silu"])
def test_equals_its_definition(name, size):
    arrays, constants = _call(*size)
    want = getattr(ops, name).spec(*(a.astype(np.float64) for a in arrays), **constants)
    got = getattr(norm, name)(*arrays, **constants)
    assert got.dtype == F32
    # Measured: 3e-6; the mean is thirty deviations, so float32 holds a deviation's part to 30 times 6e-8.
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("size", SIZES)
def test_bits_depend_neither_on_threads_nor_on_the_batch(size, monkeypatch):
    (x, weight, bias), constants = _call(*size)
    monkeypatch.setattr(common, "SMALL", 0)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(common, "THREADS", threads)
        found.append(norm.group_norm(x, weight, bias, **constants))
    found.append(np.concatenate([norm.group_norm(x[i : i + 1], weight, bias, **constants) for i in (0, 1)]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
