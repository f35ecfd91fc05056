"""Where the tensors of a component lie: one file, a variant of it, or several with an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import read_json
from refdiff.checkpoints.header import Entry, Header, read_header
from refdiff.checkpoints.tensor_file import map_tensors

STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers call the file
VARIANTS = ("", ".fp16")  # full precision first where a folder has both, as upstream does
PICKLED = (".bin", ".pt", ".ckpt", ".pth")


@dataclass(frozen=True)
class StoredWeights:
    """The headers of a component's files, read and checked; no values yet."""

    headers: Mapping[Path, Header]
    index: Path | None = None

    def entries(self) -> dict[str, Entry]:
        """The entries of all the files."""
        return {key: entry for header in self.headers.values() for key, entry in header.entries.items()}

    def file_of(self, key: str) -> Path:
        """The file that holds a key; for a key that none holds, the index or the only file."""
        holding = [path for path, header in self.headers.items() if key in header.entries]
        return holding[0] if holding else (self.index or next(iter(self.headers)))

    def load(self) -> dict[str, np.ndarray]:
        """The values, as views of the mapped files.  Raises: CheckpointError"""
        tensors: dict[str, np.ndarray] = {}
        for path, header in self.headers.items():
            tensors.update(map_tensors(path, header, header.entries))
        return tensors


def find_weights(folder: Path) -> StoredWeights:
    """Find a component's files and read their headers.

    Raises: CheckpointError where there are none, or two layouts at once, or an index that does not fit its files
    """
    for variant in VARIANTS:
        names = [name for stem in STEMS for name in (f"{stem}{variant}.safetensors", *index_names(stem, variant))]
        found = [folder / name for name in names if (folder / name).is_file()]
        if len(found) > 1:
            raise CheckpointError(folder, f"holds both {found[0].name} and {found[1].name}: remove the one that is not meant")
        if found and found[0].suffix == ".json":
            return _sharded(found[0])
        if found:
            return StoredWeights({found[0]: read_header(found[0])})
    raise CheckpointError(folder, _nothing_found(folder))


def index_names(stem: str, variant: str) -> tuple[str, ...]:
    """The names that the index of a sharded checkpoint has (with a variant: today's and an older one)."""
    plain = f"{stem}.safetensors.index.json"
    return (plain,) if not variant else (f"{stem}.safetensors.index{variant}.json", f"{stem}{variant}.safetensors.index.json")


def _sharded(index: Path) -> StoredWeights:
    places = read_json(index).get("weight_map")
    if type(places) is not dict or not places or not all(type(file) is str for file in places.values()):
        raise CheckpointError(index, "has no weight_map from tensor names to file names")
    headers: dict[Path, Header] = {}
    for name in sorted(set(places.values())):
        if not name.endswith(".safetensors") or Path(name).name != name or "\\" in name or "\0" in name:
            raise CheckpointError(index, f"names the file {name!r}, which is not a safetensors file beside it")
        if not (index.parent / name).is_file():
            key = next(key for key, file in places.items() if file == name)
            raise CheckpointError(index, f"should be in {name}, which is missing from the folder", key=key)
        headers[index.parent / name] = read_header(index.parent / name)
    for key, name in places.items():
        if key not in headers[index.parent / name].entries:
            raise CheckpointError(index.parent / name, f"is missing, though {index.name} places it here", key=key)
    for path, header in headers.items():
        for key in header.entries:
            if places.get(key) != path.name:
                raise CheckpointError(path, f"is here, though {index.name} does not place it here", key=key)
    return StoredWeights(headers, index)


def _nothing_found(folder: Path) -> str:
    wanted = f"{STEMS[0]}.safetensors or {STEMS[1]}.safetensors"
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLED)
    if pickled:
        return f"holds {pickled[0]}, a pickle, which can run any code when it is read: convert it to {wanted}"
    return f"holds no weights: {wanted} is missing"
