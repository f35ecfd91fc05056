"""The parameters of single layers, and the calls that read them."""

from __future__ import annotations

from refdiff.core.params import Declaration, Leaf, Params
from refdiff.core.tap import tap
from refdiff.ops import conv2d, linear, upsample_conv2d
from refdiff.xp import Array


def linear_params(width_in: int, width_out: int, *, bias: bool) -> Declaration:
    """An affine map: weight [out,in], and bias [out] if there is one."""
    weight = {"weight": Leaf((width_out, width_in), "weight")}
    return {**weight, "bias": Leaf((width_out,), "bias")} if bias else weight


def conv_params(channels_in: int, channels_out: int, *, kernel: int) -> Declaration:
    """A convolution: weight [out,in,kernel,kernel] and bias [out]."""
    return {
        "weight": Leaf((channels_out, channels_in, kernel, kernel), "weight"),
        "bias": Leaf((channels_out,), "bias"),
    }


def norm_params(width: int) -> Declaration:
    """A normalisation: a gain and an offset for each channel."""
    return {"weight": Leaf((width,), "gain"), "bias": Leaf((width,), "offset")}


def affine(p: Params, x: Array) -> Array:
    """linear with the parameters of `p`; without a bias if there is none.  Shapes: [...,D] -> [...,D']"""
    return tap(p.path, linear(x, p.weight, p.bias if "bias" in p else None))


def conv1x1(p: Params, x: Array) -> Array:
    """A linear map of the channels of each pixel.  Shapes: [B,C,H,W] -> [B,C',H,W]"""
    return tap(p.path, conv2d(x, p.weight, p.bias, stride=1, padding=(0, 0, 0, 0)))


def conv3x3(p: Params, x: Array) -> Array:
    """A 3x3 convolution that keeps the size.  Shapes: [B,C,H,W] -> [B,C',H,W]"""
    return tap(p.path, conv2d(x, p.weight, p.bias, stride=1, padding=(1, 1, 1, 1)))


def upsample_conv3x3(p: Params, x: Array) -> Array:
    """Twice the size, and then conv3x3.  Shapes: [B,C,H,W] -> [B,C',2H,2W]"""
    return tap(p.path, upsample_conv2d(x, p.weight, p.bias))


def tokens(x: Array) -> Array:
    """Pixels as a row of tokens.  Shapes: [B,C,H,W] -> [B,H*W,C]"""
    batch, channels, height, width = x.shape
    return x.transpose(0, 2, 3, 1).reshape(batch, height * width, channels)


def pixels(x: Array, height: int, width: int) -> Array:
    """A row of tokens as pixels.  Shapes: [B,H*W,C] -> [B,C,H,W]"""
    return x.reshape(x.shape[0], height, width, x.shape[2]).transpose(0, 3, 1, 2)
