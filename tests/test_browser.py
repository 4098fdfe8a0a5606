"""The app as a visitor sees it, in Chromium; each test keeps a screenshot in `screenshots/`."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from robviz.attacks import predicted
from robviz.datasets import load_dataset
from robviz.files.images import largest_change, to_bytes, to_tensor
from robviz.interactive.landing import LANDING_PHOTOS
from robviz.models import load_model
from tests.browser import (
    OPENED,
    choose_model,
    choose_photo,
    hover,
    keep,
    layer,
    open_tab,
    opened,
    score,
    viewer,
    watched,
)
from tests.server import LONG, Effort, wait_until_idle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def page(server, chromium):
    """Attack, opened; afterwards it must have asked nobody else for anything and logged no error."""
    yield from opened(server, chromium, "?view=attack")


@pytest.fixture
def overview(server, chromium):
    """The first view, opened likewise."""
    yield from opened(server, chromium)


@pytest.fixture
def attacked(page):
    """The same, once an attack of a few steps is through."""
    page.fill('#steps input[type="number"]', "6")
    page.click("#attack")
    page.wait_for_selector('#view [data-final="true"]')
    return page


STEP = "parseInt(document.querySelector('#view [data-score=step] b').innerText)"


def wait_for_a_step(page, step: int = 1) -> int:
    """Wait until an attack has made a number of steps; return how many it has made."""
    page.wait_for_function(f"step => {STEP} >= step", arg=step)
    return page.evaluate(STEP)


def begin_long_attack(page) -> None:
    """Start an attack of `LONG` steps that cannot end early, as nothing breaks at radius 0."""
    page.fill('#eps input[type="number"]', "0")
    page.fill('#steps input[type="number"]', str(LONG))
    page.click("#attack")
    wait_for_a_step(page)


def landing(page, expression: str):
    """The same for the first view."""
    return page.evaluate(
        f"() => {{ const v = document.querySelector('#landing [data-painted]').robviz; return {expression} }}"
    )


def right(page) -> list[int]:
    """Pixel accuracy, in per cent, of both models in the first view."""
    return [int(text.split()[0]) for text in page.locator("#landing figcaption b").all_inner_texts()]


def test_the_first_view_shows_both_models_before_anything_is_clicked(overview):
    page = overview
    assert page.locator("#photo label").count() > len(LANDING_PHOTOS)
    ordinary, robust = right(page)
    assert ordinary < 20 < 60 < robust
    assert "precomputed" in page.inner_text("#landing .rv-note")
    keep(page, "landing")


def test_the_scrubber_goes_through_the_radii_by_key_and_by_mouse(overview):
    page = overview
    page.focus("#landing input[type=range]")
    seen = []  # without motion, each key has done its work when it returns
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        page.keyboard.press(key)
        seen.append(float(page.inner_text("#landing .rv-radius b")))
    assert seen == [0, 0.5, 1, 12]
    assert "robust model:" in page.get_attribute("#landing input[type=range]", "aria-valuetext")
    before = page.evaluate("document.querySelector('#landing canvas').toDataURL()")
    page.locator("#landing .rv-chart").scroll_into_view_if_needed()
    box = page.locator("#landing .rv-chart").bounding_box()
    page.mouse.click(box["x"] + 44 + (box["width"] - 60) * 4 / 12, box["y"] + 40)
    assert page.inner_text("#landing .rv-radius b") == "4"
    assert page.evaluate("document.querySelector('#landing canvas').toDataURL()") != before
    ordinary, robust = right(page)
    assert ordinary < 20 < 60 < robust


def test_the_first_view_follows_the_bar_and_says_when_nothing_is_known(overview):
    page = overview
    choose_photo(page, "coffee")
    page.wait_for_function(
        "() => document.querySelector('#landing canvas').getAttribute('aria-label').startsWith('cup of coffee')"
    )
    choose_photo(page, "rocket")
    page.get_by_text("Nothing was computed beforehand for this picture").wait_for()
    assert not page.is_visible("#landing canvas")
    choose_photo(page, "lion")
    page.wait_for_selector("#landing canvas >> nth=0")


def test_the_radius_of_the_first_view_is_that_of_the_bar(overview):
    page = overview
    page.focus("#landing input[type=range]")
    page.keyboard.press("End")
    page.wait_for_function("() => document.querySelector('#eps input[type=number]').value === '12'")
    page.fill('#eps input[type="number"]', "2")
    page.wait_for_function("() => document.querySelector('#landing .rv-radius b').innerText === '2'")
    open_tab(page, "Attack")
    page.wait_for_selector("#view .rv[data-final]")
    assert page.input_value('#eps input[type="number"]') == "2"


@pytest.mark.long
def test_the_first_view_plays_once_by_itself(server, chromium):
    for page in watched(chromium.new_page(1280, 900, motion=True), server[0]):
        page.wait_for_function("() => document.querySelector('#landing [data-painted]').robviz.state.eps === 4")
        assert page.inner_text("#landing .rv-scrub-head button") == "▶"
        keep(page, "played")


def test_a_visitor_who_wants_no_motion_gets_none(overview):
    page = overview
    assert landing(page, "v.state.eps") == 4
    page.focus("#landing input[type=range]")
    page.keyboard.press("ArrowRight")
    assert landing(page, "v.state.eps") == 6


def test_the_live_part_opens_with_a_picture_and_its_mask(page):
    assert re.fullmatch(r"[\d.]+ %", score(page, "accuracy"))
    assert score(page, "step") == "0 of 20"
    assert "Press Attack" in page.inner_text("#view")
    assert not page.is_visible("#curve")  # nothing to plot yet


def test_the_saved_attacked_picture_is_exact_and_breaks_the_model_again(attacked, tmp_path):
    page = attacked
    page.locator("#view figure select").nth(0).select_option("attacked")
    with page.expect_download() as download:
        page.locator("#view [data-tool=save]").nth(0).click()
    assert download.value.suggested_filename == "robviz-attacked.png"
    download.value.save_as(tmp_path / "attacked.png")
    saved, sample = Image.open(tmp_path / "attacked.png").convert("RGB"), load_dataset("photos", "photographs")[2]
    assert largest_change(np.asarray(saved), to_bytes(sample.image)) == 4
    seen = predicted(load_model("photos-clean"), to_tensor(saved)[None])[0]
    valid = sample.labels >= 0
    accuracy = (seen == sample.labels)[valid].float().mean().item()
    assert score(page, "accuracy").endswith(f"→ {100 * accuracy:.1f} %")


def test_pick_a_photo_attack_it_and_see_the_mask_change(page):
    choose_photo(page, "rocket")
    page.wait_for_function("() => /rv-chip|person|rocket/.test(document.querySelector('#view .rv-legend').innerText)")
    clean = layer(page, "after")
    page.fill('#eps input[type="number"]', "8")
    page.fill('#steps input[type="number"]', "8")
    page.click("#attack")
    wait_for_a_step(page)
    assert layer(page, "after") != clean
    page.wait_for_selector('#view [data-final="true"]')
    assert score(page, "step") == "8 of 8" or "no pixel is left to break" in page.inner_text("#view")
    assert score(page, "change") == "8/255"
    assert layer(page, "after") != clean
    keep(page, "attacked")


def tab_to(page, selector: str) -> None:
    """Press Tab until the focus is there, as someone without a mouse does."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


