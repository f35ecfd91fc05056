"""The stream of a GPU: known answers of Philox, and numbers that people's GPUs printed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion import philox
from refdiff.diffusion.noise import CudaStream, stream
from refdiff.errors import BadRequest

# Random123, tests/kat_vectors, the lines "philox4x32 10": counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
PRINTED = 0.5e-4 + 1e-5  # four decimals, and the fast sine of a GPU


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    low, high = words(key)
    many = np.repeat(np.array(words(counter), dtype=np.uint64)[:, None], 3, axis=1)
    got = philox.philox(many, low | high << 32)
    assert got.dtype == np.uint32
    np.testing.assert_array_equal(got, np.repeat(np.array(words(answer), dtype=np.uint32)[:, None], 3, axis=1))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), st.integers(0, 2**64 - 1))
def test_witness(counter, key):
    """The published round in whole numbers of any size."""
    k, c = [key % 2**32, key >> 32], list(counter)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second >> 32 ^ c[1] ^ k[0], second % 2**32, first >> 32 ^ c[3] ^ k[1], first % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    assert philox.philox(np.array(counter, dtype=np.uint64)[:, None], key)[:, 0].tolist() == c


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4))
def test_box_muller_witness(four):
    got = philox.box_muller(np.array(four, dtype=np.uint32)[:, None])[:, 0]
    for pair in (0, 2):
        u, v = (four[pair] + 0.5) / 2**32, (four[pair + 1] + 0.5) / 2**32 * 2 * math.pi
        radius = math.sqrt(-2.0 * math.log(u))
        bound = 3e-6 if u < 0.99 else 3e-4  # float32 near 1 is coarse
        assert abs(got[pair] - radius * math.sin(v)) < bound
        assert abs(got[pair + 1] - radius * math.cos(v)) < bound


def test_the_extreme_words_are_finite():
    ends = np.array([[0, 0, 2**32 - 1, 2**32 - 1], [0, 2**32 - 1] * 2] * 2, dtype=np.uint32)
    got = philox.box_muller(ends)
    assert np.isfinite(got).all() and np.abs(got).max() < 6.77


def test_the_docstring_of_the_emulation_on_a_cpu():
    """AUTOMATIC1111's modules/rng_philox.py, seed 0, shape (3, 4); it computes in float64, which differs by 1e-6."""
    want = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    np.testing.assert_allclose(stream("cuda", 0).normal((3, 4)), want, rtol=0, atol=2e-6)


def test_two_draws_of_a_gpu():
    """Printed: max(a + b / 2 + c, 0) of three draws (8,8), (8,8), (8,) after manual_seed(0); the second and third go on."""
    source = stream("cuda", 0)
    a, b, c = (source.normal(shape) for shape in ((8, 8), (8, 8), (8,)))
    np.testing.assert_allclose(a[0], [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284], atol=PRINTED)
    np.testing.assert_allclose(a[7], [-0.5499, -0.3231, -0.5469, 0.9049, 0.2837, 0.1210, 0.4730, -1.0823], atol=PRINTED)
    got = np.maximum(a + b / 2 + c, 0.0)
    np.testing.assert_allclose(got[0], [1.7098, 0, 0, 0, 0.67049, 0, 0.34424, 0.011223], rtol=0, atol=PRINTED)
    np.testing.assert_allclose(got[2], [2.2614, 1.3964, 0.51802, 2.0114, 0, 0, 0.27715, 0], rtol=0, atol=PRINTED)


# (stream, seed, shape, mean, deviation, {place: printed value}); draws larger than the GPU's threads.
GPUS = {
    # pytorch issue 143086: torch.randn(1, 49 * 12 * 112 * 144) with seed 1
    "A100": ("cuda:108x2048", 1, (9483264,), 0.0, 1.0, {0: -0.2963, 1: 2.6764, 2: -0.1408, -3: 0.1549, -2: -0.6797, -1: -0.1656}),
    "H100": ("cuda:132x2048", 1, (9483264,), 0.0, 1.0, {0: -0.2963, 1: 2.6764, 2: -0.1408, -3: -0.6970, -2: -0.7780, -1: 0.3267}),
    # pytorch issue 97097: normal_(5, 5**.5) of (1000, 100) with seed 14
    "RTX A4000": (
        "cuda:48x1536", 14, (100000,), 5.0, 5.0**0.5,
        {0: 2.8731, 99: 6.6319, 99700: 8.6297, -200: 7.0551, -100: 2.7337, -99: 2.2106, -2: 6.5395, -1: 4.2604},
    ),
    # pytorch issue 62467: normal_ of (1, 3, 128, 128) with seed 43
    "RTX A6000": ("cuda:84x1536", 43, (49152,), 0.0, 1.0, {0: 1.9983, 16384: 0.8704, 32768: 2.1127}),
}  # fmt: skip


@pytest.mark.parametrize("gpu", GPUS)
def test_large_draws_of_gpus(gpu):
    name, seed, shape, mean, deviation, places = GPUS[gpu]
    got = stream(name, seed).normal(shape) * deviation + mean
    for place, value in places.items():
        assert abs(got[place] - value) <= PRINTED * deviation, (place, value)


@given(st.integers(1, 12_000), st.sampled_from([256, 512, 1280]), st.integers(0, 2**64 - 1))
def test_where_the_numbers_go(size, threads, seed):
    """Number i of a draw is normal i // threads % 4 of thread i % threads at its i // (4 threads)th turn."""
    got = CudaStream(seed, threads=threads).normal((size,))
    for i in {0, size // 3, size // 2, size - 1}:
        turn, lane, which = i // (4 * threads), i % threads, i // threads % 4
        counter = np.array([turn, 0, lane, 0], dtype=np.uint64)[:, None]
        assert got[i] == philox.box_muller(philox.philox(counter, seed))[which, 0]


@given(st.integers(1, 2000), st.integers(0, 99))
def test_small_draws_are_every_gpus(size, seed):
    np.testing.assert_array_equal(stream("cuda", seed).normal((size,)), CudaStream(seed, threads=2048).normal((size,)))


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.integers(0, 99))
def test_the_offset_is_the_turns_so_far(sizes, seed):
    source, turns = CudaStream(seed, threads=256), 0
    for size in sizes:
        source.normal((size,))
        turns += -(-size // 1024)
    counter = np.array([turns, 0, 0, 0], dtype=np.uint64)[:, None]
    assert source.normal((1,))[0] == philox.box_muller(philox.philox(counter, seed))[0, 0]


def test_all_64_bits_of_the_seed_count():
    assert not np.array_equal(stream("cuda", 5).normal((20,)), stream("cuda", 2**32 + 5).normal((20,)))


@pytest.mark.parametrize("name", ["cuda:", "cuda:0", "cuda:108", "cuda:0x2048", "cuda:108x128", "cuda:108x2048 ", "cuda:-1x2048"])
def test_other_gpus_are_refused(name):
    with pytest.raises(BadRequest, match="cuda:MULTIPROCESSORSxTHREADS"):
        stream(name, 0)
