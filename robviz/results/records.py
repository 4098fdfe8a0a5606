"""Store results in one small file each, so that a run can be stopped at any moment and resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robviz.files.atomic import writable, write_atomically
from robviz.types import InputError


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested dictionaries with its dotted path."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


SAMPLES = "samples.json"
#: The packages whose version can change figures; decoded pictures are in the plan by their digests.
DECISIVE = ("torch", "timm")


def decides(key: str, plan: Mapping[str, Any]) -> bool:
    """Return True if a value of a plan, by its dotted path, can change a figure; others are only recorded."""
    if key == "threads":  # they decide how sums round on a CPU
        result: bool = plan.get("device", "cpu") == "cpu"
        return result
    return not key.startswith("versions.") or key.removeprefix("versions.") in DECISIVE


def shown(value: Any) -> str:
    """Shorten a value for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def samples_that_changed(path: Path, samples: dict[str, str] | None) -> list[str]:
    """Name the samples whose digest differs from the one in a file; empty if it is unknown."""
    if samples is None or not path.exists():
        return []
    there = json.loads(path.read_text(encoding="utf-8"))
    changed = [name.partition(" ")[2] for name, digest in samples.items() if there.get(name, digest) != digest]
    if not changed:
        return []
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return [f"the picture or the labels of {', '.join(changed[:3])}{more} changed"]


class Records:
    """Store results under keys in a folder, all of one plan.

    Args:
        folder: Where to store them.
        plan: Everything that determines the results, as JSON returns it, and what is only recorded (`decides`).
        resume: Keep the records in the folder; False deletes them.
        samples: See `claim`.

    Raises:
        InputError: If the folder was made for another plan; the message lists the differences.
    """

    def __init__(
        self, folder: Path, plan: Mapping[str, Any], resume: bool = True, samples: dict[str, str] | None = None
    ) -> None:
        self.folder = folder / "records"
        with writable(folder):
            if not resume:
                shutil.rmtree(self.folder, ignore_errors=True)
                for name in ("plan.json", SAMPLES):
                    (folder / name).unlink(missing_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.plan = self.claim(folder / "plan.json", plan, samples)

    @staticmethod
    def claim(path: Path, plan: Mapping[str, Any], samples: dict[str, str] | None = None) -> dict[str, Any]:
        """Write a plan, or compare it with the existing one; returns the plan of the records.

        Args:
            path: The plan's file.
            plan: Everything that determines the results.
            samples: The digests behind the plan's `dataset.sha256`, by name, so that an error can name what changed.

        Raises:
            InputError: If the existing plan differs in something that determines results.
        """
        if not path.exists():
            if samples is not None:
                write_atomically(path.with_name(SAMPLES), json.dumps(samples, indent=1) + "\n")
            write_atomically(path, json.dumps(plan, indent=1) + "\n")
            return dict(plan)
        there = json.loads(path.read_text(encoding="utf-8"))
        here, asked = dict(flattened(there)), dict(flattened(plan))
        differences = [
            f"{key}: {shown(here.get(key))} there, {shown(asked.get(key))} asked for"
            for key in sorted(here.keys() | asked.keys())
            if here.get(key) != asked.get(key) and decides(key, plan)
        ]
        if differences:
            changed = samples_that_changed(path.with_name(SAMPLES), samples)
            raise InputError(
                f"{path.parent} holds the records of another run ({'; '.join([*differences, *changed])}); "
                "give another folder, or resume=False to start over"
            )
        result: dict[str, Any] = there
        return result

    def path(self, key: str) -> Path:
        """Return the path of the record under a key."""
        return self.folder / f"{key}.json"

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the values under a key, or None if there are none; a damaged record is dropped with a warning."""
        try:
            digest, body = self.path(key).read_text(encoding="utf-8").split("\n", 1)
            if digest != hashlib.sha256(body.encode()).hexdigest():
                raise InputError("checksum does not match")
            result: dict[str, Any] | None = json.loads(body)
            return result
        except FileNotFoundError:
            return None
        except ValueError as error:  # of the checksum, of JSON, of the encoding
            warnings.warn(f"record {key} is damaged ({error}) and will be computed again", stacklevel=2)
            return None

    def write(self, key: str, values: Mapping[str, Any]) -> None:
        """Store the values under a key."""
        body = json.dumps(values)
        write_atomically(self.path(key), hashlib.sha256(body.encode()).hexdigest() + "\n" + body)
