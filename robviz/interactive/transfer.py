"""Several models under each other's attacks: does what breaks one break the others?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from torch import Tensor, nn

from robviz.interactive.comparison import Comparison, compare_steps, finish, unattacked
from robviz.interactive.ensemble import CLEAN
from robviz.types import Sample

#: (the model that was attacked, or `CLEAN`; the model that looks) -> what it sees.
Transfer = dict[tuple[str, str], Comparison]


@dataclass(frozen=True)
class Contender:
    """A model, and the picture with its labels in the classes of that model."""

    model: nn.Module
    sample: Sample
    num_classes: int
    class_weights: Tensor | None = None


def transfer_steps(
    contenders: Mapping[str, Contender],
    eps: float,
    steps: int,
    loss: str = "mask-ce",
    seed: int = 0,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = lambda: False,
    attack: str = "apgd",
) -> Generator[Transfer, None, None]:
    """Attack one picture on each model in turn and let all of them look at the result; yields what there is by now.

    contenders: by name, all with the same picture. eps in [0, 1]. While a model is attacked, what it sees itself comes
    in frames, at most every `frame_seconds`; what is `is_final` was measured on the 8-bit picture. is_stopped is
    asked at every step; once it says so, the attack under way ends with its best so far, and no other begins.
    """
    done: Transfer = {}
    for name, one in contenders.items():
        done[CLEAN, name] = unattacked(one.model, one.sample, one.num_classes, eps, steps)
    yield dict(done)
    for attacked, source in contenders.items():
        if is_stopped():
            return
        frames = compare_steps(
            source.model,
            source.sample,
            source.num_classes,
            eps,
            steps,
            loss,
            source.class_weights,
            seed,
            frame_seconds,
            is_stopped,
            attack,
        )
        with closing(frames):
            for shown in frames:
                yield done | {(attacked, attacked): shown}
        for name, one in contenders.items():
            seen_by_it = replace(
                done[CLEAN, name],
                attacked=shown.attacked,
                largest_change=shown.largest_change,
                curve=shown.curve,
                losses=shown.losses,
                step=shown.step,
            )
            last = shown if name == attacked else seen_by_it
            done[attacked, name] = finish(one.model, one.sample, last, one.num_classes)
        yield dict(done)
