"""Does the model draw what it is told? Random prompts, fresh noise, and a checker that is itself checked.

    python tools/check_embedded.py [--model DIR] [--count 300] [--seed 0] [--page DIR]

For each kind of prompt (one thing; two things; pairs of colour and shape that training never showed) `count` pictures are
drawn and judged. The checker is first tried on as many pictures whose contents are known, and on what the autoencoder makes
of these: better than that no picture can be. The page, README.md with its pictures and figures.json, says all of it.
Exit code 1: the shares of right pictures are below the bars.
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
from refdiff.core import primitive
from refdiff.models import vae
from refdiff.pipelines.text_to_image import pictures
from refdiff.training import shapes
from refdiff.training.data import to_model
from refdiff.training.shapes import Scene

KINDS = {
    "one": (0.0, "train"),
    "two": (1.0, "train"),
    "one, held out": (0.0, "heldout"),
    "two, held out": (1.0, "heldout"),
}
BARS = {"one": 0.95, "two": 0.85}  # of things right
BATCH = 10


def main() -> int:
    """Read the command line, draw, judge, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--count", type=int, default=300, help="pictures of each kind in training; a third as many held out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    if args.page:
        args.page.mkdir(parents=True, exist_ok=True)
    pipe = refdiff.load(args.model)
    results: dict[str, Any] = {"seed": args.seed, "steps": args.steps or pipe.defaults["steps"]}
    results["guidance"] = pipe.defaults["guidance"] if args.guidance is None else args.guidance
    results["eta"] = pipe.defaults["eta"] or 0.0
    results["kinds"] = {}
    print(f"{'kind':16} {'pictures':>8} {'things':>8} {'count':>8} {'ground':>8} {'relation':>9} {'checker':>8} {'decoder':>8}")
    for kind, (two_share, split) in KINDS.items():
        count = args.count if split == "train" else max(args.count // 3, 1)
        scenes = [shapes.scene(args.seed + 1_000_003, i, two_share=two_share, split=split) for i in range(count)]
        images = draw(pipe, scenes, args)
        verdicts = [judge(image, scene) for image, scene in zip(images, scenes, strict=True)]
        results["kinds"][kind] = {**figures(scenes, verdicts), **ceilings(pipe, scenes)}
        print(line(kind, results["kinds"][kind]), flush=True)
        if args.page:
            contact_sheet(images[:60], verdicts[:60], args.page / f"{file_name(kind)}.png")
    if args.page:
        (args.page / "figures.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (args.page / "README.md").write_text(page(results), encoding="utf-8")
    missed = [kind for kind, bar in BARS.items() if results["kinds"][kind]["things"] < bar]
    print("\n".join(f"{kind}: below the bar of {BARS[kind]:.0%}" for kind in missed) or "every bar is reached")
    return 1 if missed else 0


def ceilings(pipe: Any, scenes: list[Scene]) -> dict[str, float]:
    """How often the checker is right about known pictures, and about these as the autoencoder gives them back."""
    known = [shapes.render(scene) for scene in scenes]
    return {
        "checker": share([judge(image, scene).things for image, scene in zip(known, scenes, strict=True)]),
        "decoder": share([judge(image, s).things for image, s in zip(given_back(pipe, known), scenes, strict=True)]),
    }


def given_back(pipe: Any, images: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures encoded and decoded again."""
    out: list[np.ndarray] = []
    for first in range(0, len(images), BATCH):
        with primitive.mode(pipe.kernels):
            x = to_model(images[first : first + BATCH])
            latents, _ = vae.encode(pipe.vae.params, pipe.vae.config, x)
            out += [np.asarray(image) for image in pictures(pipe, np.asarray(latents) * pipe.vae.config.scaling_factor)]
    return out


def line(kind: str, f: dict[str, Any]) -> str:
    """A kind's figures in columns."""
    relation = "-" if f["relation"] is None else f"{f['relation']:.3f}"
    shares = " ".join(f"{f[name]:8.3f}" for name in ("things", "count", "background"))
    return f"{kind:16} {f['pictures']:8} {shares} {relation:>9} {f['checker']:8.3f} {f['decoder']:8.3f}"


def file_name(kind: str) -> str:
    """A kind as part of a file's name."""
    return kind.replace(", ", "-").replace(" ", "-")


def page(results: dict[str, Any]) -> str:
    """The figures as a page beside its pictures."""
    kinds = results["kinds"]
    rows = []
    for kind, f in kinds.items():
        relation = "-" if f["relation"] is None else f"{f['relation']:.1%} of {f['relations']}"
        bar = f"{BARS[kind]:.0%}" if kind in BARS else "-"
        shares = " | ".join(f"{f[name]:.1%}" for name in ("things", "count", "background"))
        rows.append(f"| {kind} | {f['pictures']} | {shares} | {relation} | {f['decoder']:.1%} | {f['checker']:.1%} | {bar} |")
    groups = [
        f"| {', '.join(kinds['one'][group])} |\n|{'---|' * len(kinds['one'][group])}\n".replace(", ", " | ")
        + f"| {' | '.join(f'{share:.0%}' for share in kinds['one'][group].values())} |"
        for group in ("by shape", "by colour")
    ]
    sheets = [f"## {kind}\n\n![sixty pictures]({file_name(kind)}.png)" for kind in kinds]
    return PAGE.format(
        steps=results["steps"], guidance=results["guidance"], eta=results["eta"], seed=results["seed"], rows="\n".join(rows),
        groups="\n\n".join(groups), sheets="\n\n".join(sheets), count=kinds["one"]["pictures"],
    )  # fmt: skip


PAGE = """# What the embedded model draws

Made by `python tools/check_embedded.py --count {count} --seed {seed} --page docs/embedded`: random prompts, fresh noise,
{steps} steps, guidance {guidance}, eta {eta}. How the model was trained: [weights/manifest.json](../../weights/manifest.json),
[what its loss counts](../decisions/0005-what-the-loss-counts.md).

| prompts | pictures | all things right | number right | background right | relation right, of those with all right | \
all right after the autoencoder alone | in known pictures | bar |
|---|---|---|---|---|---|---|---|---|
{rows}

A thing is right if its colour and its shape are. "Held out" are pairs of colour and shape that training never showed.

One thing, all right, by its shape and by its colour:

{groups}

Sixty pictures of each kind follow, those that are wrong with a red bar below.

{sheets}
"""


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
        "relations": len(relations),
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
