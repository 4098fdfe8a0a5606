"""The command that writes a result as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from robviz.cli.application import SEE, application


@application.command(rich_help_panel=SEE)
def page(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="What `robviz evaluate --out` or `robviz attack --out` wrote.")
    ],
    out: Annotated[Path, Option(metavar="FILE", help="Page to write, .html.")] = Path("results.html"),
    limit: Annotated[
        int | None,
        Option(metavar="N", help="Show only the N worst pictures.", show_default="as many as fit into 5 MB"),
    ] = None,
    title: Annotated[str | None, Option(metavar="TEXT", help="Title of the page.", show_default="the model")] = None,
) -> None:
    """Write an evaluation or attacked pictures as one page to share.

    The page is a single file with the live viewer, its setting and the command that makes it again. It opens offline.
    """
    from robviz.viewer.folder import folder_page
    from robviz.viewer.page import save_page

    shared = folder_page(folder, limit=limit, title=title)
    save_page(shared.text, out)
    print(f"{out}: {shared.shown} of {shared.total} pictures, {len(shared.text.encode()) / 1e6:.1f} MB")
