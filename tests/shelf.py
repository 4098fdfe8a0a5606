"""A web server on this machine that holds one file and misbehaves by a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Shelf(ThreadingHTTPServer):
    """`body` under every path. `script`: how to answer one request after the other, the last answer from then on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.body = b""
        self.version: dict[str, str] = {"ETag": '"1"'}
        self.script: list[Answer] = [well]
        self.requests: list[dict[str, str]] = []  # their headers
        self.was_asked = threading.Event()
        self.released = threading.Event()  # ends every stall

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the game."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shelf

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        self.server.was_asked.set()
        self.close_connection = True
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def log_message(self, *arguments) -> None:
        pass

    def start(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(length), "Connection": "close", **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()


def well(
    handler: Handler, stop_after: int | None = None, stall: bool = False, ranges: bool = True, polite: bool = True
) -> None:
    """What was asked for. stop_after: hang up after so many bytes. ranges, polite: heed Range, and If-Range."""
    server, asked = handler.server, handler.headers.get("Range")
    is_same = handler.headers.get("If-Range") in server.version.values() or not polite
    first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges and is_same else 0
    if first >= len(server.body) > 0:
        return handler.start(416, 0, Content_Range=f"bytes */{len(server.body)}")
    rest, total = server.body[first:], len(server.body)
    if first:
        handler.start(206, len(rest), Content_Range=f"bytes {first}-{total - 1}/{total}", **server.version)
    else:
        handler.start(200, len(rest), **server.version)
    handler.wfile.write(rest[:stop_after])
    handler.wfile.flush()
    if stall:
        server.released.wait(20)
        handler.wfile.write(rest[stop_after:])


def hangs_up(after: int) -> Answer:
    return partial(well, stop_after=after)


def stalls(after: int) -> Answer:
    return partial(well, stop_after=after, stall=True)


def fails(status: int) -> Answer:
    return lambda handler: handler.start(status, 0)


def sends_to(url: str) -> Answer:
    return lambda handler: handler.start(302, 0, Location=url)


def page(handler: Handler) -> None:
    text = b"<!DOCTYPE html><title>This share is no longer available</title>"
    handler.start(200, len(text), Content_Type="text/html; charset=utf-8")
    handler.wfile.write(text)


@contextmanager
def shelf() -> Iterator[Shelf]:
    with Shelf() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
