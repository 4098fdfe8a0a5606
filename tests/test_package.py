from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import httpx
import pytest
import yaml

from tests.server import PATIENCE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


def test_environment_yml_asks_for_what_pyproject_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in environment if isinstance(entry, dict))
    assert pip == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["notebooks"], "--editable ."]
    assert f"python{PROJECT['requires-python']}" in environment


def test_import_is_quick_and_silent():
    code = "import robviz, sys; assert not {'torch', 'gradio', 'timm'} & set(sys.modules); robviz.__all__"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_the_app_imports_neither_what_a_model_needs_nor_writes_gradios_type_stubs():
    code = """
import ast, inspect, sys
ast.get_source_segment = None  # what the stubs are read with
import robviz.app, robviz.sea, robviz.finetune
print({"timm", "torchvision", "torch._dynamo"} & sys.modules.keys(), "robviz" in inspect.getfile.__module__)
"""
    assert run(sys.executable, "-c", code).stdout == "set() False\n"


def test_every_public_name_has_a_docstring():
    import robviz

    for name in robviz.__all__:
        assert getattr(robviz, name).__doc__, name
    for module in (robviz.attacks, robviz.datasets, robviz.losses, robviz.metrics, robviz.models):
        for name in dir(module):
            value = getattr(module, name)
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and name[0] != "_":
                assert value.__doc__, f"{module.__name__}.{name}"


def test_a_wrong_command_ends_in_one_sentence():
    from robviz import cli

    with pytest.raises(SystemExit) as ended:
        cli.main(["finetune", "photos-cleen"])
    assert ended.value.code == (
        "robviz: unknown recipe 'photos-cleen'; closest are photos-clean, photos-onestep, photos-robust, "
        "and `robviz finetune` lists all"
    )


PAGES = [
    "README.md",
    "docs/app.md",
    "docs/models.md",
    "docs/results.md",
    "docs/strength.md",
    "checkpoints/reports/README.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_the_documentation_are_what_cards_and_reports_say(page):
    from robviz.paper.generated_tables import generated_tables

    text, tables = (ROOT / page).read_text(encoding="utf-8"), generated_tables()
    names = re.findall(r"<!-- ([\w-]+): begin -->", text)
    assert names
    for name in names:
        assert f"<!-- {name}: begin -->\n{tables[name]}<!-- {name}: end -->" in text, (
            f"run robviz tables --write {page}"
        )


def test_every_generated_table_has_a_place():
    from robviz.paper.generated_tables import generated_tables

    pages = [ROOT / "README.md", ROOT / "checkpoints/reports/README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert all(f"<!-- {name}: begin -->" in text for name in generated_tables())


def test_a_file_without_a_place_for_a_table_is_left_alone(tmp_path):
    from robviz.paper.generated_tables import write_tables

    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match="has no place for a table"):
        write_tables(tmp_path / "notes.md")
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.slow
def test_the_readme_code_runs(tmp_path):
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(import robviz.*?)```", readme, re.DOTALL).group(1)
    assert len(code.splitlines()) <= 8
    assert "->" in run(sys.executable, "-c", code, cwd=tmp_path).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """robviz installed from a wheel into a folder of its own."""
    built = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(ROOT))
    (path,) = built.glob("*.whl")
    assert path.stat().st_size < 60e6
    assert "robviz/py.typed" in zipfile.ZipFile(path).namelist()
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(path))
    return target


@pytest.mark.slow
def test_a_source_distribution_holds_what_a_packager_needs(tmp_path):
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    (path,) = tmp_path.glob("*.tar.gz")
    assert path.stat().st_size < 60e6
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "mkdocs.yml", "docs/index.md"} <= names
    assert {"robviz/__init__.py", "tests/test_package.py", "checkpoints/photos-robust.safetensors"} <= names
    assert not any(name.startswith((".venv", "site/", "dist/")) for name in names)


@pytest.mark.slow
@pytest.mark.long
def test_a_wheel_works_outside_the_clone(wheel, tmp_path):
    code = """
import robviz, robviz.files.paths
print(robviz.__file__)
photos = robviz.load_dataset("photos", "photographs")
sample = photos[0]
model = robviz.load_model("photos-robust")
result = robviz.attacks.apgd(model, sample.image[None], sample.labels[None], eps=4 / 255, steps=2)
print(len(photos), result.images.shape[1], robviz.files.paths.bundled_path("checkpoints").is_dir())
"""
    done = run(sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(wheel)})
    where, facts = done.stdout.splitlines()
    assert Path(where).is_relative_to(wheel)
    assert facts == "14 3 True"


@pytest.mark.slow
@pytest.mark.long
def test_the_app_starts_from_a_wheel(wheel, tmp_path, monkeypatch):
    from robviz.bench import free_port, serving

    monkeypatch.setenv("PYTHONPATH", str(wheel))
    monkeypatch.chdir(tmp_path)
    port = free_port()
    with serving(port, PATIENCE):
        assert "robviz" in httpx.get(f"http://127.0.0.1:{port}").text


def evaluated(name: str, steps: int, eps: float, miou: float):
    from robviz.results.report import Report

    plan = {
        "model": {"name": "m"},
        "dataset": {"name": "d", "split": "val", "images": 2},
        "settings": {"name": name, "runs": [{"steps": steps}, {"steps": steps}]},
        "eps": eps / 255,
    }
    return Report(plan, {"worst case": {"miou": miou, "accuracy_mean": 0.5}}, [], 0)


def test_the_readme_names_the_fewest_steps_that_reach_the_papers_figure():
    from robviz.paper.generated_tables import steps_to_match_paper

    reports = [evaluated("paper", 300, eps, 0.4) for eps in (1, 4, 8)]
    reports += [evaluated(f"strong-{n}", n, 4, miou) for n, miou in ((30, 0.45), (100, 0.4), (200, 0.38), (300, 0.37))]
    reports += [evaluated("strong-300", 300, 8, 0.41), evaluated("strong-30", 30, 2, 0.1)]
    reports += [evaluated("strong-30", 30, 1, 0.41)]  # too few to tell
    rows = steps_to_match_paper(reports).to_dict("records")
    assert [row["radius"] for row in rows] == ["4/255", "8/255"]
    assert [row["`strong` is there"] for row in rows] == ["after 200", "not within the steps tried"]
    assert rows[0]["with"] == "40.00 %"


@pytest.mark.parametrize(
    ("own", "found"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
    ids=["none", "spin count", "wait policy"],
)
def test_threads_wait_briefly_unless_the_user_has_set_how_they_wait(own, found):
    code = "import robviz, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ran = subprocess.run([sys.executable, "-c", code], env=others | own, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == found
    assert not ran.stderr
