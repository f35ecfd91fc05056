"""What is shipped in weights/ is what the manifest says, and no more."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from refdiff.weights_path import weights_dir

LIMIT = 25e6  # bytes of the embedded model
MANIFEST = json.loads((weights_dir() / "manifest.json").read_text(encoding="utf-8"))


def files(folder: Path) -> dict[str, Path]:
    """Every file under a folder, by its path from there."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_file_of_the_embedded_model_has_its_hash():
    shipped = files(weights_dir() / "embedded")
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in shipped.items()} == MANIFEST["embedded"][
        "sha256"
    ]
    assert sum(path.stat().st_size for path in shipped.values()) <= LIMIT


def test_nothing_is_shipped_without_an_entry():
    described = {f"embedded/{name}" for name in MANIFEST["embedded"]["sha256"]} | (set(MANIFEST) - {"embedded"})
    free = {"manifest.json", "clip_vocab/LICENSE.txt", "README.md"}
    assert set(files(weights_dir())) - free == described


def test_the_manifest_says_how_the_model_was_made():
    entry = MANIFEST["embedded"]
    assert {"licence", "origin", "date", "data", "how"} <= set(entry)
    for run in entry["how"]:
        assert run["command"].startswith("refdiff train ") and run["steps"] > 0 and run["seconds"] > 0
