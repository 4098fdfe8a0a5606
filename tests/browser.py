"""The app in Chromium: pages that ask nobody else for anything, tabs, screenshots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.server import PATIENCE

#: No name but this machine's is looked up. Interception of requests would switch off the browser's cache.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"

#: Pictures that the browser tests keep; git ignores the folder.
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"

#: view -> an element that is there once it has opened; the first view is the one without a name.
OPENED = {
    "": "#landing [data-painted]:visible",
    "overview": "#landing [data-painted]:visible",
    "attack": "#view .rv[data-final]:visible",
    "losses": "#sea .rv:visible",
    "sweep": "#sweep .rv:visible",
    "compare": "#transfer .rv:visible",
    "explain": "#why .rv:visible",
    "train": "#heal .rv:visible",
    "evaluate": "#evaluate-status progress",
    "failures": "#cards .rv-card",
}

#: Where the viewer stands: in Attack, or in a page of its own.
VIEWER = ":is(#view, #shown)"

#: Whether the row of tabs looks as it did a tenth of a second ago.
SETTLED = """() => {
  const tabs = [...document.querySelectorAll('[role=tab]')].map(tab => [tab.offsetLeft, tab.offsetWidth]).join();
  const settled = tabs === window.tabsBefore;
  window.tabsBefore = tabs;
  return settled;
}"""


class Windows:
    """Pages of one visitor, whose browser keeps what it has fetched and compiled; `strangers` have another browser."""

    def __init__(self, chromium: Any, profile: Path, **options: Any) -> None:
        self.context = chromium.launch_persistent_context(profile, accept_downloads=True, **options)
        self._launch = lambda: chromium.launch(**options)

    @cached_property
    def strangers(self) -> Any:
        """A browser that knows nothing: no cookie, no storage."""
        return self._launch()

    def close(self) -> None:
        """End both."""
        self.context.close()
        if "strangers" in vars(self):
            self.strangers.close()

    def new_page(self, width: int = 1440, height: int = 900, motion: bool = False) -> Any:
        """Open an empty page of a size; without `motion`, it asks for no animation."""
        page = self.context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(reduced_motion="no-preference" if motion else "reduce")
        return page


def offline(page) -> tuple[list[str], list[str]]:
    """Watch a page; return lists that fill with what it asks of other machines and with its errors.

    The page waits for as long as a busy machine may take.
    """
    page.set_default_timeout(1000 * PATIENCE)
    foreign: list[str] = []
    errors: list[str] = []

    def check(request) -> None:
        local = r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:|file:"
        if not re.match(local, request.url):
            foreign.append(request.url)

    page.on("request", check)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return foreign, errors


def watched(page, url: str, there: str | None = None) -> Iterator:
    """Open an address of the app in a page, and close it; it must have asked nobody else and logged no error.

    Args:
        page: An empty page.
        url: Of the app.
        there: What is there once it is open; by default what its view shows.
    """
    foreign, errors = offline(page)
    page.goto(url)
    view = re.search(r"[?&]view=(\w+)", url)
    page.wait_for_selector(there or OPENED[view[1] if view else ""])
    yield page
    if not page.is_closed():
        page.close()
    assert foreign == [], foreign
    assert errors == [], errors


def opened(server, chromium, query: str = "", width: int = 1440, height: int = 900) -> Iterator:
    """Open the app in a tab of a size, at what `query` says."""
    yield from watched(chromium.new_page(width, height), f"{server[0]}/{query}")


def open_tab(page, name: str) -> None:
    """Click a tab, in the menu of those that do not fit where it is there."""
    page.wait_for_function("() => { window.tabsBefore = null; return true }")
    page.wait_for_function(SETTLED, polling=100)
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
    else:
        page.locator(".overflow-menu button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()


def choose_photo(page, name: str) -> None:
    """Choose a picture in the bar."""
    page.locator(f'#photo input[value="{name}"]').check(force=True)


def choose_model(page, name: str, menu: str = "#model") -> None:
    """Choose a model in the bar, or in another menu."""
    page.click(f"{menu} input")
    page.get_by_role("option", name=re.compile(rf"^(✓ *)?{re.escape(name)}( [(]|$)")).click()


def score(page, name: str) -> str:
    """What the viewer says of an attack: its accuracy, its step, its largest change."""
    return page.inner_text(f'{VIEWER} [data-score="{name}"] b')


def viewer(page, expression: str):
    """What an expression about `v`, the handle of the viewer, gives."""
    return page.evaluate(
        f"() => {{ const v = document.querySelector('{VIEWER} .rv').parentNode.robviz; return {expression} }}"
    )


def layer(page, name: str) -> str:
    """A layer as it is coloured now."""
    return viewer(page, f"v.layerCanvas('{name}').toDataURL()")


def hover(page, pane: int, x: float, y: float) -> None:
    """Point at a place of a pane, in shares of its size."""
    canvas = page.locator(f"{VIEWER} canvas").nth(pane)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def keep(page, name: str) -> None:
    """Keep a picture of the whole page."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
