"""Why did it flip? Where in a picture, and in its attacked version, the logit of a class comes from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch
from PIL import Image

from robviz.app.page import Page
from robviz.app.work import FRAME_SECONDS, UNSEEN, Visit, controls, drawn_by, in_turn, refusing
from robviz.attacks import AttackSpec
from robviz.attribution import METHODS, Contrast, check_pixel, estimate, region_at, top_logits
from robviz.attribution import contrast_steps as contrast_steps
from robviz.files.images import to_tensor
from robviz.interactive.comparison import Comparison, clean_comparison, compare
from robviz.interactive.scenario import MAX_EPS, cached_model, check_choice, subject_for
from robviz.models import card_named
from robviz.types import InputError
from robviz.viewer.payloads import WhyData
from robviz.viewer.why import why_data

KEY = "explain"
STEPS, LOSS = 20, "mask-ce"
WHAT_IT_WAS = -1  # among class numbers
CLICK = "Click a pixel in either picture."
#: Beyond the methods' defaults: a noise tunnel for integrated gradients.
OPTIONS: dict[str, dict[str, Any]] = {"integrated-gradients": {"steps": 16, "samples": 4}}


def pixel_at(mask: np.ndarray, y: int, x: int) -> np.ndarray:
    """Return a mask of one pixel."""
    is_it = np.zeros(mask.shape, bool)
    is_it[y, x] = True
    return is_it


#: What of the clean mask is explained, given (mask, y, x).
REGIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "the region around the pixel": region_at,
    "the pixel alone": pixel_at,
    "the whole class": lambda mask, y, x: mask == mask[y, x],
}
WHY = """
const shown = robviz.why(element.firstChild, props.value, (pixel) => trigger("select", pixel));
watch('value', () => shown.update(props.value));
"""


class QuickAttack(NamedTuple):
    """The attack whose outcome is explained, as the widgets say."""

    photo: str = "chelsea"
    upload: str | None = None
    model: str = "photos-clean"
    eps_255: float = 4

    @property
    def spec(self) -> AttackSpec:
        """Return the attack. Raises InputError for a radius that the widgets do not offer."""
        if self.eps_255 is None or not 0 <= self.eps_255 <= MAX_EPS:
            raise InputError(f"ε must lie in 0 .. {MAX_EPS}, got {self.eps_255}")
        return AttackSpec(loss=LOSS, eps=self.eps_255 / 255, steps=STEPS)


@lru_cache(maxsize=32)
def attacked(quick: QuickAttack) -> Comparison:
    """Make the quick attack; its 8-bit picture is what is explained."""
    spec = quick.spec
    subject, _ = subject_for(quick.photo, quick.upload, quick.model)
    return compare(subject, spec)


class Asked(NamedTuple):
    """A question about a subject, checked."""

    shown: Comparison
    point: tuple[int, int]  # x, y
    region: np.ndarray
    target: int
    images: torch.Tensor  # (2, 3, H, W): clean, attacked


def asked(quick: QuickAttack, x: int | None, y: int | None, label: int, where: str) -> Asked:
    """Check a question. Raises InputError for a pixel or a class that there is not."""
    shown, classes = attacked(quick), cached_model(quick.model)[1].classes
    if x is None or y is None:
        raise InputError("no pixel was chosen yet; click one, or give its x and y")
    check_pixel(shown.before.shape, y, x)
    check_choice("where", where, REGIONS)
    if label not in range(WHAT_IT_WAS, len(classes)):
        raise InputError(f"there is no class number {label}; choose one of the list")
    images = torch.stack([to_tensor(Image.fromarray(image)) for image in (shown.image, shown.attacked)])
    target = int(shown.before[y, x]) if label == WHAT_IT_WAS else label
    return Asked(shown, (x, y), REGIONS[where](shown.before, y, x), target, images)


@lru_cache
def seconds(model: str, method: str, height: int, width: int) -> float:
    """Return the seconds that a method takes for a picture and its attacked version."""
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    return 2 * estimate(cached_model(model)[0], method, noise, **OPTIONS.get(method, {}))


def view_of(quick: QuickAttack, question: Asked, note: str, contrast: Contrast | None = None) -> WhyData:
    """Return what the page shows of a question, with its answer as far as that is known."""
    model, card = cached_model(quick.model)
    shown, (x, y), region, target, images = question
    top = top_logits(model, images, y, x)
    return why_data(shown, card, note, (x, y), region, target, top, contrast)


def choices_of(classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Return the choices of the class that is explained."""
    return [("the class it was", WHAT_IT_WAS), *((name, number) for number, name in enumerate(classes))]


