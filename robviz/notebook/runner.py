"""Run the notebooks of the course, check their exercises, and measure their run times.

`robviz course check` runs every notebook of `notebooks/`, each exercise as a student finds it, with wrong solutions,
and solved; `render` makes HTML of the solved copies, `solve` writes one, `strip` clears outputs before a commit.

`docs/contributing/notebooks.md` has the rules of a notebook; `tests/test_course.py` holds each to them.
"""

from __future__ import annotations

import json
import os
import re
import symtable
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from robviz.files.atomic import writable
from robviz.files.paths import bundled_path
from robviz.files.progress import SWITCH

if TYPE_CHECKING:
    from nbformat import NotebookNode

from robviz.notebook.colab import is_install, without_picture
from robviz.notebook.expect import ODDITIES
from robviz.notebook.lesson import RUNTIMES, names, read, role, runtimes

LIMIT = 60  # seconds that a notebook may take in quick mode on two idle cores; `robviz bench course` compares


def student(notebook: NotebookNode) -> NotebookNode:
    """Return the copy that students open, without outputs and execution counts."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("execution", None)
    copy.metadata.pop("widgets", None)
    copy.metadata.get("language_info", {}).pop("version", None)  # of the Python that saved it last
    return copy


def solved(notebook: NotebookNode) -> NotebookNode:
    """Return a copy with all exercises solved."""
    copy = student(notebook)
    for cell in copy.cells:
        if role(cell) == "exercise":
            cell.source = cell.metadata.robviz.solution
    return copy


def strip(path: Path) -> None:
    """Turn a notebook that was run and saved back into a student's copy."""
    import nbformat

    nbformat.write(student(nbformat.read(path, as_version=4)), path)


# ------------------------------------------------------------------------------------------ running them

#: Runs in the kernel first and refuses every connection to another machine.
OFFLINE = """
def _offline():
    import sys
    places = {"socket.connect": lambda _, address: address[0], "socket.getaddrinfo": lambda host, *_: host}
    def refuse(event, arguments):
        if event in places and (host := places[event](*arguments)) not in (None, "127.0.0.1", "::1", "localhost"):
            if not str(host).startswith("/"):
                raise OSError(f"the course runs offline, but a cell asked {host} for something")
    sys.addaudithook(refuse)
_offline()
del _offline
"""


@dataclass
class NotebookRun:
    """Store the result of running a copy: problems, one sentence each; the notebook with outputs; its seconds."""

    notebook: NotebookNode
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def failure(cell: NotebookNode) -> str | None:
    """Return the error of a cell that failed, such as `NameError: ...`, or None."""
    errors = (output for output in cell.outputs if output.output_type == "error")
    return next((f"{error.ename}: {error.evalue}" for error in errors), None)


@contextmanager
def kernel(notebook: NotebookNode) -> Iterator[Callable[[int, str], NotebookNode]]:
    """Yield a function (index, source) that runs a cell and returns it, offline and in a temporary folder."""
    from nbclient import NotebookClient

    quiet = ["--log-level=ERROR"]
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", allow_errors=True, extra_arguments=quiet)
    client.store_widget_state = False

    def run(index: int, source: str) -> NotebookNode:
        cell = notebook.cells[index]
        cell.source, cell.outputs = source, []
        client.execute_cell(cell, index)
        result: NotebookNode = cell
        return result

    with tempfile.TemporaryDirectory() as folder, client.setup_kernel(cwd=folder, env={**os.environ, SWITCH: "0"}):
        if os.environ.get("ROBVIZ_MODE", "quick") == "quick":
            index = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
            source = notebook.cells[index].source
            run(index, OFFLINE).source = source
        yield run


