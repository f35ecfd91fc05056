"""Bugs of the autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from refdiff import ops
from refdiff.golden.mutants import changes
from refdiff.golden.mutants.kind import Site, Variants, patched, with_config
from refdiff.golden.stages import Setting
from refdiff.models import layers, vae


@contextmanager
def multiplied(site: Site) -> Iterator[Setting]:
    """Latents multiplied by the factor where they are divided."""
    factor = site.setting.pipe.vae.config.scaling_factor
    with with_config("vae", scaling_factor=1.0 / factor)(site) as setting:
        yield setting


def quant_convs_left_out(p: Any, x: Any) -> Any:
    """1x1 convolutions but those beside the latents."""
    return x if "quant_conv" in p.path else layers.conv1x1(p, x)


def keys_for_queries(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
    """Queries and keys swapped."""
    return ops.attention(k, q, v, heads=heads, scale=scale, causal=causal)


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
        "keys and values": patched((vae, "attention", values_for_keys)),
    },
    "vae-pad": {"symmetric": patched((vae, "conv2d", changes.symmetric))},
}
