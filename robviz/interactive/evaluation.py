"""A dataset evaluated by an ensemble while somebody watches, who may stop at any step and resume."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from torch import nn

from robviz.interactive.comparison import never
from robviz.results.plan import CLEAN, SeaSettings
from robviz.results.report import Report
from robviz.sea import Standing, evaluate
from robviz.types import Dataset


@dataclass(frozen=True)
class EvaluationProgress:
    """Describe how far an evaluation has come.

    Attributes:
        done: The number of records, with those that were there before; one for each image under each run, and one for
            each unattacked image.
        total: The number of records of the whole evaluation.
        run: The run under way or just recorded; None at the start.
        image: The name of its image; None at the start.
        seconds_left: From the pace of the attacks since the start; NaN until one has ended.
        report: The report, at the end only.
    """

    done: int
    total: int
    run: str | None = None
    image: str | None = None
    seconds_left: float = math.nan
    report: Report | None = None


class Stopped(Exception):
    """End an evaluation that nobody waits for any more."""


class Pace:
    """Estimate the time left from the attacks since the start; unattacked predictions take next to none."""

    def __init__(self, runs: int) -> None:
        self.attacked = runs / (runs + 1)  # the share of attacks among the records
        self.began, self.before, self.attacks, self.spent = time.monotonic(), -1, 0, 0.0

    def progress(self, standing: Standing) -> EvaluationProgress:
        """Add the time left to where the evaluation stands."""
        if 0 <= self.before < standing.done and standing.run != CLEAN:
            self.attacks, self.spent = self.attacks + 1, time.monotonic() - self.began
        self.before = standing.done
        left = self.attacked * (standing.total - standing.done)
        return EvaluationProgress(*standing, self.spent / self.attacks * left if self.attacks else math.nan)


def evaluation_steps(
    model: nn.Module,
    dataset: Dataset,
    eps: float,
    settings: SeaSettings,
    folder: Path,
    *,
    limit: int | None = None,
    is_stopped: Callable[[], bool] = never,
) -> Generator[EvaluationProgress, None, None]:
    """Evaluate a dataset as `robviz.sea.evaluate` does, with masks kept, and yield how far it has come.

    The work goes on in a thread of its own while the caller shows what was yielded. Called again with the same folder,
    it resumes, and the report is the same to the byte.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), on its device.
        dataset: Labelled pictures in the classes of the model.
        eps: The radius, in [0, 1].
        settings: The ensemble.
        folder: Where records, masks and report go.
        limit: Use only the first images, at most this many.
        is_stopped: Called in the thread at every step of an attack; once it returns True, the evaluation ends without
            a report, as it does when the generator is closed, which waits for the step under way. Records stay.

    Yields:
        The start, each attack as it begins, each record, and last the end with its report.

    Raises:
        InputError: As `robviz.sea.evaluate` does; so is every other error of the thread raised here.
    """
    news: SimpleQueue[EvaluationProgress | BaseException | None] = SimpleQueue()
    is_closed, pace = threading.Event(), Pace(len(settings.runs))
    latest: list[Standing] = []

    def watch(standing: Standing) -> None:
        if is_closed.is_set() or is_stopped():
            raise Stopped
        if [standing] != latest:
            latest[:] = [standing]
            news.put(pace.progress(standing))

    def work() -> None:
        try:
            report = evaluate(model, dataset, eps, settings, folder, limit=limit, keep_masks=True, watch=watch)
            total = latest[0].total
            news.put(EvaluationProgress(total, total, latest[0].run, latest[0].image, 0.0, report))
        except Stopped:
            news.put(None)
        except BaseException as error:  # whatever it is, the caller raises it
            news.put(error)

    thread = threading.Thread(target=work, name="evaluation", daemon=True)
    thread.start()
    try:
        while (found := news.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
            if found.report is not None:
                return
    finally:
        is_closed.set()
        thread.join()
