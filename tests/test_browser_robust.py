"""Make it robust: a training of a few iterations, started in Chromium."""

from __future__ import annotations

import psutil
import pytest
from gradio_client.exceptions import AppError

from tests.browser import OPENED, choose_model, keep, open_tab, opened
from tests.server import PATIENCE, until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
SETTING = ("chelsea", None, "photos-clean", 1, "photos-onestep", 4)  # attack steps come after


def trains(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # it has just ended
        return False


def trainings(process: psutil.Process) -> list[int]:
    """Processes that train."""
    return [child.pid for child in process.children() if trains(child)]


@pytest.mark.long
def test_a_training_streams_its_rounds_and_its_model_is_kept_in_every_menu(server, chromium):
    for page in opened(server, chromium, "?view=train"):
        page.locator("#heal-iterations input[type=number]").fill("2")
        page.keyboard.press("Tab")
        page.locator("#heal-run").click()
        page.wait_for_function("document.querySelector('#heal .rv-note').textContent.includes('Done')")
        assert page.locator("#heal .rv-rounds button").count() == 3
        page.locator("#heal .rv-rounds button").nth(1).click()
        assert page.locator("#heal figure strong").all_inner_texts() == ["before training", "round 1"]
        page.wait_for_selector("#heal-curves .js-plotly-plot")
        page.locator("#heal-name").get_by_role("textbox").fill("my-model")
        page.locator("#heal-keep").click()
        page.wait_for_selector("#heal-kept:has-text('Kept')")
        keep(page, "robust")
        open_tab(page, "Explain")
        choose_model(page, "my-model")
        page.locator("#why-attack").click()
        page.wait_for_function("document.querySelector('#why .rv-note').textContent.includes('Click a pixel')")
        page.reload()
        page.wait_for_selector("#model input")
        choose_model(page, "my-model")
    assert trainings(server[1]) == []


def test_a_closed_tab_ends_its_training_and_the_next_one_may_begin(server, chromium, client):
    page = chromium.new_page(390, 840)
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{server[0]}/?view=train")
    page.wait_for_selector(OPENED["train"])
    page.locator("#heal-run").click()
    page.wait_for_function("document.querySelector('#heal .rv-healing').dataset.rounds === '1'")
    until(lambda: trainings(server[1]))
    with pytest.raises(AppError, match="being trained here already"):
        client.predict(*SETTING, 1, api_name="/train")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    keep(page, "robust-phone")
    page.close()
    until(lambda: not trainings(server[1]))


@pytest.mark.long
def test_stop_keeps_the_last_round_and_a_killed_process_is_one_sentence(server, client):
    process = server[1]
    job = client.submit("chelsea", None, "photos-clean", 2, "photos-onestep", 400, 1, api_name="/train")
    until(lambda: len(job.outputs()) > 2)
    client.predict(api_name="/stop_train")
    shown = job.result(timeout=PATIENCE)[0]
    assert "Stopped" in shown["note"]
    until(lambda: not trainings(process))
    job = client.submit("chelsea", None, "photos-clean", 2, "photos-onestep", 400, 1, api_name="/train")
    until(lambda: trainings(process))
    for pid in trainings(process):
        psutil.Process(pid).kill()
    with pytest.raises(AppError, match="the training process died"):
        job.result(timeout=PATIENCE)
    assert client.predict("chelsea", None, "photos-clean", 2, "photos-onestep", 1, 1, api_name="/train")[0]["done"] == 1


@pytest.mark.parametrize("changes", [{0: "../x"}, {4: "photos-clean"}, {5: 10**6}, {5: None}, {3: 0}, {6: 99}])
def test_a_forged_setting_is_refused(client, changes):
    setting = [changes.get(i, value) for i, value in enumerate((*SETTING, 1))]
    with pytest.raises(AppError) as refused:
        client.predict(*setting, api_name="/train")
    assert "Traceback" not in str(refused.value)
