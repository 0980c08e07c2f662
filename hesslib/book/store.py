"""Results on disk: computed once, resumed, and labelled with how, when and where they were made.

A result is a dict of arrays. While it is worked on, it lies in two loose files named after its parameters,
``_build/store/NAME/KEY.npz`` and, written after it, ``KEY.json``, its label. A result without a valid pair does not
exist, so a run killed at any moment leaves nothing that could be mistaken for one; of several runs that make the same
result at the same time the first one's is kept. What is published lies packed in ``book/results`` (see ``pack``).

A label names the closure of the function that made the result. Where the function's closure is another by now, the
result is stale and is not used, unless the two were seen to give the same bits (see ``confirm``).
"""

from __future__ import annotations

import io
import json
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from .._files import StorageError, replacing
from . import closure as closures
from .engine import compute
from .numbers import devices
from .paths import ROOT
from .provenance import array_checksum, commit, key_of, label_checksum, provenance, seal

PUBLISHED = ROOT / "book" / "results"
WEIGHTS = "weights"  # arrays whose name begins so are published in a file of their own
Result = dict[str, np.ndarray]
Found = tuple[Result, dict[str, Any]]


@lru_cache(maxsize=4)
def _archive(path: Path, stamp: int) -> zipfile.ZipFile:
    """A published archive, open, as it is since a time: its directory is as long as all its runs."""
    return zipfile.ZipFile(path)


@lru_cache(maxsize=4)
def _labels(path: Path, stamp: int) -> list[dict[str, Any] | None]:
    """Labels of a published file as it is since a time; None for a damaged line."""
    return [read_label(line) for line in path.read_text().splitlines()]


def read_arrays(path: Path, prefix: str, checksums: dict[str, str]) -> Result | None:
    """Arrays of an archive, by their checksums; None if one is missing or not as it was."""
    found = {}
    try:
        published = nullcontext(_archive(path, path.stat().st_mtime_ns)) if prefix else None
        with published or zipfile.ZipFile(path) as archive:
            for member in archive.namelist():  # in the order in which the function gave them
                name = member.removeprefix(prefix).removesuffix(".npy")
                if member == f"{prefix}{name}.npy" and name in checksums:
                    found[name] = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
                    if array_checksum(found[name]) != checksums[name]:
                        return None
    except Exception:  # a changed byte of an archive is reported in many ways
        return None
    return found if found.keys() == checksums.keys() else None


def read_label(text: str) -> dict[str, Any] | None:
    """A label; None if it is not as it was."""
    try:
        label = json.loads(text)
        return label if label["checksum"] == label_checksum(label) else None
    except (ValueError, KeyError, TypeError):
        return None


def published_labels(name: str, folder: Path = PUBLISHED) -> list[dict[str, Any]]:
    """Labels of the published runs of an experiment; a damaged line is left out with a warning that names it."""
    path, labels = folder / f"{name}.jsonl", []
    for number, label in enumerate(_labels(path, path.stat().st_mtime_ns) if path.exists() else [], 1):
        if label is None:
            warnings.warn(f"{path.name}, line {number}: the label is damaged, its run is not used", stacklevel=2)
        else:
            labels.append(label)
    return labels


def published_result(label: dict[str, Any], folder: Path = PUBLISHED) -> Result | None:
    """The arrays of a published run; None, with a warning, if they are damaged."""
    found, name, key = {}, label["name"], label["key"]
    for heavy in (False, True):
        part = {a: c for a, c in label["arrays"].items() if a.startswith(WEIGHTS) == heavy}
        file = f"{name}.{key}.{WEIGHTS}.npz" if heavy else f"{name}.npz"
        arrays = read_arrays(folder / file, f"{key}/", part) if part else {}
        if arrays is None:
            warnings.warn(f"{name}/{key}: the stored arrays are damaged and will not be used", stacklevel=2)
            return None
        found |= arrays
    return found


