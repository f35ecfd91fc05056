"""Activations, element by element."""

from __future__ import annotations

import math

from refdiff.core.primitive import primitive
from refdiff.xp import Array, array_module, erf


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow: through tanh."""
    return 0.5 * (array_module(x).tanh(0.5 * x) + 1.0)


def silu_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: d/dx = s (1 + x (1 - s)), s = sigmoid(x)."""
    s = sigmoid(x)
    return (g * (s * (1.0 + x * (1.0 - s))),)


@primitive(vjp=silu_vjp)
def silu(x: Array) -> Array:
    """Sigmoid linear unit.

    Math: x sigmoid(x)
    Source: Elfwing, Uchibe, Doya 2017 (arXiv 1702.03118), equation 3
    """
    return x * sigmoid(x)


def gelu_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: d/dx = Phi(x) + x phi(x), the normal distribution and its density."""
    density = array_module(x).exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return (g * (0.5 * (1.0 + erf(x * math.sqrt(0.5))) + x * density),)


@primitive(vjp=gelu_vjp)
def gelu(x: Array) -> Array:
    """Gaussian error linear unit, the exact form.

    Math: x Phi(x) = x (1 + erf(x / sqrt 2)) / 2
    Source: Hendrycks, Gimpel 2016 (arXiv 1606.08415), section 2
    Traps: gelu-tanh, te-gelu-for-quickgelu
    """
    return x * (0.5 * (1.0 + erf(x * math.sqrt(0.5))))


def gelu_tanh_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: d/dx = (1 + T) / 2 + x (1 - T^2) k (1 + 3 c x^2) / 2, T the tanh of the forward formula, k = sqrt(2 / pi)."""
    k = math.sqrt(2.0 / math.pi)
    tanh = array_module(x).tanh(k * (x + 0.044715 * x * x * x))
    return (g * (0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * (k * (1.0 + 3.0 * 0.044715 * x * x))),)


@primitive(vjp=gelu_tanh_vjp)
def gelu_tanh(x: Array) -> Array:
    """Gaussian error linear unit, the tanh approximation.

    Math: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    Source: Hendrycks, Gimpel 2016 (arXiv 1606.08415), section 2
    Traps: gelu-tanh
    """
    tanh = array_module(x).tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))
    return x * (0.5 * (1.0 + tanh))


def quick_gelu_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: d/dx = s (1 + 1.702 x (1 - s)), s = sigmoid(1.702 x)."""
    s = sigmoid(1.702 * x)
    return (g * (s * (1.0 + 1.702 * x * (1.0 - s))),)


@primitive(vjp=quick_gelu_vjp)
def quick_gelu(x: Array) -> Array:
    """Gaussian error linear unit, the sigmoid approximation that CLIP uses.

    Math: x sigmoid(1.702 x)
    Source: Hendrycks, Gimpel 2016 (arXiv 1606.08415), section 2; transformers activations.py, QuickGELUActivation
    Traps: te-gelu-for-quickgelu, te-quickgelu-for-gelu
    """
    return x * sigmoid(1.702 * x)


def geglu_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: with x = [a, b]: da = g gelu(b), db = g a gelu'(b)."""
    a, b = _halves(x)
    (db,) = gelu_vjp(g * a, out, b)
    return (array_module(x).concatenate([g * gelu.spec(b), db], axis=-1),)


@primitive(vjp=geglu_vjp)
def geglu(x: Array) -> Array:
    """Gated linear unit with a GELU gate: the value is the first half, the gate the second.

    Math: [a, b] -> a gelu(b)
    Shapes: [...,2D] -> [...,D]
    Source: Shazeer 2020 (arXiv 2002.05202), equation 6; diffusers activations.py, GEGLU (which half is the gate)
    Traps: geglu-swap, gelu-tanh
    """
    a, b = _halves(x)
    return a * gelu.spec(b)


def _halves(x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]
