"""Progress bars on a terminal and in Jupyter, and silence everywhere else.

`track` iterates with a bar; a `Bar` is moved by hand. All bars of a process share one display, so that the bar of an
evaluation appears below that of the training it belongs to. The display is redrawn only when a bar moves, at most
every `SECONDS`. It therefore needs no thread, and it never hides the cursor, so neither outlives an exception, Ctrl-C
or a killed process.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

T = TypeVar("T")

SECONDS = 0.2  # between two drawings
LINES = 20  # of a bar that writes lines into a log, at most
#: Set to 0, this environment variable turns all progress bars off.
SWITCH = "ROBVIZ_PROGRESS"


def track(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "", stays: bool = True
) -> Iterator[T]:
    """Yield the items and show how many of them are done.

    Args:
        items: What to iterate over.
        description: Words before the bar.
        total: Number of items; by default their `len`, if they have one.
        unit: What is counted, in the plural: `images`.
        stays: Leave the finished bar on the terminal.

    Yields:
        The items.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(description, total, unit, stays=stays) as bar:
        for item in items:
            yield item
            bar.advance()


class Bar:
    """A progress bar that is moved by hand; use it in a `with` statement.

    Attributes:
        done: How much is done, counted also where no bar is shown.
        total: How much there is to do; None if unknown.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: str = "",
        done: int = 0,
        stays: bool = True,
        is_shown: bool = True,
        logs: bool = False,
    ) -> None:
        """Open a bar.

        Args:
            description: Words before the bar.
            total: How much there is to do; None if unknown.
            unit: What is counted, in the plural; `bytes` are shown as kB, MB and so on.
            done: How much was done before.
            stays: Leave the closed bar on the terminal.
            is_shown: If several processes run, True in one of them only.
            logs: Where no bar can be shown, write up to `LINES` lines to stderr in its place.
        """
        self.description, self.total, self.unit, self.done, self.stays = description, total, unit, done, stays
        self._note, self._next = "", 0.0  # the words after the bar, and the time of the next drawing
        self._task: TaskID | None = None
        is_wanted = is_shown and os.environ.get(SWITCH) != "0"
        self._display = _open_display(self) if is_wanted else None
        self._logs = logs and is_wanted and self._display is None

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count further steps. note: words after the bar, such as the current loss; None keeps the last ones."""
        before, self.done = self.done, self.done + steps
        if note is not None:
            self._note = note
        if self._display is not None:
            if (now := time.monotonic()) >= self._next:
                self._next = now + SECONDS
                self._display.draw(self)
        elif self._logs and self.total and self.done * LINES // self.total > before * LINES // self.total:
            self.log(f"{self.description}: {self.amount} {self._note}".rstrip())

    def log(self, line: str) -> None:
        """Write a line to stderr, above the bars."""
        print(line, file=sys.stderr, flush=True)

    @property
    def amount(self) -> str:
        """How much is done, in words: `3/40 images`."""
        if self.unit == "bytes":
            from rich.filesize import decimal

            return decimal(self.done) if self.total is None else f"{decimal(self.done)} of {decimal(self.total)}"
        count = str(self.done) if self.total is None else f"{self.done}/{self.total}"
        return f"{count} {self.unit}".rstrip()

    def close(self) -> None:
        """Show the last state, or remove the bar if it does not stay. A second call does nothing."""
        display, self._display = self._display, None
        if display is not None:
            _close_display(self, display)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


# ------------------------------------------------------------------------------------------ the shared display

_LOCK = threading.RLock()
_shown: _Display | None = None


class _Display:
    """The lines of all open bars, drawn by rich."""

    def __init__(self, console: Console) -> None:
        self.bars: list[Bar] = []
        self.progress = _progress(console)
        self.progress.start()

    def add(self, bar: Bar) -> None:
        """Add a line for a bar."""
        bar._task = self.progress.add_task(bar.description, total=bar.total, completed=bar.done, amount="", note="")
        self.bars.append(bar)
        self.draw(bar)

    def draw(self, bar: Bar) -> None:
        """Redraw all lines, one of them in its new state."""
        with _LOCK:
            if bar._task is not None:
                self.progress.update(
                    bar._task, completed=bar.done, total=bar.total, amount=bar.amount, note=bar._note, refresh=True
                )

    def remove(self, bar: Bar) -> None:
        """Draw the last state of a bar, and remove its line unless it stays."""
        self.draw(bar)
        task, bar._task = bar._task, None
        self.bars.remove(bar)
        if task is not None:
            if bar.stays:
                self.progress.stop_task(task)
            else:
                self.progress.remove_task(task)
                self.progress.refresh()

    def stop(self) -> None:
        """Stop drawing and move the cursor below the bars that stay."""
        live = self.progress.live
        live.transient = not self.progress.tasks
        with live.ipy_widget or nullcontext():  # in a notebook, rich displays an empty output when it stops
            live.stop()


def _console() -> Console | None:
    """Return where bars are drawn: stderr if it is a terminal, or the notebook; None where there is neither."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not is_terminal and "ipykernel" not in sys.modules:
        return None  # without importing rich
    from rich.console import Console

    class Visible(Console):
        """A console that never hides the cursor."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    console = Visible(stderr=True)
    if console.is_jupyter:
        from importlib.util import find_spec

        return console if find_spec("ipywidgets") is not None else None
    return console if is_terminal and console.is_terminal and not console.is_dumb_terminal else None


def _progress(console: Console) -> Progress:
    """Return rich's display with our columns. What is printed meanwhile appears above it."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        auto_refresh=False,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # never from a file or a pipe to stderr
    )


def _open_display(bar: Bar) -> _Display | None:
    """Show a bar in the display of this process, started if this is the first; None where nothing is shown."""
    global _shown
    with _LOCK:
        if _shown is None:
            if (console := _console()) is None:
                return None
            _shown = _Display(console)
        _shown.add(bar)
        return _shown


def _close_display(bar: Bar, display: _Display) -> None:
    """Remove a bar from its display, which stops with the last one."""
    global _shown
    with _LOCK:
        try:
            display.remove(bar)
        finally:
            if not display.bars:
                if _shown is display:
                    _shown = None
                display.stop()
