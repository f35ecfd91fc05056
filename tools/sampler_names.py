"""Write docs/samplers/names.md from the table of names: python tools/sampler_names.py [--check]"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from refdiff.cli.samplers import HEADINGS, PROGRAMS, samplers  # noqa: E402
from refdiff.errors import BadRequest  # noqa: E402
from refdiff.samplers import absent  # noqa: E402
from refdiff.samplers.grids_webui import BETWEEN_ENDS, SCHEDULES, WITH_RHO, align_your_steps, align_your_steps_short  # noqa: E402
from refdiff.samplers.names import ENDINGS, RULE, SCHEDULES_OF, SHORT_NAMES, Entry, named, offered  # noqa: E402
from refdiff.samplers.schedulers import FAMILIES  # noqa: E402
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES  # noqa: E402

PAGE = ROOT / "docs" / "samplers" / "names.md"
HEAD = """# Samplers and schedules by their names

Written by `python tools/sampler_names.py`; do not edit. `refdiff samplers` prints the same list.

## How a name is looked up

{rule}

## Samplers

Orders are measured: [order.md](order.md). Where noise is drawn, the order is that of the variance. Names in the column
"diffusers" that begin with "k_diffusion." are those of k-diffusion's functions, with options of our own: `schedule` and others.

{samplers}

ComfyUI's {comfyui}, and AUTOMATIC1111's {automatic1111}, stand for the class of diffusers that has the same method: its times
and its arithmetic, by the model's own configuration. All other names of the two programs stand for k-diffusion's samplers, with
the program's own tables.

AUTOMATIC1111's short names are taken too: {short}; an ending "_ka" is Karras, "_exp" exponential.

## What a program's name brings with it

Beside what the name here has by default (`schedule` uniform, `initial` sigma, `times` interpolated, `sigma_table` compvis). Every
name of ComfyUI for a k_ sampler brings {common}; a schedule at the end of a name takes the place of the one here.

{brought}

## Schedules

A name here may end in any of the first column, with a k_ sampler. A program's name may end in what its own column says.

{schedules}

Samplers of diffusers' classes may end in these, where the class has the option: {endings}.

## What is not here

These names are refused with the name of what is near.

{absent}
"""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join("" if cell == "-" else cell for cell in line) + " |" for line in lines)


def brought() -> list[list[str]]:
    """For each name that brings options of its own, these."""
    found = []
    for program, common in (("comfyui", COMMON), ("automatic1111", {})):
        for entry in offered():
            more = {key: value for key, value in entry.options_in(program).items() if common.get(key) != value}
            if entry.name_in(program) and more and entry.family in K_FAMILIES:
                found.append([PROGRAMS[program], entry.name_in(program), entry.family, listed(more)])
    return found


COMMON = Entry("k_diffusion.sample_euler", "", "", "").options_in("comfyui")


def listed(options: dict[str, object]) -> str:
    """Options as text."""
    return ", ".join(f"{key} {str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items())


def schedules() -> list[list[str]]:
    """For each schedule its names, which ends and exponent it has, and what it is."""
    found = []
    for name, function in SCHEDULES.items():
        maker = {"align_your_steps": align_your_steps, "align_your_steps_a1111": align_your_steps_short}
        about = maker.get(name.replace("_sdxl", ""), function)
        names = [", ".join(own for own, meant in SCHEDULES_OF[p].items() if meant == name) for p in list(PROGRAMS)[1:]]
        takes = [option for option, able in (("sigma_min, sigma_max", BETWEEN_ENDS), ("rho", WITH_RHO)) if name in able]
        found.append([name, *names, ", ".join(takes), sentence(inspect.getdoc(about) or "")])
    return found


def sentence(doc: str) -> str:
    """The first paragraph, without the shapes."""
    return " ".join(doc.partition("\n\n")[0].partition("  Shapes:")[0].split())


def classes_of(program: str) -> str:
    """A program's names for which a class of diffusers stands."""
    names = [entry.name_in(program) for entry in offered() if entry.family not in K_FAMILIES]
    return ", ".join(name for name in names if name)


def page() -> str:
    """The whole page."""
    missing = [(name, "sampler", *of) for name, of in absent.SAMPLERS.items()]
    missing += [(name, "schedule", *of) for name, of in absent.SCHEDULES.items()]
    able = {ending: [name for name in FAMILIES if name not in K_FAMILIES and follows(name, ending)] for ending in ENDINGS}
    return wrapped(
        HEAD.format(
            rule="\n".join("- " + line for line in RULE),
            samplers=table(HEADINGS, samplers()),
            comfyui=classes_of("comfyui"),
            automatic1111=classes_of("automatic1111"),
            short=", ".join(SHORT_NAMES),
            common=listed(COMMON),
            brought=table(("program", "name", "here", "options"), brought()),
            schedules=table(("here", *list(PROGRAMS.values())[1:], "options", "what it is"), schedules()),
            endings="; ".join(f"{ending} ({', '.join(names)})" for ending, names in able.items()),
            absent=table(("name", "what", "of", "near"), missing),
        )
    )


def follows(name: str, ending: str) -> bool:
    """Whether a family here can have an ending."""
    try:
        return bool(named(f"refdiff:{name} {ending}"))
    except BadRequest:
        return False


def wrapped(text: str) -> str:
    """The same with its prose in lines of 130."""
    parts = []
    for part in text.strip().split("\n\n"):
        indent = "  " if part.startswith("- ") else ""
        lines = part.splitlines() if part.startswith(("|", "- ")) else [" ".join(part.split())]
        parts.append(
            "\n".join(
                line if line.startswith("|") else textwrap.fill(line, 130, subsequent_indent=indent, **PROSE) for line in lines
            )
        )
    return "\n\n".join(parts) + "\n"


PROSE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def main() -> int:
    """Write the page, or say whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is not up to date")
    if parser.parse_args().check:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE.relative_to(ROOT)} is {'up to date' if same else 'not up to date: run python tools/sampler_names.py'}")
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