def names_in_code(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Return the global names that a piece of code binds, and those that it uses, also in functions."""
    bound = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    used = {one.get_name() for one in table.get_symbols() if one.is_referenced()}
    inside = list(table.get_children())
    while inside:
        scope = inside.pop()
        used |= {one.get_name() for one in scope.get_symbols() if one.is_global()}
        inside += scope.get_children()
    return bound, used


def leaks(notebook: NotebookNode) -> list[str]:
    """List what fails for a student who skips exercises: untagged cells that use an answer."""
    answers: set[str] = set()
    ours: set[str] = set()
    problems = []
    for index, cell in enumerate(solved(notebook).cells):
        if cell.cell_type != "code":
            continue
        bound, used = names_in_code(symtable.symtable(cell.source, f"cell {index}", "exec"))
        if role(cell) is not None:
            answers |= bound
            continue
        ours |= bound
        if taken := sorted((used & answers) - ours):
            problems.append(f"cell {index} uses {', '.join(taken)}, the student's answer; tag it `after`")
    return problems


def run_notebook(notebook: NotebookNode, try_mistakes: bool = True) -> NotebookRun:
    """Run the solved copy, in which nothing may fail or warn, and no cell without a tag may need an answer.

    try_mistakes: before its solution, each exercise must raise NotImplementedError as it is, and its check explain
    the wrong solutions and the odd answers.
    """
    outcome = NotebookRun(solved(notebook), leaks(notebook))
    cells = outcome.notebook.cells
    with kernel(outcome.notebook) as execute:
        for index, cell in enumerate(cells):
            if cell.cell_type != "code":
                continue
            source = cell.source
            if try_mistakes and role(cell) == "exercise":
                outcome.problems += mistakes(notebook.cells[index].source, cells, index, execute)
            started = time.perf_counter()
            done = execute(index, source)
            outcome.seconds += time.perf_counter() - started
            outcome.problems += [f"cell {index} fails: {failed}" for failed in [failure(done)] if failed]
            outcome.problems += [
                f"cell {index} writes to stderr: {output.text.strip()}"
                for output in done.outputs
                if output.output_type == "stream" and output.name == "stderr"
            ]
    return outcome


def mistakes(
    unsolved: str, cells: list[NotebookNode], index: int, execute: Callable[[int, str], NotebookNode]
) -> list[str]:
    """Try an exercise as it is, with its wrong solutions and with odd answers.

    Returns the problems, one sentence each.
    """
    problems, solution = [], cells[index].source
    failed = failure(execute(index, unsolved)) or "nothing"
    if not failed.startswith("NotImplementedError"):
        problems.append(f"cell {index}, an exercise, must raise NotImplementedError, not {failed}")
    check = next(i for i in range(index, len(cells)) if role(cells[i]) == "check")
    asserts = cells[check].source
    for number, wrong in enumerate(cells[index].metadata.robviz.wrong, 1):
        failed = failure(execute(index, wrong)) or failure(execute(check, asserts)) or "nothing"
        if not is_explained(failed):
            problem = f"cell {check} answers the wrong solution {number} of cell {index} with {failed}"
            problems.append(f"{problem}; expected an AssertionError of one sentence")
    if answered := re.search(r"^def (\w+)\(", solution, re.M):
        name = answered[1]
        execute(index, solution + f"\n_right = {name}")
        for kind in ODDITIES:
            execute(index, f"from robviz.notebook.expect import odd as _odd\n{name} = _odd(_right, {kind!r})")
            failed = failure(execute(check, asserts)) or "nothing"
            if not (is_explained(failed) or failed.startswith("NotApplicableError")):
                problems.append(f"cell {check} answers {kind} from {name} with {failed}; expected one sentence")
    cells[check].outputs = []
    return problems


def is_explained(failed: str) -> bool:
    """Return True if a failure is an assertion with a sentence."""
    kind, _, message = failed.partition(": ")
    return kind == "AssertionError" and len(message.split()) >= 5 and message.rstrip().endswith((".", "?"))


def check_notebooks(chosen: Sequence[str] = (), write: bool = False) -> list[str]:
    """Run notebooks (all by default); returns the problems, one sentence each. Prints the time that each took.

    write: store the seconds of those without problems in `runtimes.json`; only then is a time above `LIMIT` a problem,
    because other machines may be busy or slow. Raises InputError for an unknown name.
    """
    mode = os.environ.get("ROBVIZ_MODE", "quick")
    problems: list[str] = []
    for name in map(full_name, chosen or names()):
        outcome = run_notebook(read(name))
        problems += [f"{name}: {problem}" for problem in outcome.problems]
        print(f"{name}, {mode}: {outcome.seconds:.1f} s, {len(outcome.problems)} problems", flush=True)
        if write and not outcome.problems:
            measured = runtimes()
            measured.setdefault(name, {})[mode] = {"seconds": round(outcome.seconds, 1), "machine": machine(mode)}
            (bundled_path("notebooks") / RUNTIMES).write_text(
                json.dumps(measured, indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
    return problems


def full_name(name: str) -> str:
    """Return the name of a notebook that was given by its name or its number: `03` is `03_sea`."""
    return next((full for full in names() if full.startswith(f"{name}_")), name)


def machine(mode: str) -> str:
    """Describe the machine that a mode was run on."""
    if mode == "full":
        import torch

        return torch.cuda.get_device_name()
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    return f"a CPU ({threads} {'thread' if str(threads) == '1' else 'threads'})"


def render(out: Path, chosen: Sequence[str] = ()) -> list[Path]:
    """Run the solved copies and write them as self-contained HTML with live viewers; returns the paths."""
    from robviz.notebook.widget import RENDERING

    paths = []
    os.environ[RENDERING] = "1"
    try:
        for name in map(full_name, chosen or names()):
            paths.append(write_html(run_notebook(read(name), try_mistakes=False).notebook, out / f"{name}.html"))
            print(paths[-1], flush=True)
    finally:
        del os.environ[RENDERING]
    return paths


#: A viewer in a page: its frame as JSON and, for readers without scripts, its still picture.
PLACE = """<div class="robviz-live"></div><script type="application/json">{data}</script>
<noscript><img alt="{alt}" src="data:image/png;base64,{png}"></noscript>"""
START = """
for (const place of document.querySelectorAll(".robviz-live")) {
  const shown = window.robviz.viewer(place, JSON.parse(place.nextElementSibling.textContent));
  shown.ready.then(() => shown.setPanes(4));
}
"""


def live(output: NotebookNode) -> None:
    """Turn a widget's output into HTML: its live viewer if it left a frame, or else its still picture."""
    from robviz.notebook.widget import LIVE

    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if frame := data.pop(LIVE, None):
        alt = escape(output.metadata.get("image/png", {}).get("alt", ""), quote=True)
        text = json.dumps(frame).replace("</", "<\\/")
        data["text/html"] = PLACE.format(data=text, alt=alt, png=data.pop("image/png"))


FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w`])\$([^$\n`]+?)\$(?![\w])", re.S)


