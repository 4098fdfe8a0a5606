"""The subject bar, which every view shares: a picture, a model and a radius."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from robviz.files.images import jpeg_url, to_bytes
from robviz.interactive.scenario import MAX_EPS, UPLOAD, Scenario, photos
from robviz.models import Card, available, card_named

#: dataset -> what its models have learnt to see, where that is not what the photographs show.
SCENES = {"camvid": "street scenes", "voc": "the 20 classes of PASCAL VOC", "ade20k": "indoor and outdoor scenes"}
THUMB_PIXELS = 96


class Bar(NamedTuple):
    """The widgets of the bar."""

    photo: gr.Radio
    upload: gr.UploadButton
    model: gr.Dropdown
    eps: gr.Slider
    facts: gr.Markdown

    @property
    def inputs(self) -> list[Any]:
        """Return the widgets whose values say who is attacked, and how far: picture, upload, model and radius."""
        return [self.photo, self.upload, self.model, self.eps]


def is_robust(card: Card) -> bool | None:
    """Return True for a model of adversarial training, False for an ordinary one, None if its card does not say."""
    recipe = card.training.get("recipe") if card.training else None
    if recipe is not None:
        return float(recipe["eps"]) > 0
    return True if any("sea_" in name for name in card.metrics.get("val", {})) else None


def kind_of(card: Card) -> str:
    """Return what a menu says about a model: whether it is robust, and its mIoU."""
    robust, miou = is_robust(card), card.metrics.get("val", {}).get("clean_miou")
    words = [] if robust is None else ["robust" if robust else "ordinary"]
    if miou is not None:
        words.append(f"{100 * miou:.0f} % mIoU")
    if scene := SCENES.get(card.dataset.partition("-")[0]):
        words.append(scene)
    return ", ".join(words)


def model_choices() -> list[tuple[str, str]]:
    """Return what the menus of models show, and the name that each entry stands for."""
    found = []
    for name in available(offline=True):
        kind = kind_of(card_named(name))
        found.append((f"{name} ({kind})" if kind else name, name))
    return found


def facts_of_card(card: Card) -> str:
    """Return a sentence or two about a model."""
    val, robust = card.metrics.get("val", {}), is_robust(card)
    kind = {True: "trained against attacks", False: "trained without attacks", None: ""}[robust]
    classes = f"{len(card.classes)} classes of {card.dataset}" if card.dataset else f"{len(card.classes)} classes"
    parts = [part for part in (kind, classes) if part]
    sentence = f"**{card.name}**: {', '.join(parts)}."
    if "clean_miou" in val:
        sentence += f" On its validation images, mIoU {100 * val['clean_miou']:.1f} %"
        if "attacked_miou" in val:
            radius = 255 * card.metrics["attack"]["eps"]
            sentence += f", and {100 * val['attacked_miou']:.1f} % under attack at {radius:g}/255"
        sentence += "."
    return sentence


def facts_of(model: str, photo: str) -> str:
    """Return a sentence or two about the chosen model, and about the picture where they do not fit."""
    card = card_named(model)
    sentence = facts_of_card(card)
    scene = SCENES.get(card.dataset.partition("-")[0])
    if scene and photo != UPLOAD:
        sentence += (
            f" It has learnt {scene}, and the mask of this picture has other classes: bring your own photo. "
            "Scores compare with its own mask of the unattacked picture."
        )
    return sentence


def thumbnails_style() -> str:
    """Return the style that shows each choice of the picture as its thumbnail."""
    urls = [jpeg_url(to_bytes(sample.image), 80, THUMB_PIXELS) for sample in photos().values()]
    rules = [
        f'#photo label:nth-of-type({number}) {{ background-image: url("{url}"); }}'
        for number, url in enumerate(urls, 1)
    ]
    return "\n".join(rules)


def build_bar() -> Bar:
    """Build the bar into the page."""
    start = Scenario()
    with gr.Row(elem_id="bar", equal_height=True):
        with gr.Column(scale=5, min_width=300, elem_id="bar-picture"):
            photo = gr.Radio([*photos(), UPLOAD], value=start.photo, label="Picture", elem_id="photo")
        with gr.Column(scale=1, min_width=110, elem_id="bar-own"):
            upload = gr.UploadButton("Own picture", file_count="single", size="sm", elem_id="upload")
            gr.HTML("or drop, or paste", elem_id="bar-hint", apply_default_css=False)
        with gr.Column(scale=3, min_width=220, elem_id="bar-model"):
            model = gr.Dropdown(model_choices(), value=start.model, label="Model", elem_id="model")
        with gr.Column(scale=2, min_width=200, elem_id="bar-eps"):
            eps = gr.Slider(0, MAX_EPS, start.eps_255, step=0.25, label="ε, in 1/255", elem_id="eps")
    facts = gr.Markdown(facts_of(start.model, start.photo), elem_id="facts")
    return Bar(photo, upload, model, eps, facts)
