"""What a label says: by what code, from which commit, on which machine, with which versions."""

from __future__ import annotations

import hashlib
import json
import platform
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .closure import git, tree
from .paths import ROOT

SOURCES = ("hesslib", ":(glob)notebooks/*.py")


def code_hash() -> str:
    """Hash of all code that computes numbers: the curvature, theory and experiments wings, without prose."""
    code, digest = tree(ROOT), hashlib.sha256()
    for wing in ("curvature", "theory", "experiments"):
        for path in sorted((ROOT / "hesslib" / wing).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            digest.update(code.module_closure(module).encode())
    return digest.hexdigest()[:12]


def chapter_code(chapter: str) -> str:
    """Hash of all code that a chapter's numbers come from, its own cells and what they reach, without prose."""
    return tree(ROOT).module_closure(f"notebooks.{chapter}")


def device_name() -> str:
    """The processor that computes, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    count = torch.get_num_threads()
    return f"{name}, {count} thread{'s' * (count != 1)}"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import scipy

    packages = {"torch": torch, "numpy": np, "scipy": scipy}
    return {"python": platform.python_version()} | {n: p.__version__.split("+")[0] for n, p in packages.items()}


def made_here() -> str:
    """Versions and machine of what is being computed now, for the end of a chapter."""
    return ", ".join(f"{k} {v}" for k, v in versions().items()) + f"\ncomputed on {device_name()}"


@cache
def commit() -> tuple[str, bool]:
    """The commit of the code as this process found it first, and whether the sources were as in the commit."""
    name, changes = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "--", *SOURCES)
    return name or "unknown", name is not None and changes == ""


def provenance(name: str, parameters: dict[str, Any], closure: str, seconds: float) -> dict[str, Any]:
    """How, when and where a result was made: the entries of its label, but for the checksums."""
    made_from, clean = commit()
    return {
        "name": name,
        "parameters": parameters,
        "closure": closure,
        "commit": made_from,
        "clean": clean,
        "versions": versions(),
        "device": device_name(),
        "seconds": round(seconds, 2),
        "date": datetime.now(UTC).date().isoformat(),
    }


def key_of(name: str, parameters: dict[str, Any]) -> str:
    """What a result is called, by its parameters. They must be what JSON can hold."""
    try:
        text = json.dumps(parameters, sort_keys=True)
    except TypeError as error:
        raise TypeError(f"parameters of {name}: {error}; give numbers, texts, and lists of them") from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def array_checksum(array: np.ndarray) -> str:
    """Checksum of an array's numbers, type and shape."""
    head = f"{array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def label_checksum(label: dict[str, Any]) -> str:
    """Checksum of a label's other entries."""
    rest = {key: value for key, value in label.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def seal(label: dict[str, Any], result: dict[str, np.ndarray]) -> dict[str, Any]:
    """A label with its key and the checksums of its arrays and of itself."""
    arrays = {name: array_checksum(array) for name, array in sorted(result.items())}
    label = {**label, "key": key_of(label["name"], label["parameters"]), "arrays": arrays}
    return {**label, "checksum": label_checksum(label)}
