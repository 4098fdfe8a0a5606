"""The app: one subject, the bar that chooses it, and views about it; each view is a file of `robviz/app/views`."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path

from robviz.app._gradio import built_once, gr
from robviz.app.bar import build_bar, facts_of, thumbnails_style
from robviz.app.evaluations import Evaluations
from robviz.app.page import Page
from robviz.app.serving import ON_THIS_MACHINE, QUEUE, QUEUE_SECONDS, ServeOptions, launch_arguments, stop_on_terminate
from robviz.app.views import attack, compare, evaluate, explain, failures, models, overview, sea, sweep, training
from robviz.interactive.scenario import Scenario
from robviz.models.devices import release_threads
from robviz.viewer import SCRIPT, STYLE

#: The views in the order of their tabs: title, and what builds it. To add one, write its file and add its row.
VIEWS = (
    ("Overview", overview),
    ("Attack", attack),
    ("Losses", sea),
    ("Sweep", sweep),
    ("Compare", compare),
    ("Explain", explain),
    ("Train", training),
    ("Evaluate", evaluate),
    ("Failures", failures),
    ("Models", models),
)
#: Views that write to the server's disk or compute for minutes: not for strangers.
PRIVATE_VIEWS = (training, evaluate)
LEAD = (
    "See a segmentation model break: no pixel value changes by more than ε, too little to notice, "
    "and yet the mask falls apart."
)
HEAD = (
    f"<h1>robviz</h1><p>{LEAD}</p>"
    '<button type="button" onclick="robviz.switchTheme()" aria-label="switch between the light and the dark theme">'
    "◐</button>"
)
TO_ADDRESS = "query => { history.replaceState(null, '', query ? '?' + query : location.pathname); }"
#: Blue that is readable with white on it, and told apart from the orange of attacks without colour vision.
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    color_accent="#0072b2",
    button_primary_background_fill="#0072b2",
    button_primary_background_fill_dark="#0072b2",
    button_primary_background_fill_hover="#005a8e",
    button_primary_background_fill_hover_dark="#005a8e",
    button_secondary_background_fill_hover_dark="#005a8e",
    checkbox_label_background_fill_selected="#0072b2",
    checkbox_label_background_fill_selected_dark="#0072b2",
    checkbox_background_color_selected="#0072b2",
    checkbox_background_color_selected_dark="#0072b2",
    slider_color="#0072b2",
    slider_color_dark="#56b4e9",
)
OWN_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def build_app(options: ServeOptions = ON_THIS_MACHINE, evaluations: Path | None = None) -> gr.Blocks:
    """Build the page.

    Args:
        options: How it will be served.
        evaluations: A folder of evaluations for Failures; None for the shipped ones.

    Returns:
        gradio's page, not yet served.

    Raises:
        InputError: For a folder without an evaluation.
    """
    views = [(title, view) for title, view in VIEWS if not (options.is_public and view in PRIVATE_VIEWS)]
    titles = {view.KEY: title for title, view in views}
    first = next(iter(titles))
    with (
        built_once(),
        gr.Blocks(title="robviz", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as demo,
    ):
        demo.queue(max_size=QUEUE)
        demo._queue.sleep_when_free = QUEUE_SECONDS
        gr.HTML(HEAD, elem_id="head", apply_default_css=False)
        bar = build_bar()
        view_key = gr.Textbox(first, visible="hidden", elem_id="view-key")
        address = gr.Textbox(visible="hidden", elem_id="address")
        address.change(None, address, None, js=TO_ADDRESS, api_visibility="private")
        with gr.Tabs(elem_id="views", selected=first) as tabs:
            page = Page(options, Evaluations(evaluations), bar, view_key, address, tabs, titles)
            opened = {}
            for title, view in views:
                with gr.Tab(title, id=view.KEY) as opened[view.KEY]:
                    view.build(page)
        for key, tab in opened.items():
            tab.select(None, None, page.view, js=f"() => '{key}'", api_visibility="private")
        page.follow()
        page.at_every_change(facts_of, [bar.model, bar.photo], bar.facts)
        page.at_load(page.listed, None, page.menus)
        demo.unload(page.leave)
        page.keep_quiet(demo)
    result: gr.Blocks = demo
    return result


def main(evaluations: Path | None = None, options: ServeOptions = ON_THIS_MACHINE) -> None:
    """Serve until interrupted.

    Args:
        evaluations: A folder to look through, or of several.
        options: Who may reach the app; by default this machine alone.
    """
    stop_on_terminate()
    # gradio asks matplotlib for its backend at each event; to find one, the first would wait for an import of pyplot.
    os.environ.setdefault("MPLBACKEND", "agg")
    with suppress(KeyboardInterrupt):  # also while it begins to serve, where gradio does not expect it
        gc.disable()  # hardly anything is garbage before a page is served, and each search for it takes longer
        try:
            app = build_app(options, evaluations)
            # A first page would wait for the imports of the libraries of models, and for torch's first computations.
            attack.clean_view(Scenario())
            style = f"<style>{STYLE}{OWN_STYLE}{thumbnails_style()}</style>"
            head = f"{style}<script>{SCRIPT}robviz.takePictures();</script>"
            release_threads()  # from here on, other threads compute
            app.launch(prevent_thread_lock=True, head=head, theme=THEME, **launch_arguments(options))
        finally:
            gc.freeze()
            gc.enable()
        app.block_thread()
