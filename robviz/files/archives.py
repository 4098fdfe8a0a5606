"""Unpack archives into one folder and nowhere else, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from robviz.types import InputError

CHUNK = 1 << 20  # bytes


def require_sha1(path: Path, sha1: str) -> None:
    """Raise InputError unless the file has this digest."""
    digest = hashlib.sha1()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != sha1:
        raise InputError(f"{path.name} is not the expected file: expected SHA-1 {sha1}, got {digest.hexdigest()}")


def require_inside(member: str) -> None:
    """Raise InputError for a path outside the folder that the archive is unpacked into."""
    posix, windows = PurePosixPath(member), PureWindowsPath(member)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise InputError(f"the archive contains {member!r}, which lies outside its folder; nothing was unpacked")


def extract_archive(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new folder, whole or not at all.

    Raises InputError for a damaged archive, for one with paths or links out of the folder, and if the folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; move it away to unpack {archive.name} there")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for name in opened.namelist():
                    require_inside(name)
                opened.extractall(part)
        else:
            with tarfile.open(archive) as opened:
                for member in opened:
                    require_inside(member.name)
                    opened.extract(member, part, filter="data")
        part.replace(folder)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise InputError(f"could not unpack {archive.name}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
