"""A notebook over a grid of parameters, on this machine or on a Dask cluster, and its numbers in one table."""

from __future__ import annotations

import ast
import csv
import hashlib
import itertools
import math
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import yaml

from .._files import replacing
from . import runner
from .engine import compute
from .parameters import ParameterError
from .paths import ROOT
from .provenance import code_hash, provenance
from .store import Store

Row = dict[str, Any]


def value(text: Any) -> Any:
    """What a text on the command line stands for: a number, a list, true or false, or itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return yaml.safe_load(text) if isinstance(text, str) else text


def values(text: str) -> list:
    """The values of ``2,5,10``, ``relu,tanh``, ``[6,12],[8,8]`` or ``0:20`` (0 to 19, as in Python)."""
    if re.fullmatch(r"-?\d+:-?\d+(:-?[1-9]\d*)?", text):
        return list(range(*map(int, text.split(":"))))
    try:
        return [value(v) for v in yaml.safe_load(f"[{text}]")]
    except yaml.YAMLError:
        return []


def grid_of(texts: list[str]) -> dict[str, list]:
    """Names and values from texts ``NAME=VALUES``.

    Raises:
        ParameterError: a text of another form, without values, or a name twice.
    """
    grid: dict[str, list] = {}
    for text in texts:
        name, equals, right = text.partition("=")
        found = values(right)
        if not (name and equals and found):
            raise ParameterError(f"-g {text}: give NAME=VALUES, as in seed=0:20, k=2,5,10 or hidden=[6,12],[8,8]")
        if name in grid:
            raise ParameterError(f"-g {text}: {name} is given twice")
        grid[name] = found
    return grid


def numbers(node: nbformat.NotebookNode) -> dict[str, float]:
    """The numbers that an executed notebook has in its text (``text.say``) or has kept with ``glue``, by name."""
    found = {}
    for output in (o for cell in node.cells for o in cell.get("outputs", [])):
        found |= output.get("metadata", {}).get("hesslib", {}).get("numbers", {})
        label = output.get("metadata", {}).get("scrapbook", {})
        text = output.get("data", {}).get(f"{label.get('mime_prefix')}text/plain")
        if label and text:
            number = float(text) if text in ("nan", "inf", "-inf") else value(text)
            if isinstance(number, int | float):
                found[label["name"]] = number
    return found


def run_cell(text: str, name: str, folder: Path, parameters: dict[str, Any]) -> tuple[dict, dict, str]:
    """Execute the notebook with one setting: numbers, provenance, and the error's message if it failed."""
    start = time.perf_counter()
    node, message = runner.execute(nbformat.reads(text, as_version=4), parameters, folder)
    closure = hashlib.sha256(text.encode()).hexdigest()[:16]
    made = provenance(name, parameters, closure, time.perf_counter() - start) | {"code": code_hash()}
    return {} if message else numbers(node), made, message


def sweep(
    notebook: str,
    grid: dict[str, list],
    parameters: dict[str, Any],
    *,
    folder: Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
) -> list[Row]:
    """Execute a notebook for every combination of the grid's values, and write ``folder/table.csv``.

    Each finished cell is stored at once, with its checksum and provenance; a sweep started again computes what is
    missing or failed, with the present notebook and the present ``hesslib``. A failing cell costs its own row
    only. The computing is done by a kernel process for each cell; where the process that looks after it is killed, the
    cell is run again.

    Args:
        notebook: a chapter's number or name, or the path of any notebook with a cell tagged ``parameters``.
        grid: names and values; a value given for a list parameter may be its only entry.
        parameters: the same in every cell.
        folder: where the results go; by default ``_build/sweeps`` and the notebook's name.
        jobs: cells at a time, on this machine.
        scheduler: address of a Dask scheduler, whose workers take the cells instead.

    Returns:
        the rows of the table: parameters, ``state`` (done or failed), ``seconds``, the notebook's numbers, ``message``.

    Raises:
        ParameterError: a name that the notebook does not declare, or no scheduler at the address.
    """
    path = Path(notebook)
    source = path if path.is_file() and path.resolve().parent != runner.NOTEBOOKS else runner.sources([notebook])[0]
    node = runner.read(source) if source.suffix == ".py" else nbformat.read(source, as_version=4)
    runner.check_names(node, source.stem, [*grid, *parameters])
    if both := grid.keys() & parameters.keys():
        raise ParameterError(f"{', '.join(both)}: given both with -g and with -p")
    types = runner.declared(node)
    listed = lambda name, v: [v] if types[name] == "list" and not isinstance(v, list) else v
    cells = [dict(zip(grid, combination)) for combination in itertools.product(*grid.values())]
    text, folder = nbformat.writes(node), folder or ROOT / "_build" / "sweeps" / source.stem
    store, stamp = Store(folder), {"notebook": hashlib.sha256(text.encode()).hexdigest()[:12], "code": code_hash()}
    settings = [{n: listed(n, v) for n, v in {**parameters, **cell}.items()} for cell in cells]
    rows: dict[int, Row] = {}

    def keep(i: int, found: dict, made: dict, message: str) -> None:
        found = {name: v.item() if isinstance(v, np.ndarray) else v for name, v in found.items()}
        state = "failed" if message else "done"
        rows[i] = {**cells[i], "state": state, "seconds": made["seconds"], **found, "message": message}

    for i, setting in enumerate(settings):
        if (stored := store.load(source.stem, {**stamp, **setting})) is not None:
            keep(i, *stored, "")
    print(f"{source.stem}: {len(cells)} runs, {len(rows)} of them there already", flush=True)
    missing = {i: setting for i, setting in enumerate(settings) if i not in rows}
    run = partial(run_cell, text, source.stem, source.resolve().parent)
    where = {"jobs": jobs, "scheduler": scheduler, "desc": source.stem, "done": len(rows)}
    for i, outcome, error in compute(missing, run, **where):
        found, made, message = outcome or ({}, {"seconds": math.nan, "code": stamp["code"]}, error)
        if made["code"] != stamp["code"]:
            message = f"the worker has hesslib {made['code']}, here it is {stamp['code']}"
        if not message:
            store.save(source.stem, {**stamp, **settings[i]}, found, made)
        keep(i, found, made, message)
    table = [rows[i] for i in range(len(cells))]
    write_table(folder / "table.csv", table, list(grid))
    return table


def write_table(path: Path, table: list[Row], first: list[str]) -> None:
    """Write the rows as CSV: the named columns first, the message last."""
    columns = dict.fromkeys([*first, "state", "seconds", *(k for row in table for k in row)])
    columns = [*(c for c in columns if c != "message"), "message"]
    with replacing(path, "w") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
