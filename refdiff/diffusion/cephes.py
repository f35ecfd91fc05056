"""float32 logarithm, sine and cosine, rounded as on a processor that computes them with the Cephes polynomials.

torch draws its normals with these on a CPU with AVX2 (in eight lanes, with fused multiply-adds), and "the same seed,
the same image" needs the same last bits.

Source: Moshier, Cephes Mathematical Library, logf.c and sinf.c: the coefficients and the reduction of the argument.
"""

from __future__ import annotations

import numpy as np

F = np.float32
SQRT_HALF = F(0.707106781186547524)
LOG = [F(c) for c in (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)]  # fmt: skip
LN2_LOW, LN2_HIGH = F(-2.12194440e-4), F(0.693359375)
SINE = [F(c) for c in (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)]
COSINE = [F(c) for c in (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)]
# minus pi / 4, in three parts
QUARTER_PI = [F(c) for c in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)]
FOUR_OVER_PI = F(1.27323954473516)


def log(x: np.ndarray) -> np.ndarray:
    """The natural logarithm of positive float32 numbers.

    Math: x = 2^e (1 + m), log x = e ln 2 + m - m^2 / 2 + m^3 P(m)
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < SQRT_HALF
    e = exponent.astype(F) - low.astype(F)
    m = np.where(low, mantissa + mantissa, mantissa) - F(1.0)
    square = m * m
    y = _polynomial(LOG, m) * m
    y = _fused(y, square, e * LN2_LOW)
    y = _fused(square, F(-0.5), y)
    return _fused(e, LN2_HIGH, m + y)


def sine_cosine(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of float32 numbers of moderate size, not negative.

    Math: x = j pi / 4 + r with j even; sin and cos of r by polynomials, exchanged and signed by j
    """
    j = ((x * FOUR_OVER_PI).astype(np.int32) + 1) & ~1
    r = x
    for part in QUARTER_PI:
        r = _fused(j.astype(F), part, r)
    square = r * r
    cosine = _fused(_polynomial(COSINE, square) * square, square, F(-0.5) * square) + F(1.0)
    sine = _fused(_polynomial(SINE, square) * square, r, r)
    quadrant = (j >> 1) & 3
    odd = quadrant % 2 == 1
    sine_sign = np.where(quadrant >= 2, F(-1.0), F(1.0))
    cosine_sign = np.where((quadrant == 1) | (quadrant == 2), F(-1.0), F(1.0))
    return np.where(odd, cosine, sine) * sine_sign, np.where(odd, sine, cosine) * cosine_sign


def _polynomial(coefficients: list[np.float32], x: np.ndarray) -> np.ndarray:
    y = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y = _fused(y, x, c)
    return y


def _fused(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """a b + c with one rounding: the product is exact in float64, the first rounding of the sum too fine to show."""
    return (a.astype(np.float64) * np.asarray(b, dtype=np.float64) + np.asarray(c, dtype=np.float64)).astype(F)
