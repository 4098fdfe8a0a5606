"""What a server must not do: the gate before the app, and what it offers to whom."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from robviz.app.serving import (
    HEALTH,
    MOST_BYTES,
    PUBLIC_VISITORS,
    Gate,
    ServeOptions,
    launch_arguments,
    logins_in,
)
from robviz.types import InputError
from tests.server import status_of

ROOT = Path(__file__).parent.parent
ROUTES = ("/upload", "/gradio_api/upload", "/gradio_api/upload/", "/gradio_api/UPLOAD?upload_id=1", "/anything")


async def everything(scope, receive, send):
    """An application that says yes to all, and repeats what it was sent."""
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body or b"yes"})


def asked(options: ServeOptions, *requests: httpx.Request, gate: Gate | None = None) -> list[httpx.Response]:
    """The answers of the gate to requests, one after the other."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(gate or Gate(everything, options))
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.send(request) for request in requests]

    return asyncio.run(ask())


def request(method: str, path: str, **options) -> httpx.Request:
    return httpx.Request(method, f"http://server{path}", **options)


@pytest.mark.parametrize("path", ROUTES)
def test_a_server_without_uploads_refuses_them_on_every_route(path):
    upload = request("POST", path, files={"files": ("a.png", b"content", "image/png")})
    (refused,) = asked(ServeOptions(no_upload=True), upload)
    (taken,) = asked(ServeOptions(), request("POST", path, files={"files": ("a.png", b"content", "image/png")}))
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "this server takes no files; choose one of its pictures",
    )
    assert taken.status_code == 200


def test_a_login_form_is_no_upload():
    (answer,) = asked(ServeOptions(no_upload=True), request("POST", "/login", files={"username": (None, "me")}))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://169.254.169.254/latest/meta-data",
        "/gradio_api/file=HTTPS://example.org/a.png",
        "/gradio_api/proxy=http://localhost:22/",
        "/proxy=https://example.org/",
    ],
)
def test_the_server_never_fetches_an_address_for_a_visitor(path):
    (answer,) = asked(ServeOptions(), request("GET", path))
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/call/attack", "/gradio_api/run/attack"])
def test_a_picture_by_address_is_refused_however_deep_it_lies(path):
    file = {"path": " http://localhost:22/a.png", "meta": {"_type": "gradio.FileData"}}
    (answer,) = asked(ServeOptions(), request("POST", path, json={"data": [[{"image": file}]]}))
    assert answer.status_code == 403
    assert "fetches nothing" in answer.json()["detail"]


def test_a_picture_inside_a_request_is_an_upload_too():
    file = {"path": "a.png", "url": "data:image/png;base64,AAAA"}
    sent = [request("POST", "/gradio_api/queue/join", json={"data": [file]}) for _ in range(2)]
    (refused,) = asked(ServeOptions(no_upload=True), sent[0])
    (taken,) = asked(ServeOptions(), sent[1])
    assert (refused.status_code, taken.status_code) == (403, 200)


def test_what_passes_the_gate_reaches_the_app_unchanged():
    sent = {"data": ["chelsea", 4, {"path": "/tmp/gradio/a.png", "url": "http://server/gradio_api/file=/tmp/a.png"}]}
    (answer,) = asked(ServeOptions(no_upload=True), request("POST", "/gradio_api/queue/join", json=sent))
    assert answer.json() == sent


def test_a_request_that_is_too_large_is_refused_whether_it_says_so_or_not():
    async def in_parts():
        for _ in range(MOST_BYTES // 2**20 + 2):
            yield b" " * 2**20

    honest = request("POST", "/gradio_api/upload", headers={"content-length": str(MOST_BYTES + 1)}, content=b"")
    silent = request("POST", "/gradio_api/queue/join", headers={"content-type": "application/json"}, content=in_parts())
    assert [answer.status_code for answer in asked(ServeOptions(), honest, silent)] == [413, 413]


def test_no_more_visitors_are_let_in_than_there_is_room_for_and_those_inside_go_on():
    options = ServeOptions(max_visitors=1)
    gate = Gate(everything, options)
    gate.visitors["first"] = 1
    page = request("GET", "/")
    first, second = (
        request("POST", "/gradio_api/queue/join", json={"session_hash": name, "data": []}) for name in ("first", "next")
    )
    answers = asked(options, page, first, second, request("GET", HEALTH), gate=gate)
    assert [answer.status_code for answer in answers] == [503, 200, 503, 200]
    assert answers[0].headers["retry-after"] == "60"
    assert answers[3].json() == {"status": "ok", "visitors": 1}
    gate.visitors.clear()
    assert asked(options, request("GET", "/"), gate=gate)[0].status_code == 200


def test_a_visitor_counts_while_the_page_is_open():
    seen = []

    async def page(scope, receive, send):
        seen.append(dict(gate.visitors))
        await everything(scope, receive, send)

    gate = Gate(page, ServeOptions())
    asked(ServeOptions(), request("GET", "/gradio_api/heartbeat/abc"), gate=gate)
    assert seen == [{"abc": 1}]
    assert gate.visitors == {}


@pytest.mark.parametrize(
    ("options", "is_public"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "127.0.0.5"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "192.168.1.7"}, True),
        ({"host": "demo.example.org"}, True),
        ({"is_shared": True}, True),
    ],
)
def test_a_server_that_others_can_reach_is_public_and_has_a_limit(options, is_public):
    found = ServeOptions(**options)
    assert found.is_public == is_public
    assert found.visitors == (PUBLIC_VISITORS if is_public else None)


