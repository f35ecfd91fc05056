"""For every op with a gradient: how its calls are generated, and its witness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.ops import witness
from tests.ops.arrays import reals, shapes

small = st.integers(1, 4)


@dataclass(frozen=True)
class Call:
    """The arguments of one call."""

    args: tuple
    constants: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A strategy of calls for a dtype, and the naive loop that must agree."""

    calls: Callable[[type], st.SearchStrategy[Call]]
    witness: Callable


@st.composite
def linear_calls(draw, dtype):
    lead, inner, outer = draw(shapes(1, 3)), draw(small), draw(small)
    bias = draw(reals((outer,), dtype)) if draw(st.booleans()) else None
    return Call((draw(reals((*lead, inner), dtype)), draw(reals((outer, inner), dtype)), bias))


@st.composite
def conv2d_calls(draw, dtype):
    kernel, stride = draw(st.sampled_from([(1, 1), (3, 1), (3, 2), (1, 2), (2, 1), (2, 2)]))
    padding = draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1), (1, 0, 0, 2), (2, 1, 0, 0)]))
    top, bottom, left, right = padding
    height = draw(st.integers(max(1, kernel - top - bottom), 6))
    width = draw(st.integers(max(1, kernel - left - right), 6))
    batch, inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = draw(reals((batch, inputs, height, width), dtype))
    weight = draw(reals((outputs, inputs, kernel, kernel), dtype))
    return Call((x, weight, draw(reals((outputs,), dtype))), {"stride": stride, "padding": padding})


