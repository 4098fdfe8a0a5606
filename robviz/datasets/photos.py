"""`photos`: real photographs from installed packages, with masks drawn for this project.

Its splits:

- `photographs`: the photographs themselves, longer side 256 pixels.
- `train`, `val`: composites. Objects cut out of the photographs are scaled, turned, mirrored, recoloured (in train
  more strongly, and stretched) and pasted onto textures and onto crops of other photographs, so every label is
  exact. Sample i depends on the split and on i alone, so it is the same on any machine. `train` is practically
  endless.
- `val-128`: the scenes of `val` at 128 pixels, for a quarter of the work.

`photos-objects`, for classifiers, shows one object, or none, and labels the whole picture by it. `CARD` says what train
and val have in common.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy
import torch
from PIL import Image, ImageDraw, ImageOps

from robviz.types import VOID, Dataset, Sample

CLASSES = ("background", "person", "cat", "big cat", "motorbike", "cup", "rocket", "coin", "tower")
#: Okabe and Ito's colours, distinguishable without colour vision; the background is dark so that objects stand out.
PALETTE = (
    (40, 40, 40),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (240, 228, 66),
    (204, 121, 167),
    (200, 200, 200),
    (0, 114, 178),
)
CARD = {
    "name": "photos",
    "classes": CLASSES,
    # Classes that PASCAL VOC has as well, by its names for them.
    "voc_classes": {"background": "background", "person": "person", "cat": "cat", "motorbike": "motorbike"},
    "shared_by_train_and_val": (
        "The only cat, cup and tower, and the rocket on its pad, are cut from one photograph each and appear in both. "
        "The motorbikes are the two views of one stereo pair. People, big cats and coins differ. "
        "No background texture or photograph is used by both."
    ),
    "masks": "drawn for this project: hand-set outlines refined by a random walker (photos_masks/draw.py)",
}

MASKS = Path(__file__).parent / "photos_masks"
VOID_INDEX = 255
LONGER_SIDE = 256


@dataclass(frozen=True)
class Photo:
    """Say where a photograph lies in an installed package, and which splits may use its objects."""

    package: str
    path: str
    split: str  # "train", "val" or "both"


PHOTOS = {
    "astronaut": Photo("skimage", "data/astronaut.png", "train"),
    "camera": Photo("skimage", "data/camera.png", "train"),
    "chelsea": Photo("skimage", "data/chelsea.png", "both"),
    "coffee": Photo("skimage", "data/coffee.png", "both"),
    "coins": Photo("skimage", "data/coins.png", "both"),
    "rocket": Photo("skimage", "data/rocket.jpg", "both"),
    "motorcycle_left": Photo("skimage", "data/motorcycle_left.png", "train"),
    "motorcycle_right": Photo("skimage", "data/motorcycle_right.png", "val"),
    "grace_hopper": Photo("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "val"),
    "cheetah": Photo("gradio", "media_assets/images/cheetah.jpg", "train"),
    "cheetah1": Photo("gradio", "media_assets/images/cheetah1.jpg", "val"),
    "cheetah2": Photo("gradio", "test_data/cheetah2.jpg", "train"),
    "lion": Photo("gradio", "media_assets/images/lion.jpg", "train"),
    "tower": Photo("gradio", "media_assets/images/tower.jpg", "both"),
}
#: Pictures that show none of the classes, for backgrounds.
TEXTURES = {
    "train": ("grass.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "page.png", "retina.jpg"),
    "val": ("brick.png", "gravel.png", "text.png"),
}
#: Photographs whose crops, with their labels, serve as backgrounds; those for "both" belong to train here.
SCENES = {
    "train": tuple(name for name, photo in PHOTOS.items() if photo.split in ("train", "both")),
    "val": ("grace_hopper", "cheetah1"),
}


def package_file(package: str, path: str) -> Path:
    """Return the path of a file in an installed package, found without importing the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return Path(package) / path
    return Path(spec.origin).parent / path


def read_photo(name: str) -> np.ndarray:
    """Read one photograph at its original size, (H, W, 3) uint8."""
    photo = PHOTOS[name]
    with Image.open(package_file(photo.package, photo.path)) as image:
        return np.asarray(image.convert("RGB"))


def read_mask(name: str) -> np.ndarray:
    """Read its label mask, (H, W) uint8 class indices with 255 for void."""
    with Image.open(MASKS / f"{name}.png") as image:
        return np.asarray(image)


