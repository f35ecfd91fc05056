"""docs/golden/tutorial.md: its commands, run as they stand, print what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "golden" / "tutorial.md").read_text(encoding="utf-8")
REFDIFF = [sys.executable, "-c", "from refdiff.cli import main; main()"]
BUGS = ("GEGLU.forward = swapped\n", "for name, module in pipe.unet", "    if name.endswith", "        module.eps")


def shown() -> list[tuple[str, list[str]]]:
    """Every command of the page and the lines that stand under it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```\n(\$ .*?)```", PAGE, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


def blurred(line: str) -> str:
    """Without the digits of small numbers, which depend on the machine."""
    return re.sub(r"\d\.\de-(0[4-9])", r"#e-\1", line.strip())


def ran(command: str, folder: Path) -> str:
    words = shlex.split(command)
    program = {"refdiff": REFDIFF, "python": [sys.executable]}[words[0]]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([*program, *words[1:]], cwd=folder, env=there, capture_output=True, text=True, timeout=600, check=False)
    assert "Traceback" not in run.stderr, run.stderr
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What every command prints, in one folder; the port is mended where the page says so."""
    folder = tmp_path_factory.mktemp("tutorial")
    port = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
    mended = "".join(line for line in port.splitlines(keepends=True) if not line.startswith(BUGS))
    assert port.count("# bug") == 2 and mended.count("# bug") == 1  # the swapped halves are no longer put in
    found = []
    for command, _ in shown():
        (folder / "port.py").write_text(
            mended if any(c.startswith("refdiff diagnose") for c, _ in shown()[: len(found)]) else port
        )
        found.append(ran(command, folder))
    return found


def test_the_page_has_its_commands():
    assert [command.split()[0:2] for command, _ in shown()] == [
        ["refdiff", "synth"], ["refdiff", "trace"], ["python", "port.py"], ["refdiff", "compare"], ["refdiff", "compare"],
        ["refdiff", "diagnose"], ["python", "port.py"], ["refdiff", "compare"],
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(8))
def test_prints_what_the_page_shows(outputs, number):
    command, lines = shown()[number]
    printed = [blurred(line) for line in outputs[number].splitlines()]
    for line in lines:
        if line.strip() not in ("", "..."):
            assert blurred(line) in printed, (command, line, outputs[number])
