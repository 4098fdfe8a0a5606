"""The command line, `robviz`: one file for each group of commands, each command one function.

Commands import what they need when they run, so that `robviz --help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from robviz.cli import attack, course, data, evaluate, finetune, page, serve, tables  # noqa: F401  (each registers its commands)
from robviz.cli.application import application
from robviz.types import InputError


def leave_group() -> None:
    """Leave the process group, if there is one; without this, a thread of gloo may abort at exit."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: the words after `robviz`; by default those of this process.

    Raises:
        SystemExit: with one sentence (status 1) for an input that the user can correct, with status 2 for a command
            line that cannot be understood, and with 130 after an interruption. All other errors keep their traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a character prints its code instead of failing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        application(arguments, prog_name="robviz")
    except InputError as error:
        sys.exit(f"robviz: {error}")
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except SystemExit as end:
        if end.code:
            raise
    leave_group()
