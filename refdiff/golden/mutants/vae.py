"""Bugs of the autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from refdiff import ops
from refdiff.core.params import flatten, tree
from refdiff.core.tap import tap
from refdiff.golden.mutants import changes
from refdiff.golden.mutants.kind import Site, Variants, altered, patched, with_config
from refdiff.golden.stages import Setting
from refdiff.models import layers, vae
from refdiff.pipelines.text_to_image import Component


@contextmanager
def multiplied(site: Site) -> Iterator[Setting]:
    """Latents multiplied by the factor where they are divided."""
    factor = site.setting.pipe.vae.config.scaling_factor
    with with_config("vae", scaling_factor=1.0 / factor)(site) as setting:
        yield setting


def quant_convs_left_out(p: Any, x: Any) -> Any:
    """1x1 convolutions but those beside the latents."""
    return tap(p.path, x) if "quant_conv" in p.path else layers.conv1x1(p, x)


def keys_for_queries(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """Queries and keys swapped."""
    return ops.attention(k, q, v, heads=heads, scale=scale, causal=causal)


def exchanged_weights(setting: Setting) -> Setting:
    """The weights of queries under the name of keys, and the other way."""
    part = setting.pipe.vae
    flat = flatten(part.params)
    other = {".to_q.": ".to_k.", ".to_k.": ".to_q."}
    named = {next((name.replace(a, b) for a, b in other.items() if a in name), name): x for name, x in flat.items()}
    return replace(setting, pipe=replace(setting.pipe, vae=Component(part.config, tree(named))))


def values_for_keys(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """Keys and values swapped."""
    return ops.attention(q, v, k, heads=heads, scale=scale, causal=causal)


VARIANTS: Variants = {
    "vae-scale": {
        "SDXL's": with_config("vae", scaling_factor=0.13025),
        "SD 1.x's": with_config("vae", scaling_factor=0.18215),
        "none": with_config("vae", scaling_factor=1.0),
        "multiplied": multiplied,
    },
    "vae-quant-conv": {"left out": patched((vae, "conv1x1", quant_convs_left_out))},
    "vae-attn-keys": {
        "queries and keys": patched((vae, "attention", keys_for_queries)),
        "queries' and keys' weights": altered(exchanged_weights),
        "keys and values": patched((vae, "attention", values_for_keys)),
    },
    "vae-pad": {"symmetric": patched((vae, "conv2d", changes.symmetric))},
}
