"""The view of failures, in Chromium: two evaluations, one of them with names that mean harm."""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path

import pytest
from gradio_client.exceptions import AppError

from robviz.files.paths import bundled_path
from robviz.results.annotations import annotations_path, read_annotations, write_annotation
from robviz.results.failures import failures, select
from tests.browser import keep, opened
from tests.conftest import HOSTILE
from tests.server import until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
SHIPPED = bundled_path("checkpoints/failures")
FILTERS = ["accuracy drop", "", -1, -1, "", False]


@pytest.fixture
def page(server, chromium):
    yield from opened(server, chromium, "?view=failures")


def titles(page) -> list[str]:
    return page.locator("#cards .rv-card strong").all_inner_texts()


def wait_for_first(page, title: str) -> None:
    page.wait_for_function("name => document.querySelector('#cards .rv-card strong')?.textContent === name", arg=title)


def shown(page, name: str) -> None:
    """Wait until the viewer shows a picture."""
    says = "name => document.querySelector('#failure .rv-note').textContent.startsWith(`${name} under`)"
    page.wait_for_function(says, arg=name)


def choose(page, elem_id: str, option: str) -> None:
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def test_the_gallery_shows_the_worst_first_and_a_card_opens_in_the_viewer(page, evaluations):
    expected = select(failures(evaluations / "photos-clean"))
    assert titles(page) == list(expected["image"])
    page.locator("#cards .rv-card").nth(2).click()
    shown(page, expected["image"].iloc[2])
    said = page.inner_text('#failure [data-score="accuracy"] b')
    assert said == f"{100 * expected['clean'].iloc[2]:.1f} % → {100 * expected['attacked'].iloc[2]:.1f} %"
    layers = page.locator("#failure figcaption select").first
    assert layers.locator('option[value="attacked"]').is_disabled()  # not kept
    assert layers.locator('option[value="errors"]').is_enabled()
    layers.select_option("errors")
    keep(page, "failures")


def test_keys_go_to_the_next_and_the_previous_card_and_not_out_of_a_note(page):
    names = titles(page)
    page.locator("#cards .rv-card").nth(1).focus()
    page.keyboard.press("Enter")
    shown(page, names[1])
    page.keyboard.press("ArrowRight")
    shown(page, names[2])
    page.keyboard.press("n")
    shown(page, names[3])
    page.keyboard.press("p")
    shown(page, names[2])
    page.locator("#note textarea").fill("nnn")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#note textarea").press("n")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert asked == []
    shown(page, names[2])


def test_a_cell_of_the_flip_matrix_filters_by_its_pair(page, evaluations):
    found = failures(evaluations / "photos-clean")
    cell = page.get_by_role("button", name=re.compile("^cup became background"))
    pixels = int(re.search(r"(\d+) pixels", cell.get_attribute("title"))[1])
    cell.click()
    rows = select(found, label=found.classes.index("cup"), seen_as=0)
    assert pixels == rows["flipped"].sum()
    wait_for_first(page, rows["image"].iloc[0])
    page.wait_for_function("n => document.querySelectorAll('#cards .rv-card').length === n", arg=len(rows))
    assert titles(page) == list(rows["image"])


def test_sorting_and_filtering_change_the_cards(page, evaluations):
    found = failures(evaluations / "photos-clean")
    choose(page, "sort", "image")
    wait_for_first(page, "astronaut")
    choose(page, "was", "coin")
    rows = select(found, label=found.classes.index("coin"), sort_by="image")
    page.wait_for_function("n => document.querySelectorAll('#cards .rv-card').length === n", arg=len(rows))
    choose(page, "was", "any class")
    choose(page, "winner", "js")
    rows = select(found, loss="js", sort_by="image")
    page.wait_for_function("n => document.querySelectorAll('#cards .rv-card').length === n", arg=len(rows))
    assert titles(page) == list(rows["image"])


@pytest.mark.long
def test_another_evaluation_opens_and_a_class_named_like_a_page_stays_text(page, evaluations):
    worst = select(failures(evaluations / "with-harm"))["image"].iloc[0]
    choose(page, "evaluation", "with-harm")
    wait_for_first(page, worst)
    shown(page, worst)
    assert HOSTILE in page.locator("#flips").text_content()
    assert page.locator("#flips img, #failure img").count() == 0
    page.locator("#was input").click()
    assert page.get_by_role("option", name=HOSTILE, exact=True).count() == 1
    page.keyboard.press("Escape")


def test_a_note_is_kept_beside_the_evaluation_and_comes_back(page, evaluations):
    names = titles(page)
    page.locator("#cards .rv-card").nth(4).click()
    shown(page, names[4])
    note = "<b>why</b> here?"
    page.locator("#note textarea").fill(note)
    page.locator("#note textarea").blur()
    index = select(failures(evaluations / "photos-clean"))["index"].iloc[4]
    until(lambda: read_annotations(evaluations / "photos-clean").get(str(index)) == note)
    page.locator("#cards .rv-card").first.click()
    shown(page, names[0])
    page.locator("#cards .rv-card").nth(4).click()
    page.wait_for_function("note => document.querySelector('#note textarea').value === note", arg=note)


def test_the_selection_downloads_as_csv_and_as_zip(page, evaluations, tmp_path):
    choose(page, "winner", "js")
    rows = select(failures(evaluations / "photos-clean"), loss="js")
    page.wait_for_function("n => document.querySelectorAll('#cards .rv-card').length === n", arg=len(rows))
    for kind in ("csv", "zip"):
        with page.expect_download() as download:
            page.locator(f"#take-{kind}").click()
        download.value.save_as(tmp_path / f"taken.{kind}")
    with (tmp_path / "taken.csv").open(newline="") as file:
        assert [line["image"] for line in csv.DictReader(file)] == list(rows["image"])
    with zipfile.ZipFile(tmp_path / "taken.zip") as archive:
        assert archive.testzip() is None
        assert len([name for name in archive.namelist() if name.startswith("masks/")]) == 2 * len(rows)


@pytest.mark.long
def test_on_a_phone_nothing_sticks_out(server, chromium):
    for page in opened(server, chromium, "?view=failures", 390, 840):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        keep(page, "failures-phone")


def test_only_numbers_of_served_evaluations_open_anything(client):
    gallery, flips = client.predict(0, *FILTERS, api_name="/failures")
    assert gallery["total"] == 14
    assert "background" in flips["classes"]
    for forged in (3, -1, "../outside/c", None):  # the fourth folder is a link out of the root
        with pytest.raises(AppError) as refused:
            client.predict(forged, *FILTERS, api_name="/failures")
        assert "Traceback" not in str(refused.value)
    with pytest.raises(AppError):
        client.predict(0, "accuracy drop", "", 99, -1, "", False, api_name="/failures")


def test_notes_on_what_may_not_be_written_to_go_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))
    folder = SHIPPED / "photos-clean"
    write_annotation(folder, 3, "look")
    assert read_annotations(folder) == {"3": "look"}
    assert annotations_path(folder).is_relative_to(tmp_path / "cache")
    write_annotation(folder, 3, "  ")
    assert read_annotations(folder) == {}
    with pytest.raises(ValueError, match="at most 2000 characters"):
        write_annotation(folder, 3, "x" * 2001)
    annotations_path(folder).write_text("[1]")
    with pytest.raises(ValueError, match="does not hold notes"):
        read_annotations(folder)


def test_an_evaluation_is_shared_as_a_page(client):
    path = client.predict(0, api_name="/share_failures")
    text = Path(path).read_text(encoding="utf-8")
    assert '"view":"failures"' in text
    assert len(text) < 5e6
    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict(99, api_name="/share_failures")
