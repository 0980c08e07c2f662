"""From ``NN_topic.py`` to the executed, cleaned and stamped ``NN_topic.ipynb``."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import psutil
from joblib import Parallel, delayed
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from .._files import StorageError, replacing
from . import payload
from .parameters import ParameterError
from .paths import ROOT
from .provenance import chapter_code, code_hash, device_name, versions
from .rerun import same_run

NOTEBOOKS = ROOT / "notebooks"
COSTS = ROOT / "book" / "chapter_costs.json"


@dataclass
class Outcome:
    """How a run ended."""

    name: str
    state: str  # "done" or "failed"
    seconds: float
    output: Path
    message: str = ""
    processor_seconds: float = 0.0
    gib: float = 0.0  # most memory held


def sources(names: list[str]) -> list[Path]:
    """Source files by number or stem; all of them if none is named."""
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
    if not names:
        return every
    chosen = []
    for name in names:
        stem = Path(name).stem
        match = [p for p in every if p.stem == stem or p.stem.split("_")[0] == stem]
        if not match:
            raise ParameterError(f"notebook {name!r} is not there: {', '.join(p.stem for p in every)}")
        chosen += match
    return chosen


def source_hash(source: Path) -> str:
    """Hash that ties an executed notebook to its source."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:12]


def read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent file, with cell ids that depend on its text alone."""
    node, seen = jupytext.read(source), {}
    for cell in node.cells:
        count = seen[cell.source] = seen.get(cell.source, 0) + 1
        cell.id = hashlib.sha256(f"{count} {cell.source}".encode()).hexdigest()[:8]
    node.metadata.pop("jupytext", None)
    return node


def declared(node: nbformat.NotebookNode) -> dict[str, str]:
    """Names and types of a notebook's parameters; the type is empty where none is given."""
    cells = [c for c in node.cells if "parameters" in c.metadata.get("tags", [])]
    found = re.findall(r"^(\w+)\s*(?::\s*(\w+))?\s*=", cells[0].source, re.M) if len(cells) == 1 else []
    return dict(found)


def check_names(node: nbformat.NotebookNode, name: str, parameters: Iterable[str]) -> None:
    """Refuse parameters that the notebook does not declare, before anything runs."""
    known = declared(node)
    unknown = [p for p in parameters if p not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        valid = ", ".join(known)
        raise ParameterError(f"{name}: {', '.join(unknown)} is not a parameter{hint}; valid names: {valid}")


def clean(node: nbformat.NotebookNode, source: Path, seconds: float) -> nbformat.NotebookNode:
    """Drop what changes from run to run and stamp what the outputs depend on."""
    for key in ("papermill", "widgets"):
        node.metadata.pop(key, None)
    for cell in node.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        kept = []
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                continue  # progress bars
            if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text  # in how many pieces a text arrives is chance
                continue
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                del output.data["application/vnd.jupyter.widget-view+json"]
                if list(output.data) == ["text/plain"]:
                    continue  # a bar again
            kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
    node.metadata.hesslib = {
        "source": source_hash(source),
        "code": chapter_code(source.stem),
        "versions": versions(),
        "device": device_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds),
    }
    return node


def same(node: nbformat.NotebookNode, figures: dict[str, payload.Payload], output: Path) -> bool:
    """Whether the files hold this run already: made by the same source and code, and showing the same.

    On another processor the last digits differ, and so do the drawings with other versions. The files then stay as
    they are, with the label of the run that made them.
    """
    stamps = lambda nb: [nb.metadata.get("hesslib", {}).get(key) for key in ("source", "code")]
    try:
        stored = nbformat.read(output, as_version=4)
        packed = {name: figure for name, (_, figure) in payload.read(output, stored.cells).items()}
        node = nbformat.reads(nbformat.writes(node), as_version=4)  # what a file keeps of it, in a file's order
    except (OSError, ValueError):
        return False
    return stamps(stored) == stamps(node) and same_run(stored.cells, packed, node.cells, figures)


def save(node: nbformat.NotebookNode, output: Path) -> None:
    """Write a cleaned notebook, and beside it what its pages show of the figures, unless the files say the same."""
    figures = payload.take_out(node.cells)
    if not same(node, figures, output):
        with replacing(payload.pack_path(output)) as file:
            payload.write(file, figures)
        with replacing(output, "w") as file:
            nbformat.write(node, file)


class Peak:
    """The most memory that the processes started from here held at a time, sampled."""

    def __init__(self) -> None:
        self.gib, self.ended = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.2):
            held = 0
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    held += process.memory_info().rss
            self.gib = max(self.gib, held / 2**30)

    def stop(self) -> float:
        """End the watch; returns GiB."""
        self.ended.set()
        self.thread.join()
        return self.gib