def test_an_attack_is_made_stopped_and_read_with_the_keyboard_alone(page):
    tab_to(page, "#eps input[type=number]")
    page.keyboard.press("Control+a")
    page.keyboard.type("0")  # nothing breaks, so that the attack cannot end early
    tab_to(page, "#steps input[type=number]")
    page.keyboard.press("Control+a")
    page.keyboard.type(str(LONG))
    tab_to(page, "#attack")
    page.keyboard.press("Enter")
    wait_for_a_step(page)
    tab_to(page, "#stop")
    page.keyboard.press("Enter")
    page.wait_for_selector('#view [data-final="true"]')
    tab_to(page, "#view canvas")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text('#view .rv-reading [data-read="place"]')
    assert "Stopped" in page.inner_text("#view")


def test_an_attack_right_after_another_choice_is_of_that_choice_and_the_old_one_ends(page, server):
    begin_long_attack(page)
    page.fill('#eps input[type="number"]', "4")
    page.fill('#steps input[type="number"]', "3")
    choose_model(page, "photos-robust")
    page.click("#attack")
    page.wait_for_function("document.querySelector('#view [data-score=step] b').innerText === '3 of 3'")
    wait_until_idle(server[1])
    assert score(page, "step") == "3 of 3"
    right = float(score(page, "accuracy").split()[-2])
    assert right > 60  # the ordinary model would have lost more


