"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def print_markdown(text: str) -> None:
    """Render Markdown on a terminal; print its source where the output goes to a file or a pipe."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> None:
    """Print a table that fits the terminal; in a file or a pipe, one line for each row and nothing cut off."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    on_terminal = sys.stdout.isatty()
    table = Table(*columns, box=SIMPLE_HEAD if on_terminal else None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(width=None if on_terminal else 1000, highlight=False)
    console.print(title, markup=False)
    console.print(table)