class Store:
    """Results in a folder; by default the working store, ``_build/store``, with the published ones behind it."""

    def __init__(self, folder: str | Path | None = None) -> None:
        folder = folder or os.environ.get("HESSLIB_STORE")
        self.published = None if folder else PUBLISHED
        self.folder = Path(folder or ROOT / "_build" / "store")

    def path(self, name: str, parameters: dict[str, Any]) -> Path:
        """Where a result lies while it is worked on, without the ending."""
        return self.folder / name / key_of(name, parameters)

    def load(self, name: str, parameters: dict[str, Any], closure: str | None = None) -> Found | None:
        """A stored result and its label; None if there is none, or with a warning if it is damaged or stale.

        Args:
            name, parameters: of the experiment and the run.
            closure: what the label must name; None takes a result of any.
        """
        loose = self._loose(name, parameters, closure)
        if loose is not None or self.published is None:
            return loose
        key = key_of(name, parameters)
        label = next((one for one in published_labels(name, self.published) if one["key"] == key), None)
        if label is None or stale(label, closure):
            return None
        result = published_result(label, self.published)
        return None if result is None else (result, label)

    def labels(self) -> list[dict[str, Any]]:
        """Labels of all intact published results; of a store of its own, without published ones, of all its results."""
        if self.published is not None:
            return [one for path in sorted(self.published.glob("*.jsonl")) for one in published_labels(path.stem)]
        found = [read_label(file.read_text(errors="replace")) for file in sorted(self.folder.glob("*/*.json"))]
        return [label for label in found if label]

    def kept(self, label: dict[str, Any]) -> Result | None:
        """The arrays that belong to one of ``labels``; None, with a warning, if they are damaged."""
        if self.published is not None:
            return published_result(label, self.published)
        found = self.load(label["name"], label["parameters"])
        return found[0] if found else None

    def _loose(self, name: str, parameters: dict[str, Any], closure: str | None) -> Found | None:
        path = self.path(name, parameters)
        arrays, file = path.with_suffix(".npz"), path.with_suffix(".json")
        if not (arrays.exists() and file.exists()):
            return None
        label = read_label(file.read_text(errors="replace"))
        result = label and read_arrays(arrays, "", label["arrays"])
        if result is None:
            warnings.warn(f"{name}/{path.name}: the stored files are damaged and will not be used", stacklevel=3)
            return None
        return None if stale(label, closure) else (result, label)

    def save(self, name: str, parameters: dict[str, Any], result: Result, made: dict[str, Any]) -> None:
        """Write a result so that it is there whole or not at all; an intact one of the same closure stays.

        Args:
            name, parameters: of the experiment and the run.
            result: arrays by name.
            made: how it was made (``provenance``).

        Raises:
            StorageError: the disk is full or the folder cannot be written to; earlier results are intact.
            ValueError: the result holds Python objects, which only pickle could store.
        """
        path, packed, result = self.path(name, parameters), io.BytesIO(), {k: np.asarray(v) for k, v in result.items()}
        np.savez_compressed(packed, allow_pickle=False, **result)
        label = seal({**made, "name": name, "parameters": parameters}, result)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # a pair is never taken apart: who comes second finds it whole and leaves it
            with FileLock(path.parent / ".lock"), warnings.catch_warnings(action="ignore"):
                if self._loose(name, parameters, label.get("closure")) is None:
                    with replacing(path.with_suffix(".npz")) as file:
                        file.write(packed.getvalue())
                    with replacing(path.with_suffix(".json"), "w") as file:
                        file.write(json.dumps(label, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise StorageError(f"the result of {name} could not be stored: {error}; earlier ones are intact") from error

    def run(
        self, name: str, function: Callable[..., Result], parameters: dict[str, Any], closure: str | None = None
    ) -> Found:
        """The stored result of ``function(**parameters)``, computed and stored if there is none of this closure.

        Args:
            name: of the experiment.
            function: gives arrays by name; it stands at the top of a module or notebook.
            parameters: what JSON can hold.
            closure: of the function, where it is known already (another process has no text of a notebook's cells).
        """
        closure = closure or closures.of(function)
        found = self.load(name, parameters, closure)
        if found is None:
            made, start = provenance(name, parameters, closure, 0), time.perf_counter()
            result = function(**parameters)
            made["seconds"] = round(time.perf_counter() - start, 2)
            self.save(name, parameters, result, made)
            found = self._loose(name, parameters, closure)
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

        Args:
            name, function: as in ``run``.
            grid: the settings.
            run: whether to compute what is missing; a setting that fails costs its own run and is named in the label.
            jobs: settings computed at a time, each with its share of the cores: for small networks more processes are
                faster than more threads.
        """
        grid, closure, failed = list(grid), closures.of(function), []
        if run:
            missing = {i: q for i, q in enumerate(grid) if self.load(name, q, closure) is None}
            one = partial(_run, self, name, function, closure)
            failed = [error for _, _, error in compute(missing, one, jobs=jobs, desc=name) if error]
        found = [self.load(name, q, closure) for q in grid]
        with warnings.catch_warnings(action="ignore"):
            old = [f is None and self.load(name, q) is not None for q, f in zip(grid, found, strict=True)]
        earlier = sum(f is not None and f[1]["closure"] != closure for f in found)
        return Sweep(name, grid, found, sum(old), failed, earlier)


def _run(store: Store, name: str, function: Callable[..., Result], closure: str, parameters: dict[str, Any]) -> None:
    store.run(name, function, parameters, closure)


def stale(label: dict[str, Any], closure: str | None) -> bool:
    """Whether a result was made by other code than that of the closure, and not by earlier code that was confirmed.

    One made from changed sources counts as such too, once the sources are as in a commit: nobody can look its code up.
    """
    if closure is None:
        return False
    other = label.get("closure") not in closures.same_numbers(label.get("name", ""), closure)
    return other or (not label.get("clean", True) and commit()[1])


class Sweep:
    """Stored results over a list of settings, those not run left out; how many are stale, and what failed.

    ``earlier`` of them were made by earlier code with which the present code agrees bit for bit on a sample.
    """

    def __init__(
        self, name: str, grid: list[dict], found: list[Found | None], stale: int = 0, failed: Sequence[str] = (),
        earlier: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.asked, self.stale, self.failed = name, len(grid), stale, list(failed)
        self.earlier = earlier
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
        old = f"; {self.stale} made by earlier code are stale and not used" if self.stale else ""
        old += f"; {self.earlier} by earlier code, confirmed on a sample" if self.earlier else ""
        old += f"; {len(self.failed)} failed, the first with {self.failed[0]}" if self.failed else ""
        if not self.made:
            return f"{self.name}: not run{old}"
        dates = sorted(m["date"] for m in self.made)
        seconds = sum(m["seconds"] for m in self.made)
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        commits = ", ".join(sorted({m["commit"] + ("" if m["clean"] else " with changes") for m in self.made}))
        runs = f"{len(self)} of {self.asked} stored runs of {self.name}"
        return f"{runs}, {when}, {seconds:,.0f} s on {devices(self.made)}, commit {commits}{old}"
