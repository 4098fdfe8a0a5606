"""Several models under each other's attacks: does what breaks one break the others?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace

from robviz.attacks import AttackSpec
from robviz.interactive.comparison import Comparison, Subject, clean_comparison, compare_steps, finalise, never
from robviz.interactive.ensemble import NOT_ATTACKED

#: (the model that was attacked, or `NOT_ATTACKED`; the model that looks) -> what it sees.
Transfer = dict[tuple[str, str], Comparison]


def transfer_steps(
    subjects: Mapping[str, Subject],
    spec: AttackSpec,
    *,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Transfer, None, None]:
    """Attack one picture on each model in turn and let all of them look at the result; yields what there is so far.

    subjects: by name, all with the same picture. While a model is attacked, what it sees itself comes in frames, at
    most every `frame_seconds`; what is `is_final` was measured on the 8-bit picture. is_stopped is asked at every
    step; once it returns True, the attack under way ends with its best so far, and no other begins.
    """
    done: Transfer = {(NOT_ATTACKED, name): clean_comparison(subject, spec) for name, subject in subjects.items()}
    yield dict(done)
    for attacked, source in subjects.items():
        if is_stopped():
            return
        with closing(compare_steps(source, spec, frame_seconds=frame_seconds, is_stopped=is_stopped)) as frames:
            for shown in frames:
                if not shown.is_final:
                    yield done | {(attacked, attacked): shown}
        for name, subject in subjects.items():
            done[attacked, name] = shown if name == attacked else looked_at(subject, shown, done[NOT_ATTACKED, name])
        yield dict(done)


def looked_at(subject: Subject, shown: Comparison, clean: Comparison) -> Comparison:
    """Return another model's predictions on the attacked picture. clean: its predictions before the attack."""
    seen_by_it = replace(
        clean,
        attacked=shown.attacked,
        largest_change=shown.largest_change,
        curve=shown.curve,
        losses=shown.losses,
        step=shown.step,
    )
    return finalise(subject, seen_by_it)
