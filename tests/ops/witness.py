"""The second witness of every op: the equation of the paper, one number at a time, in float64.

Nothing here may import refdiff or call an array function that computes: only Python's arithmetic and `math`.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np


def linear(x, weight, bias):
    """y_o = sum_i W_oi x_i + b_o, for every row of x."""
    y = np.empty((*x.shape[:-1], weight.shape[0]))
    for row in np.ndindex(x.shape[:-1]):
        for o in range(weight.shape[0]):
            terms = [float(weight[o, i]) * float(x[(*row, i)]) for i in range(weight.shape[1])]
            y[(*row, o)] = math.fsum(terms) + (0.0 if bias is None else float(bias[o]))
    return y


def conv2d(x, weight, bias, *, stride, padding):
    """Goodfellow, Bengio, Courville 2016, equation 9.6 (cross-correlation) and section 9.5 (stride, zero padding)."""
    top, bottom, left, right = padding
    (batch, _, rows, columns), (outputs, inputs, tall, wide) = x.shape, weight.shape
    y = np.empty((batch, outputs, (rows + top + bottom - tall) // stride + 1, (columns + left + right - wide) // stride + 1))
    for b, o, h, w in np.ndindex(y.shape):
        total = float(bias[o])
        for c, i, j in itertools.product(range(inputs), range(tall), range(wide)):
            row, column = h * stride + i - top, w * stride + j - left
            if 0 <= row < rows and 0 <= column < columns:
                total += float(weight[o, c, i, j]) * float(x[b, c, row, column])
        y[b, o, h, w] = total
    return y


def group_norm(x, weight, bias, *, groups, eps):
    """Wu, He 2018, equations 1, 2, 3, 6, 7: S_i: the k of one image with floor(k_C / (C/G)) = floor(i_C / (C/G))."""
    y = np.empty(x.shape)
    size = x.shape[1] // groups
    for b, g in itertools.product(range(x.shape[0]), range(groups)):
        members = [i for i in np.ndindex(x.shape) if i[0] == b and i[1] // size == g]
        mean, deviation = _moments([float(x[i]) for i in members], eps)
        for i in members:
            y[i] = float(weight[i[1]]) * (float(x[i]) - mean) / deviation + float(bias[i[1]])
    return y


def layer_norm(x, weight, bias, *, eps):
    """Ba, Kiros, Hinton 2016, equations 3 and 4: the moments of the H units of one layer, for one case."""
    y = np.empty(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        mean, deviation = _moments([float(v) for v in x[row]], eps)
        for i in range(x.shape[-1]):
            y[(*row, i)] = float(weight[i]) / deviation * (float(x[(*row, i)]) - mean) + float(bias[i])
    return y


def _moments(values, eps):
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values) + eps)


def silu(x):
    """Elfwing, Uchibe, Doya 2017, equation 3: z sigma(z)."""
    return _each(lambda z: z / (1.0 + math.exp(-z)), x)


def gelu(x):
    """Hendrycks, Gimpel 2016: x P(X <= x), X standard normal."""
    return _each(_gelu, x)


def _gelu(z):
    return z * 0.5 * math.erfc(-z / math.sqrt(2.0))


def gelu_tanh(x):
    """Hendrycks, Gimpel 2016: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return _each(lambda z: 0.5 * z * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3))), x)


def quick_gelu(x):
    """Hendrycks, Gimpel 2016: x sigma(1.702 x)."""
    return _each(lambda z: z / (1.0 + math.exp(-1.702 * z)), x)


def geglu(x):
    """Shazeer 2020, equation 6; the value stands first and the gate second."""
    half = x.shape[-1] // 2
    y = np.empty((*x.shape[:-1], half))
    for row in np.ndindex(x.shape[:-1]):
        for i in range(half):
            y[(*row, i)] = float(x[(*row, i)]) * _gelu(float(x[(*row, half + i)]))
    return y


def group_norm_silu(x, weight, bias, *, groups, eps):
    """The one after the other."""
    return silu(group_norm(x, weight, bias, groups=groups, eps=eps))


