"""Sums, products, reductions and rearrangements: what the models write with `+`, `*`, `.reshape` and `.transpose`.

On plain arrays those operators are the array module's own; on recorded variables they are the primitives below. Large sums of
equals are written with `add`, which has a kernel.
"""

from __future__ import annotations

from typing import Any

from refdiff.core.primitive import primitive
from refdiff.core.tape import bind_operators
from refdiff.xp import Array, array_module


def unbroadcast(g: Array, x: Any) -> Array | None:
    """Sum `g` over the axes along which `x` was stretched, so that it has the shape of `x`; None for a Python number."""
    if not hasattr(x, "shape"):
        return None
    extra = g.ndim - x.ndim
    axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(x.shape) if n == 1 and g.shape[i + extra] != 1)
    return g.sum(axis=axes).reshape(x.shape) if axes else g


def add_vjp(g: Array, out: Array, a: Array, b: Array) -> tuple:
    """Math: da = g, db = g."""
    return unbroadcast(g, a), unbroadcast(g, b)


@primitive(vjp=add_vjp)
def add(a: Array, b: Array) -> Array:
    """a + b, with broadcasting."""
    return a + b


def subtract_vjp(g: Array, out: Array, a: Array, b: Array) -> tuple:
    """Math: da = g, db = -g."""
    return unbroadcast(g, a), unbroadcast(-g, b)


@primitive(vjp=subtract_vjp)
def subtract(a: Array, b: Array) -> Array:
    """a - b, with broadcasting."""
    return a - b


def multiply_vjp(g: Array, out: Array, a: Array, b: Array) -> tuple:
    """Math: da = g b, db = g a."""
    return unbroadcast(g * b, a), unbroadcast(g * a, b)


@primitive(vjp=multiply_vjp)
def multiply(a: Array, b: Array) -> Array:
    """a b, element by element, with broadcasting."""
    return a * b


def exp_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: dx = g e^x."""
    return (g * out,)


@primitive(vjp=exp_vjp)
def exp(x: Array) -> Array:
    """e^x, element by element."""
    return array_module(x).exp(x)


def square_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: dx = 2 g x."""
    return (2.0 * g * x,)


@primitive(vjp=square_vjp)
def square(x: Array) -> Array:
    """x^2, element by element."""
    return x * x


def absolute_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: dx = g sign(x), and 0 at 0."""
    return (g * array_module(x).sign(x),)


@primitive(vjp=absolute_vjp)
def absolute(x: Array) -> Array:
    """|x|, element by element."""
    return array_module(x).abs(x)


def clip_vjp(g: Array, out: Array, x: Array, *, low: float, high: float) -> tuple:
    """Math: dx = g inside [low, high], 0 outside."""
    return (g * ((x >= low) & (x <= high)),)


@primitive(vjp=clip_vjp)
def clip(x: Array, *, low: float, high: float) -> Array:
    """x limited to [low, high], element by element."""
    return array_module(x).clip(x, low, high)


def mean_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: dx = g / n everywhere."""
    return (array_module(x).broadcast_to(g / x.size, x.shape),)


@primitive(vjp=mean_vjp)
def mean(x: Array) -> Array:
    """The mean of all elements.  Shapes: any -> []."""
    return x.mean()


def reshape_vjp(g: Array, out: Array, x: Array, *, shape: tuple[int, ...]) -> tuple:
    """The gradient in the argument's shape."""
    return (g.reshape(x.shape),)


@primitive(vjp=reshape_vjp)
def reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    """The same elements in another shape."""
    return x.reshape(shape)


def transpose_vjp(g: Array, out: Array, x: Array, *, axes: tuple[int, ...]) -> tuple:
    """The gradient with its axes moved back."""
    return (g.transpose(tuple(sorted(range(len(axes)), key=axes.__getitem__))),)


@primitive(vjp=transpose_vjp)
def transpose(x: Array, *, axes: tuple[int, ...]) -> Array:
    """The same elements with the axes in another order."""
    return x.transpose(axes)


def concatenate_vjp(g: Array, out: Array, parts: list[Array], *, axis: int) -> tuple:
    """Each part's piece of the gradient."""
    pieces, start = [], 0
    for part in parts:
        stop = start + part.shape[axis]
        pieces.append(g[_window(g.ndim, axis, start, stop)])
        start = stop
    return (pieces,)


@primitive(vjp=concatenate_vjp)
def concatenate(parts: list[Array], *, axis: int) -> Array:
    """The parts one after the other along an axis.  Traps: skip-add"""
    return array_module(parts[0]).concatenate(parts, axis=axis)


def piece_vjp(g: Array, out: Array, x: Array, *, axis: int, start: int, stop: int) -> tuple:
    """The gradient inside the piece, zero outside."""
    before, after = [(0, 0)] * x.ndim, [(0, 0)] * x.ndim
    before[axis], after[axis] = (start, 0), (0, x.shape[axis] - stop)
    widths = [(b[0], a[1]) for b, a in zip(before, after, strict=True)]
    return (array_module(g).pad(g, widths),)


@primitive(vjp=piece_vjp)
def piece(x: Array, *, axis: int, start: int, stop: int) -> Array:
    """The elements from `start` to `stop` along an axis."""
    return x[_window(x.ndim, axis, start, stop)]


def split(x: Array, parts: int, *, axis: int) -> list[Array]:
    """Equal parts along an axis, in order."""
    axis = axis % len(x.shape)
    size = x.shape[axis] // parts
    return [piece(x, axis=axis, start=i * size, stop=(i + 1) * size) for i in range(parts)]


def crop(x: Array, *, height: int, width: int) -> Array:
    """The upper left part.  Shapes: [B,C,H,W] -> [B,C,height,width]"""
    return piece(piece(x, axis=2, start=0, stop=height), axis=3, start=0, stop=width)


def _window(ndim: int, axis: int, start: int, stop: int) -> tuple[slice, ...]:
    window = [slice(None)] * ndim
    window[axis] = slice(start, stop)
    return tuple(window)


# What the operators and methods of recorded variables mean.
bind_operators(
    {
        "__add__": add,
        "__radd__": lambda self, other: add(other, self),
        "__sub__": subtract,
        "__rsub__": lambda self, other: subtract(other, self),
        "__mul__": multiply,
        "__rmul__": lambda self, other: multiply(other, self),
        "__truediv__": lambda self, number: multiply(self, 1.0 / number),
        "__neg__": lambda self: multiply(self, -1.0),
        "mean": mean,
        "reshape": lambda self, *shape: reshape(self, shape=shape),
        "transpose": lambda self, *axes: transpose(self, axes=axes),
    }
)
