"""What the parity tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

import refdiff
import refdiff.kernels.cpu
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.text import Tokenizer
from tests.parity.upstream import Measure


@pytest.fixture
def measure(record_property) -> Measure:
    """Compare with a bound; the figure goes into the table of measurements."""
    return Measure(record_property)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The model of `refdiff synth tiny`."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_synthetic("tiny", path, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return path


@pytest.fixture(scope="session")
def pipe(folder):
    """The same in float64, as the specification computes it."""
    return refdiff.load(folder, dtype="float64", kernels="spec")
