"""Commands around the app: start it, compute its first view, measure its speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from robviz.cli.application import MAINTAIN, SEE, application


@application.command(rich_help_panel=SEE)
def app(
    port: Annotated[int, Option(help="Port on this machine.")] = 7860,
    evaluations: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            help="An evaluation to browse, as written by `evaluate --out`, or a folder with several. "
            "By default, those shipped with robviz.",
        ),
    ] = None,
) -> None:
    """Start the app in the browser."""
    from robviz.app import main

    main(port=port, evaluations=evaluations)


@application.command(rich_help_panel=MAINTAIN)
def bench(
    what: Annotated[Literal["app", "load", "attacks", "finetune"], Argument(help="What to measure.")] = "app",
) -> None:
    """Measure how fast the app, the attacks or a training run on this machine."""
    from robviz.bench import BENCHES

    print(BENCHES[what]())


@application.command(rich_help_panel=MAINTAIN)
def landing(
    out: Annotated[Path, Option(help="Folder to write to.")] = Path("checkpoints/landing"),
    restart: Annotated[bool, Option("--restart", help="Discard the masks in the folder and start over.")] = False,
) -> None:
    """Recompute the masks of the app's first view."""
    from robviz.interactive.landing import compute

    compute(out, resume=not restart)
