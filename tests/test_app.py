"""The app as its API clients see it: the same handlers that the browser calls."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, quote

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from PIL import Image

from robviz.app.work import Work
from robviz.attacks import predicted
from robviz.interactive.bundle import load_bundle
from robviz.interactive.scenario import Scenario
from robviz.losses import LOSSES
from robviz.models import Card
from tests.server import LONG, PATIENCE, Effort, connect, until, wait_until_idle

UPLOAD = "my own picture"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def attack(client, photo="chelsea", upload=None, model="photos-clean", eps=4, loss="mask-ce", steps=3, seed=0):
    upload = handle_file(str(upload)) if upload else None
    return client.predict(photo, upload, model, eps, loss, steps, seed, api_name="/attack")[0]


def score(shown: dict, name: str) -> str:
    return next(row["value"] for row in shown["scores"] if row["name"] == name)


def accuracies(shown: dict) -> list[float]:
    return [float(value) for value in re.findall(r"([\d.]+) %", score(shown, "accuracy"))]


def test_no_event_has_two_handlers_that_are_repeated_for_its_last_value(client):
    """gradio repeats the whole event for each of them, so that two would start each other again for ever."""
    waiting = [
        tuple(target)
        for handler in client.config["dependencies"]
        if handler["trigger_mode"] == "always_last" and handler["backend_fn"]
        for target in handler["targets"]
    ]
    assert waiting
    assert [target for target, times in Counter(waiting).items() if times > 1] == []


def test_the_clean_model_breaks_and_the_robust_one_holds_in_the_app(client):
    clean_before, clean_after = accuracies(attack(client, steps=20))
    robust_before, robust_after = accuracies(attack(client, model="photos-robust", steps=20))
    assert clean_before > 80
    assert robust_before > 60
    assert clean_after < 30 < robust_after


def test_the_frames_count_the_steps_and_the_last_is_measured_on_the_8_bit_picture(client):
    # At this radius, most pixels of the robust model stay right: no step is the last before the 30th.
    job = client.submit("chelsea", None, "photos-robust", 4, "mask-ce", 30, 0, api_name="/attack")
    final = job.result(timeout=PATIENCE)[0]
    frames = [output[0] for output in job.outputs()]
    assert final["is_final"]
    assert score(final, "step") == "30 of 30"
    assert score(final, "change") == "4/255"
    assert not frames[0]["is_final"]
    counted = [int(score(frame, "step").split()[0]) for frame in frames]
    assert counted == sorted(counted)
    assert len(counted) >= 2


def test_the_same_setting_gives_the_same_answer(client):
    assert attack(client, steps=4) == attack(client, steps=4)


def test_a_budget_below_one_level_changes_no_8_bit_picture_and_says_so(client):
    shown = attack(client, eps=0.5, steps=2)
    assert score(shown, "change") == "0/255"
    assert "cannot hold a change below 1/255" in shown["note"]
    before, after = accuracies(shown)
    assert before == after


def test_an_upload_is_judged_against_its_own_clean_mask_and_says_so(client, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 300, 3), np.uint8)).save(tmp_path / "mine.png")
    shown = attack(client, UPLOAD, tmp_path / "mine.png", steps=3)
    assert "own mask of the unattacked picture" in shown["note"]
    assert accuracies(shown)[0] == 100


def test_a_model_of_other_classes_is_judged_against_its_own_mask(bends):
    """Like the published models, whose data need not be here."""
    from robviz.interactive import scenario as setting

    model = bends.float()
    model.card = Card("other", "bends", "voc", ("a", "b", "c", "d"), ((0, 0, 0),) * 4, "a test")
    sample, note = setting.sample_of("chelsea", None, model)
    assert note == setting.OWN_NOTE
    assert sample.labels.equal(predicted(model, sample.image[None])[0])
    assert len(setting.known_class_weights("voc")) == 21
    assert setting.known_class_weights("my own") is None


def write(tmp_path, kind: str):
    """A picture file that browsers do send, and some that nobody should."""
    path = tmp_path / f"{kind}.png"
    grey = np.linspace(0, 1, 64 * 48).reshape(48, 64)
    if kind == "text":
        path.write_bytes(b"this is no picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        Image.fromarray((255 * grey).astype(np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "sixteen-bit":
        Image.fromarray((65535 * grey).astype(np.uint16)).save(path)
    elif kind in ("L", "RGBA"):
        Image.fromarray((255 * grey).astype(np.uint8)).convert(kind).save(path)
    elif kind == "CMYK":
        path = path.with_suffix(".jpg")
        Image.fromarray((255 * grey).astype(np.uint8)).convert("CMYK").save(path)
    elif kind == "rotated":
        path, exif = path.with_suffix(".jpg"), Image.Exif()
        exif[0x0112] = 6
        Image.fromarray((255 * grey).astype(np.uint8)).save(path, exif=exif)
    elif kind == "animated":
        path = path.with_suffix(".gif")
        frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif kind == "pixel":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "huge":
        Image.new("1", (20000, 20000)).save(path)
    return path


@pytest.mark.parametrize("kind", ["sixteen-bit", "L", "RGBA", "CMYK", "rotated", "animated"])
def test_any_real_picture_can_be_attacked(client, tmp_path, kind):
    shown = attack(client, UPLOAD, write(tmp_path, kind), steps=1)
    assert shown["is_final"]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("text", "not a picture"),
        ("empty", "not a picture"),
        ("truncated", "cut short"),
        ("pixel", "only 1 x 1 pixels"),
        ("huge", "too many pixels .* shrink it first"),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_one_sentence_and_the_next_attack_works(client, tmp_path, kind, says):
    with pytest.raises(AppError, match=says) as refused:
        attack(client, UPLOAD, write(tmp_path, kind), steps=1)
    assert "Traceback" not in str(refused.value)
    assert attack(client, steps=1)["is_final"]


def test_my_own_picture_without_an_upload_is_refused_in_one_sentence(client):
    with pytest.raises(AppError, match="no picture was uploaded yet"):
        attack(client, UPLOAD)


def test_a_forged_value_is_refused_and_the_next_attack_works(client):
    for changes in (
        {"photo": "../secret"},
        {"model": "../../x"},
        {"eps": -3},
        {"loss": "dice"},
        {"steps": 10**9},
        {"eps": None},
        {"seed": -1},
    ):
        with pytest.raises(AppError) as refused:
            attack(client, **changes)
        assert "Traceback" not in str(refused.value)
    assert attack(client, steps=1)["is_final"]


MENUS, NUMBERS = ("Dropdown", "Radio"), ("Slider", "Number")
FORGED = [(MENUS, value) for value in ("<b>../x", ["a"], {"a": 1}, 777)]
FORGED += [(NUMBERS, value) for value in ("<b>", ["a"], None, -1, 10**12)]


@pytest.mark.parametrize(("kinds", "forged"), FORGED)
def test_what_no_widget_offers_is_refused_in_a_sentence_in_every_view(client, kinds, forged):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    for name in ("/attack", "/sea", "/sweep", "/transfer", "/quick_attack", "/point", "/explain", "/estimate"):
        parameters = endpoints[name]["parameters"]
        values = {one["parameter_name"]: one.get("parameter_default") for one in parameters}
        values |= {key: value for key, value in {"steps": 1, "x": 100, "y": 100}.items() if key in values}
        for widget in [one["parameter_name"] for one in parameters if one["component"] in kinds]:
            with pytest.raises(AppError) as refused:
                client.predict(*(values | {widget: forged}).values(), api_name=name)
            assert "went wrong" not in str(refused.value), f"{name}, {widget}"


@pytest.mark.skipif(sys.platform != "linux", reason="counts wakings as Linux lists them")
def test_a_server_with_nothing_to_do_sleeps(server):
    tasks = Path(f"/proc/{server[1].pid}/task")

    def wakings() -> int:
        texts = [status.read_text(encoding="utf-8") for status in tasks.glob("*/status")]
        return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE)[1]) for text in texts)

    wait_until_idle(server[1])
    before, started = wakings(), time.monotonic()
    time.sleep(1)
    assert 0 < (wakings() - before) / (time.monotonic() - started) < 400  # a second; gradio's own queue: a thousand


def steps_made(job) -> int:
    """Describe an attack under way."""
    outputs = job.outputs()
    return int(score(outputs[-1][0], "step").split()[0]) if outputs else 0


def test_stop_ends_the_computation_and_keeps_the_best_so_far(server, client):
    wait_until_idle(server[1])
    effort = Effort(server[1])
    job = client.submit("chelsea", None, "photos-robust", 4, "mask-ce", LONG, 0, api_name="/attack")
    until(lambda: steps_made(job) >= 10)
    with effort.saved_after(steps_made(job)):
        client.predict(api_name="/stop_attack")
        shown = job.result(timeout=PATIENCE)[0]
    assert "Stopped: this is the best found until then." in shown["note"]
    assert shown["is_final"]
    assert 10 <= int(score(shown, "step").split()[0]) < LONG


def test_stop_reaches_an_attack_that_waits_in_the_queue(server, client):
    other = connect(server[0])
    first = other.submit("chelsea", None, "photos-robust", 4, "mask-ce", LONG, 0, api_name="/attack")
    until(first.outputs)
    job = client.submit("chelsea", None, "photos-clean", 4, "mask-ce", LONG, 0, api_name="/attack")
    until(lambda: job.status().code is Status.IN_QUEUE)
    assert not job.outputs()
    client.predict(api_name="/stop_attack")
    other.predict(api_name="/stop_attack")
    shown = job.result(timeout=PATIENCE)[0]
    assert score(shown, "step") == f"0 of {LONG}"
    assert "Stopped" in shown["note"]
    other.close()


EXTRA = {"attack": "pgd", "target": "cup", "region": "40, 30, 120, 90", "where": "break"}


def test_a_client_attacks_saves_opens_and_links_as_the_browser_does(client):
    arguments = ("coffee", None, "photos-clean", 4, "ce", 4, 7, *EXTRA.values())
    with pytest.raises(AppError, match="no finished attack"):
        client.predict(api_name="/save")
    shown = client.predict(*arguments, api_name="/attack")[0]
    path, verdict = client.predict(api_name="/save")
    assert "still fools the model" in verdict
    saved = load_bundle(path)
    assert saved.setting == Scenario("coffee", eps_255=4, loss="ce", steps=4, seed=7, **EXTRA)
    opened = client.predict(handle_file(path), api_name="/reopen")
    assert opened[0]["scores"] == shown["scores"]
    assert opened[0]["pictures"] == shown["pictures"]
    assert opened[2] == "coffee"
    query, cell = client.predict(*arguments, "attack", api_name="/link")
    assert Scenario.parse(dict(parse_qsl(query))) == saved.setting
    assert "target='cup', region='40, 30, 120, 90'" in cell


def test_a_target_or_a_region_that_makes_no_sense_is_refused(client):
    for changes, says in (
        ({"target": "<b>"}, "the target must be a class of the model"),
        ({"region": "9, 9, 1, 1"}, "holds no pixel"),
        ({"region": "250, 200, 255, 220"}, "outside the picture"),
    ):
        with pytest.raises(AppError, match=says):
            client.predict(
                "coffee", None, "photos-clean", 4, "ce", 4, 7, *(EXTRA | changes).values(), api_name="/attack"
            )


def test_the_time_is_told_from_a_measured_step(client):
    assert re.match(r"About \d+ s .* \d+ ms", client.predict("chelsea", "photos-clean", 200, api_name="/estimate"))


def test_no_saved_zip_no_view(client, tmp_path):
    (tmp_path / "evil.zip").write_bytes(b"PK")
    with pytest.raises(AppError, match="not a zip"):
        client.predict(handle_file(str(tmp_path / "evil.zip")), api_name="/reopen")


PLACES = ["/etc/passwd", "app.py", "pyproject.toml", "checkpoints/photos-clean.json", "robviz/../README.md"]


@pytest.mark.parametrize("route", ["gradio_api/file=", "file=", "file/"])
@pytest.mark.parametrize("place", PLACES)
def test_no_file_of_the_machine_is_read_through_the_server(server, route, place):
    whole = str(Path(__file__).parent.parent / place)
    for path in (place, whole, quote(whole, safe="")):
        assert httpx.get(f"{server[0]}/{route}{path}").status_code in (403, 404)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_chosen(client, loss):
    assert attack(client, loss=loss, steps=1)["is_final"]


def test_one_visitors_stop_leaves_the_others_attack_alone(server, client):
    other = connect(server[0])
    # At radius 0 nothing breaks, so that the attack cannot end early.
    job = client.submit("chelsea", None, "photos-clean", 0, "mask-ce", 40, 0, api_name="/attack")
    until(job.outputs)
    other.predict(api_name="/stop_attack")
    assert score(job.result(timeout=PATIENCE)[0], "step") == "40 of 40"
    other.close()


def test_a_new_click_takes_the_place_of_the_one_before_and_a_late_look_ends_nothing():
    work, visitor, other = Work(), SimpleNamespace(session_hash="a"), SimpleNamespace(session_hash="b")
    work.restart(visitor, "cat")
    work.restart(other, "cat")
    work.restart(visitor, "cup")
    with work.begin(visitor, "cat") as old, work.begin(other, "cat") as others:
        assert old.is_set()
        assert work.is_left(visitor, "cat")
        with work.begin(visitor, "cup") as new:
            assert not work.leaves(visitor, "cup")
            assert not new.is_set()
            assert work.leaves(visitor, "lion")
            assert new.is_set()
            assert work.is_left(visitor, "cup")
        assert not others.is_set()
    assert not work.running
    assert not work.waiting
