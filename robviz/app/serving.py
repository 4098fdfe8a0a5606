"""Who may reach the app and what they may do: options, their arguments for gradio, and a gate before every request.

By default the app answers this machine alone. What a public server must not allow, and where it is refused:

- files of the server's disk: gradio serves what it has written itself and nothing else (`allowed_paths` is empty);
- requests that the server should make in the visitor's name: addresses as pictures, `/proxy=` and `/file=http...`;
- uploads, with `no_upload`, on every route;
- endless work: more visitors than `max_visitors`, more waiting than `QUEUE`, requests larger than `MOST_BYTES`;
- trainings, which compute for minutes and keep models: `robviz.app` leaves the view out where `is_public`;
- models of other libraries, which fill the disk: `robviz.app.views.models` takes no name where `is_public`;
- models from files and folders, and notes on failures, which others would read: only where `trusts_visitors`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robviz.types import InputError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: How many events may wait for their turn.
QUEUE = 64
#: Between two looks for work, in seconds. gradio's own millisecond wakes a core all the time, also that of an attack.
QUEUE_SECONDS = 0.01
#: The largest request, in bytes; an upload is a little larger than its file.
UPLOAD_LIMIT, MOST_BYTES = "30mb", 32 * 2**20
#: How many may look at a public server at a time, unless `max_visitors` says otherwise.
PUBLIC_VISITORS = 20
HEALTH = "/health"
FEWEST_LETTERS = 8  # of a password


@dataclass(frozen=True)
class ServeOptions:
    """How the app is served; the defaults are for this machine alone.

    Attributes:
        host: The address to listen on; `0.0.0.0` for every network that this machine is in.
        port: The port.
        root_path: The path at which a proxy serves the app, such as `/robviz`; empty for the root.
        is_shared: Whether to open gradio's public tunnel, a link that everybody may use who knows it.
        auth: Names and passwords that visitors must give; none for no login.
        max_visitors: How many pages may be open at a time; None for no limit, or `PUBLIC_VISITORS` on a public server.
        no_upload: Whether to refuse every file from visitors.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    root_path: str = ""
    is_shared: bool = False
    auth: tuple[tuple[str, str], ...] = ()
    max_visitors: int | None = None
    no_upload: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"the port must lie in 0 .. 65535, got {self.port}")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise InputError(f"the root path begins with a slash and ends without, as /robviz; got {self.root_path!r}")
        if self.max_visitors is not None and self.max_visitors < 1:
            raise InputError(f"max_visitors must be at least 1, got {self.max_visitors}")
        for name, password in self.auth:
            if not name or len(password) < FEWEST_LETTERS:
                raise InputError(f"a login needs a name and a password of at least {FEWEST_LETTERS} letters: {name!r}")

    @property
    def is_public(self) -> bool:
        """Return True if others than the users of this machine may reach the app."""
        if self.is_shared:
            return True
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    @property
    def trusts_visitors(self) -> bool:
        """Return True if visitors may leave models and notes on the disk: users of this machine, who may upload."""
        return not (self.is_public or self.no_upload)

    @property
    def visitors(self) -> int | None:
        """How many pages may be open at a time; None for no limit."""
        return self.max_visitors or (PUBLIC_VISITORS if self.is_public else None)


#: The defaults: nobody else can reach the app.
ON_THIS_MACHINE = ServeOptions()


def logins_in(path: Path) -> tuple[tuple[str, str], ...]:
    """Read names and passwords from a file with a line `name:password` for each.

    A file, as what stands on a command line can be read by every user of the machine.

    Raises:
        InputError: for a file that is missing or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the logins in {path}: {error}") from error
    found = [tuple(line.strip().partition(":")[::2]) for line in lines if line.strip()]
    if not found or not all(name and password for name, password in found):
        raise InputError(f"{path} must contain a line name:password for each login")
    return tuple((name, password) for name, password in found)


def launch_arguments(options: ServeOptions) -> dict[str, Any]:
    """Return the arguments for gradio's `launch` that follow from the options."""
    from starlette.middleware import Middleware

    return {
        "server_name": options.host,
        "server_port": options.port,
        "root_path": options.root_path or None,
        "share": options.is_shared,
        "auth": list(options.auth) or None,
        "app_kwargs": {"middleware": [Middleware(Gate, options=options)]},
        "max_file_size": UPLOAD_LIMIT,
        "allowed_paths": [],
        "strict_cors": True,
        "show_error": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
    }


