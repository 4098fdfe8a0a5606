"""The app as a visitor sees it, in Chromium; each test keeps a screenshot in `screenshots/`."""

from __future__ import annotations

import re
import time

import psutil
import pytest

from robviz.bench import free_port, serving
from tests.chromium import find
from tests.conftest import SCREENSHOTS
from tests.server import LONG, busy_seconds, wait_until_idle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(find() is None, reason="no Chromium on this machine: `make test` installs one where it can"),
]


@pytest.fixture(scope="module")
def server():
    port = free_port()
    with serving(port) as (process, _):
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(server, chromium):
    """The app, opened; afterwards it must have asked nobody else for anything and logged no error."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    foreign, errors = [], []

    def check(route):
        url = route.request.url
        if re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]", url) or url.startswith(("data:", "blob:")):
            route.continue_()
        else:
            foreign.append(url)
            route.abort()

    page.route("**/*", check)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server[0])
    page.wait_for_selector('#view [data-tile="after"] img')
    yield page
    if not page.is_closed():
        page.close()
    assert foreign == []
    assert errors == []


def score(page, name: str) -> str:
    return page.inner_text(f'#view [data-score="{name}"] b')


def mask(page) -> str:
    return page.get_attribute('#view [data-tile="after"] img', "src")


def keep(page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_the_landing_view_shows_a_result_before_anything_is_clicked(page):
    assert re.fullmatch(r"[\d.]+ % → [\d.]+ %", score(page, "accuracy"))
    assert score(page, "step") == "20 of 20"
    page.wait_for_selector("#curve .js-plotly-plot")
    keep(page, "landing")


def test_pick_a_photo_attack_it_and_see_the_mask_change(page):
    page.click("#photo input")
    page.get_by_role("option", name="rocket").click()
    page.wait_for_function("() => document.querySelector('#view').innerText.includes('Press Attack')")
    clean = mask(page)
    page.fill('#eps input[type="number"]', "8")
    page.fill('#steps input[type="number"]', "40")
    page.click("#attack")
    page.wait_for_function("() => /^[1-9]/.test(document.querySelector('#view [data-score=step] b').innerText)")
    streamed = mask(page)
    assert streamed != clean
    page.wait_for_selector('#view [data-final="true"]')
    assert score(page, "step") == "40 of 40" or "no pixel is left to break" in page.inner_text("#view")
    assert score(page, "change") == "8/255"
    assert mask(page) != clean
    keep(page, "attacked")


def test_stop_ends_the_attack_and_keeps_its_result(page, server):
    page.fill('#steps input[type="number"]', str(LONG))
    page.click("#attack")
    page.wait_for_selector('#view [data-final="false"]')
    page.click("#stop")
    page.wait_for_selector('#view [data-final="true"]', timeout=3000)
    assert "Stopped" in page.inner_text("#view")
    assert int(score(page, "step").split()[0]) < LONG
    assert busy_seconds(server[1], 1.0) < 0.4
    keep(page, "stopped")


def test_closing_the_tab_ends_the_computation(page, server):
    wait_until_idle(server[1])
    page.fill('#steps input[type="number"]', str(LONG))
    page.click("#attack")
    page.wait_for_selector('#view [data-final="false"]')
    page.close()
    time.sleep(0.5)  # the server hears of it by the closed connection
    assert busy_seconds(server[1], 1.0) < 0.4


def test_an_upload_is_shown_and_a_bad_one_is_refused_in_one_sentence(page, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 200), (120, 90, 60)).save(tmp_path / "mine.png")
    page.set_input_files('#upload input[type="file"], input[type="file"]', str(tmp_path / "mine.png"))
    page.wait_for_function("() => document.querySelector('#view').innerText.includes('own mask of the unattacked')")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.set_input_files('#upload input[type="file"], input[type="file"]', str(tmp_path / "bad.png"))
    page.wait_for_selector("text=this file is not a picture that can be read")
    keep(page, "refused")


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    keep(page, f"width-{width}")
