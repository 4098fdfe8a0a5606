"""One attack on one picture, as a setting that fits into an address, a file or a line of code."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import torch
from torch import Tensor, nn

from robviz.attacks import OPTIMISERS, AttackSpec, last_of, predicted
from robviz.datasets import load_dataset
from robviz.datasets.labels import read_table
from robviz.files.images import LONGER_SIDE, read_picture, to_tensor
from robviz.interactive.comparison import Comparison, Subject, compare_steps, never, step_seconds
from robviz.losses import LOSSES
from robviz.models import Card, available, card_of, load_model
from robviz.models.layers import device_of
from robviz.models.precision import chosen_precision
from robviz.models.prepared import prepared
from robviz.types import InputError, Sample

UPLOAD = "my own picture"
TRUTH_NOTE = "Scores compare with the drawn label mask."
OWN_NOTE = (
    "This picture has no label mask in the model's classes: scores compare with its own mask of the unattacked picture."
)
MAX_EPS, MAX_STEPS, MAX_SEED = 16, 300, 2**31 - 1
WEIGHT_TABLES = ("voc", "ade20k", "camvid")  # whose class weights are on file
BREAK, CHANGE = "break", "change"


@lru_cache
def _opened(name: str) -> tuple[nn.Module, Card]:
    model = load_model(name)
    return model, card_of(model)


#: By model: held while it is opened, as two who ask at the same time must get one and the same.
_OPENING: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def cached_model(name: str) -> tuple[nn.Module, Card]:
    """Open a model by name, and its card; both stay in memory."""
    with _OPENING[name]:
        return _opened(name)


@lru_cache
def known_class_weights(dataset: str) -> Tensor | None:
    """Return the weights of a dataset's classes, even if its pictures are not on this machine; None if unknown."""
    if dataset == "photos":
        return load_dataset("photos").class_weights
    table = dataset.partition("-")[0]  # two protocols, one table
    return read_table(table)["weights"] if table in WEIGHT_TABLES else None


@lru_cache
def photos() -> dict[str, Sample]:
    """Return the labelled photographs by name."""
    return {sample.name: sample for sample in load_dataset("photos", "photographs")}


def check_choice(name: str, value: str, offered: Iterable[str]) -> None:
    """Raise InputError if a value is none of those that are offered."""
    names = list(offered)
    if value not in names:
        raise InputError(f"{name} must be one of {', '.join(names)}; got {str(value)[:40]!r}")


def sample_of(photo: str, upload: str | Path | None, model: nn.Module) -> tuple[Sample, str]:
    """Return the chosen picture with its reference labels, and a note on what they are."""
    if photo != UPLOAD:
        check_choice("photo", photo, [*photos(), UPLOAD])
        sample = photos()[photo]
        if card_of(model).dataset == "photos":
            return sample, TRUTH_NOTE
        image = sample.image
    elif upload is None:
        raise InputError("no picture was uploaded yet; choose one with “Own picture”")
    else:
        image = to_tensor(read_picture(upload))
    return Sample(photo, image, predicted(model, image[None])[0]), OWN_NOTE


def subject_for(photo: str, upload: str | Path | None, model: str) -> tuple[Subject, str]:
    """Return the chosen model and picture, and a note on what the picture's labels are."""
    return opened_subject(photo, upload, model) if photo == UPLOAD else known_subject(photo, model)


@lru_cache(maxsize=32)
def known_subject(photo: str, model: str) -> tuple[Subject, str]:
    """Open a model and a photograph, which stay in memory with what the model predicts on it."""
    return opened_subject(photo, None, model)


def opened_subject(photo: str, upload: str | Path | None, model: str) -> tuple[Subject, str]:
    """Open the chosen model and picture; an upload is read each time, as its file may change."""
    network, card = cached_model(model)
    sample, note = sample_of(photo, upload, network)
    precision = chosen_precision("auto", device_of(network))
    return Subject(network, sample, card, known_class_weights(card.dataset), prepared(network, precision)), note


#: Held while a step is timed: several views ask at once, and each would slow the others.
TIMING = threading.Lock()
#: Seconds of a step, by model.
TIMED: defaultdict[str, list[float]] = defaultdict(list)
#: How often a step is timed before the least of its times is believed: the first may fall into a busy moment.
TIMES = 3


def first_step_seconds(model: str) -> float:
    """Time a step of an attack on the first photograph."""
    subject, _ = known_subject(next(iter(photos())), model)
    return step_seconds(subject.for_gradients or subject.model, subject.sample)


def seconds_a_step(photo: str, model: str) -> float:
    """Return the seconds that a step of an attack takes on this machine: the least that was timed for the model.

    Another photograph takes as much longer as it has more pixels; an upload is taken for the first photograph.
    """
    first = next(iter(photos().values()))
    with TIMING:
        timed = TIMED[model]
        if len(timed) < TIMES:
            timed.append(first_step_seconds(model))
    return min(timed) * photos().get(photo, first).labels.numel() / first.labels.numel()


#: Fields of `Scenario` whose key in addresses and files is another name.
KEYS = {"eps_255": "eps"}


