import contextlib
import json

import numpy as np
import pytest

from hesslib.book import closure
from hesslib.book.store import Store

calls = []


def square(x, seed):
    """The experiment of these tests."""
    calls.append(x)
    return {"square": x**2, "noise": np.random.default_rng(seed).standard_normal(3)}


@pytest.fixture
def store(tmp_path):
    calls.clear()
    return Store(tmp_path)


def test_a_result_is_computed_once_and_carries_its_provenance(store):
    first, made = store.run("demo", square, {"x": 3, "seed": 0})
    again, _ = Store(store.folder).run("demo", square, {"seed": 0, "x": 3})
    assert calls == [3] and first["square"] == 9
    np.testing.assert_array_equal(first["noise"], again["noise"])
    assert made["parameters"] == {"x": 3, "seed": 0} and made["closure"] == closure.of(square)
    assert {"versions", "device", "seconds", "date", "commit", "clean", "arrays", "key", "name"} <= set(made)


@pytest.mark.parametrize("damage", ["flip", "truncate", "label", "no label"])
def test_a_damaged_result_is_never_used_and_made_anew(store, damage):
    store.run("demo", square, {"x": 3, "seed": 0})
    path = store.path("demo", {"x": 3, "seed": 0})
    data = bytearray(path.with_suffix(".npz").read_bytes())
    if damage == "flip":
        data[120] ^= 1  # among the numbers of the first array
        path.with_suffix(".npz").write_bytes(data)
    elif damage == "truncate":
        path.with_suffix(".npz").write_bytes(data[:40])
    elif damage == "label":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").unlink()
    said = lambda: (
        contextlib.nullcontext() if damage == "no label" else pytest.warns(UserWarning, match=r"demo/\w+: .*damaged")
    )
    with said():
        assert store.load("demo", {"x": 3, "seed": 0}) is None
    with said():
        result, _ = store.run("demo", square, {"x": 3, "seed": 0})
    assert result["square"] == 9 and calls == [3, 3]


def test_a_sweep_reads_what_is_there_and_runs_only_when_asked(store):
    grid = [{"x": x, "seed": s} for x in (1, 2) for s in (0, 1)]
    assert store.sweep("demo", square, grid, run=False).label == "demo: not run" and calls == []
    store.run("demo", square, grid[2])
    sweep = store.sweep("demo", square, grid, run=False)
    assert len(sweep) == 1 and "1 of 4 stored runs of demo" in sweep.label
    full = store.sweep("demo", square, grid, run=True)
    assert calls == [2, 1, 1, 2] and full.values("square").tolist() == [1, 1, 4, 4]
    assert full.where(x=2).values("noise").shape == (2, 3)


def test_a_sweep_in_two_processes_is_the_same(store):
    grid = [{"x": x, "seed": 0} for x in range(4)]
    both = store.sweep("demo", square, grid, run=True, jobs=2)
    assert both.values("square").tolist() == [0, 1, 4, 9] and calls == []
    assert {m["closure"] for m in both.made} == {closure.of(square)}


def test_labels_name_no_path_of_a_machine(store):
    _, made = store.run("demo", square, {"x": 3, "seed": 0})
    assert str(store.folder) not in json.dumps(made) and "/" not in made["device"]


def test_a_result_of_other_code_is_stale_named_and_made_anew(store):
    grid = [{"x": 1, "seed": 0}, {"x": 2, "seed": 0}]
    store.run("demo", square, grid[0], closure="of an earlier function")
    assert store.load("demo", grid[0]) is not None
    assert store.load("demo", grid[0], closure.of(square)) is None
    read = store.sweep("demo", square, grid, run=False)
    assert len(read) == 0 and read.label == "demo: not run; 1 made by earlier code are stale and not used"
    result, made = store.run("demo", square, grid[0])
    assert calls == [1, 1] and result["square"] == 1 and made["closure"] == closure.of(square)
    assert "stale" not in store.sweep("demo", square, grid, run=False).label


def test_a_function_without_a_name_of_its_own_cannot_be_stored(store):
    with pytest.raises(closure.ClosureError, match="must have a name at the top of its module or notebook"):
        store.run("demo", lambda x: {"y": x}, {"x": 1})


def sometimes(x):
    """Fails for one setting."""
    if x == 2:
        raise ValueError("x = 2: give anything but 2")
    return {"y": x}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_setting_that_fails_costs_its_own_run(store, jobs):
    read = store.sweep("demo", sometimes, [{"x": x} for x in (1, 2, 3)], run=True, jobs=jobs)
    assert read.values("y").tolist() == [1, 3]
    assert read.label.endswith("; 1 failed, the first with ValueError: x = 2: give anything but 2")
