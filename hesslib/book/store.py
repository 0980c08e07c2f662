"""Results on disk: computed once, resumed, and labelled with how, when and where they were made.

A result is a dict of arrays. It lies in two files named after what was computed: ``KEY.npz`` and,
written after it, ``KEY.json`` with the provenance and the checksums of both. A result without a
valid pair does not exist, so a run killed at any moment leaves nothing that could be mistaken for one.
Of several runs that make the same result at the same time the first one's is kept.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from joblib import Parallel, delayed, parallel_config

from .._checks import whole
from .._files import StorageError, replacing
from .._progress import bar
from .paths import ROOT

Result = dict[str, np.ndarray]


def code_hash() -> str:
    """Hash of the code that numbers depend on: the curvature, theory and experiments wings."""
    digest = hashlib.sha256()
    for wing in ("curvature", "theory", "experiments"):
        for path in sorted((ROOT / "hesslib" / wing).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def device_name() -> str:
    """The processor that computes, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import scipy

    return {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def made_here() -> str:
    """Versions, machine and code of what is being computed now, for the end of a chapter."""
    numbers = ", ".join(f"{k} {v}" for k, v in versions().items())
    return f"{numbers}\ncomputed on {device_name()}; hesslib {code_hash()}"


def provenance(name: str, parameters: dict[str, Any], source: str, seconds: float) -> dict[str, Any]:
    """How, when and where a result was made."""
    head = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "name": name,
        "parameters": parameters,
        "function": hashlib.sha256(source.encode()).hexdigest()[:12],
        "code": code_hash(),
        "commit": commit or "unknown",
        "versions": versions(),
        "device": device_name(),
        "seconds": round(seconds, 2),
        "date": datetime.now(UTC).date().isoformat(),
    }