@lru_cache(maxsize=1)
def present_photos() -> tuple[str, ...]:
    """Return the names of the photographs that the installed packages still have; a warning names the others."""
    present = tuple(name for name, photo in PHOTOS.items() if package_file(photo.package, photo.path).is_file())
    for name in PHOTOS.keys() - set(present):
        warnings.warn(f"photo {name!r} is left out: {PHOTOS[name].package} no longer contains it", stacklevel=2)
    return present


# ------------------------------------------------------------------------------------------ the photographs


def to_sample(name: str, image: Image.Image, labels: np.ndarray) -> Sample:
    """Return a sample of an RGB image and labels (H, W), where `VOID_INDEX` marks void pixels."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    indices = torch.from_numpy(labels.astype(np.int64))
    return Sample(name, pixels.contiguous(), indices.masked_fill(indices == VOID_INDEX, VOID))


class Photos(Dataset):
    """Define what the splits have in common."""

    name, classes, palette = "photos", CLASSES, PALETTE

    @property
    def class_weights(self) -> torch.Tensor:
        """Return the class weights (K,) of the training scenes."""
        return class_weights()


@lru_cache
def small_photo(name: str) -> tuple[Image.Image, np.ndarray]:
    """Return a photograph whose longer side has 256 pixels, and its mask; both stay in memory."""
    image, mask = Image.fromarray(read_photo(name)), Image.fromarray(read_mask(name))
    scale = LONGER_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    labels = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    return image.resize(size, Image.Resampling.LANCZOS), labels


class Photographs(Photos):
    """Open the photographs, longer side 256 pixels, in the order of `PHOTOS`."""

    split = "photographs"

    def __init__(self) -> None:
        self.names = present_photos()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        return to_sample(name, *small_photo(name))


# ------------------------------------------------------------------------------------------ the composites


Picture = tuple[Image.Image, Image.Image]  # RGB, and its mask of class indices


@dataclass(frozen=True)
class Cutout:
    """Store an object cut out of a photograph: RGB, and its mask as an alpha channel."""

    label: int
    image: Image.Image  # RGB
    alpha: Image.Image  # L, 0 or 255


def cut_out(name: str) -> list[Cutout]:
    """Cut out the objects of one photograph: every coin by itself, and otherwise all pixels of a class together."""
    image, mask = read_photo(name), read_mask(name)
    found = []
    for label in range(1, len(CLASSES)):
        parts, count = scipy.ndimage.label(mask == label)
        regions = [parts == i for i in range(1, count + 1)] if CLASSES[label] == "coin" else [mask == label]
        for region in regions:
            if region.sum() < 100:
                continue
            rows, columns = np.where(region)
            box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            alpha = Image.fromarray(region[box].astype(np.uint8) * 255)
            found.append(Cutout(label, Image.fromarray(image[box]), alpha))
    return found


@lru_cache(maxsize=2)
def cutouts(split: str) -> dict[int, list[Cutout]]:
    """Map labels to the cutouts that a split may use. Every third coin belongs to val."""
    table: dict[int, list[Cutout]] = {}
    for name in present_photos():
        if PHOTOS[name].split in (split, "both"):
            found = cut_out(name)
            if name == "coins":
                found = [cut for i, cut in enumerate(found) if (i % 3 == 0) == (split == "val")]
            for cut in found:
                table.setdefault(cut.label, []).append(cut)
    return table


@lru_cache(maxsize=2)
def textures(split: str) -> list[Image.Image]:
    """Return the textures that a split may use as backgrounds."""
    paths = [package_file("skimage", f"data/{name}") for name in TEXTURES[split]]
    found = []
    for path in paths:
        if path.is_file():
            with Image.open(path) as image:
                found.append(image.convert("RGB"))
    return found


@lru_cache(maxsize=2)
def scenes(split: str) -> list[Picture]:
    """Return the photographs, with their masks, that a split may use as backgrounds."""
    names = [name for name in SCENES[split] if name in present_photos()]
    return [(Image.fromarray(read_photo(name)), Image.fromarray(read_mask(name)).convert("L")) for name in names]


def recolour(image: Image.Image, rng: np.random.Generator, tint: float, grey: float = 0.05) -> Image.Image:
    """Change brightness and contrast, each channel's gain by up to `tint`; drop the colour with probability `grey`."""
    if rng.random() < grey:
        image = image.convert("L").convert("RGB")
    gain = rng.uniform(0.75, 1.25) * rng.uniform(1 - tint, 1 + tint, 3)
    gamma = 2 ** rng.uniform(-0.3, 0.3)
    ramp = (np.arange(256) / 255)[None] ** gamma * gain[:, None] * 255
    return image.point(list(np.clip(np.rint(ramp), 0, 255).astype(int).ravel()))


