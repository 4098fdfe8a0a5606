"""The app's tabs, in Chromium."""

from __future__ import annotations


def open_tab(page, name: str) -> None:
    """Click a tab, out of the menu of those that do not fit where it is there."""
    tab = page.get_by_role("tab", name=name, exact=True)
    page.wait_for_timeout(200)  # the row settles
    if tab.count() and tab.first.is_visible():
        tab.first.click()
    else:
        page.locator(".overflow-menu button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
