"""Shared pieces: models whose best attack is known, and the app in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import psutil
import pytest
import torch
from gradio_client import Client
from torch import Tensor, nn

from robviz.bench import free_port, serving
from tests.chromium import find

#: Pictures that the browser tests keep; git ignores the folder.
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
GOLDEN = Path(__file__).parent.parent.parent / "shared" / "golden"

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs = {
        "gpu": (torch.cuda.is_available(), "no CUDA here: this test needs a GPU"),
        "browser": (find() is not None, "no Chromium on this machine: `make test` installs one where it can"),
    }
    for marker, (is_here, reason) in needs.items():
        for item in items:
            if not is_here and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def server():
    """The app: its address and its process."""
    port = free_port()
    with serving(port) as (process, _):
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)


@pytest.fixture
def client(server):
    client = Client(server[0], verbose=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


class PixelwiseLinear(nn.Module):
    """Two classes, each pixel judged by itself: logits (0, w . x + b). The best attack is a corner of the box."""

    def __init__(self, weights: tuple[float, ...] = (1.0, -2.0, 0.5), bias: float = 0.1) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64).view(1, 3, 1, 1))
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        margin = (self.weights * images).sum(1) + self.bias
        return torch.stack([torch.zeros_like(margin), margin], 1)


class Bends(nn.Module):
    """A small seeded network with dropout and batch norm, so that a wrong mode shows."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.GELU(),
                nn.Dropout(0.5),
                nn.Conv2d(8, num_classes, 1),
            )

    def forward(self, images: Tensor) -> Tensor:
        return 5 * self.layers(images - 0.5)


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


def golden(name: str):
    """The official code's values; for the large files, the test skips where a clone has none."""
    path = Path(__file__).parent / "golden" / name
    path = path if path.exists() else beside_the_checkout(name)
    import numpy as np

    return {key: torch.from_numpy(value) for key, value in np.load(path).items()}


def published(name: str) -> dict[str, Tensor]:
    """Empty tensors under a published checkpoint's keys."""
    path = beside_the_checkout(f"{name}.keys.json")
    return {key: torch.empty(shape) for key, shape in json.loads(path.read_text()).items()}


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors behind the golden logits: a function of key and shape."""
    spec = importlib.util.spec_from_file_location("fill", beside_the_checkout("fill.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill(state)


def beside_the_checkout(name: str) -> Path:
    """A golden file; where a clone has none, the test skips."""
    if not (GOLDEN / name).exists():
        pytest.skip(f"golden/{name} is not here: it lies beside the development checkout only")
    return GOLDEN / name
