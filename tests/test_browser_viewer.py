"""The viewer in a page of its own, in Chromium: pointing, zooming, hiding and wiping need no server."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from robviz.attacks import AttackSpec, predicted
from robviz.datasets import load_dataset
from robviz.files.images import to_bytes, to_tensor
from robviz.interactive.comparison import Subject, clean_comparison
from robviz.interactive.scenario import TRUTH_NOTE, Scenario, run_scenario
from robviz.models import load_model
from robviz.types import Sample
from robviz.viewer import viewer_data
from robviz.viewer.page import save_page
from robviz.viewer.sharing import attack_page
from tests.browser import hover, keep, layer, score, viewer, watched

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A finished attack as a page."""
    path = tmp_path_factory.mktemp("viewer") / "attack.html"
    save_page(attack_page(Scenario(), run_scenario(Scenario()), TRUTH_NOTE), path)
    return path


@pytest.fixture
def page(file, chromium):
    """The page, opened; afterwards it must have asked nobody for anything and logged no error."""
    yield from watched(chromium.new_page(), file.as_uri(), "#shown[data-ready]")


def canvas(page, index: int) -> str:
    """What a pane shows now."""
    viewer(page, "v.draw()")
    return page.evaluate("i => document.querySelectorAll('#shown canvas')[i].toDataURL()", index)


def test_pointing_at_a_pixel_reads_it_in_every_pane(page):
    sample = load_dataset("photos", "photographs")[2]
    model = load_model("photos-clean")
    expected = model.card.classes[predicted(model, sample.image[None])[0, 85, 128]]
    without = [canvas(page, i) for i in range(3)]
    hover(page, 0, 128.5 / 256, 85.5 / 170)
    assert page.inner_text("#shown [data-read=place]") == "x 128, y 85"
    assert re.fullmatch(rf"{expected}\s*\d+ %", page.inner_text("#shown [data-read=before]"))
    assert page.inner_text("#shown [data-read=reference]").split() == ["reference", expected]
    assert all(canvas(page, i) != without[i] for i in range(3))
    page.mouse.move(2, 2)
    assert "Point" in page.inner_text("#shown .rv-reading")


def test_a_class_can_be_hidden_and_shown_alone(page):
    whole, other = layer(page, "before"), page.get_by_role("button", name=re.compile("^background "))
    cat = page.get_by_role("button", name=re.compile("^cat "))
    cat.click()
    assert cat.get_attribute("aria-pressed") == "false"
    assert layer(page, "before") != whole
    cat.click()
    assert layer(page, "before") == whole
    cat.dblclick()
    assert (cat.get_attribute("aria-pressed"), other.get_attribute("aria-pressed")) == ("true", "false")
    cat.click(modifiers=["Alt"])
    assert layer(page, "before") == whole


def test_zoom_and_pan_are_shared_by_all_panes(page):
    whole = [canvas(page, i) for i in range(3)]
    hover(page, 0, 0.3, 0.4)
    page.mouse.wheel(0, -600)
    page.wait_for_function("() => document.querySelector('#shown .rv').parentNode.robviz.state.scale > 2")
    zoomed = viewer(page, "v.state.x")
    assert all(canvas(page, i) != whole[i] for i in range(3))
    page.mouse.down()
    hover(page, 0, 0.5, 0.4)
    page.mouse.up()
    assert viewer(page, "v.state.x") < zoomed
    page.locator("#shown canvas").nth(1).dblclick()
    assert viewer(page, "v.state.scale") == 1


def test_keys_zoom_choose_layers_and_open_the_help(page):
    page.locator("#shown canvas").nth(2).focus()
    for key in ("+", "+", "ArrowRight"):
        page.keyboard.press(key)
    assert viewer(page, "v.state.scale") == pytest.approx(2.25)
    assert viewer(page, "v.state.x") > 0.5
    page.keyboard.press("5")
    assert page.locator("#shown figure").nth(2).get_attribute("data-layer") == "errors"
    assert "newly wrong" in page.inner_text("#shown .rv-fates")
    page.keyboard.press("f")
    page.keyboard.press("0")
    assert viewer(page, "[v.state.fill, v.state.scale]") == ["hatched", 1]
    page.keyboard.press("?")
    assert "move the crosshair" in page.inner_text("#shown dialog")
    keep(page, "help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#shown dialog")


def test_the_wipe_shows_before_on_one_side_and_after_on_the_other(page):
    plain = canvas(page, 2)
    page.locator("#shown canvas").nth(2).focus()
    page.keyboard.press("w")
    middle = canvas(page, 2)
    assert middle != plain
    hover(page, 2, 0.5, 0.3)
    page.mouse.down()
    hover(page, 2, 0, 0.3)
    page.mouse.up()
    page.mouse.move(2, 2)
    at_the_edge = page.evaluate(
        "() => [...document.querySelectorAll('#shown canvas')].slice(1).map(c => "
        "[...c.getContext('2d').getImageData(c.width * 0.7, c.height * 0.25, 1, 1).data])"
    )
    assert viewer(page, "v.state.panes[2].wipe") == 0
    assert at_the_edge[0] != at_the_edge[1]
    viewer(page, "v.state.panes[2].wipe = 1")
    assert canvas(page, 2) != middle
    keep(page, "wipe")


def test_512_pixels_are_drawn_and_names_stay_text(page):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 9, (64, 64)), np.ones((8, 8), int))
    image = to_tensor(Image.fromarray(rng.integers(0, 256, (512, 512, 3), np.uint8)))
    model = load_model("photos-clean")
    shown = clean_comparison(Subject(model, Sample("noise", image, torch.from_numpy(labels)), model.card), AttackSpec())
    data = viewer_data(shown, ("<img src=x onerror=alert(1)>", *model.card.classes[1:]), model.card.palette, "<b>")
    colours, images = page.evaluate(
        """async data => {
            const host = document.body.appendChild(document.createElement("div"));
            const v = robviz.viewer(host, data);
            await v.ready;
            const layer = v.layerCanvas("image"), pixels = layer.getContext("2d").getImageData(0, 0, 512, 512).data;
            const images = host.querySelectorAll("img").length;
            host.remove();
            return [[...pixels.slice(0, 3), ...pixels.slice(-4, -1)], images];
        }""",
        data,
    )
    assert colours == [*to_bytes(image)[0, 0].tolist(), *to_bytes(image)[-1, -1].tolist()]
    assert images == 0


def test_the_steps_of_a_finished_attack_can_be_gone_through_without_the_server(page):
    asked = []
    result = layer(page, "after")
    page.on("request", lambda request: asked.append(request.url))
    page.focus("#shown .rv-time input")
    page.keyboard.press("Home")
    assert layer(page, "after") == layer(page, "before")
    clean = score(page, "accuracy").split(" → ")[0]
    assert f"step 0, {clean}" in page.inner_text("#shown .rv-time output")
    page.keyboard.press("ArrowRight")
    assert "step 1," in page.inner_text("#shown .rv-time output")
    keep(page, "steps")
    page.keyboard.press("End")
    assert layer(page, "after") == result
    assert asked == []
