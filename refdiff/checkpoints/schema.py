"""A declaration held against the tensors that a file holds: every key used once, none missing, none left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.header import FLOATING, Entry
from refdiff.checkpoints.keys import IGNORABLE, POSITIONS, aliases, squeezed
from refdiff.checkpoints.weights import StoredWeights
from refdiff.core.params import Leaf


@dataclass(frozen=True)
class Match:
    """A declaration held against a file: which key is which, and what does not fit; the lists name the file's keys."""

    found: Mapping[str, str]  # canonical key -> key in the file
    ignored: tuple[str, ...]
    missing: tuple[str, ...]  # canonical
    unknown: tuple[str, ...]
    twice: tuple[str, ...]
    misshapen: tuple[str, ...]


def match_keys(family: str, declared: Mapping[str, Leaf], entries: Mapping[str, Entry]) -> Match:
    """Which key of a file is which declared parameter, under every accepted spelling."""
    table, buffers = aliases(family, declared), aliases(family, IGNORABLE.get(family, ()))
    found: dict[str, str] = {}
    twice, misshapen, unknown = [], [], []
    for key, entry in entries.items():
        canonical = table.get(key)
        if canonical is None:
            unknown += [key] if key not in buffers else []
        elif canonical in found:
            twice.append(key)
        else:
            found[canonical] = key
            if squeezed(family, canonical, entry.shape) != declared[canonical].shape:
                misshapen.append(key)
    missing = tuple(key for key in declared if key not in found)
    ignored = tuple(key for key in entries if key in buffers)
    return Match(found, ignored, missing, tuple(unknown), tuple(twice), tuple(misshapen))


def refuse_mismatch(match: Match, stored: StoredWeights, declared: Mapping[str, Leaf], family: str) -> None:
    """Raise for the first thing that does not fit, and say how many more there are.  Raises: CheckpointError"""
    for key, problem, count in _problems(match, stored, declared, family):
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise CheckpointError(stored.file_of(key), problem + more, key=key)


def _problems(match: Match, stored: StoredWeights, declared: Mapping[str, Leaf], family: str) -> Iterator[tuple[str, str, int]]:
    entries = stored.entries()
    canonical = {key: name for name, key in match.found.items()}
    for key in match.twice:
        yield key, "is another spelling of a tensor that the file holds as well", len(match.twice)
    for key in match.misshapen:
        wanted = list(declared[canonical[key]].shape)
        yield (
            key,
            f"has the shape {list(entries[key].shape)}; {family} with this config.json needs {wanted}",
            len(match.misshapen),
        )
    for key in match.unknown:
        yield key, f"is not a parameter of {family} with this config.json", len(match.unknown)
    for key in match.missing:
        yield key, f"is missing; {family} with this config.json needs it", len(match.missing)
    integers = [key for key in match.found.values() if entries[key].dtype not in FLOATING]
    for key in integers:
        yield key, f"has the dtype {entries[key].dtype}; a parameter must be a floating-point number", len(integers)


def check_positions(value: np.ndarray, declared: Mapping[str, Leaf], file: Path, key: str) -> None:
    """The one buffer that may be ignored must hold what the model does anyway.  Raises: CheckpointError"""
    positions = np.arange(declared[POSITIONS].shape[0])
    if value.shape not in (positions.shape, (1, *positions.shape)) or not np.array_equal(value.reshape(-1), positions):
        raise CheckpointError(file, f"is not 0, 1, ..., {positions[-1]}: positions in another order are not supported", key=key)
