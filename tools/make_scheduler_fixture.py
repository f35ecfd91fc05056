"""Make the fixtures of schedules, normals and samplers with torch and diffusers: python tools/make_scheduler_fixture.py

Writes tests/diffusion/tables.json, tests/diffusion/normals.json and tests/samplers/tables.json. Needs the `parity` extra.
A long row of numbers is stored at a few places, and whole as the sha256 of its bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

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

STEPS = [1, 2, 3, 7, 10, 20, 50, 999, 1000]
SPACINGS = {
    "DDIMScheduler": ["leading", "trailing", "linspace"],
    "EulerDiscreteScheduler": ["leading", "trailing", "linspace"],
    "PNDMScheduler": ["leading", "trailing", "linspace"],
}
OPTIONS = {"DDIMScheduler": {"clip_sample": False}, "EulerDiscreteScheduler": {}, "PNDMScheduler": {"skip_prk_steps": True}}


def sha256(values: np.ndarray) -> str:
    """Of the bytes in little-endian order."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


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


def grid(class_name: str, config: dict[str, Any], steps: int) -> dict[str, Any]:
    """The times of the calls, the sigma of each step and where the last one goes, the scale of the first latent."""
    scheduler = getattr(diffusers, class_name)(**config)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.numpy()
    if class_name == "EulerDiscreteScheduler":
        sigmas = scheduler.sigmas.numpy().astype(np.float64)
    else:
        alphas = scheduler.alphas_cumprod.numpy().astype(np.float64)
        visited = [t for i, t in enumerate(times) if i == 0 or t != times[i - 1]]
        end = visited[-1] - scheduler.config.num_train_timesteps // steps
        signal = np.append(alphas[visited], alphas[end] if end >= 0 else float(scheduler.final_alpha_cumprod))
        sigmas = np.sqrt((1.0 - signal) / signal)
    at = sorted({i % len(sigmas) for i in (0, 1, 2, 3, len(sigmas) // 2, -3, -2, -1)})
    return {
        "steps": steps,
        "timesteps": {"dtype": str(times.dtype), "length": len(times), "sha256": sha256(times)},
        "sigmas": {"length": len(sigmas), "at": at, "values": [float(s) for s in sigmas[at]]},
        "initial": float(scheduler.init_noise_sigma),
    }


def samplers() -> list[dict[str, Any]]:
    """Every scheduler, spacing and number of steps, with the options of two checkpoints."""
    rows = []
    for class_name, spacings in SPACINGS.items():
        for spacing in spacings:
            for schedule, offset, to_one in (("scaled_linear", 1, False), ("linear", 0, True)):
                config = {**OPTIONS[class_name], **SCHEDULES[schedule], "timestep_spacing": spacing, "steps_offset": offset}
                config |= {} if class_name == "EulerDiscreteScheduler" else {"set_alpha_to_one": to_one}
                # With an offset, 1000 leading steps begin at time 1000, which is beyond the table.
                counts = [n for n in STEPS if not (spacing == "leading" and offset + (n - 1) * (1000 // n) > 999)]
                grids = [grid(class_name, config, n) for n in counts]
                rows.append({"config": {"_class_name": class_name, **config}, "grids": grids})
    return rows


def write(path: Path, rows: list[dict[str, Any]], **shared: Any) -> None:
    """One row a line."""
    head = json.dumps({"made_by": MADE_BY, **shared})[:-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n", encoding="ascii")
    print(f"{path.relative_to(TESTS.parent)}: {len(rows)} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    write(TESTS / "diffusion" / "tables.json", schedules())
    write(TESTS / "diffusion" / "normals.json", normals(), shapes=DRAWS)
    write(TESTS / "samplers" / "tables.json", samplers())
