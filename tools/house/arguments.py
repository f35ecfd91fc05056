"""What a function may do with its arguments: no number slipped in, none written into, none swallowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from house.source import Function, Source, Violation, parameters

NUMERIC_PACKAGES = tuple(f"refdiff/{name}/" for name in ("ops", "models", "diffusion", "samplers", "kernels"))
# They hand on to what knows the names: an op, a part of a model, a pipeline, click.
MAY_TAKE_KWARGS = (
    *("refdiff/core/primitive.py", "refdiff/core/tap.py", "refdiff/pipelines/", "refdiff/cli/", "refdiff/kernels/cpu/repeats.py"),
    *("refdiff/golden/mutants/", "refdiff/golden/recording.py", "refdiff/golden/tolerance.py"),
)
WRITING_METHODS = {
    *("append", "clear", "extend", "fill", "insert", "itemset", "partition", "pop", "popitem", "put", "remove"),
    *("resize", "reverse", "scatter_add", "setdefault", "setfield", "sort", "update"),
}
WRITING_FUNCTIONS = {"at", "copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}


def check(source: Source) -> Iterator[Violation]:
    """Silent numeric defaults, writes into arguments and **kwargs, in the package."""
    if not source.path.startswith("refdiff/"):
        return
    for function in source.functions:
        if source.path.startswith(NUMERIC_PACKAGES):
            yield from _numeric_defaults(source, function)
        if not (source.path.startswith("refdiff/kernels/") and function.name.startswith("_")):
            yield from _writes(source, function)
        if function.args.kwarg and not source.path.startswith(MAY_TAKE_KWARGS):
            yield source.violation(function, f"{function.name} takes **{function.args.kwarg.arg}, which swallow typos")


def _numeric_defaults(source: Source, function: Function) -> Iterator[Violation]:
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    defaults = zip(positional[len(positional) - len(a.defaults) :], a.defaults, strict=True)
    for parameter, default in [*defaults, *zip(a.kwonlyargs, a.kw_defaults, strict=True)]:
        if default is not None and _holds_number(default) and not source.excused(default):
            message = f"{function.name}: {parameter.arg} has the default {ast.unparse(default)}: write it at the call"
            yield source.violation(default, message)


def _holds_number(node: ast.expr) -> bool:
    constants = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return any(isinstance(value, int | float | complex) and not isinstance(value, bool) for value in constants)


def _writes(source: Source, function: Function) -> Iterator[Violation]:
    """Follow the names that still mean an argument (or a part of one) through the body, in the order of the text."""
    names = {p.arg for p in parameters(function)}
    for node in _in_order(function):
        for written in _written(node):
            if _root(written) in names and not source.excused(node):
                yield source.violation(node, f"{function.name} writes into its argument: {ast.unparse(node)}")
        for target, value in _bindings(node):
            for name in (n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)):
                names = names | {name} if value is not None and _is_view(value, names) else names - {name}


def _in_order(function: Function) -> Iterator[ast.AST]:
    """Every node of the body, a statement's value before the statement itself."""

    def visit(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, Function | ast.Lambda):
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child)
        yield node

    for statement in function.body:
        yield from visit(statement)


def _written(node: ast.AST) -> list[ast.expr]:
    """The expressions whose object the node changes."""
    if isinstance(node, ast.Assign | ast.Delete | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
        flat = [t for target in targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
        in_place = isinstance(node, ast.AugAssign) and not _is_text(node.value)
        return [t for t in flat if isinstance(t, ast.Subscript | ast.Attribute) or in_place]
    if isinstance(node, ast.Call):
        changed = [k.value for k in node.keywords if k.arg == "out"]
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in WRITING_METHODS:
                changed.append(node.func.value)
            if node.func.attr in WRITING_FUNCTIONS and node.args:
                changed.append(node.args[0])
        return changed
    return []


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _bindings(node: ast.AST) -> list[tuple[ast.expr, ast.expr | None]]:
    """The targets that the node gives a new meaning, and the value where it is one expression."""
    if isinstance(node, ast.Assign):
        return [(target, node.value) for target in node.targets]
    if isinstance(node, ast.AnnAssign | ast.NamedExpr):
        return [(node.target, node.value)]
    return []


def _is_view(value: ast.expr, names: set[str]) -> bool:
    """Whether the value may share memory with an argument: the argument itself, a part of it, its reshaped view."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        views = {"reshape", "transpose", "swapaxes", "ravel", "view", "squeeze"}
        return value.func.attr in views and _root(value.func.value) in names
    return isinstance(value, ast.Name | ast.Subscript | ast.Attribute) and _root(value) in names


def _root(node: ast.expr) -> str:
    """The name at the left end of `name.a[0].b`; empty where there is none."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
