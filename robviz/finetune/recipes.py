"""Recipes by name, with everything that determines a training: the paper's, and those of the shipped models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from itertools import product
from typing import Any

import yaml

from robviz.types import InputError, check_number, check_radius, check_whole

Size = int | tuple[int, int]  # a square's side, or height and width

#: The allowed values of some settings.
CHOICES = {
    "trains": ("all", "decoder", "backbone", "classifier"),
    "optimizer": ("adamw", "sgd"),
    "precision": ("bf16", "fp32"),
}


def check_sizes(name: str, value: Any) -> None:
    """Raise InputError unless a value is a tuple of sides, or of heights and widths."""
    sides = [side for size in value for side in (size if isinstance(size, tuple) else (size,))] if value else []
    is_pair = all(not isinstance(size, tuple) or len(size) == 2 for size in value or ())
    if not sides or not is_pair or not all(isinstance(side, int) and side >= 8 for side in sides):
        raise InputError(
            f"{name} must be sides of at least 8 pixels, such as [128, 160], or heights and widths, such as "
            f"[[240, 320]]; got {value!r}"
        )


def check_name(name: str, value: Any) -> None:
    """Raise InputError unless a value can name files."""
    if not (isinstance(value, str) and re.fullmatch(r"\w[\w.-]*", value)):
        raise InputError(f"{name} must consist of letters, digits, dots, dashes and underscores, got {value!r}")


SHARES = partial(check_number, low=0, high=1, unit=", a share")
#: The check of each number and name of a recipe.
RULES: dict[str, Callable[[str, Any], None]] = {
    "name": check_name,
    "sizes": check_sizes,
    "eps": check_radius,
    "attack_step_size": check_radius,
    "seed": check_whole,
    **{name: partial(check_whole, low=1) for name in ("batch_size", "attack_steps", "base_size")},
    **dict.fromkeys(("warm_up", "eps_warm_up", "averaging", "warm_up_ratio"), SHARES),
    **{
        name: partial(check_number, low=0)
        for name in ("learning_rate", "weight_decay", "auxiliary_weight", "decoder_rate", "power", "clip")
    },
}


@dataclass(frozen=True)
class Recipe:
    """Store everything that determines a training, which lasts for `iterations` or else for `epochs`.

    The comments beside the fields give their units.

    Attributes:
        name: The name of the trained model.
        initial: None starts from scratch, "imagenet" from a backbone pretrained there. Otherwise the name of a model,
            of another recipe (trained first unless its model exists), of a published robust backbone, or the path of a
            checkpoint or of an ImageNet classifier.
        backbone_only: Take only the backbone of an initial checkpoint.
        trains: "all"; the "decoder" on a frozen backbone; the "backbone" by itself, without labels, by matching its
            features on attacked images to its initial features on clean ones; or everything as a "classifier" of whole
            pictures, by the mean of its logits.

    Raises:
        InputError: For a setting out of range.
    """

    name: str
    initial: str | None = "imagenet"
    architecture: str = "upernet-efficientnet-lite0"
    iterations: int | None = None
    batch_size: int = 8  # of all processes together
    sizes: tuple[Size, ...] = (128, 160, 192, 224)  # of the images; batches use them in turn
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.05  # share of the iterations
    auxiliary_weight: float = 0.4  # official configuration
    averaging: float = 0.998  # decay of the running average of the weights, which is what is kept; 0 averages nothing
    eps: float = 0.0  # radius of the adversarial training, L-infinity; 0 trains cleanly
    eps_warm_up: float = 0.2  # share of the iterations over which the radius grows to eps
    attack_steps: int = 2
    attack_step_size: float = 0.01  # official configuration
    seed: int = 0
    dataset: str = "photos"  # of `DATASETS`, or the path of a folder with its card
    held_out: str | None = None  # the dataset of the val split, where the training set has none
    epochs: int | None = None
    base_size: int = 512  # the shorter side is scaled to a half up to twice this before the crop; not on photos
    backbone_only: bool = False
    trains: str = "all"
    optimizer: str = "adamw"
    decoder_rate: float = 1.0  # learning rate of all but the backbone, as a multiple of the backbone's
    power: float = 1.0  # of the polynomial decay
    warm_up_ratio: float = 0.0  # of the learning rate that the warm-up starts at
    clip: float | None = 1.0  # of the gradient's norm
    precision: str = "bf16"  # of forward and backward passes; the weights are float32

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; choose from: {', '.join(known)}")
        for name in ("iterations", "epochs"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        lengths = [length for length in (self.iterations, self.epochs) if length is not None]
        if len(lengths) != 1 or lengths[0] < 1:
            raise InputError(
                f"a recipe needs either iterations or epochs, at least 1, got iterations={self.iterations} and "
                f"epochs={self.epochs}"
            )
        for name, check in RULES.items():
            if (value := getattr(self, name)) is not None:
                check(name, value)


#: robviz's own, for the small architecture: they run on a CPU.
PHOTOS = (
    Recipe("photos-clean", iterations=1000, averaging=0.995),
    Recipe("photos-robust", initial="photos-clean", iterations=1300, averaging=0.995, eps=4 / 255, attack_steps=3),
    # Too cheap an adversarial training, as a lesson: it looks more robust than it is, especially under APGD.
    Recipe(
        "photos-onestep",
        initial="photos-clean",
        iterations=200,
        averaging=0.98,
        eps=4 / 255,
        attack_steps=1,
        attack_step_size=0.02,
        sizes=(128,),
    ),
)

CAMVID_CLEAN = Recipe(
    "camvid-clean",
    dataset="camvid",
    iterations=3000,
    batch_size=16,
    averaging=0.995,
    sizes=((240, 320),),
    base_size=300,
)
CAMVID_AT = replace(CAMVID_CLEAN, name="camvid-at", iterations=2000, eps=4 / 255, attack_steps=5)
CAMVID = (
    CAMVID_CLEAN,
    CAMVID_AT,
    # No robust ImageNet backbone is published for this architecture, so a first stage trains one from the clean one.
    replace(
        CAMVID_AT, name="camvid-pirat-backbone", iterations=600, attack_steps=3, learning_rate=3e-4, trains="backbone"
    ),
    replace(CAMVID_AT, name="camvid-pirat", initial="camvid-pirat-backbone", backbone_only=True),
)

#: Table 3 on photos: a small network of the paper's family learns from scratch to classify single objects, cleanly and
#: adversarially; adversarial training continues from either backbone (AT, PIR-AT), with various attack steps and
#: iterations.
CLASSIFIER = Recipe(
    "mini-classifier",
    initial=None,
    architecture="upernet-convnext-small-cvst",
    dataset="photos-objects",
    trains="classifier",
    iterations=2500,
    batch_size=32,
    sizes=(128,),
    averaging=0.99,
)
MINIATURE = tuple(
    replace(
        CLASSIFIER,
        name=f"mini-{kind}-{steps}-{iterations}",
        initial=initial,
        backbone_only=True,
        dataset="photos",
        trains="all",
        batch_size=16,
        iterations=iterations,
        eps=4 / 255,
        attack_steps=steps,
    )
    for kind, initial in (("at", "mini-classifier"), ("pirat", "mini-classifier-robust"))
    for steps, iterations in product((2, 5), (300, 900))
)
CLASSIFIERS = (CLASSIFIER, replace(CLASSIFIER, name="mini-classifier-robust", eps=4 / 255, attack_steps=3))


@dataclass(frozen=True)
class Column:
    """Describe a column of Table 4: its architectures, with the robust backbone of Table 5 if one is published."""

    backbones: dict[str, str | None]
    epochs: dict[int, int]  # and how many of them warm up
    settings: dict[str, Any] = field(default_factory=dict)


#: What the columns of Table 4 share. Precision and the warm-up's ratio: official configurations (AMP, WARMUP_RATIO).
#: Batch 16 x 8 GPUs; momentum 0.9 and betas 0.9, 0.999 (`robviz.finetune.optimisation`); flips and blur (`augmented`).
TABLE_4: dict[str, Any] = {
    "batch_size": 16 * 8,
    "averaging": 0.0,
    "eps_warm_up": 0.0,
    "clip": None,
    "precision": "fp32",
    "warm_up_ratio": 1e-5,
}
VOC: dict[str, Any] = {"dataset": "voc-aug", "held_out": "voc", "sizes": (473,), "base_size": 512}
ADE20K: dict[str, Any] = {"dataset": "ade20k", "sizes": (512,), "base_size": 520}
ADAMW: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2, "power": 1.0}
CONVNEXTS: dict[str, str | None] = {
    f"upernet-convnext-{size}-cvst": f"imagenet-convnext-{size}-cvst-robust" for size in ("t", "s")
}
COLUMNS = {
    "voc-upernet": Column(CONVNEXTS, {50: 5, 300: 30}, VOC | ADAMW),
    "ade20k-upernet": Column(CONVNEXTS, {32: 5, 128: 20}, ADE20K | ADAMW),
    # No auxiliary head.
    "ade20k-segmenter": Column(
        {"segmenter-vit-s": "imagenet-vit-s-robust"},
        {32: 5, 128: 20},
        ADE20K | {"optimizer": "sgd", "learning_rate": 2e-3, "weight_decay": 1e-2, "power": 0.9},
    ),
    "voc-pspnet": Column(
        {"pspnet-50": None},
        {50: 5, 300: 30},
        VOC | {"optimizer": "sgd", "learning_rate": 5e-4, "weight_decay": 0.0, "power": 0.9, "decoder_rate": 10.0},
    ),
}
STEPS = (2, 5)  # Table 3; 4/255 in steps of 0.01 from a random start, on plain cross-entropy (section 4)


def of_the_paper(column: Column) -> list[Recipe]:
    """Build the recipes of a column: clean, AT from a clean backbone, PIR-AT from a robust one (Table 3)."""
    recipes = []
    for (architecture, robust), (epochs, warm_up) in product(column.backbones.items(), column.epochs.items()):
        settings = TABLE_4 | column.settings
        start = f"{settings['dataset'].removesuffix('-aug')}-{architecture.removesuffix('-cvst')}"
        clean = Recipe(
            f"{start}-clean-{epochs}",
            architecture=architecture,
            epochs=epochs,
            warm_up=warm_up / epochs,
            **settings,
        )
        recipes.append(clean)
        for kind, initial in (("at", "imagenet"), ("pirat", robust)):
            recipes += [
                replace(clean, name=f"{start}-{kind}-{n}-{epochs}", initial=initial, eps=4 / 255, attack_steps=n)
                for n in STEPS
                if initial is not None
            ]
    return recipes


#: To add a recipe, add it here.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        *PHOTOS,
        *CAMVID,
        *CLASSIFIERS,
        *MINIATURE,
        *(recipe for column in COLUMNS.values() for recipe in of_the_paper(column)),
    )
}


def of_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with another seed, which becomes part of its name."""
    return recipe if seed == recipe.seed else replace(recipe, seed=seed, name=f"{recipe.name}-seed{seed}")


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a name; raises InputError, naming the closest, for an unknown name."""
    if name not in RECIPES:
        closest = get_close_matches(name, RECIPES, 3, 0.0)
        raise InputError(f"unknown recipe {name!r}; closest are {', '.join(closest)}, and `robviz finetune` lists all")
    return RECIPES[name]


def changed(recipe: Recipe, changes: list[str]) -> Recipe:
    """Return the recipe with changed settings, each `name=value` with a YAML value.

    Raises InputError for unknown settings and for values out of range.
    """
    known = recipe.__dataclass_fields__
    values = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or name not in known:
            raise InputError(f"cannot set {change!r}; expected name=value with a name among {', '.join(known)}")
        values[name] = meant(name, yaml.safe_load(value), str(known[name].type))
    return replace(recipe, **values)


def meant(name: str, value: Any, kind: str) -> Any:
    """Convert a setting to its type: `4/255` and `1e-3` to floats, `1e3` to an integer, a single size to a tuple."""
    value = recipe_values(value)
    if name == "sizes" and isinstance(value, int):
        return (value,)
    if isinstance(value, str) and kind.startswith(("int", "float")):
        above, slash, below = value.partition("/")
        try:
            value = float(above) / (float(below) if slash else 1)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"{name} must be a number, such as 3, 1e-3 or 4/255, got {value!r}") from None
    if isinstance(value, float) and kind.startswith("int") and value.is_integer():
        return int(value)
    return value


def recipe_values(value: Any) -> Any:
    """Turn lists into tuples."""
    return tuple(map(recipe_values, value)) if isinstance(value, list) else value
