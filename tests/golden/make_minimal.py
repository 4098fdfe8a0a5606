"""Search for minimal perturbations with the authors' library and with ours, and write `minimal.json` beside this file.

It needs adversarial-library 0.2.8, which robviz does not: PYTHONPATH=<its folder> python -m tests.golden.make_minimal
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # their proximal step is compiled otherwise, which changes no value


from torch import Tensor, nn

from robviz.attacks import share_equal
from robviz.datasets import load_dataset
from robviz.files.provenance import versions
from robviz.minimal import alma_prox
from robviz.models import card_of, fingerprint, load_model
from robviz.paper.minimal import centre
from tests.golden import HERE

MODEL, SPLIT, CROP, STEPS, SHARE, IMAGES = "photos-robust", "val-128", 64, 500, 0.99, 10
VERSION = "0.2.8"


def theirs(model: nn.Module, image: Tensor, labels: Tensor, steps: int = STEPS, share: float = SHARE) -> Tensor:
    """Run ALMA prox of adversarial-library on one image (1, 3, H, W)."""
    for name in ("visdom", "tqdm"):  # which it imports to plot alone
        sys.modules.setdefault(name, ModuleType(name))
    found = import_module("adv_lib.attacks.segmentation.alma_prox")
    masks = labels >= 0
    result: Tensor = found.alma_prox(model, image, labels, masks=masks, num_steps=steps, adv_threshold=share)
    return result


def measured(model: nn.Module, image: Tensor, labels: Tensor, attacked: Tensor) -> tuple[float | None, float]:
    """Return the radius of a perturbation in 1/255, None if too few pixels are flipped, and the share that is."""
    flipped = 1 - share_equal(model(attacked).max(1).indices, labels).item()
    radius = 255 * (attacked - image).abs().max().item()
    return (round(radius, 4) if flipped >= SHARE - 1e-6 else None), round(flipped, 5)


def main() -> None:
    """Measure image by image; the file holds what there is so far."""
    model, dataset = load_model(MODEL), load_dataset("photos", SPLIT)
    made: dict[str, Any] = {
        "model": MODEL,
        "sha256": fingerprint(model),
        "dataset": f"{card_of(model).dataset}, {SPLIT}",
        "crop": CROP,
        "steps": STEPS,
        "share": SHARE,
        "device": "cpu, float32",
        "versions": {"adversarial-library": VERSION, **versions()},
        "command": "python -m tests.golden.make_minimal",
    }
    found: dict[str, list[Any]] = {name: [] for name in ("images", "ours", "flipped_ours", "theirs", "flipped_theirs")}
    for i in range(IMAGES):
        sample = dataset[i]
        rows, columns = (centre(side, CROP) for side in sample.labels.shape)
        image, labels = sample.image[None, :, rows, columns], sample.labels[None, rows, columns]
        found["images"].append(sample.name)
        for name, attacked in (
            ("ours", alma_prox(model, image, labels, STEPS, SHARE).images),
            ("theirs", theirs(model, image, labels)),
        ):
            radius, flipped = measured(model, image, labels, attacked)
            found[name].append(radius)
            found[f"flipped_{name}"].append(flipped)
        print({name: values[-1] for name, values in found.items()}, flush=True)
        (HERE / "minimal.json").write_text(json.dumps({"made": made, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
