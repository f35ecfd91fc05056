"""Groups of commands that are imported when one of them is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group of which some commands stand in modules of their own, each with a table COMMANDS."""

    def __init__(self, *args: Any, modules: tuple[str, ...], **attributes: Any):
        super().__init__(*args, **attributes)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return sorted({*super().list_commands(ctx), *self._elsewhere()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
        return super().get_command(ctx, name) or self._elsewhere().get(name)

    def _elsewhere(self) -> dict[str, click.Command]:
        return {name: command for module in self._modules for name, command in import_module(module).COMMANDS.items()}
