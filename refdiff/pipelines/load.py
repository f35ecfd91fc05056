"""Opening a model folder for drawing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.checkpoints import open_component
from refdiff.checkpoints.component import open_config
from refdiff.checkpoints.folder import read_model_index
from refdiff.checkpoints.tensor_file import narrow_bfloat16
from refdiff.core import primitive
from refdiff.core.params import Leaf, Params, flatten, flatten_declaration, tree
from refdiff.errors import BadRequest
from refdiff.pipelines.parts import check_parts
from refdiff.pipelines.text_to_image import Component, Pipeline, StoredComponent
from refdiff.text import Tokenizer
from refdiff.weights_path import weights_dir
from refdiff.xp import Array, to_device

DTYPES = ("float32", "float64", "bfloat16")
EMBEDDED = "embedded"
# Of a model without a refdiff.json.
DEFAULTS: Mapping[str, Any] = {"steps": 20, "guidance": 7.5, "eta": None, "example": "", "latent_colours": []}
SAMPLE = 1 << 16  # bytes of each end of a file that go into its fingerprint
Convert = Callable[[Leaf, np.ndarray], Array]


def load_pipeline(path_or_name: Path | str | None, *, device: str, dtype: str, kernels: str, low_memory: bool) -> Pipeline:
    """Open every component of a text-to-image model, its weights in `dtype` on `device`.

    The fast kernels widen float16 as they use it, so there it stays as it is stored. With `low_memory` each network is in memory
    only while it works: the bits are the same. In "bfloat16" matrices and kernels of convolutions are rounded to that, two bytes
    a number, and so is what they and attention multiply where the processor has instructions for it; the rest, and all sums, are
    float32.

    Raises: BadRequest for a folder that cannot be read, an unknown device, dtype or kind of kernels, for bfloat16 without the
        fast kernels on the cpu, and for low memory without those in float32 or bfloat16
    """
    if dtype not in DTYPES:
        raise BadRequest(f'unknown dtype "{dtype}": choose one of {", ".join(DTYPES)}')
    if kernels not in primitive.MODES:
        raise BadRequest(f'unknown kernels "{kernels}": choose one of {", ".join(primitive.MODES)}')
    to_device(np.zeros(1, dtype=np.float32), device)  # an unknown device is refused before anything is read
    products = "float32"
    if kernels == "fast":
        from refdiff.kernels.cpu import halves  # the kernels are registered

        products = "bfloat16" if dtype == "bfloat16" and halves.MULTIPLIES else "float32"
    widening = (kernels, device) == ("fast", "cpu") and dtype != "float64"
    if low_memory and not widening:
        raise BadRequest("low memory needs the fast kernels, in float32 or bfloat16 on the cpu: leave out what says otherwise")
    if dtype == "bfloat16" and not widening:
        raise BadRequest("bfloat16 needs the fast kernels on the cpu: leave out what says otherwise")
    folder = model_folder(path_or_name)
    read_model_index(folder)
    convert = conversion(device=device, dtype=dtype, widening=widening)
    components = {name: open_on(folder, name, convert, kept=not low_memory) for name in ("text_encoder", "unet", "vae")}
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    check_parts(folder, {name: component.config for name, component in components.items()}, tokenizer)
    return Pipeline(
        tokenizer=tokenizer,
        scheduler=_json(folder / "scheduler" / "scheduler_config.json"),
        defaults=_defaults(folder / "refdiff.json"),
        source={"name": folder.name, "fingerprint": fingerprint(folder)},
        device=device, dtype=dtype, kernels=kernels, products=products, **components,
    )  # fmt: skip


def model_folder(path_or_name: Path | str | None) -> Path:
    """The folder of a model: None is the embedded one, a name one that comes with the package, else a path.

    Raises: BadRequest if there is none
    """
    if path_or_name is None:
        path_or_name = EMBEDDED
    path = Path(path_or_name)
    if path.is_dir():
        return path
    if path.is_file():
        raise BadRequest(f"{path} is a file: name a folder in the diffusers layout (model_index.json, unet/, vae/, ...)")
    if path.name == str(path_or_name) and (weights_dir() / path / "model_index.json").is_file():
        return weights_dir() / path
    raise BadRequest(f'there is no model "{path_or_name}": name a folder in the diffusers layout, or leave --model out')


def conversion(*, device: str, dtype: str, widening: bool) -> Convert:
    """How what lies in a file becomes what a network takes; memory-mapped where it is that already.

    Where the kernels widen matrices and kernels of convolutions as they use them, those in float16 stay so.
    """
    if not widening:
        return lambda leaf, a: to_device(np.asarray(a, dtype=dtype), device)
    from refdiff.kernels.cpu.halves import BFLOAT16

    def convert(leaf: Leaf, a: np.ndarray) -> Array:
        if leaf.init == "weight" and dtype == "bfloat16":
            return narrow_bfloat16(a).view(BFLOAT16)
        return a if leaf.init == "weight" and a.dtype == np.float16 else np.asarray(a, dtype=np.float32)

    return convert


def open_on(folder: Path, name: str, convert: Convert, *, kept: bool) -> Component | StoredComponent:
    """One component whose values were checked; with `kept` its weights stay open, else they are opened where they are used."""

    def weights(*, check_values: bool) -> tuple[Any, Params]:
        config, found = open_component(folder, name, check_values=check_values)
        declared = flatten_declaration(open_config(folder / name)[0].declare(config))
        return config, tree({key: convert(declared[key], a) for key, a in flatten(found).items()})

    config, params = weights(check_values=True)
    return Component(config, params) if kept else StoredComponent(config, lambda: weights(check_values=False)[1])


def fingerprint(folder: Path) -> str:
    """A hash that tells models apart without reading gigabytes: of every configuration, and of each file of weights its
    length and its first and last 64 KiB.
    """
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*/*.safetensors"), *folder.glob("*/*config.json")]):
        size = path.stat().st_size
        with open(path, "rb") as f:
            head = f.read(SAMPLE)
            f.seek(max(size - SAMPLE, 0))
            digest.update(f"{path.relative_to(folder)} {size}\n".encode() + head + f.read(SAMPLE))
    return digest.hexdigest()


def _defaults(path: Path) -> Mapping[str, Any]:
    """What a model says about itself, over what holds for one that says nothing."""
    told = {**DEFAULTS, **(_json(path) if path.exists() else {})}
    number = int | float
    kinds: Mapping[str, Any] = {"steps": int, "guidance": number, "eta": number | None, "example": str, "latent_colours": list}
    for name, kind in kinds.items():
        if not isinstance(told[name], kind) or isinstance(told[name], bool):
            raise BadRequest(
                f"{path}: {name} {told[name]!r} is of the wrong kind: write, for example, {json.dumps(DEFAULTS[name])}"
            )
    return told


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{path} does not hold a JSON object")
    return data
