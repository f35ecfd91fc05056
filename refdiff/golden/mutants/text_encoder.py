"""Bugs of the text encoder, and of layers that it shares with the U-Net."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from refdiff import ops
from refdiff.golden.mutants import changes
from refdiff.golden.mutants.kind import Change, Site, Variant, Variants, patched, standing, with_constants
from refdiff.golden.stages import Setting
from refdiff.models import clip_text, transformer
from refdiff.xp import array_module


def masked_padding(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """The causal mask added a second time one place earlier, so that a token does not see itself, but for the first."""
    xp = array_module(q)
    mask = xp.arange(k.shape[1])[None, :] >= xp.maximum(xp.arange(q.shape[1]), 1)[:, None]
    q_h, k_h, v_h = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = xp.where(mask, -xp.inf, (q_h @ k_h.swapaxes(-1, -2)) * scale)
    return (ops.softmax(scores) @ v_h).transpose(0, 2, 1, 3).reshape(q.shape)


def layers_left_out(count: int, *, rows: str) -> Any:
    """The output of an earlier layer, for both texts or for the positive ones alone."""

    @contextmanager
    def variant(site: Site) -> Iterator[Setting]:
        original = clip_text.encoder_layer

        def layer(p: Any, config: Any, x: Any) -> Any:
            index = int(p.path.rpartition(".")[2])
            if index < config.num_hidden_layers - count:
                return original(p, config, x)
            if rows == "all":
                return x
            y = original(p, config, x)
            half = len(x) // 2
            return array_module(x).concatenate([y[:half], x[half:]] if rows == "positive" else [x[:half], y[half:]])

        changed: list[Change] = [(clip_text, "encoder_layer", layer)]
        with standing(changed):
            yield site.setting

    return variant


@contextmanager
def no_final_norm(site: Site) -> Iterator[Setting]:
    """The last LayerNorm does nothing: its gain and offset are taken for those of the identity."""
    part = site.setting.pipe.text_encoder
    final = part.params.text_model.final_layer_norm
    original = clip_text.layer_norm

    def norm(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        return x if weight is final.weight else original(x, weight, bias, eps=eps)

    with standing([(clip_text, "layer_norm", norm)]):
        yield site.setting


def texts_as(changed: Callable[[Any, Any], list[Any]]) -> Variant:
    """Both halves of the encoded texts, the negative prompts' first, as `changed` makes them."""

    @contextmanager
    def variant(site: Site) -> Iterator[Setting]:
        original = clip_text.clip_text

        def encode(params: Any, config: Any, ids: Any) -> Any:
            hidden, pooled = original(params, config, ids)
            half = len(hidden) // 2
            return array_module(hidden).concatenate(changed(hidden[:half], hidden[half:])), pooled

        with standing([(clip_text, "clip_text", encode)]):
            yield site.setting

    return variant


zero_negative = texts_as(lambda negative, positive: [0 * negative, positive])
swapped_texts = texts_as(lambda negative, positive: [positive, negative])


def positions_from_one(table: Any, ids: Any) -> Any:
    """Positions that begin at 1."""
    return ops.embedding(table, array_module(ids).minimum(ids + 1, len(table) - 1) if ids.ndim == 1 else ids)


def pooling(row: Callable[[Any, Any], Any]) -> Change:
    """The pooled vector as row(ids [B,T], the configuration) says.  Shapes: -> [B] places"""

    def pooled(x: Any, ids: Any, config: Any) -> Any:
        return x[array_module(x).arange(len(x)), row(ids, config)]

    return clip_text, "_pooled", pooled


VARIANTS: Variants = {
    "te-gelu-for-quickgelu": {
        "erf": patched((clip_text, "ACTIVATIONS", {"quick_gelu": ops.gelu, "gelu": ops.gelu})),
    },
    "te-quickgelu-for-gelu": {
        "sigmoid": patched((clip_text, "ACTIVATIONS", {"gelu": ops.quick_gelu, "quick_gelu": ops.quick_gelu}))
    },
    "gelu-tanh": {
        "tanh": patched(
            (clip_text, "ACTIVATIONS", {"gelu": ops.gelu_tanh, "quick_gelu": ops.gelu_tanh}),
            (transformer, "geglu", changes.tanh_geglu),
        ),
    },
    "te-no-causal": {"none": patched(*changes.attentions(with_constants(ops.attention, causal=False), clip_text))},
    "te-mask-twice": {"diagonal": patched(*changes.attentions(masked_padding, clip_text))},
    "ln-eps": {
        f"{eps:g}": patched(*changes.layer_norms(with_constants(ops.layer_norm, eps=eps))) for eps in (1e-3, 1e-6, 1e-7, 1e-12)
    },
    "ln-eps-outside": {"outside": patched(*changes.layer_norms(changes.outside_layer_norm))},
    "te-last-not-penultimate": {"one earlier": layers_left_out(1, rows="all"), "two earlier": layers_left_out(2, rows="all")},
    "te-final-ln-on/off": {"off": no_final_norm},
    "te-clipskip-cfg": {
        "positive": layers_left_out(1, rows="positive"),
        "negative": layers_left_out(1, rows="negative"),
    },
    "uncond-zeros": {"zeros": zero_negative},
    "cfg-pooled-swap": {"context": swapped_texts},
    "te-pool-argmax": {
        "largest id": patched(pooling(lambda ids, config: ids.argmax(axis=1))),
        "end token 2": patched(pooling(lambda ids, config: (ids == 2).argmax(axis=1))),
        "last row": patched(pooling(lambda ids, config: 0 * ids[:, 0] - 1)),
        "first row": patched(pooling(lambda ids, config: 0 * ids[:, 0])),
    },
    "te-position-offset": {"one": patched((clip_text, "embedding", positions_from_one))},
}
