"""AdamW, warm-up and decay of the learning rate, gradient clipping and the moving average of the weights.

All parameters are one long vector here: an update is a few lines, and makes a new vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refdiff.core.primitive import primitive
from refdiff.xp import Array, array_module


@dataclass(frozen=True)
class OptimizerSettings:
    """The numbers of a run's optimiser; `decay_from` is the share of the steps after which the rate falls as a cosine."""

    learning_rate: float
    warmup_steps: int
    decay_from: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip_norm: float
    ema_decay: float


def flatten_vector(arrays: Mapping[str, Array], keys: Sequence[str]) -> Array:
    """All arrays, in the order of `keys`, as one vector."""
    xp = array_module(arrays[keys[0]])
    return xp.concatenate([arrays[key].reshape(-1) for key in keys])


def unflatten_vector(vector: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The named arrays of a vector, as views of it."""
    arrays, start = {}, 0
    for key, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[key] = vector[start:stop].reshape(shape)
        start = stop
    return arrays


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """The rate of step 1, 2, ...: a linear rise, a plateau, then half a cosine down to zero.

    Source: Loshchilov, Hutter 2016 (arXiv 1608.03983), equation 5, for the cosine
    """
    peak = settings.learning_rate
    if step <= settings.warmup_steps:
        return peak * step / settings.warmup_steps
    start = settings.decay_from * steps
    if step <= start:
        return peak
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - start) / max(steps - start, 1)))


def clip_scale(gradient: Array, *, clip_norm: float) -> Array:
    """The factor that brings the gradient's length down to `clip_norm` if it is longer.

    Source: Pascanu, Mikolov, Bengio 2012 (arXiv 1211.5063), algorithm 1
    """
    xp = array_module(gradient)
    norm = xp.sqrt(xp.dot(gradient, gradient))
    return xp.minimum(clip_norm / (norm + 1e-6), 1.0).astype(gradient.dtype)


@primitive(vjp=None)
def adamw_step(
    vector: Array, gradient: Array, m: Array, v: Array, *, rate: float, step: int, settings: OptimizerSettings
) -> tuple[Array, Array, Array]:
    """One update of the weights and of the two moments, for step 1, 2, ...

    Math: m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2,
    w' = (1 - rate decay) w - rate (m' / (1 - b1^step)) / (sqrt(v' / (1 - b2^step)) + eps)
    Source: Loshchilov, Hutter 2017 (arXiv 1711.05101), algorithm 2; the decay is multiplied by the rate, as in PyTorch
    """
    b1, b2 = settings.beta1, settings.beta2
    m = b1 * m + (1.0 - b1) * gradient
    v = b2 * v + (1.0 - b2) * (gradient * gradient)
    root = array_module(v).sqrt(v / (1.0 - b2**step)) + settings.eps
    vector = vector * (1.0 - rate * settings.weight_decay) - (rate / (1.0 - b1**step)) * (m / root)
    return vector, m, v


@primitive(vjp=None)
def ema_step(average: Array, vector: Array, *, share: float) -> Array:
    """The moving average of the weights after one more vector.

    Math: average + share (vector - average)
    """
    return average + share * (vector - average)


def ema_share(step: int, *, decay: float) -> float:
    """The share of the newest weights in the average; early on it is larger, so that the average leaves the start behind.

    Math: 1 - min(decay, step / (step + 10))
    Source: the decay of tf.train.ExponentialMovingAverage, given a number of updates
    """
    return 1.0 - min(decay, step / (step + 10.0))
