"""Overview: two models on one photograph, and the radius to play with; everything was computed beforehand."""

from __future__ import annotations

from robviz.app.page import Page
from robviz.app.work import drawn_once
from robviz.viewer.landing import landing_data

KEY = "overview"
#: Photograph and radius are those of the bar; what is chosen here is chosen there.
#: The tab is open until the address is read: where that asks for another view, it leaves the first second to that one.
LANDING = """
const begin = () => robviz.overview(element.firstChild, data);
const asked = new URLSearchParams(location.search).get("view") ?? "overview";
if (asked === "overview") begin();
else setTimeout(begin, 1000);
"""


def build(page: Page) -> None:
    """Build the view into the page."""
    drawn_once(LANDING, "landing", landing_data())
    bar = page.bar
    for part, script in ((bar.photo, "photo => robviz.followPhoto(photo)"), (bar.eps, "eps => robviz.followEps(eps)")):
        part.change(None, part, None, js=script, api_visibility="private")
