"""What the networks compute with a bug: the wrong forms of layers and of their constants."""

from __future__ import annotations

from typing import Any

from refdiff import ops
from refdiff.core.tap import tap
from refdiff.golden.mutants.kind import Change, Site, with_constants
from refdiff.models import clip_text, layers, transformer, unet, vae
from refdiff.xp import array_module


def swapped_geglu(x: Any) -> Any:
    """The first half as the gate."""
    value, gate = ops.split(x, 2, axis=-1)
    return ops.gelu(value) * gate


def tanh_geglu(x: Any) -> Any:
    """GEGLU with the tanh approximation."""
    value, gate = ops.split(x, 2, axis=-1)
    return value * ops.gelu_tanh(gate)


def quick_geglu(x: Any) -> Any:
    """GEGLU with the sigmoid approximation."""
    value, gate = ops.split(x, 2, axis=-1)
    return value * ops.quick_gelu(gate)


def interleaved(t: Any, **constants: Any) -> Any:
    """sin, cos, sin, cos."""
    both = ops.timestep_embedding(t, **constants)
    return both.reshape(len(both), 2, -1).swapaxes(1, 2).reshape(both.shape)


def swapped_halves(t: Any, *, flip_sin_to_cos: bool, **constants: Any) -> Any:
    """The other half first."""
    return ops.timestep_embedding(t, flip_sin_to_cos=not flip_sin_to_cos, **constants)


def shifted(t: Any, *, freq_shift: float, **constants: Any) -> Any:
    """The other frequency shift."""
    return ops.timestep_embedding(t, freq_shift=1.0 - freq_shift, **constants)


def whole_times(t: Any, **constants: Any) -> Any:
    """Times without their fraction."""
    return ops.timestep_embedding(array_module(t).floor(t), **constants)


def rounded_times(t: Any, **constants: Any) -> Any:
    """Times as bfloat16 holds them."""
    return ops.timestep_embedding(bfloat16(t), **constants)


def half_times(t: Any, **constants: Any) -> Any:
    """Times as float16 holds them, and the product too."""
    return ops.timestep_embedding(t.astype("float16").astype(t.dtype), **constants)


def bfloat16(t: Any) -> Any:
    """The numbers as bfloat16 holds them, ties to even."""
    bits = t.astype("float32").view("uint32")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype("uint32").view("float32").astype(t.dtype)


def grouped(x: Any, weight: Any, bias: Any, *, groups: int, eps: float, how: str) -> Any:
    """GroupNorm with another idea of the groups, of the variance, or of where eps stands."""
    xp = array_module(x)
    flat = x.reshape(x.shape[0], groups, -1)
    if how == "interleaved":
        order = xp.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)
        y = ops.group_norm(x[:, order], weight[order], bias[order], groups=groups, eps=eps)
        return y[:, xp.argsort(order)]
    centred = flat - flat.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    if how == "unbiased":
        variance = variance * flat.shape[-1] / (flat.shape[-1] - 1)
    normal = centred / (xp.sqrt(variance) + eps) if how == "outside" else centred / xp.sqrt(variance + eps)
    return normal.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def norms(norm: Any, fused: Any) -> list[Change]:
    """Another GroupNorm everywhere, and another that SiLU follows."""
    return [
        (transformer, "group_norm", norm), (vae, "group_norm", norm), (unet, "group_norm_silu", fused),
        (vae, "group_norm_silu", fused),
    ]  # fmt: skip


def group_norms(**changed: Any) -> list[Change]:
    """Every GroupNorm with other constants."""
    return norms(with_constants(ops.group_norm, **changed), with_constants(ops.group_norm_silu, **changed))


def odd_group_norms(how: str) -> list[Change]:
    """Every GroupNorm in another form."""

    def norm(x: Any, weight: Any, bias: Any, *, groups: int, eps: float) -> Any:
        return grouped(x, weight, bias, groups=groups, eps=eps, how=how)

    def fused(x: Any, weight: Any, bias: Any, *, groups: int, eps: float) -> Any:
        return ops.silu(norm(x, weight, bias, groups=groups, eps=eps))

    return norms(norm, fused)


