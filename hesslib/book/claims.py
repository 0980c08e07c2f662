"""The claims ledger: what the paper says, and the verdict that the stored results give.

``book/claims.yml`` states each claim with one or more checks. A check evaluates an expression for each stored run
and asks where the values must lie. Nothing here or there says what the outcome is; the outcome that the book shows
lies in ``book/claims.json``, and a test fails while it is not the one computed.
"""

from __future__ import annotations

import json
import math
from functools import cache
from string import Template
from typing import Any

import numpy as np
import yaml
from scipy import stats

from .._files import replacing
from ..curvature.outliers import count_outliers
from .closure import Experiment, experiments, present, tree
from .parameters import ParameterError
from .paths import ROOT
from .store import published_labels, published_result, stale

LEDGER = ROOT / "book" / "claims.yml"
ACKNOWLEDGED = ROOT / "book" / "claims.json"
CHECK_KEYS = {"quantity", "results", "where", "each", "by", "group", "of", "format"}
BOUNDS = ("at_least", "at_most", "within", "covers")
OF = {"every": "in every run", "mean": "on average", "median": "in the median", "most": "in most runs"}


class Measure:
    """One number for each run (or group of runs): its mean, standard deviation, range, and where it came from."""

    def __init__(self, values: np.ndarray, runs: list[tuple[dict, dict, dict]]) -> None:
        self.values, self.made = np.asarray(values, dtype=float), [made for _, _, made in runs]
        self.seeds = len({q.get("seed") for q, _, _ in runs})
        self.count, self.mean, self.median = len(self.values), float(self.values.mean()), float(np.median(self.values))
        self.std = float(self.values.std(ddof=1)) if self.count > 1 else 0.0
        self.low, self.high = float(self.values.min()), float(self.values.max())

    def record(self) -> dict[str, float]:
        """The numbers, to seven digits."""
        keys = ("mean", "std", "low", "high", "median", "count", "seeds")
        return {key: float(f"{getattr(self, key):.7g}") for key in keys}


@cache
def made() -> tuple[dict[str, Experiment], dict[str, str]]:
    """Where each stored experiment is made, and the closures of all as the code is now."""
    code = tree()
    return experiments(code), present(code)


def origin(name: str) -> dict[str, str]:
    """The chapter, section and function that make the results of an experiment; empty if none does yet."""
    found = made()[0].get(name)
    return {"notebook": found.chapter, "section": found.heading, "function": found.function} if found else {}


@cache
def stored(name: str) -> list[tuple[dict, dict, dict]]:
    """Parameters, arrays and label of every published run of an experiment that is not stale, by parameters."""
    labels = [label for label in published_labels(name) if not stale(label, made()[1].get(name, ""))]
    found = [(label["parameters"], published_result(label), label) for label in labels]
    return sorted((run for run in found if run[1] is not None), key=lambda run: json.dumps(run[0], sort_keys=True))


def matches(value: Any, wanted: Any) -> bool:
    """Whether a parameter is the one wanted, or one of those wanted."""
    return value == wanted or (isinstance(wanted, list) and not isinstance(value, list) and value in wanted)


def measure(spec: dict[str, Any]) -> Measure | None:
    """The values of a check or number over its stored runs; None if there are none.

    ``each`` is an expression in numpy's functions, scipy's ``stats``, ``count_outliers``, and the arrays and parameters
    of one run. With ``by``, the runs of one seed are ordered by that parameter, and ``group`` makes one number of their
    values ``v``.
    """
    where = spec.get("where", {})
    runs = [r for r in stored(spec["results"]) if all(k in r[0] and matches(r[0][k], w) for k, w in where.items())]
    if not runs:
        return None
    names = {**vars(np), "stats": stats, "count_outliers": count_outliers, "__builtins__": {}}

    def value(expression, local):
        try:
            return eval(expression, {**names, **local})
        except Exception as error:
            place = f"{spec.get('id', spec.get('quantity'))!r} on {spec['results']}"
            raise ParameterError(f"{place}: {expression!r} cannot be evaluated: {error!r}") from error

    values = [value(spec["each"], {**q, **r}) for q, r, _ in runs]
    if "by" in spec:
        groups: dict[Any, list] = {}
        for (q, _, _), v in sorted(zip(runs, values), key=lambda pair: pair[0][0][spec["by"]]):
            groups.setdefault(q.get("seed"), []).append(v)
        full = max(map(len, groups.values()))
        values = [value(spec["group"], {"v": np.array(v)}) for _, v in sorted(groups.items()) if len(v) == full]
    return Measure(values, runs)


