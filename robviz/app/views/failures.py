"""Look through an evaluation: what broke, by picture, class, size, loss and attack."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from robviz.app.evaluations import Evaluations
from robviz.app.page import Page
from robviz.app.work import UNSEEN, drawn, drawn_by, refusing
from robviz.metrics import SIZE_NAMES
from robviz.results.annotations import MAX_CHARACTERS, read_annotations, write_annotation
from robviz.results.failures import SORTS, Failures, export, select, to_csv
from robviz.types import InputError
from robviz.viewer.failures import failure_data, gallery_data, heatmap_data, matrix_data
from robviz.viewer.folder import folder_page
from robviz.viewer.page import save_page
from robviz.viewer.payloads import GalleryData, HeatmapData, MatrixData, ViewerData

KEY = "failures"
ANY = -1  # among class numbers
PER_PAGE, MOST_EXPORTED = 24, 500
GALLERY = """
const choose = (what) => trigger("row" in what ? "select" : "input", what);
const cards = robviz.gallery(element.firstChild, props.value, choose);
watch('value', () => cards.update(props.value));
"""
MATRIX = """
const cells = robviz.matrix(element.firstChild, props.value, (pair) => trigger("select", pair));
watch('value', () => cells.update(props.value));
"""
HEATMAP = """
const cells = robviz.heatmap(element.firstChild, props.value, (cell) => trigger("select", cell));
watch('value', () => cells.update(props.value));
"""
Filters = tuple[int, str, str, int, int, str, bool]


def row_in(found: Failures, row: Any) -> int:
    """Return a row's number, which came from the browser."""
    if not isinstance(row, int) or row not in found.rows.index:
        raise InputError(f"there is no row {row!r}; choose a picture of the gallery")
    return row


def selected(
    found: Failures, sort_by: str, loss: str | None, label: int, seen_as: int, size: str | None, every: bool
) -> pd.DataFrame:
    """Return the rows that the filters leave."""
    return select(
        found,
        worst_only=not every,
        loss=loss or None,
        label=None if label == ANY else label,
        seen_as=None if seen_as == ANY else seen_as,
        size=size or None,
        sort_by=sort_by,
    )


def choices_of(found: Failures) -> tuple[list[tuple[str, str]], list[tuple[str, int]]]:
    """Return the choices of losses and of classes."""
    losses = [("any loss", ""), *((loss, loss) for loss in dict.fromkeys(found.rows["loss"]))]
    return losses, [("any class", ANY), *((name, number) for number, name in enumerate(found.classes))]


@contextmanager
def file_for(suffix: str) -> Iterator[Path]:
    """Give a file to write a download to; it is gone once gradio has its copy."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, f"robviz-failures.{suffix}")


class Browser:
    """Handle the view's events on the evaluations of a server."""

    def __init__(self, evaluations: Evaluations) -> None:
        self.evaluations = evaluations

    def page_of(self, evaluation: int, rows: pd.DataFrame, page: int) -> GalleryData:
        """Return one page of cards."""
        found, dataset = self.evaluations.opened(evaluation)
        return gallery_data(found, dataset, rows, page, PER_PAGE, read_annotations(found.folder))

    def card_view(self, evaluation: int, row: Any) -> tuple[ViewerData, int, str]:
        """Return a card's picture before and after, its row and the note on it."""
        found, dataset = self.evaluations.opened(evaluation)
        row = row_in(found, row)
        if dataset is None:
            raise InputError(found.missing)
        note = read_annotations(found.folder).get(str(found.rows["index"][row]), "")
        return failure_data(found, dataset, row), row, note

    def first_card(self, evaluation: int, rows: pd.DataFrame) -> tuple[Mapping[str, Any], int, str]:
        """Return the worst card; an empty one where there are no masks."""
        first = int(rows.index[0])
        has_masks = self.evaluations.opened(evaluation)[1] is not None
        return self.card_view(evaluation, first) if has_masks else ({}, first, "")

    def heat(self, evaluation: int) -> HeatmapData:
        """Return every picture under every attack."""
        return heatmap_data(self.evaluations.opened(evaluation)[0])

    @refusing
    def browse(
        self, evaluation: int, sort_by: str, loss: str, label: int, seen_as: int, size: str, every: bool
    ) -> tuple[GalleryData, MatrixData]:
        """Show the first cards and the flip matrix of what the filters leave."""
        found, _ = self.evaluations.opened(evaluation)
        rows = selected(found, sort_by, loss, label, seen_as, size, every)
        return self.page_of(evaluation, rows, 0), matrix_data(found, rows)

    @refusing
    def turn(
        self,
        evaluation: int,
        sort_by: str,
        loss: str,
        label: int,
        seen_as: int,
        size: str,
        every: bool,
        event: gr.EventData,
    ) -> GalleryData:
        """Show other cards."""
        rows = selected(self.evaluations.opened(evaluation)[0], sort_by, loss, label, seen_as, size, every)
        return self.page_of(evaluation, rows, int(event.page))

    @refusing
    def narrow(self, event: gr.EventData) -> tuple[int, int]:
        """Filter by the pair of classes whose cell was clicked."""
        return event.label, event.seen_as

    @refusing
    def look(self, evaluation: int, event: gr.EventData) -> tuple[ViewerData, int, str]:
        """Open a card, or a cell of the heatmap."""
        return self.card_view(evaluation, event.row)

    @refusing
    def note_down(self, evaluation: int, row: int, text: str) -> None:
        """Write a note on a picture."""
        found, _ = self.evaluations.opened(evaluation)
        write_annotation(found.folder, int(found.rows["index"][row_in(found, row)]), text)

    @refusing
    def switch(self, evaluation: int) -> tuple[Any, ...]:
        """Open another evaluation: its choices, all of its failures and the worst of them."""
        found, _ = self.evaluations.opened(evaluation)
        losses, classes = choices_of(found)
        rows = select(found)
        return (
            gr.Dropdown(losses, value=""),
            *(gr.Dropdown(classes, value=ANY) for _ in range(2)),
            self.page_of(evaluation, rows, 0),
            matrix_data(found, rows),
            self.heat(evaluation),
            *self.first_card(evaluation, rows),
        )

    @refusing
    def take_csv(
        self, evaluation: int, sort_by: str, loss: str, label: int, seen_as: int, size: str, every: bool
    ) -> Iterator[str]:
        """Return the selection as CSV."""
        found, _ = self.evaluations.opened(evaluation)
        rows = selected(found, sort_by, loss, label, seen_as, size, every)
        with file_for("csv") as path:
            path.write_text(to_csv(found, rows, read_annotations(found.folder)), encoding="utf-8")
            yield str(path)

    @refusing
    def take_zip(
        self, evaluation: int, sort_by: str, loss: str, label: int, seen_as: int, size: str, every: bool
    ) -> Iterator[str]:
        """Return the selection as a zip: CSV, masks and pictures."""
        found, dataset = self.evaluations.opened(evaluation)
        rows = selected(found, sort_by, loss, label, seen_as, size, every)
        if dataset is None:
            raise InputError(found.missing)
        if len(rows) > MOST_EXPORTED:
            raise InputError(f"a zip takes at most {MOST_EXPORTED} rows, these are {len(rows)}; narrow the selection")
        with file_for("zip") as path:
            with path.open("wb") as file:
                export(found, dataset, rows, file, read_annotations(found.folder))
            yield str(path)

    @refusing
    def share(self, evaluation: int) -> Iterator[str]:
        """Return the evaluation as a page, with as many of its pictures as fit."""
        found, _ = self.evaluations.opened(evaluation)
        with file_for("html") as path:
            save_page(folder_page(found.folder).text, path)
            yield str(path)