def half_the_groups(site: Site) -> list[Change]:
    """16 groups for 32."""

    def norm(op: Any) -> Any:
        return lambda *args, groups, eps: op(*args, groups=max(groups // 2, 1), eps=eps)

    return norms(norm(ops.group_norm), norm(ops.group_norm_silu))


def layer_norms(norm: Any) -> list[Change]:
    """Another LayerNorm everywhere."""
    return [(clip_text, "layer_norm", norm), (transformer, "layer_norm", norm)]


def outside_layer_norm(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """x / (sqrt(var) + eps)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / (array_module(x).sqrt((centred * centred).mean(axis=-1, keepdims=True)) + eps) * weight + bias


def attentions(attend: Any, *modules: Any) -> list[Change]:
    """Another attention in these modules."""
    return [(module, "attention", attend) for module in modules]


def heads_for_width(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """The number of heads taken for the width of a head."""
    width = q.shape[-1]
    wrong = width // heads if width % (width // heads) == 0 else heads
    return ops.attention(q, k, v, heads=wrong, scale=(width // wrong) ** -0.5, causal=causal)


def scaled_by_channels(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """1 / sqrt(C) for 1 / sqrt(d)."""
    return ops.attention(q, k, v, heads=heads, scale=q.shape[-1] ** -0.5, causal=causal)


def interleaved_heads(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """Features split as [d, heads] for [heads, d]."""

    def turned(x: Any) -> Any:
        return x.reshape(*x.shape[:2], -1, heads).swapaxes(-1, -2).reshape(x.shape)

    out = ops.attention(turned(q), turned(k), turned(v), heads=heads, scale=scale, causal=causal)
    return out.reshape(*out.shape[:2], heads, -1).swapaxes(-1, -2).reshape(out.shape)


def one_sided(x: Any, weight: Any, bias: Any, *, stride: int, padding: tuple) -> Any:
    """A step down that pads below and on the right alone."""
    return ops.conv2d(x, weight, bias, stride=stride, padding=(0, 1, 0, 1) if stride == 2 else padding)


def symmetric(x: Any, weight: Any, bias: Any, *, stride: int, padding: tuple) -> Any:
    """A step down that pads every side."""
    return ops.conv2d(x, weight, bias, stride=stride, padding=(1, 1, 1, 1) if stride == 2 else padding)


def bilinear(x: Any, *, height: int, width: int) -> Any:
    """Upsampling between the pixels, with half-pixel centres."""
    xp = array_module(x)
    for axis, size in ((2, height), (3, width)):
        count = x.shape[axis]
        place = xp.clip((xp.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = xp.floor(place).astype("int64")
        high = xp.minimum(low + 1, count - 1)
        share = (place - low).astype(x.dtype).reshape([-1 if a == axis else 1 for a in range(4)])
        x = xp.take(x, low, axis=axis) * (1 - share) + xp.take(x, high, axis=axis) * share
    return x


def skip_first(parts: list, *, axis: int) -> Any:
    """[skip, h] for [h, skip]."""
    return ops.concatenate(parts[::-1], axis=axis)


def flipped_kernel(p: Any, x: Any) -> Any:
    """The places of a 3x3 kernel with rows and columns swapped."""
    y = ops.conv2d(x, p.weight.swapaxes(-1, -2), p.bias, stride=1, padding=(1, 1, 1, 1))
    return tap(p.path, y)


def rotated_kernel(p: Any, x: Any) -> Any:
    """A true convolution: the kernel turned by half a turn."""
    y = ops.conv2d(x, p.weight[..., ::-1, ::-1], p.bias, stride=1, padding=(1, 1, 1, 1))
    return tap(p.path, y)


def everywhere(name: str, function: Any) -> list[Change]:
    """A layer's function in every network that uses it."""
    return [(module, name, function) for module in (clip_text, transformer, unet, vae) if hasattr(module, name)]


def convolutions(conv3x3: Any, upsample: Any) -> list[Change]:
    """The 3x3 convolutions of every network, the one that is fused with upsampling too."""
    return everywhere("conv3x3", conv3x3) + everywhere("upsample_conv3x3", upsampled(conv3x3, upsample))


def upsampled(conv3x3: Any, upsample: Any) -> Any:
    """The convolution that is fused with upsampling, of these two."""

    def upsample_conv3x3(p: Any, x: Any) -> Any:
        return conv3x3(p, upsample(x, height=2 * x.shape[2], width=2 * x.shape[3]))

    return upsample_conv3x3


def w_square(site: Site) -> list[Change]:
    """The layer of the wrong tensor, or those that its value depends on within the part, transposed."""

    def affine(p: Any, x: Any) -> Any:
        square = p.weight.shape[0] == p.weight.shape[1]
        weight = p.weight.T if square and p.path == site.path else p.weight
        return tap(p.path, ops.linear(x, weight, p.bias if "bias" in p else None))

    return everywhere("affine", affine)


def w_all_square(site: Site) -> list[Change]:
    """Every square layer transposed."""

    def affine(p: Any, x: Any) -> Any:
        weight = p.weight.T if p.weight.shape[0] == p.weight.shape[1] else p.weight
        return tap(p.path, ops.linear(x, weight, p.bias if "bias" in p else None))

    return everywhere("affine", affine)


def w_missing(what: str) -> Any:
    """The layer of the wrong tensor without its weight, or without its bias."""

    def make(site: Site) -> list[Change]:
        def affine(p: Any, x: Any) -> Any:
            bias = p.bias if "bias" in p else None
            if p.path != site.path:
                return layers.affine(p, x)
            return tap(p.path, ops.linear(x, p.weight, None) if what == "bias" else ops.linear(x, 0 * p.weight, bias))

        def conv3x3(p: Any, x: Any) -> Any:
            if p.path != site.path:
                return layers.conv3x3(p, x)
            weight, bias = (p.weight, 0 * p.bias) if what == "bias" else (0 * p.weight, p.bias)
            return tap(p.path, ops.conv2d(x, weight, bias, stride=1, padding=(1, 1, 1, 1)))

        return everywhere("affine", affine) + convolutions(conv3x3, ops.upsample_nearest)

    return make


def silu_nowhere(x: Any) -> Any:
    """No activation."""
    return x


def silu_twice(x: Any) -> Any:
    """The activation of the activation."""
    return ops.silu(ops.silu(x))
