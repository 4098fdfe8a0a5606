"""Read the YAML configurations of the official code as robviz's recipes and evaluations.

Settings that do not affect the outcome (DEVICE, TRAIN.EVAL_INTERVAL, TRAIN.DDP) are ignored, and the attack of an
evaluation comes from robviz's own settings, because the official code takes it from the command line. TRAIN.BATCH_SIZE
counts for one process, WARMUP in epochs, and the schedule `polylr` does not warm up. One of the files has an unclosed
quote, which is closed at the end of its line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from accelerate import PartialState
from torch import nn

from robviz.datasets import ade20k, load_dataset, voc
from robviz.finetune.recipes import TABLE_4, Recipe
from robviz.models import Card, build, load_checkpoint
from robviz.types import Dataset, InputError

#: MODEL.BACKBONE or EVAL.BACKBONE -> MODEL.NAME and our architecture.
ARCHITECTURES = {
    "ConvNeXt-T_CVST": ("UperNetForSemanticSegmentation", "upernet-convnext-t-cvst"),
    "ConvNeXt-S_CVST": ("UperNetForSemanticSegmentation", "upernet-convnext-s-cvst"),
    "vit_small_patch16_224": ("SegMenter", "segmenter-vit-s"),
}


class Data(NamedTuple):
    """Describe the dataset that DATASET.NAME or EVAL.NAME stands for."""

    train: str
    val: str
    classes: int
    size: int


DATASETS = {
    "pascalaug": Data("voc-aug", "voc", 21, voc.SIZE),
    "pascalvoc": Data("voc", "voc", 21, voc.SIZE),
    "ADE20K": Data("ade20k", "ade20k", 151, ade20k.SIZE),
}
KINDS = {bool: "true or false", int: "a whole number", str: "a text"}
WARMS_UP = {"warmuppolylr": True, "polylr": False}
UNCLOSED = re.compile(r"^(\s*\w+\s*:\s*)(['\"])([^'\"\n]*?)\s*$", re.MULTILINE)


class Config:
    """Read a configuration file.

    Raises InputError, with file and key, for settings that are missing or not supported.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            text = self.path.read_text(encoding="utf-8")
            self.values = yaml.safe_load(UNCLOSED.sub(r"\1\2\3\2", text))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path} is not a configuration: {' '.join(str(error).split())}") from error

    def get(self, key: str, kind: type) -> Any:
        """Return the value under `SECTION.KEY`, which must be of this kind."""
        section, _, name = key.rpartition(".")
        values = self.values.get(section) if section and isinstance(self.values, dict) else self.values
        if not isinstance(values, dict) or name not in values:
            raise InputError(f"{self.path} lacks {key}; expected the keys of the official configurations")
        if not isinstance(values[name], kind):
            raise InputError(f"{self.path}: {key} is {values[name]!r}, expected {KINDS[kind]}")
        return values[name]

    def number(self, key: str) -> float:
        """Return a number, including those that YAML reads as text, such as 1e-5."""
        value = self.get(key, object)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path}: expected {key} to be a number ({error})") from error

    def choice(self, key: str, table: dict[str, Any]) -> Any:
        """Return the entry of a table by the value's name, ignoring case."""
        value = self.get(key, str)
        entries = {name.lower(): entry for name, entry in table.items()}
        if value.lower() not in entries:
            raise InputError(f"{self.path}: {key} is {value!r}, which robviz does not offer; it has {', '.join(table)}")
        return entries[value.lower()]

    def require(self, key: str, *wanted: Any) -> None:
        """Require that the value is one of these."""
        value = self.get(key, object)
        if value not in wanted:
            raise InputError(f"{self.path}: {key} is {value!r}, robviz only offers {' or '.join(map(repr, wanted))}")


def data_of(config: Config, name: str, classes: str, size: str) -> Data:
    """Return the dataset, if these keys agree with it."""
    data: Data = config.choice(name, DATASETS)
    config.require(classes, data.classes)
    config.require(size, [data.size, data.size])
    return data


