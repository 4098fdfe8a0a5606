"""The models at hand, and the published ones to fetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import pandas as pd

from robviz.app.work import listed, menus, refusing
from robviz.models import Card, available, card_named
from robviz.models.published import CHECKPOINTS, download, is_here
from robviz.results.report import markdown
from robviz.types import InputError

ATTACKED = ("attacked_miou", "sea_miou_4_255")  # under the attack of a training's end, or under SEA
NOTE = (
    "mIoU in % on each model's own validation images; attacked: at 4/255, by the attack that its card names or, for "
    "the published ones, by SEA as the paper reports it. Figures of different datasets do not compare."
)


def row(found: Card, place: str) -> dict[str, str]:
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
    return [name for name in CHECKPOINTS if not is_here(name)]


def fetching(listing: list[Any]) -> Callable[..., tuple[Any, ...]]:
    """The handler that downloads a model and lists it in these menus."""

    @refusing
    def fetch(name: str | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Download a published model; the menus of models list it from now on."""
        if name not in CHECKPOINTS:
            raise InputError(f"choose one of the published models: {', '.join(CHECKPOINTS)}")
        progress(0, f"asking for {name}")

        def tell(received: int, total: int | None) -> None:
            progress((received // 2**20, total // 2**20) if total else None, name, unit="MiB")

        download(name, tell)
        left = absent()
        menu = gr.Dropdown(choices=left, value=left[0] if left else None)
        return (f"{name} is here: choose it in the menus of models.", table(), menu, *listed(listing))

    return fetch


def build() -> None:
    listing, left = menus(), absent()
    models = gr.Markdown(table, elem_id="models")  # anew with each page: models are kept and fetched
    gr.Markdown(NOTE)
    with gr.Row():
        name = gr.Dropdown(left, value=left[0] if left else None, label="Published model", elem_id="published")
        button = gr.Button("Download", elem_id="download")
    said = gr.Textbox(show_label=False, container=False, interactive=False, elem_id="downloaded")
    button.click(fetching(listing), name, [said, models, name, *listing], api_name="download", show_progress_on=[said])
