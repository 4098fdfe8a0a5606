"""Commands that measure how robust a model is."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from robviz.cli.application import MEASURE, application
from robviz.cli.output import print_markdown
from robviz.types import Dataset, InputError, radius_in_levels

if TYPE_CHECKING:
    from torch import nn

#: The exit status of an evaluation that says not to believe its figures.
DOUBTFUL = 3
MODEL = "Name of a model, path of a .safetensors file, or module:function or file.py:function that returns a model."


def module_at(path: Path) -> ModuleType:
    """Run a Python file as a module."""
    spec = importlib.util.spec_from_file_location(f"robviz_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def imported(where: str) -> ModuleType:
    """Import a module by its dotted name, looked up in the working folder too, or by the path of its file."""
    path = Path(where)
    sys.path.insert(0, str(path.resolve().parent))  # for a dotted name, the working folder
    try:
        return module_at(path) if path.suffix == ".py" else importlib.import_module(where)
    except Exception as error:
        raise InputError(f"cannot import {where}: {type(error).__name__}: {error}") from error


def model_of(name: str, device: str | None) -> nn.Module:
    """Open a model by the name that `load_model` knows, or by the function that returns it."""
    from torch import nn

    from robviz.models import load_model
    from robviz.models.devices import device_named

    place = device_named(device)
    where, colon, function = name.rpartition(":")
    if not (colon and function.isidentifier()):
        return load_model(name, place)
    build = getattr(imported(where), function, None)
    if not callable(build):
        raise InputError(f"{where} has no function {function!r}; expected one that returns a model")
    try:
        model = build()
    except InputError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{name} failed: {type(error).__name__}: {said}; expected a function without arguments that returns a model"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{name} must return a torch.nn.Module, got {type(model).__name__}; robviz.models.adapt can make one"
        )
    model.made_by = build  # its code is part of the identity of an evaluation
    return model.to(place)


def require_usable(dataset: Dataset, limit: int | None, command: list[str]) -> None:
    """Refuse a dataset with samples that cannot be used, before any time is spent on it.

    command: the command line that lists them all.
    """
    from robviz.datasets import validate

    problems = validate(dataset, limit)
    for problem in problems if limit is None else ():
        if not problem.stops:
            print(f"robviz: {problem.name}: {problem.reason}", file=sys.stderr)
    if broken := [problem for problem in problems if problem.stops]:
        raise InputError(
            f"{len(broken)} samples cannot be used, first {broken[0].name}: {broken[0].reason}; "
            f"see `{shlex.join(command)}` for all"
        )


def check_command(name: str, split: str, root: str | None) -> list[str]:
    """Return the command that lists what is wrong with a split of a dataset."""
    return ["robviz", "data", "check", name, "--split", split, *(["--root", root] if root else [])]


@application.command(rich_help_panel=MEASURE)
def evaluate(
    model: Annotated[str | None, Argument(help=MODEL, show_default=False)] = None,
    model_option: Annotated[str | None, Option("--model", metavar="MODEL", help="The same, as an option.")] = None,
    config: Annotated[
        str | None,
        Option(
            metavar="FILE", help="Configuration file of the official code: its model, dataset and batch size instead."
        ),
    ] = None,
    dataset: Annotated[str, Option(help="Name of a dataset or path of your own folder.")] = "photos",
    split: Annotated[str, Option(help="Split of the dataset.")] = "val",
    root: Annotated[str | None, Option(metavar="FOLDER", help="Folder that holds the dataset.")] = None,
    eps: Annotated[str, Option(metavar="N", help="Radius of the attacks, in 1/255.")] = "4",
    settings: Annotated[
        str, Option(metavar="NAME", help="Ensemble: paper, paper-v1, strong, strong-v1 or quick.")
    ] = "paper",
    steps: Annotated[
        int | None, Option(metavar="N", help="Average number of steps per attack, instead of the ensemble's own.")
    ] = None,
    out: Annotated[
        str | None, Option(metavar="FOLDER", help="Where to keep records and report. Without it, nothing is kept.")
    ] = None,
    restart: Annotated[bool, Option("--restart", help="Discard the records in the folder and start over.")] = False,
    keep_masks: Annotated[bool, Option("--keep-masks", help="Also keep every predicted mask, as PNG.")] = False,
    keep_pictures: Annotated[
        bool, Option("--keep-pictures", help="Also keep every attacked image, in 8 bits per channel.")
    ] = False,
    limit: Annotated[int | None, Option(metavar="N", help="Use only the first N images.")] = None,
    batch_size: Annotated[
        int | None,
        Option(metavar="N", help="Images per batch. On a CPU, results do not depend on it.", show_default="1"),
    ] = None,
    precision: Annotated[str, Option(metavar="NAME", help="Precision of the gradients: fp32, bf16 or auto.")] = "auto",
    device: Annotated[str | None, Option(help="Device such as cpu, cuda or cuda:1.", show_default="cpu")] = None,
    eot: Annotated[int, Option(metavar="N", help="Attack the mean of N passes, for a model with random outputs.")] = 1,
    seed: Annotated[int, Option(metavar="N", help="Seed of all random starts.")] = 0,
) -> None:
    """Attack a dataset with an ensemble of attacks and report the worst case.

    The exit status is 3 if the report has doubts about its figures.

    You can stop it at any time: with --out, the same command resumes where it left off.
    """
    from robviz.datasets import load_dataset
    from robviz.models.devices import device_named
    from robviz.sea import SETTINGS
    from robviz.sea import evaluate as run

    if sum(source is not None for source in (model, model_option, config)) != 1:
        raise BadParameter("give exactly one of MODEL, --model and --config", param_hint="MODEL")
    if settings not in SETTINGS:
        raise InputError(f"unknown settings {settings!r}; choose from: {', '.join(SETTINGS)}")
    chosen = replace(SETTINGS[settings], seed=seed)
    if config is not None:
        from robviz.paper import configs as official

        network, pictures, size = official.evaluation(config, root)
        network, batch_size = network.to(device_named(device)), batch_size or size
        require_usable(pictures, limit, check_command(pictures.name, pictures.split, root))
    else:
        pictures = load_dataset(dataset, split, root)
        require_usable(pictures, limit, check_command(dataset, split, root))
        network = model_of(model or model_option or "", device)
    report = run(
        network,
        pictures,
        radius_in_levels(eps),
        chosen if steps is None else chosen.with_steps(steps),
        out=out,
        resume=not restart,
        limit=limit,
        batch_size=batch_size or 1,
        precision=precision,
        keep_masks=keep_masks,
        keep_pictures=keep_pictures,
        eot=eot,
    )
    print_markdown(report.to_markdown())
    if report.doubts:
        raise Exit(DOUBTFUL)


@application.command(rich_help_panel=MEASURE)
def minimal(
    model: Annotated[str, Argument(help=MODEL, show_default=False)],
    out: Annotated[Path, Option(metavar="FILE", help="JSON file to write, after every image.")],
    dataset: Annotated[str, Option(help="Name of a dataset or path of your own folder.")] = "photos",
    split: Annotated[str, Option(help="Split of the dataset.")] = "val-128",
    limit: Annotated[int, Option(metavar="N", min=1, help="Use only the first N images.")] = 16,
    crop: Annotated[
        int | None, Option(metavar="N", help="Side in pixels of the centre that is attacked.", show_default="all of it")
    ] = None,
    steps: Annotated[int, Option(metavar="N", help="Steps of ALMA prox on each image.")] = 500,
    device: Annotated[str | None, Option(help="Device such as cpu, cuda or cuda:1.", show_default="cpu")] = None,
) -> None:
    """Find the smallest radius that breaks 99 % of each image's pixels."""
    from robviz.datasets import load_dataset
    from robviz.paper.minimal import measured

    for found in measured(model_of(model, device), load_dataset(dataset, split), limit, steps, crop=crop):
        found.save(out)
        radius = found.radii_255[-1]
        print(f"image {len(found.radii_255)}: {'none found' if radius is None else f'{radius:g}/255'}")
