"""Download files whole or not at all, despite broken connections, killed processes and replaced files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from robviz.files.progress import Bar
from robviz.types import InputError

if TYPE_CHECKING:
    import httpx


TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 2.0, 4.0)  # seconds between the attempts
#: Called with the bytes received so far and those of the whole file, or None if the server does not say.
Listener = Callable[[int, "int | None"], object]


class Refused(Exception):
    """Report an answer that would be the same in another attempt."""


def fetch(url: str, path: Path, listener: Listener = lambda received, total: None) -> None:
    """Download a file whole or not at all.

    Received bytes are kept in `<path>.part`. The next attempt, or the next call, continues from there if the server can
    and confirms by ETag or date (in `<path>.part.version`) that the file is the same; otherwise it starts over. Only
    one call at a time may download to a path. Raises InputError that says which file to put where by hand.
    """
    import httpx

    path.parent.mkdir(parents=True, exist_ok=True)
    final = (Refused, httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL)
    part, version = (path.with_name(path.name + suffix) for suffix in (".part", ".part.version"))
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
        for pause in (*PAUSES, None):
            try:
                receive(client, url, part, version, listener)
                break
            except (httpx.HTTPError, httpx.InvalidURL, Refused) as error:
                if pause is None or isinstance(error, final):
                    raise InputError(
                        f"cannot download {url} ({error}); fetch it by other means and put it at {path}"
                    ) from error
                time.sleep(pause)
    part.replace(path)
    version.unlink(missing_ok=True)


def receive(client: httpx.Client, url: str, part: Path, version: Path, listener: Listener) -> None:
    """Make one attempt: append the missing bytes to `part`, or write it from the start.

    Raises an error unless the file is then complete.
    """
    import httpx

    offset = part.stat().st_size if part.exists() and version.exists() else 0
    known = version.read_text(encoding="utf-8") if offset else ""
    asked = {"Range": f"bytes={offset}-", "If-Range": known} if offset else {}
    # Without the encoding, a server may compress, and lengths and ranges would count other bytes than ours.
    with client.stream("GET", url, headers={"Accept-Encoding": "identity", **asked}) as response:
        check_answer(response)
        if response.status_code == 200:
            part.write_bytes(b"")
            if found := version_of(response):
                version.write_text(found, encoding="utf-8")
            else:
                version.unlink(missing_ok=True)
        elif not goes_on(response, offset, known):
            version.unlink(missing_ok=True)
            raise httpx.RemoteProtocolError("it answered with a different part than requested")
        length = response.headers.get("Content-Range") or response.headers.get("Content-Length", "")
        total = int(digits) if (digits := length.rpartition("/")[2]).isdigit() else None
        with (
            part.open("ab") as file,
            Bar(part.stem, total, "bytes", done=file.tell(), stays=False) as bar,
        ):
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.advance(len(chunk))
                listener(file.tell(), total)
            size = file.tell()
    if total not in (None, size):
        raise httpx.RemoteProtocolError(f"{size} of {total} bytes arrived")


def check_answer(response: httpx.Response) -> None:
    """Raise `Refused` if another attempt is useless, and httpx's error if it may succeed."""
    import httpx

    status = f"it answered {response.status_code} {response.reason_phrase}"
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise httpx.RemoteProtocolError(status)
    if response.status_code not in (200, 206, 416):
        raise Refused(status)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise Refused("it answered with a web page, not a file: the link may have expired")


def goes_on(response: httpx.Response, offset: int, known: str) -> bool:
    """Return True if a partial answer continues our file, in the same version."""
    begins_there = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    return response.status_code == 206 and begins_there and version_of(response) in (None, known)


def version_of(response: httpx.Response) -> str | None:
    """Return what distinguishes this file from a later one at the same address, in the server's words."""
    etag = response.headers.get("ETag", "W/")
    result: str | None = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
    return result
