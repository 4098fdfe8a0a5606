from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from robviz import cli
from robviz.cli.application import application, repeat_options
from robviz.types import InputError


def leaves(command, *path):
    """Every command that can be run, by the words that name it."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, *path, name)


ROOT = typer.main.get_command(application)
COMMANDS = list(leaves(ROOT))


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


def test_the_commands_are_those_of_the_documentation():
    assert {path[0] for path in COMMANDS if path} >= {
        "app", "bench", "course", "data", "download", "evaluate", "finetune", "landing", "miniature", "tables",
    }  # fmt: skip
    assert {path[1] for path in COMMANDS if path[:1] == ("course",) and path[1:]} == {
        "badges", "check", "record", "render", "solve", "strip",
    }  # fmt: skip
    assert {path[1] for path in COMMANDS if path[:1] == ("data",) and path[1:]} == {"check", "get", "weights"}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_written_in_whole_sentences_and_fits_80_columns(path, capsys):
    cli.main([*path, "--help"])
    shown = capsys.readouterr().out
    assert "Usage: robviz" in shown
    assert max(map(len, shown.splitlines())) <= 80
    command = ROOT
    for name in path:
        command = command.commands[name]
    texts = [command.help, *(option.help for option in command.params if option.name != "help")]
    for text in texts:
        assert text, f"{path} has an option without help"
        assert text.strip()[0].isupper()
        assert text.strip().endswith(".")


@pytest.mark.parametrize("words", [["evaluatee"], ["data", "chek"], ["course", "rendr"]])
def test_a_mistyped_command_suggests_the_right_one(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    right = {"evaluatee": "evaluate", "chek": "check", "rendr": "render"}[words[-1]]
    assert f"Did you mean '{right}'?" in capsys.readouterr().err


def test_a_mistyped_option_suggests_the_right_one(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "photos-clean", "--setings", "quick"])
    assert "--settings" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch):
    def fail_with(error):
        def load(*_):
            raise error

        monkeypatch.setattr("robviz.datasets.load_dataset", load)

    return fail_with


def test_only_an_input_error_becomes_a_sentence(failing):
    failing(InputError("expected this, got that; do so"))
    with pytest.raises(SystemExit, match=r"^robviz: expected this, got that; do so$"):
        cli.main(["data", "check", "photos"])
    failing(ValueError("operands could not be broadcast"))
    with pytest.raises(ValueError, match="broadcast"):
        cli.main(["data", "check", "photos"])


def test_an_interruption_ends_with_status_130(failing):
    failing(KeyboardInterrupt())
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "check", "photos"])
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["--seeds", "0", "1", "--out", "x", "a"], ["--seeds", "0", "--seeds", "1", "--out", "x", "a"]),
        (["name", "--set", "a=1", "b=-2"], ["name", "--set", "a=1", "--set", "b=-2"]),
        (["--set", "a=1", "--set", "b=2"], ["--set", "a=1", "--set", "b=2"]),
        (["--out", "x", "y"], ["--out", "x", "y"]),
    ],
)
def test_an_option_takes_several_values_at_once(given, parsed):
    assert repeat_options(given, {"--seeds", "--set"}) == parsed


def test_the_recipes_are_listed_one_a_line(capsys):
    from robviz.finetune import RECIPES

    cli.main(["finetune"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert set(RECIPES) <= {line[0] for line in lines if line}


def test_the_command_line_starts_without_torch_or_gradio():
    code = "import robviz.cli, sys; assert not {'torch', 'gradio', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
