"""Commands that measure how robust a model is."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from robviz.cli.application import MEASURE, application
from robviz.cli.output import print_markdown
from robviz.types import Dataset, InputError

if TYPE_CHECKING:
    from torch import nn

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

    where, colon, function = name.rpartition(":")
    if not (colon and function.isidentifier()):
        return load_model(name, device)
    build = getattr(imported(where), function, None)
    if not callable(build):
        raise InputError(f"{where} has no function {function!r}; expected one that returns a model")
    model = build()
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{name} must return a torch.nn.Module, got {type(model).__name__}; robviz.models.adapt makes one of it"
        )
    return model.to(device or "cpu")


def require_usable(dataset: Dataset, limit: int | None, name: str) -> None:
    """Refuse a dataset with samples that cannot be used, before any time is spent on it."""
    from robviz.datasets import check

    if broken := [problem for problem in check(dataset, limit) if problem.stops]:
        raise InputError(
            f"{len(broken)} samples cannot be used, first {broken[0].name}: {broken[0].reason}; "
            f"see `robviz data check {name}` for all"
        )


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
    eps: Annotated[float, Option(metavar="N", help="Radius of the attacks, in 1/255.")] = 4,
    settings: Annotated[str, Option(metavar="NAME", help="Ensemble: paper, paper-v1, strong or quick.")] = "paper",
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
        int | None, Option(metavar="N", help="Images per batch. Results do not depend on it.", show_default="1")
    ] = None,
    precision: Annotated[str, Option(metavar="NAME", help="Precision of the gradients: fp32, bf16 or auto.")] = "auto",
    device: Annotated[str | None, Option(help="Device such as cpu, cuda or cuda:1.", show_default="cpu")] = None,
) -> None:
    """Attack a dataset with an ensemble of attacks and report the worst case.

    You can stop it at any time: with --out, the same command resumes where it left off.
    """
    from robviz.datasets import load_dataset
    from robviz.sea import SETTINGS
    from robviz.sea import evaluate as run

    if sum(source is not None for source in (model, model_option, config)) != 1:
        raise BadParameter("give exactly one of MODEL, --model and --config", param_hint="MODEL")
    if settings not in SETTINGS:
        raise InputError(f"unknown settings {settings!r}; choose from: {', '.join(SETTINGS)}")
    chosen = SETTINGS[settings]
    if config is not None:
        from robviz.paper import configs as official

        network, pictures, size = official.evaluation(config, root)
        network, batch_size = network.to(device or "cpu"), batch_size or size
        require_usable(pictures, limit, dataset)
    else:
        pictures = load_dataset(dataset, split, root)
        require_usable(pictures, limit, dataset)
        network = model_of(model or model_option or "", device)
    report = run(
        network,
        pictures,
        eps / 255,
        chosen if steps is None else chosen.with_steps(steps),
        out=out,
        resume=not restart,
        limit=limit,
        batch_size=batch_size or 1,
        precision=precision,
        keep_masks=keep_masks,
        keep_pictures=keep_pictures,
    )
    print_markdown(report.to_markdown())