def build(page: Page) -> None:
    """Build the view into the page."""
    browser = Browser(page.evaluations)
    found, _ = page.evaluations.opened(0)
    losses, classes = choices_of(found)
    rows = select(found)
    with gr.Row(elem_classes="rv-filters"):
        evaluation = page.reports
        evaluation.render()
        sort_by = gr.Dropdown(list(SORTS), value=next(iter(SORTS)), label="Sort by", elem_id="sort")
        loss = gr.Dropdown(losses, value="", label="Attacked with", elem_id="winner")
        label = gr.Dropdown(classes, value=ANY, label="Class", elem_id="was")
        seen_as = gr.Dropdown(classes, value=ANY, label="Predicted as", elem_id="became")
        sizes = [("any size", ""), *((size, size) for size in SIZE_NAMES)]
        size = gr.Dropdown(sizes, value="", label="Objects that broke", elem_id="size")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            every = gr.Checkbox(False, label="Every attack, not only the worst of each picture", elem_id="every")
            cards = drawn_by(GALLERY, "cards", browser.page_of(0, rows, 0))
            with gr.Row():
                csv_button = gr.Button("Save as CSV", size="sm", elem_id="take-csv")
                zip_button = gr.Button("Save as zip", size="sm", elem_id="take-zip")
                share_button = gr.Button("Share as a page", size="sm", elem_id="share-failures")
            csv_file = gr.DownloadButton("CSV", visible="hidden", elem_id="csv-file")
            zip_file = gr.DownloadButton("zip", visible="hidden", elem_id="zip-file")
            page_file = gr.DownloadButton("page", visible="hidden", elem_id="page-file")
            with gr.Accordion("Which class became which", open=True):
                cells = drawn_by(MATRIX, "flips", matrix_data(found, rows))
            with gr.Accordion("Every picture under every attack", open=False, elem_id="sea-many"):
                heat = drawn_by(HEATMAP, "heat", browser.heat(0))
        with gr.Column(scale=5, min_width=320):
            first_view, first_row, first_note = browser.first_card(0, rows)
            view, row = drawn("viewer", "failure", first_view), gr.State(first_row)
            note = gr.Textbox(
                first_note,
                label="Note on this picture",
                lines=2,
                max_length=MAX_CHARACTERS,
                interactive=page.options.trusts_visitors,
                elem_id="note",
            )

    filters = [evaluation, sort_by, loss, label, seen_as, size, every]
    shown = [loss, label, seen_as, cards, cells, heat, view, row, note]
    latest: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
    # "always_last" would repeat what the first of several events says.
    each: dict[str, Any] = {"trigger_mode": "multiple", **UNSEEN}
    evaluation.change(browser.switch, evaluation, shown, api_visibility="private", **latest)
    gr.on(
        [part.change for part in (sort_by, loss, label, seen_as, size, every)],
        browser.browse,
        filters,
        [cards, cells],
        api_name="failures",
        **latest,
    )
    cards.input(browser.turn, filters, cards, **each)
    cards.select(browser.look, evaluation, [view, row, note], **each)
    heat.select(browser.look, evaluation, [view, row, note], **each)
    cells.select(browser.narrow, None, [label, seen_as], **each)
    if page.options.trusts_visitors:  # strangers write nothing to the server's disk, and to other visitors neither
        note.blur(browser.note_down, [evaluation, row, note], None, **each)
    shared = share_button.click(browser.share, evaluation, page_file, api_name="share_failures")
    shared.then(None, js="() => robviz.download('page-file')", api_visibility="private")
    for button, take, file in ((csv_button, browser.take_csv, csv_file), (zip_button, browser.take_zip, zip_file)):
        fetched = button.click(take, filters, file, api_name=take.__name__)
        fetched.then(None, js=f"() => robviz.download('{file.elem_id}')", api_visibility="private")
