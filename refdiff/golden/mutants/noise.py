"""Bugs of the random numbers."""

from __future__ import annotations

import numpy as np

from refdiff.diffusion.noise import stream
from refdiff.golden import stages
from refdiff.golden.mutants.changes import bfloat16
from refdiff.golden.mutants.kind import Variant, Variants, patched
from refdiff.pipelines.request import Streams


class Named(Streams):
    """Streams of another kind, whatever was asked for."""

    kind = ""

    def __init__(self, rng: str, seeds: tuple[int, ...]):
        super().__init__(self.kind, seeds)


class LastAxis(Streams):
    """Numbers that are drawn with the channels last."""

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """[B,h,w,C] moved to [B,C,h,w]."""
        return super().normal((shape[0], *shape[2:], shape[1])).transpose(0, 3, 1, 2)


class AtOnce(Streams):
    """One stream, that of the first seed, for all pictures."""

    def __init__(self, rng: str, seeds: tuple[int, ...]):
        self.one = stream(rng, seeds[0])

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The whole batch in one draw."""
        return self.one.normal(shape)


class FromTheStart(Streams):
    """Streams that begin anew with every draw."""

    def __init__(self, rng: str, seeds: tuple[int, ...]):
        self.of = rng, seeds

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The first numbers again."""
        return Streams(*self.of).normal(shape)


class AnotherLater(Streams):
    """Streams whose second draw and those after are of a generator that nobody handed on."""

    def __init__(self, rng: str, seeds: tuple[int, ...]):
        super().__init__(rng, seeds)
        self.first, self.other = True, Streams(rng, (0,) * len(seeds))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The right numbers once, then those of seed 0."""
        found = super().normal(shape) if self.first else self.other.normal(shape)
        self.first = False
        return found


class Rounded(Streams):
    """Numbers in half precision."""

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """As float16 holds them."""
        return super().normal(shape).astype(np.float16).astype(np.float32)


class Cut(Streams):
    """Numbers in the other half precision."""

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """As bfloat16 holds them."""
        return bfloat16(super().normal(shape))


def drawn_by(streams: type[Streams]) -> Variant:
    """A variant that draws from these."""
    return patched((stages, "Streams", streams))


VARIANTS: Variants = {
    "noise-rng": {
        **{name: drawn_by(type(f"Named_{name}", (Named,), {"kind": name})) for name in ("torch", "cuda", "numpy")},
        "channels last": drawn_by(LastAxis),
        "the batch at once": drawn_by(AtOnce),
        "from the start in each step": drawn_by(FromTheStart),
        "another generator in the steps": drawn_by(AnotherLater),
    },
    "noise-dtype": {"float16": drawn_by(Rounded), "bfloat16": drawn_by(Cut)},
}
