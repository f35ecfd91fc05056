"""Every sampler on the embedded model, from the same noise at several numbers of steps: a sheet and a page under docs/samplers.

    python tools/sampler_pictures.py [--prompt TEXT] [--out docs/samplers]

Samplers that cannot be used with the model (they need another prediction, or go the other way) are named with the reason.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import refdiff
from refdiff.errors import BadRequest
from refdiff.samplers.schedulers import FAMILIES

STEPS = (5, 10, 20, 50)
SEEDS = (1, 2)
NAME_WIDTH, LINE = 150, 16
BACKWARD = {"ddim_inverse": "goes from a picture to its noise", "dpm_inverse": "goes from a picture to its noise"}


def main() -> None:
    """Read the command line, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a large red circle on a yellow background")
    parser.add_argument("--out", type=Path, default=Path("docs/samplers"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, left_out = [], dict(BACKWARD)
    pipe = refdiff.load()
    for name in FAMILIES:
        if name in BACKWARD:
            continue
        try:
            rows.append(row(pipe, name, args.prompt))
        except BadRequest as error:
            left_out[name] = str(error)
    sheet(rows).save(args.out / "pictures.png")
    (args.out / "pictures.md").write_text(page(rows, left_out, args.prompt), encoding="utf-8")
    print(f"{args.out / 'pictures.png'}: {len(rows)} samplers, {len(left_out)} left out")


def row(pipe, name: str, prompt: str) -> tuple[str, list[np.ndarray], list[float]]:
    """A sampler's name, its pictures, and the seconds of each number of steps."""
    pictures, seconds = [], []
    for steps in STEPS:
        start = time.perf_counter()
        images = pipe([prompt] * len(SEEDS), sampler=name, steps=steps, seed=list(SEEDS)).images
        seconds.append(time.perf_counter() - start)
        pictures += [np.asarray(image) for image in images]
    return name, pictures, seconds


def sheet(rows: list) -> Image.Image:
    """One line a sampler, its name on the left, the numbers of steps on top."""
    size = rows[0][1][0].shape[0]
    picture = Image.new("RGB", (NAME_WIDTH + len(STEPS) * len(SEEDS) * size, LINE + len(rows) * size), "white")
    draw = ImageDraw.Draw(picture)
    for i, steps in enumerate(STEPS):
        draw.text((NAME_WIDTH + i * len(SEEDS) * size + 4, 2), f"{steps} steps", fill="black")
    for y, (name, pictures, _) in enumerate(rows):
        draw.text((4, LINE + y * size + size // 2 - 6), name, fill="black")
        for x, pixels in enumerate(pictures):
            picture.paste(Image.fromarray(pixels), (NAME_WIDTH + x * size, LINE + y * size))
    return picture


def page(rows: list, left_out: dict[str, str], prompt: str) -> str:
    """The page around the sheet."""
    listed = "\n".join(f"- `{name}`: {reason}" for name, reason in left_out.items())
    return f"""# Every sampler, the same noise

Made by `python tools/sampler_pictures.py`: the embedded model, {prompt!r}, seeds {" and ".join(map(str, SEEDS))}.

![One line a sampler, {", ".join(map(str, STEPS))} steps from left to right](pictures.png)

Not for this model:

{listed}
"""


if __name__ == "__main__":
    main()
