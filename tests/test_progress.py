"""Progress bars: shown on a terminal, silent in a pipe, and gone without a trace after an exception."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from robviz.files.progress import SWITCH, Bar, track

pty = pytest.importorskip("pty", reason="pseudo-terminals exist on Unix only")

TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
HIDE_CURSOR = "\x1b[?25l"


def on_terminal(code: str, send: int | None = None, stdout: int | None = None, **variables: str) -> tuple[str, int]:
    """Return what a program writes to a terminal, and its exit code; it may get a signal after it wrote `ready`."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**os.environ, **TERMINAL, **variables},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux reports that nobody writes any more
            part = b""
        if not part:
            break
        written += part
        if send is not None and b"ready" in written:
            process.send_signal(send)
            send = None
    os.close(ours)
    return written.decode(), process.wait(timeout=60)


def screen(written: str) -> list[str]:
    """The lines that a terminal shows in the end, as far as our bars move its cursor."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, lines = row + 1, [*lines, *[""] * (row + 2 - len(lines))]
        elif piece[0] == "\x1b":
            number = int(piece[2:-1]) if piece[2:-1].isdigit() else 1
            if piece[-1] == "A":
                row -= number
            elif piece[-1] == "K":
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines if line.strip()]


IMPORTS = "import sys, time; from robviz.files.progress import Bar, track\n"


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is_and_keeps_the_finished_bar():
    written, code = on_terminal(IMPORTS + "for _ in track(range(3), 'counting [x]', unit='images'): time.sleep(0.3)")
    assert code == 0
    assert "0/3 images" in written
    assert "1/3 images" in written
    (line,) = screen(written)
    assert line.startswith("counting [x] ")
    assert "100% 3/3 images" in line


def test_a_bar_that_does_not_stay_leaves_an_empty_line_at_most():
    written, _ = on_terminal(
        IMPORTS + "for _ in track(range(3), 'counting', stays=False): time.sleep(0.1)\nprint('end')"
    )
    assert "counting" in written
    assert screen(written) == ["end"]


def test_bytes_are_shown_in_readable_units():
    code = "with Bar('file', 3_000_000, 'bytes', done=1_000_000) as bar: bar.advance(500_000)"
    written, _ = on_terminal(IMPORTS + code)
    assert "50% 1.5 MB of 3.0 MB" in screen(written)[0]


def test_a_note_and_printed_lines_appear_beside_and_above_the_bar():
    code = """
with Bar("training", 2) as bar:
    bar.advance(1, "loss 0.5")
    time.sleep(0.3)
    bar.advance(1, "loss 0.25")
    bar.log("iteration 2: fine")
    print("a warning", file=sys.stderr)
"""
    lines = screen(on_terminal(IMPORTS + code)[0])
    assert lines[:2] == ["iteration 2: fine", "a warning"]
    assert lines[2].startswith("training")
    assert lines[2].endswith("loss 0.25")
    assert len(lines) == 3


@pytest.mark.slow
def test_a_bar_within_a_bar_has_a_line_of_its_own_and_goes_first():
    code = """
with Bar("outer", 2) as outer:
    for _ in range(2):
        for _ in track(range(2), "inner", stays=False):
            time.sleep(0.3)
        outer.advance()
"""
    written, code = on_terminal(IMPORTS + code)
    assert code == 0
    assert re.search(r"outer[^\n]*\n[^\n]*inner", written)
    (line,) = screen(written)
    assert "100% 2/2" in line


@pytest.mark.parametrize(
    "raises", ["for i in track(range(9), 'it'): 1 / (3 - i)", "with Bar('it', 9) as bar: bar.advance(3); 1 / 0"]
)
def test_an_exception_ends_the_bar_before_its_traceback(raises):
    written, code = on_terminal(f"{IMPORTS}{raises}")
    assert code == 1
    shown = screen(written)
    assert "33% 3/9" in shown[0]
    assert shown[1] == "Traceback (most recent call last):"
    assert shown[-1] == "ZeroDivisionError: division by zero"
    assert HIDE_CURSOR not in written


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminate"])
def test_a_stopped_program_leaves_the_cursor_visible(sent):
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which background jobs ignore
    code = "for _ in track(range(9), 'it'): print('ready', flush=True); time.sleep(60)"
    written, status = on_terminal(IMPORTS + heed + code, send=sent)
    assert status != 0
    assert "0/9" in written
    assert HIDE_CURSOR not in written


def test_bars_need_no_thread_and_restore_the_streams():
    code = """
import threading
before = sys.stdout, sys.stderr
try:
    for _ in track(range(3), "outer"):
        for _ in track(range(3), "inner"):
            assert threading.active_count() == 1
            raise RuntimeError
except RuntimeError:
    pass
assert (sys.stdout, sys.stderr) == before
with Bar("once more", 1) as bar:
    bar.advance()
"""
    written, status = on_terminal(IMPORTS + code)
    assert status == 0, written
    assert "100% 1/1" in screen(written)[-1]


def test_bars_of_several_threads_share_the_display():
    code = """
import threading
def work(name):
    for _ in track(range(5), name): time.sleep(0.05)
threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    written, status = on_terminal(IMPORTS + code)
    assert status == 0
    assert "Traceback" not in written
    assert sorted(line[:8] for line in screen(written)) == [f"thread {n}" for n in range(4)]


def test_what_a_program_prints_into_a_file_never_reaches_the_terminal(tmp_path):
    with (tmp_path / "out").open("w") as out:
        written, _ = on_terminal(IMPORTS + "for i in track(range(3), 'it'): print('row', i)", stdout=out.fileno())
    assert (tmp_path / "out").read_text() == "row 0\nrow 1\nrow 2\n"
    assert "row" not in written


def test_a_pipe_gets_nothing_and_rich_is_not_imported():
    code = "list(track(range(3), 'it'))\nwith Bar('x', 3) as bar: bar.advance()\nassert 'rich' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", IMPORTS + code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("variables", [{SWITCH: "0"}, {"TERM": "dumb"}], ids=["switched off", "dumb"])
def test_a_terminal_without_bars_gets_nothing(variables):
    assert on_terminal(IMPORTS + "list(track(range(3), 'it'))", **variables) == ("", 0)


def test_a_log_gets_a_line_now_and_then_in_place_of_a_bar(capsys):
    with Bar("recipe", 1000, "iterations", logs=True) as bar:
        for _ in range(1000):
            bar.advance(1, "loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0] == "recipe: 50/1000 iterations loss 0.5"
    with Bar("recipe", 1000, logs=True, is_shown=False) as bar:
        bar.advance(1000)
    assert capsys.readouterr().err == ""


def test_iterating_gives_the_items_and_stops_early_without_a_fuss():
    assert list(track((n for n in (1, 2, 3)), "it")) == [1, 2, 3]
    for item in track([1, 2, 3], "it"):
        if item == 2:
            break
    assert item == 2


@pytest.mark.notebook
def test_a_notebook_shows_a_widget_and_writes_no_stream():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets")
    source = IMPORTS + "for _ in track(range(3), 'counting'): pass"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"]
    (view,) = (output.data["application/vnd.jupyter.widget-view+json"] for output in outputs)
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"][view["model_id"]]["state"]
    shown = "".join(str(output) for output in state["outputs"])
    assert "3/3" in shown


def test_a_silent_step_costs_nothing():
    """Count, as nothing else is done: a bound far above what it takes, and far below what drawing would."""
    started = time.process_time()
    with Bar("it", 100_000) as bar:
        for _ in range(100_000):
            bar.advance()
    assert bar.done == 100_000
    assert time.process_time() - started < 2
