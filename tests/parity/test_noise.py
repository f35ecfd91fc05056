"""The stream "torch" is torch.randn's, for any size, and in any order of sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion.noise import stream

# torch has another code path for processors without AVX2; its numbers are 2.1e-6 from these at most (of a million).
VECTORS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
SHAPES = [
    *[(n,) for n in range(49)],
    *[(), (1, 1), (4, 4), (3, 5), (2, 3, 5), (1, 4, 64, 64), (2, 4, 17, 31), (1, 4, 1, 3), (0, 4), (1_000_003,)],
]
SEEDS = [0, 1, 42, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**53 + 1, 2**63, 2**64 - 1]


def ulps(got: np.ndarray, want: np.ndarray) -> int:
    """The largest distance, in float32 numbers that lie between."""
    places = [x.reshape(-1).view(np.int32).astype(np.int64) for x in (got, want)]
    ordered = [np.where(i < 0, -(2**31) - i, i) for i in places]
    return int(np.max(np.abs(ordered[0] - ordered[1]), initial=0))


def assert_torchs(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype == np.float32
    if VECTORS:
        assert ulps(got, want) <= 1  # measured: 0 everywhere
    else:
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_draw(seed):
    for shape in SHAPES[:-1]:
        torch.manual_seed(seed)
        assert_torchs(stream("torch", seed).normal(shape), torch.randn(shape).numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_draw_after_draw(seed):
    """Blocks and single numbers in turn: half a pair of the single ones is kept over the blocks."""
    torch.manual_seed(seed)
    source = stream("torch", seed)
    for shape in SHAPES:
        assert_torchs(source.normal(shape), torch.randn(shape).numpy())


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 70), max_size=8))
def test_any_seed_and_sizes(seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    source = stream("torch", seed)
    for size in sizes:
        assert_torchs(source.normal((size,)), torch.randn(size, generator=generator).numpy())
