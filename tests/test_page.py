"""Results as one file: what it holds, what it forbids, and how it behaves when it is opened from a disk."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from robviz.attacks import last_of
from robviz.cli import main
from robviz.files.images import png_url
from robviz.files.paths import bundled_path
from robviz.interactive.ensemble import ensemble_steps
from robviz.interactive.scenario import Scenario, run_scenario, subject_for
from robviz.interactive.transfer import transfer_steps
from robviz.results.plan import Blockwise, Run, SeaSettings
from robviz.sea import SETTINGS
from robviz.types import InputError
from robviz.viewer.folder import folder_page
from robviz.viewer.page import MOST_BYTES, VIEWS, embedded, page
from robviz.viewer.sharing import attack_page, command_of, ensemble_code, ensemble_page, transfer_page
from tests.conftest import HOSTILE

SHIPPED = bundled_path("checkpoints") / "failures"
QUICK = Scenario(steps=2)
HARM = "</script><!--<img src=x onerror=alert(1)>\u2028&\"'"


def payload_of(text: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])


def again_of(text: str) -> str:
    return html.unescape(re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def attacked() -> str:
    return attack_page(QUICK, run_scenario(QUICK), "A note.")


@pytest.fixture(scope="module")
def evaluated():
    return folder_page(SHIPPED / "photos-robust")


# ------------------------------------------------------------------------------------------ the file


def test_words_of_anyone_are_text():
    text = page(HARM, "viewer", {"classes": [HARM]}, setting={HARM: HARM}, again=HARM, lead=HARM)
    assert payload_of(text)["data"] == {"classes": [HARM]}
    assert again_of(text) == HARM.strip()
    assert "<img" not in text
    assert "<!--" not in text
    assert "\u2028" not in re.search(r'id="payload">.*', text)[0]
    assert len(re.findall("<script", text)) == len(re.findall("</script>", text)) == 3


@pytest.mark.slow
def test_the_policy_allows_the_scripts_and_the_style_of_the_page_and_no_request(attacked):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', attacked)[1]
    parts = re.findall(r"<script>(.*?)</script>|<style>(.*?)</style>", attacked, re.DOTALL)
    for content in ("".join(part) for part in parts):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert len(parts) == 3
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"unsafe|https?:|connect-src|\*", policy)


def test_a_picture_is_written_once_and_keeps_every_pixel():
    url = png_url(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    packed = json.loads(embedded("viewer", {"a": url, "b": [url, float("nan"), {"picture": 1, "c": 2}]}))
    assert packed["data"] == {"a": {"picture": 0}, "b": [{"picture": 0}, None, {"picture": 1, "c": 2}]}
    assert len(packed["pictures"]) == 1
    assert len(packed["pictures"][0]) <= len(url)


def test_an_unknown_view_is_refused():
    assert {"viewer", "ensemble", "transfer", "failures"} <= set(VIEWS)
    with pytest.raises(InputError, match="unknown view 'film'; choose from: ensemble, "):
        page("t", "film", {}, setting={}, again="")


def test_an_attack_says_how_it_was_made_and_fits(attacked):
    assert len(attacked.encode()) < MOST_BYTES / 4
    assert re.search(r"<dd>photos-clean, SHA-256 [0-9a-f]{64}</dd>", attacked)
    assert "apgd, loss mask-ce, 2 steps, seed 0" in attacked
    assert re.search(r"<dd>python [\d.]+, robviz ", attacked)
    assert again_of(attacked) == QUICK.cell().strip()


def test_an_attack_that_has_not_ended_is_refused():
    shown = replace(run_scenario(Scenario(steps=1)), is_final=False)
    with pytest.raises(InputError, match="no finished attack to share yet"):
        attack_page(QUICK, shown, "")


@pytest.mark.slow
def test_the_lines_on_the_pages_make_the_results_again():
    setting, settings = Scenario(steps=1, photo="coffee"), SeaSettings("mine", (Run("ce", "apgd", 1),))
    subject, note = subject_for(setting.photo, None, setting.model)
    shown = last_of(ensemble_steps(subject, setting.spec().eps, settings))
    text = ensemble_page(setting, settings, shown, note)
    made: dict = {}
    exec(again_of(text), made)
    assert made["shown"]["ce.apgd.1"].scores_after == shown["ce.apgd.1"].scores_after
    subjects = {name: subject_for(setting.photo, None, name)[0] for name in ("photos-clean", "photos-robust")}
    found = last_of(transfer_steps(subjects, setting.spec()))
    text = transfer_page(setting, found, dict.fromkeys(subjects, note))
    exec(again_of(text), made)
    assert {pair: one.scores_after for pair, one in made["found"].items()} == {
        pair: one.scores_after for pair, one in found.items()
    }


@pytest.mark.parametrize(
    "settings",
    [*SETTINGS.values(), SETTINGS["paper"].with_steps(7), SETTINGS["strong"].with_steps(30),
     replace(SETTINGS["paper"], seed=3), SeaSettings("a-5", (Run("ce"),))],
    ids=str,
)  # fmt: skip
def test_an_ensemble_is_written_as_python_that_makes_it(settings):
    code, names = ensemble_code(settings)
    scope: dict = {}
    exec(names, scope)
    made = eval(code, scope)
    assert made == settings
    assert isinstance(made, Blockwise) == isinstance(settings, Blockwise)


def test_a_comment_stays_one_line():
    assert command_of([["robviz", "page", "a b"], [], ["--title", "x"]], ["one\nrm -r x"]) == (
        "# one rm -r x\nrobviz page 'a b' \\\n    --title x\n"
    )


# ------------------------------------------------------------------------------------------ an evaluation


@pytest.mark.slow
def test_an_evaluation_holds_all_pictures_the_worst_first_and_its_command(evaluated):
    assert (evaluated.shown, evaluated.total) == (14, 14)
    assert len(evaluated.text.encode()) < MOST_BYTES / 4
    data = payload_of(evaluated.text)["data"]
    assert [card["title"] for card in data["gallery"]["cards"]][:2] == ["grace_hopper", "cheetah1"]
    assert data["gallery"]["note"].startswith("This page shows all 14 attacked pictures")
    assert data["scores"][0]["value"] == "95.0 % → 86.6 %"
    assert again_of(evaluated.text).replace(" \\\n   ", "").splitlines() == [
        "robviz evaluate photos-robust --dataset photos --split photographs --limit 14 --eps 4 --settings quick "
        "--precision fp32 --keep-masks --out photos-robust",
        "robviz page photos-robust",
    ]


@pytest.mark.slow
def test_a_page_that_is_full_says_how_many_of_how_many_it_shows():
    for limited in (
        folder_page(SHIPPED / "photos-clean", limit=3),
        folder_page(SHIPPED / "photos-clean", most_bytes=1),
    ):
        assert limited.shown in (1, 3)
        data = payload_of(limited.text)["data"]
        assert data["gallery"]["total"] == 14
        assert data["gallery"]["note"].startswith(f"This page shows the worst {limited.shown} of 14")
        assert {flip[0] for flip in data["flips"]} <= {int(row) for row in data["views"]}
    with pytest.raises(InputError, match="limit must be at least 1"):
        folder_page(SHIPPED / "photos-clean", limit=0)


@pytest.fixture
def doubtful(tmp_path):
    """An evaluation whose masks were not kept, and whose report has a doubt."""
    folder = shutil.copytree(SHIPPED / "photos-robust", tmp_path / "doubtful")
    shutil.rmtree(folder / "masks")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["doubts"] = ["do not believe this figure: the gradient was 0"]
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def test_without_masks_the_tables_stand_and_the_page_says_what_is_missing(doubtful):
    shared = folder_page(doubtful, limit=5, title="Mine")
    data = payload_of(shared.text)["data"]
    assert shared.shown == 0
    assert "<h1>Mine</h1>" in shared.text
    assert data["doubts"] == ["Do not believe this figure: the gradient was 0."]
    assert "masks were not kept" in data["missing"]
    assert [table["title"] for table in data["tables"]] == [
        "What each attack leaves, in %", "IoU by class", "The worst pictures, 5 of 14",
    ]  # fmt: skip
    assert data["tables"][2]["rows"][0][0] == "grace_hopper"


def test_the_command_writes_a_page(tmp_path, capsys):
    out = tmp_path / "new" / "results.html"
    main(["page", str(SHIPPED / "photos-clean"), "--out", str(out), "--limit", "2", "--title", "<b>"])
    assert "2 of 14 pictures" in capsys.readouterr().out
    assert "<title>&lt;b&gt;</title>" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["page", "EMPTY"], "holds neither an evaluation nor attacked pictures; expected a folder that"),
        (["page", "EMPTY/nowhere"], "holds neither an evaluation nor attacked pictures"),
        (["page", str(SHIPPED / "photos-clean"), "--limit", "1", "--out", "EMPTY/x.txt"], "is written as .html; got"),
    ],
)
def test_what_cannot_become_a_page_gets_one_sentence(tmp_path, words, says):
    with pytest.raises(SystemExit, match=says):
        main([word.replace("EMPTY", str(tmp_path)) for word in words])


# ------------------------------------------------------------------------------------------ from a disk, in Chromium


@pytest.fixture
def opened(chromium, tmp_path):
    """Open a page from disk with a colour scheme and a width; nothing may be asked for, and no error logged."""
    contexts, said = [], []

    def at(text: str, scheme: str = "light", width: int = 1440):
        (tmp_path / "shared.html").write_text(text, encoding="utf-8")
        contexts.append(chromium.strangers.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}))
        tab = contexts[-1].new_page()
        address = (tmp_path / "shared.html").as_uri()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("request", lambda request: said.append(request.url) if request.url != address else None)
        tab.goto(address)
        tab.wait_for_selector("#shown[data-ready]")
        return tab

    at.said = said
    yield at
    for context in contexts:
        context.close()
    assert [one for one in said if not one.startswith("data:image/")] == []


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("width", [390, 1440])
def test_a_page_opens_offline_and_its_viewer_is_alive(opened, attacked, width):
    tab = opened(attacked, width=width)
    assert tab.locator("#shown .rv-panes figure").count() == 4
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    slider = tab.get_by_label("step of the attack")
    slider.focus()
    tab.keyboard.press("Home")
    assert tab.inner_text("#shown .rv-time output").startswith("step 0, ")
    tab.keyboard.press("End")
    assert "pixel accuracy" in tab.inner_text("#shown .rv-time output")


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_page_follows_the_system_in_light_and_dark_until_the_button_is_pressed(opened, attacked):
    tab = opened(attacked, scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(colour)
    assert tab.evaluate("document.documentElement.classList.contains('dark')")
    tab.click("#colours")
    assert tab.inner_text("#colours") == "Dark"
    light = tab.evaluate(colour)
    assert light != dark
    assert opened(attacked).evaluate(colour) == light


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_page_can_ask_nobody(opened, attacked):
    tab = opened(attacked)
    assert tab.evaluate("fetch('https://example.org').then(() => false, () => true)")
    assert "violates the following Content Security Policy" in opened.said.pop(0)
    opened.said.clear()  # the browser may say it twice


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_card_shows_its_picture_and_a_cell_of_the_matrix_narrows_the_cards(opened, evaluated):
    tab = opened(evaluated.text)
    assert tab.locator("[role=option][aria-selected=true] strong").inner_text() == "grace_hopper"
    tab.locator("[role=option]").nth(1).click()
    tab.wait_for_function("document.querySelector('#shown .rv-linked').innerText.includes('cheetah1 under')")
    tab.locator(".rv-matrix td button").first.click()
    tab.wait_for_selector(".rv-narrowed:not([hidden])")
    assert 0 < tab.locator("[role=option]").count() < 14
    tab.get_by_role("button", name="show all pictures").click()
    assert tab.locator("[role=option]").count() == 14


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_class_with_the_name_of_an_element_stays_text(opened, evaluations):
    tab = opened(folder_page(evaluations / "with-harm", limit=2).text)
    assert HOSTILE in tab.inner_text("#shown")
    assert tab.locator("img[src=x]").count() == 0


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_doubt_stands_first(opened, doubtful):
    tab = opened(folder_page(doubtful).text)
    assert tab.inner_text("#shown").startswith("Do not believe this figure: the gradient was 0.")
    assert tab.locator("#shown table").count() == 3
