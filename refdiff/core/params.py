"""Named parameters: a tree that is read by attribute, and the declaration that it must match.

The path of a parameter is its key in the checkpoint: `p.down_blocks[0].resnets[1].norm1.weight` is the tensor
`down_blocks.0.resnets.1.norm1.weight`. An optional part is an absent parameter: ask `"conv_shortcut" in p`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from refdiff.xp import Array


@dataclass(frozen=True)
class Leaf:
    """One declared parameter: its shape and its role, which decides how it is initialised.

    Roles: "weight" (matrix or kernel, output axis first), "bias", "gain" and "offset" (of a normalisation), "embedding".
    """

    shape: tuple[int, ...]
    init: str

    @property
    def fan_in(self) -> int:
        """The number of inputs that one output sums over."""
        return math.prod(self.shape[1:])


Declaration = Mapping[str, Any]  # name -> Leaf or Declaration; positions in a list are the keys "0", "1", ...


class Params:
    """A node of the parameter tree."""

    path = ""  # so that a node that is being copied or unpickled can already say where it is

    def __init__(self, path: str, children: Mapping[str, Any]):
        self.__dict__.update(children)
        self.__dict__["path"] = path

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no parameter {join(self.path, name)}; here are {', '.join(self.names())}")

    def __getitem__(self, index: int) -> Any:
        try:
            return self.__dict__[str(index)]
        except KeyError:
            raise IndexError(f"no parameter {join(self.path, str(index))}") from None

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__

    def __len__(self) -> int:
        return len(self.__dict__) - 1

    def __iter__(self) -> Iterator[Any]:
        return (self.__dict__[name] for name in self.names())

    def names(self) -> list[str]:
        """The names of the children, in the order of the declaration."""
        return [name for name in self.__dict__ if name != "path"]

    def __repr__(self) -> str:
        return f"<parameters {self.path or '(root)'}: {', '.join(self.names())}>"


def tree(flat: Mapping[str, Array]) -> Params:
    """The tree of {"a.0.weight": array}."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        node = nested
        *parents, last = key.split(".")
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return _node("", nested)


def flatten(params: Params) -> dict[str, Array]:
    """The dictionary {"a.0.weight": array} of a tree; the inverse of `tree`."""
    flat: dict[str, Array] = {}
    for name in params.names():
        child = params.__dict__[name]
        if isinstance(child, Params):
            flat.update(flatten(child))
        else:
            flat[join(params.path, name)] = child
    return flat


def map_arrays(f: Callable[[Array], Array], params: Params) -> Params:
    """The same tree with f applied to each array."""
    return tree({key: f(value) for key, value in flatten(params).items()})


def flatten_declaration(declaration: Declaration, path: str = "") -> dict[str, Leaf]:
    """The dictionary {"a.0.weight": Leaf} of a declaration, in order."""
    flat: dict[str, Leaf] = {}
    for name, child in declaration.items():
        if isinstance(child, Leaf):
            flat[join(path, name)] = child
        else:
            flat.update(flatten_declaration(child, join(path, name)))
    return flat


def numbered(items: list[Any]) -> dict[str, Any]:
    """A list as a declaration: {"0": first, "1": second, ...}."""
    return {str(i): item for i, item in enumerate(items)}


def join(path: str, name: str) -> str:
    """`path.name`, or `name` at the root."""
    return f"{path}.{name}" if path else name


def _node(path: str, nested: Mapping[str, Any]) -> Params:
    return Params(path, {k: _node(join(path, k), v) if isinstance(v, dict) else v for k, v in nested.items()})
