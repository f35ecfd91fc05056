"""Measure every solver on Gaussian data, and write docs/samplers/order.md and order.svg: python tools/sampler_order.py

Deterministic ones by their error against the exact flow, stochastic ones by the variance of what they make; in float64, without
dice. tests/samplers/test_order.py measures them again, on shorter ladders.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.samplers import ladder, ladder_k, moments  # noqa: E402
from tests.samplers.ladder import BEGIN, END, LADDER, Rung, slope  # noqa: E402
from tests.samplers.moments import LADDER as SHORT  # noqa: E402

RUNGS = [*ladder.RUNGS, *ladder_k.RUNGS]
CHANCES = [*moments.CHANCES, *ladder_k.CHANCES]
FOLDER = ROOT / "docs" / "samplers"
HEAD = f"""# Order of convergence, measured

Written by `python tools/sampler_order.py`; do not edit. For data that are Gaussian the ideal denoiser is known, and so is the
exact end of the probability flow, so every solver's error can be measured: here in float64, on three independent parts with
deviations 0.4, 0.7 and 1.5, from sigma {BEGIN:g} to {END:g} (flow matching from 0.9 to 0.1, EDM from 80 to 0.002 along its own
ramp). The slope of log error over log steps, through the last three figures, is the order. Steps are even in log sigma for
DPM-Solver's kind and in sigma for the others; where a solver begins with steps of lower order, its first step is divided into 15,
each as long as all before it, so that the beginning does not hide the order of the rest. Names that begin with "k_" are
k-diffusion's samplers as they are registered here; "adaptive" is given the tolerance by which it makes about as many steps.

![Errors over steps](order.svg)

| solver | order by its name | measured | error in {LADDER[0]} steps | in {LADDER[2]} | in {LADDER[4]} | |
|---|---|---|---|---|---|---|
"""
NOTES = """
## What the figures say

**LMS reaches 4**, if its first steps are short: the first is Euler's, and its error, once, is of second order. With all steps
alike the slope is 2, whatever the order asked for.

**PNDM is of second order in use.** Its weights are Adams and Bashforth's for even steps in sigma, and a schedule's steps are not
even: then each step has an error of third order. On even sigmas it is 4 with its Runge-Kutta start and 3 with the trial
step that Stable Diffusion takes.

**DPM-Solver of third order in several steps is of second.** Over a step of h in log sigma from the last answer D, with the
derivatives D' and D'' there, DPM-Solver++ needs the integral of e^(u-h) (D + u D' + u^2 D'' / 2) over u from 0 to h. The last
term is (h^2 D'' / 2) w with w = 1 - 2 (e^-h - 1 + h) / h^2, which is h/3 + O(h^2). The second divided difference of the
published algorithm times h^2 is h^2 D'' / 2, and its weight is 1/2 - (e^-h - 1 + h) / h^2 = w / 2. What is left out is
h^3 D'' / 12 in each step: second order, with a fifth of the error of the two-step formula ("heun"), which leaves out
5 h^3 D'' / 12. Measured: {ratios}. With the whole weight, as in DEIS, the order is 3.

**UniPC's corrector adds one order**, with both choices of B.

**DPM fast is of third order where its number of steps divided by 3 leaves 2**, as 20 and 50 do.
Else its last step is Euler's, and one such step has an error of second order.
"""
NOISY = """
## Solvers that draw noise

With this denoiser a run is affine in its first latent and in every draw, so that one run with a row for the answer to each draw
gives mean and variance of the results exactly. But for flow Heun with churn the means are the data's to rounding. The figures
are the largest relative error of the deviation, from sigma {begin:g} to {end:g}, for "k_restart" to 0.05; the slope through the
last three is the weak order on these data. Consistency models are given the exact consistency function, with which they are right
in any number of steps; RePaint nothing of the picture, and two ways back up from each quarter.

| solver | weak order | measured | error in {steps[0]} steps | in {steps[1]} | in {steps[2]} | in {steps[3]} |
|---|---|---|---|---|---|---|
"""
END_NOTE = """
**Flow Heun's churn does not lead to the data.** Upstream's formula, which is EDM's, adds noise and leaves the picture's share
as it is; on a straight path the share must fall. With more steps the error stays: deviation and mean are both wrong. Nor does
flow LCM, which is flow Euler's `stochastic_sampling` too, with a denoiser instead of a consistency function.

