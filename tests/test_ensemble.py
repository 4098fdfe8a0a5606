"""An ensemble on one picture: the library, and the view in Chromium."""

from __future__ import annotations

import pytest
import torch
from gradio_client.exceptions import AppError

from robviz.files.paths import bundled_path
from robviz.interactive.comparison import Subject
from robviz.interactive.ensemble import ACCURACY, MIOU, NOT_ATTACKED, WORST, breakdown, ensemble_steps
from robviz.models import Card
from robviz.results.failures import failures
from robviz.sea import PAPER
from robviz.types import Sample
from robviz.viewer.ensemble import ensemble_data
from tests.browser import keep, opened
from tests.small import Bends

CLASSES = ("a", "b", "c", "d")
CARD = Card("bends", "", "noise", CLASSES, ((0, 0, 0), (9, 9, 9), (90, 90, 90), (200, 200, 200)), "")
SETTINGS = PAPER.with_steps(4)
NAMES = [run.name for run in SETTINGS.runs]
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])


@pytest.fixture
def sample():
    image = torch.rand(3, 12, 14, generator=torch.Generator().manual_seed(0))
    labels = Bends().eval()(image[None])[0].argmax(0)
    labels[:2] = -1
    return Sample("noise", image, labels)


def steps_of(sample, **options):
    return list(ensemble_steps(Subject(Bends().eval(), sample, CARD, WEIGHTS), 4 / 255, SETTINGS, **options))


def test_the_runs_follow_each_other_and_each_ends_measured(sample):
    frames = steps_of(sample)
    assert [list(frame)[-1] for frame in frames] == sorted([list(frame)[-1] for frame in frames], key=NAMES.index)
    assert list(frames[-1]) == NAMES
    assert all(shown.is_final and shown.largest_change <= 4 for shown in frames[-1].values())


def test_stop_ends_the_run_and_begins_no_other(sample):
    frames, subject = [], Subject(Bends().eval(), sample, CARD, WEIGHTS)
    for frame in ensemble_steps(subject, 4 / 255, SETTINGS, is_stopped=lambda: bool(frames)):
        frames.append(frame)
    assert list(frames[-1]) == NAMES[:1]
    assert frames[-1][NAMES[0]].is_final


def test_the_worst_case_is_the_least_of_each_column(sample):
    shown = steps_of(sample)[-1]
    table = breakdown(shown, CLASSES)
    assert list(table.index) == [NOT_ATTACKED, *NAMES, WORST]
    assert list(table.columns[:2]) == [ACCURACY, MIOU]
    assert table.loc[NOT_ATTACKED, ACCURACY] == 1
    for name, one in shown.items():
        assert table.loc[name, ACCURACY] == pytest.approx(one.scores_after.accuracy)
        assert table.loc[name, MIOU] == pytest.approx(one.scores_after.miou)
    assert (table.loc[WORST] == table.loc[NAMES].min()).all()


def test_a_view_is_sent_as_it_changes_and_all_of_them_at_the_end(sample):
    frames = steps_of(sample)
    sent = [ensemble_data(frame, CARD, NAMES, "note.") for frame in frames]
    assert list(sent[0]["views"]) == NAMES[:1]
    assert [row["state"] for row in sent[0]["rows"]] == ["", "step 1 of 4", "waiting", "waiting", ""]
    assert list(sent[-1]["views"]) == NAMES
    assert all(
        any(row["least"][i] for row in sent[-1]["rows"] if row["least"]) for i in range(len(sent[-1]["columns"]))
    )


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.long)])
def test_in_the_app_an_ensemble_runs_and_a_row_opens_its_attack(server, chromium, width):
    for page in opened(server, chromium, "?view=losses", width, 950):
        page.locator("#sea-steps input[type=number]").fill("3")
        page.locator("#sea-steps input[type=number]").press("Tab")
        page.locator("#sea-run").click()
        page.wait_for_function("document.querySelectorAll('#sea th button').length === 3")
        page.get_by_role("button", name="mask-ce.red-eps-apgd.3").click()
        page.wait_for_function(
            "[...document.querySelectorAll('#sea .rv-note')].some(n => n.textContent.startsWith('mask-ce.red'))"
        )
        marked = page.locator("#sea td", has_text="◆").count()
        assert marked >= 2
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        keep(page, f"sea-{width}")


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_cell_of_pictures_by_attacks_opens_what_that_attack_left(server, chromium):
    found = failures(bundled_path("checkpoints") / "failures" / "photos-robust")
    worst = found.rows.loc[found.rows["attacked"].idxmin()]
    for page in opened(server, chromium, "?view=failures"):
        page.locator("#evaluation input").click()
        page.get_by_role("option", name="photos-robust").click()
        page.click("#sea-many > button")
        page.wait_for_selector("#heat .rv-note:has-text('photos-robust on')")
        cells = page.locator("#heat td button")
        assert cells.count() == len(found.rows)
        assert page.locator("#heat td button", has_text="◆").count() == found.rows["won"].sum()
        first = page.locator("#heat tr").nth(1)
        assert first.locator("th").inner_text() == worst["image"]
        other = found.rows[(found.rows["image"] == worst["image"]) & ~found.rows["won"]].iloc[0]
        page.locator(f'#heat button[data-row="{other.name}"]').click()
        page.wait_for_selector(f"#failure .rv-note:has-text('{other['image']} under {other['run']}')")
        assert page.inner_text('#failure [data-score="accuracy"] b').endswith(f"{100 * other['attacked']:.1f} %")
        keep(page, "heatmap")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_forged_request_is_refused_in_words(client):
    for values in (("chelsea", None, "photos-clean", 99, "paper", 3), ("chelsea", None, "photos-clean", 4, "paper", 0)):
        with pytest.raises(AppError) as refused:
            client.predict(*values, api_name="/sea")
        assert "Traceback" not in str(refused.value)
