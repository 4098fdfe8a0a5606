"""Commands that list, check and download datasets and published checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Exit, Option

from robviz.cli.application import DATA, application, group
from robviz.cli.output import print_table

commands = group(
    "data", DATA, invoke_without_command=True, help="List the datasets; check, download or weigh one of them."
)

Root = Annotated[
    Path | None,
    Option(metavar="FOLDER", help="Folder that holds the datasets.", show_default="ROBVIZ_DATA, or in your cache"),
]
Name = Annotated[str, Argument(help="Name of a dataset or path of your own folder.", show_default=False)]
Split = Annotated[str, Option(help="Split of the dataset.")]


@commands.callback()
def data(context: Context, root: Root = None) -> None:
    """List the datasets, and whether they are found."""
    context.obj = root
    if context.invoked_subcommand is None:
        from robviz.datasets import inventory
        from robviz.datasets.sources import data_home

        title = f"Looked for in {root or data_home()}; choose another folder with --root or ROBVIZ_DATA.\n"
        print_table(("dataset", "state", "where, or how to get it"), inventory(root), title)


@commands.command()
def check(context: Context, name: Name, root: Root = None, split: Split = "val") -> None:
    """Read every image and mask and report what is wrong with them.

    The exit status is 1 if a sample cannot be used.
    """
    from robviz.datasets import load_dataset
    from robviz.datasets import validate as find_problems
    from robviz.datasets.validation import FEW

    dataset = load_dataset(name, split, root or context.obj)
    problems = find_problems(dataset)
    for problem in problems:
        print(f"{problem.name}: {problem.reason}")
    size = f"endless, {FEW} of them read" if dataset.is_endless else f"{len(dataset)} samples"
    print(f"{dataset.name} ({dataset.split}): {size}, {len(problems)} problems")
    if any(problem.stops for problem in problems):
        raise Exit(1)


@commands.command("get")
def download_dataset(
    context: Context,
    name: Annotated[str, Argument(help="Name of a dataset.", show_default=False)],
    root: Root = None,
) -> None:
    """Download and unpack a dataset, under its own terms of use."""
    from robviz.datasets import get

    for folder in get(name, root or context.obj):
        print(folder)


@commands.command()
def weights(context: Context, name: Name, root: Root = None, split: Split = "train") -> None:
    """Print classes, colours and weights (1 / N_y) of a split as CSV."""
    from robviz.datasets import class_weights, load_dataset
    from robviz.datasets.labels import table_text

    dataset = load_dataset(name, split, root or context.obj)
    print(table_text(dataset, class_weights(dataset)), end="")


@application.command(rich_help_panel=DATA)
def download(
    names: Annotated[
        list[str] | None,
        Argument(metavar="NAME", help="Checkpoints to download. Without a name, list all.", show_default=False),
    ] = None,
    verify: Annotated[
        bool, Option("--verify", help="Check the files in the cache against their SHA-256 sums.")
    ] = False,
) -> None:
    """Download published checkpoints into the cache, or list them."""
    from robviz.files.paths import cache_folder
    from robviz.models import published

    rows = {**published.CHECKPOINTS, **published.BACKBONES}
    here = [name for name in rows if published.cached_path(name).exists()]
    for name in names or []:
        print(published.download(name))
    for name in here if verify else []:
        published.verify(name)
        print(f"{name}: intact")
    if not names and not verify:
        sizes = {name: f"{published.cached_path(name).stat().st_size / 1e6:.0f} MB" for name in here}
        states = [(name, sizes.get(name, "not downloaded")) for name in rows]
        print_table(("checkpoint", "in the cache"), states, f"Kept in {cache_folder()}.\n")
