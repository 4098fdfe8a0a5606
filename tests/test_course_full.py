"""Full mode, on a pretended GPU: the published architectures with random weights, on small images, with few steps."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robviz import sea
from robviz.datasets import ade20k, load_dataset, voc
from robviz.finetune import RECIPES, follow
from robviz.finetune.evaluation import measure_clean
from robviz.finetune.images import training_images
from robviz.finetune.initialization import initial_model
from robviz.finetune.loop import Training, train
from robviz.models import build, published
from robviz.models.layers import device_of
from robviz.notebook import lesson, recorded, runner
from robviz.notebook.lesson import Lesson
from robviz.results.report import Report
from tests.pretended import pretended_gpu

SIDE, COUNT = 32, 8
#: What makes a training short.
SHORT = {"iterations": 2, "batch_size": 2, "sizes": (SIDE,)}
#: Images attacked at once: forward and backward of UPerNet with ConvNeXt-T take about 1.1 GiB for each at 473 px, so
#: that these fit a GPU of 16 GB.
BATCH = 8
#: Where a notebook says how many images it attacks at once.
BATCHES = re.compile(r"\bfull=(\d+)|\bbatch_size=(\d+)|tuple\(range\((\d+)\)\)")


# ------------------------------------------------------------------------------------------ the device itself


@pytest.fixture
def gpu():
    with pretended_gpu():
        yield


@pytest.mark.usefixtures("gpu")
def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    here, there = torch.ones(2), torch.ones(2, device="cuda")
    assert (there.device.type, (there + 1).device.type, here.device.type) == ("cuda", "cuda", "cpu")
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        torch.stack([here, there])
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\) first"):
        there.numpy()
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\) first"):
        np.asarray(there)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device="cuda", generator=torch.Generator())
    assert there.cpu().numpy().tolist() == here.numpy().tolist() == [1, 1]
    assert (there + torch.tensor(1)).tolist() == [2, 2]  # a single number may come from the CPU
    assert there[torch.tensor([0])].is_cuda  # and so may an index


@pytest.mark.usefixtures("gpu")
def test_a_module_on_the_pretended_gpu_takes_only_its_pictures_and_gives_only_its_gradients():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2)).to("cuda")
    x = torch.rand(1, 3, 4, 4)
    with pytest.raises(RuntimeError, match="same device"):
        net(x)
    x = x.to("cuda").requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    net(x).sum().backward()
    assert gradient.is_cuda
    assert next(net.parameters()).grad.is_cuda
    assert not next(net.to("cpu").parameters()).is_cuda


# ------------------------------------------------------------------------------------------ the notebooks


def write(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Small folders in the layouts of VOC and ADE20K."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    places, names = root / "VOCdevkit/VOC2012", [f"image{i:02}" for i in range(COUNT)]
    for name in names:
        picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE + 4, 3), dtype=np.uint8))
        mask = np.zeros((SIDE, SIDE + 4), dtype=np.uint8)
        mask[4:20, 4:20] = rng.integers(1, 20)
        mask[24:29, 24:29] = 1  # an object of medium size, and small ones
        for row in range(1, 30, 5):
            mask[row : row + 3, 0:3] = mask[row : row + 3, 29:32] = 1
        write(places / f"JPEGImages/{name}.jpg", picture)
        write(root / f"ADEChallengeData2016/images/validation/{name}.jpg", picture)
        write(root / f"ADEChallengeData2016/annotations/validation/{name}.png", Image.fromarray(mask))
        coloured = Image.fromarray(mask, mode="P")
        coloured.putpalette([value for k in range(256) for value in (k, k, k)])
        write(places / f"SegmentationClass/{name}.png", coloured)
    for split in ("train", "val"):
        (places / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (places / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
    return root


def random_weights(name: str) -> Any:
    """A published model with its real architecture and card, and weights that nothing was learned with."""
    card = published.card(name)
    torch.manual_seed(0)
    model = build(card.architecture, len(card.classes))
    model.card = card
    if card.architecture.startswith("upernet"):
        with torch.no_grad():  # a mask of two classes, the background one of them, with much to break
            model.head.classifier.bias[:2] += 10
    return model.eval().requires_grad_(False)


def few(self: Lesson, quick: Any, full: Any) -> Any:
    """Full mode with the few images of quick mode, and with two steps."""
    if isinstance(quick, int) and isinstance(full, int):
        return quick if quick <= 4 else 2
    if isinstance(quick, range):
        return min(quick, full, key=len)
    return SHORT if full == {} else full  # changes of a recipe


def as_of_300_steps(report: Report) -> Report:
    """The report, with its runs named as the notebooks expect those of full mode."""
    settings = dict(report.plan["settings"])
    settings["name"] = settings["name"].removesuffix("-2").removesuffix("-2")
    settings["runs"] = [{**run, "steps": 300} for run in settings["runs"]]
    rows = {name.replace(".2", ".300"): row for name, row in report.rows.items()}
    return replace(report, plan={**report.plan, "settings": settings}, rows=rows)


def one_radius(evaluated: Callable[..., list[Report]]) -> Callable[..., list[Report]]:
    """`Lesson.sea`, which evaluates the first radius and gives its report for every one."""

    def for_all(self: Lesson, radii: Sequence[int] = (4, 8)) -> list[Report]:
        (report,) = evaluated(self, radii[:1])
        return [replace(report, plan={**report.plan, "eps": radius / 255}) for radius in radii]

    return for_all


def on_two_samples(measure: Callable[..., Any]) -> Callable[..., Any]:
    """A measurement of a trained model, on its first two samples alone."""
    return lambda model, samples, *rest: measure(model, [samples[0], samples[1]], *rest)


@pytest.fixture
def full_mode(data, tmp_path, monkeypatch):
    """Everything that full mode needs, small."""
    import robviz.models
    from robviz.models import load_model

    monkeypatch.setenv("ROBVIZ_DATA", str(data))
    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBVIZ_MODE", "full")
    monkeypatch.setenv("ROBVIZ_PROGRESS", "0")
    monkeypatch.setattr(voc, "SIZE", SIDE)
    monkeypatch.setattr(ade20k, "SIZE", SIDE)
    monkeypatch.setattr(Lesson, "pick", few)
    monkeypatch.setattr(Lesson, "sea", one_radius(Lesson.sea))
    monkeypatch.setattr(sea, "PAPER", sea.PAPER.with_steps(2))
    monkeypatch.setattr(recorded, "EARLIER", recorded.EARLIER.with_steps(2))
    for first_stage in ("mini-classifier", "mini-classifier-robust"):
        monkeypatch.setitem(RECIPES, first_stage, replace(RECIPES[first_stage], **SHORT))
    for measure in (follow.measure_clean, follow.measure_attacked):
        monkeypatch.setattr(follow, measure.__name__, on_two_samples(measure))

    def load(name, device=None):
        if name in published.CHECKPOINTS:
            return random_weights(name).to(device or "cpu")
        return load_model(name, device)

    evaluate = sea.evaluate

    def evaluate_two(model, dataset, eps, settings=None, *args, limit=None, **kwargs):
        report = evaluate(model, dataset, eps, settings or sea.PAPER, *args, limit=2, **kwargs)
        return report if report.plan["settings"]["name"] == "hurry" else as_of_300_steps(report)

    monkeypatch.setattr(sea, "evaluate", evaluate_two)
    for module in (robviz.models, robviz):
        monkeypatch.setattr(module, "load_model", load, raising=False)
    monkeypatch.chdir(tmp_path)
    with pretended_gpu():
        yield


def run_cell(source: str, names: dict[str, Any], title: str) -> None:
    """Run a cell, and show what its last line gives, as a notebook does."""
    from IPython.core.formatters import DisplayFormatter

    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, title, "exec"), names)
    if isinstance(last, ast.Expr):
        shown = eval(compile(ast.Expression(last.value), title, "eval"), names)
        DisplayFormatter().format(shown)


@pytest.mark.usefixtures("gpu")
@pytest.mark.filterwarnings("ignore:the training images of:UserWarning")  # two iterations show few classes
@pytest.mark.slow
def test_a_training_runs_on_the_pretended_gpu_and_its_average_is_there(tmp_path):
    recipe = replace(RECIPES["photos-onestep"], sizes=(64,), batch_size=2, eps_warm_up=0.0, iterations=2)
    training, images = Training(initial_model(recipe, 9), recipe, 9), training_images(recipe)
    sample = load_dataset("photos", "val-128")[0]

    def probe(model: torch.nn.Module) -> tuple[float, float]:
        assert device_of(model).type == "cuda"
        return measure_clean(model, [sample], 9)["clean_miou"], 0.0

    progress = list(train(training, images, tmp_path, probe=probe, probe_every=2))
    assert all(math.isfinite(one.loss) for one in progress)
    assert [one.probe is None for one in progress] == [True, False]


@pytest.mark.parametrize("name", lesson.names())
def test_full_mode_attacks_no_more_images_at_once_than_fit_16_gb(name):
    sources = "\n".join(cell.source for cell in lesson.read(name).cells if cell.cell_type == "code")
    found = [int(next(filter(None, groups))) for groups in BATCHES.findall(sources)]
    assert max([*found, inspect.signature(Lesson.samples).parameters["full"].default]) <= BATCH


@pytest.mark.notebook
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the training images of:UserWarning")  # as above
@pytest.mark.parametrize("name", lesson.names())
@pytest.mark.usefixtures("full_mode")
def test_it_runs_in_full_mode(name):
    names: dict[str, Any] = {}
    for index, cell in enumerate(runner.solved(lesson.read(name)).cells):
        if cell.cell_type == "code":
            run_cell(cell.source, names, f"{name}, cell {index}")
    assert names["lesson"].mode == "full"