def label_digest(made: dict[str, Any]) -> str:
    """Checksum of a label's other entries."""
    rest = {key: value for key, value in made.items() if key != "label_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class Store:
    """A folder of results; the default is the book's own, ``book/results``."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or os.environ.get("HESSLIB_STORE") or ROOT / "book" / "results")

    def path(self, name: str, parameters: dict[str, Any]) -> Path:
        """Where a result lies, without the ending. The parameters must be what JSON can hold."""
        try:
            text = json.dumps(parameters, sort_keys=True)
        except TypeError as error:
            raise TypeError(f"parameters of {name}: {error}; give numbers, texts, and lists of them") from error
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.folder / name / key

    def load(self, name: str, parameters: dict[str, Any]) -> tuple[Result, dict[str, Any]] | None:
        """A stored result and its provenance; None if there is none, or with a warning if it is damaged."""
        path = self.path(name, parameters)
        arrays, label = path.with_suffix(".npz"), path.with_suffix(".json")
        if not (arrays.exists() and label.exists()):
            return None
        try:
            made, packed = json.loads(label.read_text()), arrays.read_bytes()
            intact = made["sha256"] == hashlib.sha256(packed).hexdigest()
            # labels written before there was a checksum of their own are taken as they are
            intact = intact and made.get("label_sha256") in (None, label_digest(made))
        except (ValueError, KeyError, TypeError, AttributeError):
            intact = False
        if not intact:
            warnings.warn(f"{name}/{path.name}: the stored files are damaged and will not be used", stacklevel=2)
            return None
        with np.load(io.BytesIO(packed), allow_pickle=False) as data:
            return {key: data[key] for key in data.files}, made

    def save(self, name: str, parameters: dict[str, Any], result: Result, made: dict[str, Any]) -> None:
        """Write a result so that it is there whole or not at all; one that is there already stays.

        Raises:
            StorageError: the disk is full or the folder cannot be written to; earlier results are intact.
            ValueError: the result holds Python objects, which only pickle could store.
        """
        path, packed = self.path(name, parameters), io.BytesIO()
        np.savez_compressed(packed, allow_pickle=False, **result)
        made = {**made, "sha256": hashlib.sha256(packed.getvalue()).hexdigest()}
        made["label_sha256"] = label_digest(made)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # a pair is never taken apart: who comes second finds it whole and leaves it
            with FileLock(path.parent / ".lock"), warnings.catch_warnings(action="ignore"):
                if self.load(name, parameters) is None:
                    with replacing(path.with_suffix(".npz")) as file:
                        file.write(packed.getvalue())
                    with replacing(path.with_suffix(".json"), "w") as file:
                        file.write(json.dumps(made, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise StorageError(f"the result of {name} could not be stored: {error}; earlier ones are intact") from error

    def run(
        self,
        name: str,
        function: Callable[..., Result],
        parameters: dict[str, Any],
        source: str | None = None,
    ) -> tuple[Result, dict[str, Any]]:
        """The stored result of ``function(**parameters)``, computed and stored if it is not there.

        A function that goes on from a checkpoint may return its whole time as ``seconds``, for the label.
        """
        found = self.load(name, parameters)
        if found is None:
            source, start = source or inspect.getsource(function), time.perf_counter()
            result = {k: np.asarray(v) for k, v in function(**parameters).items()}
            seconds = max(time.perf_counter() - start, float(result.get("seconds", 0)))
            self.save(name, parameters, result, provenance(name, parameters, source, seconds))
            found = self.load(name, parameters)
        return found

    def sweep(
        self,
        name: str,
        function: Callable[..., Result],
        grid: Iterable[dict[str, Any]],
        *,
        run: bool,
        jobs: int = 1,
    ) -> Sweep:
        """The stored results over a list of parameter settings; with ``run`` the missing ones are computed first.

        ``jobs`` settings are computed at a time, each with its share of the cores: for small networks more
        processes are faster than more threads.
        """
        whole(1, jobs=jobs)
        grid = list(grid)
        if run:
            missing, source = [q for q in grid if self.load(name, q) is None], inspect.getsource(function)
            with parallel_config("loky", inner_max_num_threads=max(1, (os.cpu_count() or 1) // jobs)):
                calls = (delayed(self.run)(name, function, q, source) for q in bar(missing, desc=name))
                Parallel(n_jobs=jobs)(calls)
        return Sweep(name, grid, [self.load(name, q) for q in grid])


class Sweep:
    """Stored results over a list of settings, those not run left out."""

    def __init__(self, name: str, grid: list[dict], found: list[tuple[Result, dict] | None]) -> None:
        self.name, self.asked = name, len(grid)
        there = [(p, *f) for p, f in zip(grid, found, strict=True) if f is not None]
        self.parameters = [p for p, _, _ in there]
        self.results = [r for _, r, _ in there]
        self.made = [m for _, _, m in there]

    def __len__(self) -> int:
        return len(self.results)

    def values(self, key: str) -> np.ndarray:
        """One quantity of every result, stacked along the first axis."""
        return np.stack([r[key] for r in self.results])

    def where(self, **parameters: Any) -> Sweep:
        """The part of the sweep with the given parameters."""
        keep = [i for i, p in enumerate(self.parameters) if all(p[k] == v for k, v in parameters.items())]
        return Sweep(self.name, [self.parameters[i] for i in keep], [(self.results[i], self.made[i]) for i in keep])

    @property
    def label(self) -> str:
        """Where and when the results were made, in a sentence; 'not run' if there are none."""
        if not self.made:
            return f"{self.name}: not run"
        dates = sorted(m["date"] for m in self.made)
        seconds = sum(m["seconds"] for m in self.made)
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        devices = ", ".join(sorted({m["device"] for m in self.made}))
        code = ", ".join(sorted({m["code"] for m in self.made}))
        runs = f"{len(self)} of {self.asked} stored runs of {self.name}"
        return f"{runs}, {when}, {seconds:.0f} s on {devices}, code {code}"
