"""Group the samples of a dataset into batches of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from robviz.types import Dataset, Sample


def batches(
    dataset: Dataset | Sequence[Sample], indices: Sequence[int], batch_size: int
) -> Iterator[list[tuple[int, Sample]]]:
    """Yield the samples of these indices in order, in batches of equal image size."""
    samples = ((index, dataset[index]) for index in indices)
    for _, same_size in groupby(samples, key=lambda pair: pair[1].image.shape):
        while batch := list(islice(same_size, batch_size)):
            yield batch
