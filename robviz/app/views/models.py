"""The models that are here, the published ones to download, and those of other libraries and of one's own to add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from robviz.app.bar import facts_of_card, kind_of
from robviz.app.page import Page
from robviz.app.serving import UPLOAD_LIMIT
from robviz.app.work import refusing
from robviz.files.download import Listener
from robviz.models import Card, add_model, available, card_named, card_of, keep_own, open_own
from robviz.models.own import MEANINGS, SUFFIXES, name_for
from robviz.models.published import CHECKPOINTS, download, is_here
from robviz.results.report import markdown
from robviz.types import InputError

KEY = "models"
EXAMPLES = "torchvision/deeplabv3_resnet50, hf/<owner>/<name> or smp/<owner>/<name>"
ATTACKED = ("attacked_miou", "sea_miou_4_255")  # under the attack of a training's end, or under SEA
NOTE = (
    "mIoU in % on each model's own validation images; attacked: at 4/255, by the attack that its card names or, for "
    "the published ones, by SEA as the paper reports it. Figures of different datasets do not compare."
)
NUMBERED = "numbered"
UPLOAD_WEIGHTS = f"Upload weights ({', '.join(SUFFIXES)}), and their card (.json)"
OWN_NOTE = (
    f"**From a file.** Weights of robviz's architectures, up to {UPLOAD_LIMIT[:-2]} MB; larger files by their path. "
    "A folder by its path, as `save_pretrained` of transformers or segmentation_models_pytorch writes it. "
    "Name it first. Only tensors and settings are read; code is never run."
)


def row(found: Card, place: str) -> dict[str, str]:
    """Return a model's row of the table."""
    val = found.metrics.get("val", {})
    attacked = next((val[name] for name in ATTACKED if name in val), None)

    def shown(share: float | None) -> str:
        return "" if share is None else f"{100 * share:.1f}"

    return {
        "model": found.name,
        "architecture": found.architecture,
        "dataset": found.dataset,
        "classes": str(len(found.classes)),
        "mIoU": shown(val.get("clean_miou")),
        "attacked": shown(attacked),
        "": place,
    }


def table() -> str:
    """Every model and where it is, as Markdown."""
    places = {name: "here" for name in available(offline=True)} | {name: "to download" for name in absent()}
    return markdown(pd.DataFrame([row(card_named(name), place) for name, place in places.items()]))


def absent() -> list[str]:
    """Return the published models that are not on this machine."""
    return [name for name in CHECKPOINTS if not is_here(name)]


