"""Downloads from a local web server that does everything wrong, and what robviz does with the files."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from robviz import cli
from robviz.app.bar import model_choices
from robviz.app.views.models import Shelf, absent, table
from robviz.bench import free_port
from robviz.files import download as downloads
from robviz.files.download import fetch
from robviz.files.paths import cache_folder
from robviz.models import available, build, load_model, published, shipped_models
from robviz.models.published import BACKBONES, CHECKPOINTS, Published, download, sha256
from tests.server import PATIENCE, until
from tests.shelf import fails, hangs_up, page, sends_to, shelf, stalls, well

ARCHITECTURE = "upernet-convnext-small-cvst"
FILE = np.random.default_rng(0).bytes(200_000)
OTHER = np.random.default_rng(1).bytes(200_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no patience."""
    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def server():
    with shelf() as server:
        server.body = FILE
        yield server


def asked_from(server) -> list[str]:
    return [headers.get("Range", "the start") for headers in server.requests]


# --- one file ---


def test_a_download_is_whole_and_says_nothing_outside_a_terminal(server, tmp_path, capfd):
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert capfd.readouterr() == ("", "")


def test_in_a_terminal_a_bar_shows_how_far_it_is(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    fetch(server.url, tmp_path / "file")
    shown = re.sub(r"\x1b\[[\d;]*m", "", capfd.readouterr().err)
    assert "0% 0 bytes of 200.0 kB" in shown
    assert "100% 200.0 kB of 200.0 kB" in shown


def test_redirects_are_followed(server, tmp_path):
    server.script = [sends_to("/elsewhere"), sends_to(f"{server.url}/there"), well]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_redirect_away_from_the_web_is_refused(server, tmp_path, scheme):
    server.script = [sends_to(f"{scheme}:///etc/hostname")]
    with pytest.raises(ValueError, match=f"unsupported protocol '{scheme}"):
        fetch(server.url, tmp_path / "file")
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("breaks", [hangs_up(120_000), stalls(120_000)], ids=["hangs up", "stalls"])
@pytest.mark.parametrize("version", [{"ETag": '"1"'}, {"Last-Modified": "Wed, 01 May 2024 10:00:00 GMT"}], ids=str)
def test_a_broken_download_goes_on_where_it_broke(server, tmp_path, breaks, version):
    server.version = version
    server.script = [breaks, hangs_up(10_000), well]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE
    assert asked_from(server) == ["the start", "bytes=120000-", "bytes=130000-"]


@pytest.mark.parametrize("version", [{}, {"ETag": 'W/"1"'}], ids=str)
def test_without_a_proof_that_the_file_is_the_same_a_download_begins_anew(server, tmp_path, version):
    server.version = version
    server.script = [hangs_up(120_000), well]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE
    assert asked_from(server) == ["the start", "the start"]


@pytest.mark.parametrize("answers", [{}, {"ranges": False}, {"polite": False}], ids=str)
def test_a_file_replaced_between_two_attempts_is_not_mixed_with_the_old_one(server, tmp_path, answers):
    def replaced(handler):
        server.body, server.version = OTHER, {"ETag": '"2"'}
        well(handler, **answers)

    server.script = [hangs_up(120_000), replaced, well]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OTHER


def test_a_download_begun_anew_forgets_the_version_of_the_old_one(server, tmp_path):
    def replaced(handler):
        server.body, server.version = OTHER, {}
        well(handler, stop_after=50_000, ranges=False)

    server.script = [hangs_up(120_000), replaced, well]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OTHER
    assert asked_from(server) == ["the start", "bytes=120000-", "the start"]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.script = [hangs_up(120_000), partial(well, ranges=False)]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "file.part").write_bytes(FILE + FILE)
    (tmp_path / "file.part.version").write_text('"1"')
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE
    assert asked_from(server) == ["bytes=400000-", "the start"]


@pytest.mark.parametrize("start", [120_000, 110_000])
def test_a_server_may_give_another_part_than_was_asked_for(server, tmp_path, start):
    """Less, with a length that fits what it gives, or one from another place."""

    def a_piece(handler):
        handler.start(206, 1000, Content_Range=f"bytes {start}-{start + 999}/{len(FILE)}", ETag='"1"')
        handler.wfile.write(FILE[start : start + 1000])

    server.script = [hangs_up(120_000), a_piece, well]
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE


def test_a_busy_server_is_asked_again_after_growing_pauses(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(downloads, "PAUSES", (1.0, 2.0, 4.0))
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.script = [fails(500), fails(429), fails(503), well]
    fetch(server.url, tmp_path / "file")
    assert pauses == [1, 2, 4]


def test_a_server_that_stays_broken_is_given_up_in_one_sentence(server, tmp_path):
    server.script = [fails(500)]
    with pytest.raises(ValueError, match="500") as refused:
        fetch(server.url, tmp_path / "file")
    assert str(refused.value) == (
        f"cannot download {server.url} (it answered 500 Internal Server Error); "
        f"fetch it by other means and put it at {tmp_path / 'file'}"
    )
    assert len(server.requests) == 4


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    server.script = [fails(404)]
    with pytest.raises(ValueError, match="it answered 404 Not Found"):
        fetch(server.url, tmp_path / "file")
    assert len(server.requests) == 1


def test_a_web_page_instead_of_the_file_is_refused(server, tmp_path):
    server.script = [page]
    with pytest.raises(ValueError, match="a web page, not a file: the link may have expired"):
        fetch(server.url, tmp_path / "file")
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


def test_a_killed_download_goes_on_in_the_next_process(server, tmp_path):
    server.script = [stalls(120_000), well]
    code = "import sys, pathlib, robviz.files.download as d; d.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    part = tmp_path / "file.part"
    with subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path / "file")]) as process:
        until(lambda: part.exists() and part.stat().st_size)
        process.kill()
    size = part.stat().st_size
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE
    assert asked_from(server) == ["the start", f"bytes={size}-"]


@pytest.mark.parametrize(
    ("system", "variable", "folder"),
    [
        ("linux", None, ".cache/robviz"),
        ("linux", "XDG_CACHE_HOME", "given/robviz"),
        ("darwin", None, "Library/Caches/robviz"),
        ("win32", None, "AppData/Local/robviz"),
        ("win32", "LOCALAPPDATA", "given/robviz"),
        ("linux", "ROBVIZ_CACHE", "given"),
    ],
)
def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch, tmp_path, system, variable, folder):
    for name in ("ROBVIZ_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "given"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", system)
    assert cache_folder() == tmp_path / folder


# --- a published model ---