def test_a_preset_shows_while_the_fields_hold_its_values(page):
    page.get_by_role("radio", name="paper").click()
    page.wait_for_function("document.querySelector('#steps input[type=number]').value === '300'")
    page.fill('#steps input[type="number"]', "7")
    page.wait_for_function("document.querySelectorAll('#preset input:checked').length === 0")
    page.fill('#steps input[type="number"]', "300")
    page.wait_for_function("document.querySelector('#preset input:checked')?.value === 'paper'")


@pytest.mark.long
def test_a_running_attack_leaves_zoom_layers_and_toggles_alone(page):
    page.locator("#view canvas").nth(2).focus()
    for key in ("+", "6", "w"):
        page.keyboard.press(key)
    page.get_by_role("button", name=re.compile("^cat ")).click()
    before = viewer(page, "[v.state.scale, v.state.panes.map(p => [p.layer, p.wipe]), [...v.state.hidden]]")
    page.evaluate("document.querySelector('#view .rv').dataset.same = 'yes'")
    page.fill('#eps input[type="number"]', "0")  # nothing breaks, so that the attack cannot end early
    page.fill('#steps input[type="number"]', "4")
    page.click("#attack")
    wait_for_a_step(page)
    page.wait_for_selector('#view [data-final="true"][data-same="yes"]')
    assert score(page, "step") == "4 of 4"
    assert viewer(page, "[v.state.scale, v.state.panes.map(p => [p.layer, p.wipe]), [...v.state.hidden]]") == before
    keep(page, "kept")


def test_stop_ends_the_attack_and_keeps_its_result(page, server):
    wait_until_idle(server[1])
    effort = Effort(server[1])
    begin_long_attack(page)
    with effort.saved_after(wait_for_a_step(page, 10)):
        page.click("#stop")
        page.wait_for_selector('#view [data-final="true"]')
    assert "Stopped" in page.inner_text("#view")
    assert int(score(page, "step").split()[0]) < LONG
    keep(page, "stopped")


def box_of(page) -> str:
    return page.input_value("#region textarea, #region input")


def test_a_region_is_drawn_by_mouse_and_by_key_and_only_its_pixels_change(page):
    page.click("#view [data-tool=region]")
    hover(page, 0, 0.25, 0.25)
    page.mouse.down()
    hover(page, 0, 0.5, 0.75)
    page.mouse.up()
    left, top, right_, bottom = map(int, box_of(page).split(","))
    assert (left, top, right_, bottom) == pytest.approx((64, 42, 129, 128), abs=2)
    page.get_by_label("change only these pixels").check()
    keep(page, "region")
    page.fill('#steps input[type="number"]', "3")
    page.click("#attack")
    page.wait_for_selector('#view [data-final="true"]')
    moved = viewer(
        page,
        "(() => { const c = n => v.layerCanvas(n).getContext('2d'), a = c('image').getImageData(0, 0, 256, 170).data,"
        "b = c('attacked').getImageData(0, 0, 256, 170).data; return [...a.keys()].filter(i => a[i] !== b[i]) })()",
    )
    columns, rows = np.array(moved) // 4 % 256, np.array(moved) // 4 // 256
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (left, top, right_ - 1, bottom - 1)
    page.locator("#view canvas").nth(0).focus()
    page.keyboard.press("b")
    assert box_of(page) == ""
    for key in ("b", "Shift+ArrowRight", "Shift+ArrowDown", "b"):
        page.keyboard.press(key)
    assert re.fullmatch(r"\d+, \d+, \d+, \d+", box_of(page))