def demand(check: dict[str, Any]) -> str:
    """What a check asks for, in words."""
    kind = next(b for b in BOUNDS if b in check)
    bound, where = check[kind], OF[check.get("of", "every")]
    if kind == "covers":
        return f"{bound:g} within the range of the runs"
    if kind == "within":
        if bound[0] == bound[1]:
            return f"exactly {bound[0]:g} {where}"
        return f"{bound[0]:g} to {bound[1]:g} {where}"
    return f"{kind.replace('_', ' ')} {bound:g} {where}"


def passed(check: dict[str, Any], found: Measure) -> bool:
    """Whether the values lie where the check asks."""
    if "covers" in check:
        return found.low <= check["covers"] <= found.high
    low, high = check.get("within", (check.get("at_least", -np.inf), check.get("at_most", np.inf)))
    inside = lambda v: bool(low <= v <= high)
    how = check.get("of", "every")
    if how in ("mean", "median"):
        return inside(getattr(found, how))
    share = np.mean([inside(v) for v in found.values])
    return bool(share == 1 if how == "every" else share > 0.5)


def written(record: dict[str, float], form: str = ".3g") -> str:
    """A measurement as text: the mean, and the standard deviation where there are several values."""
    if record["count"] < 2 or record["std"] == 0:
        return format(record["mean"], form)
    if not form.endswith("f") or float(format(record["std"], form).replace(",", "")) == 0:
        # two digits of the deviation, and the mean to the same place
        form = f",.{max(0, 1 - math.floor(math.log10(record['std'])))}f"
    return " ± ".join(format(record[key], form) for key in ("mean", "std"))


def spanned(record: dict[str, float]) -> str:
    """A measurement as median and range, for a check that asks whether the range covers a value."""
    low, mid, high = (format(record[key], ".3g") for key in ("low", "median", "high"))
    return mid if low == high else f"{mid} [{low}, {high}]"


