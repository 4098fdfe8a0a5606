"""Results computed so far, one small file each, so that a run can be stopped at any moment and resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robviz.files.atomic import write_atomically
from robviz.types import InputError


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested dictionaries with its dotted path."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


class Records:
    """Store results under keys in a folder, all of one plan.

    Args:
        folder: Where to store them.
        plan: Everything that decides the results, as JSON would return it.
        resume: Keep the records in the folder; False deletes them.

    Raises:
        InputError: If the folder was made for another plan; the message lists the differences.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], resume: bool = True) -> None:
        self.folder = folder / "records"
        if not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
            (folder / "plan.json").unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.claim(folder / "plan.json", plan)

    @staticmethod
    def claim(path: Path, plan: dict[str, Any]) -> None:
        """Write the plan, or require that the plan already there is the same."""
        if path.exists():
            here, asked = dict(flat(json.loads(path.read_text(encoding="utf-8")))), dict(flat(plan))
            differences = [
                f"{key}: {here.get(key)!r} there, {asked.get(key)!r} asked for"
                for key in sorted(here.keys() | asked.keys())
                if here.get(key) != asked.get(key)
            ]
            if differences:
                raise InputError(
                    f"{path.parent} holds the records of another run ({'; '.join(differences)}); "
                    "give another folder, or resume=False to begin anew"
                )
        else:
            write_atomically(path, json.dumps(plan, indent=1) + "\n")

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the values under a key, or None if there are none; a damaged record is dropped with a warning."""
        try:
            digest, body = self.path(key).read_text(encoding="utf-8").split("\n", 1)
            if digest != hashlib.sha256(body.encode()).hexdigest():
                raise InputError("checksum does not match")
            return json.loads(body)
        except FileNotFoundError:
            return None
        except ValueError as error:  # of the checksum, of JSON, of the encoding
            warnings.warn(f"record {key} is damaged ({error}) and will be computed again", stacklevel=2)
            return None

    def write(self, key: str, values: dict[str, Any]) -> None:
        """Store the values under a key."""
        body = json.dumps(values)
        write_atomically(self.path(key), hashlib.sha256(body.encode()).hexdigest() + "\n" + body)
