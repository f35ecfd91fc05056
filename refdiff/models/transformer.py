"""The transformer inside the U-Net: pixels attend to each other and to the text.

Source: Rombach et al. 2022 (arXiv 2112.10752), section 3.3 and appendix E.2.1; diffusers transformer_2d.py, Transformer2DModel.
"""

from __future__ import annotations

from refdiff.core.params import Declaration, Params, numbered
from refdiff.core.tap import tap, unit
from refdiff.models.layers import affine, conv1x1, conv_params, linear_params, norm_params, pixels, tokens
from refdiff.ops import add, attention, geglu, group_norm, layer_norm
from refdiff.xp import Array


@unit
def spatial_transformer(p: Params, x: Array, context: Array, *, heads: int, groups: int) -> Array:
    """One transformer block over the pixels, between two 1x1 convolutions, added to its input.

    Shapes: [B,C,H,W], [B,T,D] -> [B,C,H,W]
    Traps: gn-eps (1e-6 here, 1e-5 in the resnets), proj-linear-conv
    """
    _, _, height, width = x.shape
    h = tap(p.norm.path, group_norm(x, p.norm.weight, p.norm.bias, groups=groups, eps=1e-6))
    h = tokens(conv1x1(p.proj_in, h))  # [B,C,H,W] -> [B,H*W,C]
    for block in p.transformer_blocks:
        h = transformer_block(block, h, context, heads=heads)
    return add(x, conv1x1(p.proj_out, pixels(h, height, width)))  # [B,H*W,C] -> [B,C,H,W]


def spatial_transformer_params(width: int, context: int) -> Declaration:
    """The parameters of `spatial_transformer`."""
    return {
        "norm": norm_params(width),
        "proj_in": conv_params(width, width, kernel=1),
        "transformer_blocks": numbered([transformer_block_params(width, context)]),
        "proj_out": conv_params(width, width, kernel=1),
    }


def transformer_block_params(width: int, context: int) -> Declaration:
    """The parameters of `transformer_block`."""
    return {
        "norm1": norm_params(width),
        "attn1": attention_params(width, width),
        "norm2": norm_params(width),
        "attn2": attention_params(width, context),
        "norm3": norm_params(width),
        "ff": {
            "net": {
                "0": {"proj": linear_params(width, 8 * width, bias=True)},
                "2": linear_params(4 * width, width, bias=True),
            }
        },
    }


@unit
def transformer_block(p: Params, x: Array, context: Array, *, heads: int) -> Array:
    """Self-attention, attention to the text, a gated perceptron: each on the normalised stream and added to it.

    Shapes: [B,T,D], [B,S,D'] -> [B,T,D]
    Traps: ln-eps, geglu-swap
    """
    h = tap(p.norm1.path, layer_norm(x, p.norm1.weight, p.norm1.bias, eps=1e-5))
    x = add(x, projected_attention(p.attn1, h, h, heads=heads))
    h = tap(p.norm2.path, layer_norm(x, p.norm2.weight, p.norm2.bias, eps=1e-5))
    x = add(x, projected_attention(p.attn2, h, context, heads=heads))
    h = tap(p.norm3.path, layer_norm(x, p.norm3.weight, p.norm3.bias, eps=1e-5))
    h = tap(p.ff.net[0].path, geglu(affine(p.ff.net[0].proj, h)))  # [B,T,D] -> [B,T,4D]
    return add(x, tap(p.ff.path, affine(p.ff.net[2], h)))  # [B,T,4D] -> [B,T,D]


def attention_params(width: int, context: int) -> Declaration:
    """The parameters of `projected_attention`: no bias on queries, keys and values."""
    return {
        "to_q": linear_params(width, width, bias=False),
        "to_k": linear_params(context, width, bias=False),
        "to_v": linear_params(context, width, bias=False),
        "to_out": numbered([linear_params(width, width, bias=True)]),
    }


@unit
def projected_attention(p: Params, x: Array, context: Array, *, heads: int) -> Array:
    """Queries from `x`, keys and values from `context`.

    Shapes: [B,T,D], [B,S,D'] -> [B,T,D]
    Traps: attn-no-scale, heads-vs-dim
    """
    q, k, v = affine(p.to_q, x), affine(p.to_k, context), affine(p.to_v, context)
    h = attention(q, k, v, heads=heads, scale=(q.shape[-1] // heads) ** -0.5, causal=False)
    return affine(p.to_out[0], h)
