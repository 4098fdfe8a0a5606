"""Two models under each other's attacks: the library, and the view in Chromium."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gradio_client.exceptions import AppError

from robviz.attacks import AttackSpec
from robviz.interactive.comparison import Subject, clean_comparison, finalise
from robviz.interactive.ensemble import NOT_ATTACKED
from robviz.interactive.transfer import transfer_steps
from robviz.models import Card
from robviz.types import Sample
from robviz.viewer.transfer import transfer_data
from tests.browser import keep, opened
from tests.small import PixelwiseLinear

#: What raises the first model's logit lowers the second's; the third looks at another channel than the first.
WEIGHTS = {"one": (1.0, 0.0, 0.0), "against": (-1.0, 0.0, 0.0), "apart": (0.0, 1.0, 0.0)}
CARD = Card("", "", "noise", ("a", "b"), ((0, 0, 0), (200, 200, 200)), "")
SPEC = AttackSpec(loss="ce", eps=0.2, steps=8)


def subjects(*names: str) -> dict[str, Subject]:
    image = torch.rand(3, 12, 14, generator=torch.Generator().manual_seed(0))
    found = {}
    for name in names:
        model = PixelwiseLinear(WEIGHTS[name], bias=-sum(WEIGHTS[name]) / 2).float().eval()
        found[name] = Subject(model, Sample("noise", image, model(image[None])[0].argmax(0)), CARD)
    return found


def last_of(*names: str, spec: AttackSpec = SPEC):
    *_, last = transfer_steps(subjects(*names), spec)
    return last


def test_each_model_looks_at_the_picture_and_at_the_attack_on_each():
    found = last_of("one", "apart")
    assert list(found) == [(source, looker) for source in (NOT_ATTACKED, "one", "apart") for looker in ("one", "apart")]
    assert all(shown.is_final == (source != NOT_ATTACKED) for (source, _), shown in found.items())


def test_both_see_the_same_attacked_picture_and_it_keeps_the_budget():
    found = last_of("one", "apart")
    for source in ("one", "apart"):
        assert (found[source, "one"].attacked == found[source, "apart"].attacked).all()
        assert 0 < found[source, "one"].largest_change == found[source, "apart"].largest_change <= 0.2 * 255


def test_what_a_model_sees_is_what_it_says_of_the_shown_picture():
    there = subjects("one", "apart")
    *_, found = transfer_steps(there, SPEC)
    for (source, looker), shown in found.items():
        subject = there[looker]
        assert (shown.before == clean_comparison(subject, SPEC).before).all()
        if source != NOT_ATTACKED:
            assert (shown.after == finalise(subject, shown).after).all()
            assert (shown.reference == subject.sample.labels.numpy()).all()


def test_an_attack_transfers_to_a_model_that_looks_where_it_changes_and_to_no_other():
    """The best attack on a pixelwise linear model moves its own channel alone, to the far side of the border."""
    found = last_of("one", "against")
    assert found["one", "one"].scores_after.accuracy < 0.7
    assert found["one", "against"].scores_after.accuracy == found["one", "one"].scores_after.accuracy
    apart = last_of("one", "apart", spec=replace(SPEC, attack="annealed-pgd"))
    assert apart["one", "apart"].scores_after.accuracy > apart["one", "one"].scores_after.accuracy


def test_stop_ends_the_attack_and_begins_no_other():
    frames = []
    for frame in transfer_steps(subjects("one", "apart"), SPEC, is_stopped=lambda: len(frames) > 1):
        frames.append(frame)
    assert ("one", "apart") in frames[-1]
    assert not any(source == "apart" for source, _ in frames[-1])
    assert frames[-1]["one", "one"].is_final


def test_the_page_gets_what_changed_and_in_the_end_all_with_a_verdict():
    frames = list(transfer_steps(subjects("one", "apart"), SPEC))
    sent = [transfer_data(frame, dict.fromkeys(("one", "apart"), CARD), {"one": "n", "apart": "n"}) for frame in frames]
    assert list(sent[0]["views"]) == [f"one/{NOT_ATTACKED}", f"apart/{NOT_ATTACKED}"]
    assert list(sent[1]["views"]) == ["one/one"]
    assert [cell["state"] for cell in sent[1]["rows"][0]["cells"]] == ["", "step 1 of 8", "waiting"]
    assert len(sent[-1]["views"]) == 6
    assert sent[0]["verdict"] == ""
    assert sent[-1]["verdict"].count("The attack on") == 2


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.long)])
def test_in_the_app_two_models_are_attacked_and_a_cell_opens_in_the_viewer(server, chromium, width):
    for page in opened(server, chromium, "?view=compare", width, 950):
        page.locator("#two-steps input[type=number]").fill("5")
        page.locator("#two-steps input[type=number]").press("Tab")
        page.locator("#two-run").click()
        page.wait_for_function("document.querySelectorAll('#transfer td button').length === 6")
        page.wait_for_function(
            "document.querySelector('#transfer .rv-note').textContent.includes('photos-robust takes')"
        )
        page.locator('#transfer [data-cell="photos-robust/photos-clean"]').click()
        page.wait_for_function(
            "[...document.querySelectorAll('#transfer .rv-note')].some("
            "n => n.textContent.startsWith('Seen by photos-robust, attacked on photos-clean'))"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        keep(page, f"two-models-{width}")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_one_model_twice_is_refused_in_words(client):
    with pytest.raises(AppError, match="choose two different ones"):
        client.predict("chelsea", None, "photos-clean", 4, "photos-clean", "mask-ce", 3, api_name="/transfer")
