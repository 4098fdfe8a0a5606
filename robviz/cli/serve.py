"""Commands around the app: start it, compute its first view, measure its speed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from robviz.cli.application import MAINTAIN, SEE, application
from robviz.types import InputError


@application.command(rich_help_panel=SEE)
def app(
    port: Annotated[int, Option(help="Port to listen on.")] = 7860,
    evaluations: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            help="An evaluation to browse, as written by `evaluate --out`, or a folder with several. "
            "By default, those shipped with robviz.",
        ),
    ] = None,
    host: Annotated[str, Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    root_path: Annotated[
        str, Option(metavar="PATH", help="Path under which a proxy serves the app, such as /robviz.")
    ] = "",
    share: Annotated[bool, Option("--share", help="Open a public link through gradio's tunnel.")] = False,
    auth: Annotated[
        Path | None, Option(metavar="FILE", help="Require a login: a file with one line name:password per user.")
    ] = None,
    max_visitors: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Pages that may be open at the same time.",
            show_default="20 if others can reach the app, else no limit",
        ),
    ] = None,
    no_upload: Annotated[bool, Option("--no-upload", help="Refuse every file from visitors.")] = False,
) -> None:
    """Start the app in the browser. By default, only this machine can reach it."""
    gc.disable()  # imports leave hardly any garbage, and each search for it takes longer
    try:
        from robviz.app import main
        from robviz.app.serving import ServeOptions, logins_in, require_free
    finally:
        gc.enable()

    options = ServeOptions(
        host=host,
        port=port,
        root_path=root_path,
        is_shared=share,
        auth=() if auth is None else logins_in(auth),
        max_visitors=max_visitors,
        no_upload=no_upload,
    )
    require_free(host, port)
    main(evaluations=evaluations, options=options)


@application.command(rich_help_panel=MAINTAIN)
def bench(
    what: Annotated[
        Literal["app", "load", "attacks", "peers", "evaluate", "finetune", "course"], Argument(help="What to measure.")
    ] = "app",
    out: Annotated[
        Path | None, Option(metavar="FILE", help="Also write the table as JSON, for `robviz tables --write`.")
    ] = None,
    official: Annotated[
        Path | None,
        Option(metavar="FILE", help="For peers: semseg/utils/attacker.py of the paper's official code, as one more."),
    ] = None,
) -> None:
    """Measure how fast the app, attacks, an evaluation, a training or the course run on this machine.

    `peers` compares the attacks of other libraries that are installed: torchattacks, foolbox, adv-lib,
    segmentation-robustness-framework.
    """
    from robviz.bench import BENCHES, bench_peers

    if official is not None and what != "peers":
        raise InputError(f"--official is for `robviz bench peers`, got `robviz bench {what}`; leave it out")
    measured = BENCHES[what]() if official is None else bench_peers(official)
    print(measured)
    if out is not None:
        measured.save(out)


@application.command(rich_help_panel=MAINTAIN)
def landing(
    out: Annotated[Path, Option(help="Folder to write to.")] = Path("checkpoints/landing"),
    restart: Annotated[bool, Option("--restart", help="Discard the masks in the folder and start over.")] = False,
) -> None:
    """Recompute the masks of the app's first view."""
    from robviz.interactive.landing import compute

    compute(out, resume=not restart)
