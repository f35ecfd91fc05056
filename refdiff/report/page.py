"""The page for people: what was found, the curve, the pictures, every tensor. Nothing is fetched, no script runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from refdiff.golden.compare import FAIL, PASS, Report, Row, negative_first, recognised
from refdiff.golden.format import Trace
from refdiff.report.curve import curve, stage_of
from refdiff.report.pictures import channel_panels, final_panels, heat_map
from refdiff.report.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PIXELS = "pixels/image"
Story = Sequence[Mapping[str, Any]]


def as_html(report: Report, theirs: Trace, golden: Trace, *, names: tuple[str, str], story: Story | None) -> str:
    """The whole page. `names`: what both are called; `story`: the diagnosis as plain data, None where none was asked for."""
    theirs, _ = negative_first(theirs, golden)
    parts = [summary(report, golden, names), *(diagnosis(story) if story else ())]
    parts.append(section("The error through the run", curve(report.rows)))
    parts += pictures(report, theirs, golden)
    parts.append(section("Every tensor", tables(report.rows) + extra(report)))
    title = escape(f"{names[0]} beside {names[1]}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A box with a heading."""
    return f"<section><h2>{title}</h2>{body}</section>"


def summary(report: Report, golden: Trace, names: tuple[str, str]) -> str:
    """Whether it is right, which tensor is wrong first, and how many have which outcome."""
    first = report.first_wrong
    badge = '<span class="badge good">PASS</span>' if report.passed else '<span class="badge bad">FAIL</span>'
    counts = [(report.count(outcome), outcome) for outcome in ("pass", "fail", "missing", "unsupported")]
    counts += [(len(report.extra), "not golden")] if report.extra else []
    told = "".join(f"<li><b>{count}</b>{escape(outcome)}</li>" for count, outcome in counts)
    wrong = "" if first is None else f"<p>First wrong: <code>{escape(first.name)}</code>. {escape(reason(first))}</p>"
    return (
        f"<section><h1>{badge}{escape(names[0])} <span class=soft>beside</span> {escape(names[1])}</h1>"
        f'<p class="soft">{of_the_run(golden.manifest)}</p>{wrong}<ul class="counts">{told}</ul></section>'
    )


def of_the_run(manifest: Mapping[str, Any]) -> str:
    """What was drawn, with which model, in one line."""
    inputs, model = manifest.get("inputs", {}), manifest.get("model", {})
    told = [f"model {model['name']}"] if "name" in model else []
    told += [f"prompt “{inputs['prompt']}”"] if "prompt" in inputs else []
    told += [f"{key} {inputs[key]}" for key in ("steps", "sampler", "guidance", "width", "height") if key in inputs]
    return escape(", ".join(told)) or "The golden tensors have no manifest."


def reason(row: Row) -> str:
    """Why a tensor fails, in a sentence."""
    if row.measure is None:
        return f"{row.note}."
    if row.added is None:
        return f"Its relative error is {number(row.measure.relative)}; allowed are {number(row.bound)}. {row.note}".strip()
    return (
        f"Its own part adds an error of {number(row.added)}, allowed are {number(row.bound)}; what it inherits is "
        f"{number(row.inherited)}. {row.note}"
    ).strip()


def diagnosis(story: Story) -> Iterator[str]:
    """A box for each wrong place."""
    for k, finding in enumerate(story):
        body = f"<p>At <code>{escape(finding['tensor'])}</code></p>" + bars(finding)
        body += "".join(f"<p>It looks like this: {escape(mark)}.</p>" for mark in finding["looks_like"])
        body += cause(finding["cause"]) if finding["cause"] else "<p class=strong>None of the bugs that I know explains it.</p>"
        if finding["nearest"]:
            near = "".join(
                f"<li><code>{escape(s['name'])}</code>: {escape(s['title'])}; with it {number(s['after'])} are left</li>"
                for s in finding["nearest"]
            )
            body += f"<h3>Bugs that come less near</h3><ul>{near}</ul>"
        yield section("The bug" if k == 0 else "With that mended, the next", body)


def bars(finding: Mapping[str, Any]) -> str:
    """The errors of a wrong tensor as bars on a logarithmic scale, and the error that is left with the bug in our text."""
    told = [
        ("inherited", finding["inherited"], "inherited"),
        ("added here", finding["added"], "bad"),
        ("bound", finding["bound"], "bound"),
    ]
    if finding["cause"]:
        told.append(("added, with the bug in our text", finding["cause"]["after"], "good"))
    shown = [(label, x, colour) for label, x, colour in told if x is not None]
    found = []
    for label, x, colour in shown:
        share = 0.0 if x <= 0.0 else min(max((math.log10(x) + 17.0) / 18.0, 0.0), 1.0)
        bar = f'<i style="width:{100 * share:.1f}%;background:var(--{colour})"></i>'
        found.append(f"<span>{label}</span><span>{bar}</span><span>{number(x)}</span>")
    return f'<div class="bars">{"".join(found)}</div>' if found else ""