@pytest.mark.long
def test_the_address_alone_restores_the_setting_in_another_browser(server, chromium, page):
    page.fill('#eps input[type="number"]', "2")
    page.fill('#steps input[type="number"]', "3")
    clean = page.inner_text('#view [data-score="accuracy"] b')
    choose_model(page, "photos-robust")
    # Another model shows its mask first, and ends what was begun before.
    page.wait_for_function(
        "clean => document.querySelector('#view [data-score=accuracy] b').textContent !== clean", arg=clean
    )
    page.click("#attack")
    page.wait_for_function("() => location.search.includes('model=photos-robust')")
    page.wait_for_selector('#view [data-final="true"]')
    query = page.evaluate("location.search")
    assert query == "?model=photos-robust&eps=2&steps=3"  # all of it; a page of its own has no cookie, no storage
    for again in watched(chromium.strangers.new_page(), f"{server[0]}/{query}", there=OPENED["attack"]):
        again.wait_for_function("() => document.querySelector('#steps input[type=number]').value === '3'")
        assert again.input_value('#eps input[type="number"]') == "2"
        assert again.input_value("#model input").startswith("photos-robust")


#: Whether a part of a row lies within it.
IN_SIGHT = """selector => {
    const part = document.querySelector(selector).closest("label");
    const [its, all] = [part, part.parentElement].map(one => one.getBoundingClientRect());
    return its.left >= all.left && its.right <= all.right;
}"""


def test_the_picture_of_an_address_is_in_sight(server, chromium):
    for page in opened(server, chromium, "?photo=tower&view=attack"):
        page.wait_for_function(IN_SIGHT, arg="#photo input[value=tower]")


def test_the_overview_rests_while_another_view_is_open(server, chromium):
    url = f"{server[0]}/?photo=coffee&view=attack&eps=8"
    for page in watched(chromium.new_page(1440, 900, motion=True), url):
        page.wait_for_timeout(3000)
        assert landing(page, "v.loaded.size") <= 2
        assert not landing(page, "v.isPlaying")
        open_tab(page, "Overview")
        page.wait_for_function("() => document.querySelector('#landing [data-painted]').robviz.current")
        assert landing(page, "v.data.photos[v.state.photo].name") == "coffee"
        assert page.inner_text("#landing .rv-radius b") == "8"
        keep(page, "overview-opened")


def test_the_overview_comes_to_rest_at_the_radius_of_an_address(server, chromium):
    for page in opened(server, chromium, "?view=overview&eps=8"):
        page.wait_for_function("() => document.querySelector('#landing .rv-radius b')?.innerText === '8'")


def test_a_forged_address_is_refused_in_one_sentence_and_the_page_works(server, chromium):
    url = f"{server[0]}/?view=attack&model=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
    for page in watched(chromium.new_page(), url, there="text=model must be one of"):
        open_tab(page, "Attack")
        page.fill('#steps input[type="number"]', "2")
        page.click("#attack")
        page.wait_for_selector('#view [data-final="true"]')


def test_an_impossible_setting_is_refused_once(page):
    page.evaluate(
        """() => {
            window.refusals = 0;
            const count = node => { if (/holds no pixel/.test(node.textContent)) window.refusals += 1; };
            new MutationObserver(changes => changes.forEach(change => change.addedNodes.forEach(count)))
                .observe(document.querySelector(".toast-wrap") ?? document.body, { childList: true, subtree: true });
        }"""
    )
    page.fill("#region input, #region textarea", "9, 9, 1, 1")
    page.click("#attack")
    page.wait_for_selector("text=holds no pixel")
    page.fill("#region input, #region textarea", "")
    page.fill('#steps input[type="number"]', "1")
    page.click("#attack")
    page.wait_for_selector('#view [data-final="true"]')  # a second refusal would have come before
    assert page.evaluate("window.refusals") == 1


