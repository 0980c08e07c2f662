"""Whether the present code gives the numbers of earlier code, so that results need not be made anew.

Splitting a function or adding an option to a class changes the closure of all that reaches it, and need not change a
number. For each experiment with stale results `confirm` runs a sample by the code that made them and by the present
code, one after the other on this machine. Where all arrays agree bit for bit it adds a line to `book/confirmed.jsonl`:
results of the earlier closure may then be used. Their labels stay as they are, and name the code that made them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import closure as closures
from .audit import compare, entries
from .closure import CONFIRMED, git
from .parameters import ParameterError
from .paths import ROOT
from .provenance import array_checksum, commit, label_checksum, provenance

RUN = """
import json, pathlib, sys; import numpy as np; from hesslib.book.audit import load_function
source, name, parameters, output = sys.argv[1:]
np.savez(output, allow_pickle=False, **load_function(pathlib.Path(source), name)(**json.loads(parameters)))
"""


def sample(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The labels of the runs to compare: for each combination of the parameters that are words, the quickest."""
    quickest: dict[str, dict[str, Any]] = {}
    for label in sorted(labels, key=lambda one: (one["seconds"], one["key"])):
        words = {k: v for k, v in label["parameters"].items() if isinstance(v, str | bool | None)}
        quickest.setdefault(json.dumps(words, sort_keys=True), label)
    return list(quickest.values())


def arrays_of(folder: Path, made: closures.Experiment, parameters: dict[str, Any]) -> dict[str, np.ndarray]:
    """What an experiment's function gives in a tree of the project, times left out.

    Raises:
        ParameterError: it fails there.
    """
    source = str(folder / "notebooks" / f"{made.chapter}.py")
    with tempfile.TemporaryDirectory() as place:
        output = f"{place}/arrays.npz"
        # one thread: with several, sums are taken in an order of chance
        variables = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", RUN, source, made.function, json.dumps(parameters), output]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise ParameterError(f"{made.function} fails in {folder}: {done.stderr.strip().splitlines()[-1]}")
        with np.load(output, allow_pickle=False) as found:
            return {name: found[name] for name in found.files if not name.startswith("seconds")}


def difference(labels: list[dict[str, Any]], earlier: Path, instead: dict[str, Any]) -> tuple[list[dict], str]:
    """The parameters compared between a tree of earlier code and this one, and in words where they first differ."""
    name, compared = labels[0]["name"], []
    trees = {folder: closures.experiments(closures.tree(folder)) for folder in (earlier, ROOT)}
    if missing := [str(folder) for folder, made in trees.items() if name not in made]:
        raise ParameterError(f"{name}: no chapter makes it in {missing[0]}; python -m hesslib renew {name}")
    for label in sample(labels):
        parameters = {**label["parameters"], **instead}
        if parameters in compared:
            continue
        then, now = (arrays_of(folder, made[name], parameters) for folder, made in trees.items())
        compared.append(parameters)
        if {k: array_checksum(v) for k, v in then.items()} != {k: array_checksum(v) for k, v in now.items()}:
            distance, where = compare(now, then)
            return compared, f"{json.dumps(parameters)}: largest deviation {distance:.1e} in {where}"
    return compared, ""


def confirm(names: list[str], instead: dict[str, Any] | None = None) -> Iterator[tuple[str, str]]:
    """Compare earlier and present code for each experiment with stale results, and keep what agrees.

    Args:
        names: experiments; all with stale results if none is named.
        instead: parameters that replace those of the sampled runs, to make long ones short; they are kept in the line.

    Yields:
        the experiment, and a difference in words, empty if there is none.

    Raises:
        ParameterError: the sources have uncommitted changes, a name is unknown, or a run fails.
    """
    if not commit()[1]:
        raise ParameterError("the sources have uncommitted changes: commit them, the line must name a commit")
    present, groups = closures.present(closures.tree()), {}
    for label in entries(names):
        now = present.get(label["name"], "")
        if label["closure"] not in closures.same_numbers(label["name"], now):
            groups.setdefault((label["name"], label["closure"]), []).append(label)
    for (name, closure), labels in groups.items():
        with tempfile.TemporaryDirectory() as place:
            earlier = Path(place) / "earlier"
            if git("worktree", "add", "--detach", str(earlier), labels[-1]["commit"]) is None:
                raise ParameterError(f"{name}: commit {labels[-1]['commit']} is not in this history")
            try:
                compared, differs = difference(labels, earlier, instead or {})
            finally:
                git("worktree", "remove", "--force", str(earlier))
        if not differs:
            made = provenance(name, {}, present[name], 0)
            line = {k: made[k] for k in ("name", "closure", "commit", "versions", "device", "date")}
            line |= {"earlier": closure, "earlier_commit": labels[-1]["commit"], "compared": compared}
            with CONFIRMED.open("a") as file:
                file.write(json.dumps({**line, "checksum": label_checksum(line)}, sort_keys=True) + "\n")
        yield name, differs
