"""Cells computed here or in processes: failures, kills, threads."""

import os
import signal

import pytest

from hesslib.book.engine import KILLED, compute


def inverse(x):
    return 1 / x


def killed(folder, x):
    """Kills its process where x is 7, and where x is 8 the first time."""
    flag = folder / f"killed {x}"
    if x == 7 or (x == 8 and not flag.exists()):
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_costs_its_own_cell(jobs):
    found = sorted(compute({"a": 2, "b": 0, "c": 4}, inverse, jobs=jobs, desc="inverse"))
    assert found == [("a", 0.5, ""), ("b", None, "ZeroDivisionError: division by zero"), ("c", 0.25, "")]


def test_a_killed_process_costs_nothing_and_one_always_killed_its_own_cell(tmp_path):
    found = dict(
        (key, rest) for key, *rest in compute({x: x for x in (1, 8)}, lambda x: killed(tmp_path, x), jobs=2, desc="x")
    )
    assert found == {1: [1, ""], 8: [8, ""]}
    assert list(compute({7: 7}, lambda x: killed(tmp_path, x), jobs=2, desc="x")) == [(7, None, KILLED)]


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    found = list(compute({0: "OMP_NUM_THREADS"}, lambda name: os.environ[name], jobs=2, desc="x"))
    assert found == [(0, "3", "")]


def test_wrong_numbers_of_jobs_are_refused():
    with pytest.raises(ValueError, match="jobs=0"):
        list(compute({}, inverse, jobs=0, desc="x"))
