"""Keep the pictures and labels of an evaluation of your own data, so that it can be browsed later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robviz.files.atomic import replacing, write_atomically
from robviz.files.decoding import decoded
from robviz.files.images import to_bytes, to_tensor
from robviz.types import VOID, Dataset, InputError, Sample

FOLDER, ABOUT = "samples", "about.json"


def keep_samples(folder: Path, dataset: Dataset, count: int) -> None:
    """Write the first `count` samples of a dataset as 8-bit pictures and masks, with the names of the classes.

    In the masks, void is the number after the last class. Existing files stay.
    """
    place, void = folder / FOLDER, len(dataset.classes)
    place.mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(count):
        sample = dataset[index]
        names.append(sample.name)
        if not (place / f"{index:06d}.labels.png").is_file():
            labels = sample.labels.masked_fill(sample.labels == VOID, void).cpu().numpy()
            mask = Image.fromarray(labels.astype(np.uint8 if void < 256 else np.uint16))
            for name, image in (("", Image.fromarray(to_bytes(sample.image))), (".labels", mask)):
                with replacing(place / f"{index:06d}{name}.png") as file:
                    image.save(file, "PNG")
    about = {
        "name": dataset.name,
        "split": dataset.split,
        "classes": list(dataset.classes),
        "palette": [list(colour) for colour in dataset.palette],
        "samples": names,
    }
    write_atomically(place / ABOUT, json.dumps(about, indent=1) + "\n")


class KeptSamples(Dataset):
    """Read the samples that `keep_samples` wrote into the folder of an evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        try:
            about = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            self.name, self.split, self.names = about["name"], about["split"], about["samples"]
            self.classes = tuple(about["classes"])
            self.palette = tuple((red, green, blue) for red, green, blue in about["palette"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.folder / ABOUT} is missing or damaged; delete {self.folder} and run the same evaluation again"
            ) from error

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.names):
            raise IndexError(f"sample {index} of {len(self.names)}")
        image = decoded(self.folder / f"{index:06d}.png", lambda opened: to_tensor(opened.convert("RGB")))
        labels = decoded(self.folder / f"{index:06d}.labels.png", lambda opened: np.asarray(opened).astype(np.int64))
        found = torch.from_numpy(labels)
        return Sample(self.names[index], image, found.masked_fill(found == len(self.classes), VOID))


def kept_samples(folder: Path) -> KeptSamples | None:
    """Return the samples in the folder of an evaluation, or None if they were not kept."""
    return KeptSamples(folder) if (folder / FOLDER / ABOUT).is_file() else None
