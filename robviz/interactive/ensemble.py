"""An ensemble on one picture: what each of its attacks breaks, and which of them is the worst case."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing

import numpy as np
import pandas as pd
import torch

from robviz.interactive.comparison import Comparison, Subject, compare_steps, never
from robviz.metrics import accuracy_per_image, counts, iou, miou
from robviz.results.plan import SeaSettings

ACCURACY, MIOU = "pixel accuracy", "mIoU"
NOT_ATTACKED, WORST = "not attacked", "worst case"


def ensemble_steps(
    subject: Subject,
    eps: float,
    settings: SeaSettings,
    *,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[dict[str, Comparison], None, None]:
    """Attack one sample with one run of the settings after the other; yields what there is so far, by the run's name.

    A run that has ended is measured on its 8-bit picture (`is_final`). eps in [0, 1]. is_stopped is asked at every
    step; once it returns True, the run ends with its best so far, and no other begins.
    """
    done: dict[str, Comparison] = {}
    for run in settings.runs:
        if is_stopped():
            return
        spec = run.spec(eps, settings.seed)
        with closing(compare_steps(subject, spec, frame_seconds=frame_seconds, is_stopped=is_stopped)) as frames:
            for shown in frames:
                yield done | {run.name: shown}
        done[run.name] = shown


def breakdown(shown: Mapping[str, Comparison], classes: tuple[str, ...]) -> pd.DataFrame:
    """Break down what each run leaves: pixel accuracy, mIoU and the IoU of each class of the reference, in [0, 1].

    There is a row for the unattacked picture, for each run, and for the worst case, which is the lowest value of each
    column: on one picture, the ensemble of section 3.6 takes the attack of lowest value for each measure. shown: at
    least one run.
    """
    first = next(iter(shown.values()))
    there = [number for number in range(len(classes)) if (first.reference == number).any()]

    def row(mask: np.ndarray) -> dict[str, float]:
        found = counts(torch.from_numpy(mask)[None], torch.from_numpy(first.reference)[None], len(classes))
        of_class = iou(found.intersection[0].double(), found.union[0])
        return {
            ACCURACY: accuracy_per_image(found.correct, found.valid).item(),
            MIOU: miou(found.intersection[0], found.union[0]),
            **{classes[number]: of_class[number].item() for number in there},
        }

    rows = {NOT_ATTACKED: row(first.before), **{name: row(one.after) for name, one in shown.items()}}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc[WORST] = table.loc[list(shown)].min()
    return table
