"""Sweeps: on this machine and on a Dask cluster, with failing cells and with workers that are killed."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import pytest

from hesslib.book import runner, sweep
from hesslib.book.parameters import ParameterError
from hesslib.book.paths import ROOT

pytestmark = pytest.mark.slow

CELLS = [
    "x: int = 1  # a number\nseed: int = 0  # of nothing\nsizes: list = []  # some",
    'if x == 7:\n    raise ValueError(f"x = {x} is not valid: give anything but 7")\nimport os, signal\n'
    'open("runs.txt", "a").write(f"{x} {seed}\\n")\n'
    'if x == 8:\n    os.kill(os.getpid(), signal.SIGKILL)\n'
    "record = lambda name, value: display({'application/papermill.record/text/plain': repr(value)}, raw=True,\n"
    "    metadata={'scrapbook': {'name': name, 'mime_prefix': 'application/papermill.record/'}})\n"
    "record('square', x**2); record('half', x / 2); record('word', 'no number'); record('none', float('nan'))\n"
    "record('length', len(sizes)); record('even', x % 2 == 0)",
]  # fmt: skip


def notebook_of(sources):
    """A notebook of these code cells; the first one holds the parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata.tags = ["parameters"]
    node = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})
    node.metadata.kernelspec.language = "python"
    return node


@pytest.fixture
def notebook(tmp_path):
    """A notebook that takes no time; it keeps its numbers as ``glue`` of MyST-NB does."""
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook_of(CELLS), path)
    return path


