"""JSON that is read strictly, and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from refdiff.checkpoints.errors import CheckpointError
from refdiff.errors import BadRequest


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.  Raises: CheckpointError for a file that cannot be read or holds no JSON object."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}") from error
    return parse_object(raw, path)


def parse_object(raw: bytes, path: Path) -> dict[str, Any]:
    """The object that `raw` spells in JSON; `path` is for the message.

    Raises: CheckpointError for anything else, names that stand twice and the non-numbers NaN and Infinity included.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise CheckpointError(path, f"is not JSON: byte {error.start} is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(path, f"is not valid JSON: {reason}") from error
    if type(value) is not dict:
        raise CheckpointError(path, "is not valid JSON for a checkpoint: it must hold an object in braces")
    return value


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object as indented JSON with sorted names."""
    with replacing(path) as file:
        file.write((json.dumps(data, indent=2, sort_keys=True) + "\n").encode("utf-8"))


@contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the with block ends, and vanishes if it fails.

    The folder is made. `size`, where it is known, is compared with the room on the disk first.

    Raises: BadRequest where the disk is full or the folder cannot be written to.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(path, size)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BadRequest(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _check_room(path: Path, size: int | None) -> None:
    free = shutil.disk_usage(path.parent).free
    if size is not None and size > free:
        raise BadRequest(f"{path}: needs {size / 1e6:.0f} MB, but the disk has {free / 1e6:.0f} MB free: choose another folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the new name durable too, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r} stands twice")
    return names


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")