def is_free(host: str, port: int) -> bool:
    """Return True if a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":  # elsewhere, the option lets two servers share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(host: str, port: int) -> None:
    """Raise InputError, naming the next free port, where another program listens on this one."""
    if not 0 <= port <= 65535:
        raise InputError(f"a port is a number within 0 .. 65535, got {port}")
    if port and not is_free(host, port):
        others = (one for one in range(port + 1, min(port + 100, 65536)) if is_free(host, one))
        other = next(others, None)
        advice = "give another with --port" if other is None else f"port {other} is free: add --port {other}"
        raise InputError(f"port {port} of {host} is taken by another program, or by another app of robviz; {advice}")


def stop_on_terminate() -> None:
    """End as by Ctrl-C when the system asks: the first process of a container ignores that otherwise."""

    def interrupted(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)


@dataclass(frozen=True)
class Refusal:
    """An answer instead of what was asked for."""

    status: int
    sentence: str


FETCHES = Refusal(403, "this server fetches nothing from elsewhere; upload the picture instead")
NO_UPLOAD = Refusal(403, "this server takes no files; choose one of its pictures")
TOO_LARGE = Refusal(413, f"a request holds at most {MOST_BYTES // 2**20} MiB")
FULL = Refusal(503, "as many visitors are here as this server takes; please try again in a minute")
ELSEWHERE = ("http://", "https://", "ftp://", "file://", "//")


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in nested JSON that is no list and no object, with its key."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from leaves(inside, name)
    elif isinstance(value, list):
        for inside in value:
            yield from leaves(inside, key)
    else:
        yield key, value


class Gate:
    """Refuse what a server must not do, before gradio sees the request, and answer the health check."""

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self.app, self.options = app, options
        self.visitors: dict[str, int] = {}  # session -> its open pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"].removeprefix(self.options.root_path), scope["method"]
        if path == HEALTH:
            await answer(send, 200, {"status": "ok", "visitors": len(self.visitors)})
        elif refused := self.refused(scope, path):
            await answer(send, refused.status, {"detail": refused.sentence})
        elif "/heartbeat/" in path:
            await self.counted(path.rstrip("/").rpartition("/")[2], scope, receive, send)
        elif method == "POST" and header(scope, "content-type").startswith("application/json"):
            await self.read(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def refused(self, scope: Scope, path: str) -> Refusal | None:
        """Check the address and the headers."""
        told = path.lower()
        length = header(scope, "content-length")
        if length.isdigit() and int(length) > MOST_BYTES:
            return TOO_LARGE
        if "/proxy=" in told or any(f"/file={start}" in told for start in ("http:", "https:", "ftp:")):
            return FETCHES
        is_form = header(scope, "content-type").startswith("multipart/") and not told.rstrip("/").endswith("/login")
        is_upload = scope["method"] in ("POST", "PUT", "PATCH") and told.rstrip("/").endswith(("/upload", "_recording"))
        if self.options.no_upload and (is_form or is_upload):
            return NO_UPLOAD
        if told in ("", "/") and self.is_full():
            return FULL
        return None

    def is_full(self) -> bool:
        """Return True if as many pages are open as the server takes."""
        return self.options.visitors is not None and len(self.visitors) >= self.options.visitors

    async def counted(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the visitor for as long as the page stays open."""
        self.visitors[session] = self.visitors.get(session, 0) + 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.visitors[session] -= 1
            if not self.visitors[session]:
                del self.visitors[session]

    async def read(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look into a request's JSON before it is passed on."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > MOST_BYTES:
                await answer(send, TOO_LARGE.status, {"detail": TOO_LARGE.sentence})
                return
            if not message.get("more_body", False):
                break
        if refused := self.refused_body(body):
            await answer(send, refused.status, {"detail": refused.sentence})
            return
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> MutableMapping[str, Any]:
            return unread.pop() if unread else await receive()

        await self.app(scope, again, send)

    def refused_body(self, body: bytes) -> Refusal | None:
        """Check a request's JSON: files by address, and work for visitors beyond the limit."""
        try:
            values = json.loads(body)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            return None  # gradio refuses it in its own words
        for key, value in leaves(values):
            if not isinstance(value, str):
                continue
            start = value[:16].lower().lstrip()
            if key == "path" and start.startswith(ELSEWHERE):
                return FETCHES
            if self.options.no_upload and key in ("path", "url") and start.startswith("data:"):
                return NO_UPLOAD
        session = values.get("session_hash") if isinstance(values, dict) else None
        if session is not None and session not in self.visitors and self.is_full():
            return FULL
        return None


def header(scope: Scope, name: str) -> str:
    """Return a header of a request, in small letters; empty where there is none."""
    return next((value.decode("latin-1").lower() for key, value in scope["headers"] if key.decode() == name), "")


async def answer(send: Send, status: int, values: dict[str, Any]) -> None:
    """Send a JSON answer."""
    body = json.dumps(values).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"60"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
