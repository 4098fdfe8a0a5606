"""The documentation has no dead links, agrees with the code, and is complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import robviz

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that a page has: of its headings, of names in the API reference, and explicit ones."""
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"\{ ?#([\w.-]+) ?\}", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(without_code(TEXTS[page])):
        path, _, anchor = link.partition("#")
        if re.match(r"https?://|mailto:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and not anchor.startswith("robviz."):
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{link} names no heading"


def test_the_course_links_the_pages_that_make_course_writes():
    linked = re.findall(r'<a href="course/(\w+).html">(\w+)</a>', TEXTS[ROOT / "docs/course.md"])
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert linked == [(name, name) for name in names]
    assert "use_directory_urls: false" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "robviz course render docs/course\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_animated_picture_is_drawn_from_the_shipped_masks(tmp_path):
    make = runpy.run_path(str(ROOT / "docs/assets/make_gif.py"))
    make["main"](tmp_path / "slider.gif")
    with Image.open(tmp_path / "slider.gif") as drawn, Image.open(ROOT / "docs/assets/slider.gif") as shipped:
        assert (drawn.size, drawn.n_frames) == (shipped.size, shipped.n_frames)


def test_the_readme_can_be_read_to_the_end():
    assert len(TEXTS[ROOT / "README.md"].split()) <= 1100


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}" in navigation


def test_the_guides_name_every_loss_attack_ensemble_model_and_dataset():
    text = "".join(TEXTS.values())
    names = [*robviz.losses.LOSSES, *robviz.attacks.OPTIMISERS, *robviz.sea.SETTINGS]
    names += [*robviz.models.shipped_models(), *robviz.models.published.CHECKPOINTS, *robviz.datasets.available()]
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing, f"the documentation does not mention {', '.join(missing)}"


def test_every_command_is_documented():
    import typer

    from robviz.cli.application import application

    text = TEXTS[ROOT / "docs/cli.md"]
    missing = [name for name in typer.main.get_command(application).commands if f"`robviz {name}" not in text]
    assert not missing, f"docs/cli.md does not mention {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_the_documentation_is_python(page):
    for code in re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL):
        ast.parse(code)


@pytest.mark.slow
@pytest.mark.long
def test_the_code_of_the_attack_guide_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", TEXTS[ROOT / "docs/guides/attack.md"], re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("astronaut ")


# ------------------------------------------------------------------------------------------ the API reference


API = "".join(text for page, text in TEXTS.items() if page.parent.name == "api")
MODULES = sorted(set(robviz._MODULES.values()))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_module_is_in_the_api_reference(module):
    assert f"::: {module}\n" in API


def public_functions():
    """Functions, and methods of classes, that modules name in `__all__`."""
    for name in MODULES:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if inspect.isfunction(value):
                yield f"{name}.{public}", value
            elif inspect.isclass(value):
                for method, function in vars(value).items():
                    if method[0] != "_" and inspect.isfunction(function) and function.__module__ == value.__module__:
                        yield f"{name}.{public}.{method}", function


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_say_what_they_take_return_and_raise(name):
    function = FUNCTIONS[name]
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    sections = set(re.findall(r"^(Args|Returns|Yields|Raises):$", text, re.MULTILINE))
    parameters = [one for one in signature.parameters if one != "self"]
    for parameter in parameters:
        assert re.search(rf"^    \**{parameter}: ", text, re.MULTILINE), f"{name} does not explain {parameter}"
    if len(parameters) > 0 and str(signature.return_annotation) != "None":
        assert sections & {"Returns", "Yields"}, f"{name} does not say what it returns"
    if "raise InputError(" in inspect.getsource(function):
        assert "Raises" in sections, f"{name} does not say what it raises"


def test_every_public_module_says_what_is_public():
    without = [name for name in MODULES if not hasattr(importlib.import_module(name), "__all__")]
    assert not without, f"{', '.join(without)} lack __all__"


@pytest.mark.slow
@pytest.mark.long
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the documentation's tools are not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=offline())
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    assert not any(re.search(r'(src|rel="stylesheet" href)="https?://', page) for page in pages)
    anchors_of_attacks = (tmp_path / "api/attacks.html").read_text(encoding="utf-8")
    assert 'id="robviz.attacks.apgd"' in anchors_of_attacks
    board = (tmp_path / "leaderboard_table.html").read_text(encoding="utf-8")
    assert board == shipped_board(tmp_path)
    assert 'src="leaderboard_table.html"' in (tmp_path / "leaderboard.html").read_text(encoding="utf-8")


def shipped_board(folder: Path) -> str:
    """Return what the command writes of the shipped reports."""
    from robviz.cli import main

    main(["leaderboard", "--out", str(folder / "by_command" / "board.html")])
    return (folder / "by_command" / "board.html").read_text(encoding="utf-8")


def offline() -> dict[str, str]:
    """Return an environment in which every request would fail."""
    import os

    nowhere = "http://127.0.0.1:9"
    return {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere}
