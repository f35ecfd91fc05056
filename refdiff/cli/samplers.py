"""The list of samplers as lines of text."""

from __future__ import annotations

from typing import Any

HEADINGS = ("here", "ComfyUI", "AUTOMATIC1111", "k-diffusion", "diffusers", "order", "calls a step", "noise", "source")
PROGRAMS = {"refdiff": "here", "comfyui": "ComfyUI", "automatic1111": "AUTOMATIC1111", "k-diffusion": "k-diffusion"}


def lines() -> list[str]:
    """A heading and a line for each sampler, in columns; the schedules by which names may end; and how a name is looked up."""
    from refdiff.samplers.names import RULE

    rows = [HEADINGS, *samplers()]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        *table,
        "",
        "Schedules, as endings of names:",
        *schedules(),
        "",
        "How a name is looked up:",
        *("- " + rule for rule in RULE),
    ]


def samplers() -> list[tuple[str, ...]]:
    """The cells of every sampler."""
    from refdiff.samplers.names import offered

    return [cells(entry) for entry in offered()]


def cells(entry: Any) -> tuple[str, ...]:
    """One sampler's cells; a dash where it has no name."""
    from refdiff.samplers.schedulers import FAMILIES

    family = FAMILIES[entry.family]
    options = ", ".join(f"{key} {value}" for key, value in entry.options.items())
    scheduler = f"{entry.class_name} ({options})" if options else entry.class_name
    here = "-" if options else entry.family  # the family's own name has the family's own options
    names = (here, entry.comfyui, entry.automatic1111, entry.k_diffusion)
    noise = "yes" if family.draws({**family.defaults, **entry.options}, family.settings) else "no"
    return (*(name or "-" for name in names), scheduler, entry.order, entry.calls, noise, entry.source)


def schedules() -> list[str]:
    """A line for each program, and one for the samplers of diffusers."""
    from refdiff.samplers.names import ENDINGS, SCHEDULES_OF

    found = [f"- {title}, with k_ samplers: {', '.join(SCHEDULES_OF[program])}" for program, title in PROGRAMS.items()]
    return [*found, f"- diffusers' samplers, where their class can: {', '.join(ENDINGS)}"]
