"""Look through an evaluation: what broke, by picture, class, size and loss."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from robviz.app.work import VIEWER, drawn_by, refusing
from robviz.files.paths import bundled_path
from robviz.metrics import SIZE_NAMES
from robviz.results.annotations import MAX_CHARACTERS, read_annotations, write_annotation
from robviz.results.failures import SORTS, Failures, export, failures, select, to_csv
from robviz.types import Dataset, InputError
from robviz.viewer.failures import failure_data, gallery_data, matrix_data
from robviz.viewer.payloads import GalleryData, MatrixData, ViewerData

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
DOWNLOAD = "() => document.querySelector('#{0} a, a#{0}, button#{0}').click()"


class Served:
    """The evaluations that this server shows; the browser names them by their number alone."""

    folders: tuple[Path, ...] = ()


def serve(root: Path | None) -> None:
    """Show the evaluations in a folder, or the shipped ones. Raises InputError where there is none."""
    root = (root or bundled_path("checkpoints") / "failures").resolve()
    folders = [root, *sorted(path for path in root.glob("*") if path.resolve().is_relative_to(root))]
    Served.folders = tuple(folder for folder in folders if (folder / "report.json").is_file())
    if not Served.folders:
        raise InputError(f"{root} holds no finished evaluation; expected a folder that `robviz evaluate --out` wrote")


def evaluations() -> list[tuple[str, int]]:
    """Name and number of each, for a menu."""
    if not Served.folders:
        serve(None)
    return [(folder.name, number) for number, folder in enumerate(Served.folders)]


@lru_cache(maxsize=4)
def opened_as_of(folder: Path, written: float) -> tuple[Failures, Dataset | None]:
    found = failures(folder)
    return found, found.dataset


def opened(evaluation: int) -> tuple[Failures, Dataset | None]:
    """An evaluation by its number, and its dataset if it is here."""
    if evaluation not in range(len(Served.folders)):
        raise InputError(f"there is no evaluation number {evaluation}; choose one of the list")
    folder = Served.folders[evaluation]
    return opened_as_of(folder, (folder / "report.json").stat().st_mtime)


def row_in(found: Failures, row: Any) -> int:
    """A row's number, which came from the browser."""
    if not isinstance(row, int) or row not in found.rows.index:
        raise InputError(f"there is no row {row!r}; choose a picture of the gallery")
    return row


def selected(
    found: Failures, sort_by: str, loss: str | None, label: int, seen_as: int, size: str | None, every: bool
) -> pd.DataFrame:
    """What the filters say."""
    return select(
        found,
        worst_only=not every,
        loss=loss or None,
        label=None if label == ANY else label,
        seen_as=None if seen_as == ANY else seen_as,
        size=size or None,
        sort_by=sort_by,
    )


def page_of(evaluation: int, rows: pd.DataFrame, page: int) -> GalleryData:
    found, dataset = opened(evaluation)
    return gallery_data(found, dataset, rows, page, PER_PAGE, read_annotations(found.folder))


@refusing
def browse(
    evaluation: int, sort_by: str, loss: str, label: int, seen_as: int, size: str, every: bool
) -> tuple[GalleryData, MatrixData]:
    """The first cards and the flip matrix of what the filters leave."""
    found, _ = opened(evaluation)
    rows = selected(found, sort_by, loss, label, seen_as, size, every)
    return page_of(evaluation, rows, 0), matrix_data(found, rows)


@refusing
def turn(
    evaluation: int,
    sort_by: str,
    loss: str,
    label: int,
    seen_as: int,
    size: str,
    every: bool,
    event: gr.EventData,
) -> GalleryData:
    """Other cards."""
    rows = selected(opened(evaluation)[0], sort_by, loss, label, seen_as, size, every)
    return page_of(evaluation, rows, int(event.page))


@refusing
def narrow(event: gr.EventData) -> tuple[int, int]:
    """A cell of the matrix was clicked: filter by its pair."""
    return event.label, event.seen_as


@refusing
def look(evaluation: int, event: gr.EventData) -> tuple[ViewerData, int, str]:
    """Open a card."""
    return card_view(evaluation, event.row)


def card_view(evaluation: int, row: Any) -> tuple[ViewerData, int, str]:
    found, dataset = opened(evaluation)
    row = row_in(found, row)
    if dataset is None:
        raise InputError(found.missing)
    note = read_annotations(found.folder).get(str(found.rows["index"][row]), "")
    return failure_data(found, dataset, row), row, note


def first_card(evaluation: int, rows: pd.DataFrame) -> tuple[Mapping[str, Any], int, str]:
    """The worst one; nothing to see where there are no masks."""
    first = int(rows.index[0])
    return card_view(evaluation, first) if opened(evaluation)[1] is not None else ({}, first, "")


@refusing
def note_down(evaluation: int, row: int, text: str) -> None:
    found, _ = opened(evaluation)
    write_annotation(found.folder, int(found.rows["index"][row_in(found, row)]), text)


