"""One component of a checkpoint (unet, vae, text_encoder, ...): a config.json and the tensors that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import read_json, write_json
from refdiff.checkpoints.schema import check_positions, match_keys, refuse_mismatch
from refdiff.checkpoints.tensor_file import WRITTEN_AS, write_safetensors
from refdiff.checkpoints.values import check_finite, check_range
from refdiff.checkpoints.weights import STEMS, find_weights, index_names
from refdiff.core import architecture
from refdiff.core.architecture import Architecture
from refdiff.core.params import Leaf, Params, flatten, flatten_declaration, tree
from refdiff.errors import BadRequest
from refdiff.xp import to_host

CHECKED_AT_ONCE = 2**28  # bytes; larger components open before their values are read


def open_component(folder: Path | str, name: str, *, check_values: bool | None = None) -> tuple[Any, Params]:
    """Open a component of a diffusers folder: its configuration and its parameters, in their stored dtype.

    The parameters are read-only views of the mapped file, so that opening costs neither time nor memory (bfloat16,
    which NumPy lacks, is widened to float32). Every key is used exactly once, none is missing, left over or misshapen.
    With `check_values` no value may be NaN or infinite; None means: where the component has at most 256 MB. For larger
    ones the caller asks `check_finite` when it reads the values anyway.

    Raises: CheckpointError
    """
    folder = component_folder(folder, name)
    family, config = open_config(folder)
    stored = find_weights(folder)
    declared = flatten_declaration(family.declare(config))
    match = match_keys(family.class_name, declared, stored.entries())
    refuse_mismatch(match, stored, declared, family.class_name)

    values = stored.load()
    for key in match.ignored:
        check_positions(values[key], declared, stored.file_of(key), key)
    params = tree({key: values[match.found[key]].reshape(leaf.shape) for key, leaf in declared.items()})

    size = sum(entry.end - entry.begin for entry in stored.entries().values())
    if check_values or (check_values is None and size <= CHECKED_AT_ONCE):
        check_finite(params, lambda key: stored.file_of(match.found[key]))
    return config, params


def save_component(folder: Path | str, name: str, config: Any, params: Params, *, dtype: str) -> None:
    """Write a component so that refdiff, diffusers and transformers open it; each file appears whole or not at all.

    Raises: BadRequest for parameters that are not those of the configuration, for NaN or infinite values (also those
    that the dtype makes so), for a folder with the same component in another layout, for a full disk
    """
    if dtype not in WRITTEN_AS:
        raise BadRequest(f'unknown dtype "{dtype}": choose one of {", ".join(WRITTEN_AS)}')
    data = config.to_dict()
    folder = Path(folder) / name
    family = _architecture(data, folder)
    declared = flatten_declaration(family.declare(config))
    flat = flatten(params)
    if {key: tuple(value.shape) for key, value in flat.items()} != {key: leaf.shape for key, leaf in declared.items()}:
        raise BadRequest(f"{folder}: {_difference(flat, declared)}")
    path = folder / weights_name(data)
    _refuse_other_layouts(path)
    host = {key: to_host(flat[key]) for key in declared}
    check_range(host, path, dtype)
    write_safetensors(path, host, dtype=dtype)
    write_json(folder / "config.json", data)


def component_folder(folder: Path | str, name: str) -> Path:
    """folder/name.  Raises: CheckpointError if there is no such folder, with the ones that are there"""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(folder, "is not a folder: a checkpoint in the diffusers layout is one")
    if not (folder / name).is_dir():
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise CheckpointError(folder, f"has no component {name!r}; here are {', '.join(there) or 'no folders'}")
    return folder / name


def open_config(folder: Path) -> tuple[Architecture, Any]:
    """The architecture that a component's config.json names, and the configuration.  Raises: CheckpointError"""
    path = folder / "config.json"
    data = read_json(path)
    family = _architecture(data, path)
    try:
        return family, family.config_from_dict(data)
    except BadRequest as error:
        raise CheckpointError(path, str(error)) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(path, f"is not a configuration of {family.class_name}: {error}") from error


def class_name(data: Mapping[str, Any]) -> str | None:
    """The class that a config.json is of, in the words of diffusers or transformers."""
    named = data.get("_class_name")
    if named is None and type(data.get("architectures")) is list and len(data["architectures"]) == 1:
        named = data["architectures"][0]
    if named is None and data.get("model_type") == "clip_text_model":
        named = "CLIPTextModel"
    return named if type(named) is str else None


def weights_name(data: Mapping[str, Any]) -> str:
    """The name that upstream gives to the file of weights beside this config.json."""
    return f"{STEMS[0] if '_class_name' in data else STEMS[1]}.safetensors"


def _architecture(data: Mapping[str, Any], path: Path) -> Architecture:
    named = class_name(data)
    if named is None:
        raise CheckpointError(path, "names no architecture: it has neither _class_name nor architectures")
    try:
        return architecture.find(named)
    except KeyError:
        known = ", ".join(architecture.known())
        raise CheckpointError(path, f"is of the architecture {named!r}, which is unknown; known are {known}") from None


def _difference(flat: Mapping[str, Any], declared: Mapping[str, Leaf]) -> str:
    for key, leaf in declared.items():
        if key not in flat:
            return f"parameter {key} is missing"
        if tuple(flat[key].shape) != leaf.shape:
            return f"parameter {key} has the shape {list(flat[key].shape)}; the configuration needs {list(leaf.shape)}"
    return f"parameter {next(key for key in flat if key not in declared)} is not one of this configuration"


def _refuse_other_layouts(path: Path) -> None:
    names = [name for stem in STEMS for name in (f"{stem}.safetensors", *index_names(stem, ""))]
    for name in names:
        if name != path.name and (path.parent / name).exists():
            raise BadRequest(f"{path.parent}: holds {name} already, which would contradict {path.name}: choose another folder")
