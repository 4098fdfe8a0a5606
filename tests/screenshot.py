"""Take a picture of each view of the running app for the documentation: `make screenshot`."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import sync_playwright

from robviz.bench import free_port, serving
from tests.chromium import find

FOLDER = Path(__file__).parent.parent / "docs" / "assets" / "views"
#: view -> what to press, and what is there once its picture is worth taking.
STATES = {
    "overview": ("", "#landing [data-painted]"),
    "attack": ("#attack", '#view [data-final="true"]'),
    "losses": ("#sea-run", "#sea table:not(:has(.rv-state:has-text('step'))) button:has-text('js.')"),
    "sweep": ("#sweep-run", '#sweep [aria-label^="photos-robust at 12/255"]'),
    "compare": ("#two-run", "#transfer .rv-note:has-text('photos-robust takes')"),
    "explain": ("#why-attack", "#why .rv-note:has-text('in either picture')"),
    "train": ("", "#heal img"),
    "evaluate": ("", "#evaluate-status progress"),
    "failures": ("", "#failure .rv-note:has-text('under')"),
    "models": ("", "#models table"),
}


def take(folder: Path) -> None:
    """Write a JPEG for each view."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with serving(port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox", "--disable-gpu"])
        for view, (button, there) in STATES.items():
            page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
            page.set_default_timeout(300_000)
            page.goto(f"http://127.0.0.1:{port}/?view={view}&model=photos-clean")
            page.wait_for_selector("#facts p")
            if button:
                page.click(button)
            page.wait_for_selector(there)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{view}.jpg", type="jpeg", quality=85)
            page.close()
        browser.close()


if __name__ == "__main__":
    take(FOLDER)
