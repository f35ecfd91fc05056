"""Random streams: where a picture's noise comes from. A stream is an object with `normal(shape)`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import numpy as np

from refdiff.diffusion import philox
from refdiff.diffusion.cephes import log, sine_cosine
from refdiff.errors import BadRequest


class Stream(Protocol):
    """A source of standard normal numbers that goes on from call to call."""

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next numbers, float32.  Shapes: -> shape"""
        ...


def stream(name: str, seed: int) -> Stream:
    """The stream of that name at its beginning.

    "torch" is torch.manual_seed and torch.randn on a CPU, "cuda" the same on a GPU, "numpy" NumPy's PCG64. "cuda:108x2048" is
    a GPU of 108 multiprocessors with 2048 threads each, which matters for draws of more numbers than it has threads.
    Raises: BadRequest for an unknown name or a seed outside 0..2**64-1
    Traps: noise-rng
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise BadRequest(f"the seed {seed!r} is not a whole number from 0 to 2**64-1")
    if str(name).startswith("cuda:"):
        return CudaStream(int(seed), threads=threads_of(name))
    if name not in STREAMS:
        raise BadRequest(f'unknown random stream "{name}": choose one of {", ".join(STREAMS)}')
    return STREAMS[name](int(seed))


def threads_of(name: str) -> int:
    """The threads that a GPU given as "cuda:MULTIPROCESSORSxTHREADS" runs at once.  Raises: BadRequest for another form"""
    found = re.fullmatch(r"cuda:([1-9]\d{0,3})x([1-9]\d{0,3})", name)
    if found is None or int(found[2]) < CudaStream.BLOCK:
        raise BadRequest(f'the random stream "{name}" is not cuda:MULTIPROCESSORSxTHREADS, such as cuda:108x2048 for an A100')
    return int(found[1]) * (int(found[2]) // CudaStream.BLOCK * CudaStream.BLOCK)


class NumpyStream:
    """NumPy's PCG64 and its ziggurat."""

    def __init__(self, seed: int):
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next numbers, float32.  Shapes: -> shape"""
        return self._generator.standard_normal(shape, dtype=np.float32)


class TorchStream:
    """The normals of torch's CPU generator: Mersenne Twister words, then Box-Muller.

    Sixteen or more numbers are made from 24-bit uniforms in blocks of sixteen, the first eight of a block with the last
    eight; a last block that is not full is drawn again for the last sixteen places. Fewer numbers are made one by one
    in float64 from 53-bit uniforms, two at a time, the second kept for the next.
    Of the seed only the low 32 bits count: seeds that differ by a multiple of 2**32 give the same numbers.

    Source: Matsumoto, Nishimura 1998; Box, Muller 1958; the order of the draws as in ATen's CPU normal distribution
    """

    BLOCK = 16

    def __init__(self, seed: int):
        self._words = np.random.MT19937()
        self._words._legacy_seeding(seed & 0xFFFFFFFF)
        self._kept: float | None = None

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next numbers, float32.  Shapes: -> shape"""
        size = int(np.prod(shape, dtype=np.int64))
        values = self._few(size) if size < self.BLOCK else self._many(size)
        return values.reshape(shape)

    def _many(self, size: int) -> np.ndarray:
        uniforms = self._uniform24(size)
        full = size - size % self.BLOCK
        values = np.empty(size, dtype=np.float32)
        values[:full] = self._box_muller(uniforms[:full])
        if full != size:
            values[size - self.BLOCK :] = self._box_muller(self._uniform24(self.BLOCK))
        return values

    def _uniform24(self, size: int) -> np.ndarray:
        """float32 in [0,1) from the low 24 bits of each word."""
        words = self._words.random_raw(size)
        return (words & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)

    def _box_muller(self, uniforms: np.ndarray) -> np.ndarray:
        """Standard normals from blocks of sixteen uniforms."""
        blocks = uniforms.reshape(-1, 2, self.BLOCK // 2)
        radius = np.sqrt(np.float32(-2.0) * log(np.float32(1.0) - blocks[:, 0]))
        sine, cosine = sine_cosine(np.float32(2.0 * np.pi) * blocks[:, 1])
        return np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)

    def _few(self, size: int) -> np.ndarray:
        return np.array([self._one() for _ in range(size)], dtype=np.float32)

    def _one(self) -> float:
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        u1, u2 = self._uniform53(), self._uniform53()
        radius, angle = np.sqrt(-2.0 * np.log1p(-u2)), 2.0 * np.pi * u1
        self._kept = radius * np.sin(angle)
        return radius * np.cos(angle)

    def _uniform53(self) -> float:
        """float64 in [0,1) from the low 53 bits of two words, the first the upper half."""
        high, low = (int(w) for w in self._words.random_raw(2))
        return ((high << 32 | low) & ((1 << 53) - 1)) * 2.0**-53


class CudaStream:
    """The normals of torch's generator on a GPU: Philox 4x32-10, then Box-Muller, within some 1e-5 of a GPU's.

    A draw is one launch of as many threads as it has numbers, in blocks of 256, but no more than the GPU runs at once.
    Thread i takes four normals at a time from its own sequence. They go to the places i, i + threads, i + 2 threads and
    i + 3 threads, so that draws beyond `threads` numbers are another GPU's only if it runs as many threads.
    `threads` None is a GPU that is larger than any draw: one number a thread, as AUTOMATIC1111's emulation on a CPU.
    All 64 bits of the seed count.

    Source: Salmon, Moraes, Dror, Shaw 2011; the launch as in ATen's CUDA distributions
    """

    BLOCK = 256

    def __init__(self, seed: int, *, threads: int | None):
        self._seed = seed
        self._threads = threads
        self._offset = 0

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next numbers, float32.  Shapes: -> shape"""
        size = int(np.prod(shape, dtype=np.int64))
        threads = -(-size // self.BLOCK) * self.BLOCK if self._threads is None else self._threads
        parts = [np.empty(0, dtype=np.float32)]
        for start in range(0, size, 4 * threads if threads else 1):
            left = size - start
            lanes = philox.counters(self._offset, min(threads, left))
            parts.append(philox.box_muller(philox.philox(lanes, self._seed)).reshape(-1)[:left])
            self._offset += 1
        return np.concatenate(parts).reshape(shape)


def cuda_of_any_size(seed: int) -> CudaStream:
    """The stream "cuda" where no GPU is named."""
    return CudaStream(seed, threads=None)


STREAMS: dict[str, Callable[[int], Stream]] = {"torch": TorchStream, "numpy": NumpyStream, "cuda": cuda_of_any_size}
