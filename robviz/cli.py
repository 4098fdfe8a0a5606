"""The command line: `robviz app | evaluate | finetune | miniature | data | download | tables | course | ...`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from robviz.files.paths import shipped
from robviz.types import InputError

if TYPE_CHECKING:
    from torch import nn


def module_at(path: Path) -> ModuleType:
    """Run a Python file as a module."""
    spec = importlib.util.spec_from_file_location(f"robviz_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def app(arguments: argparse.Namespace) -> None:
    from robviz.app import main

    main(port=arguments.port, evaluations=arguments.evaluations)


def finetune(arguments: argparse.Namespace) -> None:
    if arguments.recipe is None and arguments.config is None:
        from robviz.finetune.recipes import overview

        print(overview(), end="")
        return
    from robviz.finetune import run
    from robviz.finetune.recipes import changed, recipe_of
    from robviz.paper import configs as official

    if arguments.config is None:
        recipe, root, out = recipe_of(arguments.recipe), None, "checkpoints"
    else:
        recipe, root, out = official.training(arguments.config)
    run(
        changed(recipe, arguments.set),
        arguments.out or out,
        root=arguments.root or root,
        resume=not arguments.restart,
        micro_batch=arguments.micro_batch,
        workers=arguments.workers,
    )


def miniature(arguments: argparse.Namespace) -> None:
    from robviz.finetune.recipes import MINIATURE, recipe_of
    from robviz.paper.miniature import miniature as run
    from robviz.sea import PAPER

    for report in run(
        arguments.out,
        [recipe_of(name) for name in arguments.recipes] or MINIATURE,
        arguments.seeds,
        PAPER if arguments.steps is None else PAPER.with_steps(arguments.steps),
        arguments.limit,
        workers=arguments.workers,
    ):
        print(report.to_markdown())


def imported(where: str) -> ModuleType:
    """A module by its dotted name, found in the working folder too, or by the path of its file.

    Raises InputError when it cannot be imported.
    """
    path = Path(where)
    sys.path.insert(0, str(path.resolve().parent))  # of a dotted name, the working folder
    try:
        return module_at(path) if path.suffix == ".py" else importlib.import_module(where)
    except Exception as error:
        raise InputError(f"cannot import {where}: {type(error).__name__}: {error}") from error


def model_of(name: str, device: str | None) -> nn.Module:
    """The model that `load_model` opens by this name, or that `module:function` or `file.py:function` returns."""
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


def evaluate(arguments: argparse.Namespace) -> None:
    from robviz.datasets import check, load_dataset
    from robviz.sea import SETTINGS
    from robviz.sea import evaluate as run

    if arguments.settings not in SETTINGS:
        raise InputError(f"unknown settings {arguments.settings!r}; choose from: {', '.join(SETTINGS)}")
    settings = SETTINGS[arguments.settings]
    batch_size = arguments.batch_size
    if arguments.config is not None:
        from robviz.paper import configs as official

        model, dataset, size = official.evaluation(arguments.config, arguments.root)
        model, batch_size = model.to(arguments.device or "cpu"), batch_size or size
    else:
        dataset = load_dataset(arguments.dataset, arguments.split, arguments.root)
        model = None
    if broken := [problem for problem in check(dataset, arguments.limit) if problem.stops]:
        raise InputError(
            f"{len(broken)} samples cannot be used, first {broken[0].name}: {broken[0].reason}; "
            f"see `robviz data check {arguments.dataset}` for all"
        )
    report = run(
        model or model_of(arguments.model, arguments.device),
        dataset,
        arguments.eps / 255,
        settings if arguments.steps is None else settings.with_steps(arguments.steps),
        out=arguments.out,
        resume=not arguments.restart,
        limit=arguments.limit,
        batch_size=batch_size or 1,
        precision=arguments.precision,
        keep_masks=arguments.keep_masks,
        keep_pictures=arguments.keep_pictures,
    )
    print(report.to_markdown(), end="")


def download(arguments: argparse.Namespace) -> None:
    from robviz.files.paths import cache_folder
    from robviz.models import published

    rows = {**published.CHECKPOINTS, **published.BACKBONES}
    here = [name for name in rows if published.path_of(name).exists()]
    for name in arguments.names:
        print(published.download(name))
    for name in here if arguments.verify else []:
        published.verify(name)
        print(f"{name}: as it was written")
    if not arguments.names and not arguments.verify:
        print(f"in {cache_folder()}:")
        for name in rows:
            size = f"{published.path_of(name).stat().st_size / 1e6:.0f} MB" if name in here else "not downloaded"
            print(f"  {name:34}{size}")


def data(arguments: argparse.Namespace) -> None:
    from robviz.datasets import overview

    print(overview(arguments.root), end="")


def data_check(arguments: argparse.Namespace) -> None:
    from robviz.datasets import check, load_dataset

    dataset = load_dataset(arguments.name, arguments.split, arguments.root)
    problems = check(dataset)
    for problem in problems:
        print(f"{problem.name}: {problem.reason}")
    print(f"{dataset.name} ({dataset.split}): {len(dataset)} samples, {len(problems)} problems")
    if any(problem.stops for problem in problems):
        sys.exit(1)


def data_get(arguments: argparse.Namespace) -> None:
    from robviz.datasets import get

    for folder in get(arguments.name, arguments.root):
        print(folder)


def data_weights(arguments: argparse.Namespace) -> None:
    from robviz.datasets import class_weights, load_dataset
    from robviz.datasets.labels import table_text

    dataset = load_dataset(arguments.name, arguments.split, arguments.root)
    print(table_text(dataset, class_weights(dataset)), end="")


def tables(arguments: argparse.Namespace) -> None:
    from robviz import paper
    from robviz.paper.generated_tables import fill, reports_in, shipped_tables
    from robviz.paper.ours import OURS
    from robviz.results.report import markdown

    if arguments.write:
        fill(Path(arguments.write))
    elif arguments.number is None:
        print("\n".join(shipped_tables().values()), end="")
    else:
        here = shipped("checkpoints/reports")
        folders = arguments.reports or [here, *([here / "miniature"] if arguments.number == 3 else [])]
        reports = [report for folder in folders for report in reports_in(folder)]
        published = paper.table(arguments.number)
        print(f"Table {arguments.number}: {paper.TABLES[arguments.number]}\n\n{markdown(published)}")
        if arguments.number in OURS:
            print(f"\nOurs, other models and data\n\n{markdown(paper.ours(arguments.number, reports))}", end="")


def landing(arguments: argparse.Namespace) -> None:
    from robviz.interactive.landing import compute

    compute(Path(arguments.out), resume=not arguments.restart)


def bench(arguments: argparse.Namespace) -> None:
    from robviz import bench as module

    print(module.BENCHES[arguments.what]())


def course_check(arguments: argparse.Namespace) -> None:
    from robviz.notebook import runner

    if problems := runner.check(arguments.names, arguments.write):
        sys.exit("\n".join(problems))


def course_render(arguments: argparse.Namespace) -> None:
    from robviz.notebook import runner

    runner.render(arguments.out, arguments.names)


def course_solve(arguments: argparse.Namespace) -> None:
    from robviz.notebook import runner

    runner.solve(arguments.name, arguments.out)


def course_strip(arguments: argparse.Namespace) -> None:
    from robviz.notebook import runner

    for path in arguments.paths:
        runner.strip(path)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="robviz", description="See how segmentation models break, and what makes them hold."
    )
    commands = root.add_subparsers(required=True, metavar="command")
    sub = commands.add_parser("app", help="start the app in the browser")
    sub.add_argument("--port", type=int, default=7860)
    evaluations = "a folder that `evaluate --out` wrote, or one of several, to look through (default: the shipped ones)"
    sub.add_argument("--evaluations", type=Path, metavar="FOLDER", help=evaluations)
    sub.set_defaults(call=app)
    sub = commands.add_parser("evaluate", help="attack a dataset with an ensemble; may be killed and started again")
    model = sub.add_mutually_exclusive_group(required=True)
    accepted = "a model's name, the path of a .safetensors file, or module:function or file.py:function returning one"
    model.add_argument("model", nargs="?", default=argparse.SUPPRESS, help=accepted)
    model.add_argument("--model", help="the same")
    model.add_argument("--config", help="a configuration file of the official code: its model, dataset and batch size")
    sub.add_argument("--dataset", default="photos", help="(default: %(default)s)")
    sub.add_argument("--split", default="val", help="(default: %(default)s)")
    sub.add_argument("--root", help="folder the dataset lies in, if it needs one")
    sub.add_argument("--eps", type=float, default=4, metavar="N", help="radius in 1/255 (default: %(default)s)")
    sub.add_argument("--settings", default="paper", help="paper, paper-v1, strong or quick (default: %(default)s)")
    sub.add_argument("--steps", type=int, help="mean number a run of the ensemble, instead of its own")
    sub.add_argument("--out", help="folder of the records and the report; without it, nothing is kept")
    sub.add_argument("--restart", action="store_true", help="drop the records there and begin anew")
    sub.add_argument("--keep-masks", action="store_true", help="keep every prediction beside the records, as PNG")
    sub.add_argument("--keep-pictures", action="store_true", help="keep every attacked picture, too, in 8 bits")
    sub.add_argument("--limit", type=int, help="the first so many images only")
    sub.add_argument("--batch-size", type=int, help="(default: 1)")
    sub.add_argument("--precision", default="auto", help="of the gradients: fp32, bf16 or auto (default: %(default)s)")
    sub.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cpu)")
    sub.set_defaults(call=evaluate)
    sub = commands.add_parser("finetune", help="train a model by a recipe; may be killed and started again")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("recipe", nargs="?", help="its name; without one, list them all")
    which.add_argument("--config", help="a configuration file of the official code instead")
    sub.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings of the recipe")
    sub.add_argument("--out", help="folder of the checkpoint (default: checkpoints, or what the configuration says)")
    sub.add_argument("--root", help="folder the dataset lies in, if it needs one")
    sub.add_argument("--restart", action="store_true", help="drop what was trained there and begin anew")
    sub.add_argument("--micro-batch", type=int, help="images that a process takes at a time; their gradients add up")
    sub.add_argument("--workers", type=int, default=1, help="processes that read images (default: %(default)s)")
    sub.set_defaults(call=finetune)
    sub = commands.add_parser("miniature", help="the paper's Table 3 in small: trainings on photos, evaluated with SEA")
    sub.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="some of the mini-... recipes (default: the whole grid)"
    )
    sub.add_argument(
        "--out", required=True, help="folder of the models and evaluations; what is there is not done again"
    )
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    sub.add_argument("--steps", type=int, help="mean number a run of the ensemble, instead of 300")
    sub.add_argument("--limit", type=int, help="evaluate on the first so many images only")
    sub.add_argument("--workers", type=int, default=1, help="processes that read images (default: %(default)s)")
    sub.set_defaults(call=miniature)
    sub = commands.add_parser("data", help="the datasets: which are here, are they whole, where to get them")
    sub.add_argument("--root", type=Path, help="folder they lie in (default: ROBVIZ_DATA, or one in the user's cache)")
    sub.set_defaults(call=data)
    actions = sub.add_subparsers(metavar="action")
    for call, name, split, text in (
        (data_check, "check", "val", "read every picture and mask, and tell what is wrong"),
        (data_get, "get", None, "download and unpack one, for its terms of use"),
        (data_weights, "weights", "train", "classes, colours and the weights 1 / N_y of a split, as CSV"),
    ):
        sub = actions.add_parser(name, help=text)
        sub.add_argument("name", help="a dataset" + (", or the path of your own folder" if split else ""))
        sub.add_argument("--root", type=Path, default=argparse.SUPPRESS, help="folder it lies in")
        if split:
            sub.add_argument("--split", default=split, help="(default: %(default)s)")
        sub.set_defaults(call=call)
    sub = commands.add_parser("download", help="list the published checkpoints, or fetch some into the cache")
    sub.add_argument("names", nargs="*", metavar="NAME", help="which; without one, list them all")
    sub.add_argument("--verify", action="store_true", help="check those in the cache against their SHA-256")
    sub.set_defaults(call=download)
    sub = commands.add_parser("tables", help="the paper's tables beside ours, or the shipped models' figures")
    sub.add_argument("number", type=int, nargs="?", help="a table of the paper, 1 to 9; without it, the shipped models")
    folders = "folders of evaluations' JSON reports (default: the shipped ones)"
    sub.add_argument("--reports", type=Path, nargs="+", metavar="FOLDER", help=folders)
    sub.add_argument("--write", metavar="README", help="put the shipped models' between the markers of this file")
    sub.set_defaults(call=tables)
    sub = commands.add_parser("landing", help="compute the masks of the app's first view again")
    sub.add_argument("--out", default="checkpoints/landing", help="folder they go to (default: %(default)s)")
    sub.add_argument("--restart", action="store_true", help="drop the masks there and begin anew")
    sub.set_defaults(call=landing)
    sub = commands.add_parser("bench", help="measure how fast the app, the attacks or a training are on this machine")
    sub.add_argument(
        "what", nargs="?", choices=["app", "load", "attacks", "finetune"], default="app", help="(default: %(default)s)"
    )
    sub.set_defaults(call=bench)
    actions = commands.add_parser("course", help="the notebooks: do they run, as HTML, solved").add_subparsers(
        required=True, metavar="action"
    )
    sub = actions.add_parser("check", help="run them, exercises unsolved, wrong and solved, offline, as CI does")
    sub.add_argument("names", nargs="*", help="(default: all)")
    sub.add_argument("--write", action="store_true", help="keep what they took beside them, to be shown in each")
    sub.set_defaults(call=course_check)
    sub = actions.add_parser("render", help="run the solved copies and write them as HTML with pictures")
    sub.add_argument("out", type=Path, help="folder they go to")
    sub.add_argument("names", nargs="*", help="(default: all)")
    sub.set_defaults(call=course_render)
    sub = actions.add_parser("solve", help="write the solved copy of one")
    sub.add_argument("name")
    sub.add_argument("out", type=Path, help="the file to write")
    sub.set_defaults(call=course_solve)
    sub = actions.add_parser("strip", help="clear the outputs of notebooks that were run and saved")
    sub.add_argument("paths", nargs="+", type=Path)
    sub.set_defaults(call=course_strip)
    return root


def leave_group() -> None:
    """Where several processes worked together, part in order: one that just exits may abort in a thread of gloo's."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; a wrong input ends in one sentence and exit status 1."""
    arguments = parser().parse_args(argv)
    try:
        arguments.call(arguments)
        leave_group()
    except InputError as error:
        sys.exit(f"robviz: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
