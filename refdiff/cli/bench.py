"""What `refdiff bench` measures: one guided step of the U-Net and one decoding, and the operations of which they are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TIME = 501.0  # of the step
Work = Callable[[], Any]


@dataclass
class Calls:
    """The calls of one op that ran in one way."""

    count: int = 0
    seconds: float = 0.0
    shapes: set[tuple] = field(default_factory=set)


def report(
    model: str | None, size: int | None, runs: int, *, explain: bool, kernels: str, dtype: str, low_memory: bool
) -> Iterator[str]:
    """The lines of the command, each as soon as it is known.

    Raises: BadRequest for a model that cannot be opened, or a size that is not on its grid
    """
    from refdiff import load
    from refdiff.core import primitive
    from refdiff.kernels.cpu import common
    from refdiff.pipelines.request import check_size

    pipe = load(model, kernels=kernels, dtype=dtype, low_memory=low_memory)
    side = pipe.unet.config.sample_size * pipe.downscale if size is None else size
    check_size(pipe, "size", side)
    how = f"{pipe.dtype}, {pipe.kernels} kernels, products of {pipe.products}, {common.THREADS} threads"
    yield f"{pipe.source['name']}, {side}x{side} pixels, {how}"
    with primitive.mode(kernels, pipe.products):
        for name, prepare in (("one guided step of the U-Net", step_of), ("one decoding", decoding_of)):
            work = prepare(pipe, side // pipe.downscale)
            work()  # kernels are compiled and weights prepared
            yield f"{name}: {min(seconds_of(work) for _ in range(runs)):.3f} s"
            if explain:
                yield from table(work)


def step_of(pipe: Any, side: int) -> Work:
    """Both halves of a guided step, as text_to_image runs it."""
    from refdiff.models.unet import unet

    config, params, rng = pipe.unet.config, pipe.unet.params, np.random.default_rng(0)
    x = rng.standard_normal((2, config.in_channels, side, side)).astype(np.float32)
    context = rng.standard_normal((2, pipe.tokenizer.max_length, config.cross_attention_dim)).astype(np.float32)
    return lambda: unet(params, config, x, np.full(2, TIME), context)


def decoding_of(pipe: Any, side: int) -> Work:
    """One picture."""
    from refdiff.models.vae import decode

    config, params, rng = pipe.vae.config, pipe.vae.params, np.random.default_rng(0)
    z = rng.standard_normal((1, config.latent_channels, side, side)).astype(np.float32)
    return lambda: decode(params, config, z)


def seconds_of(work: Work) -> float:
    """How long it takes once."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def table(work: Work) -> Iterator[str]:
    """A line for each op and each way in which it ran, the longest first."""
    from refdiff.core.primitive import Primitive, watched

    found: dict[tuple[str, str], Calls] = {}

    def note(op: Primitive, args: tuple, seconds: float, reason: str) -> None:
        calls = found.setdefault((op.name, reason), Calls())
        calls.count += 1
        calls.seconds += seconds
        calls.shapes.add(tuple(getattr(a, "shape", None) for a in args))

    with watched(note):
        whole = seconds_of(work)
    yield f"  {'operation':<18} {'calls':>6} {'shapes':>6} {'seconds':>9} {'share':>6}  ran as"
    for (name, reason), calls in sorted(found.items(), key=lambda item: -item[1].seconds):
        way = "kernel" if not reason else f"specification: {reason}"
        counted = f"{calls.count:>6} {len(calls.shapes):>6} {calls.seconds:>9.4f} {calls.seconds / whole:>6.1%}"
        yield f"  {name:<18} {counted}  {way}"
    rest = whole - sum(calls.seconds for calls in found.values())
    yield f"  {'between them':<18} {'':>6} {'':>6} {rest:>9.4f} {rest / whole:>6.1%}  sums of arrays, and changes of shape"
