"""Does the model draw what it is told? Random prompts, fresh noise, and a checker that is itself checked.

    python tools/check_embedded.py [--model DIR] [--count 300] [--seed 0] [--json FILE] [--sheet FILE.png]

For each kind of prompt (one thing; two things; pairs of colour and shape that training never showed) `count` pictures are
drawn and judged. The checker is first tried on as many pictures whose contents are known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from checker import Verdict, judge

import refdiff
from refdiff.training import shapes
from refdiff.training.shapes import Scene

KINDS = {
    "one": (0.0, "train"),
    "two": (1.0, "train"),
    "one, held out": (0.0, "heldout"),
    "two, held out": (1.0, "heldout"),
}
BATCH = 10


def main() -> int:
    """Read the command line, draw, judge, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--count", type=int, default=300, help="pictures of each kind in training; a third as many held out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    pipe = refdiff.load(args.model)
    results: dict[str, Any] = {"seed": args.seed, "steps": args.steps or pipe.defaults["steps"]}
    results["guidance"] = pipe.defaults["guidance"] if args.guidance is None else args.guidance
    results["checker on known pictures"] = {}
    print(f"{'kind':16} {'pictures':>8} {'things':>8} {'count':>8} {'ground':>8} {'relation':>9}   checker on known pictures")
    for kind, (two_share, split) in KINDS.items():
        count = args.count if split == "train" else max(args.count // 3, 1)
        scenes = [shapes.scene(args.seed + 1_000_003, i, two_share=two_share, split=split) for i in range(count)]
        known = figures(scenes, [judge(shapes.render(scene), scene) for scene in scenes])
        images = draw(pipe, scenes, args)
        verdicts = [judge(image, scene) for image, scene in zip(images, scenes, strict=True)]
        results[kind], results["checker on known pictures"][kind] = figures(scenes, verdicts), known
        f = results[kind]
        relation = "-" if f["relation"] is None else f"{f['relation']:.3f}"
        shares = " ".join(f"{f[name]:8.3f}" for name in ("things", "count", "background"))
        print(f"{kind:16} {count:8} {shares} {relation:>9}   {known['things']:.3f}")
        if args.sheet:
            name = args.sheet.with_name(f"{args.sheet.stem}-{kind.replace(', ', '-').replace(' ', '-')}.png")
            contact_sheet(images[:60], verdicts[:60], name)
    print("\nthings right, by shape and colour of the first thing, one thing:")
    for group in ("by shape", "by colour"):
        print("  " + ", ".join(f"{name} {share:.2f}" for name, share in results["one"][group].items()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def draw(pipe: Any, scenes: list[Scene], args: argparse.Namespace) -> list[np.ndarray]:
    """A picture for every scene's caption, each from a noise of its own."""
    images: list[np.ndarray] = []
    for first in range(0, len(scenes), BATCH):
        captions = [scene.caption for scene in scenes[first : first + BATCH]]
        seed = 7919 * (args.seed + 1) * 1000 + first
        out = pipe(captions, seed=seed, steps=args.steps, guidance=args.guidance)
        images += [np.asarray(image) for image in out.images]
    return images


def figures(scenes: list[Scene], verdicts: list[Verdict]) -> dict[str, Any]:
    """The shares of right pictures; `relation` among those whose things are right (and not both the same)."""
    relations = [v.relation for v in verdicts if v.relation is not None]
    by_shape, by_colour = defaultdict(list), defaultdict(list)
    for scene, verdict in zip(scenes, verdicts, strict=True):
        by_shape[scene.things[0].shape].append(verdict.things)
        by_colour[scene.things[0].colour].append(verdict.things)
    return {
        "pictures": len(verdicts),
        "things": share([v.things for v in verdicts]),
        "count": share([v.count for v in verdicts]),
        "background": share([v.background for v in verdicts]),
        "relation": share(relations) if relations else None,
        "by shape": {name: share(by_shape[name]) for name in sorted(by_shape)},
        "by colour": {name: share(by_colour[name]) for name in sorted(by_colour)},
    }


def share(values: list[bool]) -> float:
    """The share of true ones."""
    return round(sum(values) / len(values), 4)


def contact_sheet(images: list[np.ndarray], verdicts: list[Verdict], file: Path) -> None:
    """Ten pictures a row, a red bar under those whose things are wrong."""
    from PIL import Image

    tiles = []
    for image, verdict in zip(images, verdicts, strict=True):
        bar = np.full((4, image.shape[1], 3), 255 if verdict.things else 0, dtype=np.uint8)
        bar[:, :, 0] = 255
        tiles.append(np.concatenate([image, bar]))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 10)
    rows = [np.concatenate(tiles[i : i + 10], axis=1) for i in range(0, len(tiles), 10)]
    Image.fromarray(np.concatenate(rows)).save(file)


if __name__ == "__main__":
    sys.exit(main())
