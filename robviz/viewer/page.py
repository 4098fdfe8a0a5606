"""A result as one HTML file: the live viewer, its data, its setting, and how to make it again.

`page` writes it. The file opens from a disk, asks nobody for anything, and forbids its own scripts to do so.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from robviz.files.atomic import writable, write_atomically
from robviz.files.images import data_url
from robviz.types import InputError
from robviz.viewer import HERE, SCRIPT, STYLE
from robviz.viewer.bundle import MODULES, script

#: The views that a page can show: what `app.js` registers.
VIEWS = tuple(
    re.findall(r"^  (\w+): (?:awaited|mounted)\(", (MODULES / "app.js").read_text(encoding="utf-8"), re.MULTILINE)
)
#: The largest size of a page with as many pictures as fit, in bytes.
MOST_BYTES = 5_000_000
PAGE_STYLE = (HERE / "page.css").read_text(encoding="utf-8")
PAGE_SCRIPT = script("page.js")
PNG = "data:image/png;base64,"
SUFFIXES = (".html", ".htm")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="generator" content="robviz">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header class="page-head">
<div>
<h1>{title}</h1>
{lead}
</div>
<button type="button" id="colours" title="light or dark" hidden></button>
</header>
<main class="page-main">
<div id="shown"><noscript><p>The pictures are drawn by a script inside this file, which asks no other machine for
anything; allow scripts to see them.</p></noscript></div>
<div class="page-about">
<section aria-labelledby="setting">
<h2 id="setting">Setting</h2>
<dl>
{setting}
</dl>
</section>
<section aria-labelledby="again">
<h2 id="again">Make it again</h2>
<pre>{again}</pre>
</section>
</div>
</main>
<footer class="page-foot">Made with robviz. This file is complete: it opens offline and loads nothing.</footer>
<script type="application/json" id="payload">{payload}</script>
<script>{script}</script>
<script>{start}</script>
</body>
</html>
"""


def page(
    title: str, view: str, payload: Mapping[str, Any], *, setting: Mapping[str, str], again: str, lead: str = ""
) -> str:
    """Write a result as one HTML file, which opens offline and loads nothing.

    Args:
        title: What it is about, in a few words.
        view: What draws it: one of `VIEWS`, such as "viewer", "ensemble", "transfer" or "failures".
        payload: The data of that view, as `viewer_data` and its like return it.
        setting: What decided the result, by name: model, SHA-256, attack, versions.
        again: A command or lines of Python that make it again.
        lead: A sentence below the title.

    Returns:
        The file's text. All words in it, class names too, are shown as text and never acted on.

    Raises:
        InputError: For an unknown view.
    """
    if view not in VIEWS:
        raise InputError(f"unknown view {view!r}; choose from: {', '.join(VIEWS)}")
    style = STYLE + PAGE_STYLE
    return PAGE.format(
        policy=policy(style, SCRIPT, PAGE_SCRIPT),
        title=html.escape(title),
        style=style,
        lead=f"<p>{html.escape(lead)}</p>" if lead else "",
        setting="\n".join(
            f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in setting.items()
        ),
        again=html.escape(again.strip()),
        payload=embedded(view, payload),
        script=SCRIPT,
        start=PAGE_SCRIPT,
    )


def policy(style: str, *scripts: str) -> str:
    """Forbid all but these scripts and this style, and every request: pictures may come from the page alone."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = " ".join(map(digest, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {digest(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def embedded(view: str, payload: Mapping[str, Any]) -> str:
    """Write a payload as JSON that ends no tag; a picture that occurs many times is written once."""
    pictures: dict[str, int] = {}

    def packed(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("data:image/"):
            return {"picture": pictures.setdefault(smaller(value), len(pictures))}
        if isinstance(value, Mapping):
            return {key: packed(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [packed(one) for one in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # which JSON has no number for
        return value

    data = packed(payload)
    text = json.dumps({"view": view, "pictures": list(pictures), "data": data}, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")  # `</script>` and `<!--`; json.dumps has written U+2028 as \u2028 already


@lru_cache(maxsize=256)
def smaller(url: str) -> str:
    """Compress the PNG of a data URL as well as it goes, without a change of any pixel; others stay."""
    if not url.startswith(PNG):
        return url
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix(PNG)))) as image:
        return min(url, data_url(image, "PNG", optimize=True), key=len)


def save_page(text: str, path: str | Path) -> None:
    """Write a page; raises InputError for another suffix, and where nothing can be written."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"a page is written as {SUFFIXES[0]}; got {path.name!r}")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
