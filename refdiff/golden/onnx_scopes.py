"""Which value of an ONNX graph is the result of which module.

Two exporters of torch say of a node in which modules it was: the older one in its names, as in
`/down_blocks.0/resnets.0/conv1/Conv_output_0`, the newer one (dynamo) in its metadata, as a list of paths. The onnx package is
not needed here.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

SCOPES = "pkg.torch.onnx.name_scopes"  # the newer exporter's metadata
AGAIN = re.compile(r"_\d+$")  # the older exporter's name of a module that runs once more


@dataclass(frozen=True)
class Node:
    """A node of a graph: what it takes, what it gives, the modules in which it is, the outermost first."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    modules: tuple[str, ...]


def modules_of(outputs: Sequence[str], name: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The paths of the modules in which a node is, the outermost first; none where it does not say.

    The name of an output is looked at before that of the node, which is another after nodes were fused.
    """
    if SCOPES in metadata:
        try:
            scopes = ast.literal_eval(metadata[SCOPES])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
        return tuple(scope for scope in scopes[:-1] if scope) if _are_texts(scopes) else ()
    told = next((text for text in (*outputs, name) if text.startswith("/")), "/")
    parts = told.split("/")[1:-1]
    return tuple(".".join(parts[: k + 1]) for k in range(len(parts)))


def results(nodes: Sequence[Node], finals: Collection[str]) -> dict[str, str]:
    """The value that is each module's result, in the order of the graph: the last one that something outside of it takes.

    `finals`: the outputs of the graph. A module that runs more than once is left out: other modules lie between its nodes, or
    the older exporter has given it a number.
    """
    users: dict[str, list[int]] = {}
    members: dict[str, list[int]] = {}
    places = list(itertools.accumulate(bool(node.modules) for node in nodes))  # nodes that say nothing do not part a module
    for k, node in enumerate(nodes):
        for value in node.inputs:
            users.setdefault(value, []).append(k)
        for module in node.modules:
            members.setdefault(module, []).append(k)
    repeated = {m for module in members if (m := AGAIN.sub("", module)) != module and m in members}
    repeated |= {module for module in members if AGAIN.sub("", module) in repeated}
    ends: dict[str, tuple[int, str]] = {}
    for module, inside in members.items():
        whole = places[inside[-1]] - places[inside[0]] == len(inside) - 1
        end = _end(nodes, inside, users, finals)
        if whole and end is not None and not any(within(module, other) for other in repeated):
            ends[module] = end
    return {module: ends[module][1] for module in sorted(ends, key=lambda module: (ends[module][0], -len(module)))}


def within(module: str, other: str) -> bool:
    """Whether a module is the other or lies in it."""
    return module == other or module.startswith(f"{other}.")


def rooted(found: Mapping[str, str], anchor: str) -> dict[str, str]:
    """The modules by their paths in the network, which may have been exported within others: `anchor` is a child of it."""
    ends = [module for module in found if module == anchor or module.endswith(f".{anchor}")]
    if not ends:
        return {}
    root = min(ends, key=len).removesuffix(anchor)
    return {module.removeprefix(root): value for module, value in found.items() if module.startswith(root)}


def _end(
    nodes: Sequence[Node], inside: Sequence[int], users: Mapping[str, Sequence[int]], finals: Collection[str]
) -> tuple[int, str] | None:
    """The last value of these nodes that is taken elsewhere, and its node."""
    own = set(inside)
    for k in reversed(inside):
        for value in nodes[k].outputs:
            if value in finals or not own.issuperset(users.get(value, ())):
                return k, value
    return None


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
