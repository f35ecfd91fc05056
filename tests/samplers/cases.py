"""Every scheduler with the options in which it is held against upstream; `pairwise` crosses them.

A group of schedulers has a module of its own here (cases_*.py); CASES puts them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
STEPS = (1, 2, 3, 7, 10, 20, 50)
MANY_STEPS = (999, 1000)


def whatever(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Every combination is allowed."""
    return True


def every(results: Sequence[Any], steps: int) -> Sequence[Any]:
    """Upstream's every call is a step."""
    return results


def times_bound(config: Mapping[str, Any]) -> float:
    """Of times between training times, which come from a logarithm of sigma, which is torch's: measured 1.5e-7."""
    return 1e-6


@dataclass(frozen=True)
class Case:
    """A scheduler: what is always set, the values of each option (a mapping among them sets several at once), what is given to
    each of upstream's steps, which combinations upstream can do, which of its calls end a step, and how near runs in float64 are.
    """

    class_name: str
    base: Mapping[str, Any]
    options: Mapping[str, Sequence[Any]]
    settings: Sequence[Mapping[str, Any]] = ({},)
    allowed: Callable[[Mapping[str, Any], int, Mapping[str, Any]], bool] = whatever
    keep: Callable[[Sequence[Any], int], Sequence[Any]] = every
    steps: Sequence[int] = STEPS
    bound: float = 1e-5  # in float32, to which is added what upstream loses itself
    exact_bound: Callable[[Mapping[str, Any]], float] = lambda config: 1e-5
    last_share: Callable[[Mapping[str, Any]], float] = lambda config: 1.0  # what upstream's last step makes of the picture
    times_bound: Callable[[Mapping[str, Any]], float] = times_bound
    tables_bound: float = 1e-6
    whole_times: bool = True  # whether upstream's whole times are whole by choice, not by rounding

    def configs(self) -> list[dict[str, Any]]:
        """Configurations in which every two values of different options meet at least once."""
        rows = pairwise([list(values) for values in self.options.values()])
        return [self.config(dict(zip(self.options, row, strict=True))) for row in rows]

    def as_upstream(self, config: Mapping[str, Any], latents: Sequence[Any]) -> list[Any]:
        """Our latents with what upstream's last step makes of the picture."""
        return [*latents[:-1], latents[-1] * self.last_share(config)]

    def single(self) -> list[dict[str, Any]]:
        """Configurations in which one option is not the first of its values."""
        first = {key: values[0] for key, values in self.options.items()}
        others = [{**first, key: value} for key, values in self.options.items() for value in values[1:]]
        return [self.config(chosen) for chosen in [first, *others]]

    def config(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """A scheduler_config.json with these values."""
        found = {"_class_name": self.class_name, **self.base}
        for key, value in chosen.items():
            found.update(value if isinstance(value, Mapping) else {key: value})
        return found


def pairwise(values: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows in which every two values of different columns meet, by taking the row with the most new pairs."""
    indices = [range(len(column)) for column in values]
    pairs = {(i, a, j, b) for i, j in itertools.combinations(range(len(values)), 2) for a in indices[i] for b in indices[j]}
    if not pairs:
        return [tuple(row) for row in itertools.product(*values)]
    rows = []
    while pairs:
        i, a, j, b = min(pairs)
        row = {i: a, j: b}
        for column in range(len(values)):
            if column not in row:
                row[column] = max(indices[column], key=lambda c, at=column: len(_met({**row, at: c}) & pairs))
        pairs -= _met(row)
        rows.append(tuple(values[column][row[column]] for column in range(len(values))))
    return rows


def _met(row: Mapping[int, int]) -> set[tuple[int, int, int, int]]:
    return {(i, row[i], j, row[j]) for i, j in itertools.combinations(sorted(row), 2)}


def name_of(config: Mapping[str, Any]) -> str:
    """A short name for a test."""
    left_out = ("beta_start", "beta_end", "_class_name")
    parts = [str(v) if isinstance(v, str) else f"{k}={v}" for k, v in config.items() if k not in left_out]
    return " ".join([config["_class_name"].removesuffix("Scheduler"), *parts]).replace("use_", "").replace("_sigmas", "")
