"""The parts that all views share: one subject, an address, widths, themes, and pages to share."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from robviz.app import VIEWS
from robviz.files.paths import bundled_path
from tests.browser import OPENED, choose_model, choose_photo, keep, offline, open_tab, opened, watched

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
TITLES = [title for title, _ in VIEWS]
AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"
#: The last frame of an attack.
FINAL = '#view [data-final="true"]'


def is_in_view(page, selector: str) -> bool:
    """Return True if an element lies within the window, without scrolling."""
    box = page.locator(selector).first.bounding_box()
    size = page.viewport_size
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


#: On a phone: what lies over the bar at the bottom, wherever the page is scrolled to.
OVER_THE_BAR = """() => {
    const bar = document.querySelector('#bar-eps'), found = new Set();
    if (getComputedStyle(bar).position !== 'fixed') return [];
    for (let top = 0; top < document.documentElement.scrollHeight; top += 30) {
        window.scrollTo(0, top);
        const box = bar.getBoundingClientRect();
        for (const x of [0.1, 0.3, 0.5]) for (const y of [0.2, 0.5, 0.8]) {
            const seen = document.elementFromPoint(box.left + x * box.width, box.top + y * box.height);
            if (!bar.contains(seen)) found.add(seen.textContent.trim());
        }
    }
    window.scrollTo(0, 0);
    return [...found];
}"""


@pytest.fixture(scope="module", params=[("light", 1440, 900), ("dark", 390, 844)], ids=["light", "dark phone"])
def tour(request, server, chromium):
    """All views opened one after the other, in a theme and a size: what each was like, and what axe-core found."""
    theme, width, height = request.param
    widths, covers, found = {}, {}, {}
    for page in opened(server, chromium, f"?__theme={theme}", width, height):
        if AXE.is_file():
            page.add_script_tag(path=str(AXE))
        for title, view in VIEWS:
            open_tab(page, title)
            page.wait_for_selector(OPENED.get(view.KEY, "#views [role=tabpanel]:visible >> nth=0"))
            keep(page, f"view-{view.KEY}-{theme}")
            widths[title] = page.evaluate("document.documentElement.scrollWidth")
            covers[title] = page.evaluate(OVER_THE_BAR)
            report = page.evaluate("() => window.axe?.run(document, { resultTypes: ['violations'] })")
            found |= {f"{title}: {one['id']}": one for one in (report or {"violations": []})["violations"]}
        address = page.evaluate("location.search")
    return SimpleNamespace(width=width, widths=widths, covers=covers, found=found, address=address)


@pytest.mark.long
def test_every_view_fits_its_window_and_the_address_names_it(tour):
    assert {title: wide for title, wide in tour.widths.items() if wide > tour.width} == {}
    assert "view=models" in tour.address


@pytest.mark.long
def test_nothing_lies_over_the_bar_of_a_phone(tour):
    assert {title: texts for title, texts in tour.covers.items() if texts} == {}


@pytest.mark.long
def test_no_view_breaks_a_serious_rule_of_accessibility(tour):
    if not AXE.is_file():
        pytest.skip("axe-core is not here: `npm ci` brings it")
    serious = {
        name: [node["failureSummary"] + str(node["target"]) for node in one["nodes"]][:5]
        for name, one in tour.found.items()
        if one["impact"] in ("serious", "critical")
    }
    assert serious == {}, json.dumps(serious, indent=1)


def test_an_address_opens_its_view_on_its_subject(server, chromium):
    for page in opened(server, chromium, "?view=sweep&photo=coffee&model=photos-robust&eps=2"):
        page.wait_for_selector("#sweep .rv")
        assert page.locator('#photo input[value="coffee"]').is_checked()
        assert page.input_value("#model input").startswith("photos-robust")
        assert page.input_value('#eps input[type="number"]') == "2"


def test_a_subject_chosen_in_one_view_is_the_subject_of_the_next(server, chromium):
    for page in opened(server, chromium, "?view=attack"):
        choose_photo(page, "coffee")
        choose_model(page, "photos-robust")
        page.wait_for_selector("#view .rv-chip:has-text('cup')")
        open_tab(page, "Compare")
        page.wait_for_selector("#transfer .rv-chip:has-text('cup')")
        assert page.locator("#transfer th[scope=row]").first.inner_text() == "photos-robust"


def test_everything_to_attack_with_is_in_sight_at_once(server, chromium):
    for page in opened(server, chromium, "?view=attack"):
        for selector in ("#view canvas", "#eps", "#loss", "#steps", "#attack", "#stop", "#live"):
            assert is_in_view(page, selector), selector
    for page in opened(server, chromium, "?view=attack", 390, 844):
        page.locator("#view canvas").last.scroll_into_view_if_needed()
        assert is_in_view(page, "#eps")
        assert is_in_view(page, "#attack")


def test_on_a_phone_stop_takes_the_place_of_attack_while_one_runs(server, chromium):
    for page in opened(server, chromium, "?view=attack&eps=0&steps=300", 390, 844):  # at 0 it does not end early
        page.click("#attack")
        page.wait_for_function("parseInt(document.querySelector('#view [data-score=step] b').innerText) > 0")
        assert is_in_view(page, "#stop")
        keep(page, "phone_running")
        page.click("#stop")
        page.wait_for_selector('#view [data-final="true"]')
        assert "Stopped" in page.inner_text("#view")
        page.wait_for_function("getComputedStyle(document.querySelector('#stop')).position !== 'fixed'")
        assert is_in_view(page, "#attack")


@pytest.mark.long
def test_a_model_of_other_classes_says_what_picture_it_needs(server, chromium):
    for page in opened(server, chromium, "?view=attack"):
        choose_model(page, "camvid-at")
        page.wait_for_selector("#facts:has-text('street scenes')")
        assert "bring your own photo" in page.inner_text("#facts")


def test_a_loss_says_what_it_does_and_draws_its_pull(server, chromium):
    for page in opened(server, chromium, "?view=attack&loss=ce"):
        page.wait_for_selector("#loss-card [data-loss=ce]")
        before = page.inner_html("#loss-card svg")
        page.get_by_role("radio", name="js", exact=True).check(force=True)
        page.wait_for_selector("#loss-card [data-loss=js]")
        assert "Jensen-Shannon" in page.inner_text("#loss-card")
        assert page.inner_html("#loss-card svg") != before


def test_live_goes_on_from_what_was_found_as_the_radius_moves(server, chromium):
    for page in opened(server, chromium, "?view=attack&model=photos-robust&steps=5"):
        page.get_by_label("Live").check()
        page.wait_for_selector(FINAL)
        page.fill('#eps input[type="number"]', "6")
        page.wait_for_function("() => document.querySelector('#view [data-score=change] b').innerText === '6/255'")
        page.wait_for_selector(FINAL)
        page.fill('#eps input[type="number"]', "1")
        page.wait_for_function("() => document.querySelector('#view [data-score=change] b').innerText === '1/255'")
        page.wait_for_selector(FINAL)
        page.get_by_label("Live").uncheck()
        page.fill('#eps input[type="number"]', "3")
        page.wait_for_timeout(500)
        assert page.inner_text("#view [data-score=change] b") == "1/255"


@pytest.mark.long
def test_a_sweep_shows_bad_luck_and_the_smallest_radius_beside_its_curves(server, chromium):
    for page in opened(server, chromium, "?view=sweep"):
        page.fill('#sweep-steps input[type="number"]', "1")
        page.check("#sweep-luck input")
        page.check("#sweep-smallest input")
        page.click("#sweep-run")
        page.wait_for_selector("#sweep .rv-note:has-text('Bad luck of the same size, 12/255, on photos-clean: ')")
        assert page.locator("#sweep .rv-luck text").evaluate_all("all => all.map(one => one.firstChild.data)") == [
            "noise",
            "blur",
            "JPEG",
            "contrast",
        ]
        page.wait_for_selector("#sweep .rv-note:has-text('photos-robust, smallest radius: step ')")
        page.click("#sweep-stop")
        page.wait_for_function("() => !document.querySelector('#sweep').innerText.includes('smallest radius: step')")
        assert "photos-clean: 99 % of the pixels break within " in page.inner_text("#sweep")
        assert page.locator("#sweep .rv-limit line").count() >= 1
        keep(page, "sweep-yardsticks")


@pytest.mark.long
def test_a_model_from_a_file_is_added_to_the_menus_and_a_wrong_file_says_why_not(server, chromium, tmp_path):
    shipped = bundled_path("checkpoints") / "photos-robust.safetensors"
    (tmp_path / "wrong.pt").write_bytes(b"")
    for page in opened(server, chromium):
        open_tab(page, "Models")
        page.set_input_files('[data-testid^="Upload weights"]', [tmp_path / "wrong.pt"])
        page.wait_for_selector(".toast-body:has-text('it is empty; fetch it again')")
        page.click(".toast-close")
        page.fill("#own-path textarea, #own-path input", str(shipped))
        page.fill("#own-name textarea, #own-name input", "brought")
        page.click("#add-own")
        page.wait_for_selector("#own-added:has-text('brought is here, with 9 classes')")
        keep(page, "models-own")
        choose_model(page, "brought")
        page.wait_for_selector("#facts:has-text('brought')")


def test_a_page_that_was_opened_at_a_setting_comes_to_rest(server, chromium):
    asked = []
    for page in opened(server, chromium, "?view=attack&model=photos-robust&eps=2&steps=5"):
        page.wait_for_selector("#estimate:has-text('on this machine')")
        page.wait_for_timeout(2000)
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(1000)
    assert asked == []


COPIES = """
window.copies = 0;
const copy = window.structuredClone;
window.structuredClone = (...what) => { window.copies += 1; return copy(...what); };
"""


def test_a_frame_of_an_attack_copies_little_of_the_page(server, chromium):
    empty = chromium.new_page()
    empty.add_init_script(COPIES)
    for page in watched(empty, f"{server[0]}/?view=attack&steps=8&eps=0"):  # nothing breaks: no step is left out
        page.wait_for_selector("#estimate:has-text('on this machine')")
        before = page.evaluate("window.copies")
        page.click("#attack")
        page.wait_for_selector(FINAL)
        assert page.evaluate("window.copies") - before < 8 * 1000


@pytest.mark.long
def test_a_sweep_draws_a_curve_of_this_picture_and_a_point_opens_its_masks(server, chromium):
    for page in opened(server, chromium, "?view=sweep"):
        page.fill('#sweep-steps input[type="number"]', "1")
        page.click("#sweep-run")
        page.wait_for_selector('#sweep [aria-label^="photos-robust at 12/255"]')
        point = page.locator('#sweep [aria-label^="photos-robust at 4/255"]')
        point.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#sweep .rv-note:has-text('photos-robust at 4/255')")
        keep(page, "sweep")
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").click()
        rows = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
        assert len(rows) == 1 + 2 * 9


@pytest.mark.long
def test_a_result_is_shared_as_a_page_that_opens_from_a_disk(server, chromium, tmp_path):
    for page in opened(server, chromium, "?view=attack&steps=2"):
        page.click("#attack")
        page.wait_for_selector(FINAL)
        page.click("#take > button")
        with page.expect_download() as download:
            page.click("#share")
        download.value.save_as(tmp_path / "shared.html")
    shared = chromium.new_page()
    foreign, errors = offline(shared)
    shared.unroute("**/*")
    shared.goto((tmp_path / "shared.html").as_uri())
    shared.wait_for_selector("[data-score=accuracy]")
    assert "2 steps" in shared.inner_text("body")
    shared.close()
    assert foreign == errors == []
    assert (tmp_path / "shared.html").stat().st_size < 5e6


def test_an_evaluation_is_stopped_goes_on_and_ends_in_failures(server, chromium):
    for page in opened(server, chromium, "?view=evaluate"):
        page.fill('#evaluate-steps input[type="number"]', "1")
        page.fill('#evaluate-images input[type="number"]', "2")
        page.keyboard.press("Tab")
        page.click("#evaluate-run")
        page.wait_for_function("() => document.querySelectorAll('#cards .rv-card').length === 2")
        assert "photos-clean-photos-photographs-quick-1-4-2" in page.input_value("#evaluation input")
        keep(page, "evaluated")