**SDE-DPM-Solver 2 in several steps is of weak order 2** on these data: the noise of the step before, which the extrapolation
carries on, stands in for that of this step, and has the same variance. In single steps it is of order 1. DPM2 ancestral and
DPM++ 2S a are of order 2 here too, and so is DPM++ 3M SDE, half of whose curvature is missing.

**DPM++ SDE is of order 2 where its two noises are of one path**, as DPM-Solver SDE's are, and of order 1 where they are drawn
apart: the noise of the first half of a step must be a part of that of the whole.

**The corrections of the variance-exploding SDE leave an error.** Langevin's steps have a length that does not depend on how many
steps there are: from normals of variance v they lead to v / (1 - snr^2), which for the default 0.15 is a deviation 1.15 %
too large. The order in the table is that without them.
"""
SHOWN = {
    "Euler": "#888888", "DDIM": "#bb9955", "Heun": "#1f77b4", "DPM2": "#17becf",
    "DPM-Solver++ 2 midpoint, several steps": "#2ca02c",
    "DPM-Solver++ 3, several steps": "#d62728", "PNDM, steps even in log sigma": "#8c564b", "LMS 3": "#e377c2",
    "DEIS 3": "#9467bd", "DPM-Solver++ 3 heun, single steps": "#ff7f0e", "UniPC 2 bh2": "#bcbd22", "LMS 4": "#7f3f98",
    "UniPC 3 bh2": "#000000",
}  # fmt: skip
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 560, 70, 330, 30, 50


def row(rung: Rung, errors: Sequence[float]) -> str:
    """A line of the table."""
    measured = f"{slope(LADDER, errors):.2f}"
    return f"| {rung.name} | {rung.said} | {measured} | " + " | ".join(f"{e:.1e}" for e in errors[::2]) + f" | {rung.why} |"


def plot(found: dict[str, list[float]]) -> str:
    """Errors over steps, both on logarithmic axes, as SVG."""
    low, high = -11, 0

    def place(n: float, error: float) -> tuple[float, float]:
        first, last = math.log(LADDER[0]), math.log(LADDER[-1])
        x = LEFT + (WIDTH - LEFT - RIGHT) * (math.log(n) - first) / (last - first)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(error)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for power in range(low, high + 1):
        _, y = place(LADDER[0], 10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e0e0e0"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for n in LADDER:
        x, y = place(n, 10.0**low)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{n}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">steps</text>')
    labels = sorted(SHOWN, key=lambda name: place(1, found[name][-1])[1])
    text = TOP - 16.0
    for name in labels:
        points = [place(n, e) for n, e in zip(LADDER, found[name], strict=True)]
        text = max(points[-1][1], text + 16)
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{SHOWN[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{text + 4:.1f}" fill="{SHOWN[name]}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Measure and write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = {rung.name: rung.errors(LADDER) for rung in RUNGS}
    ratios = " and ".join(
        f"{found[f'{name} 2 heun, several steps'][-1] / found[f'{name} 3, several steps'][-1]:.2f}"
        for name in ("DPM-Solver++", "DPM-Solver")
    )
    noisy = []
    for chance in CHANCES:
        errors = chance.errors(SHORT)
        measured = "exact" if chance.order is None else f"{slope(SHORT, errors):.2f}"
        said = {None: "exact", 0: "none"}.get(chance.order, str(chance.order))
        noisy.append(f"| {chance.name} | {said} | {measured} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")
    page = HEAD + "\n".join(row(rung, found[rung.name]) for rung in RUNGS) + "\n" + NOTES.format(ratios=ratios)
    page += NOISY.format(begin=BEGIN, end=END, steps=SHORT) + "\n".join(noisy) + "\n" + END_NOTE
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "order.md").write_text(page, encoding="utf-8")
    (FOLDER / "order.svg").write_text(plot(found), encoding="utf-8")
    print(f"wrote docs/samplers/order.md and order.svg: {len(RUNGS)} and {len(CHANCES)} solvers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
