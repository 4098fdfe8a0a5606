"""Export an attack as a zip: pictures, masks, the perturbation and its settings; all are checked when it is read back.

The zip holds `picture.png` and `attacked.png`, RGB; `mask_clean.png`, `mask_attacked.png` and `reference.png`, grey,
one class number per pixel, 255 for void; `perturbation.npy`, (H, W, 3) int16, their difference; and `config.json`.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from robviz.files.images import DAMAGED, LONGER_SIDE, largest_change, png_bytes, to_tensor
from robviz.files.provenance import versions
from robviz.interactive.comparison import Comparison, Subject, clean_comparison, finalise
from robviz.interactive.scenario import Scenario, cached_model
from robviz.models import fingerprint
from robviz.types import VOID, InputError, Sample

VOID_BYTE = 255
PICTURE_FILES = {"picture.png": "image", "attacked.png": "attacked"}
MASK_FILES = {"mask_clean.png": "before", "mask_attacked.png": "after", "reference.png": "reference"}
NAMES = {*PICTURE_FILES, *MASK_FILES, "perturbation.npy", "config.json"}
#: The largest size of a file in the zip, packed and unpacked.
MAX_BYTES = 4 * 2**20


def perturbation(image: np.ndarray, attacked: np.ndarray) -> bytes:
    """Return the `.npy` file of attacked minus image, int16."""
    file = io.BytesIO()
    np.save(file, attacked.astype(np.int16) - image.astype(np.int16), allow_pickle=False)
    return file.getvalue()


def save_bundle(setting: Scenario, shown: Comparison) -> bytes:
    """Write a finished attack as a zip; equal attacks give equal bytes. Raises InputError for an unfinished one."""
    if not shown.is_final:
        raise InputError("there is no finished attack to save yet; press Attack first")
    model, card = cached_model(setting.model)
    config = {
        "setting": setting.values(),
        "model": {"name": card.name, "sha256": fingerprint(model)},
        "classes": card.classes,
        "steps_made": shown.step,
        "largest_change": shown.largest_change,
        "clean": asdict(shown.scores_before),
        "attacked": asdict(shown.scores_after),
        "accuracy_of_each_step": shown.curve,
        "loss_of_each_step": shown.losses,
        "versions": versions(),
    }
    files = {name: png_bytes(getattr(shown, field)) for name, field in PICTURE_FILES.items()}
    for name, field in MASK_FILES.items():
        labels = getattr(shown, field)
        files[name] = png_bytes(np.where(labels == VOID, VOID_BYTE, labels).astype(np.uint8))
    files["perturbation.npy"] = perturbation(shown.image, shown.attacked)
    files["config.json"] = (json.dumps(config, indent=1) + "\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # no date in it
    return out.getvalue()


def unzipped(file: str | Path | io.BytesIO) -> dict[str, bytes]:
    """Return the files of a saved zip; raises InputError for others, before anything large is unpacked."""
    try:
        with zipfile.ZipFile(file) as packed:
            entries = packed.infolist()
            if sorted(entry.filename for entry in entries) != sorted(NAMES):
                raise InputError(
                    f"this zip was not saved by robviz: expected {', '.join(sorted(NAMES))} in it, no more"
                )
            if any(entry.file_size > MAX_BYTES for entry in entries):
                raise InputError(
                    f"a file in this zip is larger than {MAX_BYTES // 2**20} MiB; robviz saves none of that size"
                )
            found = {entry.filename: packed.open(entry).read(MAX_BYTES + 1) for entry in entries}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InputError("this file is not a zip, or it is damaged; choose one that robviz saved") from error
    return found


def decode_png(name: str, content: bytes, mode: str) -> np.ndarray:
    """Read a PNG of the zip; raises InputError for another format, mode or size."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            if opened.mode != mode or max(opened.size) > LONGER_SIDE:
                raise InputError(
                    f"{name} must be a {mode} picture of at most {LONGER_SIDE} pixels a side, "
                    f"got {opened.mode} {opened.width} x {opened.height}"
                )
            return np.array(opened)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{name} in this zip is not a PNG, or it is damaged; save the attack again") from error


