"""A hook of mkdocs: build the leaderboard of the shipped reports into the site, as `robviz leaderboard` writes it."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File

from robviz.files.paths import bundled_path
from robviz.paper.leaderboard import lines_of, published_lines, reports_at, to_html

PAGE, BOARD = "leaderboard.md", "leaderboard_table.html"


def board() -> str:
    """Return the leaderboard as one self-contained page."""
    return to_html([*lines_of(reports_at([bundled_path("checkpoints") / "reports"])), *published_lines()])


def on_files(files: Any, config: Any) -> Any:
    """Add the leaderboard to the files of the site."""
    files.append(File.generated(config, BOARD, content=board()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Show the leaderboard on its page."""
    if page.file.src_uri != PAGE:
        return markdown
    style = "width: 100%; height: 85vh; border: 1px solid #8888"
    frame = f'<iframe src="{BOARD}" title="Leaderboard of the shipped reports" style="{style}"></iframe>'
    return f"{markdown}\n\n[Open it in a window of its own]({BOARD}).\n\n{frame}\n"