def expand(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """An entry with ``rows`` stands for one entry for each row, with $name replaced."""
    rows = entry.pop("rows", None)
    if rows is None:
        return [entry]
    text = yaml.safe_dump(entry, allow_unicode=True, width=10_000)
    return [yaml.safe_load(Template(text).substitute(row)) for row in rows]


@cache
def ledger() -> dict[str, list[dict[str, Any]]]:
    """``claims``, ``numbers`` and ``quotes`` of the ledger. Raises ``ParameterError`` where it is not well formed."""
    book = yaml.safe_load(LEDGER.read_text())
    book = {part: [one for entry in book[part] for one in expand(entry)] for part in ("claims", "numbers", "quotes")}
    names = [c["id"] for c in book["claims"]] + [n["id"] for n in book["numbers"]]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise ParameterError(f"claims.yml: {', '.join(sorted(twice))} more than once")
    for claim in book["claims"]:
        for check in claim["checks"]:
            unknown = set(check) - CHECK_KEYS - set(BOUNDS)
            if unknown or sum(b in check for b in BOUNDS) != 1 or check.get("of", "every") not in OF:
                raise ParameterError(
                    f"claims.yml, {claim['id']}: give each check one of {', '.join(BOUNDS)}; {unknown}"
                )
    return book


def evaluate(claim: dict[str, Any], numbers: dict[str, Measure | None]) -> dict[str, Any]:
    """A claim with its verdict and all that a reader or a program needs to trace it; ``why`` may quote the numbers."""
    found = [measure(check) for check in claim["checks"]]
    checks, results = [], []
    for check, m in zip(claim["checks"], found):
        record = m.record() if m else None
        results.append(passed(check, m) if m else None)
        text = "not run"
        if m:
            text = spanned(record) if "covers" in check else written(record, check.get("format", ".3g"))
        checks.append({
            "quantity": check["quantity"], "expression": check["each"], "results": check["results"],
            "demand": demand(check), "measured": text, "numbers": record, "passed": results[-1],
        })  # fmt: skip
    there = [m for m in found if m]
    verdict = "holds" if all(results) else "does not hold" if not any(results) else "holds in part"
    if None in results:
        verdict = "not run"
    explained = verdict in ("holds in part", "does not hold")
    join = lambda key: ", ".join(sorted({made[key] for m in there for made in m.made}))
    return {
        "id": claim["id"],
        "section": str(claim["section"]),
        "statement": claim["statement"],
        "paper": str(claim["paper"]),
        "measured": checks[0]["numbers"] and checks[0]["numbers"]["mean"],
        "spread": checks[0]["numbers"] and checks[0]["numbers"]["std"],
        "seeds": min((m.seeds for m in there), default=0),
        "scale": claim.get("scale", "paper"),
        "tolerance": checks[0]["demand"],
        "verdict": verdict,
        "source": origin(claim["checks"][0]["results"]),
        "chapter": claim["chapter"],
        "date": join("date"),
        "device": join("device"),
        "checks": checks,
        "why": claim.get("why", "").format(*there, **numbers) if explained else "",
    }


def report() -> dict[str, Any]:
    """Every verdict and every number of the prose, computed now from the stored results."""
    book = ledger()
    numbers = {number["id"]: measure(number) for number in book["numbers"]}
    records = {name: found and found.record() for name, found in numbers.items()}
    return {"claims": [evaluate(claim, numbers) for claim in book["claims"]], "numbers": records}


def acknowledged() -> dict[str, Any]:
    """The verdicts and numbers that the book shows."""
    return json.loads(ACKNOWLEDGED.read_text())


def differences(now: dict[str, Any], shown: dict[str, Any], tolerance: float = 1e-6) -> list[str]:
    """What is no longer as acknowledged: one line for each verdict, text or number, relative tolerance as given."""

    def by_name(v):
        named = isinstance(v, list) and all(isinstance(x, dict) and "id" in x for x in v)
        return {x["id"] if named else str(i): x for i, x in enumerate(v)} if isinstance(v, list) else v

    def compare(path, a, b):
        a, b = by_name(a), by_name(b)
        if isinstance(a, dict) and isinstance(b, dict):
            return [d for k in sorted({*a, *b}) for d in compare(f"{path}.{k}", a.get(k), b.get(k))]
        if isinstance(a, dict) or isinstance(b, dict):
            return [f"{path[1:]}: {'new' if isinstance(a, dict) else 'gone'}"]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
        same = np.isclose(a, b, rtol=tolerance, atol=1e-12) if numbers else a == b
        return [] if same else [f"{path[1:]}: shown {b!r}, now {a!r}"]

    return compare("", now, shown)


def acknowledge(now: dict[str, Any]) -> None:
    """Make the verdicts of now those that the book shows."""
    with replacing(ACKNOWLEDGED, "w") as file:
        file.write(json.dumps(now, indent=1, ensure_ascii=False) + "\n")


def listing(claims: list[dict[str, Any]]) -> str:
    """The verdicts as a text table, and their counts."""
    lines = [f"{'claim':<26} {'verdict':<14} {'measured':<20} {'asked':<40} seeds"]
    for c in claims:
        measured = c["checks"][0]["measured"]
        lines.append(f"{c['id']:<26} {c['verdict']:<14} {measured:<20} {c['tolerance']:<40} {c['seeds'] or '':>5}")
    verdicts = [c["verdict"] for c in claims]
    counts = [f"{v}: {verdicts.count(v)}" for v in ("holds", "holds in part", "does not hold", "not run")]
    return "\n".join([*lines, f"{len(claims)} claims; " + ", ".join(counts)])