def test_the_defaults_are_safe():
    arguments = launch_arguments(ServeOptions())
    assert arguments["server_name"] == "127.0.0.1"
    assert not any(
        arguments[name] for name in ("share", "allowed_paths", "show_error", "enable_monitoring", "mcp_server")
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"port": 70000}, "port must lie in"),
        ({"root_path": "robviz/"}, "begins with a slash"),
        ({"max_visitors": 0}, "at least 1"),
        ({"auth": (("me", "short"),)}, "a password of at least 8"),
    ],
)
def test_an_impossible_option_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        ServeOptions(**options)


def test_logins_are_read_from_a_file(tmp_path):
    (tmp_path / "logins").write_text("ada:correct horse\n\nbob:with:colons\n")
    assert logins_in(tmp_path / "logins") == (("ada", "correct horse"), ("bob", "with:colons"))
    (tmp_path / "logins").write_text("ada\n")
    with pytest.raises(InputError, match="name:password"):
        logins_in(tmp_path / "logins")
    with pytest.raises(InputError, match="cannot read the logins"):
        logins_in(tmp_path / "nowhere")


@pytest.mark.slow
def test_garbage_is_searched_for_again_once_the_app_serves(monkeypatch):
    import robviz.app

    searches = []

    class Served:
        def launch(self, **arguments) -> None:
            searches.append(gc.isenabled())

        def block_thread(self) -> None:
            searches.append(gc.isenabled())

    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(robviz.app, "stop_on_terminate", lambda: None)
    monkeypatch.setattr(robviz.app, "build_app", lambda options, evaluations: Served())
    robviz.app.main()
    assert searches == [False, True]


# ------------------------------------------------------------------------------------------ what its views offer


WAYS = {
    "this machine": ServeOptions(),
    "host": ServeOptions(host="0.0.0.0"),
    "share": ServeOptions(is_shared=True),
    "no-upload": ServeOptions(no_upload=True),
}
PUBLIC = [name for name in WAYS if name != "this machine"]
BUILDS = """
import json
from robviz.app import build_app
from tests.test_serving import WAYS
found = {}
for name, options in WAYS.items():
    app = build_app(options)
    parts = {one.elem_id: getattr(one, "interactive", None) for one in app.blocks.values() if one.elem_id}
    found[name] = [sorted({one.name for one in app.fns.values() if one.name}), parts]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def offered() -> dict[str, tuple[set[str], dict[str, bool | None]]]:
    """By how the app is served: the names of its handlers, and which of its parts a visitor may change."""
    done = subprocess.run([sys.executable, "-c", BUILDS], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return {name: (set(handlers), parts) for name, (handlers, parts) in json.loads(done.stdout).items()}


@pytest.mark.slow
def test_on_this_machine_models_come_from_files_and_notes_are_written(offered):
    handlers, parts = offered["this machine"]
    assert {"add_own", "note_down", "fetch", "browse"} <= handlers
    assert {"own-files", "own-path"} <= parts.keys()
    assert parts["note"]


@pytest.mark.parametrize("way", PUBLIC)
@pytest.mark.slow
def test_a_public_server_takes_no_model_from_a_file_or_a_path(offered, way):
    handlers, parts = offered[way]
    assert "fetch" in handlers
    assert "add_own" not in handlers
    assert not {"own-files", "own-path"} & parts.keys()
    assert ("add" in handlers) == (not WAYS[way].is_public)


@pytest.mark.parametrize("way", PUBLIC)
@pytest.mark.slow
def test_a_public_server_shows_notes_and_takes_none(offered, way):
    handlers, parts = offered[way]
    assert "browse" in handlers
    assert "note_down" not in handlers
    assert parts["note"] is False


# ------------------------------------------------------------------------------------------ the running app


@pytest.mark.slow
@pytest.mark.app
def test_a_public_server_reads_no_file_of_its_disk_takes_none_and_stops_when_told(tmp_path):
    from robviz.bench import free_port, serving

    (tmp_path / "secret.txt").write_text("mine")
    with serving(free_port(), options=("--no-upload", "--max-visitors", "3")) as (process, _):
        address = f"http://127.0.0.1:{process.args[process.args.index('--port') + 1]}"
        assert status_of(f"{address}{HEALTH}") == 200
        files = ["/etc/passwd", tmp_path / "secret.txt", ROOT / "app.py", "robviz/sea.py", "../pyproject.toml"]
        files += [ROOT / "checkpoints" / "photos-clean.safetensors", "checkpoints/photos-clean.json"]
        for file in files:
            assert status_of(f"{address}/gradio_api/file={file}") in (403, 404), file
        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
        form = {"content-type": "multipart/form-data; boundary=b"}
        assert status_of(f"{address}/gradio_api/upload", data=body, headers=form, method="POST") == 403
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
