"""Two models for all tests of the pipelines: a tiny one with random weights and CLIP's words, and the embedded one."""

from __future__ import annotations

from pathlib import Path

import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.text import Tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model of random weights; no test may write into it."""
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Pipeline:
    """Opened, with the written-out operations."""
    return refdiff.load(tiny_folder, kernels="spec")


@pytest.fixture(scope="session")
def embedded() -> Pipeline:
    """The model that comes with the package."""
    return refdiff.load()
