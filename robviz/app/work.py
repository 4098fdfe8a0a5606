"""Long work that a visitor begins and ends: its stop signals, its turn in the queue, and its errors in one sentence."""

from __future__ import annotations

import html
import inspect
import json
import logging
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import gradio as gr

from robviz.models.devices import release_threads
from robviz.types import InputError

logger = logging.getLogger(__name__)
FRAME_SECONDS = 0.25  # between two streamed frames
#: Options of events that neither wait in the queue nor hold others up.
AT_ONCE: dict[str, Any] = {"queue": False, "concurrency_limit": None, "show_progress": "hidden"}
#: Options of events that programs have no use for.
UNSEEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
MOST_KEPT = 12  # results of visitors that stay in memory, for each view


class Visit(NamedTuple):
    """Tell long work whom it is for, and when to end.

    Attributes:
        session: The visitor's page.
        is_stopped: Returns True once the visitor has pressed Stop, begun something else, or closed the page.
    """

    session: str
    is_stopped: Callable[[], bool]


def session_of(request: gr.Request) -> str:
    """Return the name of the visitor's page; empty for a program that gives none."""
    return str(request.session_hash or "")


class Kept(OrderedDict[str, Any]):
    """Keep a value for each of the sessions that were active last."""

    def keep(self, session: str, value: Any) -> None:
        """Keep a value in place of the session's last one; beyond `MOST_KEPT`, the oldest goes."""
        self[session] = value
        self.move_to_end(session)
        while len(self) > MOST_KEPT:
            self.popitem(last=False)


@contextmanager
def in_words() -> Iterator[None]:
    """Turn a wrong input into a sentence for the visitor, and anything else into a traceback in the server's log.

    In the end, the server's thread gives back the threads that torch has started for it.
    """
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
    finally:
        release_threads()


