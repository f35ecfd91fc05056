"""The list of architectures that a checkpoint may name."""

from __future__ import annotations

import pytest

import refdiff.models  # noqa: F401 (the models put themselves on the list)
from refdiff.core import architecture
from refdiff.core.architecture import Architecture, find, known, register


def test_the_models_are_known():
    assert {"AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"} <= set(known())
    assert find("AutoencoderKL").class_name == "AutoencoderKL"


def test_an_unknown_class_is_a_key_error():
    with pytest.raises(KeyError):
        find("VQModel")


def test_a_new_one_is_found(monkeypatch):
    monkeypatch.setattr(architecture, "_ARCHITECTURES", dict(architecture._ARCHITECTURES))
    new = Architecture("New", dict, dict, lambda config: {})
    register(new)
    assert find("New") is new
    assert "New" in known()
