"""Commands that train models."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, BadParameter, Option

from robviz.cli.application import TRAIN, MultiValueCommand, application
from robviz.cli.output import print_markdown, print_table

Workers = Annotated[int, Option(metavar="N", help="Processes that read images.")]


def print_recipes() -> None:
    """Print the recipes with what each trains and on what."""
    from robviz.finetune.recipes import RECIPES

    rows = [
        (
            recipe.name,
            recipe.dataset,
            recipe.architecture,
            f"{recipe.attack_steps} steps at {255 * recipe.eps:g}/255" if recipe.eps else "none",
            f"{recipe.epochs} epochs" if recipe.iterations is None else f"{recipe.iterations} iterations",
        )
        for recipe in RECIPES.values()
    ]
    columns = ("recipe", "dataset", "architecture", "attack while training", "length")
    print_table(columns, rows, "Train one with `robviz finetune RECIPE --out FOLDER`.\n")


@application.command(rich_help_panel=TRAIN, cls=MultiValueCommand)
def finetune(
    recipe: Annotated[
        str | None, Argument(help="Name of a recipe. Without one, list all recipes.", show_default=False)
    ] = None,
    config: Annotated[
        str | None, Option(metavar="FILE", help="Configuration file of the official code, instead of a recipe.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE ...", help="Settings of the recipe to change.", show_default=False),
    ] = None,
    out: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="Where to write the checkpoint.",
            show_default="checkpoints, or as the file says",
        ),
    ] = None,
    root: Annotated[str | None, Option(metavar="FOLDER", help="Folder that holds the dataset.")] = None,
    restart: Annotated[
        bool, Option("--restart", help="Discard the training state in the folder and start over.")
    ] = False,
    micro_batch: Annotated[
        int | None,
        Option(metavar="N", help="Images per process at a time; gradients are accumulated over the batch."),
    ] = None,
    workers: Workers = 1,
) -> None:
    """Train a model by a recipe, or list the recipes.

    You can stop it at any time: the same command resumes where it left off.
    """
    if recipe is not None and config is not None:
        raise BadParameter("give a recipe or --config, not both", param_hint="RECIPE")
    if recipe is None and config is None:
        print_recipes()
        return
    from robviz.finetune import run
    from robviz.finetune.recipes import changed, recipe_of
    from robviz.paper import configs as official

    if recipe is not None:
        chosen, folder, target = recipe_of(recipe), None, "checkpoints"
    else:
        chosen, folder, target = official.training(config or "")
    run(
        changed(chosen, changes or []),
        out or target,
        root=root or folder,
        resume=not restart,
        micro_batch=micro_batch,
        workers=workers,
    )


@application.command(rich_help_panel=TRAIN, cls=MultiValueCommand)
def miniature(
    out: Annotated[
        str,
        Option(metavar="FOLDER", help="Where to keep models and evaluations. Finished ones are not repeated."),
    ],
    recipes: Annotated[
        list[str] | None,
        Argument(metavar="RECIPE", help="Some of the mini-... recipes. By default, all.", show_default=False),
    ] = None,
    seeds: Annotated[list[int], Option(metavar="N ...", help="Seeds of the trainings.")] = [0, 1, 2],  # noqa: B006
    steps: Annotated[
        int | None,
        Option(metavar="N", help="Average number of steps per attack.", show_default="300"),
    ] = None,
    limit: Annotated[int | None, Option(metavar="N", help="Evaluate on the first N images only.")] = None,
    workers: Workers = 1,
) -> None:
    """Reproduce Table 3 of the paper in small: train on photos, evaluate with SEA."""
    from robviz.finetune.recipes import MINIATURE, recipe_of
    from robviz.paper.miniature import miniature as run
    from robviz.sea import PAPER

    for report in run(
        out,
        [recipe_of(name) for name in recipes or []] or MINIATURE,
        seeds,
        PAPER if steps is None else PAPER.with_steps(steps),
        limit,
        workers=workers,
    ):
        print_markdown(report.to_markdown() + "\n")
