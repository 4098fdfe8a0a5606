"""Shared pieces: models whose best attack is known, and the app in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

# Before torch starts its threads: they must not spin while they wait, and one is enough for each of several workers.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import psutil
import pytest
import torch
from torch import Tensor

from robviz.files.paths import bundled_path
from tests.browser import OFFLINE, Windows
from tests.chromium import find
from tests.server import PATIENCE, connect
from tests.small import Bends, PixelwiseLinear

gc.disable()  # until all tests are collected: imports leave hardly any garbage, and each search for it takes longer

# jsonschema, which nbformat imports, would parse a grammar for seconds, to check addresses that no notebook holds.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

#: The name of a class, in an evaluation that the server shows, that a page would act on.
HOSTILE = "<img src=x onerror=alert(1)>"


def place_of(items: list[pytest.Item]) -> tuple[bool, bool, int]:
    """Where a file's tests stand: notebooks first, as they take long; the browser last, as it leaves an event loop."""
    drives_browser = any("chromium" in item.fixturenames for item in items)
    runs_notebook = any(item.get_closest_marker("notebook") for item in items)
    return drives_browser, not runs_notebook, -len(items)


def pytest_collection_finish() -> None:
    """Search for garbage again, but not among what the imports left."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files in order, mark what talks to the app, and skip what this machine lacks."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
        if {"server", "chromium"} & set(item.fixturenames):
            item.add_marker(pytest.mark.app)
    items[:] = [item for tests in sorted(files.values(), key=place_of) for item in tests]
    needs = {
        "gpu": (torch.cuda.is_available(), "no CUDA here: this test needs a GPU"),
        "browser": (find() is not None, "no Chromium on this machine: `make test` installs one where it can"),
    }
    for marker, (is_here, reason) in needs.items():
        for item in items:
            if not is_here and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def evaluations(tmp_path_factory) -> Path:
    """What the server shows: the shipped evaluations, one of them with a hostile name, and a link out of the folder."""
    root, outside = tmp_path_factory.mktemp("evaluations"), tmp_path_factory.mktemp("outside") / "c"
    source = bundled_path("checkpoints") / "failures"
    for name, copy in (
        ("photos-clean", root / "photos-clean"),
        ("photos-robust", root / "photos-robust"),
        ("photos-robust", root / "with-harm"),
        ("photos-clean", outside),
    ):
        shutil.copytree(source / name, copy)
    report = root / "with-harm" / "report.json"
    report.write_text(report.read_text(encoding="utf-8").replace('"rocket"', json.dumps(HOSTILE)), encoding="utf-8")
    (root / "z").symlink_to(outside)
    return root


@pytest.fixture(scope="session")
def server(evaluations, tmp_path_factory):
    """The app, with a cache of its own: its address and its process."""
    from robviz.bench import environment, free_port, serving

    port = free_port()
    with ExitStack() as stack:
        with environment(ROBVIZ_CACHE=str(tmp_path_factory.mktemp("cache"))):  # which the server inherits
            process, _ = stack.enter_context(serving(port, PATIENCE, options=["--evaluations", str(evaluations)]))
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)


@pytest.fixture
def client(server):
    client = connect(server[0])
    yield client
    client.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", OFFLINE]
        profile = tmp_path_factory.mktemp("profile")
        windows = Windows(playwright.chromium, profile, executable_path=find(), args=flags)
        yield windows
        windows.close()


@pytest.fixture
def linear() -> PixelwiseLinear:
    return PixelwiseLinear()


@pytest.fixture
def bends() -> Bends:
    return Bends().double().eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Three random images (3, 3, 12, 10), labels in 0 .. 3 with some void."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 12, 10, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 4, (3, 12, 10), generator=generator)
    return images, labels