def cause(found: Mapping[str, Any]) -> str:
    """The bug that explains a wrong tensor, or both of them."""
    parts = []
    for bug in found["bugs"]:
        links = ", ".join(f'<a href="{escape(link)}" rel="noreferrer">{escape(link_name(link))}</a>' for link in bug["links"])
        variant = f"<span class=soft>({escape(bug['variant'])})</span>"
        parts.append(
            f'<div class="cause"><h3>{escape(bug["id"])}: {escape(bug["title"])} {variant}</h3>'
            f"<p>{escape(bug['why'])}</p><p><span class=strong>Where to look:</span> {escape(bug['where'])}.</p>"
            + (f"<p class=soft>Happened in {links}</p>" if links else "")
            + "</div>"
        )
    return "".join(parts)


def link_name(link: str) -> str:
    """A thread as people write it: owner/repository#number."""
    return link.removeprefix("https://github.com/").replace("/issues/", "#")


def pictures(report: Report, theirs: Trace, golden: Trace) -> Iterator[str]:
    """The first wrong tensor as pictures, and the pictures that both drew; what has another shape has none."""
    inputs = golden.manifest.get("inputs", {})
    sides = [inputs.get(key) for key in ("height", "width")]
    aspect = sides[0] / sides[1] if all(isinstance(n, int) and n > 0 for n in sides) else 1.0
    first = report.first_wrong
    pair = None if first is None else both(first.name, theirs, golden)
    if first is not None and pair is not None and first.name != PIXELS:
        shown = channel_panels(first.name, *pair, aspect) + heat_map(first.name, *pair, aspect)
        yield section(f"The first wrong tensor: <code>{escape(first.name)}</code>", f'<div class="beside">{shown}</div>')
    drawn = both(PIXELS, theirs, golden)
    if drawn is not None and drawn[0].ndim == 4 and drawn[0].shape[-1] == 3:
        yield section("What both drew", final_panels(*drawn))


def both(name: str, theirs: Trace, golden: Trace) -> tuple[Any, Any] | None:
    """Their tensor, in the golden layout, and the golden one; None where they cannot be laid side by side."""
    if name not in theirs.tensors or name not in golden.tensors:
        return None
    want = golden.tensors[name]
    got = recognised(theirs.tensors[name], want)[0]
    return (got, want) if got.shape == want.shape and got.size else None


def tables(rows: Sequence[Row]) -> str:
    """A table for each stage, open where something fails."""
    parted = any(row.added is not None for row in rows)
    found = []
    for stage, group in groupby(rows, key=stage_of):
        members = list(group)
        failed = sum(row.outcome == FAIL for row in members)
        passed = sum(row.outcome == PASS for row in members)
        told = f"{passed} of {len(members)} pass" + (f", <span class=bad>{failed} fail</span>" if failed else "")
        lines = "".join(line(row, parted=parted) for row in members)
        found.append(
            f"<details{' open' if failed else ''}><summary>{escape(stage)} <span class=soft>({told})</span></summary>"
            f"<table><thead><tr>{heading(parted=parted)}</tr></thead><tbody>{lines}</tbody></table></details>"
        )
    return "".join(found)


def heading(*, parted: bool) -> str:
    """The names of the columns."""
    own = '<th class="n wide">inherited</th><th class=n>added</th>' if parted else ""
    rest = "".join(f'<th class="n wide">{name}</th>' for name in ("largest", "cosine", "ulp"))
    return f"<th>tensor</th><th>outcome</th><th class=wide>kind</th><th class=n>error</th>{own}<th class=n>bound</th>{rest}"


def line(row: Row, *, parted: bool) -> str:
    """One tensor."""
    m = row.measure
    own = f'<td class="n wide">{number(row.inherited)}</td><td class=n>{number(row.added)}</td>' if parted else ""
    note = f'<br><span class="soft">{escape(row.note)}</span>' if row.note else ""
    rest = ("–",) * 3 if m is None else (number(m.largest), f"{m.cosine:.6f}", f"{m.ulp:.3g}")
    return (
        f'<tr class="{row.outcome}"><td>{escape(row.name.rpartition("/")[2])}{note}</td><td>{row.outcome}</td>'
        f"<td class=wide>{escape(row.kind)}</td><td class=n>{number(m.relative if m else None)}</td>{own}"
        f"<td class=n>{number(row.bound)}</td>" + "".join(f'<td class="n wide">{told}</td>' for told in rest) + "</tr>"
    )


def extra(report: Report) -> str:
    """Their tensors that are not golden."""
    if not report.extra:
        return ""
    names = ", ".join(f"<code>{escape(name)}</code>" for name in report.extra)
    return f"<details><summary>{len(report.extra)} of theirs are not golden</summary><p>{names}</p></details>"


def number(x: float | None) -> str:
    """Two figures, a dash where there is none."""
    return "–" if x is None else "0" if x == 0.0 else f"{x:.1e}"