@dataclass(frozen=True)
class Scenario:
    """Hold everything that decides an attack on a picture; the defaults are the app's first view.

    Attributes:
        eps_255: The radius in 1/255, as widgets, addresses and files have it; `spec` converts it.
        target: A class of the model, or "" for any other than the correct one.
        region: A box of pixels `left, top, right, bottom`, the last two exclusive, or "" for the whole picture.
        where: What the box means: the only pixels to `break`, or the only ones to `change`.
    """

    photo: str = "chelsea"
    model: str = "photos-clean"
    eps_255: float = 4
    loss: str = "mask-ce"
    steps: int = 20
    seed: int = 0
    attack: str = "apgd"
    target: str = ""
    region: str = ""
    where: str = BREAK

    def check(self) -> None:
        """Raise InputError for what the widgets do not offer: fields may be empty, requests come from anywhere."""
        numbers = (self.eps_255, self.steps, self.seed)
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers):
            raise InputError("ε, steps and seed must each hold a number")
        if not all(float(value).is_integer() for value in numbers[1:]):
            raise InputError(f"steps and seed must be whole numbers, got {self.steps} and {self.seed}")
        if not (0 <= self.eps_255 <= MAX_EPS and 1 <= self.steps <= MAX_STEPS and 0 <= self.seed <= MAX_SEED):
            raise InputError(
                f"ε must lie in 0 .. {MAX_EPS}, steps in 1 .. {MAX_STEPS} and the seed in 0 .. {MAX_SEED}, "
                f"got {self.eps_255}, {self.steps} and {self.seed}"
            )
        choices = {
            "photo": [*photos(), UPLOAD],
            "model": available(offline=True),
            "loss": list(LOSSES),
            "attack": list(OPTIMISERS),
            "where": [BREAK, CHANGE],
        }
        for name, offered in choices.items():
            check_choice(name, getattr(self, name), offered)
        self.box()

    def box(self) -> tuple[int, int, int, int] | None:
        """Return the region, or None for the whole picture; raises InputError if it is not a box."""
        if not self.region.strip():
            return None
        parts = self.region.split(",")
        if len(parts) != 4 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
            raise InputError(
                "a region is given as left, top, right, bottom in pixels, such as 20, 30, 90, 80; "
                f"got {self.region[:40]!r}"
            )
        left, top, right, bottom = (min(int(part), LONGER_SIDE) for part in parts)
        if left >= right or top >= bottom:
            raise InputError(f"the region {self.region[:40]!r} holds no pixel; expected left < right and top < bottom")
        return left, top, right, bottom

    def spec(self, subject: Subject | None = None) -> AttackSpec:
        """Return the attack, its radius in [0, 1].

        Args:
            subject: The classes and the picture that target and region refer to; without it, both are left out.

        Returns:
            The attack.

        Raises:
            InputError: For a class that the model does not have, and for a region outside the picture.
        """
        attack = AttackSpec(self.attack, self.loss, self.eps_255 / 255, int(self.steps), int(self.seed))
        if subject is None:
            return attack
        inside = self.inside(subject.sample.labels)
        return replace(
            attack,
            target=self.target_in(subject.card.classes),
            aimed=inside if self.where == BREAK else None,
            changeable=inside if self.where == CHANGE else None,
        )

    def target_in(self, classes: tuple[str, ...]) -> int | None:
        """Return the number of the target among the classes; raises InputError for an unknown one."""
        if self.target and self.target not in classes:
            raise InputError(f"the target must be a class of the model, got {self.target[:40]!r}")
        return classes.index(self.target) if self.target else None

    def inside(self, labels: Tensor) -> Tensor | None:
        """Return the region as a mask (H, W) bool; None for the whole picture. Raises InputError if it is outside."""
        if (box := self.box()) is None:
            return None
        left, top, right, bottom = box
        inside = torch.zeros_like(labels, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        if not inside.any():
            raise InputError(
                f"the region {self.region!r} lies outside the picture of {labels.shape[1]} x {labels.shape[0]}"
            )
        return inside

    def values(self) -> dict[str, Any]:
        """Return the fields by their keys in addresses and files."""
        return {KEYS.get(name, name): value for name, value in asdict(self).items()}

    def query(self) -> str:
        """Return the query of an address: everything that differs from the defaults."""
        start = Scenario().values()
        return urlencode({key: value for key, value in self.values().items() if value != start[key]})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Scenario:
        """Read a setting from an address or a file of anyone; raises InputError for bad values, ignores other names."""
        kinds = {"float": float, "int": int, "str": str}
        found: dict[str, Any] = {}
        for field in fields(cls):
            key = KEYS.get(field.name, field.name)
            if key in values:
                try:
                    found[field.name] = kinds[str(field.type)](values[key])
                except (TypeError, ValueError, OverflowError):
                    raise InputError(f"{key} must be a number, got {str(values[key])[:40]!r}") from None
        if not math.isfinite(found.get("eps_255", 0)):
            raise InputError("ε must be a finite number")
        setting = cls(**found)
        setting.check()
        return setting

    def cell(self) -> str:
        """Return the same attack as a few lines of Python."""
        upload = ', upload="my_picture.png"' if self.photo == UPLOAD else ""
        return (
            "from robviz.interactive.scenario import Scenario, run_scenario\n\n"
            f"scenario = {self!r}\n"
            f"shown = run_scenario(scenario{upload})\n"
            "print(shown.scores_before, shown.scores_after, shown.largest_change)\n"
        )


def scenario_steps(
    setting: Scenario,
    upload: str | Path | None = None,
    *,
    start: Tensor | None = None,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Comparison, None, None]:
    """Yield frames of the attack that a setting describes, the last one measured on the 8-bit picture.

    start: the picture (3, H, W) in [0, 1] to go on from; None for a start of the attack's own.
    """
    setting.check()
    subject, _ = subject_for(setting.photo, upload, setting.model)
    spec = setting.spec(subject)
    yield from compare_steps(subject, spec, start=start, frame_seconds=frame_seconds, is_stopped=is_stopped)


def run_scenario(setting: Scenario, upload: str | Path | None = None) -> Comparison:
    """Run the attack that a setting describes. upload: the picture file of `my own picture`. Raises InputError."""
    return last_of(scenario_steps(setting, upload, frame_seconds=math.inf))