def with_mathml(text: str) -> str:
    """Replace the TeX in Markdown with MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    def drawn(found: re.Match[str]) -> str:
        return convert(found[1] or found[2], display="block" if found[1] else "inline")

    parts = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.S)
    return "".join(part if part.startswith("`") else FORMULA.sub(drawn, part) for part in parts)


def write_html(notebook: NotebookNode, path: Path) -> Path:
    """Write an executed notebook as one self-contained HTML page with formulas in MathML and live viewers."""
    from nbconvert import HTMLExporter

    from robviz.viewer import SCRIPT, STYLE

    shown = deepcopy(notebook)
    shown.cells = [cell for cell in shown.cells if not is_install(cell)]
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            text = with_mathml(without_picture(cell.source))
            cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.html)", text)
        for output in cell.get("outputs", []):
            live(output)
    exporter = HTMLExporter(
        exclude_input_prompt=True, exclude_output_prompt=True, mathjax_url="", require_js_url="", mermaid_js_url=""
    )
    page = exporter.from_notebook_node(shown, {"metadata": {"name": path.stem}})[0]
    if "robviz-live" in page:
        head, _, tail = page.rpartition("</body>")
        page = f"{head}<style>{STYLE}</style><script>{SCRIPT}</script><script>{START}</script></body>{tail}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def solve(name: str, out: Path) -> None:
    """Write the solved copy of a notebook without running it."""
    import nbformat

    copy = solved(read(name))
    with writable(out.parent):
        nbformat.write(copy, out)
