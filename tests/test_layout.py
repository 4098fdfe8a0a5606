"""The folder list is the architecture: each module has its purpose, and a place in the order of imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ROOMS = sorted(
    path.stem
    for path in (ROOT / "robviz").iterdir()
    if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
)
MODULES = sorted((ROOT / "robviz").rglob("*.py"))


def layers() -> list[str]:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ][0]
    return [room.strip() for layer in contract["layers"] for room in layer.split("|")]


def test_every_room_has_its_place_in_the_order_of_imports():
    assert sorted(layers()) == ROOMS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_in_one_sentence_what_it_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = docstring.split("\n\n")[0]
    assert first.rstrip().endswith((".", "?", ":")), f"{path} begins with {first!r}"
    assert "TODO" not in docstring


def test_the_contract_is_kept():
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
