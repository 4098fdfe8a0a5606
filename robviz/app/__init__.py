"""The app: its header, its first view and its tabs; each view is a file of `robviz/app/views`."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing leaves the machine

import gradio as gr

from robviz.app.views import attack, failures, models, sea, transfer
from robviz.app.views import explain as why
from robviz.app.views import training as robust
from robviz.app.work import drawn_by, leave, model_of
from robviz.models import shipped_models
from robviz.viewer import SCRIPT, STYLE
from robviz.viewer.landing import landing_data

LANDING = "robviz.interactive.landing(element.firstChild, props.value);"
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


def build_app() -> gr.Blocks:
    for name in shipped_models():
        model_of(name)  # the first visitor of each should not wait for it
    with gr.Blocks(title="robviz", analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        gr.Markdown(
            "# robviz\nWatch a segmentation model break: no pixel changes by more than ε, too little to see, "
            "and yet the mask falls apart. A model trained against such changes holds longer."
        )
        drawn_by(LANDING, landing_data(), "landing")
        gr.Markdown("## Try it yourself")
        with gr.Tabs(elem_id="views"):
            for title, build in VIEWS.items():
                with gr.Tab(title):
                    build()
        demo.unload(leave)
    return demo


def main(port: int = 7860, evaluations: Path | None = None) -> None:
    """Serve on this machine alone, until interrupted. evaluations: a folder to look through, or of several."""
    failures.serve(evaluations)
    build_app().queue(max_size=64).launch(
        server_name="127.0.0.1",
        server_port=port,
        head=f"<style>{STYLE}</style><script>{SCRIPT}</script>",
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        max_file_size="30mb",
        run_history=False,
        footer_links=[],
        ssr_mode=False,
        share=False,
    )


if __name__ == "__main__":
    main()
