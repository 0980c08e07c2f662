"""From ``NN_topic.py`` to the executed, cleaned and stamped ``NN_topic.ipynb``."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from joblib import Parallel, delayed
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets import Dict
from traitlets.config import Config

from .._files import StorageError, replacing
from . import payload
from .engine import cores
from .parameters import ParameterError, suggestion
from .paths import ROOT
from .provenance import chapter_code, device_name, versions
from .rerun import same_run

NOTEBOOKS = ROOT / "notebooks"
SOCKETS = "hesslib-kernel-"  # how the folders of sockets begin


@dataclass
class Outcome:
    """How a run ended."""

    name: str
    state: str  # "done" or "failed"
    seconds: float
    output: Path
    message: str = ""


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
        raise ParameterError(f"{name}: {', '.join(unknown)} is not a parameter{suggestion(unknown[0], known)}")


def clean(node: nbformat.NotebookNode, source: Path, seconds: float) -> nbformat.NotebookNode:
    """Drop what changes from run to run and stamp what the outputs depend on."""
    for key in ("papermill", "widgets"):
        node.metadata.pop(key, None)
    for cell in node.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if {"hide-input", "remove-cell"} & set(cell.metadata.get("tags", [])):
            cell.metadata["jupyter"] = {"source_hidden": True}  # folded in JupyterLab and VS Code too
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
        "device": device_name().split(", ")[0],
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


class KernelManager(AsyncKernelManager):
    """Starts a kernel with variables of its own beside the caller's, whose environment stays as it is."""

    variables = Dict().tag(config=True)

    async def _async_pre_start_kernel(self, **options):
        return await super()._async_pre_start_kernel(**{"env": {**os.environ, **self.variables}, **options})

    pre_start_kernel = _async_pre_start_kernel


def clear_sockets() -> None:
    """Remove the folders of sockets whose runs were killed: those that nobody holds a lock on."""
    import fcntl

    for folder in Path(tempfile.gettempdir()).glob(f"{SOCKETS}*"):
        with contextlib.suppress(OSError):  # of a run that goes on, or of another user
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextlib.contextmanager
def kernel_connection() -> Iterator[dict[str, Any]]:
    """How a kernel is talked to: through sockets in a folder of its own, where the system has them.

    A TCP port is chosen before the kernel takes it; of many kernels started at a time now and then two chose the same.
    The folder is locked as long as this process lives, and what killed ones have left is removed.
    """
    if os.name != "posix":
        yield {}
        return
    import fcntl

    clear_sockets()
    folder = Path(tempfile.mkdtemp(prefix=f".{SOCKETS}"))
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = folder.rename(folder.with_name(folder.name[1:]))  # only now can another run see it
    try:
        yield {"transport": "ipc", "connection_file": str(folder / "kernel.json")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def execute(
    node: nbformat.NotebookNode, parameters: dict[str, Any], folder: Path, *, desc: str = "", threads: int | None = None
) -> tuple[nbformat.NotebookNode, str]:
    """The notebook executed in a folder, and in a line the error that stopped it; empty if none did.

    With ``desc`` a bar counts the cells; ``threads`` are those of the kernel, without it as many as the caller's.
    """
    variables = {"HESSLIB_LINES": "1"}  # the kernel has no reader who could see a bar move
    variables |= {} if "PYDEVD_DISABLE_FILE_VALIDATION" in os.environ else {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    variables |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    try:
        with kernel_connection() as connection:
            node = papermill.execute_notebook(
                node,
                None,
                parameters,
                cwd=folder if folder.exists() else None,
                progress_bar={"desc": desc} if desc else False,
                kernel_name="python3",
                start_timeout=600,
                extra_arguments=["--log-level=50"],
                kernel_manager_class=KernelManager,
                config=Config(KernelManager={**connection, "variables": variables}),
            )
        return node, ""
    except Exception as error:  # an error of the notebook's code, or a kernel that died: the other runs go on
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()] or [""]
        known = isinstance(error, PapermillExecutionError)
        return node, lines[-1] if known else f"{type(error).__name__}: {lines[0]}"


def run_one(source: Path, output: Path, parameters: dict[str, Any], threads: int, bar: bool) -> Outcome:
    """Execute one notebook. The output file is replaced only if every cell succeeded."""
    print(f"{source.stem:<20} running", flush=True)
    start = time.perf_counter()
    node, message = execute(read(source), parameters, NOTEBOOKS, desc=source.stem if bar else "", threads=threads)
    seconds = time.perf_counter() - start
    if not message:
        node = clean(node, source, seconds)
        try:
            save(node, output)
        except StorageError as error:
            message = str(error)
    state = "failed" if message else "done"
    where = output.relative_to(Path.cwd()) if output.is_relative_to(Path.cwd()) else output
    print(f"{source.stem:<20} {state:<8} {seconds:6.1f} s  {message or where}", flush=True)
    return Outcome(source.stem, state, seconds, output, message)


def folder_name(parameters: dict[str, Any]) -> str:
    """A folder's name that says the parameters and is that of no others."""
    text = ",".join(f"{name}={value}" for name, value in sorted(parameters.items()))
    short = re.sub(r"[^\w=.,-]+", "_", text)[:80]
    return short if short == text else f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def seconds_taken(source: Path) -> float:
    """What the last kept run of a chapter took; infinite if there is none."""
    path = source.with_suffix(".ipynb")
    stamp = nbformat.read(path, as_version=4).metadata.get("hesslib", {}) if path.exists() else {}
    return stamp.get("seconds", float("inf"))


def run(names: list[str], parameters: dict[str, Any], *, output: Path | None = None, jobs: int = 1) -> list[Outcome]:
    """Execute notebooks.

    Args:
        names: numbers or stems; empty for all.
        parameters: values for those declared in the notebooks.
        output: a folder for the executed notebooks. By default a run without parameters renews the
            committed ones in ``notebooks/``, and a run with parameters writes to ``_build/runs``,
            in a folder that is named after the parameters.
        jobs: notebooks executed at a time, the cores divided between them.

    Raises:
        ParameterError: a notebook or a parameter that is not there; nothing has been executed.
    """
    chosen = sources(names)
    for source in chosen:
        check_names(read(source), source.stem, parameters)
    folder = output or (ROOT / "_build" / "runs" / folder_name(parameters) if parameters else NOTEBOOKS)
    threads = max(1, cores(None if parameters.get("scale") == "paper" else 1) // max(1, jobs))
    bar = sys.stderr.isatty() and jobs == 1
    # what takes longest begins first, or one core waits for it at the end
    order = sorted(chosen, key=seconds_taken, reverse=True) if jobs > 1 else chosen
    calls = (delayed(run_one)(s, folder / f"{s.stem}.ipynb", parameters, threads, bar) for s in order)
    done = Parallel(n_jobs=min(jobs, len(chosen)) or 1)(calls)
    return sorted(done, key=lambda outcome: outcome.name)
