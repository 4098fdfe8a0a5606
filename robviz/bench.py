"""How fast robviz is on this machine: `robviz bench`."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robviz.attacks import apgd_steps, frozen
from robviz.datasets import load_dataset
from robviz.models import load_model


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(port: int, patience: float = 60) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The app in a process of its own; yields the process and the seconds until it answered."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "robviz.cli", "app", "--port", str(port)], env=dict(os.environ))
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None or time.perf_counter() - started > patience:
                    raise RuntimeError(f"the app did not answer on port {port} within {patience:.0f} s") from None
                time.sleep(0.05)
        yield process, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(10)


def step_seconds(model: nn.Module, steps: int = 40) -> tuple[float, float]:
    """Medians of one APGD step (mask-ce) and of a bare forward plus input-gradient pass, at 256 x 256.

    The two are measured in turn, pair by pair, so that a busy machine slows both alike.
    """
    sample = load_dataset("photos", "val")[0]
    images, labels = sample.image[None], sample.labels[None]
    attack = apgd_steps(model, images, labels, 4 / 255, steps, "mask-ce")
    next(attack)

    def bare() -> None:
        with torch.enable_grad(), frozen(model):
            point = images.clone().requires_grad_()
            torch.autograd.grad(model(point).sum(), point)

    bare()
    attacks, bares = [], []
    for _ in range(steps):
        started = time.perf_counter()
        next(attack)
        attacks.append(time.perf_counter() - started)
        started = time.perf_counter()
        bare()
        bares.append(time.perf_counter() - started)
    attack.close()
    return statistics.median(attacks), statistics.median(bares)


def app_seconds(port: int) -> tuple[float, float, float]:
    """Seconds until the server answers, from the click to the first frame, and for 20 steps on a 256 px photo."""
    from gradio_client import Client

    with serving(port) as (_, ready):
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        arguments = ("lion", None, "photos-robust", 4, "mask-ce", 20, 0)
        started = time.perf_counter()
        job = client.submit(*arguments, api_name="/attack")
        first = None
        while not job.done():
            if first is None and job.outputs():
                first = time.perf_counter() - started
            time.sleep(0.01)
        job.result()
        whole = time.perf_counter() - started
    return ready, first if first is not None else whole, whole


def bench() -> str:
    """Measure everything and return it as a table with the targets beside."""
    attack, bare = step_seconds(load_model("photos-robust"))
    ready, first, whole = app_seconds(free_port())
    rows = [
        ("server ready", f"{ready:.1f} s", "12 s"),
        ("first attacked frame", f"{first:.2f} s", "1 s"),
        ("20 steps at 256 px in the app", f"{whole:.2f} s", "4 s"),
        ("one attack step, 256 px", f"{1000 * attack:.0f} ms", ""),
        ("  over a bare forward + input gradient", f"{attack / bare:.2f} x", "1.15 x"),
    ]
    lines = [f"{name:42}{value:>10}   {'at most ' + limit if limit else ''}" for name, value, limit in rows]
    return "\n".join([f"torch {torch.__version__}, {torch.get_num_threads()} threads", *lines])
