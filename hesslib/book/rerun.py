"""Whether a fresh run of a notebook says what the stored one says: the same words, and numbers within rounding."""

from __future__ import annotations

import csv
import json
import re
from typing import Any

import numpy as np

from .payload import Payload

TOLERANCE = 1.01e-5  # relative; downloads have six digits, and one step of the last is 1e-5 at most
NOISE = 1e-12  # of the largest value of its curve, or of one: below it a processor's rounding decides

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.I)


def same_text(one: str, two: str) -> bool:
    """Whether two texts have the same words and, within the tolerance, the same numbers."""
    if one == two:
        return True
    numbers = [np.array(NUMBER.findall(text), float) for text in (one, two)]
    return NUMBER.split(one) == NUMBER.split(two) and np.allclose(*numbers, TOLERANCE, NOISE)


def curves(numbers: str) -> dict[tuple[str, ...], np.ndarray]:
    """The points of a download by the curve they belong to."""
    found: dict[tuple[str, ...], list[list[float]]] = {}
    for *curve, x, y in csv.reader(numbers.splitlines()[1:]):
        found.setdefault(tuple(curve), []).append([float(x), float(y)])
    return {curve: np.array(points) for curve, points in found.items()}


def same_curves(one: str, two: str) -> bool:
    """Whether two downloads hold the same curves within the tolerance."""
    if one == two:
        return True
    ours, theirs = curves(one), curves(two)
    if {c: p.shape for c, p in ours.items()} != {c: p.shape for c, p in theirs.items()}:
        return False
    for curve, points in theirs.items():
        size = np.abs(points).max(0, where=np.isfinite(points), initial=0)
        if not np.isclose(ours[curve], points, TOLERANCE, NOISE * size, equal_nan=True).all():
            return False
    return True


def words(html: str) -> str:
    """What a figure's HTML says beside its drawing: labels, and values, sentences and alt texts of frames."""
    parts = re.split(r'<script type="application/json">(.*?)</script>', html, flags=re.S)
    for i, part in enumerate(parts):
        if i % 2:  # the frames of an exploration
            frames = json.loads(part)
            parts[i] = json.dumps([frames["values"], frames["alts"], frames["sentences"]])
        else:
            parts[i] = re.sub(r"<svg.*?</svg>", "", part, flags=re.S)
    return "".join(parts)


def same_payload(one: Payload, two: Payload) -> bool:
    """Whether two figures show the same: their numbers and what they say. How it is drawn may differ."""
    return same_curves(one.csv, two.csv) and same_text(words(one.html), words(two.html))


def said(cells: list[Any]) -> list[tuple[Any, list[str]]]:
    """What cells hold that must be equal, and the texts they show, without pictures and hashes of payloads."""
    found = []
    for cell in cells:
        where = re.search(r"\b(made_here|foot)\(", cell["source"])  # that cell says where it ran
        outputs = [] if where else cell.get("outputs", [])
        fixed = [{k: v for k, v in cell.items() if k != "outputs"}]
        texts = []
        for output in outputs:
            data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
            metadata = {
                k: v for k, v in output.get("metadata", {}).items() if k not in ("packed", "hesslib", "image/png")
            }
            fixed.append([output["output_type"], output.get("name"), metadata, list(data)])
            texts += [output.get("text", ""), *data.values(), json.dumps(output.get("metadata", {}).get("hesslib", {}))]
        found.append((fixed, ["".join(t) if isinstance(t, list) else str(t) for t in texts]))
    return found


def same_cells(one: list[Any], two: list[Any]) -> bool:
    """Whether cells have the same sources and metadata, and show the same texts."""
    ours, theirs = said(one), said(two)
    if [fixed for fixed, _ in ours] != [fixed for fixed, _ in theirs]:
        return False
    return all(same_text(*texts) for (_, a), (_, b) in zip(ours, theirs, strict=True) for texts in zip(a, b))


def same_run(cells: list[Any], figures: dict[str, Payload], new_cells: list[Any], new: dict[str, Payload]) -> bool:
    """Whether a notebook and its figures show what a fresh run of it shows."""
    return (
        same_cells(cells, new_cells)
        and figures.keys() == new.keys()
        and all(same_payload(figures[name], new[name]) for name in new)
    )
