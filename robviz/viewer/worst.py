"""The worst pictures of a result, as many as fit into one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from robviz.viewer.page import embedded
from robviz.viewer.payloads import GalleryCard, GalleryData, ViewerData

#: Kept free for what is no picture: the scripts, the style and the tables.
MARGIN = 300_000
#: A card, its view, and its pixels that broke: row, label, seen as, pixels.
Entry = tuple[GalleryCard, ViewerData, list[list[int]]]


@dataclass(frozen=True)
class Shared:
    """Hold a page, and how many of its pictures are on it."""

    text: str
    shown: int
    total: int


def as_many_as_fit(entries: Iterable[Callable[[], Entry]], limit: int | None, most_bytes: int) -> list[Entry]:
    """Make entries, the first ones first, until the limit or the page is full; one is always made."""
    made: list[Entry] = []
    left = most_bytes - MARGIN
    for make in entries:
        if len(made) == limit:
            break
        entry = make()
        left -= len(embedded("failures", {"card": entry[0], "view": entry[1]}))
        if left < 0 and made:
            break
        made.append(entry)
    return made


def views_of(made: list[Entry]) -> dict[str, ViewerData]:
    """Return the viewers of the cards by their rows."""
    return {str(card["row"]): view for card, view, _ in made}


def flips_of(made: list[Entry]) -> list[list[int]]:
    """Return which class became which in all cards."""
    return [flip for _, _, flips in made for flip in flips]


def gallery_of(made: list[Entry], total: int) -> GalleryData:
    """Return the payload of `gallery` for all cards of a page, and say how many of how many they are."""
    most = "all" if len(made) == total else f"the worst {len(made)} of"
    return {
        "cards": [card for card, _, _ in made],
        "first": 0,
        "total": total,
        "page": 0,
        "pages": 1,
        "note": f"This page shows {most} {total} attacked pictures, the lowest accuracy first.",
    }
