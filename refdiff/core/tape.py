"""Reverse mode on one screen.

`value_and_grad(f, params)` runs `f` on recorded variables and walks the tape backwards. A variable is an array with the
call that made it; a node keeps the primitive, its arguments and its result, and the primitive's vjp turns the gradient of
the result into gradients of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from refdiff.core.primitive import Primitive, connect_tape
from refdiff.xp import Array


class Variable:
    """An array whose history is recorded. Operators and methods are the primitives of refdiff.ops.arithmetic."""

    __slots__ = ("args", "constants", "op", "value")
    __array_priority__ = 1000
    __array_ufunc__ = None  # NumPy then leaves `array + variable` to us

    def __init__(self, value: Array, op: Primitive | None = None, args: tuple = (), constants: Mapping | None = None):
        self.value, self.op, self.args, self.constants = value, op, args, constants or {}

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)

    def __repr__(self) -> str:
        return f"<variable {self.value.shape} {self.value.dtype}>"


def record(op: Primitive, args: tuple, constants: Mapping[str, Any]) -> Variable:
    """Run a primitive on the plain values of its arguments and remember the call."""
    plain = tuple(_plain(a) for a in args)
    return Variable(op.compute(*plain, **constants), op, args, constants)


def backward(end: Variable, g: Array) -> dict[int, Array]:
    """Gradients of <g, end> with respect to every variable below `end`, keyed by id(variable).

    Math: in reverse order of creation, dL/darg += vjp(dL/dout).
    """
    grads = {id(end): g}
    for node in _reverse_order(end):
        if node.op is None or id(node) not in grads:
            continue
        out_grad = grads.pop(id(node))
        plain = tuple(_plain(a) for a in node.args)
        if node.op.vjp is None:
            raise TypeError(f"primitive {node.op.name} has no gradient rule")
        for arg, grad in zip(node.args, node.op.vjp.compute(out_grad, node.value, *plain, **node.constants), strict=True):
            _accumulate(grads, arg, grad)
    return grads


def value_and_grad(f: Callable[..., Variable], params: Mapping[str, Array], *inputs: Any) -> tuple[Array, dict[str, Array]]:
    """The scalar f({name: variable}, *inputs) and its gradient with respect to every entry of `params`.

    Shapes: each gradient has its parameter's shape; a parameter that `f` does not use gets zeros.
    """
    variables = {key: Variable(value) for key, value in params.items()}
    loss = f(variables, *inputs)
    grads = backward(loss, loss.value * 0 + 1)
    return loss.value, {key: grads.get(id(v), v.value * 0) for key, v in variables.items()}


def _plain(a: Any) -> Any:
    if type(a) is Variable:
        return a.value
    if type(a) in (list, tuple):
        return type(a)(_plain(item) for item in a)
    return a


def _accumulate(grads: dict[int, Array], arg: Any, grad: Any) -> None:
    if type(arg) is Variable:
        if grad is not None:
            grads[id(arg)] = grads[id(arg)] + grad if id(arg) in grads else grad
    elif type(arg) in (list, tuple):
        for item, item_grad in zip(arg, grad, strict=True):
            _accumulate(grads, item, item_grad)


def _reverse_order(end: Variable) -> list[Variable]:
    """Every variable that `end` depends on, each after all that use it (depth first, without recursion)."""
    order: list[Variable] = []
    seen: set[int] = set()
    stack: list[tuple[Variable, bool]] = [(end, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((v, False) for v in _variables(node.args) if id(v) not in seen)
    return order[::-1]


def _variables(args: Any) -> list[Variable]:
    found: list[Variable] = []
    for arg in args:
        if type(arg) is Variable:
            found.append(arg)
        elif type(arg) in (list, tuple):
            found.extend(_variables(arg))
    return found


connect_tape(Variable, record)
