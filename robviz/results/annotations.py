"""Keep notes on the images of an evaluation beside it, or in the user's cache if its folder is read-only."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

from robviz.files.atomic import write_atomically
from robviz.files.paths import bundled_path, cache_folder
from robviz.types import InputError

MAX_CHARACTERS = 2000  # characters
_writing = threading.Lock()


def annotations_path(folder: Path) -> Path:
    """Return where the notes on an evaluation are kept; folders that ship with robviz are never changed."""
    is_ours = folder.resolve().is_relative_to(bundled_path("checkpoints").resolve())
    if os.access(folder, os.W_OK) and not is_ours:
        return folder / "notes.json"
    digest = hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest()
    return cache_folder() / "notes" / f"{digest[:16]}.json"


def read_annotations(folder: Path) -> dict[str, str]:
    """Read the notes by image number; raises InputError for a damaged file."""
    path = annotations_path(folder)
    try:
        notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} does not hold notes ({error}); move it away") from error
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise InputError(f"{path} does not hold notes; expected texts by image number; move the file away")
    return notes


def write_annotation(folder: Path, index: int, text: str) -> None:
    """Store the note on an image, or delete it if the text is empty; raises InputError if it is too long."""
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"a note has at most {MAX_CHARACTERS} characters, this one {len(text)}; shorten it")
    with _writing:
        notes = read_annotations(folder)
        if text.strip():
            notes[str(index)] = text
        else:
            notes.pop(str(index), None)
        path = annotations_path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(notes, indent=1) + "\n")
