"""An ensemble on one picture: what each of its attacks breaks, and which of them is the worst case."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from robviz.interactive.comparison import Comparison, compare_steps, finish
from robviz.metrics import counts
from robviz.results.plan import SeaSettings
from robviz.types import Sample

ACCURACY, MIOU = "pixels right", "mIoU"
CLEAN, WORST = "not attacked", "worst case"


def ensemble_steps(
    model: nn.Module,
    sample: Sample,
    num_classes: int,
    eps: float,
    settings: SeaSettings,
    class_weights: Tensor | None = None,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Generator[dict[str, Comparison], None, None]:
    """Attack one sample with one run of the settings after the other; yields what there is by now, by the run's name.

    A run that has ended is measured on its 8-bit picture (`is_final`). eps in [0, 1]. is_stopped is asked at every
    step; once it says so, the run ends with its best so far, and no other begins.
    """
    done: dict[str, Comparison] = {}
    for run in settings.runs:
        if is_stopped():
            return
        frames = compare_steps(
            model,
            sample,
            num_classes,
            eps,
            run.steps,
            run.loss,
            class_weights,
            settings.seed,
            frame_seconds,
            is_stopped,
            run.attack,
        )
        with closing(frames):
            for shown in frames:
                yield done | {run.name: shown}
        done[run.name] = finish(model, sample, shown, num_classes)
        yield dict(done)


def breakdown(shown: Mapping[str, Comparison], classes: tuple[str, ...]) -> pd.DataFrame:
    """Pixel accuracy, mIoU and the IoU of each class of the reference, in [0, 1]: what each run leaves.

    A row for the unattacked picture, for each run, and for the worst case, which is the least of each column: on one
    picture, the ensemble of section 3.6 takes the attack of lowest value for each measure. shown: at least one run.
    """
    first = next(iter(shown.values()))
    there = [number for number in range(len(classes)) if (first.reference == number).any()]

    def row(mask: np.ndarray) -> dict[str, float]:
        found = counts(torch.from_numpy(mask)[None], torch.from_numpy(first.reference)[None], len(classes))
        iou = found.intersection[0] / found.union[0].clamp_min(1)
        has_union = found.union[0] > 0
        return {
            ACCURACY: (found.correct / found.valid.clamp_min(1)).item(),
            MIOU: iou[has_union].mean().item() if has_union.any() else float("nan"),
            **{classes[number]: iou[number].item() for number in there},
        }

    rows = {CLEAN: row(first.before), **{name: row(one.after) for name, one in shown.items()}}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc[WORST] = table.loc[list(shown)].min()
    return table
