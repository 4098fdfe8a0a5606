"""Find what is wrong with a dataset before hours of work depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robviz.files.progress import track
from robviz.types import VOID, Dataset, Sample

#: How many samples of an endless dataset are read.
FEW = 256
#: How many samples make it suspicious that a class never occurs.
ENOUGH = 20


@dataclass(frozen=True)
class Problem:
    """Describe what is wrong with one sample, or with the dataset itself.

    Attributes:
        name: The sample, or the dataset.
        reason: What is wrong.
        stops: True if nothing can be computed from the sample; False if it is only suspicious.
    """

    name: str
    reason: str
    stops: bool = True


def problem_of(sample: Sample, num_classes: int) -> str | None:
    """Describe what makes a sample unusable; None if nothing does."""
    image, labels = sample.image, sample.labels
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        return f"expected an image (3, H, W) of floats, got {tuple(image.shape)} of {image.dtype}"
    if labels.shape != image.shape[1:] or labels.dtype != torch.int64:
        return f"expected labels {tuple(image.shape[1:])} of int64, got {tuple(labels.shape)} of {labels.dtype}"
    if not (image.min() >= 0 and image.max() <= 1):  # so that NaN is found as well
        return f"expected an image within 0 .. 1, got {image.min():.3g} .. {image.max():.3g}"
    if labels.min() < VOID or labels.max() >= num_classes:
        return f"expected labels {VOID} .. {num_classes - 1}, got {int(labels.min())} .. {int(labels.max())}"
    return None


def validate(dataset: Dataset, limit: int | None = None) -> list[Problem]:
    """Read the samples and report what is wrong with them, without raising an error.

    It reports missing, damaged and mismatched files, labels that are not a class, samples with equal names, samples
    without a labelled pixel, and an empty split.

    Args:
        dataset: Any dataset.
        limit: Read at most this many samples; of an endless dataset, `FEW` by default.

    Returns:
        The problems, in the order of the samples.
    """
    most = FEW if dataset.is_endless else len(dataset)
    count = most if limit is None else min(limit, len(dataset))
    if len(dataset) == 0:
        return [Problem(dataset.name, f"the split {dataset.split!r} has no sample")]
    found, seen, labelled = [], set(), set[int]()
    for index in track(range(count), f"checking {dataset.name}", unit="images"):
        try:
            sample = dataset[index]
            reason = problem_of(sample, len(dataset.classes))
        except Exception as error:  # a user's dataset may raise anything
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            found.append(Problem(f"sample {index}", reason))
            continue
        if reason is not None:
            found.append(Problem(sample.name, reason))
        elif sample.name in seen:
            found.append(Problem(sample.name, "another sample has the same name"))
        elif (sample.labels == VOID).all():
            found.append(Problem(sample.name, "no pixel is labelled", stops=False))
        if reason is None:
            labelled.update(sample.labels.unique().tolist())
        seen.add(sample.name)
    absent = [name for number, name in enumerate(dataset.classes) if number not in labelled]
    if count >= ENOUGH and labelled - {VOID} and absent:
        found.append(Problem(dataset.name, never_labelled(absent, len(dataset.classes)), stops=False))
    return found


def never_labelled(absent: list[str], count: int) -> str:
    """Describe the classes that no pixel is labelled as, which happens if void or the first class number is wrong."""
    names = f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
    which = f"{len(absent)} of the {count} classes: {names}"
    return f"no pixel is labelled as {which}; are void and the numbers in the masks right?"
