"""The header of a safetensors file: which tensors it holds, and where.

The file is: eight bytes N (little-endian), N bytes of JSON {"name": {"dtype", "shape", "data_offsets"}, ...}, the data.
Source: the format's own description, github.com/huggingface/safetensors, README.md, "Format".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import parse_object

HEADER_LIMIT = 100_000_000  # the format's own limit
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",  # NumPy has no bfloat16: its bits are read as integers
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
ITEM_SIZE = {name: int(code[2:]) for name, code in DTYPES.items()}
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
_LARGEST = 2**63


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its dtype in the format's words, its shape, and where in the data it begins and ends."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds: its entries by name, its metadata, and the byte at which the data start."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int


def read_header(path: Path) -> Header:
    """Read and check the header of a file, without its data.

    Raises: CheckpointError for a file that is truncated, or whose header lies or cannot be understood.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = _header_length(file.read(8), size, path)
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}") from error
    return Header(*parse_header(raw, size - 8 - length, path), data_start=8 + length)


def parse_header(raw: bytes, data_size: int, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The entries and the metadata that the JSON `raw` declares, held against the size of the data.

    Raises: CheckpointError
    """
    if not raw.startswith(b"{"):
        raise CheckpointError(path, "is not a safetensors file: its header does not begin with a brace")
    declared = parse_object(raw, path)
    metadata = declared.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise CheckpointError(path, "has a header whose __metadata__ is not a table of texts")
    entries = {key: _entry(key, value, path) for key, value in declared.items()}
    _check_layout(entries, data_size, path)
    return entries, metadata


def format_header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of a header."""
    tensors = {k: {"dtype": e.dtype, "shape": list(e.shape), "data_offsets": [e.begin, e.end]} for k, e in entries.items()}
    return {"__metadata__": dict(metadata), **tensors}


def _header_length(first: bytes, size: int, path: Path) -> int:
    if len(first) < 8:
        raise CheckpointError(path, f"is truncated: {size} bytes are too few for a safetensors file")
    if first == b"version ":
        raise CheckpointError(path, "is only a pointer of Git LFS, not the weights themselves: fetch them with git lfs pull")
    length = struct.unpack("<Q", first)[0]
    if length > HEADER_LIMIT:
        raise CheckpointError(
            path, f"is not a safetensors file: it claims a header of {length} bytes, over the limit of {HEADER_LIMIT}"
        )
    if length > size - 8:
        raise CheckpointError(path, f"is truncated: its header should have {length} bytes, but only {size - 8} are there")
    return length


def _entry(key: str, value: Any, path: Path) -> Entry:
    if type(value) is not dict or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(path, "must be declared by exactly dtype, shape and data_offsets", key=key)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPES:
        raise CheckpointError(path, f"has the dtype {_short(dtype)}; known are {', '.join(DTYPES)}", key=key)
    if not _are_sizes(shape):
        raise CheckpointError(path, f"has a shape that is no list of sizes: {_short(shape)}", key=key)
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(path, f"has data_offsets that are no pair of begin and end: {_short(offsets)}", key=key)
    entry = Entry(dtype, tuple(shape), *offsets)
    if math.prod(shape) * ITEM_SIZE[dtype] != entry.end - entry.begin:
        claimed = f"{entry.end - entry.begin} bytes that its header claims"
        raise CheckpointError(path, f"of shape {_short(shape)} and dtype {dtype} cannot fill the {claimed}", key=key)
    return entry


def _check_layout(entries: Mapping[str, Entry], data_size: int, path: Path) -> None:
    """The tensors must cover the data exactly once."""
    position, before = 0, ""
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.end > data_size:
            lacking = entry.end - data_size
            raise CheckpointError(path, f"ends {lacking} bytes beyond the end of the file, which is truncated or lies", key=key)
        if entry.begin < position:
            raise CheckpointError(path, f"overlaps the tensor {before!r}", key=key)
        if entry.begin > position:
            raise CheckpointError(path, f"begins after a gap of {entry.begin - position} bytes that belong to no tensor", key=key)
        position, before = entry.end, key
    if position != data_size:
        raise CheckpointError(path, f"ends with {data_size - position} bytes that belong to no tensor")


def _are_sizes(value: Any) -> bool:
    return type(value) is list and all(type(v) is int and 0 <= v < _LARGEST for v in value)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of many thousand digits
        text = "a number of many thousand digits"
    return text if len(text) <= 80 else text[:77] + "..."
