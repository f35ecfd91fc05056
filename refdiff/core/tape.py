"""Reverse mode on one screen.

`value_and_grad(f, params)` runs `f` on recorded variables and walks the tape backwards. A variable is an array with the
call that made it; a node keeps the primitive, its arguments and its result, and the primitive's vjp turns the gradient of
the result into gradients of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
        arg_grads = node.op.vjp.compute(out_grad, node.value, *plain, **node.constants)
        for variable, grad in _pairs(node.args, arg_grads):
            grads[id(variable)] = grads[id(variable)] + grad if id(variable) in grads else grad
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


def _pairs(args: Any, grads: Any) -> Iterator[tuple[Variable, Array]]:
    """Each variable among the arguments, those in lists included, with its gradient."""
    for arg, grad in zip(args, grads, strict=True):
        if type(arg) is Variable:
            if grad is not None:
                yield arg, grad
        elif type(arg) in (list, tuple):
            yield from _pairs(arg, grad)


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


def bind_operators(operators: Mapping[str, Callable]) -> None:
    """Give variables their operators and methods; called once, where the primitives behind them stand."""
    for name, operator in operators.items():
        setattr(Variable, name, lambda self, *args, _operator=operator: _operator(self, *args))


connect_tape(Variable, record)
