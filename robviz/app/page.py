"""Hold what the views share while the app is built and served: the subject bar, works, menus and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from robviz.app.bar import Bar, model_choices
from robviz.app.evaluations import Evaluations
from robviz.app.serving import ServeOptions
from robviz.app.work import (
    AT_ONCE,
    UNSEEN,
    Controls,
    Kept,
    Work,
    in_turn,
    in_words,
    names_of,
    refusing,
    session_of,
    streamed,
    taking,
    unchecked,
)
from robviz.interactive.scenario import UPLOAD
from robviz.types import InputError

#: Options of events that come many at a time, when a page opens: each that waited in the queue would slow it.
#: "multiple", as two handlers of one event that are "always_last" would start each other for ever: gradio repeats the
#: whole event for each of them.
EARLY: dict[str, Any] = {**UNSEEN, **AT_ONCE, "trigger_mode": "multiple"}
#: A step is measured after that, as it keeps all cores busy.
WHEN_PAINTED = "() => new Promise(done => (window.requestIdleCallback ?? setTimeout)(() => done()))"


@dataclass
class Look:
    """Describe how a view shows a subject before any work on it."""

    work: Work
    about: Callable[..., Any]
    show: Callable[..., Any]
    inputs: list[Any]
    outputs: list[Any]


def subject_key(photo: str, upload: str | None, model: str) -> tuple[str, ...]:
    """Return what tells one subject of the bar from another; an upload counts only where it is shown."""
    return (photo, upload or "", model) if photo == UPLOAD else (photo, model)


@dataclass
class Page:
    """Hold what the views of one app share.

    Attributes:
        options: How the app is served.
        evaluations: What Failures shows.
        bar: The subject: picture, model and radius.
        view: The key of the view that is open, in the browser.
        address: What belongs behind the `?` of the address.
        tabs: The row of tabs.
        titles: key -> title of each view, in the order of the tabs.
        after_looks: What wires more handlers of a view that opens; those of one event are called in the order in which
            they were wired, and the picture comes first.
        when_painted: Handler, inputs and output of what waits until the subject is on the screen.
        reports: The menu of evaluations, which Failures renders and Evaluate extends.
    """

    options: ServeOptions
    evaluations: Evaluations
    bar: Bar
    view: gr.Textbox
    address: gr.Textbox
    tabs: gr.Tabs
    titles: dict[str, str]
    works: list[Work] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)
    results: dict[str, Kept] = field(default_factory=dict)
    after_looks: list[Callable[[], Any]] = field(default_factory=list)
    when_painted: list[tuple[Callable[..., Any], list[Any], Any]] = field(default_factory=list)
    menus: list[gr.Dropdown] = field(default_factory=list)
    reports: gr.Dropdown = field(init=False)

    def __post_init__(self) -> None:
        self.menus.append(self.bar.model)
        names = self.evaluations.names()
        self.reports = gr.Dropdown(names, value=0, label="Evaluation", elem_id="evaluation", render=False)

    def model_menu(self, label: str, value: Any, elem_id: str, multiselect: bool = False) -> gr.Dropdown:
        """Return a menu of all models, which follows when models come; call it while the page is built."""
        menu = gr.Dropdown(model_choices(), value=value, label=label, elem_id=elem_id, multiselect=multiselect)
        self.menus.append(menu)
        return menu

    def listed(self) -> tuple[Any, ...]:
        """Return updates of all menus of models with those that are here now."""
        return tuple(gr.Dropdown(choices=model_choices()) for _ in self.menus)

    def new_work(self) -> Work:
        """Return the work of one more view, which ends when its visitor leaves."""
        work = Work()
        self.works.append(work)
        return work

    def leave(self, request: gr.Request) -> None:
        """End what a page has begun in every view: it was closed."""
        for work in self.works:
            work.forget(request)

    def at_load(self, handler: Callable[..., Any], inputs: Any, outputs: Any) -> None:
        """Call a handler when a page opens: what takes a while, so that the server starts without it."""
        if root := Context.root_block:
            root.load(handler, inputs, outputs, **UNSEEN)

    def at_every_change(self, handler: Callable[..., Any], inputs: Sequence[Any], output: Any) -> None:
        """Call a handler when a page opens and whenever one of the inputs changes, whoever changed it."""
        self.at_load(handler, list(inputs), output)
        changes = [one.change for one in inputs]
        gr.on(changes, handler, list(inputs), output, **EARLY)

    def while_open(self, key: str, handler: Callable[..., Any], inputs: Sequence[Any], output: Any) -> None:
        """Call a handler once a view has shown its subject, and whenever one of the view's own inputs changes."""

        def answer(view: str, *values: Any) -> Any:
            return handler(*values) if view == key else gr.skip()

        arguments = answer, [self.view, *inputs], output
        changes = [one.change for one in inputs if one not in (self.bar.photo, self.bar.model)]
        gr.on(changes, *arguments, **EARLY)
        self.when_painted.append(arguments)

    def keep_quiet(self, demo: gr.Blocks) -> None:
        """Let events whose progress is hidden say so to one invisible part alone; call it once, after all views.

        gradio tells the progress of an event to each of its outputs, for ever after, and copies every part that lies
        inside one: with the row of tabs among them, the whole page at each frame of an attack.
        """
        for event in demo.fns.values():
            if event.show_progress == "hidden":
                event.show_progress_on = [self.view]

    # ------------------------------------------------------------------------------------------- wiring of long work

    def wire(
        self,
        key: str,
        steps: Callable[..., Iterator[Any]],
        show: Callable[..., Any] | None,
        *,
        name: str,
        controls: Controls,
        own: Sequence[Any],
        outputs: Sequence[Any],
        about: Sequence[Any] = (),
        waits: bool = True,
    ) -> Work:
        """Let one button begin a view's work on the subject of the bar and another end it.

        Args:
            key: Of the view.
            steps: Takes the values of the bar, the values of `own` and a `Visit`; yields the outputs.
            show: Takes the same values; returns the outputs before any work. None for a view that follows by itself.
            name: Of the handler for programs, which end the work by `stop_<name>`.
            controls: The buttons, and the line that tells the place in the queue.
            own: The view's own widgets.
            outputs: What the steps fill.
            about: Those of `own` that, like picture and model, make another subject.
            waits: Whether the work waits its turn.

        Returns:
            The view's work.
        """
        work, inputs = self.new_work(), [*self.bar.inputs, *own]
        places = [next(i for i, one in enumerate(inputs) if one is part) for part in about]

        def subject(*values: Any) -> tuple[Any, ...]:
            return (*subject_key(*values[:3]), *(values[place] for place in places))

        def expect(*arguments: Any) -> list[bool]:
            *values, request = arguments
            work.restart(request, subject(*values))
            return [True] * len(values)  # as a validator: no value keeps the work from the queue

        for one in inputs:
            unchecked(one)  # what gradio refuses before the queue, nobody reads in words
        names = [f"value{number}" for number in range(len(inputs))]
        turn = in_turn(controls.line) if waits else {"concurrency_limit": None, "show_progress": "hidden"}
        # gradio calls the validator when work asks for its place in the queue: a request of its own would cost time.
        begun = {"trigger_mode": "multiple", "api_name": name, "validator": taking(names, expect), **turn}
        controls.go.click(streamed(work, steps, subject, names_of(steps)), inputs, list(outputs), **begun)
        controls.stop.click(work.stop, None, None, api_name=f"stop_{name}", **AT_ONCE)
        if show is not None:
            self.looks[key] = Look(work, subject, show, inputs, list(outputs))
        return work

    def follow(self) -> None:
        """Show the subject in the open view, whenever view or subject change; call it once, after all views."""
        parts = self.looks
        inputs = [self.view, *(one for look in parts.values() for one in look.inputs)]
        outputs = [one for look in parts.values() for one in look.outputs]

        def shown(look: Look, values: Sequence[Any], is_open: bool, request: gr.Request) -> list[Any]:
            if not is_open or not look.work.leaves(request, look.about(*values)):
                return [gr.skip()] * len(look.outputs)
            found = look.show(*values)
            return list(found) if isinstance(found, tuple) else [found]

        def look_at(*arguments: Any) -> Any:
            view, *values, request = arguments
            updates: list[Any] = []
            with in_words():
                for key, look in parts.items():
                    mine, values = values[: len(look.inputs)], values[len(look.inputs) :]
                    updates += shown(look, mine, key == view, request)
            return updates

        names = [f"value{number}" for number in range(len(inputs))]
        bar = self.bar
        events = [self.view.change, bar.photo.input, bar.model.input]
        common: dict[str, Any] = {"trigger_mode": "always_last", **UNSEEN}
        look = gr.on(events, taking(names, look_at), inputs, outputs, **common)
        upload = bar.upload.upload(lambda: UPLOAD, None, bar.photo, **UNSEEN)
        for event in (look, upload.then(taking(names, look_at), inputs, outputs, **UNSEEN)):
            painted = event.then(None, js=WHEN_PAINTED, api_visibility="private")
            for arguments in self.when_painted:
                painted.then(*arguments, **UNSEEN)
        for wire in self.after_looks:
            wire()

    # --------------------------------------------------------------------------------------------------- sharing

    def keep(self, key: str, session: str, result: Any) -> None:
        """Keep the last result of a view for its visitor."""
        self.results.setdefault(key, Kept()).keep(session, result)

    def share(self, key: str, page_of: Callable[..., str], elem_id: str) -> None:
        """Build a button that downloads a page of the view's last result.

        Args:
            key: Of the view.
            page_of: Takes what was kept, as arguments; returns the HTML.
            elem_id: Of the button.
        """
        button = gr.Button("Share as a page", size="sm", elem_id=elem_id)
        file = gr.DownloadButton("page", visible="hidden", elem_id=f"{elem_id}-file")

        @refusing
        def make(request: gr.Request) -> str:
            found = self.results.get(key, Kept()).get(session_of(request))
            if found is None:
                raise InputError("there is no finished result to share yet; run it first")
            path: str = save_bytes_to_cache(page_of(*found).encode(), f"robviz-{key}.html", get_upload_folder())
            return path

        button.click(make, None, file, api_name=f"share_{key}", show_progress_on=[button]).then(
            None, js=f"() => robviz.download('{file.elem_id}')", api_visibility="private"
        )
