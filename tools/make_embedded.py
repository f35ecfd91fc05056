"""Put trained runs together as the embedded model: weights/embedded, a diffusers folder in float16, and its manifest.

    python tools/make_embedded.py --vae RUN [--decoder RUN] --unet RUN [--unet RUN ...]

Name every U-Net run that led to the last one, in order: the manifest tells how the model was made. The autoencoder is that of
the decoder's run, where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np

from refdiff.checkpoints import open_component, save_component
from refdiff.checkpoints.folder import write_model_index, write_scheduler_config
from refdiff.text import build_small
from refdiff.training import recipes, shapes
from refdiff.training.runs import MODEL
from refdiff.weights_path import weights_dir


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--unet", type=Path, action="append", required=True)
    parser.add_argument("--guidance", type=float, default=recipes.DEFAULTS["guidance"])
    args = parser.parse_args()
    target = weights_dir() / "embedded"
    shutil.rmtree(target, ignore_errors=True)
    autoencoder = args.vae if args.decoder is None else args.decoder
    for name, run in (("vae", autoencoder), ("unet", args.unet[-1]), ("text_encoder", args.unet[-1])):
        config, params = open_component(run / MODEL, name)
        save_component(target, name, config, params, dtype="float16")
    build_small(shapes.all_words(), max_length=recipes.PROMPT_TOKENS).write_folder(target / "tokenizer")
    write_scheduler_config(target, recipes.SCHEDULER)
    write_model_index(target, scheduler_class=recipes.SCHEDULER["_class_name"])
    (target / "refdiff.json").write_text(json.dumps({**recipes.DEFAULTS, "guidance": args.guidance}, indent=2) + "\n")
    manifest = weights_dir() / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else {}
    entries["embedded"] = entry(target, [args.vae, *([args.decoder] if args.decoder else []), *args.unet])
    manifest.write_text(json.dumps(entries, indent=2) + "\n")
    print(f"wrote {target}: {sum(f.stat().st_size for f in target.rglob('*') if f.is_file()) / 1e6:.1f} MB")


def entry(folder: Path, runs: list[Path]) -> dict:
    """What the manifest says of the model: origin, licence, how it was made, and every file's hash."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {
        "licence": "MIT",
        "origin": "trained from random weights by this project's own backward pass",
        "date": date.today().isoformat(),
        "data": "the built-in set 'shapes' (refdiff/training/shapes.py), without the pairs in HELD_OUT",
        "how": [how(run) for run in runs],
        "sha256": {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
    }


def how(run: Path) -> dict:
    """The command, the settings, the number of updates, the last losses and the time of one run, its pauses included."""
    with np.load(run / "state.npz") as state:
        steps, losses = int(state["step"]), state["losses"]
    seconds = (run / "state.npz").stat().st_mtime - (run / "run.json").stat().st_mtime  # from the first step to the last save
    notes = {"steps": steps, "seconds": round(seconds), "mean_loss_of_last_100": round(float(losses[-100:].mean()), 5)}
    return {**json.loads((run / "command.json").read_text()), **json.loads((run / "run.json").read_text()), **notes}


if __name__ == "__main__":
    main()
