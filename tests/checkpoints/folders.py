"""Small checkpoint folders, right and wrong, for tests."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TEXT_ENCODER = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 11,
    "max_position_embeddings": 5,
    "hidden_size": 6,
    "intermediate_size": 7,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 10,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [4, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "scaling_factor": 0.5,
    "sample_size": 16,
}


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """A file spelled out by hand, so that it can lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def write_by_hand(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A correct file, by code that shares nothing with the package."""
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}
    header, data = {}, b""
    for key, value in tensors.items():
        raw = np.ascontiguousarray(value).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": names[value.dtype.name], "shape": list(value.shape), "data_offsets": offsets}
        data += raw
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(header).encode()
    path.write_bytes(safetensors_bytes(raw + b" " * (-len(raw) % 8), data))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """The config.json of a component."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
