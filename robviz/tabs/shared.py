"""What the views have in common: pictures and models at hand, refusals, and long work that can be stopped."""

from __future__ import annotations

import html
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar

import gradio as gr
from gradio.context import get_blocks_context

from robviz.models import available
from robviz.setting import UPLOAD as UPLOAD
from robviz.setting import class_weights as class_weights
from robviz.setting import model_of as model_of
from robviz.setting import photos as photos
from robviz.setting import sample_of as sample_of

FRAME_SECONDS = 0.25  # between two streamed frames
VIEWER = (
    "const shown = robviz.viewer(element.firstChild, props.value); watch('value', () => shown.update(props.value));"
)


def queue_line(elem_id: str) -> gr.HTML:
    """An empty line; no event may have it as its output, as each would wipe what the queue shows there."""
    return gr.HTML("", elem_id=elem_id, elem_classes="rv-queue", apply_default_css=False)


def in_turn(line: gr.Component) -> dict[str, Any]:
    """Of every event that computes for long: two at once would fight for the same cores, both slower than in turn.

    line: where the visitor reads the place in the queue, a `queue_line`.
    """
    shown = {"show_progress": "full", "show_progress_on": [line]}
    return {"concurrency_limit": 1, "concurrency_id": "in turn", **shown}


def drawn_by(script: str, value: dict[str, Any], elem_id: str) -> gr.HTML:
    """A part of the page that a script fills; its template never changes, so gradio leaves what is drawn alone."""
    return gr.HTML(value, html_template="<div></div>", js_on_load=script, apply_default_css=False, elem_id=elem_id)


@contextmanager
def in_words() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        # gradio shows the sentence as HTML, and it may quote what anyone sent.
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error


def refusing(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler, generator or not, whose ValueError the visitor reads as one sentence."""
    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def streamed(*args: Any) -> Iterator[Any]:
            with in_words():
                yield from handler(*args)

        return streamed

    @wraps(handler)
    def answered(*args: Any) -> Any:
        with in_words():
            return handler(*args)

    return answered


def listed(listing: list[Any]) -> tuple[Any, ...]:
    """The menus with the models of now."""
    return tuple(type(menu)(choices=available(offline=True)) for menu in listing)


def menus() -> list[Any]:
    """The menus of models in the views built so far."""
    context, names = get_blocks_context(), [(name, name) for name in available(offline=True)]
    blocks = context.blocks.values() if context else ()
    return [block for block in blocks if isinstance(block, (gr.Dropdown, gr.Radio)) and block.choices == names]


class Work:
    """The long work of one view, at most one a session, each with its stop signal from the click on until it ends.

    `expect` and `stop` are handlers of buttons; `begin` holds the signal that the work asks at every step.
    """

    views: ClassVar[list[Work]] = []

    def __init__(self) -> None:
        self.waiting: dict[str, threading.Event] = {}
        self.running: dict[str, threading.Event] = {}
        self.views.append(self)

    def expect(self, request: gr.Request) -> None:
        """Work of this session joins the queue: Stop shall reach it there too."""
        self.waiting[request.session_hash or ""] = threading.Event()

    def stop(self, request: gr.Request) -> None:
        """End this session's work at its next step, or at its first if it has yet to begin."""
        for signals in (self.waiting, self.running):
            signal = signals.get(request.session_hash or "")
            if signal is not None:
                signal.set()

    @contextmanager
    def begin(self, request: gr.Request) -> Iterator[threading.Event]:
        """The stop signal of work that begins now."""
        session = request.session_hash or ""
        stopped = self.running[session] = self.waiting.pop(session, threading.Event())
        try:
            yield stopped
        finally:
            self.waiting.pop(session, None)
            if self.running.get(session) is stopped:
                del self.running[session]


def leave(request: gr.Request) -> None:
    """The tab was closed: end what it has begun, in every view."""
    for work in Work.views:
        work.stop(request)
