"""The specification of every layer: one concept a file, each op with its gradient rule right under it.

Legend of shapes: B batch, C channels, H height, W width, T tokens, S tokens attended to, D width, N heads, G groups.
Every op takes plain arrays of any strides in float32 or float64 and returns a new array; none writes into an argument.
A gradient rule `op_vjp(g, out, *args, **constants)` returns one gradient an argument, None where there is none.
"""

from refdiff.ops.activation import geglu, gelu, gelu_tanh, quick_gelu, silu
from refdiff.ops.arithmetic import (
    absolute,
    add,
    clip,
    concatenate,
    crop,
    exp,
    mean,
    multiply,
    reshape,
    split,
    square,
    subtract,
    transpose,
)
from refdiff.ops.attention import attention, softmax
from refdiff.ops.conv import conv2d
from refdiff.ops.embedding import embedding, timestep_embedding
from refdiff.ops.linear import linear
from refdiff.ops.norm import group_norm, group_norm_silu, layer_norm
from refdiff.ops.resample import upsample_conv2d, upsample_nearest

__all__ = [
    "absolute", "add", "attention", "clip", "concatenate", "conv2d", "crop", "embedding", "exp", "geglu", "gelu", "gelu_tanh",
    "group_norm", "group_norm_silu", "layer_norm", "linear", "mean", "multiply", "quick_gelu", "reshape", "silu", "softmax",
    "split", "square", "subtract", "timestep_embedding", "transpose", "upsample_conv2d",
    "upsample_nearest",
]  # fmt: skip