def table(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


def runs(notebook):
    path = notebook.parent / "runs.txt"
    return path.read_text().splitlines() if path.exists() else []


def hesslib(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "hesslib", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=1200
    )


def test_a_sweep_collects_resumes_and_reports_each_failure(notebook, tmp_path):
    out = tmp_path / "out"
    line = ["sweep", notebook, "-g", "x=2,7,8", "-g", "sizes=4,[4,5]", "-p", "seed=1e0", "-o", out]
    done = hesslib(*line, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = table(out)
    assert [(r["x"], r["sizes"], r["state"]) for r in rows] == [
        ("2", "4", "done"), ("2", "[4, 5]", "done"), ("7", "4", "failed"), ("7", "[4, 5]", "failed"),
        ("8", "4", "failed"), ("8", "[4, 5]", "failed"),
    ]  # fmt: skip
    assert [rows[0][k] for k in ("square", "half", "none", "length", "even", "message")] == [
        "4", "1.0", "nan", "1", "True", "",
    ]  # fmt: skip
    assert "word" not in rows[0] and rows[1]["length"] == "2"
    assert rows[2]["message"] == "ValueError: x = 7 is not valid: give anything but 7"
    assert rows[4]["message"].startswith("DeadKernelError") and "2 of 6 runs done" in done.stdout
    assert "failed: x=7, sizes=4: ValueError: x = 7" in done.stderr

    # again with one cell damaged and the cause of the failures gone: the intact one is not run again
    entry = sorted((out / "small").glob("*.npz"))[0]
    entry.write_bytes(entry.read_bytes()[:-30])
    before = len(runs(notebook))
    with pytest.warns(UserWarning, match="damaged"):
        rows = sweep.sweep(str(notebook), {"x": [2], "sizes": [4, [4, 5]]}, {"seed": 1.0}, folder=out, jobs=1)
    assert [r["state"] for r in rows] == ["done", "done"] and len(runs(notebook)) == before + 1
    again = sweep.sweep(str(notebook), {"x": [2], "sizes": [4, [4, 5]]}, {"seed": 1.0}, folder=out)
    assert repr(again) == repr(rows)  # as text, since nan differs from itself
    assert len(runs(notebook)) == before + 1


def test_kernels_started_together_cannot_meet_at_a_port(tmp_path):
    code = "from ipykernel.connect import get_connection_info\nfound = get_connection_info(unpack=True)\n"
    code += "print(found['transport'], found['ip'])"
    found = set()
    for _ in range(2):
        done, message = runner.execute(notebook_of(["x: int = 1", code]), {}, tmp_path)
        transport, place = done.cells[-1].outputs[0].text.split()
        found.add(place)
        assert not message and transport == "ipc" and not Path(place).parent.exists(), place
    assert len(found) == 2 and not list(tmp_path.iterdir())


def test_the_environment_of_the_caller_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("HESSLIB_LINES", raising=False)
    code = "import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ['HESSLIB_LINES'])"
    before = dict(os.environ)
    for threads, said in ((3, "3 1"), (None, "7 1")):
        done, message = runner.execute(notebook_of(["x: int = 1", code]), {}, tmp_path, threads=threads)
        assert not message and done.cells[-1].outputs[0].text.strip() == said
    assert dict(os.environ) == before


SLEEPER = """
import time
from hesslib.book.runner import kernel_connection
with kernel_connection() as connection:
    print(connection["connection_file"], flush=True)
    time.sleep(600)
"""


def test_the_next_run_clears_the_sockets_of_a_killed_one_and_no_others(memory_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(memory_path))
    line, environment = [sys.executable, "-c", SLEEPER], {**os.environ, "TMPDIR": str(memory_path)}
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    dead, alive = (Path(process.stdout.readline().strip()).parent for process in both)
    both[0].kill(), both[0].wait()
    assert dead.is_dir() and alive.is_dir()
    with runner.kernel_connection() as connection:
        assert not dead.exists() and alive.is_dir()
    assert [alive] == list(memory_path.iterdir()) and not Path(connection["connection_file"]).exists()
    both[1].kill(), both[1].wait()


def test_a_local_worker_that_is_killed_costs_nothing(notebook, tmp_path, monkeypatch):
    """The process beside the kernel is killed, once."""
    execute = runner.execute

    def killed_once(*arguments, **options):
        flag = tmp_path / "killed"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(*arguments, **options)

    monkeypatch.setattr(sweep.runner, "execute", killed_once)
    monkeypatch.setattr(sweep, "run_cell", by_value(sweep.run_cell, killed_once))
    rows = sweep.sweep(str(notebook), {"x": [1, 2, 3]}, {}, folder=tmp_path / "out", jobs=2)
    assert [r.get("square") for r in rows] == [1, 4, 9] and (tmp_path / "killed").exists()


def by_value(run_cell, execute):
    """A run_cell that takes its replacement along into the worker."""

    def call(*arguments):
        from hesslib.book import runner

        runner.execute = execute
        return run_cell(*arguments)

    return call


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers on this machine, as one starts them by hand."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**options, local_directory=str(tmp_path / "dask")) as cluster:
        yield cluster


SEEDS = int(os.environ.get("HESSLIB_CELLS", 24)) // 3


def test_a_cluster_ends_a_sweep_with_a_worker_killed_half_way(notebook, tmp_path, cluster):
    out, killed = tmp_path / "out", []

    def kill_half_way():
        while len(list((out / "small").glob("*.json"))) < 3 * SEEDS // 2:
            time.sleep(0.05)
        pid = next(iter(cluster.workers.values())).pid
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill_half_way, daemon=True).start()
    address = cluster.scheduler_address
    done = hesslib(
        "sweep", notebook, "-g", "x=0:3", "-g", f"seed=0:{SEEDS}", "--scheduler", address, "-o", out, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(out)
    assert len(killed) == 1 and len(rows) == 3 * SEEDS and all(r["state"] == "done" for r in rows)
    assert [(int(r["x"]), int(r["seed"])) for r in rows] == [(x, s) for x in range(3) for s in range(SEEDS)]
    assert all(int(r["square"]) == int(r["x"]) ** 2 for r in rows)
    assert 3 * SEEDS <= len(runs(notebook)) <= 3 * SEEDS + 2  # the killed worker's cell, no other, was run twice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-g", "y=1,2"], "small: y is not a parameter; valid names: x, seed, sizes"),
        (["-g", "x"], "-g x: give NAME=VALUES, as in seed=0:20, k=2,5,10 or hidden=[6,12],[8,8]"),
        (["-g", "x="], "-g x=: give NAME=VALUES"),
        (["-g", "x=5:5"], "-g x=5:5: give NAME=VALUES"),
        (["-g", "x=[1"], "-g x=[1: give NAME=VALUES"),
        (["-g", "x=1", "-g", "x=2"], "-g x=2: x is given twice"),
        (["-g", "x=1", "-p", "x=2"], "x: given both with -g and with -p"),
        (["-g", "x=1", "-p", "x"], "-p x: give NAME=VALUE"),
        (["-g", "x=1", "--scale", "smoke"], "small: scale is not a parameter"),
        (["-g", "x=1", "--jobs", "0"], "jobs = '0' is not valid: give a whole number >= 1"),
        (["-g", "x=1", "--scheduler", "127.0.0.1"], "scheduler = '127.0.0.1': no Dask scheduler answers there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_sweeps_are_refused_before_anything_runs(notebook, tmp_path, arguments, message, capsys, monkeypatch):
    from hesslib.cli import main

    distributed = pytest.importorskip("distributed")
    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda *a, timeout, **o: client(*a, timeout=1, **o))
    try:
        status = main(["sweep", str(notebook), *arguments, "-o", str(tmp_path / "out")])
    except SystemExit as error:
        status = error.code
    assert status == 2 and message in capsys.readouterr().err and not runs(notebook)


def test_an_unknown_notebook_is_refused():
    with pytest.raises(ParameterError, match=r"notebook 'absent.ipynb' is not there: .*01_spectrum"):
        sweep.sweep("absent.ipynb", {}, {})


def test_values_of_a_grid():
    assert sweep.values("0:3") == [0, 1, 2] and sweep.values("4:0:-2") == [4, 2]
    assert sweep.values("2,5") == [2, 5] and sweep.values("relu,tanh") == ["relu", "tanh"]
    assert sweep.values("[6,12],[8]") == [[6, 12], [8]] and sweep.values("1e-3,true") == [0.001, True]


def test_numbers_of_a_chapter_are_what_its_text_shows():
    found = sweep.numbers(nbformat.read(ROOT / "notebooks" / "04_size.ipynb", as_version=4))
    assert {"growth", "raw", "per_loss", "exact"} <= found.keys()
    assert all(isinstance(v, int | float) for v in found.values())