def counted(progress: gr.Progress, name: str) -> Listener:
    """Return a listener that moves a progress bar by the bytes of a download."""

    def tell(received: int, total: int | None) -> None:
        progress((received // 2**20, total // 2**20) if total else None, name, unit="MiB")

    return tell


def parts_of(files: list[str] | None, path: str) -> tuple[Path, Path | None]:
    """Return weights, or a folder, and the card among uploaded files; raises InputError unless there is one model."""
    uploaded = [Path(file) for file in files or ()]
    if uploaded and path:
        raise InputError("choose either files or a path; both were given")
    cards = [file for file in uploaded if file.suffix == ".json"]
    weights = [file for file in uploaded if file.suffix != ".json"]
    if path:
        return Path(path).expanduser(), None
    if len(weights) != 1 or len(cards) > 1:
        raise InputError(
            f"expected one file of weights ({', '.join(SUFFIXES)}), and its card (.json) if there is one; "
            f"got {len(weights)} and {len(cards)}"
        )
    return weights[0], cards[0] if cards else None


def require_readable(card: Card) -> None:
    """Raise InputError unless the app can say of a card of unknown origin what it says of every card."""
    try:
        row(card, ""), kind_of(card), facts_of_card(card)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the figures on the card cannot be read ({error!r}); expected none, or those that `robviz finetune` writes"
        ) from error


class Shelf:
    """Handle the downloads, and tell every menu of models about what has come."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @refusing
    def fetch(self, name: str | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Download a published model; the menus of models list it from then on."""
        if name not in CHECKPOINTS:
            raise InputError(f"choose one of the published models: {', '.join(CHECKPOINTS)}")
        progress(0, f"asking for {name}")
        download(name, counted(progress, name))
        left = absent()
        menu = gr.Dropdown(choices=left, value=left[0] if left else None)
        return (f"{name} is here: choose it in the menus of models.", table(), menu, *self.page.listed())

    @refusing
    def add(self, name: str | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Download a model of another library; the menus of models list it from then on."""
        name = (name or "").strip()
        if "/" not in name:
            raise InputError(f"a model of another library is named like {EXAMPLES}; got {name[:60]!r}")
        progress(0, f"asking for {name}")
        card = add_model(name, counted(progress, name))
        said = f"{card.name} is here, with {len(card.classes)} classes: choose it in the menus of models."
        return (said, table(), *self.page.listed())

    @refusing
    def add_files(self, files: list[str] | None, name: str | None, meaning: str) -> tuple[Any, ...]:
        """Keep a model from uploaded files in the menus of models."""
        return self.keep(*parts_of(files, ""), name, meaning)

    @refusing
    def add_own(self, path: str | None, name: str | None, meaning: str) -> tuple[Any, ...]:
        """Keep a model from a file or folder of this machine in the menus of models."""
        return self.keep(*parts_of(None, (path or "").strip()), name, meaning)

    def keep(self, place: Path, card: Path | None, name: str | None, meaning: str) -> tuple[Any, ...]:
        """Keep a model in the menus of models."""
        model = open_own(place, card, None if meaning == NUMBERED else meaning)
        require_readable(card_of(model))
        kept = keep_own(model, place, (name or "").strip() or name_for(place))
        said = f"{kept.name} is here, with {len(kept.classes)} classes: choose it in the menus of models."
        return (said, table(), *self.page.listed())


def build(page: Page) -> None:
    """Build the view into the page."""
    shelf, left = Shelf(page), absent()
    models = gr.Markdown(table, elem_id="models")  # a function: read again for each page that opens
    gr.Markdown(NOTE)
    with gr.Row():
        name = gr.Dropdown(left, value=left[0] if left else None, label="Published model", elem_id="published")
        button = gr.Button("Download", elem_id="download", scale=0)
    said = gr.Markdown(elem_id="downloaded")
    shown = [said, models, name, *page.menus]
    button.click(shelf.fetch, name, shown, api_name="download", show_progress_on=[said])
    if page.options.is_public:
        return  # strangers do not fill the server's disk with what they name
    with gr.Row():
        other = gr.Textbox(label="Add a model of another library", placeholder=EXAMPLES, elem_id="other-model")
        add_button = gr.Button("Add", elem_id="add-model", scale=0)
    added = gr.Markdown(elem_id="added")
    shown = [added, models, *page.menus]
    add_button.click(shelf.add, other, shown, api_name="add_model", show_progress_on=[added])
    if page.options.trusts_visitors:
        build_own(shelf, models)


def build_own(shelf: Shelf, models: gr.Markdown) -> None:
    """Build what adds a model from a file or folder."""
    gr.Markdown(OWN_NOTE)
    with gr.Row(elem_id="own-model"):
        name = gr.Textbox(label="Name", placeholder="as the file", max_length=40, elem_id="own-name")
        meaning = gr.Dropdown(
            [NUMBERED, *MEANINGS], value=NUMBERED, label="Classes, without a card", elem_id="own-classes"
        )
        kinds = [*SUFFIXES, ".json"]
        files = gr.UploadButton(UPLOAD_WEIGHTS, file_count="multiple", file_types=kinds, elem_id="own-files")
    with gr.Row():
        label = "Or the path of a file or folder on this machine"
        path = gr.Textbox(label=label, placeholder="/path/to/model", elem_id="own-path")
        button = gr.Button("Add", elem_id="add-own", scale=0)
    said = gr.Markdown(elem_id="own-added")
    shown = [said, models, *shelf.page.menus]
    files.upload(shelf.add_files, [files, name, meaning], shown, api_name="add_files", show_progress_on=[said])
    button.click(shelf.add_own, [path, name, meaning], shown, api_name="add_own", show_progress_on=[said])