@refusing
def attack(photo: str, upload: str | None, model: str, eps: float) -> tuple[WhyData, Any, None, None]:
    """Show the picture and its attacked version, to click a pixel in."""
    quick, card = QuickAttack(photo, upload, model, eps), cached_model(model)[1]
    shown = attacked(quick)
    note = f"{STEPS} steps of {LOSS} at ε = {eps:g}/255, in 8 bits. {CLICK}"
    return why_data(shown, card, note), gr.Dropdown(choices_of(card.classes)), None, None


@refusing
def pick(event: gr.EventData) -> tuple[int, int]:
    """Return the place of a pixel that was clicked."""
    return int(event.x), int(event.y)


@refusing
def point(
    photo: str,
    upload: str | None,
    model: str,
    eps: float,
    x: int | None,
    y: int | None,
    label: int,
    where: str,
    method: str,
) -> WhyData:
    """Show what the model says about the pixel, and say how long an answer to the question will take."""
    quick = QuickAttack(photo, upload, model, eps)
    question = asked(quick, x, y, label, where)
    took = seconds(model, method, *question.region.shape)
    name = cached_model(model)[1].classes[question.target]
    how_long = f"about {took:.0f} s" if took >= 1 else "less than a second"
    note = f"Why {name}, or not? For both pictures, {method} takes {how_long}. Press Explain."
    return view_of(quick, question, note)


def explain(
    photo: str,
    upload: str | None,
    model: str,
    eps: float,
    x: int | None,
    y: int | None,
    label: int,
    where: str,
    method: str,
    visit: Visit,
) -> Iterator[WhyData]:
    """Stream both maps; Stop keeps the incomplete ones."""
    quick = QuickAttack(photo, upload, model, eps)
    question = asked(quick, x, y, label, where)
    name = cached_model(model)[1].classes[question.target]
    note = f"Where the mean logit of {name} in the outlined region comes from, by {method}; one scale for both."
    network, options, due = cached_model(model)[0], OPTIONS.get(method, {}), 0.0
    clean, changed = question.images
    steps = contrast_steps(network, clean, changed, question.region, question.target, method, **options)
    with closing(steps):
        for contrast in steps:
            if visit.is_stopped():
                note += " Stopped early: the map is not complete."
                break
            if time.monotonic() >= due:
                yield view_of(quick, question, note, contrast)
                due = time.monotonic() + FRAME_SECONDS
    yield view_of(quick, question, note, contrast)


def show(photo: str, upload: str | None, model: str, eps: float, *question: Any) -> WhyData:
    """Show the picture before any attack."""
    subject, _ = subject_for(photo, upload, model)
    shown = clean_comparison(subject, QuickAttack(photo, upload, model, eps).spec)
    return why_data(shown, subject.card, "Press Attack it, then click a pixel.")


def build(page: Page) -> None:
    """Build the view into the page."""
    start = QuickAttack()
    card = card_named(start.model)
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=280, elem_classes="rv-controls"):
            attack_button = gr.Button("1. Attack it", elem_id="why-attack")
            gr.Markdown("2. Click a pixel in a picture, or type its place.")
            with gr.Row():
                x = gr.Number(None, precision=0, label="x", min_width=80, elem_id="why-x")
                y = gr.Number(None, precision=0, label="y", min_width=80, elem_id="why-y")
            where = gr.Dropdown(list(REGIONS), value=next(iter(REGIONS)), label="Explain", elem_id="why-where")
            label = gr.Dropdown(choices_of(card.classes), value=WHAT_IT_WAS, label="as", elem_id="why-class")
            method = gr.Dropdown(list(METHODS), value=next(iter(METHODS)), label="Method", elem_id="why-method")
            buttons = controls("3. Explain", "why")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            view = drawn_by(WHY, "why")

    subject: list[Any] = page.bar.inputs
    question: list[Any] = [x, y, label, where, method]
    # An attack, too: the first question about a picture makes it.
    turn = in_turn(buttons.line)
    attack_button.click(attack, subject, [view, label, x, y], api_name="quick_attack", **turn)
    asking = {"fn": point, "inputs": subject + question, "outputs": view, **turn}
    view.select(pick, None, [x, y], **UNSEEN).then(**asking, api_name="point")
    changes = [x.submit, y.submit, label.input, where.input, method.input]
    gr.on(changes, **asking, api_visibility="private")
    page.wire(KEY, explain, show, name="explain", controls=buttons, own=question, outputs=[view])
