"""A tiny synthetic checkpoint that tests read, and random weights for small components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refdiff.models  # noqa: F401  (makes the architectures known)
from refdiff.checkpoints.synthetic import declaration, write_synthetic
from tests.checkpoints.folders import TEXT_ENCODER, VAE, write_by_hand, write_config


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The tiny synthetic checkpoint; read only."""
    folder = tmp_path_factory.mktemp("synthetic") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=lambda path: path.mkdir())
    return folder


@pytest.fixture
def text_weights() -> dict[str, np.ndarray]:
    """Weights of the small text encoder, float32."""
    return random_weights(TEXT_ENCODER)


@pytest.fixture
def text_folder(tmp_path, text_weights) -> Path:
    """A folder with the small text encoder, to be spoiled at will."""
    write_config(tmp_path / "text_encoder", TEXT_ENCODER)
    write_by_hand(tmp_path / "text_encoder" / "model.safetensors", text_weights)
    return tmp_path


@pytest.fixture
def vae_folder(tmp_path) -> Path:
    """A folder with the small autoencoder, to be spoiled at will."""
    write_config(tmp_path / "vae", VAE)
    write_by_hand(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", random_weights(VAE))
    return tmp_path


def random_weights(config) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(leaf.shape).astype(np.float32) for key, leaf in declaration(config).items()}
