"""The loss of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refdiff.checkpoints.files import replacing

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 400, 70, 20, 30, 40
INK, GRID, DOTS, LINE = (40, 40, 40), (225, 225, 225), (190, 205, 235), (30, 80, 190)


def draw_loss_curve(losses: Sequence[float], path: Path, *, title: str) -> None:
    """Save a PNG: every step's loss as a dot, their moving geometric mean as a line, the loss on a logarithmic axis.

    Raises: BadRequest where it cannot be written
    """
    from PIL import Image, ImageDraw

    values = np.log10(np.maximum(np.array(losses, dtype=np.float64), 1e-12))
    low, high = _limits(values)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / max(len(values), 1)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    for tick in np.linspace(low, high, 5):
        y = place(0, tick)[1]
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=GRID)
        draw.text((8, y - 6), f"{10**tick:.4g}", fill=INK)
    for step in np.linspace(0, len(values), 5).astype(int):
        x = place(step, low)[0]
        draw.text((x - 10, HEIGHT - BOTTOM + 8), str(step), fill=INK)
    draw.point([place(i + 1, v) for i, v in enumerate(values)], fill=DOTS)
    draw.line([place(step, v) for step, v in _moving_mean(values)], fill=LINE, width=2)
    draw.text((LEFT, 8), title, fill=INK)
    draw.text((WIDTH - RIGHT - 30, HEIGHT - 16), "step", fill=INK)
    with replacing(path) as file:
        image.save(file, format="PNG")


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Room for all but the wildest values."""
    if not len(values):
        return -1.0, 0.0
    low, high = np.percentile(values, [0.2, 99.8])
    return (low - 0.05, high + 0.05) if math.isfinite(low) else (-1.0, 0.0)


def _moving_mean(values: np.ndarray) -> list[tuple[float, float]]:
    window = max(len(values) // 100, 1)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return [(i, float(sums[i] - sums[i - window]) / window) for i in range(window, len(values) + 1, max(window // 4, 1))]
