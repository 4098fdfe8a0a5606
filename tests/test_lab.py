"""A notebook in JupyterLab, in Chromium: it runs, a slider moves the viewer, nobody else is asked for anything."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import nbformat
import pytest

from robviz.bench import free_port
from tests.browser import keep, offline
from tests.server import until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.notebook,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


CELLS = (
    "import robviz\nfrom robviz.notebook.widget import Explorer",
    "model = robviz.load_model('photos-robust')",
    "sample = robviz.load_dataset('photos', 'photographs')[2]",
    "Explorer(model, sample, 4 / 255, 'mask-ce', 2)",
)


@pytest.fixture
def lab(tmp_path):
    """JupyterLab in a folder with a small notebook; yields its address."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS],
        # Without it, JupyterLab asks which kernel to use.
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "small.ipynb")
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # outputs off the screen are there, too
    folders = {"JUPYTER_CONFIG_DIR": tmp_path / "config", "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings"}
    port, own = free_port(), {name: str(path) for name, path in folders.items()} | {"ROBVIZ_MODE": "quick"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--IdentityProvider.token="]
    options = ["--allow-root", f"--ServerApp.root_dir={tmp_path}", "--expose-app-in-browser"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([*command, *options], env={**os.environ, **own}, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return httpx.get(f"{url}/api").is_success
        except httpx.HTTPError:
            return False

    try:
        until(answers)
        yield url
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_a_notebook_runs_in_jupyterlab_and_a_slider_moves_the_viewer(lab, chromium):
    page = chromium.new_page(1400, 1000)
    foreign, _ = offline(page)
    page.goto(f"{lab}/lab/tree/small.ipynb")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")  # and not wait for it
    viewer = page.locator(".jp-OutputArea .rv").first
    viewer.wait_for()
    assert viewer.locator('[data-score="change"] b').inner_text() == "4/255"
    after = viewer.evaluate("node => node.parentNode.robviz.layerCanvas('after').toDataURL()")
    page.locator(".jp-OutputArea .noUi-handle").first.focus()
    page.keyboard.press("Home")  # ε = 0
    page.wait_for_function("() => document.querySelector('[data-score=change] b').innerText === '0/255'")
    assert viewer.evaluate("node => node.parentNode.robviz.layerCanvas('after').toDataURL()") != after
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    viewer.scroll_into_view_if_needed()
    keep(page, "jupyterlab")
    page.close()
    assert foreign == []
