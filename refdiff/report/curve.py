"""The error through the depth of a run as a curve: a logarithmic scale, the tensors in the order in which they were made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from refdiff.golden.compare import FAIL, Row

WIDTH, HEIGHT = 1060, 330
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 22, 30
LETTER = 6.6  # units a letter of a label takes
LEAST = -17  # decades: an error of 0 lies on the lowest line
LEGEND = (
    ("error of the tensor's own part", '<circle class="a" cx="13" cy="6" r="3.5"/>'),
    ("inherited from what is before", '<path class="i" d="M0 6H26"/>'),
    ("bound", '<path class="b" d="M0 6H26"/>'),
    ("fails", '<path class="f" d="M13 0l6 6-6 6-6-6z"/>'),
)
MARKS = (
    "<style>.a{fill:var(--added)}.i{fill:none;stroke:var(--inherited);stroke-width:1.4}"
    ".b{fill:none;stroke:var(--bound);stroke-width:1.4;stroke-dasharray:5 3}.f{fill:var(--bad)}.g{stroke:var(--line)}"
    ".k{fill:var(--band)}.w{stroke:var(--bad);stroke-dasharray:2 3}</style>"
)


def curve(rows: Sequence[Row]) -> str:
    """A picture (SVG) of the rows that have errors, and its legend; a word where there are none."""
    rows = [row for row in rows if row.measure is not None]
    if not rows:
        return "<p>No tensor could be measured.</p>"
    parted = any(row.added is not None for row in rows)
    low, high = decades(rows)

    def y(error: float) -> float:
        exponent = math.log10(error) if error > 0.0 else low
        return TOP + (high - min(max(exponent, low), high)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def x(k: int) -> float:
        return LEFT + (k + 0.5) / len(rows) * (WIDTH - LEFT - RIGHT)

    drawn = [
        *_bands(rows, x),
        *_grid(low, high, y),
        *_line("b", [(x(k), y(row.bound)) for k, row in enumerate(rows) if row.bound]),
    ]
    if parted:
        drawn += _line("i", [(x(k), y(row.inherited)) for k, row in enumerate(rows) if row.inherited is not None])
    drawn += _points(rows, x, y)
    label = f"relative error of {len(rows)} tensors in the order of the run, logarithmic"
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'
    return MARKS + _legend(parted) + picture


def decades(rows: Sequence[Row]) -> tuple[int, int]:
    """The lowest and the highest line: whole decades around every number that is shown."""
    shown = [e for row in rows for e in (own(row), row.inherited, row.bound) if e is not None and 0.0 < e < math.inf]
    low = max(math.floor(math.log10(min(shown, default=1e-8))) - 1, LEAST)
    return low, max(math.ceil(math.log10(max(shown, default=1.0))), low + 2)


def own(row: Row) -> float:
    """The error by which a tensor is judged."""
    if row.added is not None:
        return row.added
    return row.measure.relative if row.measure is not None else math.inf


def _legend(parted: bool) -> str:
    told = [("error", LEGEND[0][1]), *LEGEND[2:]] if not parted else LEGEND
    marks = [f'<span><svg viewBox="0 0 26 12" aria-hidden="true">{mark}</svg>{text}</span>' for text, mark in told]
    return f'<div class="legend">{"".join(marks)}</div>'


def _bands(rows: Sequence[Row], x: Callable[[int], float]) -> Iterator[str]:
    """A stripe for each stage, every second one shaded, with its name where there is room."""
    half = x(1) - x(0)
    start, number = 0, 0
    for end in range(1, len(rows) + 1):
        stage = stage_of(rows[start])
        if end < len(rows) and stage_of(rows[end]) == stage:
            continue
        left, width = x(start) - half / 2, half * (end - start)
        if number % 2 == 0:
            yield f'<rect class="k" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        if LETTER * len(stage) < width:
            yield f'<text x="{left + width / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(stage)}</text>'
        start, number = end, number + 1


def _grid(low: int, high: int, y: Callable[[float], float]) -> Iterator[str]:
    stride = max((high - low) // 8, 1)
    for exponent in range(low, high + 1, stride):
        at = y(10.0**exponent)
        told = "0" if exponent == low else f"1e{exponent}"
        yield f'<path class="g" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{told}</text>'


def _line(kind: str, points: Sequence[tuple[float, float]]) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return [f'<path class="{kind}" d="M{path}"/>'] if points else []


def _points(rows: Sequence[Row], x: Callable[[int], float], y: Callable[[float], float]) -> Iterator[str]:
    """A dot for each tensor, a diamond for one that fails; its name and error are shown where the pointer rests."""
    first = next((k for k, row in enumerate(rows) if row.outcome == FAIL), None)
    if first is not None:
        side = ("end", -6) if x(first) > WIDTH / 2 else ("start", 6)
        yield f'<path class="w" d="M{x(first):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        told = f"first wrong: {escape(rows[first].name)}"
        yield f'<text x="{x(first) + side[1]:.1f}" y="{TOP - 8}" text-anchor="{side[0]}">{told}</text>'
    for k, row in enumerate(rows):
        at = (x(k), y(own(row)))
        title = f"<title>{escape(row.name)}: {own(row):.2e}</title>"
        if row.outcome == FAIL:
            yield f'<path class="f" d="M{at[0]:.1f} {at[1] - 6:.1f}l6 6-6 6-6-6z">{title}</path>'
        else:
            yield f'<circle class="a" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="2.6">{title}</circle>'


def stage_of(row: Row) -> str:
    """The stage of a tensor: what stands before its module's path."""
    return row.name.rpartition("/")[0]
