"""Reading a config.json strictly: every option is understood, or known to change nothing, or refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from refdiff.errors import BadRequest

C = TypeVar("C")
_LAYERS = frozenset({"layers_per_block", "num_hidden_layers"})
MOST_LAYERS = 1000  # each is declared before the file is looked at, so that a slip of the pen must not take all memory


def read_config(
    config_type: type[C],
    data: Mapping[str, Any],
    *,
    renamed: Mapping[str, str],
    fixed: Mapping[str, tuple],
    ignored: frozenset[str],
) -> C:
    """Make a frozen configuration from the JSON of a config.json.

    `renamed` maps JSON names to field names where they differ, `fixed` gives the options of which only some values are
    written out in this package, `ignored` the options that do not change what the network computes.

    Raises: BadRequest naming the option, for an option that is unknown, missing, of the wrong kind or of a value outside `fixed`.
    """
    fields = {f.name: f for f in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in data.items():
        field = renamed.get(name, name)
        if name in fixed and value not in fixed[name]:
            allowed = " or ".join(repr(v) for v in fixed[name])
            raise BadRequest(f"{config_type.__name__}: option {name} = {value!r} is not supported; it must be {allowed}")
        if field in _LAYERS and _is_count(value) and value > MOST_LAYERS:
            raise BadRequest(f"{config_type.__name__}: option {name} = {value} cannot be meant; {MOST_LAYERS} is the most")
        if field in fields:
            values[field] = _checked(config_type.__name__, name, value, str(fields[field].type))
        elif not name.startswith("_") and name not in fixed and name not in ignored:
            raise BadRequest(f"{config_type.__name__}: unknown option {name} = {value!r}")
    missing = [n for n, f in fields.items() if n not in values and f.default is dataclasses.MISSING]
    if missing:
        raise BadRequest(f"{config_type.__name__}: option {missing[0]} is missing")
    return config_type(**values)


def _checked(owner: str, name: str, value: Any, kind: str) -> Any:
    """The value as the field's type, or an error: no string where a number belongs."""
    listed = type(value) in (list, tuple) and bool(value)
    good = {
        "int": _is_count(value),
        "float": type(value) in (int, float) and 0 <= value < math.inf,
        "str": type(value) is str,
        "bool": type(value) is bool,
        "tuple[int, ...]": listed and all(_is_count(v) for v in value),
        "tuple[str, ...]": listed and all(type(v) is str for v in value),
        "int | tuple[int, ...]": _is_count(value) or (listed and all(_is_count(v) for v in value)),
    }[kind]
    if not good:
        raise BadRequest(f"{owner}: option {name} = {value!r} is not of the kind {kind}")
    return tuple(value) if isinstance(value, list) else value


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
