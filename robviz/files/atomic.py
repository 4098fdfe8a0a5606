"""Write files whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from robviz.types import InputError


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """Raise InputError that names the place if it cannot be written: a file is there, or it is protected.

    A full disk remains an OSError, so that nobody deletes the files that are there.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise InputError(f"cannot write to {place}: it is a file, or its parent is one; give a folder") from error
        where, why = error.filename or place, error.strerror or error
        raise InputError(f"cannot write to {where}: {why}; give a folder that can be written") from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces the one at `path` once it is completely written; otherwise nothing changes."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raises OSError, the folder unchanged, if the disk is full."""
    with replacing(path) as file:
        file.write(text.encode())
