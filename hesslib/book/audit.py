"""Recompute stored results from the chapters' own functions, and compare.

A stored result names its parameters and the function that made it. The functions live in the chapters, among cells
that train and draw; so the audit takes from a chapter's source only the function and what it needs, never the rest.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import linecache
import symtable
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .parameters import ParameterError
from .paths import ROOT
from .store import Store

TOLERANCE = 1e-6


def cells(source: Path) -> list[tuple[str, str]]:
    """Kind and text of the cells of a py:percent file."""
    import jupytext

    return [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]


@cache
def defined() -> dict[str, tuple[Path, str, str]]:
    """For each stored experiment: the chapter that makes it, its function, and the heading above it."""
    found = {}
    for source in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")):
        heading = ""
        for kind, text in cells(source):
            if kind == "markdown":
                heading = next((x.lstrip("# ") for x in text.splitlines()[::-1] if x.startswith("#")), heading)
                continue
            for node in ast.walk(ast.parse(text)):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ("sweep", "run")
                    and len(node.args) >= 2
                    and isinstance(node.args[0], ast.Constant)
                    and isinstance(node.args[1], ast.Name)
                ):
                    found[node.args[0].value] = (source, node.args[1].id, heading)
    return found


def origin(name: str) -> dict[str, str]:
    """The chapter, section and function that make the results of an experiment; empty if none does yet."""
    if name not in defined():
        return {}
    source, function, heading = defined()[name]
    return {"notebook": source.stem, "section": heading, "function": function}


def bound(node: ast.stmt) -> set[str]:
    """Names that a statement of a cell binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(a.asname or a.name).split(".")[0] for a in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def needs(node: ast.stmt) -> set[str]:
    """Global names that a statement of a cell uses."""

    def used(table):
        inside = table.get_type() != "module"
        here = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (s.is_global() or not inside)}
        return here.union(*map(used, table.get_children()))

    return used(symtable.symtable(ast.unparse(node), "cell", "exec"))


def load_function(source: Path, name: str) -> Callable[..., dict[str, Any]]:
    """A function of a chapter, with the imports, constants and functions it needs and nothing else.

    Raises:
        ParameterError: it is not there, or it needs what only running the chapter gives.
    """
    text = "\n".join(t for kind, t in cells(source) if kind == "code")
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
            wanted |= needs(statements[i])
    lines = text.splitlines()
    part = "\n".join("\n".join(lines[statements[i].lineno - 1 : statements[i].end_lineno]) for i in sorted(needed))
    file, namespace = f"<{source.stem}: {name}>", {"__name__": source.stem}
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
    same_function: bool  # whether the text of the function is still that which made the result
    seconds: float

    def __str__(self) -> str:
        words = "agrees" if self.agrees else "DIFFERS"
        text = "" if self.same_function else "; the function's text has changed since"
        return f"{self.entry}: {words}, largest deviation {self.distance:.1e} in {self.where}{text}"


def compare(found: dict[str, Any], kept: dict[str, np.ndarray]) -> tuple[float, str]:
    """Largest deviation over all arrays, and in which.

    The deviation of a number is relative to it; below a millionth of the largest of its array (eigenvalues that are
    zero but for rounding), relative to that. Another shape, another set of arrays or NaN counts as infinite.
    Times (``seconds``) are not compared.
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
        scale = np.maximum(np.abs(b), 1e-6 * np.abs(b).max(initial=0.0))
        gap = np.abs(a - b)
        deviation = np.max(np.divide(gap, scale, out=np.where(gap > 0, np.inf, 0.0), where=scale > 0), initial=0.0)
        worst = max(worst, (float("inf") if np.isnan(deviation) else float(deviation), key))
    return worst


def audit(label: Path, tolerance: float = TOLERANCE) -> Finding:
    """Recompute one stored result, given by its json file, and compare."""
    made = json.loads(label.read_text())
    name, parameters = made["name"], made["parameters"]
    kept = Store(label.parents[1]).load(name, parameters)
    entry = f"{name}/{label.stem}"
    if kept is None:
        raise ParameterError(f"{entry}: the stored files are damaged")
    if name not in defined():
        raise ParameterError(f"{entry}: no chapter makes {name}")
    source, function, _ = defined()[name]
    compute = load_function(source, function)
    text = hashlib.sha256(inspect.getsource(compute).encode()).hexdigest()[:12]
    start = time.perf_counter()
    distance, where = compare(compute(**parameters), kept[0])
    seconds = time.perf_counter() - start
    return Finding(entry, distance, where, distance <= tolerance, text == made["function"], seconds)


def entries(names: list[str]) -> list[Path]:
    """The json files of stored results by NAME or NAME/KEY; all if none is named. Raises ``ParameterError``."""
    folder = Store().folder
    every = sorted(folder.rglob("*.json"))
    chosen = []
    for name in names:
        match = [p for p in every if name in (p.parent.name, f"{p.parent.name}/{p.stem}")]
        if not match:
            valid = ", ".join(sorted({p.parent.name for p in every}))
            raise ParameterError(f"stored result {name!r} is not there: give NAME or NAME/KEY, names are {valid}")
        chosen += match
    return chosen if names else every
