"""The JavaScript of the viewer: its own tests in node, how its modules are joined, and what Python sends it."""

from __future__ import annotations

import re
import shutil
import subprocess
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import numpy as np
import pytest

from robviz.files.images import index_png_url, png_url
from robviz.viewer import SCRIPT, payloads
from robviz.viewer.bundle import MODULES, bundle, script

ROOT = Path(__file__).parent.parent
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node on this machine: the JavaScript is not tested")


def node(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(NODE), *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


# ---------------------------------------------------------------------------------------------- in node


@needs_node
@pytest.mark.slow
def test_the_tests_of_the_modules_pass_in_node():
    done = node("--test", *sorted((ROOT / "tests" / "js").glob("*.test.js")))
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"# pass (\d+)", done.stdout)[1]) > 20


@needs_node
def test_the_widget_is_one_module_that_renders(tmp_path):
    (tmp_path / "widget.mjs").write_text(bundle("widget.js"), encoding="utf-8")
    code = "import('./widget.mjs').then(({ default: widget }) => console.log(typeof widget.render))"
    assert node("--eval", code, cwd=tmp_path).stdout == "function\n"


@needs_node
def test_the_apps_script_offers_every_view_that_the_app_calls(tmp_path):
    (tmp_path / "app.cjs").write_text(SCRIPT, encoding="utf-8")
    code = "globalThis.window = {}; require('./app.cjs'); console.log(Object.keys(window.robviz).join(' '))"
    done = node("--eval", code, cwd=tmp_path)
    assert done.stderr == ""
    sources = [ROOT / "app.py", *(ROOT / "robviz").rglob("*.py")]
    called = {name for file in sources for name in re.findall(r"= robviz\.(\w+)\(element", file.read_text())}
    assert len(called) > 5
    assert called <= set(done.stdout.split())


# ---------------------------------------------------------------------------------------------- joined


def written(folder: Path, **sources: str) -> Path:
    for name, source in sources.items():
        (folder / f"{name}.js").write_text(source, encoding="utf-8")
    return folder


def test_a_module_comes_after_those_that_it_imports_and_only_the_entry_exports(tmp_path):
    written(
        tmp_path,
        entry='import {\n  a,\n  b,\n} from "./second.js";\nimport { c } from "./third.js";\nexport default a(b, c);\n',
        second='import { c } from "./third.js";\nexport const b = c;\nexport async function a() {}\n',
        third='export class c {} // "é"\n',
    )
    assert bundle("entry.js", tmp_path) == (
        'class c {} // "é"\n\nconst b = c;\nasync function a() {}\n\nexport default a(b, c);\n'
    )
    assert script("entry.js", tmp_path).startswith('(() => {\n"use strict";\nclass c {}')


def test_a_name_that_two_modules_declare_is_refused(tmp_path):
    written(
        tmp_path, entry='import { a } from "./other.js";\nconst size = a;\n', other="export let a;\nclass size {}\n"
    )
    with pytest.raises(ValueError, match=r"other\.js and entry\.js both declare 'size'"):
        bundle("entry.js", tmp_path)


@pytest.mark.parametrize("form", ['import * as all from "./x.js";', "export default 1;", 'export * from "./x.js";'])
def test_an_import_or_export_in_another_form_is_refused(tmp_path, form):
    written(tmp_path, entry='import { a } from "./other.js";\n', other=f"{form}\nexport const a = 1;\n")
    with pytest.raises(ValueError, match=r"other\.js: cannot join"):
        bundle("entry.js", tmp_path)


def test_modules_that_import_each_other_are_refused(tmp_path):
    written(tmp_path, entry='import { a } from "./other.js";\n', other='import { b } from "./entry.js";\n')
    with pytest.raises(ValueError, match="cycle"):
        bundle("entry.js", tmp_path)


def test_the_script_ends_no_tag_of_the_page_and_sets_no_html():
    assert "</script" not in SCRIPT
    for file in MODULES.glob("*.js"):
        source = file.read_text(encoding="utf-8")
        assert source.startswith("// @ts-check\n"), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", source), file.name


