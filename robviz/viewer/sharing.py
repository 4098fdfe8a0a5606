"""The pages of what the app shows: an attack, an ensemble, models under each other's attacks, a sweep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from robviz.attacks import AttackSpec
from robviz.files.provenance import versions
from robviz.interactive.comparison import Comparison
from robviz.interactive.scenario import UPLOAD, Scenario, cached_model
from robviz.interactive.sweep import Sweep
from robviz.interactive.transfer import Transfer
from robviz.models import card_of, fingerprint
from robviz.results.plan import SeaSettings
from robviz.sea import SETTINGS
from robviz.types import InputError
from robviz.viewer import viewer_data
from robviz.viewer.ensemble import ensemble_data
from robviz.viewer.page import page
from robviz.viewer.payloads import ViewerData
from robviz.viewer.sweep import sweep_data
from robviz.viewer.transfer import transfer_data


def radius(eps: float) -> str:
    """Write a radius in [0, 1] in levels."""
    return f"{255 * eps:.4g}/255"


def within(spec: AttackSpec) -> str:
    """Say how far an attack may go, and in which norm."""
    return f"{radius(spec.eps)} ({spec.norm.name})"


def models_said(models: Iterable[nn.Module]) -> dict[str, str]:
    """Say which models a result is about, by their weights."""
    said = [model_said(card_of(model).name, fingerprint(model)) for model in models]
    return {"Model" if len(said) == 1 else "Models": "; ".join(said)}


def model_said(name: str, sha256: str) -> str:
    """Name a model by its weights."""
    return f"{name}, SHA-256 {sha256}"


def versions_said(found: Mapping[str, str] | None = None) -> dict[str, str]:
    """Say with which versions a result was made; by default the installed ones."""
    return {"Versions": ", ".join(f"{name} {number}" for name, number in (found or versions()).items())}


def attack_said(spec: AttackSpec, target: str = "") -> dict[str, str]:
    """Say how a picture was attacked."""
    return {
        "Attack": f"{spec.attack}, loss {spec.loss}, {spec.steps} steps, seed {spec.seed}",
        "Radius ε": within(spec),
        **({"Target class": target} if target else {}),
    }


def picture_said(setting: Scenario, note: str) -> dict[str, str]:
    """Say what was attacked and what the scores compare with."""
    return {"Picture": setting.photo, "Ground truth": note}


def command_of(lines: Iterable[Sequence[str]], comments: Iterable[str] = ()) -> str:
    """Write a command over several lines that a shell reads as one, below its comments."""
    said = [f"# {' '.join(comment.split())}\n" for comment in comments]
    return "".join(said) + " \\\n    ".join(shlex.join(line) for line in lines if line) + "\n"


def attack_page(setting: Scenario, shown: Comparison, note: str) -> str:
    """Write a finished attack as a page.

    Args:
        setting: What was attacked, and how.
        shown: The comparison that `is_final`.
        note: What the reference is, from `subject_for`.

    Returns:
        The page.

    Raises:
        InputError: For an attack that has not ended.
    """
    require_final([shown])
    model, card = cached_model(setting.model)
    where = f"{setting.region}, the only pixels to {setting.where}" if setting.region.strip() else ""
    return page(
        f"{setting.photo}: {setting.model} under attack",
        "viewer",
        viewer_data(shown, card.classes, card.palette, note),
        lead=f"What the model sees before and after a change within {within(setting.spec())}.",
        setting={
            **models_said([model]),
            **picture_said(setting, note),
            **attack_said(setting.spec(), setting.target),
            **({"Region": where} if where else {}),
            **versions_said(),
        },
        again=setting.cell(),
    )


def ensemble_page(setting: Scenario, settings: SeaSettings, shown: dict[str, Comparison], note: str) -> str:
    """Write a finished ensemble on one picture as a page.

    Args:
        setting: The picture, the model and the radius.
        settings: The ensemble.
        shown: What `ensemble_steps` yielded last.
        note: What the reference is, from `subject_for`.

    Returns:
        The page.

    Raises:
        InputError: For an ensemble with an attack that has not ended.
    """
    require_final(shown.values())
    model, card = cached_model(setting.model)
    code, names = ensemble_code(settings)
    data = ensemble_data(shown, card, [run.name for run in settings.runs], note)
    data["last"] = min(shown, key=lambda name: shown[name].scores_after.accuracy)  # the worst is seen first
    return page(
        f"{setting.photo}: {setting.model} under {len(settings.runs)} attacks",
        "ensemble",
        data,
        lead=f"What each attack of {settings.name} leaves within {radius(setting.spec().eps)}, and the worst case.",
        setting={
            **models_said([model]),
            **picture_said(setting, note),
            "Ensemble": f"{settings.name}, seed {settings.seed}",
            "Attacks": ", ".join(run.name for run in settings.runs),
            "Radius ε": radius(setting.spec().eps),
            **versions_said(),
        },
        again="from robviz.attacks import last_of\n"
        "from robviz.interactive.ensemble import ensemble_steps\n"
        "from robviz.interactive.scenario import subject_for\n"
        f"{names}\n\n"
        f"subject, _ = subject_for({setting.photo!r}, {upload_code(setting)}, {setting.model!r})\n"
        f"shown = last_of(ensemble_steps(subject, {setting.eps_255:g} / 255, {code}))\n"
        "print({name: one.scores_after for name, one in shown.items()})\n",
    )


def transfer_page(setting: Scenario, found: Transfer, notes: dict[str, str]) -> str:
    """Write models under each other's attacks as a page.

    Args:
        setting: The picture and the attack; its model is left out.
        found: What `transfer_steps` yielded last.
        notes: What the reference is, by model.

    Returns:
        The page.

    Raises:
        InputError: For attacks that have not ended.
    """
    names = list(notes)
    if any((source, looker) not in found for source in names for looker in names):
        raise InputError("there is no finished comparison to share yet; run it to its end first")
    opened = {name: cached_model(name) for name in names}
    spec = setting.spec()
    data = transfer_data(found, {name: card for name, (_, card) in opened.items()}, notes)
    data["first"] = f"{names[0]}/{names[0]}"  # a model under its own attack is seen first
    return page(
        f"{setting.photo}: does what breaks {names[0]} break {' and '.join(names[1:])}?",
        "transfer",
        data,
        lead=f"Models under each other's attacks, within {within(spec)}.",
        setting={
            **models_said(model for model, _ in opened.values()),
            "Picture": setting.photo,
            **attack_said(spec),
            **versions_said(),
        },
        again="from robviz.attacks import AttackSpec, last_of\n"
        "from robviz.interactive.scenario import subject_for\n"
        "from robviz.interactive.transfer import transfer_steps\n\n"
        f"subjects = {{name: subject_for({setting.photo!r}, {upload_code(setting)}, name)[0] for name in {names!r}}}\n"
        f"spec = AttackSpec({spec.attack!r}, {spec.loss!r}, {setting.eps_255:g} / 255, {spec.steps}, {spec.seed})\n"
        "found = last_of(transfer_steps(subjects, spec))\n"
        "print({pair: shown.scores_after for pair, shown in found.items()})\n",
    )


def sweep_page(setting: Scenario, sweep: Sweep, notes: dict[str, str]) -> str:
    """Write the curves of one picture over the radius as a page, with the masks at every point.

    Args:
        setting: The picture and the attack; its model and radius are left out.
        sweep: What `sweep_steps` yielded last.
        notes: What the reference is, by model.

    Returns:
        The page.

    Raises:
        InputError: For a sweep without a point.
    """
    names = list(notes)
    require_final(shown for points in sweep.found.values() for shown in points)
    opened = {name: cached_model(name) for name in names}
    cards = {name: card for name, (_, card) in opened.items()}
    data, views = sweep_data(sweep, cards, notes), dict[str, ViewerData]()
    for count in range(1, len(sweep.radii) + 1):
        views |= sweep_data(replace(sweep, found={n: p[:count] for n, p in sweep.found.items()}), cards, notes)["views"]
    radii = [float(f"{255 * eps:.4g}") for eps in sweep.radii]
    spec, (beside, names_used, lines) = setting.spec(), yardsticks_said(sweep)
    return page(
        f"{setting.photo}: accuracy over the radius",
        "sweep",
        data | {"views": views},
        lead=f"What {' and '.join(names)} still get right as the radius grows.",
        setting={
            **models_said(model for model, _ in opened.values()),
            "Picture": setting.photo,
            "Attack": f"{spec.attack}, loss {spec.loss}, {spec.steps} steps at each radius, seed {spec.seed}",
            "Radii, in 1/255": ", ".join(f"{radius:g}" for radius in radii),
            **beside,
            **versions_said(),
        },
        again="from robviz.attacks import AttackSpec, last_of\n"
        "from robviz.interactive.scenario import subject_for\n"
        "from robviz.interactive.sweep import sweep_steps, sweep_table\n"
        f"{names_used}\n"
        f"subjects = {{name: subject_for({setting.photo!r}, {upload_code(setting)}, name)[0] for name in {names!r}}}\n"
        f"spec = AttackSpec({spec.attack!r}, {spec.loss!r}, steps={spec.steps}, seed={spec.seed})\n"
        f"radii = [radius / 255 for radius in {radii}]\n"
        "found = last_of(sweep_steps(subjects, spec, radii))\n"
        f"{lines}"
        "print(sweep_table(found))\n",
    )


def yardsticks_said(sweep: Sweep) -> tuple[dict[str, str], str, str]:
    """Return what a page says about the yardsticks of a sweep, and its lines of Python: the import and the calls."""
    said, imports, lines = dict[str, str](), list[str](), ""
    if sweep.luck:
        model, kinds = sweep.luck[0].model, list(dict.fromkeys(one.corruption for one in sweep.luck))
        said["Corruptions"] = f"{', '.join(kinds)}, each within the radius, on {model}, seed 0"
        imports.append("with_luck")
        lines += f"found = last_of(with_luck(found, {model!r}, subjects[{model!r}], {kinds!r}))\n"
    if sweep.smallest:
        first = next(iter(sweep.smallest.values()))
        said["Smallest radius"] = f"ALMA prox, {first.steps} steps, for {100 * first.share:g} % of the pixels"
        imports.append("with_smallest")
        lines += f"found = last_of(with_smallest(found, subjects, {first.steps}, share={first.share}))\n"
    used = f"from robviz.interactive.yardsticks import {', '.join(imports)}\n" if imports else ""
    return said, used, lines


def require_final(shown: Iterable[Comparison]) -> None:
    """Raise InputError unless every comparison is measured."""
    found = list(shown)
    if not found or not all(one.is_final for one in found):
        raise InputError("there is no finished attack to share yet; press Attack or Run first")


def upload_code(setting: Scenario) -> str:
    """Return the argument that stands for an upload, as code."""
    return repr("my_picture.png") if setting.photo == UPLOAD else "None"


def known_ensemble(settings: Mapping[str, Any]) -> tuple[str, int | None] | None:
    """Return the name of ours, and its steps where they are not its own, for settings as JSON; None for another's."""
    base, _, steps = settings["name"].rpartition("-")
    candidates: list[tuple[str, int | None]] = [(settings["name"], None)]
    if steps.isascii() and steps.isdigit() and int(steps) > 0:
        candidates.append((base, int(steps)))
    for name, number in candidates:
        if name in SETTINGS:
            ours = SETTINGS[name] if number is None else SETTINGS[name].with_steps(number)
            if json.loads(json.dumps(asdict(ours))).items() >= dict(settings).items():
                return name, number
    return None


def ensemble_code(settings: SeaSettings) -> tuple[str, str]:
    """Return an ensemble as Python, and the import that it needs."""
    known = known_ensemble(json.loads(json.dumps(asdict(settings))))
    if known is None:
        kinds = ", ".join(sorted({type(settings).__name__, "Run"}))
        return repr(settings), f"from robviz.results.plan import {kinds}"
    name, steps = known
    return f"SETTINGS[{name!r}]" + (f".with_steps({steps})" if steps else ""), "from robviz.sea import SETTINGS"
