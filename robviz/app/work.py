"""What the views have in common: pictures and models at hand, refusals, and long work that can be stopped."""

from __future__ import annotations

import html
import inspect
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar

import gradio as gr
from gradio.context import Context, get_blocks_context

from robviz.interactive.scenario import UPLOAD as UPLOAD
from robviz.interactive.scenario import cached_model as cached_model
from robviz.interactive.scenario import known_class_weights as known_class_weights
from robviz.interactive.scenario import photos as photos
from robviz.interactive.scenario import sample_of as sample_of
from robviz.interactive.scenario import subject_for as subject_for
from robviz.models import available
from robviz.types import InputError

logger = logging.getLogger(__name__)
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


def drawn_by(script: str, value: Mapping[str, Any], elem_id: str) -> gr.HTML:
    """A part of the page that a script fills; its template never changes, so gradio leaves what is drawn alone."""
    return gr.HTML(value, html_template="<div></div>", js_on_load=script, apply_default_css=False, elem_id=elem_id)


@contextmanager
def in_words() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        # gradio shows the sentence as HTML, and it may quote what anyone sent.
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        logger.exception("a request failed")
        raise gr.Error("Something went wrong in robviz. The server's log says more.", print_exception=False) from error


def refusing(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler, generator or not, whose errors the visitor reads as one sentence."""
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


def at_load(handler: Callable[..., Any], inputs: Any, outputs: Any) -> None:
    """Call it when a page opens: what takes a while, so that the server starts without it."""
    if root := Context.root_block:
        root.load(handler, inputs, outputs, api_visibility="private", show_progress="hidden")


def at_every_change(handler: Callable[..., Any], inputs: list[Any], output: Any) -> None:
    """Call it when a page opens and whenever one of the inputs changes, whoever changed it."""
    at_load(handler, inputs, output)
    gr.on(
        [one.change for one in inputs],
        handler,
        inputs,
        output,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )


def menus() -> list[Any]:
    """The menus of models in the views built so far."""
    context, names = get_blocks_context(), [(name, name) for name in available(offline=True)]
    blocks = context.blocks.values() if context else ()
    return [block for block in blocks if isinstance(block, (gr.Dropdown, gr.Radio)) and block.choices == names]


class Work:
    """The long work of one view, each piece with its stop signal from the click on until it ends.

    `expect` or `restart` is told of the click; `stop` is the handler of a button; `begin` holds the signal that the
    work asks at every step. Work is about a subject, what the visitor has chosen to see. Once another one is shown,
    `is_left` says so, and the work ends without a word. Requests may arrive late and in another order than the clicks:
    that is why a request to show what the work is about changes nothing.
    """

    views: ClassVar[list[Work]] = []

    def __init__(self) -> None:
        self.waiting: defaultdict[str, deque[threading.Event]] = defaultdict(deque)
        self.running: dict[str, threading.Event] = {}
        self.subjects: dict[str, Any] = {}
        self.views.append(self)

    def expect(self, request: gr.Request, subject: Any = None) -> None:
        """Work of this session joins the queue: Stop shall reach it there too."""
        session = request.session_hash or ""
        self.waiting[session].append(threading.Event())
        self.subjects[session] = subject

    def restart(self, request: gr.Request, subject: Any) -> None:
        """The same, in place of all that was begun before."""
        self.stop(request)
        self.expect(request, subject)

    def stop(self, request: gr.Request) -> None:
        """End this session's work at its next step, or at its first if it has yet to begin."""
        session = request.session_hash or ""
        running = [self.running[session]] if session in self.running else []
        for signal in [*self.waiting.get(session, ()), *running]:
            signal.set()

    def leaves(self, request: gr.Request, subject: Any) -> bool:
        """Whether showing this is something else than what the last work is about, which then ends."""
        if not self.is_left(request, subject):
            return False
        self.subjects.pop(request.session_hash or "", None)
        self.stop(request)
        return True

    def is_left(self, request: gr.Request, subject: Any) -> bool:
        """Whether the visitor has gone on to another subject."""
        result: bool = self.subjects.get(request.session_hash or "") != subject
        return result

    @contextmanager
    def begin(self, request: gr.Request, subject: Any = None) -> Iterator[threading.Event]:
        """The stop signal of work that begins now."""
        session = request.session_hash or ""
        if not self.waiting.get(session):  # nobody clicked: a program asks
            self.expect(request, subject)
        stopped = self.running[session] = self.waiting[session].popleft()
        if not self.waiting[session]:
            del self.waiting[session]
        try:
            yield stopped
        finally:
            if self.running.get(session) is stopped:
                del self.running[session]


def started_by(
    go_button: gr.Button,
    stop_button: gr.Button,
    work: Work,
    name: str,
    handler: Callable[..., Any],
    inputs: list[Any],
    outputs: Any,
    expect: Callable[..., Any] | None = None,
    subject: list[Any] | None = None,
    **event: Any,
) -> None:
    """One button begins work, another ends it; the queue delays neither the news of the click nor the end.

    name: of the handler for programs, which end it by `stop_<name>`. expect: of the subject, in place of `work.expect`.
    """
    at_once: dict[str, Any] = {"queue": False, "concurrency_limit": None}
    go_button.click(expect or work.expect, subject, None, api_name=f"expect_{name}", **at_once)
    go_button.click(handler, inputs, outputs, api_name=name, **event)
    stop_button.click(work.stop, None, None, api_name=f"stop_{name}", **at_once)


def as_it_came(component: Any) -> Any:
    """Let a slider or number field pass its value on unchanged: an emptied field is the handler's to refuse, in words.

    Not a subclass: gradio writes a stub file beside the source of every subclass of its components.
    """
    component.preprocess = lambda payload: payload
    return component


def leave(request: gr.Request) -> None:
    """The tab was closed: end what it has begun, in every view."""
    for work in Work.views:
        work.stop(request)
        work.subjects.pop(request.session_hash or "", None)
