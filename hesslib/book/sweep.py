"""A notebook over a grid of parameters, on this machine or on a Dask cluster, and its numbers in one table."""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import itertools
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import yaml
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from .._files import replacing
from .._progress import bar
from . import runner
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
    """The numbers that an executed notebook keeps for its text (``figures.number``), by name."""
    found = {}
    for output in (o for cell in node.cells for o in cell.get("outputs", [])):
        label = output.get("metadata", {}).get("scrapbook", {})
        text = output.get("data", {}).get(f"{label.get('mime_prefix')}text/plain")
        if label and text:
            number = float(text) if text in ("nan", "inf", "-inf") else value(text)
            if isinstance(number, int | float):
                found[label["name"]] = number
    return found


def run_cell(
    index: int, text: str, name: str, parameters: dict[str, Any], folder: Path, threads: int | None
) -> tuple[int, dict, dict, str]:
    """Execute the notebook with one setting: index, numbers, provenance, and the error's message if it failed."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    start = time.perf_counter()
    node, message = runner.execute(nbformat.reads(text, as_version=4), parameters, folder)
    made = provenance(name, parameters, text, time.perf_counter() - start)
    return index, {} if message else numbers(node), made, message


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
    missing = [i for i in range(len(cells)) if i not in rows]
    print(f"{source.stem}: {len(cells)} runs, {len(rows)} of them there already", flush=True)
    threads = None if scheduler else max(1, (os.cpu_count() or 1) // max(1, jobs))
    call = lambda i: delayed(run_cell)(i, text, source.stem, settings[i], source.resolve().parent, threads)
    with _workers(scheduler, jobs) as parallel, bar(desc=source.stem, total=len(cells), initial=len(rows)) as shown:
        idle = 0
        while missing and idle < 3:
            before = len(rows)
            with contextlib.suppress(TerminatedWorkerError):
                for i, found, made, message in parallel(call(i) for i in missing):
                    if made["code"] != stamp["code"]:
                        message = f"the worker has hesslib {made['code']}, here it is {stamp['code']}"
                    if not message:
                        store.save(source.stem, {**stamp, **settings[i]}, found, made)
                    keep(i, found, made, message)
                    shown.update(1)
            idle = 0 if len(rows) > before else idle + 1
            missing = [i for i in missing if i not in rows]
    for i in missing:
        keep(i, {}, {"seconds": math.nan}, "the process that ran it was killed three times")
    table = [rows[i] for i in range(len(cells))]
    columns = {**dict.fromkeys([*grid, "state", "seconds"]), **dict.fromkeys(k for row in table for k in row)}
    columns = [*(c for c in columns if c != "message"), "message"]
    with replacing(folder / "table.csv", "w") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return table


@contextlib.contextmanager
def _workers(scheduler: str | None, jobs: int):
    """A joblib ``Parallel`` on this machine's processes or on a cluster's, that yields results as they come."""
    if scheduler is None:
        yield Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ParameterError(f"scheduler = {scheduler!r} needs Dask: pip install 'hesslib[cluster]'") from error
    try:
        client = Client(scheduler, timeout=20, set_as_default=True)
    except (OSError, ValueError) as error:
        raise ParameterError(f"scheduler = {scheduler!r}: no Dask scheduler answers there ({error})") from error
    with client:
        # a worker's death is not the fault of its cell, which computes in a process of its own: try it elsewhere
        client.run_on_scheduler(_forgive)
        with parallel_config("dask", wait_for_workers_timeout=600):
            yield Parallel(n_jobs=-1, return_as="generator_unordered", batch_size=1, pre_dispatch="all")


def _forgive(dask_scheduler) -> None:
    dask_scheduler.allowed_failures = 10**6
