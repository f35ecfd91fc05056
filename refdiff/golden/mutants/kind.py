"""What a mutant is: a small named change to our own code path, which makes of it the port that has that bug."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from refdiff.errors import BadRequest
from refdiff.golden.stages import Setting
from refdiff.pipelines.text_to_image import Component


@dataclass(frozen=True)
class Site:
    """Where a bug is looked for: the setting, and the tensor that is wrong (stage/module.path)."""

    setting: Setting
    tensor: str

    @property
    def path(self) -> str:
        """The module of the tensor."""
        return self.tensor.rpartition("/")[2]


Variant = Callable[[Site], AbstractContextManager[Setting]]
NOT_HERE = (ValueError, IndexError, KeyError, ZeroDivisionError, BadRequest)  # what a bug raises that cannot be in a setting
Variants = Mapping[str, Mapping[str, Variant]]  # by the bug's id, then by the variant's name
Change = tuple[Any, str, Any]  # (module, attribute, what stands there instead)


@dataclass(frozen=True)
class Mutant:
    """A bug: its id, a line, a paragraph, where to look in a port, threads where it happened, the stages in which it can first
    show, and the ways in which it is made, by name.
    """

    id: str
    title: str
    why: str
    where: str
    links: tuple[str, ...]
    stages: tuple[str, ...]
    variants: Mapping[str, Variant]


def kind_of_stage(name: str) -> str:
    """ "unet" for "steps/003/unet"; a stage that is there once is its own kind."""
    return name.rpartition("/")[2]


@contextmanager
def standing(changes: list[Change]) -> Iterator[None]:
    """Attributes with other values inside the with block."""
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


def patched(*changes: Change) -> Variant:
    """A variant that changes attributes of modules."""

    @contextmanager
    def variant(site: Site) -> Iterator[Setting]:
        with standing(list(changes)):
            yield site.setting

    return variant


def by_site(make: Callable[[Site], list[Change]]) -> Variant:
    """A variant whose changes depend on where the bug is looked for."""

    @contextmanager
    def variant(site: Site) -> Iterator[Setting]:
        with standing(make(site)):
            yield site.setting

    return variant


def altered(change: Callable[[Setting], Setting]) -> Variant:
    """A variant that changes the setting: a configuration, a table, what was asked."""

    @contextmanager
    def variant(site: Site) -> Iterator[Setting]:
        yield change(site.setting)

    return variant


def together(*variants: Variant) -> Variant:
    """Several at once."""

    @contextmanager
    def variant(site: Site) -> Iterator[Setting]:
        with ExitStack() as stack:
            for one in variants:
                site = replace(site, setting=stack.enter_context(one(site)))
            yield site.setting

    return variant


def with_constants(op: Callable, **changed: Any) -> Callable:
    """The op with other constants than the model writes."""
    return lambda *args, **constants: op(*args, **{**constants, **changed})


def with_config(part: str, **changed: Any) -> Variant:
    """A network whose configuration says otherwise."""

    def change(setting: Setting) -> Setting:
        component: Component = getattr(setting.pipe, part)
        other = replace(component, config=replace(component.config, **changed))
        changes: dict[str, Any] = {part: other}
        return replace(setting, pipe=replace(setting.pipe, **changes))

    return altered(change)
