"""The fixture of tables, tables.json: which rows it must have, and where a row of numbers is looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.samplers.all_cases import CASES
from tests.samplers.cases import Case

# Their schedulers have no row of sigmas of this form: a run goes back and forth, or its levels are those of a score.
OTHERWISE = ("RePaintScheduler", "ScoreSdeVeScheduler")
STEPS = (1, 2, 3, 10, 20, 50, 999, 1000)


def rows() -> Iterator[tuple[Case, dict[str, Any], Mapping[str, Any]]]:
    """Every scheduler of diffusers in every configuration in which it is held against upstream, with its first settings."""
    for case in CASES:
        if not case.class_name.startswith("k_diffusion.") and case.class_name not in OTHERWISE:
            yield from ((case, config, case.settings[0]) for config in case.configs())


def key(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What tells one row from another."""
    return json.dumps([config, settings], sort_keys=True)


def positions(count: int) -> list[int]:
    """A dozen places of a row: its ends, and between them.  Shapes: -> [12] at most"""
    places = (0, 1, 2, 3, count // 4, count // 3, count // 2, 3 * count // 4, count - 4, count - 3, count - 2, count - 1)
    return sorted({place for place in places if 0 <= place < count})
