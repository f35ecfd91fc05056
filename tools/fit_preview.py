"""Find the colours of a model's latents for `refdiff generate --preview`: python tools/fit_preview.py weights/embedded

Pictures are drawn of prompts, and the mean colour of each latent pixel's square is fitted to its channels by least squares; the
share of the colours' variance that is explained is told for pictures that were not used. --write puts them into refdiff.json,
and, of a model in weights/, the file's hash into manifest.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

import refdiff
from refdiff.training import shapes


def main() -> None:
    """Draw, fit, and say how well it fits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=Path, help="a file with a prompt a line; default: captions of the set 'shapes'")
    parser.add_argument("--count", type=int, default=60, help="of pictures, a third of which judge, default 60")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    pipe = refdiff.load(asked.model)
    prompts = asked.prompts.read_text().splitlines() if asked.prompts else captions(asked.count)
    channels, colours = zip(*(drawn(pipe, text, seed) for seed, text in enumerate(prompts[: asked.count])), strict=True)
    used = 2 * len(channels) // 3
    found = np.linalg.lstsq(np.concatenate(channels[:used]), np.concatenate(colours[:used]), rcond=None)[0]
    want, got = np.concatenate(colours[used:]), np.concatenate(channels[used:]) @ found
    explained = 1.0 - ((got - want) ** 2).sum() / ((want - want.mean(axis=0)) ** 2).sum()
    rows = [[round(float(value), 4) for value in row] for row in found]
    print(f"explained of {len(channels) - used} other pictures: {100 * explained:.1f} %\nlatent_colours: {rows}")
    if asked.write:
        write(asked.model, rows)


def captions(count: int) -> list[str]:
    """Of so many scenes."""
    return [shapes.scene(0, index, two_share=0.5, split="train").caption for index in range(count)]


def drawn(pipe: refdiff.Pipeline, text: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The channels of every latent pixel, with a 1 for the offset, and the mean colour of its square.  Shapes: [P,C+1], [P,3]"""
    out = pipe(text, seed=seed)
    f, latents = pipe.downscale, out.latents[0]
    height, width = latents.shape[1:]
    picture = np.asarray(out.images[0], dtype=np.float64) / 127.5 - 1.0
    squares = picture.reshape(height, f, width, f, 3).mean(axis=(1, 3)).reshape(-1, 3)
    return np.column_stack([latents.reshape(len(latents), -1).T, np.ones(height * width)]), squares


def write(model: Path, rows: list[list[float]]) -> None:
    """Into refdiff.json, and its hash into the manifest that stands beside the model, if one does."""
    file, manifest = model / "refdiff.json", model.parent / "manifest.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**told, "latent_colours": rows}, indent=2) + "\n")
    if manifest.exists():
        entries = json.loads(manifest.read_text())
        entries[model.name]["sha256"]["refdiff.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