def refusing(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler, generator or not, whose errors the visitor reads as one sentence."""
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


def taking(names: Sequence[str], handler: Callable[..., Any]) -> Callable[..., Any]:
    """Give a handler of any values the signature that gradio reads: parameters of these names, then the request."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    request = inspect.Parameter("request", kind, annotation=gr.Request)
    handler.__signature__ = inspect.Signature([*parameters, request])  # type: ignore[attr-defined]
    handler.__annotations__ = {"request": gr.Request}
    return handler


class Work:
    """Hold the stop signals of one view's long work, from the click that begins it until it ends.

    `expect` or `restart` hears of work that asks for its place in the queue, `stop` of the other button; `begin` gives
    the signal that the work asks at every step. Work is about a subject: what the visitor has chosen to see. Once
    another one is shown, `is_left` returns True, and the work ends without a result. Requests may arrive late and in
    another order than the clicks: that is why a request to show what the work is about changes nothing.
    """

    def __init__(self) -> None:
        self.waiting: defaultdict[str, deque[threading.Event]] = defaultdict(deque)
        self.running: dict[str, threading.Event] = {}
        self.subjects: dict[str, Any] = {}

    def expect(self, request: gr.Request, subject: Any = None) -> None:
        """Prepare a stop signal for work that joins the queue: Stop reaches it there, too."""
        session = session_of(request)
        self.waiting[session].append(threading.Event())
        self.subjects[session] = subject

    def restart(self, request: gr.Request, subject: Any) -> None:
        """End all that this session has begun, and prepare for other work."""
        self.stop(request)
        self.expect(request, subject)

    def stop(self, request: gr.Request) -> None:
        """End this session's work at its next step, or at its first if it has yet to begin."""
        session = session_of(request)
        running = [self.running[session]] if session in self.running else []
        for signal in [*self.waiting.get(session, ()), *running]:
            signal.set()

    def leaves(self, request: gr.Request, subject: Any) -> bool:
        """Return True if this is another subject than the last one, whose work then ends."""
        if not self.is_left(request, subject):
            return False
        self.stop(request)
        self.subjects[session_of(request)] = subject
        return True

    def is_left(self, request: gr.Request, subject: Any) -> bool:
        """Return True if the visitor has gone on to another subject."""
        result: bool = self.subjects.get(session_of(request)) != subject
        return result

    def forget(self, request: gr.Request) -> None:
        """End this session's work and forget its subject: the page was closed."""
        self.stop(request)
        self.subjects.pop(session_of(request), None)

    @contextmanager
    def begin(self, request: gr.Request, subject: Any = None) -> Iterator[threading.Event]:
        """Give the stop signal of work that begins here."""
        session = session_of(request)
        if not self.waiting.get(session):  # nobody clicked: it follows another event
            self.expect(request, subject)
        stopped = self.running[session] = self.waiting[session].popleft()
        if not self.waiting[session]:
            del self.waiting[session]
        try:
            yield stopped
        finally:
            if self.running.get(session) is stopped:
                del self.running[session]


def streamed(
    work: Work, steps: Callable[..., Iterator[Any]], about: Callable[..., Any], names: Sequence[str]
) -> Callable[..., Any]:
    """Return the handler that runs the steps of long work, until they end or the visitor is elsewhere.

    Args:
        work: Of the view.
        steps: Takes the values of the widgets and a `Visit`; yields what the page shows.
        about: Takes the values of the widgets; returns the subject.
        names: Of the widgets' values, for programs.

    Returns:
        A generator function of the widgets' values and the request.
    """

    def handler(*arguments: Any) -> Iterator[Any]:
        *values, request = arguments
        subject = about(*values)
        with in_words(), work.begin(request, subject) as stopped:
            for shown in steps(*values, Visit(session_of(request), stopped.is_set)):
                if work.is_left(request, subject):
                    return
                release_threads()  # another thread may make the next step
                yield shown

    return taking(names, handler)


def names_of(steps: Callable[..., Any]) -> list[str]:
    """Return the names of the values that steps take before their `Visit`."""
    return list(inspect.signature(steps).parameters)[:-1]


def queue_line(elem_id: str) -> gr.HTML:
    """Return an empty line; no event may have it as its output, as each would wipe what the queue shows there."""
    return gr.HTML("", elem_id=elem_id, elem_classes="rv-queue", apply_default_css=False)


class Controls(NamedTuple):
    """Hold what begins and ends a view's work, and where its visitor reads the place in the queue."""

    go: gr.Button
    stop: gr.Button
    line: gr.HTML


def controls(label: str, name: str) -> Controls:
    """Build a row of two buttons and the line for the queue; their elements begin with the name."""
    with gr.Row():
        go = gr.Button(label, variant="primary", elem_id=f"{name}-run", min_width=100)
        stop = gr.Button("Stop", variant="stop", elem_id=f"{name}-stop", min_width=60)
    return Controls(go, stop, queue_line(f"{name}-queue"))


def in_turn(line: gr.Component) -> dict[str, Any]:
    """Return the options of an event that computes for long: two at once would both be slower than one by one.

    line: where the visitor reads the place in the queue, a `queue_line`.
    """
    shown = {"show_progress": "minimal", "show_progress_on": [line]}  # "full" animates a sign, even one that is gone
    return {"concurrency_limit": 1, "concurrency_id": "in turn", **shown}


def drawn_by(script: str, elem_id: str, value: Mapping[str, Any] | None = None) -> gr.HTML:
    """Return a part of the page that a script fills; its template never changes, so gradio leaves the drawing alone.

    value: what it shows first; None for what comes when its view opens, so that the page itself stays small.
    """
    return gr.HTML(value, html_template="<div></div>", js_on_load=script, apply_default_css=False, elem_id=elem_id)


def drawn_once(script: str, elem_id: str, data: Mapping[str, Any]) -> gr.HTML:
    """Return a part of the page whose script knows all it will ever show, as `data`.

    As the part's value, gradio would copy each number of it whenever anything near it changes.
    """
    return drawn_by(f"const data = JSON.parse({json.dumps(json.dumps(data))});{script}", elem_id)


def drawn(view: str, elem_id: str, value: Mapping[str, Any] | None = None) -> gr.HTML:
    """Return a part of the page that follows its value, by a view of `viewer/js/app.js`."""
    opened = f"const shown = robviz.{view}(element.firstChild, props.value);"
    return drawn_by(f"{opened} watch('value', () => shown.update(props.value));", elem_id, value)


def unchecked(part: Any) -> None:
    """Let a menu or a number pass on what came, None for no number: its handler refuses in words what it cannot use.

    Not a subclass: gradio writes a stub file beside the source of every subclass of its components.
    """
    if type(part) in (gr.Slider, gr.Number):
        part.preprocess = lambda value: value if isinstance(value, int | float) else None
    elif type(part) in (gr.Dropdown, gr.Radio):
        kinds = {type(value) for _, value in part.choices}

        def chosen(value: Any) -> Any:
            if not getattr(part, "multiselect", False):
                return value if type(value) in kinds else str(value)
            return [str(name) for name in (value if isinstance(value, list) else [value]) if name is not None]

        part.preprocess = chosen
