"""The app: its header, its first view and its tabs; each view is a file of `robviz/app/views`."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing leaves the machine

import gradio as gr

from robviz.app.serving import ON_THIS_MACHINE, QUEUE, ServeOptions, launch_arguments, stop_on_terminate
from robviz.app.views import attack, failures, models, sea, transfer
from robviz.app.views import explain as why
from robviz.app.views import training as robust
from robviz.app.work import cached_model, drawn_by, leave
from robviz.models import shipped_models
from robviz.viewer import SCRIPT, STYLE
from robviz.viewer.landing import landing_data

LANDING = "robviz.landing(element.firstChild, props.value);"
#: title -> what builds the view. To add one, write its file in `robviz/app/views` and add its row.
VIEWS = {
    "Attack": attack.build,
    "SEA": sea.build,
    "Two models": transfer.build,
    "Failures": failures.build,
    "Why did it flip?": why.build,
    # Last, as what these two bring goes into the menus of models before them.
    "Make it robust": robust.build,
    "Models": models.build,
}


def build_app(options: ServeOptions = ON_THIS_MACHINE) -> gr.Blocks:
    for name in shipped_models():
        cached_model(name)  # the first visitor of each should not wait for it
    with gr.Blocks(title="robviz", analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        gr.Markdown(
            "# robviz\nWatch a segmentation model break: no pixel changes by more than ε, too little to see, "
            "and yet the mask falls apart. A model trained against such changes holds longer."
        )
        drawn_by(LANDING, landing_data(), "landing")
        gr.Markdown("## Try it yourself")
        with gr.Tabs(elem_id="views"):
            for title, build in VIEWS.items():
                if options.is_public and title in PRIVATE_VIEWS:
                    continue
                with gr.Tab(title):
                    build()
        demo.unload(leave)
    result: gr.Blocks = demo
    return result


#: Views that write to the server's disk or compute for minutes: not for strangers.
PRIVATE_VIEWS = ("Make it robust",)


def main(evaluations: Path | None = None, options: ServeOptions = ON_THIS_MACHINE) -> None:
    """Serve until interrupted.

    Args:
        evaluations: A folder to look through, or of several.
        options: Who may reach the app; by default this machine alone.
    """
    failures.serve(evaluations)
    stop_on_terminate()
    build_app(options).queue(max_size=QUEUE).launch(
        head=f"<style>{STYLE}</style><script>{SCRIPT}</script>",
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        **launch_arguments(options),
    )


if __name__ == "__main__":
    main()
