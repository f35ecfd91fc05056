"""Which architectures exist: what a checkpoint's config.json may name, and what parameters it then must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from refdiff.core.params import Declaration


@dataclass(frozen=True)
class Architecture:
    """One family of networks: from the JSON of its config to a configuration, back, and to its declaration."""

    class_name: str
    config_from_dict: Callable[[Mapping[str, Any]], Any]
    config_to_dict: Callable[[Any], dict[str, Any]]
    declare: Callable[[Any], Declaration]


_ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Make an architecture known by its class name in diffusers or transformers."""
    _ARCHITECTURES[architecture.class_name] = architecture


def find(class_name: str) -> Architecture:
    """The architecture of that class name.

    Raises: KeyError if it is unknown.
    """
    return _ARCHITECTURES[class_name]


def known() -> list[str]:
    """The class names of every registered architecture."""
    return sorted(_ARCHITECTURES)
