"""docs/samplers/names.md is what its tool makes of the table of names, and has every name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from refdiff.samplers import absent
from refdiff.samplers.grids_webui import SCHEDULES
from refdiff.samplers.names import offered
from refdiff.samplers.schedulers import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "samplers" / "names.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "tools" / "sampler_names.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_every_name():
    cells = {cell.strip() for line in PAGE.splitlines() if line.startswith("|") for cell in line.split("|")}
    names = {name for entry in offered() for name in (entry.comfyui, entry.automatic1111, entry.k_diffusion)}
    for name in (*FAMILIES, *SCHEDULES, *absent.SAMPLERS, *absent.SCHEDULES, *(names - {""})):
        assert name in cells, name
