"""Write docs/golden/bugs.md, the bugs of ports that refdiff knows by name: python tools/bugs_page.py

With --check: is the page up to date? Exit code 1 where it is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from refdiff.golden import mutants
from refdiff.golden.mutants import Mutant

PAGE = Path(__file__).resolve().parent.parent / "docs" / "golden" / "bugs.md"
HEAD = """# The bugs of ports that refdiff knows by name

Written by `python tools/bugs_page.py` from refdiff/golden/mutants/bugs.toml; do not edit. {count} bugs, each made by a small
change of refdiff's own text, so that `diagnose` can tell which of them explains another program's tensors. "First seen in"
names the stages of a trace where a bug can show before anything else does; those behind "and" stand beside the story of text
to image (`extras` of `record`). Of a bug that has no link no public thread is known.
"""
STORY = ("tokens", "text_encoder", "schedule", "noise", "loop", "unet", "guidance", "vae", "pixels")
TITLES = {
    "tokens": "Tokenizer",
    "text_encoder": "Text encoder",
    "schedule": "Tables",
    "noise": "Noise",
    "loop": "Loop",
    "unet": "U-Net",
    "guidance": "Guidance",
    "vae": "Autoencoder",
    "pixels": "Pixels",
    "": "From a picture to latents, state, other models",
}


def page() -> str:
    """The page, by the first stage of the story in which a bug can show."""
    bugs = mutants.mutants()
    parts = [HEAD.format(count=len(bugs))]
    for stage, title in TITLES.items():
        chosen = [bug for bug in bugs if first_stage(bug) == stage]
        parts += [f"## {title}\n", *map(entry, chosen)] if chosen else []
    return "\n".join(parts)


def first_stage(bug: Mutant) -> str:
    """The earliest stage of the story in which it can show; "" where it is beside the story."""
    return next((stage for stage in STORY if stage in bug.stages), "")


def entry(bug: Mutant) -> str:
    """One bug."""
    inside = [stage for stage in STORY if stage in bug.stages]
    beside = [stage for stage in bug.stages if stage not in STORY]
    seen = " and ".join(", ".join(f"`{name}`" for name in names) for names in (inside, beside) if names)
    lines = [
        f"### {bug.id}: {bug.title}\n",
        f"{bug.why}\n",
        f"- Look at: {bug.where}",
        f"- First seen in: {seen}",
        f"- Made as: {'; '.join(bug.variants)}",
    ]
    if bug.links:
        lines.append(f"- Happened in: {', '.join(map(linked, bug.links))}")
    return "\n".join(lines) + "\n"


def linked(thread: str) -> str:
    """owner/repository#number as a link."""
    repository, number = thread.split("#")
    return f"[{thread}](https://github.com/{repository}/issues/{number})"


def main() -> int:
    """Write the page, or say whether it is as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is not up to date")
    if parser.parse_args().check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        print("up to date" if current else f"{PAGE.name} is not up to date: run python tools/bugs_page.py")
        return 0 if current else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
