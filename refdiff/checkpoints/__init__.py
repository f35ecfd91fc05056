"""Checkpoints in the layout of diffusers: read, written, inspected, and made from nothing but a page of rules."""

from refdiff.checkpoints.component import open_component, save_component
from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.tensor_file import read_safetensors, write_safetensors
from refdiff.checkpoints.values import check_finite

__all__ = [
    "CheckpointError",
    "check_finite",
    "open_component",
    "read_safetensors",
    "save_component",
    "write_safetensors",
]
