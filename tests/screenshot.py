"""Take a picture of the running app for the documentation: `make screenshot`."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import sync_playwright

from robviz.bench import free_port, serving
from tests.chromium import find


def take(path: Path) -> None:
    port = free_port()
    with serving(port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 950})
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector("#landing [data-painted]")
        page.wait_for_function(
            "() => document.querySelector('#landing [data-painted]').robviz.state.eps === 4"
        )  # played
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    take(Path(__file__).parent.parent / "docs/assets/screenshot.png")