# ---------------------------------------------------------------------------------------------- what Python sends

NAMES = {str: "string", int: "number", float: "number", bool: "boolean", NoneType: "null"}


def in_typescript(kind: Any) -> str:
    """Name a type of a payload as `payloads.d.ts` does."""
    origin, inner = typing.get_origin(kind), [in_typescript(part) for part in typing.get_args(kind)]
    if origin is list:
        return f"{inner[0]}[]"
    if origin is dict:
        return f"Record<{', '.join(inner)}>"
    if origin in (UnionType, typing.Union):
        return " | ".join(inner)
    return NAMES.get(kind) or kind.__name__


def test_python_and_javascript_have_the_same_payloads():
    text = (MODULES / "payloads.d.ts").read_text(encoding="utf-8")
    theirs = {
        name: {key + mark: kind for key, mark, kind in re.findall(r"^  (\w+)(\??): (.+);$", body, re.MULTILINE)}
        for name, body in re.findall(r"export interface (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    }
    ours = {
        name: {
            key + ("?" if key in record.__optional_keys__ else ""): in_typescript(kind)
            for key, kind in typing.get_type_hints(record).items()
        }
        for name, record in vars(payloads).items()
        if typing.is_typeddict(record) and name != "SomePictures"  # the part of Pictures that may be missing
    }
    assert ours == theirs
    assert {"ViewerData", "LandingData", "WhyData"} < set(ours)


# ---------------------------------------------------------------------------------------------- in Chromium


@pytest.fixture
def page(chromium):
    """An empty page with the app's script; afterwards it must have logged no error."""
    page, errors = chromium.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_content("<div id='one'></div><div id='two'></div>")
    page.add_script_tag(content=SCRIPT)
    page.evaluate("window.seen = []; window.host = (id) => document.getElementById(id)")
    yield page
    page.close()
    assert errors == []


def cards() -> payloads.GalleryData:
    shown: list[payloads.GalleryCard] = [
        {"row": row, "title": f"picture {row}", "lines": [], "picture": None} for row in (5, 7)
    ]
    return {"cards": shown, "first": 0, "total": 2, "page": 0, "pages": 1, "note": ""}


def frame() -> payloads.ViewerData:
    image, labels = png_url(np.full((2, 3, 3), 100, np.uint8)), index_png_url(np.array([[0, 1, -1], [1, 1, 0]]))
    return {
        "pictures": {"image": image, "before": labels, "after": labels, "reference": labels},
        "trail": None,
        "classes": ["a", "b"],
        "palette": [[0, 0, 0], [255, 0, 0]],
        "eps": 0.0,
        "scores": [],
        "note": "",
        "is_final": True,
    }


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_ended_gallery_hears_no_keys(page):
    page.evaluate("data => robviz.gallery(host('one'), data, ({ row }) => seen.push(row))", cards())
    page.keyboard.press("n")
    assert page.evaluate("seen") == [5]
    page.evaluate("host('one').robviz.destroy()")
    page.keyboard.press("n")
    assert page.evaluate("seen") == [5]
    assert page.evaluate("host('one').childElementCount") == 0


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_view_ends_where_another_takes_its_place_or_its_element_has_left_the_page(page):
    page.evaluate(
        """data => {
            const chosen = (what) => ({ row }) => seen.push(what + row);
            robviz.gallery(host('one'), data, chosen('first '));
            robviz.gallery(host('one'), data, chosen('second '));
            window.left = host('two');
            robviz.gallery(left, data, chosen('third '));
            left.remove();
            robviz.gallery(host('one'), data, chosen('fourth '));
        }""",
        cards(),
    )
    page.keyboard.press("n")
    assert page.evaluate("seen") == ["fourth 5"]
    assert page.evaluate("left.childElementCount") == 0


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_viewer_that_ends_while_a_frame_is_decoded_shows_nothing_more(page):
    drawn = page.evaluate(
        """async data => {
            const shown = robviz.viewer(host('one'), data);
            await shown.ready;
            const classes = host('one').querySelectorAll('.rv-chip').length;
            const due = shown.update({ ...data, classes: ['x', 'y'], note: 'late' });
            shown.destroy();
            await due;
            await new Promise(requestAnimationFrame);
            return [classes, host('one').childElementCount, shown.note.textContent];
        }""",
        frame(),
    )
    assert drawn == [2, 0, ""]


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_keys_go_to_the_pane_that_has_the_focus(page):
    page.evaluate("data => robviz.viewer(host('one'), data).ready", frame())
    layers = "[...host('one').querySelectorAll('figure')].map(figure => figure.dataset.layer)"
    assert page.evaluate(layers) == ["image", "before", "after"]
    page.locator("#one canvas").nth(1).focus()
    page.keyboard.press("7")
    assert page.evaluate(layers) == ["image", "reference", "after"]
    page.locator("#one select").nth(0).focus()
    page.locator("#one [data-tool=wipe]").nth(0).focus()
    page.keyboard.press("3")
    assert page.evaluate(layers) == ["after", "reference", "after"]


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_panes_come_and_go_and_the_last_one_stays(page):
    page.evaluate("data => robviz.viewer(host('one'), data).ready", frame())
    for tool, count in (("more", 4), ("less", 3), ("less", 2), ("less", 1), ("less", 1), ("more", 2)):
        page.click(f"#one [data-tool={tool}]")
        assert page.locator("#one figure").count() == count
        assert page.get_attribute("#one .rv-panes", "data-panes") == str(count)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_widget_follows_its_model_and_ends_with_its_cell(page):
    followed = page.evaluate(
        """async ([source, first, second]) => {
            const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
            const { default: widget } = await import(url);
            const listeners = new Set();
            const model = {
                data: first, get: (name) => model[name],
                on: (_, listener) => listeners.add(listener), off: (_, listener) => listeners.delete(listener),
            };
            const el = document.createElement('div'), other = document.createElement('div');
            const end = widget.render({ model, el });
            widget.render({ model: { ...model, data: first }, el: other });  // before either is in the page
            host('one').append(el, other);
            await el.robviz.ready;
            model.data = second;
            for (const listener of listeners) listener();
            while (!el.innerText.includes('second')) await new Promise(requestAnimationFrame);
            const before = [listeners.size, el.childElementCount, other.childElementCount];
            end();
            return [...before, listeners.size, el.childElementCount, other.childElementCount];
        }""",
        [bundle("widget.js"), frame() | {"note": "first"}, frame() | {"note": "second"}],
    )
    assert followed == [2, 1, 1, 1, 0, 1]


def shown_by(page, name: str, data: Any) -> None:
    """Draw a view in an empty page; what is chosen in it is collected in `seen`."""
    page.evaluate(f"data => {{ robviz.{name}(host('one'), data, (what) => seen.push(what)) }}", data)


def ends(page) -> bool:
    page.evaluate("host('one').robviz.destroy()")
    return page.evaluate("host('one').childElementCount") == 0


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cell_of_the_matrix_gives_its_pair_of_classes(page):
    data: payloads.MatrixData = {"classes": ["a", "b"], "labels": [3, 8], "counts": [[0, 1500], [0, 0]], "note": "n"}
    shown_by(page, "matrix", data)
    page.get_by_role("button", name="a became b: 1.5k pixels").click()
    assert page.evaluate("seen") == [{"label": 3, "seen_as": 8}]
    assert page.inner_text("#one td button") == "1.5k"
    assert ends(page)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cell_of_the_heatmap_gives_its_row_and_is_marked(page):
    cells: list[payloads.HeatmapCell] = [
        {"row": 2, "right": 0.5, "won": False},
        {"row": 4, "right": 0.25, "won": True},
    ]
    shown_by(
        page, "heatmap", {"columns": ["ce", "js"], "rows": [{"title": "x", "clean": 1, "cells": cells}], "note": ""}
    )
    page.get_by_role("button", name="x, js: 25.0 ◆ % pixel accuracy").click()
    assert page.evaluate("seen") == [{"row": 4}]
    assert page.locator("#one [aria-pressed=true]").all_inner_texts() == ["25.0 ◆"]
    assert ends(page)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_click_on_a_picture_gives_its_pixel(page):
    url = png_url(np.full((20, 40, 3), 100, np.uint8))
    data: payloads.WhyData = {
        "panes": [{"title": title, "caption": "", "url": url} for title in ("clean", "attacked")],
        "size": [40, 20],
        "point": [3, 4],
        "scale": None,
        "done": None,
        "logits": [{"name": "a", "colour": [1, 2, 3], "logits": [2, -1], "probabilities": [1, 0], "isTarget": True}],
        "note": "",
    }
    shown_by(page, "why", data)
    box = page.locator("#one img").nth(1).bounding_box()
    page.mouse.click(box["x"] + 0.51 * box["width"], box["y"] + 0.26 * box["height"])
    assert page.evaluate("seen") == [{"x": 20, "y": 5}]
    assert page.locator("#one .rv-logit b").all_inner_texts() == ["2.0", "-1.0"]
    assert ends(page)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_round_of_a_training_can_be_looked_at_while_more_come(page):
    url = png_url(np.full((2, 3, 3), 100, np.uint8))
    rounds: list[payloads.TrainingRound] = [{"url": url, "caption": f"{n} % right"} for n in range(4)]
    data: payloads.TrainingData = {"size": [3, 2], "rounds": rounds[:3], "done": 0.5, "note": ""}
    shown_by(page, "training", data)
    titles = page.locator("#one figure strong")
    assert titles.all_inner_texts() == ["before training", "now"]
    page.locator("#one .rv-rounds button").nth(1).click()
    page.evaluate("data => host('one').robviz.update(data)", data | {"rounds": rounds})
    assert titles.all_inner_texts() == ["before training", "round 1"]
    assert page.locator("#one .rv-rounds button").count() == 4
    assert ends(page)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_chosen_attack_of_an_ensemble_stays_while_others_run(page):
    def row(name: str, is_there: bool) -> payloads.EnsembleRow:
        return {"name": name, "cells": [0.5] if is_there else None, "least": [True] if is_there else None, "state": ""}

    rows = [row("one", True), row("two", True), row("three", False)]
    views = {name: frame() | {"note": f"note of {name}"} for name in ("one", "two")}
    data = {"columns": ["right"], "rows": rows, "last": "two", "views": views}
    shown_by(page, "ensemble", data | {"rows": [row("one", True), row("two", False), row("three", False)]})
    page.evaluate("data => host('one').robviz.update(data)", data)
    page.get_by_role("button", name="one", exact=True).click()
    page.wait_for_function("() => host('one').innerText.includes('note of one')")
    assert page.evaluate("document.activeElement.textContent") == "one"
    page.evaluate("data => host('one').robviz.update(data)", data | {"views": {"two": views["two"]}})
    assert page.locator("#one [scope=row] [aria-pressed=true]").all_inner_texts() == ["one"]
    assert ends(page)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cell_of_the_transfer_table_shows_its_view(page):
    cells: list[payloads.TransferCell] = [
        {"name": "m/clean", "right": 1, "state": ""},
        {"name": "m/m", "right": 0.25, "state": ""},
    ]
    data: payloads.TransferData = {
        "columns": [{"title": "not attacked", "source": "clean"}, {"title": "attacked on m", "source": "m"}],
        "rows": [{"name": "m", "cells": cells}],
        "verdict": "verdict",
        "views": {"m/clean": frame() | {"note": "seen clean"}, "m/m": frame() | {"note": "seen attacked"}},
        "first": "m/clean",
    }
    shown_by(page, "transfer", data)
    page.click('#one [data-cell="m/m"]')
    page.wait_for_function("() => host('one').innerText.includes('seen attacked')")
    assert page.locator("#one .rv-transfer [aria-pressed=true]").get_attribute("data-cell") == "m/m"
    assert page.locator("#one .rv-transfer small").all_inner_texts() == ["pixel accuracy", "own attack"]
    assert ends(page)
