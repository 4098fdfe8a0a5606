"""The images of a training in order; each depends only on the recipe and on the image's number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robviz.datasets import augmented, load_dataset
from robviz.datasets.photos import Composites, Objects
from robviz.finetune.recipes import Recipe
from robviz.types import Dataset, InputError

T = TypeVar("T")
ORDER, AUGMENTATION, NOISE, DROPOUT = range(4)  # the purposes of random numbers


def generator_of(seed: int, purpose: int, *parts: int) -> torch.Generator:
    """Return a random generator that depends on these numbers alone."""
    state = np.random.SeedSequence((seed, purpose, *parts)).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@lru_cache(maxsize=2)
def order(seed: int, epoch: int, length: int) -> list[int]:
    """Shuffle the indices of a dataset for one epoch."""
    return torch.randperm(length, generator=generator_of(seed, ORDER, epoch)).tolist()


class TrainingImages(TorchDataset[tuple[Tensor, Tensor]]):
    """Return image number n and its labels, augmented: the n-th of shuffled passes, one after the other.

    `len()` is the length of one pass.

    Args:
        recipe: The recipe that is trained.
        dataset: Its training images.

    Raises:
        InputError: If the training would not have a single iteration.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.recipe, self.dataset, self.classes, self.palette = recipe, dataset, dataset.classes, dataset.palette
        if recipe.epochs is not None:
            self.iterations = recipe.epochs * len(dataset) // recipe.batch_size
        else:
            assert recipe.iterations is not None
            self.iterations = recipe.iterations
        if len(dataset) == 0 or self.iterations == 0:
            raise InputError(
                f"{dataset.name} has {len(dataset)} training images, too few for {recipe.epochs} epochs in batches of "
                f"{recipe.batch_size}; lower batch_size"
            )

    @property
    def name(self) -> str:
        """Return the name of the dataset."""
        return self.dataset.name

    def __len__(self) -> int:
        return len(self.dataset)

    def size(self, number: int) -> int | tuple[int, int]:
        """Return the size of the image with this number; it is the same within a batch.

        Args:
            number: The number of the image.

        Returns:
            The side of a square, or (H, W).
        """
        sizes = self.recipe.sizes
        return sizes[number // self.recipe.batch_size % len(sizes)]

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, len(self.dataset))
        sample = self.dataset[order(self.recipe.seed, epoch, len(self.dataset))[place]]
        generator = generator_of(self.recipe.seed, AUGMENTATION, number)
        sample = augmented(sample, self.size(number), self.recipe.base_size, generator)
        return sample.image, sample.labels


ENDLESS = {"photos": Composites, "photos-objects": Objects}


class TrainingComposites(TrainingImages):
    """Draw composites of photos at their size instead of cropping them; no two are the same."""

    def __init__(self, recipe: Recipe) -> None:
        if recipe.iterations is None:
            raise InputError(f"{recipe.dataset} is endless: set iterations of {recipe.name} instead of epochs")
        length = recipe.iterations * recipe.batch_size
        # Seeds use different stretches of the endless training set, so two seeds share no image.
        self.offset = recipe.seed * length
        self.drawn = ENDLESS[recipe.dataset]
        super().__init__(recipe, self.drawn("train", length))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        size = self.size(number)
        if not isinstance(size, int):
            raise InputError(f"photos are squares: expected sizes as numbers, got {size}")
        sample = self.drawn("train", self.offset + number + 1, size)[self.offset + number]
        return sample.image, sample.labels


def training_images(recipe: Recipe, root: Path | None = None) -> TrainingImages:
    """Return the training images of a recipe; raises InputError if the dataset is not in `root`."""
    if recipe.dataset in ENDLESS:
        return TrainingComposites(recipe)
    return TrainingImages(recipe, load_dataset(recipe.dataset, "train", root))


def passes_after(images: TrainingImages) -> int:
    """Return the number of iterations after which every image was seen once, or the training is over."""
    return min(images.iterations, ceil(len(images) / images.recipe.batch_size))


def numbers_of(iteration: int, recipe: Recipe, process: int, processes: int) -> range:
    """Return the numbers of the images in the batch of an iteration that one of several processes takes."""
    first = iteration * recipe.batch_size
    return range(first + process, first + recipe.batch_size, processes)


def loader(
    images: TrainingImages, start: int, process: int, processes: int, workers: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Load the batches of one of several processes, from iteration `start` on."""
    batches = (list(numbers_of(i, images.recipe, process, processes)) for i in range(start, images.iterations))
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # otherwise it draws from the global one
    )


def read_by_workers(batches: Iterable[T]) -> Iterator[T]:
    """Pass batches on; an InputError of a process that reads images is raised here, without its traceback."""
    try:
        yield from batches
    except InputError as error:
        *_, last = str(error).strip().splitlines()
        if not str(error).startswith("Caught InputError"):
            raise
        raise InputError(last.partition("InputError: ")[2] or last) from None