def clouds(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw a cloudy colour texture: random grids of growing fineness, one over the other."""
    total = np.zeros((size, size, 3))
    for cells in (2, 5, 12, 32, 96):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), float) * rng.uniform(0, 1)
    total -= total.min()
    return Image.fromarray((total * (255 / max(total.max(), 1))).astype(np.uint8))


def patches(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw tilted rectangles, discs and bars of plain colours on a plain ground."""
    image = Image.new("RGB", (size, size), tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(rng.integers(0, 12)):
        width, height = (int(side) for side in rng.uniform(0.05, 0.7, 2) * size)
        shape = Image.new("L", (max(2, width), max(2, height)), 255)
        if rng.random() < 0.4:
            shape = Image.new("L", shape.size, 0)
            ImageDraw.Draw(shape).ellipse((0, 0, shape.width - 1, shape.height - 1), fill=255)
        shape = shape.rotate(rng.uniform(0, 180), expand=True)
        left, top = (int(at) for at in rng.uniform(-0.3, 1, 2) * size)
        image.paste(tuple(rng.integers(0, 256, 3).tolist()), (left, top), shape)
    return image


def stripes(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw bars of one colour on another at a random angle, width and distance, sometimes crossed."""
    ground = Image.new("RGB", (size, size), tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(rng.integers(1, 3)):
        period, colour = rng.uniform(0.03, 0.4) * size, tuple(rng.integers(0, 256, 3).tolist())
        width, mask = period * rng.uniform(0.1, 0.6), Image.new("L", (2 * size, 2 * size), 0)
        for left in np.arange(0, 2 * size, period).tolist():
            ImageDraw.Draw(mask).rectangle((round(left), 0, round(left + width), 2 * size), fill=255)
        mask = mask.rotate(rng.uniform(0, 180), Image.Resampling.BILINEAR)
        half = size // 2
        ground.paste(colour, (0, 0), mask.crop((half, half, half + size, half + size)))
    return ground


def random_crop(picture: Picture, rng: np.random.Generator, size: int, smallest: float) -> Picture:
    """Crop a random square, from `smallest` to all of the shorter side, mirrored or not, at size x size."""
    image, mask = picture
    side = int(min(image.size) * rng.uniform(smallest, 1))
    left = int(rng.integers(0, image.width - side + 1))
    top = int(rng.integers(0, image.height - side + 1))
    box = (left, top, left + side, top + side)
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    crop_mask = mask.crop(box).resize((size, size), Image.Resampling.NEAREST)
    if rng.random() < 0.5:
        return ImageOps.mirror(crop), ImageOps.mirror(crop_mask)
    return crop, crop_mask


def background(split: str, rng: np.random.Generator, size: int) -> Picture:
    """Draw a background: a texture, a labelled photograph, or (train only) clouds, patches or stripes."""
    unlabelled = Image.new("L", (size, size), 0)
    kind = rng.random()
    if split == "train" and kind < 0.4:
        return (clouds if kind < 0.15 else patches if kind < 0.25 else stripes)(rng, size), unlabelled
    if kind < 0.7:
        ground = textures(split)[rng.integers(len(textures(split)))]
        image, _ = random_crop((ground, unlabelled), rng, size, 0.4)
        return recolour(image, rng, 0.5), unlabelled
    scene = scenes(split)[rng.integers(len(scenes(split)))]
    image, mask = random_crop(scene, rng, size, 0.75)
    return recolour(image, rng, 0.1), mask


def paste(canvas: Image.Image, mask: Image.Image, cut: Cutout, rng: np.random.Generator, varied: bool) -> None:
    """Put one object on the canvas at a random scale, angle, side, colour and place; labels follow its alpha.

    varied: also larger, stretched, and recoloured more strongly, since few photographs represent each class.
    """
    size = canvas.width
    is_coin = CLASSES[cut.label] == "coin"
    # Scaled by the geometric mean of its sides, so that slender objects do not vanish.
    mean_side = size * (rng.uniform(0.15, 0.45) if is_coin else rng.uniform(0.35, 1.1 if varied else 0.85))
    scale = mean_side / (cut.image.width * cut.image.height) ** 0.5
    stretch = 2 ** rng.uniform(-0.3, 0.3) if varied else 1.0
    shape = (max(4, round(cut.image.width * scale * stretch)), max(4, round(cut.image.height * scale / stretch)))
    tint, grey = (0.4, 0.15) if varied else (0.1, 0.05)
    image = recolour(cut.image.resize(shape, Image.Resampling.BILINEAR), rng, tint, grey)
    alpha = cut.alpha.resize(shape, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image, alpha = ImageOps.mirror(image), ImageOps.mirror(alpha)
    angle = rng.uniform(-180, 180) if is_coin else rng.uniform(-15, 15)
    image = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    alpha = alpha.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    # The object's centre stays on the canvas, so at least a good part of it shows.
    left = int(rng.uniform(0.15, 0.85) * size - image.width / 2)
    top = int(rng.uniform(0.15, 0.85) * size - image.height / 2)
    canvas.paste(image, (left, top), alpha)
    mask.paste(cut.label, (left, top), alpha.point([255 if a >= 128 else 0 for a in range(256)]))


def random_source(*key: object) -> np.random.Generator:
    """Return a random source that depends on these words and numbers alone."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def composite(split: str, seed: int, size: int = LONGER_SIDE) -> tuple[Image.Image, np.ndarray]:
    """Draw one composite from its arguments alone: image (size, size) RGB and labels (size, size) uint8."""
    rng = random_source("photos", split, seed)
    canvas, mask = background(split, rng, size)
    table = cutouts(split)
    labels = sorted(table)
    for _ in range(rng.integers(1, 3)):
        label = labels[rng.integers(len(labels))]
        repeats = rng.integers(1, 6) if CLASSES[label] == "coin" else 1
        for _ in range(repeats):
            paste(canvas, mask, table[label][rng.integers(len(table[label]))], rng, varied=split == "train")
    return canvas, np.array(mask)


def lone_object(split: str, seed: int, size: int = LONGER_SIDE) -> tuple[Image.Image, np.ndarray]:
    """Draw one object, or none, on a background without objects; all labels are its class. Depends on its arguments."""
    rng = random_source("photos-objects", split, seed)
    canvas, mask = background(split, rng, size)
    while mask.getbbox():
        canvas, mask = background(split, rng, size)
    label, table = int(rng.integers(len(CLASSES))), cutouts(split)
    if label in table:
        paste(canvas, mask, table[label][rng.integers(len(table[label]))], rng, varied=split == "train")
    return canvas, np.full((size, size), label if label in table else 0, np.uint8)


#: Pixels of each class in the first 256 training composites at 64 x 64. A test counts them again.
TRAINING_PIXELS = (594987, 70836, 60832, 75811, 34296, 87412, 44036, 29411, 47785)


def class_weights() -> torch.Tensor:
    """Return 1 / N_y over training composites, scaled to a mean of 1."""
    weights = 1 / torch.tensor(TRAINING_PIXELS).float()
    return weights / weights.mean()


ENDLESS = 1_000_000  # samples; stands for an unlimited number


class Composites(Photos):
    """Draw `composite(scenes, i)` as sample i."""

    draw = staticmethod(composite)

    def __init__(self, scenes: str, length: int, size: int = LONGER_SIDE) -> None:
        self.scenes, self.length, self.size = scenes, length, size
        self.split = scenes if size == LONGER_SIDE else f"{scenes}-{size}"

    @property
    def is_endless(self) -> bool:
        """Return True if the split has no last scene."""
        return self.length == ENDLESS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        return to_sample(f"{self.split}-{index:06d}", *self.draw(self.scenes, index, self.size))


class Objects(Composites):
    """Draw `lone_object(scenes, i)` as sample i."""

    name, draw = "photos-objects", staticmethod(lone_object)


LENGTHS = {"train": ENDLESS, "val": 64}


def load_objects(split: str) -> Dataset:
    """Open the split `train` or `val`, at 128 pixels."""
    return Objects(split, LENGTHS[split], 128)


def load(split: str) -> Dataset:
    """Open the split `train`, `val`, `val-128` or `photographs`."""
    if split == "photographs":
        return Photographs()
    scenes, _, size = split.partition("-")
    return Composites(scenes, LENGTHS[scenes], int(size or LONGER_SIDE))
