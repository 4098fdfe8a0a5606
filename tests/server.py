"""The app in a process of its own, and how busy it is."""

from __future__ import annotations

import time

import psutil

LONG = 200  # steps: some ten seconds of work


def busy_seconds(process: psutil.Process, over: float) -> float:
    """CPU seconds that the process spends during the next `over` seconds."""
    before = process.cpu_times()
    time.sleep(over)
    after = process.cpu_times()
    return (after.user + after.system) - (before.user + before.system)


def wait_until_idle(process: psutil.Process, patience: float = 30) -> float:
    """Seconds until the process has spent a quiet half second."""
    started = time.monotonic()
    while busy_seconds(process, 0.5) > 0.15:
        assert time.monotonic() - started < patience, "the server is still computing"
    return time.monotonic() - started