def test_a_saved_zip_opens_again_with_the_same_view(attacked, tmp_path):
    page, result = attacked, layer(attacked, "after")
    page.click("#take > button")
    page.click("#save")
    page.wait_for_selector("#verdict >> text=still fools the model")
    with page.expect_download() as download:
        page.click("#saved a")
    download.value.save_as(tmp_path / "robviz.zip")
    assert "Scenario(" in page.inner_text("#cell")
    keep(page, "take")
    choose_photo(page, "rocket")
    page.wait_for_selector('#view [data-final="false"]')
    page.set_input_files('[data-testid="Open a saved zip-upload-button"]', str(tmp_path / "robviz.zip"))
    page.wait_for_selector('#view [data-final="true"]')
    assert layer(page, "after") == result
    assert "Read back from the file" in page.inner_text("#view .rv-note")


def test_closing_the_tab_ends_the_computation(page, server):
    wait_until_idle(server[1])
    effort = Effort(server[1])
    begin_long_attack(page)
    with effort.saved_after(wait_for_a_step(page, 10)):
        page.close()


@pytest.mark.long
def test_two_tabs_do_not_mix_and_the_one_that_waits_reads_its_place_in_the_queue(page, server, chromium):
    begin_long_attack(page)
    for other in opened(server, chromium, "?view=attack", width=1280):
        choose_photo(other, "coffee")
        other.wait_for_selector("#view .rv-chip:has-text('cup')")
        other.fill('#eps input[type="number"]', "0")
        other.fill('#steps input[type="number"]', "4")
        pictures = [layer(tab, "image") for tab in (page, other)]
        other.click("#attack")
        other.wait_for_selector("#queue .progress-text:has-text('queue: 1/')")
        keep(other, "in_the_queue")
        page.click("#stop")
        other.wait_for_selector('#view [data-final="true"]')
        assert score(other, "step") == "4 of 4"
        assert [layer(tab, "image") for tab in (page, other)] == pictures
    page.wait_for_selector('#view [data-final="true"]')
    assert score(page, "step").endswith(f"of {LONG}")


def test_an_upload_is_shown_and_a_bad_one_is_refused_in_one_sentence(page, tmp_path):
    Image.new("RGB", (300, 200), (120, 90, 60)).save(tmp_path / "mine.png")
    page.set_input_files('#upload input[type="file"], input[type="file"]', str(tmp_path / "mine.png"))
    page.wait_for_function("() => document.querySelector('#view').innerText.includes('own mask of the unattacked')")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.set_input_files('#upload input[type="file"], input[type="file"]', str(tmp_path / "bad.png"))
    page.wait_for_selector("text=bad.png is not a picture that can be read")
    keep(page, "refused")


@pytest.mark.parametrize("event", ["drop", pytest.param("paste", marks=pytest.mark.long)])
def test_a_picture_is_dropped_or_pasted_anywhere_and_becomes_the_subject(page, event):
    picture = io.BytesIO()
    Image.new("RGB", (90, 60), (120, 90, 60)).save(picture, "PNG")
    page.evaluate(
        """async ([event, url]) => {
            const files = new DataTransfer();
            files.items.add(new File([await (await fetch(url)).blob()], "mine.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            document.querySelector("#view").dispatchEvent(
                event === "drop"
                    ? new DragEvent(event, { ...options, dataTransfer: files })
                    : new ClipboardEvent(event, { ...options, clipboardData: files })
            );
        }""",
        [event, "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()],
    )
    page.wait_for_function("() => document.querySelector('#view').innerText.includes('own mask of the unattacked')")
    assert viewer(page, "(c => [c.width, c.height])(v.layerCanvas('image'))") == [90, 60]


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
    keep(page, f"width-{width}")
