"""The application that every command registers with, and how its options are parsed.

To add a command, write a function with `@application.command(...)` in the file of its group. Its docstring is the help
text, its parameters are the arguments and options.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

#: The headings under which `robviz --help` lists the commands, in this order.
PANELS = SEE, MEASURE, TRAIN, DATA, MAINTAIN = "See", "Measure", "Train", "Data and models", "Teach and maintain"


class Panels(TyperGroup):
    """List the commands in the order of `PANELS`, and within one as they were added."""

    def panel(self, name: str) -> str:
        """Return the heading that a command is listed under."""
        return getattr(self.commands[name], "rich_help_panel", None) or MAINTAIN

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order of the help."""
        return sorted(self.commands, key=lambda name: PANELS.index(self.panel(name)))


_STYLE: dict[str, Any] = {
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "rich_markup_mode": "rich",
    "pretty_exceptions_enable": False,  # a bug in robviz shows a plain traceback
    "add_completion": False,
}
application = typer.Typer(
    name="robviz",
    cls=Panels,
    help="See how segmentation models break under attack, and what makes them hold.",
    no_args_is_help=True,
    **_STYLE,
)


def group(name: str, panel: str, **options: Any) -> typer.Typer:
    """Add a command that has subcommands, such as `robviz data`."""
    commands = typer.Typer(**options, **_STYLE)
    application.add_typer(commands, name=name, rich_help_panel=panel)
    return commands


class MultiValueCommand(TyperCommand):
    """Let repeatable options also take several values at once: `--seeds 0 1 2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line in which repeatable options may take several values."""
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        return super().parse_args(ctx, repeat_options(args, repeatable))


def repeat_options(arguments: Collection[str], repeatable: Collection[str]) -> list[str]:
    """Repeat an option before each of its values: `--seeds 0 1` becomes `--seeds 0 --seeds 1`."""
    repeated: list[str] = []
    current = None
    for argument in arguments:
        if argument.startswith("-"):
            current = argument if argument in repeatable else None
        elif current is not None and repeated[-1] != current:
            repeated.append(current)
        repeated.append(argument)
    return repeated
