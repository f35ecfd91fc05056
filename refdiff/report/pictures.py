"""Tensors as small pictures inside the page: channels side by side, and where in the picture two tensors differ."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

LARGEST = 512  # pixels of a side
CHANNELS = 3
# From nothing to the most, dark to bright, and from below through nothing to above.
HEAT = ((13, 8, 40), (91, 22, 108), (187, 55, 84), (249, 142, 9), (252, 255, 164))
SIGNED = ((33, 82, 164), (132, 174, 222), (245, 245, 245), (232, 148, 120), (172, 24, 43))
GREY = ((0, 0, 0), (255, 255, 255))


def planes(name: str, x: np.ndarray, aspect: float) -> np.ndarray:
    """A tensor as pictures.  Shapes: any -> [B,C,H,W]

    `aspect`: height by width of the picture that is drawn, which tells the sides of a row of tokens.
    """
    if x.ndim == 4:
        return x.transpose(0, 3, 1, 2) if name.startswith("pixels/") else x
    if x.ndim == 3:
        height = round(math.sqrt(x.shape[1] * aspect))
        if "unet/" in name and height and height * round(height / aspect) == x.shape[1]:
            return x.transpose(0, 2, 1).reshape(x.shape[0], x.shape[2], height, -1)
        return x[:, None]
    return x.reshape(1, 1, *([1] * (2 - min(x.ndim, 2))), *x.shape) if x.ndim <= 2 else x.reshape(1, 1, len(x), -1)


def coloured(x: np.ndarray, low: float, high: float, colours: tuple[tuple[int, int, int], ...]) -> str:
    """Numbers as colours between two ends, as a PNG inside an address; NaN and infinity are green.  Shapes: [H,W]"""
    x = thinned(x.astype(np.float64))
    share = np.nan_to_num((x - low) / (high - low) if high > low else np.zeros_like(x), posinf=1.0, neginf=0.0)
    stops = np.linspace(0.0, 1.0, len(colours))
    levels = np.stack([np.interp(share, stops, [colour[k] for colour in colours]) for k in range(3)], axis=-1)
    levels[~np.isfinite(x)] = (0, 200, 80)
    return png(np.rint(levels).astype(np.uint8))


def thinned(x: np.ndarray) -> np.ndarray:
    """Every n-th row and column of what is too large.  Shapes: [H,W,...]"""
    rows, cols = (max(-(-n // LARGEST), 1) for n in x.shape[:2])
    return x[::rows, ::cols]


def png(levels: np.ndarray) -> str:
    """A picture as an address that holds it.  Shapes: [H,W,3], whole numbers 0 to 255"""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def panel(address: str, caption: str, words: str) -> str:
    """A picture and the line under it."""
    return f'<figure><img src="{address}" alt="{words}"><figcaption>{caption}</figcaption></figure>'


def channel_panels(name: str, got: np.ndarray, want: np.ndarray, aspect: float) -> str:
    """Theirs, golden and difference of the channels in which they differ most, each row with its own scale."""
    a, b = planes(name, got, aspect), planes(name, want, aspect)
    apart = np.nan_to_num(np.abs(a.astype(np.float64) - b), nan=np.inf).max(axis=(2, 3))
    worst = np.argsort(-apart, axis=None, kind="stable")[:CHANNELS]
    found = []
    for batch, channel in (np.unravel_index(int(k), apart.shape) for k in worst):
        one, other = a[batch, channel].astype(np.float64), b[batch, channel].astype(np.float64)
        low, high = float(other.min()), float(other.max())
        gap = np.where(np.isfinite(one), np.abs(one - other), 0.0)
        most = float(gap.max()) or 1.0
        where = f"row {batch} of the batch, channel {channel}"
        found += [
            panel(coloured(one, low, high, GREY), f"theirs: {where}", "theirs"),
            panel(coloured(other, low, high, GREY), f"golden: {low:.3g} to {high:.3g}", "golden"),
            panel(coloured(one - other, -most, most, SIGNED), f"difference: blue -{most:.2g}, red +{most:.2g}", "difference"),
        ]
    return f'<div class="panels">{"".join(found)}</div>'


def heat_map(name: str, got: np.ndarray, want: np.ndarray, aspect: float) -> str:
    """The root of the mean squared difference over the batch and the channels."""
    difference = planes(name, got, aspect).astype(np.float64) - planes(name, want, aspect)
    apart = np.sqrt((difference * difference).mean(axis=(0, 1)))
    most = float(np.nan_to_num(apart, nan=0.0, posinf=0.0).max()) or 1.0
    told = f"where it differs: the mean over {difference.shape[1]} channels, dark none, bright {most:.2g}"
    return f'<div class="heat">{panel(coloured(apart, 0.0, most, HEAT), told, "where it differs")}</div>'


def final_panels(got: np.ndarray, want: np.ndarray) -> str:
    """The pictures that both drew, and where they differ.  Shapes: [B,H,W,3], whole numbers 0 to 255"""
    found = []
    for one, other in zip(got, want, strict=True):
        apart = np.abs(one.astype(np.float64) - other).max(axis=-1)
        most = float(apart.max()) or 1.0
        found += [
            panel(png(thinned(one.astype(np.uint8))), "theirs", "theirs"),
            panel(png(thinned(other.astype(np.uint8))), "golden", "golden"),
            panel(coloured(apart, 0.0, most, HEAT), f"difference: bright is {most:g} levels", "difference"),
        ]
    return f'<div class="panels">{"".join(found)}</div>'
