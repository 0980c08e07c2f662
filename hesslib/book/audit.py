"""Recompute stored results from the chapters' own functions, and compare.

A stored result names its parameters and the function that made it. The functions live in the chapters, among cells
that train and draw; so the audit takes from a chapter's source only the function and what it needs, never the rest.
"""

from __future__ import annotations

import ast
import linecache
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .closure import bound, experiments, present, tree, used
from .engine import compute
from .pack import fault
from .parameters import ParameterError
from .paths import ROOT
from .provenance import commit, provenance
from .store import Store, stale

TOLERANCE = 1e-6


def load_function(source: Path, name: str) -> Callable[..., dict[str, Any]]:
    """A function of a chapter, with the imports, constants and functions it needs and nothing else.

    Raises:
        ParameterError: it is not there, or it needs what only running the chapter gives.
    """
    text = source.read_text(encoding="utf-8")
    statements = ast.parse(text).body
    needed, wanted = set(), {name}
    while wanted:
        one = wanted.pop()
        makers = [i for i, node in enumerate(statements) if one in bound(node)]
        if one == "p":
            raise ParameterError(f"{source.name}: {name} depends on the chapter's parameters and cannot be audited")
        if one == name and not makers:
            raise ParameterError(f"{source.name}: there is no function {name}")
        for i in set(makers) - needed:
            needed.add(i)
            wanted |= {chain[0] for chain in used(statements[i])}
    lines = text.splitlines()
    part = "\n".join("\n".join(lines[statements[i].lineno - 1 : statements[i].end_lineno]) for i in sorted(needed))
    file, namespace = f"<{source.stem}: {name}>", {"__name__": f"notebooks.{source.stem}"}
    linecache.cache[file] = (len(part), None, (part + "\n").splitlines(True), file)  # so that inspect finds the text
    exec(compile(part, file, "exec"), namespace)
    return namespace[name]


@dataclass
class Finding:
    """What recomputing one stored result gave."""

    entry: str
    distance: float  # largest deviation of any number, relative to it (or, for numbers near zero, see compare)
    where: str  # the array in which it occurred
    agrees: bool
    stale: bool  # whether its code has changed since
    seconds: float

    def __str__(self) -> str:
        words = "agrees" if self.agrees else "DIFFERS"
        text = "; its code has changed since" if self.stale else ""
        found = f"largest deviation {self.distance:.1e} in {self.where}{text}"
        return f"{self.entry}: {words}, {found}  ({self.seconds:.1f} s)"


def compare(found: dict[str, Any], kept: dict[str, np.ndarray]) -> tuple[float, str]:
    """Largest deviation over all arrays, and in which.

    The deviation of a number is relative to it; below a millionth of the largest of its array (eigenvalues that are
    zero but for rounding) or below 1e-24 (squares of rounding errors), relative to that. Another shape, another set of
    arrays or NaN counts as infinite. Times (``seconds``) are not compared.
    """
    worst = (0.0, "any array")
    if found.keys() != kept.keys():
        return float("inf"), "the names of the arrays"
    for key, b in kept.items():
        if key.startswith("seconds"):
            continue
        a = np.asarray(found[key])
        if a.shape != b.shape:
            return float("inf"), key
        scale = np.maximum(np.abs(b), 1e-6 * np.abs(b).max(initial=1e-18))
        gap = np.abs(a - b)
        deviation = np.max(np.divide(gap, scale, out=np.where(gap > 0, np.inf, 0.0), where=scale > 0), initial=0.0)
        worst = max(worst, (float("inf") if np.isnan(deviation) else float(deviation), key))
    return worst


def audit(label: dict[str, Any], tolerance: float = TOLERANCE, *, keep: bool = False) -> Finding:
    """Recompute one stored result, given by its label, and compare.

    Args:
        label: of the stored result.
        tolerance: largest relative deviation that counts as agreement.
        keep: put the recomputed result into the working store, whether it agrees or not.
    """
    name, parameters, entry = label["name"], label["parameters"], f"{label['name']}/{label['key']}"
    store, code = Store(), tree()
    old = store.kept(label)
    experiment = experiments(code).get(name)
    if old is None:
        raise ParameterError(f"{entry}: the stored files are damaged")
    if experiment is None:
        raise ParameterError(f"{entry}: no chapter makes {name}")
    closure = code.closure(f"notebooks.{experiment.chapter}", experiment.function)
    function = load_function(ROOT / "notebooks" / f"{experiment.chapter}.py", experiment.function)
    made, start = provenance(name, parameters, closure, 0), time.perf_counter()
    result = {key: np.asarray(value) for key, value in function(**parameters).items()}
    seconds = time.perf_counter() - start
    if keep:
        store.path(name, parameters).with_suffix(".json").unlink(missing_ok=True)
        store.save(name, parameters, result, {**made, "seconds": round(seconds, 2)})
    distance, where = compare(result, old)
    return Finding(entry, distance, where, distance <= tolerance, stale(label, closure), seconds)


def renew(names: list[str], jobs: int = 1) -> Iterator[Finding | str]:
    """Compute anew, into the working store, each published result whose label is not true (``pack.fault``).

    One that is in the working store already, by the present code, is passed over, so that a renewal goes on where it
    was stopped.
    Yields what each differs by, or the message of one that failed, as they end.
    """
    store, closures = Store(), present(tree())
    cells = {}
    for one in entries(names):
        now = store.load(one["name"], one["parameters"], closures.get(one["name"], ""))
        why = fault(now[1], closures) if now else "missing"
        done = now and not now[1].get("clean", True) and not commit()[1]  # as good as it can be in a changed tree
        if why and not done:
            cells[f"{one['name']}/{one['key']}"] = one
    for entry, finding, message in compute(cells, partial(audit, keep=True), jobs=jobs, desc="results"):
        yield finding if finding is not None else f"{entry}: {message}"


def entries(names: list[str]) -> list[dict[str, Any]]:
    """Labels of published results by NAME or NAME/KEY; all of them if none is named."""
    every = Store().labels()
    chosen = []
    for name in names:
        match = [one for one in every if name in (one["name"], f"{one['name']}/{one['key']}")]
        if not match:
            valid = ", ".join(sorted({one["name"] for one in every}))
            if keys := [one["key"] for one in every if one["name"] == name.split("/")[0]]:
                raise ParameterError(f"stored result {name!r} is not there: keys are {', '.join(keys)}")
            raise ParameterError(f"stored result {name!r} is not there: give NAME or NAME/KEY, names are {valid}")
        chosen += match
    return chosen if names else every
