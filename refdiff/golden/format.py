"""A trace: named tensors of a run, in the order in which they were made, and a manifest that says what they are.

A file is a .safetensors (the manifest as JSON in its header's metadata, under "refdiff"), a .npz, or a folder of .npy whose
paths are the names; the last two have no manifest, and are what another program most easily writes. NumPy is enough to read all.

Names: stage/module.path, such as `steps/003/unet/down_blocks.0.resnets.1` or `text_encoder/text_model.encoder.layers.0`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from refdiff.checkpoints.header import read_header
from refdiff.checkpoints.tensor_file import read_safetensors, write_safetensors
from refdiff.errors import BadRequest
from refdiff.golden.manifest import FORMAT_VERSION, parse_manifest

NAME = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*")
KINDS = "biuf"  # of the numbers that a tensor may hold
WIDEST = 8  # bytes of one of them
PACKED = 20  # times its own size a .npz may unpack to, or to SMALL bytes
SMALL = 1 << 30

# What NumPy raises for a .npy that is not one.
UNSOUND = (ValueError, OSError, EOFError, MemoryError, OverflowError, SyntaxError, RecursionError, TypeError, tokenize.TokenError)


@dataclass(frozen=True)
class Trace:
    """Tensors by name, in the order in which they were made, and the manifest, empty where another program wrote them."""

    tensors: Mapping[str, np.ndarray]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def facts(self, name: str) -> Mapping[str, Any]:
        """What the manifest says of a tensor: shape, dtype, sha256, statistics, bounds."""
        return self.manifest.get("tensors", {}).get(name, {})

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken to be so when the trace was made, and is not known."""
        return tuple(self.manifest.get("about", {}).get("notes", ()))


def read_trace(path: Path | str, *, rename: Mapping[str, str] | None = None) -> Trace:
    """A .safetensors or .npz file, or a folder of .npy; large tensors stay on the disk until they are looked at.

    `rename`: the golden name of each of their names that is another one.
    Raises: BadRequest, in one line, for what is not there, is none of these, is damaged, or holds what no trace may
    """
    path, rename = Path(path), rename or {}
    if path.is_dir():
        return Trace(_named(path, _folder(path), rename))
    if not path.is_file():
        raise BadRequest(f"{path}: there is no such file or folder")
    if path.suffix == ".npz":
        return Trace(_named(path, _zipped(path), rename))
    if path.suffix != ".safetensors":
        raise BadRequest(f"{path}: a trace is a .safetensors, a .npz or a folder of .npy")
    manifest = parse_manifest(path, read_header(path).metadata.get("refdiff"))
    tensors = read_safetensors(path)
    order = manifest.get("order", sorted(tensors))
    if sorted(order) != sorted(tensors):
        raise BadRequest(f"{path}: its manifest is of other tensors than the file: record it again")
    return Trace(_named(path, {name: tensors[name] for name in order}, rename), manifest)


