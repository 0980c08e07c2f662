"""Every wait shows that work goes on, in the way that suits the place."""

import io
import re
import subprocess
import sys
import time
import types

import nbformat
import pytest
from tqdm import notebook, std

from hesslib import _progress as progress
from hesslib._progress import Lines, bar, waiting

LINE = r"\w+: \d+% after 00:00, about 00:0\d left\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.3)
    monkeypatch.setattr(std.tqdm, "monitor_interval", 0)


def test_a_log_gets_one_line_for_each_step(capsys):
    for desc in ("training", "assembly"):
        for _ in bar(range(200), desc=desc):
            time.sleep(0.01)
    said = capsys.readouterr()
    assert re.fullmatch(LINE * 2, said.err) and not said.out


def test_a_long_step_is_mentioned_again(capsys, monkeypatch):
    monkeypatch.setattr(progress, "AGAIN", 1.0)
    for _ in bar(range(200), desc="training"):
        time.sleep(0.01)
    assert re.fullmatch(LINE * 2, capsys.readouterr().err.replace("00:01", "00:00"))


def test_short_work_and_work_asked_to_be_quiet_say_nothing(capsys):
    for _ in bar(range(10), desc="training"):
        time.sleep(0.001)
    for _ in bar(range(100), desc="training", show=False):
        time.sleep(0.01)
    with waiting("eigenvalues", 0.1):
        pass
    with waiting("eigenvalues", 10, show=False):
        time.sleep(0.5)
    assert capsys.readouterr().err == ""


def test_one_long_call_is_shown_by_the_clock(capsys):
    with waiting("eigenvalues", 5):
        time.sleep(1.6)
    assert re.fullmatch(r"eigenvalues: 20% after 00:01, about 00:0\d left\n", capsys.readouterr().err)
    with pytest.raises(KeyError), waiting("eigenvalues", 5):
        raise KeyError


def test_each_place_gets_its_kind_of_bar(monkeypatch):
    assert progress._style() is Lines
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    assert progress._style() is std.tqdm
    kernel = types.SimpleNamespace(IPKernelApp=types.SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    for command, kind in (("jupyter-lab", notebook.tqdm), ("/usr/bin/papermill in out", Lines)):
        starter = types.SimpleNamespace(cmdline=lambda command=command: command.split())
        monkeypatch.setattr(progress.psutil, "Process", lambda pid, starter=starter: starter)
        assert progress._style() is kind
    monkeypatch.setenv("HESSLIB_LINES", "1")
    monkeypatch.setattr(progress.psutil, "Process", lambda pid: types.SimpleNamespace(cmdline=lambda: ["jupyter-lab"]))
    assert progress._style() is Lines


def test_a_log_of_papermill_holds_one_line(tmp_path):
    source = "from time import sleep\nfrom hesslib._progress import bar\n"
    source += "for _ in bar(range(300), desc='training'):\n    sleep(0.01)"
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    node.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(node, tmp_path / "in.ipynb")
    line = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--log-output", "--no-progress-bar"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"training: \d+% after 00:0\d, about 00:0\d left", done.stderr)) == 1
    assert done.stderr.count("training") == 1 + done.stderr.count("desc='training'")


def test_a_bar_of_jupyter_is_made_only_when_it_is_shown(monkeypatch):
    """Its widgets are messages: many short bars, none of them shown, must send none."""
    made = []

    class Page(std.tqdm):
        def __init__(self, *args, **options):
            made.append(self)
            super().__init__(*args, **options, file=io.StringIO())

    Page.__module__ = "tqdm.notebook"
    monkeypatch.setattr(progress, "_style", lambda: Page)
    for _ in range(50):
        assert list(bar(range(3), desc="short")) == [0, 1, 2]
    assert not made
    monkeypatch.setattr(progress, "DELAY", 0.05)
    with bar(desc="long", total=4, unit="s") as shown:
        for _ in range(4):
            time.sleep(0.6)
            shown.update(1)
    assert len(made) == 1
    assert (made[0].n, made[0].total, made[0].desc, made[0].unit) == (4, 4, "long", "s")
    assert made[0].start_t == shown.start_t and made[0].disable


def test_a_limit_that_is_seldom_reached_promises_no_time(capsys):
    for _ in bar(range(200), desc="products at most"):
        time.sleep(0.01)
    said = capsys.readouterr().err
    assert re.fullmatch(r"products at most: \d+% after 00:00, remaining time not known\n", said)
