"""safetensors files as arrays: read as views of the mapped file, written tensor by tensor."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import replacing
from refdiff.checkpoints.header import DTYPES, ITEM_SIZE, Entry, Header, format_header, read_header
from refdiff.errors import BadRequest

WRITTEN_AS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
MADE_FOR = {"format": "pt"}  # what upstream asks for
Layout = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (dtype in the format's words, shape)


def read_safetensors(path: Path | str) -> dict[str, np.ndarray]:
    """Every tensor of a file, as a read-only view of the mapped file; bfloat16 comes widened to float32.

    Raises: CheckpointError
    """
    path = Path(path)
    header = read_header(path)
    return map_tensors(path, header, header.entries)


def map_tensors(path: Path, header: Header, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named tensors of a file whose header has been read.  Raises: CheckpointError"""
    try:
        mapped = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read: {error}") from error
    data = np.asarray(mapped)[header.data_start :]
    return {name: _view(data, header.entries[name]) for name in names}


def write_safetensors(
    path: Path | str, tensors: Mapping[str, np.ndarray], *, dtype: str | None, metadata: Mapping[str, str] = MADE_FOR
) -> None:
    """Write arrays under their names, as `dtype` ("float32", "float16", "bfloat16", "float64") or each as it is (None).

    Raises: BadRequest for a dtype that the format or this function does not know; where the disk is full
    """
    layout = {name: (_format_dtype(name, value, dtype), value.shape) for name, value in tensors.items()}
    write_stream(Path(path), layout, lambda name: [tensors[name]], metadata=metadata)


def write_stream(
    path: Path, layout: Layout, parts: Callable[[str], Iterable[np.ndarray]], *, metadata: Mapping[str, str] = MADE_FOR
) -> None:
    """Write a file whose tensors come in parts, so that no tensor need ever be in memory as a whole.

    `parts(name)` gives the values in row-major order; they are converted to the dtype of the layout.
    """
    entries = _entries(layout)
    header = json.dumps(format_header(entries, metadata), separators=(",", ":")).encode("utf-8")
    header += b" " * (-len(header) % 8)  # so that the data are aligned
    size = max((entry.end for entry in entries.values()), default=0)
    with replacing(path, size=8 + len(header) + size) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, entry in entries.items():
            written = sum(_write_part(file, part, entry.dtype) for part in parts(name))
            if written != entry.end - entry.begin:
                raise ValueError(f"{name}: {written} bytes came for a place of {entry.end - entry.begin}")


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16, given as its bits, as float32 with the same values: a bfloat16 is the upper half of a float32.

    Shapes: any, uint16 -> same, float32
    """
    return (bits.reshape(-1).astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(bits.shape)


def narrow_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bits of the bfloat16 nearest to each float32, ties to even; infinities and NaN stay what they are.

    Shapes: any, float32 -> same, uint16
    """
    bits = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32)
    upper = bits >> np.uint32(16)
    rounded = (bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> np.uint32(16)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    quiet = upper | np.uint32(0x40)  # rounding could carry a NaN into infinity or beyond
    return np.where(is_nan, quiet, rounded).astype(np.uint16).reshape(x.shape)


def _view(data: np.ndarray, entry: Entry) -> np.ndarray:
    values = data[entry.begin : entry.end].view(DTYPES[entry.dtype]).reshape(entry.shape)
    if entry.dtype == "BF16":
        return widen_bfloat16(values)
    return values if values.flags.aligned else values.copy()  # old writers left odd offsets, which kernels do not take


def _format_dtype(name: str, value: np.ndarray, dtype: str | None) -> str:
    if dtype is not None:
        if dtype not in WRITTEN_AS:
            raise BadRequest(f'unknown dtype "{dtype}": choose one of {", ".join(WRITTEN_AS)}')
        return WRITTEN_AS[dtype]
    for known, code in DTYPES.items():
        if known != "BF16" and value.dtype.newbyteorder("<") == np.dtype(code):
            return known
    raise BadRequest(f"{name}: the dtype {value.dtype} cannot be written to a safetensors file")


def _entries(layout: Layout) -> dict[str, Entry]:
    """Places in the file, wide dtypes first so that every tensor is aligned."""
    entries: dict[str, Entry] = {}
    position = 0
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: -ITEM_SIZE[item[1][0]]):
        end = position + math.prod(shape) * ITEM_SIZE[dtype]
        entries[name] = Entry(dtype, tuple(shape), position, end)
        position = end
    return entries


def _write_part(file: BinaryIO, part: np.ndarray, dtype: str) -> int:
    with np.errstate(over="ignore"):  # a value beyond float16 becomes infinite; the caller decides whether that may be
        values: Any = narrow_bfloat16(part) if dtype == "BF16" else part
        values = np.ascontiguousarray(values, DTYPES[dtype])
    file.write(memoryview(values.reshape(-1).view(np.uint8)))
    return values.nbytes