def _named(path: Path, tensors: Mapping[str, np.ndarray], rename: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The tensors under their golden names."""
    found = {rename.get(name, name): x for name, x in tensors.items()}
    if len(found) < len(tensors):
        raise BadRequest(f"{path}: two tensors would have one name: look at the table of names")
    _check_names(path, found)
    return found


def write_trace(path: Path | str, trace: Trace) -> None:
    """Write a .safetensors whose manifest says of each tensor what it is.

    Raises: BadRequest for a name that no trace may have, or where the disk is full
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadRequest(f"{path}: the name of a trace must end in .safetensors")
    _check_names(path, trace.tensors)
    manifest = {**trace.manifest, "format_version": FORMAT_VERSION, "order": list(trace.tensors)}
    told = trace.manifest.get("tensors", {})
    manifest["tensors"] = {name: {**described(x), **told.get(name, {})} for name, x in trace.tensors.items()}
    manifest["content_sha256"] = content_hash(manifest)
    text = json.dumps(manifest, sort_keys=True, allow_nan=False)
    write_safetensors(path, trace.tensors, dtype=None, metadata={"format": "pt", "refdiff": text})


def described(x: np.ndarray) -> dict[str, Any]:
    """What a manifest says of a tensor by itself."""
    found: dict[str, Any] = {"shape": list(x.shape), "dtype": str(x.dtype), "layout": "row-major", "sha256": sha256(x)}
    if x.size and x.dtype.kind == "f" and np.isfinite(x).all():
        found |= {"min": float(x.min()), "max": float(x.max())}
        found |= {"mean": float(x.mean(dtype=np.float64)), "std": float(x.std(dtype=np.float64))}
    return found


def sha256(x: np.ndarray) -> str:
    """Of the numbers in row-major order, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(x.astype(x.dtype.newbyteorder("<"), copy=False)).tobytes()).hexdigest()


def content_hash(manifest: Mapping[str, Any]) -> str:
    """Of what the manifest says, in canonical JSON, without the facts about the run ("about") and the hash itself."""
    content = {key: value for key, value in manifest.items() if key not in ("about", "content_sha256")}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verify(trace: Trace) -> list[str]:
    """What in a trace is not as its manifest says; empty where all is."""
    if not trace.manifest:
        return ["it has no manifest"]
    found = [] if trace.manifest.get("content_sha256") == content_hash(trace.manifest) else ["the manifest was changed"]
    for name, x in trace.tensors.items():
        facts = trace.facts(name)
        if [list(x.shape), str(x.dtype), sha256(x)] != [facts.get("shape"), facts.get("dtype"), facts.get("sha256")]:
            found.append(f"{name} was changed")
    return found


def _check_names(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name) or ".." in name.split("/"):
            raise BadRequest(f"{path}: {name[:80]!r} cannot be the name of a tensor: letters, digits and _ . + - / alone")


def _folder(path: Path) -> dict[str, np.ndarray]:
    files = sorted(file for file in path.rglob("*.npy"))
    if not files:
        raise BadRequest(f"{path}: there are no .npy files in this folder")
    found = {}
    for file in files:
        if file.is_symlink() or not file.resolve().is_relative_to(path.resolve()):
            raise BadRequest(f"{file}: leads out of the folder")
        if not file.is_file():
            raise BadRequest(f"{file}: is no file")
        with file.open("rb") as stream:
            _check_member(stream, file.stat().st_size, file)
        found[file.relative_to(path).with_suffix("").as_posix()] = _loaded(file, file)
    return found


def _loaded(source: Any, path: Path | str) -> np.ndarray:
    """One .npy, mapped where it is a file of its own; its numbers as this machine has them."""
    try:
        x = np.load(source, mmap_mode="r" if isinstance(source, Path) else None, allow_pickle=False)
    except UNSOUND as error:
        raise BadRequest(f"{path}: is not a sound .npy: {_short(error)}") from error
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _zipped(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            size = sum(member.file_size for member in members)
            if size > max(SMALL, PACKED * path.stat().st_size):
                raise BadRequest(f"{path}: says that it unpacks to {size} bytes: save it without compression")
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) != len(names):
                raise BadRequest(f"{path}: holds a name twice")
            return {name: _member(file, member, path) for name, member in zip(names, members, strict=True)}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadRequest(f"{path}: is not a sound .npz: {_short(error)}") from error


def _member(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    where = f"{path}: {member.filename[:80]!r}"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadRequest(f"{where}: is packed in a way that NumPy does not write")
    with file.open(member) as stream:
        _check_member(stream, member.file_size, where)
    with file.open(member) as stream:
        return _loaded(stream, where)


def _check_member(stream: IO[bytes], size: int, where: Path | str) -> None:
    """A header must say numbers, and as many bytes as there are, before any room is made for them."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    except UNSOUND as error:
        raise BadRequest(f"{where}: is not a sound .npy: {_short(error)}") from error
    if dtype.kind not in KINDS or dtype.itemsize > WIDEST:
        raise BadRequest(f"{where}: holds {str(dtype)[:40]}: save whole or real numbers of at most 64 bits")
    said, there = dtype.itemsize * math.prod(shape), size - stream.tell()
    if said != there or any(n < 0 for n in shape):
        raise BadRequest(f"{where}: its header says {str(shape)[:80]}, {dtype}, which is not the {there} bytes that follow")


def _short(error: BaseException) -> str:
    """An error's text as a part of one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
