"""The command that attacks picture files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from robviz.cli.application import SEE, application
from robviz.cli.evaluate import MODEL, model_of
from robviz.cli.output import print_table

#: The size that the pictures of `index.html` may fill; it stays here, and `robviz page` writes one to send.
MOST_PAGE_BYTES = 50_000_000


@application.command(rich_help_panel=SEE)
def attack(
    pictures: Annotated[list[Path], Argument(metavar="PICTURE ...", help="Picture files, or folders of them.")],
    out: Annotated[Path, Option(metavar="FOLDER", help="Where to write pictures, masks, numbers and the page.")],
    model: Annotated[str, Option(help=MODEL)] = "photos-clean",
    eps: Annotated[str, Option(metavar="N", help="Radius of the attack, in 1/255.")] = "4",
    loss: Annotated[str, Option(help="Loss that the attack raises.")] = "mask-ce",
    steps: Annotated[int, Option(metavar="N", help="Number of steps.")] = 20,
    method: Annotated[str, Option("--attack", metavar="NAME", help="Such as apgd, pgd or apgd-l2.")] = "apgd",
    seed: Annotated[int, Option(metavar="N", help="Seed of the random start.")] = 0,
    target: Annotated[
        str | None, Option(metavar="CLASS", help="Class to be predicted instead; with the loss ce, js or tsallis.")
    ] = None,
    masks: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            help="Label masks by the pictures' names: PNG of class numbers, 255 for void.",
            show_default="the model's own masks",
        ),
    ] = None,
    size: Annotated[int, Option(metavar="N", help="Longer side, in pixels, that larger pictures are shrunk to.")] = 256,
    device: Annotated[str | None, Option(help="Device such as cpu, cuda or cuda:1.", show_default="cpu")] = None,
) -> None:
    """Attack pictures and write what the model sees in them, before and after.

    FOLDER gets a page, index.html, and a folder for each picture: the attacked picture as an exact PNG, masks,
    overlays and the numbers.
    """
    from robviz.attacks import AttackSpec
    from robviz.files.progress import track
    from robviz.interactive.batch import attack_pictures, pictures_in
    from robviz.models import card_of
    from robviz.types import InputError, radius_in_levels
    from robviz.viewer.attacked import attacked_page
    from robviz.viewer.page import save_page

    files = pictures_in(pictures)
    network = model_of(model, device)
    classes = card_of(network).classes
    if target is not None and target not in classes:
        raise InputError(f"the model has no class {target!r}; choose from: {', '.join(classes)}")
    number = None if target is None else classes.index(target)
    spec = AttackSpec(method, loss, radius_in_levels(eps), steps, seed, target=number)
    attacked = attack_pictures(network, files, spec, out, masks=masks, longer_side=size)
    rows = [
        [
            found.name,
            *(f"{100 * scores.accuracy:.1f}" for scores in (found.shown.scores_before, found.shown.scores_after)),
            *(f"{100 * scores.miou:.1f}" for scores in (found.shown.scores_before, found.shown.scores_after)),
            f"{found.shown.largest_change}/255",
        ]
        for found in track(attacked, "attacking", len(files), "pictures")
    ]
    save_page(attacked_page(out, most_bytes=MOST_PAGE_BYTES).text, out / "index.html")
    columns = ("picture", "accuracy before", "after", "mIoU before", "after", "largest change")
    print_table(
        columns, rows, f"{model} under {method}, {loss}, {255 * spec.eps:g}/255; rates in %; see {out / 'index.html'}"
    )
