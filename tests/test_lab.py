"""A notebook in JupyterLab, in Chromium: it runs, a slider moves the viewer, nobody else is asked for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from robviz.bench import free_port
from robviz.notebook import runner
from tests.chromium import find
from tests.conftest import SCREENSHOTS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PATIENCE = 90_000  # milliseconds for a cell on a busy machine


@pytest.fixture
def lab(tmp_path):
    """JupyterLab in a folder with the solved copy of 00_start_here; yields its address."""
    runner.solve("00_start_here", tmp_path / "solved.ipynb")
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # outputs off the screen are there, too
    folders = {"JUPYTER_CONFIG_DIR": tmp_path / "config", "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings"}
    port, own = free_port(), {name: str(path) for name, path in folders.items()} | {"ROBVIZ_MODE": "quick"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--IdentityProvider.token="]
    options = ["--allow-root", f"--ServerApp.root_dir={tmp_path}", "--expose-app-in-browser"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([*command, *options], env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def test_a_notebook_runs_in_jupyterlab_and_a_slider_moves_the_viewer(lab):
    from playwright.sync_api import sync_playwright

    foreign = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})

        def watch(route):
            url = route.request.url
            if re.match(r"(https?|wss?)://127\.0\.0\.1[:/]", url) or url.startswith(("data:", "blob:")):
                route.continue_()
            else:
                foreign.append(url)
                route.abort()

        page.route("**/*", watch)
        page.goto(f"{lab}/lab/tree/solved.ipynb")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=PATIENCE)
        page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")  # and not wait for it
        viewer = page.locator(".jp-OutputArea .rv").first
        viewer.wait_for(timeout=PATIENCE)

        def change() -> str:
            return viewer.locator('[data-score="change"] b').inner_text()

        assert change() == "4/255"
        after = viewer.evaluate("node => node.parentNode.robviz.layerCanvas('after').toDataURL()")
        page.locator(".jp-OutputArea .noUi-handle").first.focus()
        page.keyboard.press("Home")  # ε = 0
        page.wait_for_function(
            "() => document.querySelector('[data-score=change] b').innerText === '0/255'", timeout=PATIENCE
        )
        assert viewer.evaluate("node => node.parentNode.robviz.layerCanvas('after').toDataURL()") != after
        assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        viewer.scroll_into_view_if_needed()
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "jupyterlab.png")
        browser.close()
    assert foreign == []
