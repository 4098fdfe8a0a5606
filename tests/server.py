"""The app in a process of its own, and how busy it is."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from gradio_client import Client

LONG = 300  # steps: as many as the app takes
#: Seconds until a test gives up waiting: no claim, only the end of hope on a busy machine.
PATIENCE = float(os.environ.get("ROBVIZ_PATIENCE", 300))


def until(claim: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until a claim holds."""
    started = time.monotonic()
    while not claim():
        assert time.monotonic() - started < patience, "what was waited for did not come"
        time.sleep(0.02)


def status_of(url: str, **options: object) -> int:
    """Ask for an address and return the status of the answer, also of a refusal."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def connect(url: str) -> Client:
    """Connect a client that waits for as long as a busy machine may take."""
    from gradio_client import Client

    return Client(url, verbose=False, httpx_kwargs={"timeout": PATIENCE})


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds that the process has spent so far."""
    times = process.cpu_times()
    return times.user + times.system


def wait_until_idle(process: psutil.Process) -> None:
    """Wait until the process spends less than a third of a core over half a second."""

    def is_idle() -> bool:
        before = cpu_seconds(process)
        time.sleep(0.5)
        return cpu_seconds(process) - before < 0.15

    until(is_idle)


class Effort:
    """CPU seconds of a server's attack of `LONG` steps: what the first ones took says what all would."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.start = process, cpu_seconds(process)

    @contextmanager
    def saved_after(self, step: int) -> Iterator[None]:
        """Fail unless the server, interrupted inside at this step, ends with most of the other steps not made."""
        spent = cpu_seconds(self.process) - self.start
        yield
        wait_until_idle(self.process)
        rest = cpu_seconds(self.process) - self.start - spent
        assert rest < spent / step * (LONG - step) / 2, "the attack went on"
