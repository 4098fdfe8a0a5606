"""Every notebook keeps the rules of `robviz.notebook.runner`, and its check cells catch wrong answers."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
import torch

from robviz.cli import main
from robviz.datasets import load_dataset
from robviz.files.paths import bundled_path
from robviz.losses import LOSSES
from robviz.models import available
from robviz.notebook import colab, lesson, recorded, runner
from robviz.paper.minimal import shipped_minimal

NAMES = lesson.names()
every_notebook = pytest.mark.parametrize("name", NAMES)
#: What may hold digits in prose: code, formulas, links, tags, references, and places in the paper and the notebook.
PLACES = re.compile(
    r"`[^`]*`|\$\$[^$]+\$\$|\$[^$]+\$|\[\d\d_\w+\]\([^)]*\)|\]\([^)]*\)|<[^>]*>|## References.*?(?=\n## )"
    r"|\b(?:Tables?|Figures?|Exercise|[Ss]ections?|[Aa]ppendix|version)\s\d[\d.]*(?:(?:, | and | to )\d[\d.]*)*",
    re.DOTALL,
)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


# ------------------------------------------------------------------------------------------ the rules


@every_notebook
def test_outputs_are_stripped(name):
    notebook = nbformat.read(bundled_path("notebooks") / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook == runner.student(notebook)


@every_notebook
def test_it_says_its_goals_prerequisites_mode_and_summary(name):
    notebook = lesson.read(name)
    texts, cells = prose(notebook), code(notebook)
    assert notebook.cells[0].source.startswith("# ")
    for part in ("**Goals**", "**Prerequisites**", "**Time**"):
        assert part in notebook.cells[0].source
    for part in ("**Open task**", "**Stretch task**", "## References", "## Summary"):
        assert part in texts[-1]
    assert [cell.metadata.get("tags", []) for cell in cells[:3]] == [["install"], ["parameters"], []]
    assert cells[1].source.startswith("MODE = None")
    assert cells[2].source.endswith(f'lesson = course.begin("{name}", MODE)\nlesson')


@every_notebook
def test_it_links_to_a_setting_that_the_app_has(name):
    (link,) = re.findall(r"\(http://127\.0\.0\.1:7860/(\?[^)]*)\)", "\n".join(prose(lesson.read(name))))
    asked = {key: value for key, (value,) in parse_qs(urlsplit(link).query).items()}
    assert set(asked) == {"photo", "model", "eps", "loss", "steps", "seed"}
    assert asked["photo"] in {sample.name for sample in load_dataset("photos", "photographs")}
    assert asked["model"] in available()
    assert asked["loss"] in LOSSES
    assert 0 <= float(asked["eps"]) <= 16
    assert 1 <= int(asked["steps"]) <= 200


@every_notebook
def test_code_cells_are_short_and_only_students_write_functions(name):
    cells = code(lesson.read(name))
    assert statistics.median(len(cell.source.splitlines()) for cell in cells) <= 4
    for cell in cells:
        assert lesson.role(cell) == "exercise" or not re.search(r"^\s*(def|class) |\blambda\b", cell.source, re.M), cell


@every_notebook
def test_prose_leaves_numbers_to_cells_but_right_below_a_claim(name):
    cells = lesson.read(name).cells
    for before, cell in zip([None, *cells], cells):
        if cell.cell_type == "markdown" and not (before and lesson.role(before) == "claim"):
            assert not re.search(r"\d", PLACES.sub("", cell.source)), cell.source


@every_notebook
def test_claims_say_a_sentence_and_a_prediction_has_a_place(name):
    cells = code(lesson.read(name))
    claims = [cell for cell in cells if lesson.role(cell) == "claim"]
    assert claims
    assert all("lesson.claim(" in cell.source for cell in claims)
    assert not any("lesson.claim(" in cell.source for cell in cells if lesson.role(cell) != "claim")
    guesses = sum(
        cell.source.startswith("guess = lesson.guess(") or "guess = lesson.guess(" in cell.source for cell in cells
    )
    predictions = sum(text.count("**Predict:**") for text in prose(lesson.read(name)))
    assert 1 <= predictions == guesses <= sum("guess.reveal(" in cell.source for cell in cells)


@every_notebook
def test_run_all_goes_on_behind_what_fails_without_an_answer(name):
    for cell in code(lesson.read(name)):
        assert ("raises-exception" in cell.metadata.get("tags", [])) == (lesson.role(cell) is not None)


@every_notebook
def test_links_between_notebooks_lead_somewhere(name):
    linked = re.findall(r"\]\((\d\d_\w+)\.ipynb\)", "\n".join(prose(lesson.read(name))))
    assert linked
    assert set(linked) <= set(NAMES)


@every_notebook
def test_every_exercise_has_a_check_a_solution_and_mistakes(name):
    cells = code(lesson.read(name))
    roles = [lesson.role(cell) for cell in cells]
    assert roles.count("exercise") >= 2
    for index, cell in enumerate(cells):
        if roles[index] == "exercise":
            assert roles[index + 1] == "check"
            assert "assert " in cells[index + 1].source
            assert "course.expect(" in cells[index + 1].source
            assert "NotImplementedError" in cell.source
            assert "NotImplementedError" not in cell.metadata.robviz.solution
            assert cell.metadata.robviz.wrong
    solutions = [f"lesson.solution({number})" for number in range(1, roles.count("exercise") + 1)]
    assert [cell.source for cell in cells if cell.source.startswith("lesson.solution(")] == solutions


# ------------------------------------------------------------------------------------------ running them


@pytest.mark.notebook
@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[1:])])
def test_it_runs_and_explains_unsolved_exercises_and_mistakes(name):
    outcome = runner.run_notebook(lesson.read(name))
    assert outcome.problems == []


def test_what_was_measured_names_its_notebook_mode_and_machine():
    """What `robviz course check --write` wrote: here and now nothing is timed; `robviz bench course` compares."""
    for name, modes in lesson.runtimes().items():
        assert name in NAMES
        for mode, measured in modes.items():
            assert mode in lesson.MODES
            assert measured["seconds"] > 0
            assert measured["machine"]


def notebook_of(exercise: str, solution: str, wrong: str, check: str, more: str = "1") -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source) for source in ("", exercise, check, more)]
    cells[1].metadata = nbformat.from_dict({"tags": ["exercise"], "robviz": {"solution": solution, "wrong": [wrong]}})
    cells[2].metadata["tags"] = ["check"]
    return nbformat.v4.new_notebook(cells=cells)


TODO, CHECK = "raise NotImplementedError('Exercise 1')", "assert a == 1, 'The number a must be exactly one.'"


@pytest.mark.notebook
def test_what_breaks_the_rules_is_told():
    runs = runner.run_notebook(notebook_of(TODO, "a = 1", "a = 1", CHECK)).problems
    assert len(runs) == 1
    assert "answers the wrong solution 1 of cell 1 with nothing" in runs[0]
    assert "fails: AssertionError" in runner.run_notebook(notebook_of(TODO, "a = 2", "a = 3", CHECK)).problems[0]
    assert runner.run_notebook(notebook_of("a = 1", "a = 1", "a = 2", CHECK)).problems == [
        "cell 1, an exercise, must raise NotImplementedError, not nothing"
    ]
    talks = notebook_of(TODO, "a = 1", "a = 2", CHECK, "import warnings; warnings.warn('careful')")
    assert "writes to stderr" in runner.run_notebook(talks).problems[0]


@pytest.mark.parametrize("more", ["print(b)", "[b(n) for n in (1, 2)]", "c = {n: [b] for n in (1, 2)}"])
def test_a_cell_that_needs_an_answer_must_say_so(more):
    notebook = notebook_of(TODO, "def b(n):\n    free = n\n    return free", "b = 1", "n = b(1)\nassert n == 1", more)
    assert runner.leaks(notebook) == ["cell 3 uses b, the student's answer; tag it `after`"]
    notebook.cells[3].metadata["tags"] = ["after"]
    assert runner.leaks(notebook) == []
    assert runner.leaks(notebook_of(TODO, "b = 1", "b = 2", "assert b == 1", "b = 3\nprint(b)")) == []


@pytest.mark.notebook
def test_nothing_outside_is_asked():
    asks = notebook_of(TODO, "a = 1", "a = 2", CHECK, "import socket; socket.create_connection(('192.0.2.1', 80), 1)")
    assert "the course runs offline, but a cell asked 192.0.2.1" in runner.run_notebook(asks).problems[0]


# ------------------------------------------------------------------------------------------ Colab


def install_cells(folder=None) -> list[str]:
    paths = sorted((folder or bundled_path("notebooks")).glob("*.ipynb"))
    return [cell.source for path in paths for cell in nbformat.read(path, as_version=4).cells if colab.is_install(cell)]


@pytest.fixture
def commands(monkeypatch):
    """What a cell gives to `subprocess.run`, which runs nothing."""
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    return commands


def test_every_notebook_installs_robviz_by_the_same_cell():
    assert install_cells() == [colab.install_cell(colab.UNKNOWN)] * len(NAMES)


def test_the_install_cell_does_nothing_outside_colab(commands):
    exec(colab.install_cell("somebody/robviz"), {})
    assert commands == []


def test_on_colab_the_install_cell_installs_the_repository_with_the_extra(commands, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(colab.install_cell("somebody/robviz"), {})
    wanted = "robviz[notebooks] @ git+https://github.com/somebody/robviz"
    assert commands == [[sys.executable, "-m", "pip", "install", "--quiet", wanted]]


def test_badges_and_install_cells_are_written_for_a_repository_and_replaced_for_the_next(tmp_path):
    folder = shutil.copytree(bundled_path("notebooks"), tmp_path / "notebooks")
    for repository in ("first/one", "second/two"):
        main(["course", "badges", repository, str(folder)])
    for path in folder.glob("*.ipynb"):
        changed, ours = nbformat.read(path, as_version=4), lesson.read(path.stem)
        title, opened, rest = changed.cells[0].source.split("\n\n", 2)
        place = f"https://colab.research.google.com/github/second/two/blob/main/notebooks/{path.name}"
        assert opened == f"[![Open in Colab]({colab.PICTURE})]({place})"
        assert f"{title}\n\n{rest}" == ours.cells[0].source
        assert colab.without_picture(changed.cells[0].source) == f"{title}\n\n[Open in Colab]({place})\n\n{rest}"
        changed.cells[:2] = ours.cells[:2]
        assert changed == ours
    assert install_cells(folder) == [colab.install_cell("second/two")] * len(NAMES)


@pytest.mark.parametrize("repository", ["robviz", "https://github.com/a/b", 'a/b"; import os', "a/b/c", ""])
def test_what_is_no_repository_is_refused(repository, tmp_path):
    with pytest.raises(ValueError, match="is written OWNER/NAME, got"):
        colab.add_badges(bundled_path("notebooks"), repository)
    with pytest.raises(ValueError, match="contains no notebook"):
        colab.add_badges(tmp_path, "a/b")


# ------------------------------------------------------------------------------------------ recorded runs


@pytest.mark.parametrize(("holds_below", "found"), [(5.3, 5.375), (0, 0.125), (31, 31), (33, None)])
def test_halving_ends_at_the_smallest_radius_that_broke_nearly_every_pixel(holds_below, found, monkeypatch):
    def attack(model, images, labels, eps, steps, loss, seed):
        return SimpleNamespace(accuracy=torch.tensor([0.02 if 255 * eps < holds_below else 0.01]))

    monkeypatch.setattr(recorded, "apgd", attack)
    assert recorded.by_halving(None, None, None, 0.99) == found


def test_halving_and_alma_prox_were_recorded_on_the_same_crops():
    ours, theirs = recorded.halvings(), shipped_minimal()
    assert ours.keys() == theirs.keys()
    for name, halved in ours.items():
        same = ("model", "dataset", "crop", "images", "share")
        assert [halved.plan[key] for key in same] == [theirs[name].plan[key] for key in same]
        assert len(halved.radii_255) == halved.plan["images"]


# ------------------------------------------------------------------------------------------ the commands


def test_a_notebook_that_was_run_is_a_student_copy_again_once_stripped(tmp_path):
    notebook = lesson.read(NAMES[0])
    for count, cell in enumerate(code(notebook), 1):
        cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="1")], count
    path = tmp_path / "run.ipynb"
    nbformat.write(notebook, path)
    main(["course", "strip", str(path)])
    assert nbformat.read(path, as_version=4) == lesson.read(NAMES[0])


def test_the_solved_copy_holds_the_solutions(tmp_path):
    main(["course", "solve", NAMES[0], str(tmp_path / "solved.ipynb")])
    text = (tmp_path / "solved.ipynb").read_text()
    sources = [cell.source for cell in code(nbformat.reads(text, as_version=4))]
    for cell in code(lesson.read(NAMES[0])):
        if lesson.role(cell) == "exercise":
            assert cell.metadata.robviz.solution in sources
            assert cell.source not in sources


@pytest.mark.slow
def test_rendered_pages_hold_live_viewers_and_formulas_and_ask_nobody(tmp_path):
    widget = {
        "image/png": "aGVsbG8=",
        "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
        "application/vnd.robviz.viewer+json": {"classes": ["cat </script>"]},
    }
    notebook = notebook_of(TODO, "a = 1", "a = 2", CHECK)
    told = {"image/png": {"alt": "a cat"}}
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", widget, metadata=told)]
    text = "The radius $\\varepsilon$, and `$HOME`:\n\n$$\\|\\delta\\|_\\infty \\le \\varepsilon$$"
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))
    title = nbformat.v4.new_markdown_cell("# Title\n\n" + colab.badge("a/b", "00") + "**Goals**")
    install = nbformat.v4.new_code_cell(colab.install_cell(), metadata={"tags": ["install"]})
    notebook.cells[:0] = [title, install]
    html = runner.write_html(notebook, tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("<math") == 2
    assert "$HOME" in html
    assert '<img alt="a cat" src="data:image/png;base64,aGVsbG8="' in html
    assert "cat <\\/script>" in html
    assert "window.robviz.viewer(place" in html
    assert ">Open in Colab</a>" in html
    assert "pip" not in html
    loaded = re.sub(r"<a [^>]*>", "", html)  # which a reader may follow
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", loaded)


@pytest.mark.slow
def test_run_all_goes_on_past_an_exercise_that_is_not_solved():
    from nbclient import NotebookClient

    notebook = notebook_of(TODO, "a = 1", "a = 2", CHECK, "print('reached')")
    for cell in notebook.cells[1:3]:
        cell.metadata["tags"] = [*cell.metadata["tags"], "raises-exception"]
    done = NotebookClient(notebook, kernel_name="python3").execute()
    assert done.cells[-1].outputs[0].text == "reached\n"


def test_unknown_notebooks_and_modes_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="unknown notebook '99'; choose from: 00_start_here"):
        runner.check_notebooks(["99"])
    monkeypatch.setenv("ROBVIZ_MODE", "fast")
    with pytest.raises(ValueError, match="unknown mode 'fast'; choose from: quick, full"):
        lesson.begin(NAMES[0])


def test_a_lesson_shows_what_was_measured(monkeypatch):
    monkeypatch.delenv("ROBVIZ_MODE", raising=False)
    monkeypatch.setattr(lesson, "runtimes", lambda: {"00_start_here": {"quick": {"seconds": 12.3, "machine": "a CPU"}}})
    head = lesson.begin("00_start_here")._repr_markdown_()
    assert "quick: 12 s on a CPU, full: not measured yet" in head
    assert "not comparable to the paper in absolute terms" in head
