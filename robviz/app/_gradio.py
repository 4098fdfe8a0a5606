"""Import gradio, before any other file does, without what it sends and what it writes at each import."""

from __future__ import annotations

import inspect
import os
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing leaves the machine

_file_of = inspect.getfile


def file_of(thing: Any) -> str:
    """Return the file of anything but a part of gradio, for which gradio would write type stubs at each import.

    The stubs serve its own editors, and to read and write them takes half of the time of its import.
    """
    if isinstance(thing, type) and thing.__module__.startswith("gradio."):
        raise OSError("no file")  # as for a part that was made at run time
    return _file_of(thing)


with patch("inspect.getfile", file_of):
    import gradio as gr
    from gradio.routes import App


def built_once() -> AbstractContextManager[Any]:
    """Keep gradio from making a server of a page at each step of building it: all but that of `launch` are lost."""
    return patch.object(App, "create_app", return_value=None)


__all__ = ["built_once", "gr"]