def softmax(x):
    """Bridle 1990: e^(x_i) / sum_j e^(x_j)."""
    y = np.empty(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        y[row] = _softmax([float(v) for v in x[row]])
    return y


def _softmax(scores):
    exponentials = [math.exp(s) for s in scores]
    total = math.fsum(exponentials)
    return [e / total for e in exponentials]


def attention(q, k, v, *, heads, scale, causal):
    """Vaswani et al. 2017, equation 1 for each head; section 3.2.3 for what a causal query may see."""
    (batch, targets, width), sources = q.shape, k.shape[1]
    size = width // heads
    y = np.empty(q.shape)
    for b, n, t in itertools.product(range(batch), range(heads), range(targets)):
        features = range(n * size, (n + 1) * size)
        seen = [s for s in range(sources) if not causal or s <= t]
        p = _softmax([scale * math.fsum(float(q[b, t, i]) * float(k[b, s, i]) for i in features) for s in seen])
        for i in features:
            y[b, t, i] = math.fsum(p_s * float(v[b, s, i]) for p_s, s in zip(p, seen, strict=True))
    return y


def upsample_nearest(x, *, height, width):
    """The pixel of the input in which the upper left corner of the output pixel falls."""
    y = np.empty((*x.shape[:2], height, width))
    for b, c, h, w in np.ndindex(y.shape):
        row, column = math.floor(Fraction(h * x.shape[2], height)), math.floor(Fraction(w * x.shape[3], width))
        y[b, c, h, w] = float(x[b, c, row, column])
    return y


def upsample_conv2d(x, weight, bias):
    """The one after the other."""
    doubled = upsample_nearest(x, height=2 * x.shape[2], width=2 * x.shape[3])
    return conv2d(doubled, weight, bias, stride=1, padding=(1, 1, 1, 1))


def embedding(table, ids):
    """The row of each id."""
    y = np.empty((*ids.shape, table.shape[1]))
    for place in np.ndindex(ids.shape):
        for i in range(table.shape[1]):
            y[(*place, i)] = float(table[int(ids[place]), i])
    return y


def timestep_embedding(t, *, width, flip_sin_to_cos, freq_shift, max_period):
    """Vaswani et al. 2017, section 3.5, with the sines in one half and the cosines in the other."""
    half = width // 2
    y = np.empty((t.shape[0], width))
    for b, i in itertools.product(range(t.shape[0]), range(half)):
        angle = float(t[b]) / max_period ** (i / (half - freq_shift))
        sine, cosine = (half + i, i) if flip_sin_to_cos else (i, half + i)
        y[b, sine], y[b, cosine] = math.sin(angle), math.cos(angle)
    return y


def add(a, b):
    """a + b."""
    return _pairs(lambda p, q: p + q, a, b)


def subtract(a, b):
    """a - b."""
    return _pairs(lambda p, q: p - q, a, b)


def multiply(a, b):
    """a b."""
    return _pairs(lambda p, q: p * q, a, b)


def exp(x):
    """e^x."""
    return _each(math.exp, x)


def square(x):
    """x^2."""
    return _each(lambda z: z * z, x)


def absolute(x):
    """|x|."""
    return _each(lambda z: z if z >= 0 else -z, x)


def clip(x, *, low, high):
    """x, or the nearer end of [low, high]."""
    return _each(lambda z: low if z < low else high if z > high else z, x)


def mean(x):
    """The sum divided by the number of elements."""
    return np.array(math.fsum(float(x[i]) for i in np.ndindex(x.shape)) / math.prod(x.shape))


def reshape(x, *, shape):
    """The elements in the order of their indices, the last index fastest."""
    y = np.empty(shape)
    for target, source in zip(np.ndindex(y.shape), np.ndindex(x.shape), strict=True):
        y[target] = x[source]
    return y


def transpose(x, *, axes):
    """y[i] = x[j] with i_a = j_axes[a]."""
    y = np.empty([x.shape[a] for a in axes])
    for j in np.ndindex(x.shape):
        y[tuple(j[a] for a in axes)] = x[j]
    return y


def concatenate(parts, *, axis):
    """Walk along the axis: the first part's elements, then the second's."""
    where = [(n, i) for n, part in enumerate(parts) for i in range(part.shape[axis])]
    shape = [len(where) if a == axis % parts[0].ndim else size for a, size in enumerate(parts[0].shape)]
    y = np.empty(shape)
    for index in np.ndindex(y.shape):
        source = list(index)
        n, source[axis] = where[index[axis]]
        y[index] = parts[n][tuple(source)]
    return y


def piece(x, *, axis, start, stop):
    """y[.., i, ..] = x[.., start + i, ..]."""
    y = np.empty([stop - start if a == axis else size for a, size in enumerate(x.shape)])
    for index in np.ndindex(y.shape):
        y[index] = x[tuple(i + start if a == axis else i for a, i in enumerate(index))]
    return y


def _each(f, x):
    y = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        y[i] = f(float(x[i]))
    return y


def _pairs(f, a, b):
    """Broadcasting: axes are matched from the right, and an axis of size 1 (or none) repeats."""
    rank = max(a.ndim, b.ndim)
    sizes = [[1] * (rank - m.ndim) + list(m.shape) for m in (a, b)]
    y = np.empty([q if p == 1 else p for p, q in zip(*sizes, strict=True)])
    for i in np.ndindex(y.shape):
        places = (tuple(0 if n == 1 else k for k, n in zip(i[rank - m.ndim :], m.shape, strict=True)) for m in (a, b))
        y[i] = f(*(float(m[place]) for m, place in zip((a, b), places, strict=True)))
    return y
