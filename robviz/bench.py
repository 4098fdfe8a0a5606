"""Measure how fast robviz is on this machine: `robviz bench` for the app, `robviz bench evaluate` and others."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from robviz import attacks, sea
from robviz.attacks import TROUBLES, Task, apgd_steps, frozen, predicted
from robviz.datasets import load_dataset
from robviz.files.atomic import write_atomically
from robviz.finetune.images import training_images
from robviz.finetune.initialization import initial_model
from robviz.finetune.loop import Training, train
from robviz.finetune.recipes import RECIPES, Recipe
from robviz.metrics import worst_case_miou
from robviz.models import build, load_model
from robviz.models.precision import InBfloat16, has_fast_bfloat16
from robviz.models.prepared import prepared
from robviz.paper.peers import PEERS, compare, official_attack
from robviz.results.plan import SeaSettings
from robviz.types import Dataset

if TYPE_CHECKING:
    import psutil
    from gradio_client import Client


def cpu_name() -> str:
    """Return the name of this machine's CPU, or of its kind where the system does not say more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def machine() -> str:
    """Describe what a measurement depends on: torch, CPU, threads, how they wait, and bfloat16."""
    policy, spins = (os.environ.get(name, "not set") for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    bfloat16 = "multiplied faster than float32" if has_fast_bfloat16(torch.device("cpu")) else "no faster than float32"
    return (
        f"{cpu_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, "
        f"OMP_WAIT_POLICY {policy}, GOMP_SPINCOUNT {spins}, bfloat16 {bfloat16}"
    )


@dataclass(frozen=True)
class Measured:
    """Hold a table of what was measured, and on which machine; `robviz tables` copies it into the documentation."""

    rows: Sequence[tuple[str, ...]]
    columns: tuple[str, ...] = ("measured", "value", "aim")
    machine: str = field(default_factory=machine)

    def __str__(self) -> str:
        """Return a line about the machine and the table, the columns aligned."""
        widths = [max(len(row[i]) for row in [self.columns, *self.rows]) for i in range(len(self.columns))]
        lines = [
            "   ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [self.columns, *self.rows]
        ]
        return "\n".join([self.machine, *(line.rstrip() for line in lines)])

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        result: int = probe.getsockname()[1]
        return result


@contextmanager
def serving(
    port: int, patience: float = 300, options: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run the app in a separate process; yields the process and the seconds until it answered."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "robviz.cli", "app", "--port", str(port), *options]
    process = subprocess.Popen(command, env=dict(os.environ))
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None or time.perf_counter() - started > patience:
                    raise RuntimeError(f"the app did not answer on port {port} within {patience:.0f} s") from None
                time.sleep(0.05)
        yield process, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(patience)


class Timed(NamedTuple):
    """Store medians in seconds."""

    attack: float  # one APGD step
    bare: float  # one forward plus input-gradient pass


def step_seconds(model: nn.Module, images: Tensor, steps: int) -> Timed:
    """Time one APGD step (mask-ce) against a bare forward and input-gradient pass of the same model.

    The two are measured in turn, pair by pair, so that a busy machine slows both alike.
    """
    labels = predicted(model, images)
    attack = apgd_steps(model, images, labels, 4 / 255, steps, "mask-ce")
    next(attack)

    def bare() -> None:
        with torch.enable_grad(), frozen(model):
            point = images.clone().requires_grad_()
            torch.autograd.grad(model(point).sum(), point)

    bare()
    attacks, bares = [], []
    for _ in range(steps):
        started = time.perf_counter()
        if next(attack, None) is None:  # nothing left to break
            break
        attacks.append(time.perf_counter() - started)
        started = time.perf_counter()
        bare()
        bares.append(time.perf_counter() - started)
    attack.close()
    return Timed(statistics.median(attacks), statistics.median(bares))


class InTurn(NamedTuple):
    """Hold what was measured in turn, each as the median."""

    seconds: list[float]  # of each
    ratios: list[float]  # of each to the first, of the pairs


def in_turn(measures: Sequence[Callable[[], float | None]], rounds: int) -> InTurn:
    """Take every measure once in each round, so that a busy machine slows all alike; a None ends the rounds.

    The first round does not count.
    """
    found: list[list[float]] = []
    for number in range(rounds + 1):
        here = [measure() for measure in measures]
        if None in here:
            break
        if number:
            found.append([seconds for seconds in here if seconds is not None])
    seconds = [statistics.median(one) for one in zip(*found)]
    ratios = [statistics.median(row[i] / row[0] for row in found) for i in range(len(measures))]
    return InTurn(seconds, ratios)


def timed_step(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Callable[[], float | None]:
    """Return a function that makes the next step of an attack and returns its seconds, or None after the last."""
    attack = apgd_steps(model, images, labels, 4 / 255, steps, "mask-ce")
    next(attack)

    def step() -> float | None:
        started = time.perf_counter()
        return None if next(attack, None) is None else time.perf_counter() - started

    return step


@contextmanager
def busy_process() -> Iterator[psutil.Process]:
    """Run another process that keeps as many of torch's threads busy as this one has; yields it, suspended."""
    import psutil

    code = f"import robviz, torch; torch.set_num_threads({torch.get_num_threads()}); print('ready', flush=True)"
    code += "\nx = torch.rand(4, 32, 128, 128)\nw = torch.rand(32, 32, 3, 3)"
    code += "\nwhile True: torch.conv2d(x, w, padding=1)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the process that keeps the machine busy did not start")
        other = psutil.Process(process.pid)
        other.suspend()
        yield other
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def beside_another(step: Callable[[], float | None], rounds: int) -> InTurn:
    """Take a measure in turn while nothing else runs and while another process keeps torch's threads busy."""
    with busy_process() as other:

        def beside() -> float | None:
            other.resume()
            try:
                return step()
            finally:
                other.suspend()

        return in_turn([step, beside], rounds)


class Clicked(NamedTuple):
    """Hold the seconds that a visitor waits for an attack."""

    first: float  # from the click to the first frame
    whole: float  # from the click to the result


class AppTimes(NamedTuple):
    """Hold the seconds that a visitor of the app waits; None where no browser is found."""

    ready: float  # until the server answers
    page: float | None  # from the page's first byte until its picture is drawn
    sent: Clicked  # until a frame has left the server
    drawn: Clicked | None  # until it is drawn in a browser, which shares the cores


def app_seconds(port: int, steps: int = 20) -> AppTimes:
    """Time the app on a photograph of 256 pixels: its page, an attack of a client, and one clicked in a browser."""
    with serving(port) as (_, ready):
        url = f"http://127.0.0.1:{port}"
        page = in_browser(f"{url}/?view=attack", PAGE_SECONDS)
        sent = client_seconds(url, steps)
        drawn = in_browser(f"{url}/?view=attack&photo=lion&model=photos-robust&steps={steps}", CLICK_SECONDS)
    return AppTimes(ready, page, sent, None if drawn is None else Clicked(*drawn))


def client_seconds(url: str, steps: int) -> Clicked:
    """Time an attack of a client that, like a browser, is connected and has chosen a photograph and a model before."""
    from gradio_client import Client

    client = Client(url, verbose=False)
    client.predict("lion", "photos-robust", steps, api_name="/estimate")
    arguments = ("lion", None, "photos-robust", 4, "mask-ce", steps, 0)
    started = time.perf_counter()
    job = client.submit(*arguments, api_name="/attack")
    first = None
    while not job.done():
        if first is None and job.outputs():
            first = time.perf_counter() - started
        time.sleep(0.01)
    job.result()
    whole = time.perf_counter() - started
    return Clicked(whole if first is None else first, whole)


#: Scripts that measure, in seconds, once a page has drawn its picture; visitors look at it before they click.
PAGE_SECONDS = "(performance.now() - performance.getEntriesByType('navigation')[0].responseStart) / 1000"
CLICK_SECONDS = """new Promise(rested => setTimeout(rested, 2000)).then(() => new Promise(answer => {
    const view = document.querySelector('#view'), start = performance.now();
    const seconds = () => (performance.now() - start) / 1000;
    let first = null;
    const watcher = new MutationObserver(() => {
        if (parseInt(view.querySelector('[data-score=step] b').textContent) > 0) first ??= seconds();
        if (view.querySelector('[data-final=true]')) { watcher.disconnect(); answer([first, seconds()]); }
    });
    watcher.observe(view, { subtree: true, childList: true, attributes: true });
    document.querySelector('#attack').click();
}))"""


def in_browser(url: str, script: str) -> Any:
    """Return what a script gives on a page that has drawn its picture; None without Playwright or Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#view .rv")
        result = page.evaluate(script)
        browser.close()
    return result


def median_of(times: Iterable[float | None], digits: int) -> str:
    """Write the median of seconds, or that they could not be measured."""
    known = [one for one in times if one is not None]
    return f"{statistics.median(known):.{digits}f} s" if known else "no browser found"


def bench() -> Measured:
    """Measure the app, three times from its start, and the attack in it."""
    model, images = load_model("photos-robust"), load_dataset("photos", "val")[0].image[None]
    attack, bare = step_seconds(model, images, 40)
    busy = beside_another(timed_step(model, images, predicted(model, images), 100), 15)
    steps = 20
    runs = [app_seconds(free_port(), steps) for _ in range(3)]  # one alone depends on what else the machine did
    whole = statistics.median(run.sent.whole for run in runs)
    drawn = [run.drawn or (None, None) for run in runs]
    rows = [
        ("server ready", median_of((run.ready for run in runs), 1), "at most 8 s"),
        ("Attack opened in a browser, after its first byte", median_of((run.page for run in runs), 1), "at most 2 s"),
        ("first attacked frame", median_of((run.sent.first for run in runs), 2), "at most 0.3 s with fast bfloat16"),
        ("  drawn in a browser on the same cores", median_of((first for first, _ in drawn), 2), ""),
        (f"{steps} steps at 256 px in the app", f"{whole:.2f} s", "at most 1.7 s with fast bfloat16"),
        ("  drawn in a browser on the same cores", median_of((last for _, last in drawn), 2), ""),
        ("  bare passes of the plain model over that", f"{(steps + 1) * bare / whole:.0%}", ""),
        ("one attack step, 256 px", f"{1000 * attack:.0f} ms", ""),
        ("  over a bare forward + input gradient", f"{attack / bare:.2f} x", "at most 1.15 x"),
        (
            "  beside another busy torch process, over alone",
            f"{busy.ratios[1]:.2f} x",
            "at most 3.5 x; 2 x is a fair share",
        ),
    ]
    return Measured(rows)


class Load(NamedTuple):
    """Describe what many visitors do to a server: resident memory in MiB, and files in its temporary folder."""

    idle: float  # after it has answered
    warm: float  # after the first few attacks
    after: float  # after all of them, one after the other from one visitor
    files_warm: int
    files_after: int
    waits: list[float]  # seconds of the visitors who came at the same moment, with one attack each
    errors: list[str]


#: Let glibc return freed memory at once, so that what a server still holds is not hidden among fragments.
RETURNING = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}


def load(visitors: int = 20, attacks: int = 200, steps: int = 5, warm: int = 20) -> Load:
    """Measure a server under load: attacks from one visitor, one after the other, then from many at the same moment."""
    import psutil
    from gradio_client import Client

    with tempfile.TemporaryDirectory() as folder, environment(GRADIO_TEMP_DIR=folder, **RETURNING):
        port = free_port()
        with serving(port) as (process, _):
            server = psutil.Process(process.pid)

            def now() -> tuple[float, int]:
                return server.memory_info().rss / 2**20, sum(path.is_file() for path in Path(folder).rglob("*"))

            idle, _ = now()
            client = Client(f"http://127.0.0.1:{port}", verbose=False)
            for i in range(attacks):
                attack_once(client, steps, i)
                if i + 1 == warm:
                    at_first, files = now()
            after, files_after = now()
            client.close()
            with ThreadPoolExecutor(visitors) as pool:
                answers = list(pool.map(partial(visit, port, steps), range(visitors)))
    waits = [answer for answer in answers if isinstance(answer, float)]
    errors = [answer for answer in answers if isinstance(answer, str)]
    return Load(idle, at_first, after, files, files_after, waits, errors)


def attack_once(client: Client, steps: int, seed: int) -> None:
    """Attack the photograph `chelsea` through the app, and wait for the result."""
    client.predict("chelsea", None, "photos-clean", 4, "mask-ce", steps, seed, api_name="/attack")


def visit(port: int, steps: int, seed: int) -> float | str:
    """Make one visitor's attack; return the seconds until its result, or what went wrong."""
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    started = time.perf_counter()
    try:
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        attack_once(client, steps, seed)
        client.close()
    except (AppError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return time.perf_counter() - started


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set these environment variables until the end of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def bench_load() -> Measured:
    """Measure what visitors do to the server."""
    found = load()
    rows = [
        ("memory of an idle server", f"{found.idle:.0f} MiB", "at most 1200 MiB"),
        ("  after 20 attacks", f"{found.warm:.0f} MiB", ""),
        ("  after 200", f"{found.after:.0f} MiB", "no more"),
        ("temporary files after 20 attacks", f"{found.files_warm}", ""),
        ("  after 200", f"{found.files_after}", "no more"),
        ("20 visitors at once, the first has a result after", f"{min(found.waits):.1f} s", ""),
        ("  the last", f"{max(found.waits):.1f} s", ""),
        ("  errors", f"{len(found.errors)}", "none"),
    ]
    return Measured(rows)


def selection_seconds(attacks: int = 3, images: int = 2000, classes: int = 151) -> float:
    """Time the greedy search for the worst mIoU on random counts of ADE20K's size."""
    generator = torch.Generator().manual_seed(0)
    union = torch.randint(0, 5000, (attacks, images, classes), generator=generator)
    union *= torch.rand(1, images, classes, generator=generator) < 0.1
    intersection = (union * torch.rand(union.shape, generator=generator)).long()
    started = time.perf_counter()
    worst_case_miou(intersection, union)
    return time.perf_counter() - started


#: A step on other forms of a model over one on the plain model in float32, and what is expected of the ratio.
STEP_AIMS = {
    "small": {"prepared fp32": "at most 0.78 x", "bf16": "", "prepared bf16": "at most 0.60 x"},
    "large": {"prepared fp32": "at most 0.78 x", "bf16": "", "prepared bf16": "at most 0.35 x"},
}


def step_ratios(model: nn.Module, images: Tensor, steps: int, is_bfloat16_fast: bool) -> dict[str, float]:
    """Time a step on other forms of a model over one on the model as it is, all in turn.

    Where bfloat16 is not fast, its forms are left out: emulated, they take far longer than all the rest.
    """
    forms: dict[str, nn.Module] = {"plain": model, "prepared fp32": prepared(model)}
    if is_bfloat16_fast:
        forms |= {"bf16": InBfloat16(model), "prepared bf16": prepared(model, "bf16")}
    labels = predicted(model, images)
    found = in_turn([timed_step(form, images, labels, 2 * steps) for form in forms.values()], steps)
    return dict(zip(forms, found.ratios))


def operations(model: nn.Module, images: Tensor) -> int:
    """Count the floating-point operations of a forward pass and the gradient by the input, which takes as many."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    forward: int = counter.get_total_flops()
    return 2 * forward


def product_speed(size: int = 2048, tries: int = 5) -> float:
    """Return the floating-point operations a second of a product of two square float32 matrices, the best of tries."""
    a, b = torch.rand(2, size, size)

    def seconds() -> float:
        started = time.perf_counter()
        torch.mm(a, b)
        return time.perf_counter() - started

    return 2 * size**3 / min(seconds() for _ in range(tries))


def bench_attacks() -> Measured:
    """Measure what a step of an attack costs, at the app's size and at the paper's."""
    import resource  # not on Windows, where the rest of this file works

    small, large = load_model("photos-robust"), build("upernet-convnext-t-cvst", 21).eval()
    images = load_dataset("photos", "val")[0].image[None]
    enlarged = nn.functional.interpolate(images, (473, 473), mode="bilinear")
    rows = []
    for name, model, x, steps in (
        ("small UPerNet, 256 px", small, images, 40),
        ("UPerNet-ConvNeXt-T, 473 px", large, enlarged, 6),
    ):
        full = step_seconds(model, x, steps)
        speed = operations(model, x) / full.bare / product_speed()
        rows += [
            (f"{name}: one step", f"{1000 * full.attack:.0f} ms", ""),
            ("  over a bare forward + input gradient", f"{full.attack / full.bare:.2f} x", "at most 1.10 x"),
            ("  speed of the bare passes, of that of large matrix products", f"{speed:.0%}", ""),
        ]
        aims = STEP_AIMS["small" if model is small else "large"]
        ratios = step_ratios(model, x, steps, has_fast_bfloat16(x.device))
        for variant, aim in aims.items():
            found = f"{ratios[variant]:.2f} x" if variant in ratios else "not measured: no fast bfloat16 here"
            rows.append((f"  {variant} over plain fp32", found, aim))
    selection = selection_seconds()
    rows.append(("worst mIoU, 2000 images x 151 classes x 3 attacks", f"{selection:.2f} s", ""))
    rows.append(("  over one fp32 step of the large model", f"{selection / full.attack:.2f} x", "at most 1 x"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    rows.append(("peak memory of all this", f"{peak:.1f} GiB", ""))
    return Measured(rows)


@contextmanager
def believing() -> Iterator[None]:
    """Let evaluations go without what makes them believable, so that its cost can be measured.

    That is digests of pictures and code, the look at the first picture, and counts of steps at which an attack stands
    still.
    """

    def never(_: Task, gradient: Tensor, *rest: Tensor) -> Tensor:
        return gradient.new_zeros(len(gradient), len(TROUBLES), dtype=torch.bool)

    with (
        patch.object(sea, "digests_of", lambda *_: {}),
        patch.object(sea, "model_identity", lambda _: {}),
        patch.object(sea, "look_first", lambda *_: None),
        patch.object(attacks, "trouble_of", never),
    ):
        yield


class Evaluated(NamedTuple):
    """Hold the CPU seconds of one pair of evaluations."""

    checked: float
    believing: float


def evaluation_seconds(
    model: nn.Module, dataset: Dataset, settings: SeaSettings, limit: int, pairs: int
) -> list[Evaluated]:
    """Time evaluations of the first images as they are and without checks, in turn, the first of a pair alternating.

    In CPU seconds, as the difference is far smaller than what any other work on the machine does to the clock.
    """

    def seconds(is_checked: bool) -> float:
        with nullcontext() if is_checked else believing():
            started = time.process_time()
            sea.evaluate(model, dataset, 4 / 255, settings, limit=limit)
            return time.process_time() - started

    sea.evaluate(model, dataset, 4 / 255, settings, limit=1)  # what is read for the first time
    found = []
    for pair in range(pairs):
        first = seconds(pair % 2 == 0)
        second = seconds(pair % 2 == 1)
        found.append(Evaluated(first, second) if pair % 2 == 0 else Evaluated(second, first))
    return found


def bench_evaluate() -> Measured:
    """Measure what it costs that an evaluation checks its figures."""
    model, dataset = load_model("photos-robust"), load_dataset("photos", "val-128")
    found = evaluation_seconds(model, dataset, sea.PAPER.with_steps(30), limit=8, pairs=5)
    checked, ratio = (statistics.median(one) for one in zip(*((c, c / b) for c, b in found)))
    return Measured(
        [
            ("8 images of 128 px, 3 attacks of 30 steps", f"{checked:.1f} CPU seconds", ""),
            ("  over the same without checks", f"{ratio:.3f} x", "at most 1.03 x"),
            ("  from", f"{min(c / b for c, b in found):.3f} x", ""),
            ("  to", f"{max(c / b for c, b in found):.3f} x", ""),
        ]
    )


def training_seconds(recipe: Recipe, iterations: int) -> list[tuple[dict[str, float], float]]:
    """Time the parts of each training iteration, and the whole from one yield to the next.

    The first two iterations do not count. The whole includes work that belongs to no part: the average, the records,
    the progress.
    """
    recipe = replace(recipe, iterations=iterations)
    training, images = Training(initial_model(recipe, 9), recipe, 9), training_images(recipe)
    rows = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few images do not show every class
        for progress in train(training, images, Path(folder)):
            rows.append((progress.seconds, time.perf_counter() - started))
            started = time.perf_counter()
    return rows[2:]


def bench_finetune() -> Measured:
    """Measure where the time of an iteration of `photos-robust` goes."""
    recipe = replace(RECIPES["photos-robust"], sizes=(160,), eps_warm_up=0.0)
    iterations = training_seconds(recipe, 12)
    parts = {part: statistics.median(parts[part] for parts, _ in iterations) for part in iterations[0][0]}
    whole = statistics.median(whole for _, whole in iterations)
    over_parts = statistics.median(whole / sum(parts.values()) for parts, whole in iterations)
    images = f"{recipe.batch_size} images of {recipe.sizes[0]} px, {recipe.attack_steps} attack steps"
    rows = [(f"one iteration, {images}", f"{1000 * whole:.0f} ms", "")]
    rows += [(f"  {part}", f"{1000 * seconds:.0f} ms", "") for part, seconds in parts.items()]
    rows.append(("  whole over the sum of its parts", f"{over_parts:.2f} x", "at most 1.15 x"))
    return Measured(rows)


def bench_course() -> Measured:
    """Run every notebook of the course once, solved, in quick mode, and measure its seconds."""
    from robviz.notebook import lesson, runner

    rows = []
    for name in lesson.names():
        outcome = runner.run_notebook(lesson.read(name), try_mistakes=False)
        rows.append((name, f"{outcome.seconds:.1f} s", f"at most {runner.LIMIT} s on 2 idle cores"))
    return Measured(rows)


def bench_peers(official: Path | None = None, limit: int = 16, steps: int = 30) -> Measured:
    """Compare the attacks of other installed libraries with robviz's: what they leave, and what they cost.

    Args:
        official: `semseg/utils/attacker.py` of the paper's official code, to compare with it as well.
        limit: The number of images.
        steps: Steps of each attack.
    """
    attacks = PEERS if official is None else (official_attack(official), *PEERS)
    model, dataset = load_model("photos-robust"), load_dataset("photos", "val-128")
    rows: list[tuple[str, ...]] = []
    for eps in (4, 8):
        rows += [
            (
                f"{eps}/255",
                f"{one.package} {one.version}",
                one.name,
                f"{100 * one.accuracy:.2f} %",
                f"{100 * one.miou:.2f} %",
                f"{1000 * one.seconds / steps:.0f} ms",
            )
            for one in compare(model, dataset, eps / 255, steps, limit, attacks)
        ]
    return Measured(rows, ("radius", "library", f"attack, {steps} steps", "accuracy", "mIoU", "an image and step"))


#: The names that `robviz bench` accepts.
BENCHES: dict[str, Callable[[], Measured]] = {
    "app": bench,
    "load": bench_load,
    "attacks": bench_attacks,
    "peers": bench_peers,
    "evaluate": bench_evaluate,
    "finetune": bench_finetune,
    "course": bench_course,
}