@st.composite
def group_norm_calls(draw, dtype):
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, spread = groups * per_group, draw(st.sampled_from([1.0, 0.01, 30.0]))
    x = draw(reals((draw(st.integers(1, 2)), channels, draw(st.integers(2, 4)), draw(st.integers(2, 4))), dtype, spread))
    weight, bias = draw(reals((channels,), dtype)), draw(reals((channels,), dtype))
    return Call((x, weight, bias), {"groups": groups, "eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2]))})


@st.composite
def layer_norm_calls(draw, dtype):
    width, spread = draw(st.integers(4, 9)), draw(st.sampled_from([1.0, 0.01, 30.0]))
    x = draw(reals((*draw(shapes(1, 3)), width), dtype, spread))
    weight, bias = draw(reals((width,), dtype)), draw(reals((width,), dtype))
    return Call((x, weight, bias), {"eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2]))})


@st.composite
def elementwise_calls(draw, dtype):
    return Call((draw(reals(draw(shapes(1, 4)), dtype, draw(st.sampled_from([1.0, 4.0])))),))


@st.composite
def geglu_calls(draw, dtype):
    return Call((draw(reals((*draw(shapes(1, 3)), 2 * draw(small)), dtype)),))


@st.composite
def attention_calls(draw, dtype):
    heads, size = draw(st.integers(1, 3)), draw(small)
    batch, targets, width = draw(st.integers(1, 2)), draw(small), heads * size
    causal = draw(st.booleans())
    sources = targets if causal or draw(st.booleans()) else draw(small)
    q = draw(reals((batch, targets, width), dtype))
    k, v = draw(reals((batch, sources, width), dtype)), draw(reals((batch, sources, width), dtype))
    return Call((q, k, v), {"heads": heads, "scale": draw(st.sampled_from([1.0, size**-0.5, 0.3])), "causal": causal})


@st.composite
def upsample_calls(draw, dtype):
    x = draw(reals(draw(shapes(4, 4)), dtype))
    factor = draw(st.sampled_from(["twice", "free"]))
    height, width = (2 * x.shape[2], 2 * x.shape[3]) if factor == "twice" else (draw(small) + 3, draw(small) + 3)
    return Call((x,), {"height": height, "width": width})


@st.composite
def upsample_conv2d_calls(draw, dtype):
    batch, inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = draw(reals((batch, inputs, draw(st.integers(1, 4)), draw(st.integers(1, 4))), dtype))
    return Call((x, draw(reals((outputs, inputs, 3, 3), dtype)), draw(reals((outputs,), dtype))), {})


@st.composite
def embedding_calls(draw, dtype):
    rows, shape = draw(st.integers(1, 6)), draw(shapes(1, 2))
    kind = draw(st.sampled_from([np.int32, np.int64]))
    ids = np.random.default_rng(draw(st.integers(0, 2**20))).integers(0, rows, shape).astype(kind)
    ids.flags.writeable = False
    return Call((draw(reals((rows, draw(small)), dtype)), ids))


@st.composite
def pair_calls(draw, dtype):
    """Two shapes that broadcast: some axes of either are 1, some leading axes are missing."""
    whole = draw(shapes(1, 4))
    cut = [draw(st.integers(0, len(whole) - 1)), 0]
    if draw(st.booleans()):
        cut = cut[::-1]
    ones = [[draw(st.booleans()) for _ in whole] for _ in range(2)]
    sizes = [tuple(1 if one else n for one, n in zip(mask, whole, strict=True))[c:] for mask, c in zip(ones, cut, strict=True)]
    return Call(tuple(draw(reals(size, dtype)) for size in sizes))


@st.composite
def clip_calls(draw, dtype):
    return Call((draw(reals(draw(shapes(1, 3)), dtype)),), {"low": -0.75, "high": draw(st.sampled_from([0.25, 1.5]))})


@st.composite
def reshape_calls(draw, dtype):
    a, b, c = draw(small), draw(small), draw(small)
    shape = draw(st.sampled_from([(a * b, c), (a, b * c), (c, b, a), (a * b * c,), (1, a, 1, b, c)]))
    return Call((draw(reals((a, b, c), dtype)),), {"shape": shape})


@st.composite
def transpose_calls(draw, dtype):
    x = draw(reals(draw(shapes(1, 4)), dtype))
    return Call((x,), {"axes": tuple(draw(st.permutations(range(x.ndim))))})


@st.composite
def concatenate_calls(draw, dtype):
    shape = draw(shapes(1, 4))
    axis = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(small, min_size=1, max_size=3))
    parts = [draw(reals((*shape[:axis], n, *shape[axis + 1 :]), dtype)) for n in lengths]
    return Call((parts,), {"axis": axis})


@st.composite
def piece_calls(draw, dtype):
    x = draw(reals(draw(shapes(1, 4)), dtype))
    axis = draw(st.integers(0, x.ndim - 1))
    start = draw(st.integers(0, x.shape[axis] - 1))
    return Call((x,), {"axis": axis, "start": start, "stop": draw(st.integers(start + 1, x.shape[axis]))})


CASES = {
    "absolute": Case(elementwise_calls, witness.absolute),
    "add": Case(pair_calls, witness.add),
    "attention": Case(attention_calls, witness.attention),
    "clip": Case(clip_calls, witness.clip),
    "concatenate": Case(concatenate_calls, witness.concatenate),
    "conv2d": Case(conv2d_calls, witness.conv2d),
    "embedding": Case(embedding_calls, witness.embedding),
    "exp": Case(elementwise_calls, witness.exp),
    "geglu": Case(geglu_calls, witness.geglu),
    "gelu": Case(elementwise_calls, witness.gelu),
    "gelu_tanh": Case(elementwise_calls, witness.gelu_tanh),
    "group_norm": Case(group_norm_calls, witness.group_norm),
    "group_norm_silu": Case(group_norm_calls, witness.group_norm_silu),
    "layer_norm": Case(layer_norm_calls, witness.layer_norm),
    "linear": Case(linear_calls, witness.linear),
    "mean": Case(elementwise_calls, witness.mean),
    "multiply": Case(pair_calls, witness.multiply),
    "piece": Case(piece_calls, witness.piece),
    "quick_gelu": Case(elementwise_calls, witness.quick_gelu),
    "reshape": Case(reshape_calls, witness.reshape),
    "silu": Case(elementwise_calls, witness.silu),
    "softmax": Case(elementwise_calls, witness.softmax),
    "square": Case(elementwise_calls, witness.square),
    "subtract": Case(pair_calls, witness.subtract),
    "transpose": Case(transpose_calls, witness.transpose),
    "upsample_conv2d": Case(upsample_conv2d_calls, witness.upsample_conv2d),
    "upsample_nearest": Case(upsample_calls, witness.upsample_nearest),
}
