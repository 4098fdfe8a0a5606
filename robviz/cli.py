"""The command line: `robviz app | evaluate | finetune | data | tables | bench`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path


def app(arguments: argparse.Namespace) -> None:
    from robviz.shipped import shipped

    spec = importlib.util.spec_from_file_location("robviz_app", shipped("app.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["robviz_app"] = module
    spec.loader.exec_module(module)
    module.main(port=arguments.port)


def finetune(arguments: argparse.Namespace) -> None:
    from robviz.finetune import RECIPES, run

    if arguments.recipe not in RECIPES:
        raise ValueError(f"unknown recipe {arguments.recipe!r}; choose from: {', '.join(RECIPES)}")
    run(RECIPES[arguments.recipe], arguments.out)


def evaluate(arguments: argparse.Namespace) -> None:
    from robviz.datasets import check, load_dataset
    from robviz.models import load_model
    from robviz.sea import SETTINGS
    from robviz.sea import evaluate as run

    if arguments.settings not in SETTINGS:
        raise ValueError(f"unknown settings {arguments.settings!r}; choose from: {', '.join(SETTINGS)}")
    dataset = load_dataset(arguments.dataset, arguments.split, arguments.root)
    if broken := [problem for problem in check(dataset, arguments.limit) if problem.stops]:
        raise ValueError(
            f"{len(broken)} samples cannot be used, first {broken[0].name}: {broken[0].reason}; "
            f"see `robviz data check {arguments.dataset}` for all"
        )
    report = run(
        load_model(arguments.model, arguments.device),
        dataset,
        arguments.eps / 255,
        SETTINGS[arguments.settings],
        out=arguments.out,
        resume=not arguments.restart,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        precision=arguments.precision,
    )
    print(report.to_markdown(), end="")


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
    from robviz.datasets.tables import table_text

    dataset = load_dataset(arguments.name, arguments.split, arguments.root)
    print(table_text(dataset, class_weights(dataset)), end="")


def tables(arguments: argparse.Namespace) -> None:
    from robviz.report import fill, model_rows

    if arguments.write:
        fill(Path(arguments.write))
    else:
        print(model_rows(), end="")


def bench(arguments: argparse.Namespace) -> None:
    from robviz import bench as module

    print(module.bench_attacks() if arguments.what == "attacks" else module.bench())


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="robviz", description="See how segmentation models break, and what makes them hold."
    )
    commands = root.add_subparsers(required=True, metavar="command")
    sub = commands.add_parser("app", help="start the app in the browser")
    sub.add_argument("--port", type=int, default=7860)
    sub.set_defaults(call=app)
    sub = commands.add_parser("evaluate", help="attack a dataset with an ensemble; may be killed and started again")
    sub.add_argument("model", help="a shipped model, or the path of a .safetensors file")
    sub.add_argument("--dataset", default="photos", help="(default: %(default)s)")
    sub.add_argument("--split", default="val", help="(default: %(default)s)")
    sub.add_argument("--root", help="folder the dataset lies in, if it needs one")
    sub.add_argument("--eps", type=float, default=4, metavar="N", help="radius in 1/255 (default: %(default)s)")
    sub.add_argument("--settings", default="paper", help="paper, paper-v1 or quick (default: %(default)s)")
    sub.add_argument("--out", help="folder of the records and the report; without it, nothing is kept")
    sub.add_argument("--restart", action="store_true", help="drop the records there and begin anew")
    sub.add_argument("--limit", type=int, help="the first so many images only")
    sub.add_argument("--batch-size", type=int, default=1, help="(default: %(default)s)")
    sub.add_argument("--precision", default="auto", help="of the gradients: fp32, bf16 or auto (default: %(default)s)")
    sub.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cpu)")
    sub.set_defaults(call=evaluate)
    sub = commands.add_parser("finetune", help="train a model by a recipe")
    sub.add_argument("recipe", help="photos-clean or photos-robust")
    sub.add_argument("--out", default="checkpoints", help="folder of the checkpoint (default: %(default)s)")
    sub.set_defaults(call=finetune)
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
    sub = commands.add_parser("tables", help="the shipped models' figures, from their cards, as Markdown")
    sub.add_argument("--write", metavar="README", help="put them between the markers of this file instead")
    sub.set_defaults(call=tables)
    sub = commands.add_parser("bench", help="measure how fast the app, or the attacks, are on this machine")
    sub.add_argument("what", nargs="?", choices=["app", "attacks"], default="app", help="(default: %(default)s)")
    sub.set_defaults(call=bench)
    return root


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; a wrong input ends in one sentence and exit status 1."""
    arguments = parser().parse_args(argv)
    try:
        arguments.call(arguments)
    except ValueError as error:
        sys.exit(f"robviz: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
