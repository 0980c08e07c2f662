"""What is published: an archive of arrays and a file of labels for each experiment.

``book/results/NAME.npz`` holds the arrays of all runs as ``KEY/ARRAY.npy``, ``NAME.jsonl`` a label a line; the weights
of each run lie in ``NAME.KEY.weights.npz``. The same results give the same bytes. A published label is true: its
closure is the present one, and its commit is in this history, was clean, and has that closure too.
"""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .._files import StorageError, replacing
from . import closure as closures
from .closure import git
from .parameters import ParameterError
from .provenance import label_checksum
from .store import PUBLISHED, WEIGHTS, Result, Store, published_labels, published_result, read_arrays, read_label


def write_archive(path: Path, members: dict[str, np.ndarray]) -> None:
    """Arrays in one archive whose bytes depend on nothing but the arrays."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in sorted(members.items()):
            packed = io.BytesIO()
            np.lib.format.write_array(packed, np.asanyarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(info, packed.getvalue())


def publish(name: str, runs: list[tuple[Result, dict[str, Any]]], folder: Path = PUBLISHED) -> None:
    """Write all runs of an experiment, the labels last."""
    files: dict[str, dict[str, np.ndarray]] = {f"{name}.npz": {}}
    for result, label in runs:
        for array, values in result.items():
            heavy = f"{label['key']}.{WEIGHTS}." if array.startswith(WEIGHTS) else ""
            files.setdefault(f"{name}.{heavy}npz", {})[f"{label['key']}/{array}"] = values
    for file, members in files.items():
        if members:
            write_archive(folder / file, members)
    lines = sorted(json.dumps(label, sort_keys=True, ensure_ascii=False) for _, label in runs)
    lines.sort(key=lambda line: json.dumps(json.loads(line)["parameters"], sort_keys=True))
    with replacing(folder / f"{name}.jsonl", "w") as file:
        file.write("".join(f"{line}\n" for line in lines))


def fault(label: dict[str, Any], present: dict[str, str]) -> str:
    """Why a label is not true, in a few words; empty if it is.

    Args:
        label: of a published or a loose result.
        present: the closures of the experiments as the code is now (``closure.present``).
    """
    if label["closure"] not in closures.same_numbers(label["name"], present.get(label["name"])):
        return "stale, its code has changed since" if label["name"] in present else "no chapter makes it"
    if not label["clean"]:
        return f"made from changed sources at commit {label['commit']}"
    if git("merge-base", "--is-ancestor", label["commit"], "HEAD") is None:
        return f"commit {label['commit']} is not in this history"
    closure, commit = label["closure"], label["commit"]
    held = closure in _closures_of(commit) or closure == _imported_at(label["name"], commit)
    return "" if held else f"commit {label['commit']} has other code"


@cache
def _closures_of(commit: str) -> set[str]:
    code = closures.tree_at(commit)
    return set(closures.present(code).values()) if code else set()


@cache
def _imported_at(name: str, commit: str) -> str | None:
    """The closure, at a commit, of the function a chapter now imports for an experiment; a run may be older than it."""
    now, then = closures.tree(), closures.tree_at(commit)
    made = closures.experiments(now).get(name)
    for node in ast.parse(now.read(f"notebooks/{made.chapter}.py") or "").body if made else []:
        if made and isinstance(node, ast.ImportFrom) and node.module and made.function in {a.name for a in node.names}:
            home = then.module(node.module) if then else None
            return then.closure(node.module, made.function) if then and home and made.function in home.binders else None
    return None


def pack(folder: Path = PUBLISHED, store: Store | None = None) -> dict[str, int]:
    """Publish the loose results of the working store, and take them out of it.

    A published run of the same parameters is replaced, all others stay as they are.

    Returns:
        how many runs of each experiment were added.

    Raises:
        ParameterError: one of the loose results has no true label; nothing has been published.
        StorageError: a published run is damaged, or the files cannot be written.
    """
    store, present = store or Store(), closures.present(closures.tree())
    loose: dict[str, list[tuple[Result, dict[str, Any]]]] = {}
    files = sorted(store.folder.glob("*/*.json"))
    for file in files:
        label = read_label(file.read_text())
        result = label and read_arrays(file.with_suffix(".npz"), "", label["arrays"])
        why = "its files are damaged" if result is None else fault(label, present)
        if why:
            entry = f"{file.parent.name}/{file.stem}"
            raise ParameterError(
                f"{entry} cannot be published: {why}; commit your changes, then python -m hesslib renew {entry}"
            )
        loose.setdefault(label["name"], []).append((result, label))
    for name, runs in loose.items():
        new, kept = {label["key"] for _, label in runs}, []
        for label in published_labels(name, folder):
            if label["key"] not in new:
                if (result := published_result(label, folder)) is None:
                    raise StorageError(f"{name}/{label['key']} is damaged: restore it from git before packing")
                kept.append((result, label))
        publish(name, [*kept, *runs], folder)
    for file in files:
        file.unlink()
        file.with_suffix(".npz").unlink()
    return {name: len(runs) for name, runs in loose.items()}


def faults(folder: Path = PUBLISHED) -> tuple[int, dict[str, str]]:
    """How many runs are published, and why the labels of some are not true, by NAME/KEY.

    Raises:
        ParameterError: the commits cannot be looked up, in a shallow clone or without git.
    """
    if git("rev-parse", "--is-shallow-repository") != "false":
        raise ParameterError("labels name commits, and this clone lacks the history: git fetch --unshallow, then again")
    present, found, count = closures.present(closures.tree()), {}, 0
    for line in closures.confirmations():
        made = {**line, "clean": line["checksum"] == label_checksum(line)}
        if why := fault(made, {line["name"]: line["closure"]}):
            found[f"confirmed.jsonl, {line['name']}"] = why
    for path in sorted(folder.glob("*.jsonl")):
        for label in published_labels(path.stem, folder):
            count += 1
            why = "its arrays are damaged" if published_result(label, folder) is None else fault(label, present)
            if why:
                found[f"{path.stem}/{label['key']}"] = why
        damaged = len(path.read_text().splitlines()) - len(published_labels(path.stem, folder))
        if damaged:
            found[f"{path.stem}, {damaged} lines"] = "the label is damaged"
    return count, found


def earlier(folder: Path = PUBLISHED) -> int:
    """How many published runs were made by earlier code than the present."""
    present = closures.present(closures.tree())
    return sum(
        one["closure"] != present.get(p.stem)
        for p in folder.glob("*.jsonl")
        for one in published_labels(p.stem, folder)
    )


def rehash(folder: Path = PUBLISHED) -> int:
    """Give each label the present closure where its commit has that too, after the rule in ``closure.py`` has changed.

    Returns:
        how many labels were written anew.
    """
    present, changed = closures.present(closures.tree()), 0
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            label = read_label(line)
            new = {**label, "closure": present.get(path.stem)} if label else None
            if new and new != label and not fault(new, present):
                lines[i] = json.dumps({**new, "checksum": label_checksum(new)}, sort_keys=True, ensure_ascii=False)
                changed += 1
        with replacing(path, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
    return changed


def report(count: int, found: dict[str, str]) -> str:
    """The faults in words, one line for each reason and experiment."""
    groups = Counter((entry.split("/")[0], why) for entry, why in found.items())
    lines = [f"{name}: {number} {'run' if number == 1 else 'runs'}: {why}" for (name, why), number in groups.items()]
    return "\n".join([*lines, f"{count - len(found)} of {count} published labels are true"])
