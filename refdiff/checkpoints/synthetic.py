"""Synthetic checkpoints: whole folders whose weights anyone can make again from docs/synthetic_weights.md."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.checkpoints.component import weights_name
from refdiff.checkpoints.configurations import KINDS, SCHEDULER, SCHEDULER_CLASS
from refdiff.checkpoints.files import write_json
from refdiff.checkpoints.folder import write_model_index, write_scheduler_config
from refdiff.checkpoints.generator import pieces
from refdiff.checkpoints.header import ITEM_SIZE
from refdiff.checkpoints.tensor_file import WRITTEN_AS, write_stream
from refdiff.core import architecture
from refdiff.core.params import Leaf, flatten_declaration
from refdiff.errors import BadRequest

Progress = Callable[[int, int], None]  # (bytes written, bytes in all)


def write_synthetic(
    kind: str,
    folder: Path | str,
    progress: Progress | None = None,
    *,
    seed: int,
    dtype: str,
    write_tokenizer: Callable[[Path], Any],
) -> None:
    """Write a synthetic checkpoint, "sd15" or "tiny", into a new or empty folder.

    The weights go to the disk piece by piece; a failure or an interruption leaves the folder as it was. model_index.json comes
    last, so that a folder cut short by a crash shows that it is.
    `write_tokenizer(path)` writes the tokenizer folder, which must have CLIP's vocabulary of 49,408.

    Raises: BadRequest for an unknown kind or dtype, a folder that is not empty, a full disk
    """
    if kind not in KINDS:
        raise BadRequest(f'unknown synthetic checkpoint "{kind}": choose one of {", ".join(KINDS)}')
    if dtype not in WRITTEN_AS:
        raise BadRequest(f'unknown dtype "{dtype}": choose one of {", ".join(WRITTEN_AS)}')
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadRequest(f"{folder}: is there already and not empty: choose a new folder")

    declared = {name: declaration(config) for name, config in KINDS[kind].items()}
    total = sum(_bytes(leaves, dtype) for leaves in declared.values())
    done = 0
    with _all_or_nothing(folder):
        for name, config in KINDS[kind].items():
            _write_component(folder / name, config, declared[name], seed, dtype, _offset(progress, done, total))
            done += _bytes(declared[name], dtype)
        write_tokenizer(folder / "tokenizer")
        write_scheduler_config(folder, SCHEDULER)
        write_model_index(folder, scheduler_class=SCHEDULER_CLASS)


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """Leave a folder as it was, missing or empty, if what fills it fails or is interrupted."""
    there = folder.exists()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if there:
            folder.mkdir()
        raise


def declaration(config: Mapping[str, Any]) -> dict[str, Leaf]:
    """The parameters that a config.json declares."""
    named = config.get("_class_name") or config["architectures"][0]
    family = architecture.find(named)
    return flatten_declaration(family.declare(family.config_from_dict(config)))


def _write_component(
    folder: Path, config: Mapping[str, Any], leaves: Mapping[str, Leaf], seed: int, dtype: str, progress: Progress
) -> None:
    written = 0

    def parts(name: str) -> Iterator[np.ndarray]:
        nonlocal written
        for piece in pieces(seed, folder.name, name, leaves[name]):
            yield piece
            written += piece.size * ITEM_SIZE[WRITTEN_AS[dtype]]
        progress(written, written)

    layout = {name: (WRITTEN_AS[dtype], leaf.shape) for name, leaf in leaves.items()}
    write_stream(folder / weights_name(config), layout, parts)
    write_json(folder / "config.json", config)


def _offset(progress: Progress | None, done: int, total: int) -> Progress:
    """Progress of one component as progress of all."""
    return lambda written, _: progress(done + written, total) if progress else None


def _bytes(leaves: Mapping[str, Leaf], dtype: str) -> int:
    return sum(math.prod(leaf.shape) for leaf in leaves.values()) * ITEM_SIZE[WRITTEN_AS[dtype]]
