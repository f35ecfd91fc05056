"""The files around the components: model_index.json and the scheduler's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import read_json, write_json

INDEX = "model_index.json"
LAYOUT_VERSION = "0.42.1"  # the release of diffusers whose layout is written


def read_model_index(folder: Path | str) -> dict[str, Any]:
    """What model_index.json says: the pipeline's class, and for each component its library and class.

    Raises: CheckpointError
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(folder, "is not a folder: a checkpoint in the diffusers layout is one")
    if not (folder / INDEX).is_file():
        raise CheckpointError(folder, f"holds no {INDEX}: it is not a checkpoint in the diffusers layout")
    return read_json(folder / INDEX)


def write_model_index(folder: Path | str, *, scheduler_class: str) -> None:
    """Write the model_index.json of a text-to-image pipeline of Stable Diffusion 1.x, without a safety checker."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": LAYOUT_VERSION,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler_class],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(Path(folder) / INDEX, index)


def write_scheduler_config(folder: Path | str, config: Mapping[str, Any]) -> None:
    """Write scheduler/scheduler_config.json; `config` is that file's contents, `_class_name` included."""
    write_json(Path(folder) / "scheduler" / "scheduler_config.json", {"_diffusers_version": LAYOUT_VERSION, **config})
