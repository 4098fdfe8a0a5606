"""Commands for those who teach with the notebooks or write new ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from robviz.cli.application import MAINTAIN, group

commands = group("course", MAINTAIN, no_args_is_help=True, help="Check, render or solve the course notebooks.")

Names = Annotated[list[str] | None, Argument(metavar="NAME", help="Notebooks. By default, all.", show_default=False)]


@commands.command()
def check(
    names: Names = None,
    write: Annotated[bool, Option("--write", help="Store the run times, which each notebook shows.")] = False,
) -> None:
    """Run the notebooks offline with unsolved, wrong and solved exercises, as the tests do."""
    from robviz.notebook import runner

    if problems := runner.check_notebooks(names or [], write):
        sys.exit("\n".join(problems))


@commands.command()
def render(
    out: Annotated[Path, Argument(help="Folder to write to.", show_default=False)],
    names: Names = None,
) -> None:
    """Run the solved notebooks and write them as HTML with live viewers."""
    from robviz.notebook import runner

    runner.render(out, names or [])


@commands.command()
def record() -> None:
    """Compute the long runs that the notebooks show, where they are missing; best on a GPU."""
    from robviz.notebook import recorded

    recorded.record(recorded.folder())


@commands.command()
def solve(
    name: Annotated[str, Argument(help="Notebook to solve.", show_default=False)],
    out: Annotated[Path, Argument(help="File to write.", show_default=False)],
) -> None:
    """Write a copy of a notebook with its exercises solved."""
    from robviz.notebook import runner

    runner.solve(name, out)


@commands.command()
def badges(
    repository: Annotated[str, Argument(metavar="OWNER/NAME", help="Repository on GitHub.", show_default=False)],
    folder: Annotated[
        Path | None, Argument(help="Folder of the notebooks. By default, ours.", show_default=False)
    ] = None,
) -> None:
    """Write a repository's name into the notebooks, so that they open in Colab."""
    from robviz.files.paths import bundled_path
    from robviz.notebook import colab

    for path in colab.add_badges(folder or bundled_path("notebooks"), repository):
        print(path)


@commands.command()
def strip(
    paths: Annotated[list[Path], Argument(help="Notebook files.", show_default=False)],
) -> None:
    """Clear the outputs of notebooks that were run and saved."""
    from robviz.notebook import runner

    for path in paths:
        runner.strip(path)