def processor_seconds() -> float:
    """Processor time of the processes started from here that have ended: wall time depends on who else computes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def keep_costs(chosen: list[Path], scale: str, outcomes: list[Outcome]) -> None:
    """Note in book/chapter_costs.json what notebooks cost, once for each state of their source and code."""
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else {}
    before = json.dumps(costs)
    for source, outcome in zip(chosen, outcomes, strict=True):
        state, old = f"{source_hash(source)} {code_hash()}", costs.setdefault(source.stem, {}).get(scale, {})
        if outcome.state == "done" and old.get("state") != state:
            made = {"seconds": round(outcome.processor_seconds), "gib": round(outcome.gib, 2), "state": state}
            costs[source.stem][scale] = {**made, "device": device_name()}
    if json.dumps(costs) != before:
        with replacing(COSTS, "w") as file:
            file.write(json.dumps(costs, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def kernel_connection() -> Iterator[Config]:
    """How a kernel is talked to: through sockets in a folder of its own, where the system has them.

    A TCP port is chosen before the kernel takes it; of many kernels started at a time now and then two chose the same.
    """
    if os.name != "posix":
        yield Config()
        return
    with tempfile.TemporaryDirectory(prefix="hesslib-", ignore_cleanup_errors=True) as folder:
        yield Config(KernelManager={"transport": "ipc", "connection_file": str(Path(folder, "kernel.json"))})


def execute(
    node: nbformat.NotebookNode, parameters: dict[str, Any], folder: Path, bar: dict | bool = False
) -> tuple[nbformat.NotebookNode, str]:
    """The notebook executed in a folder, and in a line the error that stopped it; empty if none did."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    os.environ["HESSLIB_LINES"] = "1"  # the kernel has no reader who could see a bar move
    try:
        with kernel_connection() as config:
            node = papermill.execute_notebook(
                node,
                None,
                parameters,
                cwd=folder if folder.exists() else None,
                progress_bar=bar,
                kernel_name="python3",
                start_timeout=600,
                extra_arguments=["--log-level=50"],
                config=config,
            )
        return node, ""
    except Exception as error:  # an error of the notebook's code, or a kernel that died: the other runs go on
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()] or [""]
        known = isinstance(error, PapermillExecutionError)
        return node, lines[-1] if known else f"{type(error).__name__}: {lines[0]}"


def run_one(source: Path, output: Path, parameters: dict[str, Any], threads: int, bar: bool) -> Outcome:
    """Execute one notebook. The output file is replaced only if every cell succeeded."""
    print(f"{source.stem:<20} running", flush=True)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    start, before, peak = time.perf_counter(), processor_seconds(), Peak()
    node, message = execute(read(source), parameters, NOTEBOOKS, {"desc": source.stem} if bar else False)
    seconds, gib = time.perf_counter() - start, peak.stop()
    if not message:
        node = clean(node, source, seconds)
        try:
            save(node, output)
        except StorageError as error:
            message = str(error)
    state = "failed" if message else "done"
    print(f"{source.stem:<20} {state:<8} {seconds:6.1f} s  {message}", flush=True)
    return Outcome(source.stem, state, seconds, output, message, processor_seconds() - before, gib)


def run(names: list[str], parameters: dict[str, Any], *, output: Path | None = None, jobs: int = 1) -> list[Outcome]:
    """Execute notebooks.

    Args:
        names: numbers or stems; empty for all.
        parameters: values for those declared in the notebooks.
        output: a folder for the executed notebooks. By default a run without parameters renews the
            committed ones in ``notebooks/``, and a run with parameters writes to ``_build/runs``.
        jobs: notebooks executed at a time, the cores divided between them.

    Raises:
        ParameterError: a notebook or a parameter that is not there; nothing has been executed.
    """
    chosen = sources(names)
    for source in chosen:
        check_names(read(source), source.stem, parameters)
    folder = output or (ROOT / "_build" / "runs" if parameters else NOTEBOOKS)
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)  # a busy machine is told by the variable
    threads = max(1, cores // max(1, jobs))
    bar = sys.stderr.isatty() and jobs == 1
    calls = (delayed(run_one)(s, folder / f"{s.stem}.ipynb", parameters, threads, bar) for s in chosen)
    outcomes = Parallel(n_jobs=min(jobs, len(chosen)) or 1)(calls)
    if set(parameters) <= {"scale"}:
        keep_costs(chosen, parameters.get("scale", "quick"), outcomes)
    return outcomes
