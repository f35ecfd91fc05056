"""Every op and its gradient equals torch's, in both kernel modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding

from refdiff import ops
from refdiff.core.primitive import MODES, PRIMITIVES, mode
from tests.models.examples import normal
from tests.parity.upstream import BLOCK_BOUND, tensor


def attention(q, k, v, *, heads, scale, causal):
    """torch's fused attention, head by head."""
    split = [x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*split, scale=scale, is_causal=causal)
    return y.transpose(1, 2).reshape(q.shape)


def conv2d(x, weight, bias, *, stride, padding):
    """torch's convolution of a padded image; its padding is (left, right, top, bottom)."""
    top, bottom, left, right = padding
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride=stride)


def geglu(x):
    """The value, times the GELU of the gate."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


CONV = [(2, 6, 9, 7), (10, 6, 3, 3), (10,)]
NORM = [(2, 12, 5, 7), (12,), (12,)]
TOKENS, LONGER = (2, 9, 12), (2, 13, 12)
# name of the case: (op, torch's, shapes of the arguments, constants)
CASES = {
    "linear": (ops.linear, F.linear, [(2, 9, 12), (20, 12), (20,)], {}),
    "conv2d 3x3": (ops.conv2d, conv2d, CONV, {"stride": 1, "padding": (1, 1, 1, 1)}),
    "conv2d 3x3, stride 2": (ops.conv2d, conv2d, CONV, {"stride": 2, "padding": (1, 1, 1, 1)}),
    "conv2d 3x3, stride 2, one side": (ops.conv2d, conv2d, CONV, {"stride": 2, "padding": (0, 1, 0, 1)}),
    "conv2d 1x1": (ops.conv2d, conv2d, [CONV[0], (10, 6, 1, 1), (10,)], {"stride": 1, "padding": (0, 0, 0, 0)}),
    "group_norm": (
        ops.group_norm,
        lambda x, w, b, *, groups, eps: F.group_norm(x, groups, w, b, eps),
        NORM,
        {"groups": 4, "eps": 1e-5},
    ),
    "group_norm_silu": (
        ops.group_norm_silu,
        lambda x, w, b, *, groups, eps: F.silu(F.group_norm(x, groups, w, b, eps)),
        NORM,
        {"groups": 3, "eps": 1e-6},
    ),
    "layer_norm": (
        ops.layer_norm,
        lambda x, w, b, *, eps: F.layer_norm(x, w.shape, w, b, eps),
        [TOKENS, (12,), (12,)],
        {"eps": 1e-5},
    ),
    "silu": (ops.silu, F.silu, [TOKENS], {}),
    "gelu": (ops.gelu, F.gelu, [TOKENS], {}),
    "gelu_tanh": (ops.gelu_tanh, lambda x: F.gelu(x, approximate="tanh"), [TOKENS], {}),
    "quick_gelu": (ops.quick_gelu, lambda x: x * torch.sigmoid(1.702 * x), [TOKENS], {}),
    "geglu": (ops.geglu, geglu, [TOKENS], {}),
    "softmax": (ops.softmax, lambda x: F.softmax(x, dim=-1), [TOKENS], {}),
    "attention to itself": (
        *(ops.attention, attention, [TOKENS] * 3),
        {"heads": 3, "scale": 0.5, "causal": False},
    ),
    "attention to a text": (
        *(ops.attention, attention, [TOKENS, LONGER, LONGER]),
        {"heads": 2, "scale": 6**-0.5, "causal": False},
    ),
    "causal attention": (*(ops.attention, attention, [TOKENS] * 3), {"heads": 6, "scale": 2**-0.5, "causal": True}),
    **{
        f"upsample_nearest to {height}x{width}": (
            ops.upsample_nearest,
            lambda x, *, height, width: F.interpolate(x, size=(height, width), mode="nearest"),
            [(2, 3, 5, 4)],
            {"height": height, "width": width},
        )
        for height, width in [(10, 8), (9, 7), (13, 4), (15, 9)]
    },
    "upsample_conv2d": (
        ops.upsample_conv2d,
        lambda x, w, b: F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), w, b, padding=1),
        [(2, 3, 5, 4), (6, 3, 3, 3), (6,)],
        {},
    ),
    "add": (ops.add, torch.add, [(2, 3, 1, 5), (3, 4, 1)], {}),
    "subtract": (ops.subtract, torch.sub, [(3, 1), (2, 3, 4)], {}),
    "multiply": (ops.multiply, torch.mul, [(2, 3, 1, 5), (1, 4, 1)], {}),
    "exp": (ops.exp, torch.exp, [TOKENS], {}),
    "square": (ops.square, torch.square, [TOKENS], {}),
    "absolute": (ops.absolute, torch.abs, [TOKENS], {}),
    "clip": (ops.clip, lambda x, *, low, high: torch.clamp(x, low, high), [TOKENS], {"low": -0.5, "high": 1.0}),
    "mean": (ops.mean, torch.mean, [(40,)], {}),
    "reshape": (ops.reshape, lambda x, *, shape: x.reshape(shape), [TOKENS], {"shape": (6, 36)}),
    "transpose": (ops.transpose, lambda x, *, axes: x.permute(axes), [TOKENS], {"axes": (1, 2, 0)}),
}


@pytest.mark.parametrize("dtype", BLOCK_BOUND)
@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name, kernels, dtype, measure):
    op, theirs, shapes, constants = CASES[name]
    args = [normal(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]
    with mode(kernels):
        y = op(*args, **constants)
        v = normal(*np.shape(y), dtype=dtype, seed=99)
        grads = op.vjp(v, y, *args, **constants)
    tensors = [tensor(a).requires_grad_() for a in args]
    want = theirs(*tensors, **constants)
    want.backward(tensor(v))
    label = f"{name}, {np.dtype(dtype).name}, {kernels}"
    measure(label, np.asarray(y), want, BLOCK_BOUND[dtype])
    for i, (grad, t) in enumerate(zip(grads, tensors, strict=True)):
        measure(f"{label}, gradient {i}", grad, t.grad, BLOCK_BOUND[dtype])


@pytest.mark.parametrize("dtype", BLOCK_BOUND)
def test_embedding(dtype, measure):
    table, ids = normal(7, 5, dtype=dtype), np.array([[0, 3, 3], [6, 3, 1]])
    y = ops.embedding(table, ids)
    t = tensor(table).requires_grad_()
    want = F.embedding(tensor(ids), t)
    v = normal(*y.shape, dtype=dtype)
    want.backward(tensor(v))
    label = f"embedding, {np.dtype(dtype).name}, spec"
    measure(label, y, want, BLOCK_BOUND[dtype])
    measure(f"{label}, gradient 0", ops.embedding.vjp(v, y, table, ids)[0], t.grad, BLOCK_BOUND[dtype])


@pytest.mark.parametrize("dtype", BLOCK_BOUND)
def test_concatenate_and_split(dtype, measure):
    parts = [normal(2, n, 4, dtype=dtype, seed=n) for n in (3, 1, 2)]
    y = ops.concatenate(parts, axis=1)
    tensors = [tensor(p).requires_grad_() for p in parts]
    want = torch.cat(tensors, dim=1)
    v = normal(*y.shape, dtype=dtype)
    want.backward(tensor(v))
    label = f"concatenate, {np.dtype(dtype).name}, spec"
    measure(label, y, want, BLOCK_BOUND[dtype])
    for i, (grad, t) in enumerate(zip(ops.concatenate.vjp(v, y, parts, axis=1)[0], tensors, strict=True)):
        measure(f"{label}, gradient {i}", grad, t.grad, BLOCK_BOUND[dtype])
    for got, chunk in zip(ops.split(y, 2, axis=1), want.chunk(2, dim=1), strict=True):
        measure(f"split, {np.dtype(dtype).name}, spec", got, chunk, BLOCK_BOUND[dtype])


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("width", [8, 320])
def test_timestep_embedding(width, shift, flip, measure):
    fractions = np.array([0.5, 123.25, 998.75], dtype=np.float32)
    for kind, t in {"whole": np.arange(0, 1000, 37), "fractional": fractions}.items():
        got = ops.timestep_embedding(t, width=width, flip_sin_to_cos=flip, freq_shift=shift, max_period=10000.0, dtype=np.float32)
        want = get_timestep_embedding(tensor(t), width, flip_sin_to_cos=flip, downscale_freq_shift=shift)
        # torch's exponential may be a unit in the last place off, which a time of 999 makes 6e-5 of a phase.
        measure(f"timestep_embedding, float32, width {width}, shift {shift:.0f}, {kind} times", got, want, 1e-5)


def test_no_op_is_forgotten():
    elsewhere = {"embedding", "concatenate", "piece"}  # the tests above; split is made of pieces
    covered = {case[0].name for case in CASES.values()} | elsewhere
    assert covered == {name for name, op in PRIMITIVES.items() if op.vjp is not None}
