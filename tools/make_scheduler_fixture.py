"""Make the fixtures of schedules, normals and samplers with torch and diffusers: python tools/make_scheduler_fixture.py

Writes tables.json and normals.json of tests/diffusion, tables.json and trajectories.json of tests/samplers; with --check it
only says whether those that are there are right, and ends with 1 if not. Needs the `parity` extra, and some minutes. A long
row of numbers is stored at a few places, and whole as the sha256 of its bytes. The samplers' cases are those of
tests/samplers/all_cases.py: run this again when they change.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import sampler_tables
import sampler_trajectories
import torch
from sampler_tables import sha256

TESTS = Path(__file__).resolve().parent.parent / "tests"
MADE_BY = f"tools/make_scheduler_fixture.py, torch {torch.__version__.split('+')[0]}, diffusers {diffusers.__version__}"

SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}
AT = [0, 1, 2, 3, 10, 100, 250, 499, 500, 501, 750, 900, 998, 999]

SEEDS = [0, 1, 42, 1234567890, 2**32 - 1, 2**32 + 5, 2**64 - 1]
# One after another from one seed: an odd number of single draws keeps half a pair over the block draws in between.
DRAWS = [[3], [16], [17], [2], [1, 4, 16, 16], [2, 3]]


def schedules() -> list[dict[str, Any]]:
    """alphas_cumprod, float32."""
    rows = []
    for options in SCHEDULES.values():
        table = diffusers.DDIMScheduler(**options).alphas_cumprod.numpy()
        rows.append({**options, "at": AT, "alphas_cumprod": [float(a) for a in table[AT]], "sha256": sha256(table)})
    return rows


def normals() -> list[dict[str, Any]]:
    """torch.randn, float32, little-endian, in base64."""
    rows = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        draws = [torch.randn(shape).numpy().astype("<f4").tobytes() for shape in DRAWS]
        rows.append({"seed": seed, "draws": [base64.b64encode(d).decode("ascii") for d in draws]})
    return rows


def files() -> dict[str, str]:
    """The text of every fixture, by its path under tests/."""
    return {
        "diffusion/tables.json": text(rows=schedules()),
        "diffusion/normals.json": text(shapes=DRAWS, rows=normals()),
        "samplers/tables.json": text(**sampler_tables.sampler_tables()),
        "samplers/trajectories.json": text(runs=sampler_trajectories.trajectories()),
    }


def text(**rows: Any) -> str:
    """JSON with one row, or one entry, a line."""
    parts = [f'"made_by": {json.dumps(MADE_BY)}']
    for name, found in rows.items():
        if isinstance(found, dict):
            lines, ends = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()], "{}"
        else:
            lines, ends = [json.dumps(row) for row in found], "[]"
        parts.append(f'"{name}": {ends[0]}\n' + ",\n".join(lines) + f"\n{ends[1]}")
    return "{" + ",\n".join(parts) + "}\n"


def check(made: dict[str, str]) -> int:
    """Say which of the stored fixtures are not those that are made now; 1 if there are any."""
    found, differences = [], {
        "samplers/tables.json": sampler_tables.differences, "samplers/trajectories.json": sampler_trajectories.differences,
    }  # fmt: skip
    for name, text in made.items():
        stored = json.loads((TESTS / name).read_text(encoding="ascii"))
        if name in differences:
            found += [f"tests/{name}: {line}" for line in differences[name](stored, json.loads(text))]
        elif stored["rows"] != json.loads(text)["rows"]:
            found.append(f"tests/{name}: other rows")
    print("\n".join(sorted(found)) or "fixtures: as upstream has it")
    return 1 if found else 0


def main() -> int:
    """Write, or with --check compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a fixture is not upstream's")
    asked = parser.parse_args()
    made = files()
    if asked.check:
        return check(made)
    for name, text in made.items():
        (TESTS / name).write_text(text, encoding="ascii")
        print(f"tests/{name}: {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
