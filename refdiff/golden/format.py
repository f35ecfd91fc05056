"""A trace: named tensors of a run, in the order in which they were made, and a manifest that says what they are.

A file is a .safetensors (the manifest as JSON in its header's metadata, under "refdiff"), a .npz, or a folder of .npy whose
paths are the names; the last two have no manifest, and are what another program most easily writes. NumPy is enough to read all.

Names: stage/module.path, such as `steps/003/unet/down_blocks.0.resnets.1` or `text_encoder/text_model.encoder.layers.0`.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.checkpoints.header import read_header
from refdiff.checkpoints.tensor_file import read_safetensors, write_safetensors
from refdiff.errors import BadRequest

FORMAT_VERSION = "1.0.0"  # semantic: a new first number is another layout
NAME = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*")
LARGEST = 64 << 30  # bytes that a file may say it holds
KINDS = "biuf"  # of the numbers that a tensor may hold


@dataclass(frozen=True)
class Trace:
    """Tensors by name, in the order in which they were made, and the manifest, empty where another program wrote them."""

    tensors: Mapping[str, np.ndarray]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def facts(self, name: str) -> Mapping[str, Any]:
        """What the manifest says of a tensor: shape, dtype, sha256, statistics, bounds."""
        return self.manifest.get("tensors", {}).get(name, {})


def read_trace(path: Path | str) -> Trace:
    """A .safetensors or .npz file, or a folder of .npy; large tensors stay on the disk until they are looked at.

    Raises: BadRequest, in one line, for what is not there, is none of these, is damaged, or holds what no trace may
    """
    path = Path(path)
    if path.is_dir():
        return Trace(_folder(path))
    if not path.is_file():
        raise BadRequest(f"{path}: there is no such file or folder")
    if path.suffix == ".npz":
        return Trace(_zipped(path))
    if path.suffix != ".safetensors":
        raise BadRequest(f"{path}: a trace is a .safetensors, a .npz or a folder of .npy")
    manifest = _manifest(path, read_header(path).metadata.get("refdiff"))
    tensors = read_safetensors(path)
    _check_names(path, tensors)
    order = manifest.get("order", sorted(tensors))
    if sorted(order) != sorted(tensors):
        raise BadRequest(f"{path}: its manifest is of other tensors than the file: record it again")
    return Trace({name: tensors[name] for name in order}, manifest)


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


def _manifest(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{path}: its manifest is not JSON") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("tensors"), dict):
        raise BadRequest(f"{path}: its manifest does not say which tensors there are")
    if not isinstance(manifest.get("order"), list) or not all(isinstance(name, str) for name in manifest["order"]):
        raise BadRequest(f"{path}: its manifest does not say in which order its tensors were made")
    version = str(manifest.get("format_version"))
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise BadRequest(f"{path}: its format is {version}, this program reads {FORMAT_VERSION}")
    return manifest


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
        name = file.relative_to(path).with_suffix("").as_posix()
        _check_names(path, [name])
        found[name] = _loaded(file, file)
    return found


def _loaded(source: Any, path: Path | str) -> np.ndarray:
    """One .npy, mapped where it is a file of its own."""
    try:
        x = np.load(source, mmap_mode="r" if isinstance(source, Path) else None, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, OverflowError) as error:
        raise BadRequest(f"{path}: is not a sound .npy: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(x, np.ndarray) or x.dtype.kind not in KINDS:
        raise BadRequest(f"{path}: holds no numbers")
    return x


def _zipped(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            _check_names(path, [member.filename.removesuffix(".npy") for member in members])
            if len({member.filename for member in members}) != len(members):
                raise BadRequest(f"{path}: holds a name twice")
            if sum(member.file_size for member in members) > LARGEST:
                raise BadRequest(f"{path}: says that it holds more than {LARGEST >> 30} GB")
            return {member.filename.removesuffix(".npy"): _member(file, member, path) for member in members}
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise BadRequest(f"{path}: is not a sound .npz: {error}") from error


def _member(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """One tensor, whose header must say as many bytes as the file has, before any room is made for it."""
    where = f"{path}: {member.filename}"
    with file.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(stream)
        except ValueError as error:
            raise BadRequest(f"{where}: is not a sound .npy: {' '.join(str(error).split())[:200]}") from error
        if dtype.kind not in KINDS:
            raise BadRequest(f"{where}: holds no numbers")
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        if size != member.file_size - stream.tell():
            raise BadRequest(f"{where}: its header says {size} bytes, the file has {member.file_size - stream.tell()}")
    with file.open(member) as stream:
        return _loaded(stream, where)
