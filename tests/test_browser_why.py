"""Why did it flip: a pixel clicked in Chromium, and what the handlers answer."""

from __future__ import annotations

import pytest
from gradio_client.exceptions import AppError

from robviz.app.views import explain as why
from robviz.attribution import METHODS, top_logits
from robviz.models import load_model
from tests.browser import keep, opened
from tests.server import PATIENCE, until, wait_until_idle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
SUBJECT = ("chelsea", None, "photos-clean", 4)
PIXEL = (114, 84)


def attacked_and_clicked(page) -> None:
    page.locator("#why-attack").click()
    page.wait_for_function("document.querySelector('#why .rv-note').textContent.includes('Click a pixel')")
    image = page.locator("#why img").nth(1)
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.447, box["y"] + box["height"] * 0.497)
    page.wait_for_function("document.querySelector('#why .rv-note').textContent.includes('Press Explain')")


@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.long)])
def test_a_clicked_pixel_is_explained_on_both_pictures(server, chromium, width):
    for page in opened(server, chromium, "?view=explain", width, 950):
        attacked_and_clicked(page)
        x, y = (int(page.locator(f"#why-{axis} input").input_value()) for axis in "xy")
        assert abs(x - PIXEL[0]) <= 3
        assert abs(y - PIXEL[1]) <= 3
        assert page.inner_text("#why .rv-logit[data-target=true] strong") == "cat"
        page.locator("#why-run").click()
        page.wait_for_function("document.querySelector('#why .rv-why').dataset.done === '1'")
        assert page.locator("#why .rv-diverging").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        keep(page, f"why-{width}")


def test_the_bars_are_the_top_logits_of_both_pictures(client):
    client.predict(*SUBJECT, api_name="/quick_attack")
    shown = client.predict(*SUBJECT, *PIXEL, -1, "the pixel alone", "grad-cam", api_name="/point")
    question = why.asked(why.QuickAttack(*SUBJECT), *PIXEL, -1, "the pixel alone")
    top = top_logits(load_model("photos-clean"), question.images, PIXEL[1], PIXEL[0])
    assert [row["logits"] for row in shown["logits"]] == [
        pytest.approx(pair, abs=1e-3) for pair in top.logits.T.tolist()
    ]
    assert question.region.sum() == 1
    assert question.region[PIXEL[1], PIXEL[0]]
    assert "less than a second" in shown["note"] or "about" in shown["note"]


@pytest.mark.parametrize(
    "method", [pytest.param(one, marks=() if one == "grad-cam" else pytest.mark.long) for one in METHODS]
)
def test_every_method_ends_with_both_maps_in_one_scale(client, method):
    shown = client.predict(*SUBJECT, *PIXEL, 3, "the region around the pixel", method, api_name="/explain")
    assert shown["done"] == 1
    assert [pane["title"] for pane in shown["panes"]] == ["clean", "attacked"]
    assert float(shown["scale"]) > 0
    assert [row["name"] for row in shown["logits"] if row["isTarget"]] == ["big cat"]


def test_stop_ends_an_explanation_and_keeps_what_is_known(server, client):
    question = (*PIXEL, -1, "the whole class", "integrated-gradients")
    job = client.submit(*SUBJECT, *question, api_name="/explain")
    until(job.outputs)
    client.predict(api_name="/stop_explain")
    shown = job.result(timeout=PATIENCE)
    assert shown["done"] < 1
    assert "Stopped early" in shown["note"]
    wait_until_idle(server[1])


@pytest.mark.parametrize(
    ("pixel", "label", "says"),
    [((None, 3), -1, "click one"), ((256, 0), -1, "x in 0 .. 255"), ((0, -1), -1, "y in 0"), ((0, 0), 9, "no class")],
)
def test_a_question_about_nothing_is_refused_in_one_sentence(client, pixel, label, says):
    with pytest.raises(AppError) as refused:
        client.predict(*SUBJECT, *pixel, label, "the pixel alone", "grad-cam", api_name="/point")
    assert "Traceback" not in str(refused.value)
    with pytest.raises(ValueError, match=says):
        why.asked(why.QuickAttack(*SUBJECT), *pixel, label, "the pixel alone")


def test_the_three_regions_hold_each_other():
    mask = why.attacked(why.QuickAttack(*SUBJECT)).before
    whole, region, pixel = (
        why.REGIONS[name](mask, PIXEL[1], PIXEL[0])
        for name in ("the whole class", "the region around the pixel", "the pixel alone")
    )
    assert pixel.sum() == 1
    assert not (pixel & ~region).any()
    assert not (region & ~whole).any()
    assert (mask[whole] == mask[PIXEL[1], PIXEL[0]]).all()