def checkpoint(path: Path, state: object) -> bytes:
    torch.save(state, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model and its checkpoint, wrapped like the published ones."""
    model = build(ARCHITECTURE, 11).eval()
    state = {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}, "epoch": 3}
    return model, checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.pth", state)


@pytest.fixture
def row(server, tiny, monkeypatch) -> Published:
    """`tiny` in the table, as a model and as a backbone, on the server."""
    server.body = tiny[1]
    row = Published(ARCHITECTURE, "camvid", f"{server.url}/tiny", "tiny.pth", "a test", {"val": {"clean_miou": 0.5}})
    monkeypatch.setitem(CHECKPOINTS, "tiny", row)
    monkeypatch.setitem(BACKBONES, "tiny-backbone", Published(**{**vars(row), "file": "tiny.pt"}))
    return row


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


KEPT = ["tiny.safetensors", "tiny.sha256"]


def test_a_published_model_is_downloaded_once_and_opens_offline_from_then_on(server, row, tiny, cache):
    model = load_model("tiny")
    server.script = [fails(500)]
    again = load_model("tiny")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model(images), tiny[0](images), atol=0, rtol=0)
    torch.testing.assert_close(again(images), tiny[0](images), atol=0, rtol=0)
    assert len(server.requests) == 1
    assert files(cache) == KEPT


def test_a_published_model_has_a_card_and_is_frozen(row, tiny):
    model = load_model("tiny")
    card = model.card
    assert (card.name, card.architecture, card.dataset) == ("tiny", ARCHITECTURE, "camvid")
    assert len(card.classes) == len(card.palette) == 11
    assert card.metrics == {"val": {"clean_miou": 0.5}}
    assert card.source == f"a test; {row.url}; SHA-256 {hashlib.sha256(tiny[1]).hexdigest()}"
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_backbone_keeps_its_own_keys(row, tiny, cache):
    path = download("tiny-backbone")
    assert load_file(path).keys() == tiny[0].state_dict().keys()
    assert files(cache) == ["tiny-backbone.safetensors", "tiny-backbone.sha256"]


def test_without_a_network_one_sentence_says_what_to_put_where_and_then_it_opens(row, tiny, cache, monkeypatch):
    absent = f"http://127.0.0.1:{free_port()}/tiny"
    monkeypatch.setitem(CHECKPOINTS, "tiny", Published(**{**vars(row), "url": absent}))
    place = cache / "checkpoints" / "tiny.pth"
    with pytest.raises(ValueError, match="Connection refused") as refused:
        load_model("tiny")
    assert str(refused.value).startswith(f"cannot download {absent} (")
    assert str(refused.value).endswith(f"; fetch it by other means and put it at {place}")
    assert files(cache) == []
    place.write_bytes(tiny[1])
    assert available(offline=True)[-1] == "tiny"
    assert load_model("tiny").card.name == "tiny"
    assert files(cache) == KEPT


def test_a_wrong_file_put_there_by_hand_is_refused_and_left_alone(row, cache):
    place = cache / "checkpoints" / "tiny.pth"
    place.parent.mkdir(parents=True)
    checkpoint(place, {"weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"tiny.pth was put there by hand and should be replaced: .*does not fit"):
        load_model("tiny")
    assert files(cache) == ["tiny.pth"]


@pytest.mark.parametrize("kind", ["page", "half", "other model", "list"])
def test_what_is_no_checkpoint_of_the_model_leaves_nothing_in_the_cache(server, row, cache, tmp_path, kind):
    server.body = {
        "page": b"<!DOCTYPE html><title>This share is no longer available</title>",
        "half": server.body[: len(server.body) // 2],
        "other model": checkpoint(tmp_path / "x.pth", build(ARCHITECTURE, 4).state_dict()),
        "list": checkpoint(tmp_path / "y.pth", [torch.zeros(3)]),
    }[kind]
    name = "tiny-backbone" if kind == "list" else "tiny"
    with pytest.raises(ValueError, match=f"{row.url} gave a file that was refused and deleted: "):
        download(name)
    assert files(cache) == []


def test_code_in_a_download_is_never_run(server, row, cache, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    server.body = checkpoint(tmp_path / "trap.pth", {"state_dict": Trap()})
    for name in ("tiny", "tiny-backbone"):
        with pytest.raises(ValueError, match="is not a checkpoint of tensors alone"):
            download(name)
    assert not (tmp_path / "sprung").exists()
    assert files(cache) == []


def test_a_file_with_another_sum_than_the_published_one_is_refused(server, row, cache, monkeypatch):
    monkeypatch.setitem(CHECKPOINTS, "tiny", Published(**{**vars(row), "sha256": "0" * 64}))
    with pytest.raises(ValueError, match=f"expected the SHA-256 {'0' * 64} for tiny.pth, got"):
        load_model("tiny")
    assert files(cache) == []


def test_a_file_with_another_sum_than_the_first_time_is_refused_until_the_user_accepts_it(server, row, cache, tmp_path):
    path = download("tiny")
    path.unlink()
    other = build(ARCHITECTURE, 11).state_dict()
    server.body = checkpoint(tmp_path / "new.pth", other)
    with pytest.raises(ValueError, match=r"if its authors replaced it, delete .*tiny.sha256"):
        download("tiny")
    assert files(cache) == ["tiny.sha256"]
    (cache / "checkpoints" / "tiny.sha256").unlink()
    assert load_model("tiny").state_dict()["head.classifier.bias"].equal(other["head.classifier.bias"])


@pytest.mark.parametrize("damage", ["a bit", "the end", "the sums"])
def test_a_change_in_the_cache_is_noticed(row, cache, damage):
    path = download("tiny")
    content = bytearray(path.read_bytes())
    if damage == "a bit":
        content[-5] ^= 1
    elif damage == "the end":
        del content[-5:]
    else:
        path.with_suffix(".sha256").write_text("")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is corrupted \(SHA-256 mismatch\); delete it"):
        load_model("tiny")


def test_a_kill_before_the_conversion_costs_no_second_download(server, row, cache, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        download("tiny")
    monkeypatch.undo()
    monkeypatch.setenv("ROBVIZ_CACHE", str(cache))
    monkeypatch.setitem(CHECKPOINTS, "tiny", row)
    server.script = [fails(500)]
    download("tiny")
    assert files(cache) == KEPT


def test_a_full_disk_is_said_in_one_sentence_and_costs_no_second_download(row, cache, monkeypatch):
    def full(*arguments):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(published, "save_file", full)
    with pytest.raises(ValueError, match=r"cannot use the cache .*No space left on device.; make room there"):
        download("tiny")
    assert files(cache) == ["tiny.pth"]


@pytest.mark.slow
def test_two_processes_that_want_the_same_model_fetch_it_once(server, row, cache, monkeypatch):
    waits = threading.Event()

    class Lock(published.FileLock):
        def acquire(self, *arguments, **options):
            waits.set()
            return super().acquire(*arguments, **options)

    monkeypatch.setattr(published, "FileLock", Lock)
    server.script = [stalls(120_000), well]
    code = (
        "import robviz.files.download, robviz.models.published as p; robviz.files.download.TIMEOUT = 30\n"
        f"p.CHECKPOINTS['tiny'] = p.{row!r}\n"
        "print(p.download('tiny').name)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert server.was_asked.wait(PATIENCE)
        here = threading.Thread(target=load_model, args=("tiny",))
        here.start()
        assert waits.wait(PATIENCE)
        server.released.set()
        here.join(PATIENCE)
        assert process.communicate()[0] == "tiny.safetensors\n"
    assert len(server.requests) == 1
    assert files(cache) == KEPT


def test_a_cache_that_cannot_be_written_is_said_in_one_sentence(row, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"cannot use the cache .*; make room there or set ROBVIZ_CACHE to a folder"):
        download("tiny")


# --- names ---


def test_available_tells_what_needs_a_download(row):
    assert available() == [*shipped_models(), *CHECKPOINTS]
    assert available(offline=True) == shipped_models()
    download("tiny")
    assert available(offline=True) == [*shipped_models(), "tiny"]


def test_an_unknown_checkpoint_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown checkpoint 'resnet'; choose from: voc-upernet-convnext-t-pirat, "):
        download("resnet")


def test_every_published_checkpoint_has_an_address_and_a_place_of_its_own():
    rows = [*CHECKPOINTS.values(), *BACKBONES.values()]
    assert len(rows) == 8
    assert len({row.url for row in rows}) == len({row.file for row in rows}) == 8
    assert all(row.url.startswith("https://") for row in rows)
    assert CHECKPOINTS["ade20k-upernet-convnext-s-pirat"].metrics["val"]["sea_miou_4_255"] == 0.179


@pytest.mark.parametrize(("dataset", "count"), [("voc", 21), ("ade20k", 151)])
def test_published_models_know_the_classes_of_their_dataset(dataset, count):
    classes, palette = published.labels(dataset)
    assert len(classes) == len(palette) == count


def test_the_command_lists_fetches_and_verifies(row, cache, capsys):
    cli.main(["download"])
    listing = capsys.readouterr().out
    assert f"Kept in {cache}." in listing
    assert all(name in listing for name in [*CHECKPOINTS, *BACKBONES])
    assert "MB" not in listing
    cli.main(["download", "tiny", "tiny-backbone"])
    printed = capsys.readouterr().out.split()
    assert [sha256(Path(path)) for path in printed] == [
        published.sums(name)[f"{name}.safetensors"] for name in ("tiny", "tiny-backbone")
    ]
    cli.main(["download"])
    assert "11 MB" in capsys.readouterr().out
    cli.main(["download", "--verify"])
    assert capsys.readouterr().out == "tiny: intact\ntiny-backbone: intact\n"
    Path(printed[0]).write_bytes(b"")
    with pytest.raises(SystemExit, match=r"robviz: .*tiny.safetensors is corrupted"):
        cli.main(["download", "--verify"])


def test_the_app_shows_how_far_a_download_is_and_lists_the_model_from_then_on(server, row, cache):
    shown = []
    handler = Shelf(SimpleNamespace(listed=lambda: (gr.Dropdown(choices=model_choices()),))).fetch
    assert "tiny" in absent()
    assert "| tiny | upernet" in table()
    said, now, _, menu = handler("tiny", lambda done, *_, **__: shown.append(done))
    assert said.startswith("tiny is here")
    assert re.search(r"tiny .* here \|", now)
    assert "tiny" in [name for _, name in menu.choices]
    assert "tiny" not in absent()
    megabytes = len(server.body) // 2**20
    assert shown[0] == 0
    assert shown[-1] == (megabytes, megabytes)


@pytest.mark.parametrize("name", ["tiny-backbone", "../tiny", "", None])
def test_the_app_fetches_published_models_alone(server, row, name):
    with pytest.raises(gr.Error, match="choose one of the published models"):
        Shelf(SimpleNamespace()).fetch(name, lambda *_, **__: None)
    assert server.requests == []
