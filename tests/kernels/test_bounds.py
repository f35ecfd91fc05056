"""Kernels take addresses, so nothing stops them at the end of an array: here every array ends where no memory is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Run in a process of its own, since a read beyond an end is its end. Memory that nobody wrote is NaN.
GUARDED = """
import ctypes, mmap, sys
import numpy as np
from refdiff import ops
from refdiff.checkpoints.tensor_file import narrow_bfloat16, widen_bfloat16
from refdiff.core import primitive
from refdiff.kernels.cpu import (
    attention, attention_blocks, blocks, common, conv, gradient, halves, linear, panels, product, repeats, strassen, winograd,
    winograd_gradient,
)

libc, page, kept = ctypes.CDLL(None), mmap.PAGESIZE, []

def guarded(count):
    whole = max(-(-4 * count // page), 1) * page
    memory = mmap.mmap(-1, whole + page)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(start + whole), ctypes.c_size_t(page), 0) == 0
    x = np.frombuffer(memory, np.float32, count, whole - 4 * count)
    x[:] = np.nan
    return x

def array(*shape):
    x = guarded(int(np.prod(shape))).reshape(shape)
    x[...] = rng.standard_normal(shape)
    return x

def result(*shape):
    return guarded(int(np.prod(shape))).reshape(shape)

for module in (
    attention, attention_blocks, blocks, conv, gradient, halves, linear, product, repeats, strassen, winograd, winograd_gradient,
    common,
):
    for name, instead in (("scratch", lambda name, size: guarded(size)), ("result", result), ("room", result)):
        if hasattr(module, name):
            setattr(module, name, instead)

def kept_as(dtype, weight):
    if dtype == np.float32:
        return weight, weight
    numbers = narrow_bfloat16(weight) if dtype == halves.BFLOAT16 else weight.astype(dtype)
    stored = guarded(weight.size // 2).view(dtype).reshape(weight.shape)
    stored[...] = numbers
    return stored, widen_bfloat16(numbers) if dtype == halves.BFLOAT16 else numbers

def check(got, want, bound):
    assert np.abs(got - want).max() <= bound * max(np.abs(want).max(), 1), (np.abs(got - want).max(), got.shape)

def exact(*arrays):
    return [a.astype(np.float64) for a in arrays]

rng = np.random.default_rng(0)
halves.MULTIPLIES, common.SMALL, common.THREADS = True, 0, int(sys.argv[2])
near = 1e-5 if sys.argv[1] == "float32" else 3e-2
blocks.MATRIX_UNIT = sys.argv[3] == "blocks"
in_blocks, made = set(), blocks.product

def seen(a, rows, starts, weight, *rest, **options):
    in_blocks.add(weight.flat.dtype)
    return made(a, rows, starts, weight, *rest, **options)

blocks.product = seen
with primitive.mode("fast", sys.argv[1]):
    for rows, depth, columns in (
        (1, 1, 1), (1, 2, 1), (7, 2, 33), (13, 770, 33), (9, 1, 40), (5, 771, 64), (25, 48, 31), (97, 6, 97),
        (70, 64, 45), (33, 672, 200),
    ):
        x, weight, bias = array(rows, depth), array(columns, depth), array(columns)
        check(linear.linear(x, weight, bias), ops.linear.spec(*exact(x, weight, bias)), near)
        for dtype in halves.KINDS if blocks.fits(depth) else ():
            stored, same = kept_as(dtype, weight)
            check(linear.linear(x[None], stored, bias), ops.linear.spec(*exact(x[None], same, bias)), near)
    read = {halves.readable(np.zeros(0, kind)).dtype for kind in halves.KINDS}
    assert in_blocks == (read if blocks.MATRIX_UNIT else set())
    from refdiff.kernels.cpu.tile import SHORT
    strassen.LEAST_ROWS = strassen.LEAST_DEPTH = 1
    group, pair, vector = 2 * panels.ROWS, 2 * panels.COLUMNS, 2 * panels.LANES
    for pictures, rows, depth, columns in (
        (1, group, vector, pair), (3, 2 * group, 3 * vector, 2 * pair), (2, 6 * group, strassen.DEEPEST + vector, pair),
        (2, group + 4 * SHORT, 2 * vector, 3 * pair), (1, 2 * SHORT, vector, pair),
    ):
        x, weight, bias = array(pictures, rows, depth), array(columns, depth), array(columns)
        check(linear.linear(x, weight, bias), ops.linear.spec(*exact(x, weight, bias)), near)
        strassen.LARGE = 0 if strassen.LARGE else 1 << 23
    x = array(2, group, depth)
    x[1:] = x[:1]
    y = linear.KERNELS["linear"](x, weight, bias)
    np.testing.assert_array_equal(y, linear.linear(x, weight, bias))
    for shape, weight, stride in (
        ((2, 5, 7, 9), (3, 5, 3, 3), 1), ((2, 6, 7, 9), (33, 6, 3, 3), 2), ((1, 2, 8, 8), (4, 2, 4, 4), 3),
        ((1, 10, 5, 6), (40, 10, 1, 1), 1), ((1, 48, 33, 30), (35, 48, 3, 3), 1), ((2, 512, 9, 8), (64, 512, 3, 3), 1),
        ((1, 66, 48, 46), (64, 66, 3, 3), 1), ((1, 40, 48, 52), (32, 40, 3, 3), 1),
        ((2, 32, 7, 9), (33, 32, 3, 3), 2),
    ):
        x, weight, bias = array(*shape), array(*weight), array(weight[0])
        constants = {"stride": stride, "padding": (1, 1, 1, 1)}
        y = conv.conv2d(x, weight, bias, **constants)
        check(y, ops.conv2d.spec(*exact(x, weight, bias), **constants), near)
        g = array(*y.shape)
        want = ops.conv2d.vjp.spec(*exact(g, y, x, weight, bias), **constants)
        for got, right in zip(conv.conv2d_vjp(g, y, x, weight, bias, **constants), want):
            check(got, right, 1e-5)
    x, weight, bias = array(1, 64, 33, 32), array(64, 64, 3, 3), array(64)
    want = ops.upsample_conv2d.spec(*exact(x, weight, bias))
    check(conv.upsample_conv2d(x, weight, bias), want, max(near, 2e-5) if blocks.MATRIX_UNIT else 2e-5)
    for queries, keys, depth, heads in (
        (1, 1, 2, 1), (3, 1, 1, 3), (5, 1, 13, 2), (300, 3, 26, 2), (257, 239, 8, 1), (300, 241, 14, 1), (11, 481, 40, 2),
        (33, 28, 28, 1), (33, 720, 20, 2),
    ):
        for causal in (False, True):
            q, k, v = array(2, queries, depth * heads), array(2, keys, depth * heads), array(2, keys, depth * heads)
            constants = {"heads": heads, "scale": depth**-0.5, "causal": causal}
            check(attention.attention(q, k, v, **constants), ops.attention.spec(*exact(q, k, v), **constants), near)
"""


@pytest.mark.parametrize(
    ("products", "form"), [(products, form) for products in ("float32", "bfloat16") for form in ("tiles", "blocks")]
)
@pytest.mark.parametrize("threads", [1, 3, 64])
def test_nothing_beyond_an_end_is_read_or_written_and_nothing_unwritten_is_used(products, form, threads):
    run = subprocess.run(
        [sys.executable, "-c", GUARDED, products, str(threads), form], env=os.environ, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


# Memory that was given back too soon is found by those who were given it next, where many threads share an allocator.
CROWD = """
import sys
import numpy as np
from refdiff.core import primitive
from refdiff.kernels.cpu import attention, blocks, common, conv, linear, norm

rng = np.random.default_rng(0)
common.SMALL, blocks.MATRIX_UNIT = 0, sys.argv[2] == "blocks"
x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((2, 512, 9, 8), (64, 512, 3, 3), (64,)))
g, q = rng.standard_normal((2, 64, 9, 8)).astype(np.float32), rng.standard_normal((2, 300, 80)).astype(np.float32)
same, heads = {"stride": 1, "padding": (1, 1, 1, 1)}, {"heads": 2, "scale": 0.1, "causal": True}

def everything():
    y = conv.conv2d(x, weight, bias, **same)
    matrix, ones = weight.reshape(64, -1)[:, :80].copy(), np.ones(512, np.float32)
    others = norm.group_norm_silu(x, ones, ones, groups=32, eps=1e-5), linear.linear(q, matrix, bias)
    # More panels than blocks of rows, and what an earlier call left in memory is not what is waited for.
    tokens = x.reshape(-1, 96), -x.reshape(-1, 96), x.reshape(1, -1, 96), -x.reshape(1, -1, 96)
    wide = [linear.linear(rows, weight.reshape(-1, 96), None) for rows in tokens]
    return *wide, y, *conv.conv2d_vjp(g, y, x, weight, bias, **same), attention.attention(q, q, q, **heads), *others

with primitive.mode("fast", sys.argv[1]):
    common.set_threads(1)
    want = everything()
    common.set_threads(64)
    for _ in range(150):
        for got, right in zip(everything(), want):
            np.testing.assert_array_equal(got, right)
"""


@pytest.mark.parametrize(
    ("products", "form"), [(products, form) for products in ("float32", "bfloat16") for form in ("tiles", "blocks")]
)
def test_many_threads_give_the_bits_of_one_again_and_again(products, form):
    run = subprocess.run(
        [sys.executable, "-c", CROWD, products, form], env=os.environ, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
