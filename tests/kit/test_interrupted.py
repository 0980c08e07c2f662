"""Runs killed at any moment, and several at a time, by real processes and real SIGKILLs."""

import collections
import multiprocessing
import os
import random
import sys
import time
import warnings

import numpy as np
import pytest

from hesslib.book.store import Store

from . import work

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("HESSLIB_KILLS", 52))


@pytest.fixture(scope="module")
def context():
    """Processes forked from a server that has imported everything, and need not import pytest again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kit.work"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__spec__", None)
        patch.delattr(sys.modules["__main__"], "__file__", raising=False)
        yield context


def start(context, function, *arguments):
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def told(pipe, wanted):
    """Everything the other side said until it said ``wanted`` or ended."""
    said = []
    try:
        while not said or said[-1] != wanted:
            said.append(pipe.recv())
    except EOFError:
        pass
    return said


def rest(pipe):
    said = []
    try:
        while True:
            said.append(pipe.recv())
    except EOFError:
        return said


def intact(folder, seeds):
    """The stored results; a damaged one is an error."""
    with warnings.catch_warnings(action="error"):
        found = {seed: Store(folder).load("unit", {"seed": seed}) for seed in seeds}
    return {seed: result[0] for seed, result in found.items() if result is not None}


def test_killed_runs_finish_with_the_same_numbers(context, memory_path):
    seeds, whole, killed = range(2 * KILLS), memory_path / "whole", memory_path / "killed"
    whole.mkdir(), killed.mkdir()
    choose, struck = random.Random(0), collections.Counter()
    lengths = {"training": 0.4, "assembly": 0.6, "eigenvalues": 0.02, "writing": 0.06}
    finished = {}
    # at least so many, and each phase hit; where a kill falls is not quite ours to say
    while struck.total() < KILLS or min(struck[phase] for phase in work.PHASES) < 3:
        assert struck.total() < 2 * KILLS, struck
        wanted = work.PHASES[struck.total() % 4]
        process, pipe = start(context, work.units, killed, seeds)
        said = told(pipe, wanted)
        time.sleep(choose.uniform(0, lengths[wanted]))
        process.kill()
        said += rest(pipe)
        process.join()
        assert process.exitcode == -9, "it ended before the kill"
        struck[said[-1]] += 1
        now = intact(killed / "store", seeds)
        assert now.keys() >= finished.keys(), "a finished result is lost"
        for seed in now.keys() - finished.keys():
            finished[seed] = struck.total()
    log = (killed / "log").read_text().splitlines()
    kills = struck.total()
    seeds = range(len(finished) + 2)

    for folder in (killed, whole):
        process, pipe = start(context, work.units, folder, seeds)
        rest(pipe)
        process.join()
        assert process.exitcode == 0
    results, expected = intact(killed / "store", seeds), intact(whole / "store", seeds)
    assert len(results) == len(expected) == len(seeds)
    for seed in seeds:
        for key, value in expected[seed].items():
            np.testing.assert_array_equal(results[seed][key], value)

    # nothing that was finished is done again: units, records of the training, chunks of rows
    process, pipe = start(context, work.units, whole, seeds)
    rest(pipe)
    process.join()
    once = collections.Counter((whole / "log").read_text().split("\n"))
    assert all(once[f"unit {seed}"] == 1 for seed in seeds)
    ended = (killed / "log").read_text().splitlines()
    assert not set(ended[len(log) :]) & {f"unit {seed}" for seed in finished}
    often = collections.Counter((killed / "log").read_text().split("\n"))
    assert once["record"] <= often["record"] <= once["record"] + kills
    assert once["rows"] <= often["rows"] <= once["rows"] + kills
    assert all(often[f"unit {seed}"] == 1 for seed in seeds if seed > max(finished, default=-1) + 1)


def test_two_runs_into_one_store_lose_nothing(context, memory_path):
    seeds = list(range(40))
    children = [start(context, work.many_results, memory_path, order) for order in (seeds, seeds, seeds[::-1])]
    for _, pipe in children:
        pipe.send("go")
    store, seen = Store(memory_path), {}
    with warnings.catch_warnings(action="error"):
        while any(process.is_alive() for process, _ in children) or len(seen) < len(seeds):
            now = {}
            for seed in seeds:
                if found := store.load("bulky", {"seed": seed, "size": 3000}):
                    now[seed] = int(found[0]["process"])
            assert now.items() >= seen.items(), "a stored result is lost or has been replaced"
            assert len(now) == len(seeds) or any(process.is_alive() for process, _ in children)
            seen = now
    assert [process.exitcode for process, _ in children] == [0, 0, 0]
    for seed in seeds:
        stored = store.load("bulky", {"seed": seed, "size": 3000})[0]
        np.testing.assert_array_equal(stored["noise"], work.bulky(seed, 3000)["noise"])
    assert not list(memory_path.rglob("*.part"))
