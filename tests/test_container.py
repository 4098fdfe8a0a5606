"""The containers that start the app: what their files say, and that their steps run, with an engine and without."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
import yaml

from robviz.app.serving import HEALTH
from robviz.bench import free_port
from tests.server import PATIENCE, status_of, until

ROOT = Path(__file__).parent.parent
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "spaces" / "Dockerfile"]
each = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined, comments left out."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


@each
def test_a_container_runs_as_nobody_special_says_how_it_is_and_keeps_one_volume(path):
    steps = instructions(path)
    names = [name for name, _ in steps]
    values = dict(steps)
    assert names[0] in ("ARG", "FROM")
    assert all(":" in value and not value.endswith(":latest") for name, value in steps if name == "FROM")
    assert values["USER"] not in ("root", "0")
    assert names.index("USER") < names.index("CMD")
    assert HEALTH in values["HEALTHCHECK"]
    assert names.count("VOLUME") <= 1
    assert values["CMD"].startswith("["), "in this form the signal reaches the app itself"
    assert "ADD" not in names
    assert all("--no-cache-dir" in value for name, value in steps if name == "RUN" and "pip install" in value)


@each
def test_the_command_of_a_container_is_one_that_the_command_line_understands(path, monkeypatch):
    import robviz.app
    from robviz.cli import main

    started = {}
    monkeypatch.setattr(robviz.app, "main", lambda **arguments: started.update(arguments))
    command = yaml.safe_load(dict(instructions(path))["CMD"])
    assert command[0] == "robviz"
    main(command[1:])
    options = started["options"]
    assert (options.host, options.is_public, options.port) == ("0.0.0.0", True, 7860)


def test_the_space_says_what_hugging_face_needs_to_know():
    _, front, _ = (ROOT / "spaces" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["sdk"], facts["app_port"], facts["license"]) == ("docker", 7860, "mit")
    assert len(facts["short_description"]) <= 60


# ------------------------------------------------------------------------------------------ without an engine


#: In place of commands that only the first user of a system may run: a home and an owner, written down.
ONLY_ROOT = {
    "useradd": 'for name; do :; done; mkdir -p "$CONTAINER/home/$name"; echo "$name" >> "$CONTAINER/users"',
    "chown": 'grep -qx "$1" "$CONTAINER/users" && test -e "$2"',
}


class Container:
    """A folder in the place of a container, in which the steps of a Dockerfile run as the user of the tests.

    Absolute paths lie in the folder. Its Python is a virtual environment that sees the packages installed here, robviz
    left out, and reaches no index: what a step installs beyond them is what the context holds.
    """

    def __init__(self, root: Path, context: Path, port: int) -> None:
        self.root, self.context, self.port = root, context, port
        self.folder = root
        self.command: list[str] = []
        self.health = ""
        others = root / "packages"
        for folder in (others, root / "tmp", root / "bin"):
            folder.mkdir(parents=True)
        for one in Path(sysconfig.get_path("purelib")).iterdir():
            if "robviz" not in one.name:
                (others / one.name).symlink_to(one)
        venv.create(root / "python", symlinks=True)
        (site,) = (root / "python").glob("**/site-packages")
        (site / "others.pth").write_text(str(others), encoding="utf-8")
        for name, text in ONLY_ROOT.items():
            (root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            (root / "bin" / name).chmod(0o755)
        (root / "bin" / "pip").write_text('#!/bin/sh\nexec python -m pip "$@"\n', encoding="utf-8")
        (root / "bin" / "pip").chmod(0o755)
        self.environment = {
            "PATH": os.pathsep.join([str(root / "bin"), str(root / "python" / "bin"), "/usr/bin", "/bin"]),
            "CONTAINER": str(root),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of "isolate"
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def inside(self, text: str) -> str:
        """Give absolute paths and the port of the container their place on this machine."""
        return re.sub(r"(?<![\w./])(?=/(opt|data|home|tmp)\b)", str(self.root), text).replace("7860", str(self.port))

    def take(self, name: str, value: str) -> None:
        """Follow one instruction."""
        value = self.inside(value)
        if name == "WORKDIR":
            self.folder = Path(value)
            self.folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = value.split()
            for pattern in sources:
                found = list(self.context.glob(pattern))
                assert found, f"{pattern} is not in the context"
                for source in found:
                    (shutil.copytree if source.is_dir() else shutil.copy)(source, self.folder / target)
        elif name == "RUN":
            ran = subprocess.run(
                ["sh", "-ec", value], cwd=self.folder, env=self.environment, capture_output=True, text=True
            )
            assert ran.returncode == 0, f"{value}\n{ran.stdout}{ran.stderr}"
        elif name == "USER":
            self.environment["HOME"] = str(self.root / "home" / value)
        elif name == "ENV":
            self.environment |= dict(one.split("=", 1) for one in shlex.split(value))
        elif name == "HEALTHCHECK":
            self.health = value.partition(" CMD ")[2]
        elif name == "CMD":
            self.command = yaml.safe_load(value)
        else:
            assert name in ("ARG", "FROM", "VOLUME", "EXPOSE"), f"{name} is not followed"

    def is_healthy(self) -> bool:
        """Return True if the command of the health check ends well."""
        ran = subprocess.run(["sh", "-c", self.health], cwd=self.folder, env=self.environment, capture_output=True)
        return ran.returncode == 0


def context_of(path: Path, folder: Path) -> Path:
    """Copy what an engine would be given: what .dockerignore lets through, or the wheel of the space."""
    folder.mkdir()
    ignore = path.parent / ".dockerignore"
    if ignore.exists():
        first, *rest = ignore.read_text(encoding="utf-8").split()
        assert first == "*"
        for name in (one[1:] for one in rest if one.startswith("!")):
            source = path.parent / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
    else:
        built = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
            capture_output=True,
            text=True,
        )
        assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.app
@each
def test_the_steps_of_a_container_run_and_the_app_answers_its_health_check_and_stops(path, tmp_path):
    container = Container(tmp_path / "root", context_of(path, tmp_path / "context"), free_port())
    for name, value in instructions(path):
        container.take(name, value)
    home = Path(container.environment["HOME"])
    process = subprocess.Popen(container.command, cwd=home, env=container.environment)
    try:
        assert not container.is_healthy(), "the check says well before the app has started"
        until(container.is_healthy)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    finally:
        process.kill()
    volume = dict(instructions(path)).get("VOLUME", "")
    written = {str(one.relative_to(container.root)) for one in home.iterdir()}
    assert written <= {"home/visitor/cache"}, "what is kept lies in one place"
    assert not volume or (container.root / volume.lstrip("/")).is_dir()


# ------------------------------------------------------------------------------------------ with an engine


def has_engine() -> bool:
    """Return True if a container engine answers; its command alone may be there without one."""
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not has_engine(), reason="no container engine answers on this machine")
def test_the_container_starts_and_stops():
    run = {"capture_output": True, "text": True, "check": True}
    subprocess.run(["docker", "build", "--tag", "robviz-test", str(ROOT)], **run)
    name = subprocess.run(["docker", "run", "--detach", "--rm", "--publish", "7861:7860", "robviz-test"], **run).stdout
    try:
        for _ in range(60):
            time.sleep(1)
            with contextlib.suppress(OSError):
                if status_of(f"http://127.0.0.1:7861{HEALTH}") == 200:
                    break
        else:
            pytest.fail("the container does not answer its health check")
    finally:
        subprocess.run(["docker", "stop", "--time", "20", name.strip()], **run)
