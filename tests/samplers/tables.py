"""The fixture of tables, tables.json: which rows it must have, and where a row of numbers is looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.samplers.all_cases import CASES
from tests.samplers.cases import Case

BACK_AND_FORTH = "RePaintScheduler"  # one sigma for each move, and as many moves as its jumps say
STEPS = (1, 2, 3, 10, 20, 50, 999, 1000)


def rows() -> Iterator[tuple[Case, dict[str, Any], Mapping[str, Any]]]:
    """Every scheduler of diffusers in every configuration in which it is held against upstream, with its first settings, and
    with all where they make the grid.
    """
    for case in CASES:
        for config in case.configs():
            chosen = case.settings if case.class_name == BACK_AND_FORTH else case.settings[:1]
            yield from ((case, config, settings) for settings in chosen)


def key(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What tells one row from another; of arrays it is enough that they are there."""
    return json.dumps([config, plain(settings)], sort_keys=True)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as JSON can hold them: the size of an array in its place."""
    return {name: f"array of {value.shape}" if isinstance(value, np.ndarray) else value for name, value in settings.items()}


def positions(count: int) -> list[int]:
    """A dozen places of a row: its ends, and between them.  Shapes: -> [12] at most"""
    places = (0, 1, 2, 3, count // 4, count // 3, count // 2, 3 * count // 4, count - 4, count - 3, count - 2, count - 1)
    return sorted({place for place in places if 0 <= place < count})
