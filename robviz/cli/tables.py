"""Commands that print tables: the paper's, and those of the shipped models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from robviz.cli.application import MEASURE, MultiValueCommand, application
from robviz.cli.output import print_markdown


@application.command(rich_help_panel=MEASURE, cls=MultiValueCommand)
def tables(
    number: Annotated[
        int | None,
        Argument(
            help="Table of the paper, 1 to 9. Without a number, print the tables of the shipped models.",
            show_default=False,
        ),
    ] = None,
    reports: Annotated[
        list[Path] | None,
        Option(
            metavar="FOLDER ...",
            help="Folders with JSON reports of evaluations.",
            show_default="the shipped ones",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        Option(metavar="FILE", help="Update the tables of this Markdown file, each between its two markers."),
    ] = None,
) -> None:
    """Print a table of the paper beside our results."""
    from robviz import paper
    from robviz.files.paths import bundled_path
    from robviz.paper.generated_tables import generated_tables, reports_in, write_tables
    from robviz.paper.ours import OURS
    from robviz.results.report import markdown

    if write is not None:
        write_tables(write)
    elif number is None:
        print_markdown("\n".join(generated_tables().values()))
    else:
        here = bundled_path("checkpoints/reports")
        folders = reports or [here, *([here / "miniature"] if number == 3 else [])]
        found = [report for folder in folders for report in reports_in(folder)]
        text = f"Table {number}: {paper.TABLES[number]}\n\n{markdown(paper.table(number))}\n"
        if number in OURS:
            text += f"Ours, other models and data\n\n{markdown(paper.ours(number, found))}"
        print_markdown(text)


@application.command(rich_help_panel=MEASURE)
def leaderboard(
    reports: Annotated[
        list[Path] | None,
        Argument(
            metavar="REPORTS ...",
            help="Reports, or folders that `evaluate --out` wrote.",
            show_default="the shipped ones",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(metavar="FILE", help="File to write, .html for a page or .md for a table. Without it, print the table."),
    ] = None,
    published: Annotated[bool, Option(help="Add the figures of the paper, marked as published.")] = True,
) -> None:
    """Compare evaluations, and say which of them are comparable."""
    from robviz.files.paths import bundled_path
    from robviz.paper.leaderboard import lines_of, published_lines, reports_at, save, to_markdown

    lines = lines_of(reports_at(reports or [bundled_path("checkpoints") / "reports"]))
    if published:
        lines += published_lines()
    if out is None:
        print_markdown(to_markdown(lines))
    else:
        save(lines, out)
        print(out)
