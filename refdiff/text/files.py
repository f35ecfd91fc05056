"""Text and JSON read with one clear error, and a set of files that is written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refdiff.errors import BadRequest


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.  Raises: BadRequest for a file that is missing, unreadable or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise BadRequest(f"{path}: is missing from the tokenizer folder") from error
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path}: byte {error.start} is not UTF-8") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.  Raises: BadRequest for anything else."""
    text = read_text(path)
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # an escaped surrogate; half a pair makes a str that has no UTF-8
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{path}: must hold a JSON object in braces")
    return value


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write each text under its name; none takes its place before all are on the disk.

    Raises: BadRequest where the folder cannot be written to; what was there before then still is.
    """
    parts = {folder / name: folder / f".{name}.{os.getpid()}.part" for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, part in parts.items():
            part.write_bytes(texts[path.name].encode("utf-8"))
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        raise BadRequest(f"{folder}: the tokenizer cannot be written: {error.strerror or error}") from error
    finally:
        if folder.is_dir():
            for part in parts.values():
                part.unlink(missing_ok=True)
