"""The records that the browser draws, ready for JSON.

`js/payloads.d.ts` has the same records under the same names. Pictures are data URLs; colours are RGB in 0 .. 255;
shares such as an accuracy are in [0, 1].
"""

from __future__ import annotations

from typing import TypedDict


class SomePictures(TypedDict, total=False):
    """Pictures that not every frame has: PNG; confidence is grey, in 1/255.

    change: what makes the attacked picture of the picture, see `files.images.change_png_url`.
    """

    change: str
    confidence_before: str
    confidence_after: str


class Pictures(SomePictures):
    """The pictures of one frame: PNG; before, after and reference hold class numbers in grey, 255 is void."""

    image: str
    before: str
    after: str
    reference: str


class Trail(TypedDict):
    """Masks on the way of an attack, one below the other in one picture, each with its step and pixel accuracy."""

    masks: str
    steps: list[int]
    accuracy: list[float]


class Score(TypedDict):
    """One number above the panes, in words."""

    name: str
    label: str
    value: str


class ViewerData(TypedDict):
    """A picture before and after an attack. eps: in [0, 1]."""

    pictures: Pictures
    trail: Trail | None
    classes: list[str]
    palette: list[list[int]]
    eps: float
    scores: list[Score]
    note: str
    is_final: bool


class LandingPhoto(TypedDict):
    """A photograph. masks: of every radius, one below the other, by model. accuracy: at every radius, by model."""

    name: str
    title: str
    image: str
    masks: dict[str, str]
    accuracy: dict[str, list[float]]


class LandingModel(TypedDict):
    """A model of the first view. accent: the name of its colour in `style.css`."""

    name: str
    title: str
    accent: str


class LandingData(TypedDict):
    """The first view. eps: the radii, in 1/255. made: how the masks were computed."""

    photos: list[LandingPhoto]
    models: list[LandingModel]
    eps: list[float]
    classes: list[str]
    palette: list[list[int]]
    made: str


class LossCard(TypedDict):
    """A line about a loss. curves: its pull at each probability, at the start, the middle and the end."""

    description: str
    curves: list[list[float]]


class LossesData(TypedDict):
    """Every loss by its name. probabilities: of the right class, in [0, 1]. chosen: the name shown first."""

    losses: dict[str, LossCard]
    probabilities: list[float]
    chosen: str


class GalleryCard(TypedDict):
    """An attacked picture of an evaluation. row: its number there. picture: JPEG, None where there is no dataset."""

    row: int
    title: str
    lines: list[str]
    picture: str | None


class GalleryData(TypedDict):
    """One page of cards. first: the place of its first card among all `total`."""

    cards: list[GalleryCard]
    first: int
    total: int
    page: int
    pages: int
    note: str


class MatrixData(TypedDict):
    """Which class became which. labels: the class numbers. counts: pixels, by row (was) and column (became)."""

    classes: list[str]
    labels: list[int]
    counts: list[list[int]]
    note: str


class HeatmapCell(TypedDict):
    """A picture under one attack. right: pixel accuracy. won: no other attack left less."""

    row: int
    right: float
    won: bool


class HeatmapRow(TypedDict):
    """A picture under every attack. clean: its pixel accuracy without one."""

    title: str
    clean: float
    cells: list[HeatmapCell]


class HeatmapData(TypedDict):
    """Pictures by attacks; a column is a loss."""

    columns: list[str]
    rows: list[HeatmapRow]
    note: str


class TextTable(TypedDict):
    """A table of words. columns: headings, the first of them above the names of the rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class FailuresData(TypedDict):
    """The results of an evaluation. views: by card row. flips: row, label, seen as, pixels, of these cards."""

    scores: list[Score]
    doubts: list[str]
    missing: str
    classes: list[str]
    gallery: GalleryData
    views: dict[str, ViewerData]
    matrix: MatrixData
    flips: list[list[int]]
    tables: list[TextTable]


class WhyPane(TypedDict):
    """A picture with its mask or its map."""

    title: str
    caption: str
    url: str


class WhyLogits(TypedDict):
    """A class at the pixel. logits, probabilities: in the clean and in the attacked picture."""

    name: str
    colour: list[int]
    logits: list[float]
    probabilities: list[float]
    isTarget: bool


class WhyData(TypedDict):
    """An attribution. size: width, height. point: x, y. scale: the value of the strongest colour. done: a share."""

    panes: list[WhyPane]
    size: list[int]
    point: list[int] | None
    scale: str | None
    done: float | None
    logits: list[WhyLogits]
    note: str


class EnsembleRow(TypedDict):
    """An attack of an ensemble. cells: shares, by column. least: where no other attack left less."""

    name: str
    cells: list[float] | None
    least: list[bool] | None
    state: str


class EnsembleData(TypedDict):
    """An ensemble on one picture. views: of some rows, `last` among them; the others stay as they were sent before."""

    columns: list[str]
    rows: list[EnsembleRow]
    last: str
    views: dict[str, ViewerData]


class TransferColumn(TypedDict):
    """A picture that every model looks at. source: the model it was attacked on."""

    title: str
    source: str


class TransferCell(TypedDict):
    """One model on one picture. right: pixel accuracy, None while it waits."""

    name: str
    right: float | None
    state: str


class TransferRow(TypedDict):
    """One model on every picture."""

    name: str
    cells: list[TransferCell]


class TransferData(TypedDict):
    """Models under each other's attacks. views: of some cells, `first` among them; the others stay as sent before."""

    columns: list[TransferColumn]
    rows: list[TransferRow]
    verdict: str
    views: dict[str, ViewerData]
    first: str


class SweepPoint(TypedDict):
    """A model attacked at a radius. name: of its view. eps, change (the largest): in 1/255. steps: that were made."""

    name: str
    eps: float
    accuracy: float
    miou: float
    change: int
    steps: int


class SweepCurve(TypedDict):
    """One model over the radius."""

    name: str
    points: list[SweepPoint]


class LuckPoint(TypedDict):
    """A picture corrupted within a radius. eps, change (the largest): in 1/255."""

    eps: float
    accuracy: float
    miou: float
    change: int


class LuckCurve(TypedDict):
    """One corruption of one model's picture over the radius."""

    model: str
    corruption: str
    points: list[LuckPoint]


class SmallestRadius(TypedDict):
    """The smallest radius found for a model at which `share` of the pixels is wrong. eps: in 1/255; None if none is."""

    model: str
    eps: float | None
    flipped: float
    share: float
    steps: int


class SweepData(TypedDict):
    """Models over the radius. views: of some points, `last` among them; the others stay as they were sent before.

    eps: all radii that are asked for, in 1/255. last: None before any point. state: what is being done. note: what was
    attacked, and how. luck, smallest: yardsticks; empty where they were not asked for.
    """

    eps: list[float]
    curves: list[SweepCurve]
    luck: list[LuckCurve]
    smallest: list[SmallestRadius]
    views: dict[str, ViewerData]
    last: str | None
    state: str
    note: str


class TrainingRound(TypedDict):
    """An attacked picture as the model saw it in one round, with its mask."""

    url: str
    caption: str


class TrainingData(TypedDict):
    """A training seen through one attacked picture. size: width and height. done: a share, None before it begins."""

    size: list[int]
    rounds: list[TrainingRound]
    done: float | None
    note: str
