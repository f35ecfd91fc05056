"""A primitive: one operation with three faces, its spec, its gradient rule and its optional kernels.

    @primitive(vjp=silu_vjp)
    def silu(x): ...

Calling `silu` with plain arrays runs the spec, or the kernel that is registered for the array's module when the mode is
"fast". Calling it with a recorded variable runs the same thing and notes the call on the tape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from refdiff.errors import BadRequest
from refdiff.xp import Array, array_module

MODES = ("spec", "fast")
PRODUCTS = ("float32", "bfloat16")


class Unsupported(Exception):
    """Raised by a kernel for an input that it does not take; the spec then runs. Its text says which input and why."""


class Primitive:
    """A dispatcher: `spec` is plain array code, `vjp` its gradient rule, kernels stand in `KERNELS`."""

    def __init__(self, spec: Callable, vjp: Primitive | None):
        self.name = self.__name__ = spec.__name__
        self.spec = self.__wrapped__ = spec
        self.vjp = vjp
        self.__doc__ = spec.__doc__

    def __call__(self, *args: Any, **constants: Any) -> Any:
        for arg in args:
            if type(arg) is _VARIABLE or (type(arg) in (list, tuple) and any(type(item) is _VARIABLE for item in arg)):
                return _RECORD(self, args, constants)
        return self.compute(*args, **constants)

    def compute(self, *args: Any, **constants: Any) -> Any:
        """Run on plain arrays: the kernel of this mode and array module if there is one, else the spec."""
        return (self._run if _NOTE is None else self._noted)(args, constants)[0]

    def _run(self, args: tuple, constants: dict[str, Any]) -> tuple[Any, str]:
        """The result, and why the spec made it ("" where a kernel did)."""
        if _MODE != "fast":
            return self.spec(*args, **constants), "the specification was asked for"
        module = array_module(_first_array(args)).__name__
        kernel = KERNELS.get((self.name, module))
        if kernel is None:
            return self.spec(*args, **constants), f"no kernel for {module}"
        try:
            return kernel(*args, **constants), ""
        except Unsupported as unsupported:
            reason = str(unsupported)
        FALLBACKS[(self.name, reason)] = FALLBACKS.get((self.name, reason), 0) + 1
        return self.spec(*args, **constants), reason

    def _noted(self, args: tuple, constants: dict[str, Any]) -> tuple[Any, str]:
        """The same, told to the one who watches; the ops of which a spec is made are not told."""
        note = _NOTE
        assert note is not None  # the caller has looked
        with watched(None):
            begin = time.perf_counter()
            out, reason = self._run(args, constants)
            seconds = time.perf_counter() - begin
        note(self, args, seconds, reason)
        return out, reason

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


KERNELS: dict[tuple[str, str], Callable] = {}
FALLBACKS: dict[tuple[str, str], int] = {}
PRIMITIVES: dict[str, Primitive] = {}
_MODE = "spec"
_PRODUCTS: ContextVar[str] = ContextVar("products", default="float32")  # each thread's own: it changes the numbers
Note = Callable[[Primitive, tuple, float, str], None]
_NOTE: Note | None = None
_VARIABLE: Any = None  # set by tape.py, which alone knows variables
_RECORD: Any = None


def primitive(vjp: Callable | None) -> Callable[[Callable], Primitive]:
    """Make a function a primitive. `vjp(g, out, *args, **constants)` gives one gradient (or None) an argument."""

    def wrap(spec: Callable) -> Primitive:
        rule = None
        if vjp is not None:
            rule = Primitive(vjp, None)
            PRIMITIVES[rule.name] = rule
        op = Primitive(spec, rule)
        PRIMITIVES[op.name] = op
        return op

    return wrap


def register_kernel(name: str, module_name: str, kernel: Callable) -> None:
    """Let `kernel` stand in for the primitive `name` in fast mode on that module's arrays; it raises Unsupported to decline."""
    KERNELS[(name, module_name)] = kernel


def set_mode(mode: str, products: str = "float32") -> None:
    """Choose "spec" or "fast" for every call that follows, and what kernels multiply in this thread.

    `products` is "float32", or "bfloat16" with sums in float32, which gradients are not made of.
    Raises: BadRequest for any other word, and for "bfloat16" with the specification
    """
    global _MODE
    for word, words, what in ((mode, MODES, "kernels"), (products, PRODUCTS, "products")):
        if word not in words:
            raise BadRequest(f'unknown {what} "{word}": choose one of {", ".join(words)}')
    if (mode, products) == ("spec", "bfloat16"):
        raise BadRequest("the specification multiplies the numbers it is given: choose the fast kernels for bfloat16")
    _MODE = mode
    _PRODUCTS.set(products)


def get_mode() -> str:
    """The mode in force, "spec" or "fast"."""
    return _MODE


def products() -> str:
    """What kernels multiply in this thread, "float32" or "bfloat16"."""
    return _PRODUCTS.get()


@contextmanager
def mode(name: str, products: str = "float32") -> Iterator[None]:
    """The mode `name`, and these products, inside a with block; the earlier ones after it."""
    before = _MODE, _PRODUCTS.get()
    set_mode(name, products)
    try:
        yield
    finally:
        set_mode(*before)


@contextmanager
def watched(note: Note | None) -> Iterator[None]:
    """Inside a with block, tell `note` every call: the op, its arguments, its seconds, why the spec ran ("" for a kernel)."""
    global _NOTE
    before, _NOTE = _NOTE, note
    try:
        yield
    finally:
        _NOTE = before


def connect_tape(variable: type, record: Callable) -> None:
    """Called once by tape.py: the type that starts recording and the function that records a call."""
    global _VARIABLE, _RECORD
    _VARIABLE, _RECORD = variable, record


def _first_array(args: tuple) -> Array:
    for arg in args:
        if hasattr(arg, "dtype"):
            return arg
        if type(arg) in (list, tuple) and arg:
            return _first_array(tuple(arg))
    raise TypeError("a primitive was called without an array")