def choices_of(found: Failures) -> tuple[list[tuple[str, str]], list[tuple[str, int]]]:
    """Of the losses and the classes."""
    losses = [("any loss", ""), *((loss, loss) for loss in dict.fromkeys(found.rows["loss"]))]
    return losses, [("any class", ANY), *((name, number) for number, name in enumerate(found.classes))]


@refusing
def switch(evaluation: int) -> tuple[Any, ...]:
    """Open another evaluation: its choices, all of its failures and the worst of them."""
    found, _ = opened(evaluation)
    losses, classes = choices_of(found)
    rows = select(found)
    return (
        gr.Dropdown(losses, value=""),
        *(gr.Dropdown(classes, value=ANY) for _ in range(2)),
        page_of(evaluation, rows, 0),
        matrix_data(found, rows),
        *first_card(evaluation, rows),
    )


@contextmanager
def file_for(suffix: str) -> Iterator[Path]:
    """Where to write what is downloaded; gone once gradio has its copy."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, f"robviz-failures.{suffix}")


@refusing
def take_csv(
    evaluation: int, sort_by: str, loss: str, label: int, seen_as: int, size: str, every: bool
) -> Iterator[str]:
    """The selection as CSV."""
    found, _ = opened(evaluation)
    rows = selected(found, sort_by, loss, label, seen_as, size, every)
    with file_for("csv") as path:
        path.write_text(to_csv(found, rows, read_annotations(found.folder)), encoding="utf-8")
        yield str(path)


@refusing
def take_zip(
    evaluation: int, sort_by: str, loss: str, label: int, seen_as: int, size: str, every: bool
) -> Iterator[str]:
    """The selection as a zip: CSV, masks and pictures."""
    found, dataset = opened(evaluation)
    rows = selected(found, sort_by, loss, label, seen_as, size, every)
    if dataset is None:
        raise InputError(found.missing)
    if len(rows) > MOST_EXPORTED:
        raise InputError(f"a zip takes at most {MOST_EXPORTED} rows, these are {len(rows)}; narrow the selection")
    with file_for("zip") as path:
        with path.open("wb") as file:
            export(found, dataset, rows, file, read_annotations(found.folder))
        yield str(path)


def build() -> None:
    names = evaluations()
    found, _ = opened(0)
    losses, classes = choices_of(found)
    rows = select(found)
    with gr.Row(elem_classes="rv-filters"):
        evaluation = gr.Dropdown(names, value=0, label="Evaluation", elem_id="evaluation")
        sort_by = gr.Dropdown(list(SORTS), value=next(iter(SORTS)), label="Sort by", elem_id="sort")
        loss = gr.Dropdown(losses, value="", label="Attacked with", elem_id="winner")
        label = gr.Dropdown(classes, value=ANY, label="Class", elem_id="was")
        seen_as = gr.Dropdown(classes, value=ANY, label="predicted as", elem_id="became")
        sizes = [("any size", ""), *((size, size) for size in SIZE_NAMES)]
        size = gr.Dropdown(sizes, value="", label="Objects that broke", elem_id="size")
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            every = gr.Checkbox(False, label="Every attack, not the worst of each picture alone", elem_id="every")
            cards = drawn_by(GALLERY, page_of(0, rows, 0), "cards")
        with gr.Column(scale=4, min_width=320):
            cells = drawn_by(MATRIX, matrix_data(found, rows), "flips")
            with gr.Row():
                csv_button = gr.Button("Save as CSV", size="sm", elem_id="take-csv")
                zip_button = gr.Button("Save as zip", size="sm", elem_id="take-zip")
            csv_file = gr.DownloadButton("CSV", visible="hidden", elem_id="csv-file")
            zip_file = gr.DownloadButton("zip", visible="hidden", elem_id="zip-file")
    first_view, first_row, first_note = first_card(0, rows)
    view, row = drawn_by(VIEWER, first_view, "failure"), gr.State(first_row)
    note = gr.Textbox(first_note, label="Note on this picture", lines=2, max_length=MAX_CHARACTERS, elem_id="note")

    filters = [evaluation, sort_by, loss, label, seen_as, size, every]
    latest: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
    # "always_last" would repeat what the first of several events says.
    each: dict[str, Any] = {"trigger_mode": "multiple", "show_progress": "hidden", "api_visibility": "private"}
    evaluation.input(
        switch, evaluation, [loss, label, seen_as, cards, cells, view, row, note], api_visibility="private", **latest
    )
    gr.on(
        [part.change for part in (sort_by, loss, label, seen_as, size, every)],
        browse,
        filters,
        [cards, cells],
        api_name="failures",
        **latest,
    )
    cards.input(turn, filters, cards, **each)
    cards.select(look, evaluation, [view, row, note], **each)
    cells.select(narrow, None, [label, seen_as], **each)
    note.blur(note_down, [evaluation, row, note], None, **each)
    for button, take, file in ((csv_button, take_csv, csv_file), (zip_button, take_zip, zip_file)):
        button.click(take, filters, file, api_name=take.__name__).then(None, js=DOWNLOAD.format(file.elem_id))