def training(path: str | Path) -> tuple[Recipe, str, str]:
    """Return the recipe of a configuration, the folder of its dataset, and SAVE_DIR."""
    config = Config(path)
    data = data_of(config, "DATASET.NAME", "DATASET.N_CLS", "TRAIN.IMAGE_SIZE")
    model, architecture = config.choice("MODEL.BACKBONE", ARCHITECTURES)
    for key, wanted in (
        ("MODEL.NAME", model),
        ("DATASET.IGNORE_LABEL", -1),
        ("LOSS.NAME", "CrossEntropy"),
        ("LOSS.CLS_WEIGHTS", False),
    ):
        config.require(key, wanted)
    is_adversarial, epochs = config.get("TRAIN.ADVERSARIAL", bool), config.get("TRAIN.EPOCHS", int)
    if is_adversarial:
        config.require("TRAIN.ATTACK", "pgd")
        config.require("TRAIN.LOSS_FN", "pgd")
    warms_up = config.choice("SCHEDULER.NAME", WARMS_UP)
    processes = PartialState(cpu=not torch.cuda.is_available()).num_processes
    settings: dict[str, Any] = TABLE_4 | {
        "initial": config.get("MODEL.PRETRAINED", str),
        "architecture": architecture,
        "dataset": data.train,
        "held_out": data.val,
        "seed": config.get("DATASET.SEED", int),
        "sizes": (data.size,),
        "base_size": config.get("TRAIN.BASE_SIZE", int),
        "batch_size": config.get("TRAIN.BATCH_SIZE", int) * processes,
        "epochs": epochs,
        "eps": config.number("TRAIN.EPS") / 255 if is_adversarial else 0.0,
        "attack_steps": config.get("TRAIN.N_ITERS", int),
        "trains": "decoder" if config.get("TRAIN.FREEZE", bool) else "all",
        "precision": "bf16" if config.get("TRAIN.AMP", bool) else "fp32",
        "optimizer": config.choice("OPTIMIZER.NAME", {"AdamW": "adamw", "SGD": "sgd"}),
        "learning_rate": config.number("OPTIMIZER.LR"),
        "weight_decay": config.number("OPTIMIZER.WEIGHT_DECAY"),
        "power": config.number("SCHEDULER.POWER"),
        "warm_up": config.number("SCHEDULER.WARMUP") / epochs if warms_up else 0.0,
        "warm_up_ratio": config.number("SCHEDULER.WARMUP_RATIO"),
    }
    return Recipe(config.path.stem, **settings), config.get("DATASET.ROOT", str), config.get("SAVE_DIR", str)


class Evaluation(NamedTuple):
    """Describe what a configuration evaluates."""

    model: nn.Module
    dataset: Dataset
    batch_size: int


def evaluation(path: str | Path, root: str | Path | None = None) -> Evaluation:
    """Open the model and the dataset under EVAL. root: the folder of the dataset, instead of DATASET.ROOT."""
    config = Config(path)
    data = data_of(config, "EVAL.NAME", "EVAL.N_CLS", "EVAL.IMAGE_SIZE")
    _, architecture = config.choice("EVAL.BACKBONE", ARCHITECTURES)
    checkpoint = config.get("EVAL.MODEL_PATH", object)
    if not checkpoint:
        raise InputError(f"{path}: EVAL.MODEL_PATH is empty; write the path of the checkpoint there")
    dataset = load_dataset(data.val, "val", root or config.get("DATASET.ROOT", str))
    model = load_checkpoint(build(architecture, data.classes), checkpoint).eval().requires_grad_(False)
    name = Path(checkpoint).stem
    model.card = Card(name, architecture, data.val, dataset.classes, dataset.palette, str(checkpoint))  # type: ignore[assignment]
    return Evaluation(model, dataset, config.get("EVAL.BATCH_SIZE", int))