@dataclass(frozen=True)
class AttackBundle:
    """Hold the contents of a zip, re-checked: `shown` has the model's current predictions on its pictures."""

    setting: Scenario
    shown: Comparison
    agrees: bool  # the masks in the zip are those seen now

    @property
    def verdict(self) -> str:
        """Say in one sentence whether the file still holds an attack."""
        before, after = (100 * found.accuracy for found in (self.shown.scores_before, self.shown.scores_after))
        fooled = "it still fools the model" if after < before else "it does not fool the model"
        masks = "" if self.agrees else " The masks in the file are others than the model's: another version made them."
        return (
            f"Read back from the file: the attacked picture differs by {self.shown.largest_change}/255 at most and "
            f"{fooled}: {before:.1f} % pixel accuracy before, {after:.1f} % after.{masks}"
        )


def load_bundle(file: str | Path | io.BytesIO) -> AttackBundle:
    """Read a zip that `save_bundle` made and run the model on its pictures again; raises InputError for others."""
    files = unzipped(file)
    setting, steps_made, curve, losses = parse_config(files["config.json"])
    model, card = cached_model(setting.model)
    pictures = {field: decode_png(name, files[name], "RGB") for name, field in PICTURE_FILES.items()}
    masks = {field: decode_png(name, files[name], "L").astype(np.int64) for name, field in MASK_FILES.items()}
    image, attacked = pictures["image"], pictures["attacked"]
    if any(part.shape[:2] != image.shape[:2] for part in (attacked, *masks.values())) or min(image.shape[:2]) < 8:
        raise InputError("the pictures and masks in this zip differ in size; save the attack again")
    if files["perturbation.npy"] != perturbation(image, attacked):
        raise InputError("the perturbation in this zip is not the difference of its pictures; save the attack again")
    for name, labels in masks.items():
        labels[labels == VOID_BYTE] = VOID
        if labels.max() >= len(card.classes):
            raise InputError(f"{name} in this zip holds class {labels.max()}, {card.name} has {len(card.classes)}")
    change, norm = largest_change(image, attacked), setting.spec().norm
    size = norm.size(255 * (to_tensor(Image.fromarray(attacked)) - to_tensor(Image.fromarray(image)))).item()
    if size > setting.eps_255 + 1e-3:
        raise InputError(
            f"the pictures in this zip differ by {size:.4g}/255 ({norm.name}), more than its ε of "
            f"{setting.eps_255:g}/255"
        )
    sample = Sample(setting.photo, to_tensor(Image.fromarray(image)), torch.from_numpy(masks["reference"]))
    subject = Subject(model, sample, card)
    kept = replace(
        clean_comparison(subject, setting.spec()),
        attacked=attacked,
        curve=curve,
        losses=losses,
        step=steps_made,
        largest_change=change,
    )
    shown = finalise(subject, kept)
    agrees = np.array_equal(masks["before"], shown.before) and np.array_equal(masks["after"], shown.after)
    return AttackBundle(setting, shown, agrees)


def parse_config(config: bytes) -> tuple[Scenario, int, tuple[float, ...], tuple[float, ...]]:
    """Read setting, number of steps and both curves from a `config.json`; raises InputError."""
    try:
        values: dict[str, Any] = json.loads(config)
        setting = Scenario.parse(dict(values["setting"]))
        curves = [tuple(map(float, values[f"{name}_of_each_step"])) for name in ("accuracy", "loss")]
        made = int(values["steps_made"])
    except (KeyError, TypeError, UnicodeDecodeError, RecursionError, json.JSONDecodeError, OverflowError) as error:
        raise InputError("config.json in this zip is not what robviz saves; save the attack again") from error
    if not (0 <= made <= setting.steps and all(1 <= len(curve) <= setting.steps + 1 for curve in curves)):
        raise InputError("config.json in this zip has other steps than its setting; save the attack again")
    if not all(np.isfinite(curve).all() for curve in curves):
        raise InputError("config.json in this zip holds values that are not numbers; save the attack again")
    return setting, made, curves[0], curves[1]
