"""The app in Chromium: pages that ask nobody else for anything, tabs, screenshots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.server import PATIENCE

#: Pictures that the browser tests keep; git ignores the folder.
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"

#: Elements that are there once the first view or Attack has opened.
OVERVIEW, ATTACK = "#landing [data-painted]:visible", "#view .rv[data-final]:visible"

#: Whether the row of tabs looks as it did a tenth of a second ago.
SETTLED = """() => {
  const tabs = [...document.querySelectorAll('[role=tab]')].map(tab => [tab.offsetLeft, tab.offsetWidth]).join();
  const settled = tabs === window.tabsBefore;
  window.tabsBefore = tabs;
  return settled;
}"""


def offline(page) -> tuple[list[str], list[str]]:
    """Keep a page from asking other machines; return lists that fill with what it asked for and with its errors.

    The page waits for as long as a busy machine may take.
    """
    page.set_default_timeout(1000 * PATIENCE)
    foreign: list[str] = []
    errors: list[str] = []

    def check(route) -> None:
        url = route.request.url
        if re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]", url) or url.startswith(("data:", "blob:")):
            route.continue_()
        else:
            foreign.append(url)
            route.abort()

    page.route("**/*", check)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return foreign, errors


def watched(page, url: str, there: str = OVERVIEW) -> Iterator:
    """Open the app in a page, close it afterwards; it must have asked nobody else and logged no error.

    there: what the page shows once it is open.
    """
    foreign, errors = offline(page)
    page.goto(url)
    page.wait_for_selector(there)
    yield page
    if not page.is_closed():
        page.close()
    assert foreign == []
    assert errors == []


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


def keep(page, name: str) -> None:
    """Keep a picture of the whole page."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
