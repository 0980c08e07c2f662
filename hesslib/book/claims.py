"""The claims ledger: what the paper says, and the verdict that the stored results give.

``book/claims/NN_topic.yml`` states the claims that a chapter examines. Each has one deciding check: a quantity,
evaluated for each stored run; premises that a run must meet to count; a bound, and where it comes from; and the date on
which the bound was registered. The verdict follows from the 95 % interval over independent runs (``judging``). Nothing
here or there says what the outcome is; the outcome that the book shows lies in ``book/claims.json``, and a test fails
while it is not the one computed. CONTRIBUTING.md says how to add a claim.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from string import Template
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy
import yaml

from .._files import replacing
from ..curvature.outliers import count_outliers
from . import judging, numbers
from .closure import Experiment, experiments, present, tree
from .parameters import ParameterError
from .paths import ROOT
from .store import published_labels, published_result, stale

LEDGER = ROOT / "book" / "claims"
PAPER = ROOT / "book" / "paper.yml"
ACKNOWLEDGED = ROOT / "book" / "claims.json"
MEASURED = {"results", "where", "each", "by", "group", "independent", "with", "of", "scale", "format", "quantity"}
JUDGED = {"bound", "same", "different", "to", "why", "premise", "registered", "explains", "context", "before"}
SAID = {"id", "section", "paper", "statement", "part", "setting", "later", "chapter", "of_statement"}
CLAIM = MEASURED | JUDGED | SAID
NEEDED = ("id", "section", "paper", "statement", "quantity", "results", "registered")
Run = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


# ---------------------------------------------------------------- stored runs and their numbers


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
def stored(name: str) -> list[Run]:
    """Parameters, arrays and label of every published run of an experiment that is not stale, by parameters."""
    labels = [label for label in published_labels(name) if not stale(label, made()[1].get(name, ""))]
    found = [(label["parameters"], published_result(label), label) for label in labels]
    return sorted((run for run in found if run[1] is not None), key=lambda run: json.dumps(run[0], sort_keys=True))


def matches(value: Any, wanted: Any) -> bool:
    """Whether a parameter is the one wanted, or one of those wanted."""
    return value == wanted or (isinstance(wanted, list) and not isinstance(value, list) and value in wanted)


def runs_of(name: str, where: dict[str, Any]) -> list[Run]:
    """The stored runs of an experiment with the parameters wanted."""
    return [r for r in stored(name) if all(k in r[0] and matches(r[0][k], w) for k, w in where.items())]


@cache
def _paper() -> dict[str, Any]:
    return yaml.safe_load(PAPER.read_text(encoding="utf-8"))


def paper(name: str, **where: Any) -> Any:
    """An entry of ``book/paper.yml``, the paper's own numbers; of a table, the row that matches."""
    entry = _paper()[name]
    rows = [row for row in entry if where.items() <= row.items()] if where else [entry]
    if len(rows) != 1:
        raise ParameterError(f"paper.yml: {len(rows)} rows of {name} match {where}")
    return SimpleNamespace(**rows[0]) if isinstance(rows[0], dict) else rows[0]


NAMES = {**vars(np), "scipy": scipy, "count_outliers": count_outliers, "paper": paper, "__builtins__": {}}


def value(expression: str, local: dict[str, Any], place: str) -> Any:
    """An expression over the arrays and parameters of a run, and the functions of numpy."""
    try:
        return eval(expression, {**NAMES, **local})
    except Exception as error:
        raise ParameterError(f"{place}: {expression!r} cannot be evaluated: {error!r}") from error


class Measure:
    """One number for each independent run: its spread, where it came from, and how many runs failed a premise."""

    def __init__(self, values: Any, runs: list[Run], asked: int = 0, left_out: int = 0) -> None:
        self.values, self.made = np.asarray(values, dtype=float), [made for _, _, made in runs]
        self.count, self.asked, self.left_out = len(self.values), asked or len(self.values), left_out
        self.seeds = len({q.get("seed") for q, _, _ in runs})
        some = self.values if self.count else np.array([np.nan])
        self.mean, self.median = float(some.mean()), float(np.median(some))
        self.std = float(some.std(ddof=1)) if self.count > 1 else 0.0
        self.low, self.high = float(some.min()), float(some.max())

    def record(self) -> dict[str, float]:
        """The numbers, to seven digits."""
        keys = ("mean", "std", "low", "high", "median", "count", "seeds")
        return {key: seven(getattr(self, key)) for key in keys}


def seven(number: float) -> float:
    """A number to seven digits: the next ones depend on the machine."""
    return float(f"{number:.7g}")


def meets(premise: dict[str, Any], local: dict[str, Any], place: str) -> bool:
    """Whether a run meets a premise of a claim."""
    found = value(premise["each"], local, place)
    if "bound" not in premise:
        return bool(found)
    low, high = judging.limits({"id": place, **premise})
    return bool(low <= found <= high)


def listed(entry: Any) -> list[Any]:
    """One or several entries as a list."""
    return entry if isinstance(entry, list) else [entry] if entry else []


def beside(spec: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The runs of other experiments that belong to a run, by the names of ``with``; None if one is missing."""
    found = {}
    for name, other in spec.get("with", {}).items():
        where = other.get("where", {}) | {k: parameters[k] for k in other["shared"]}
        runs = runs_of(other["results"], where)
        if len(runs) != 1:
            return None
        found[name] = SimpleNamespace(**{**runs[0][0], **runs[0][1]})
    return found


def measure(spec: dict[str, Any], each_run: bool = False) -> Measure | None:
    """The numbers of a claim, a context or a number over its stored runs; None if there are no such runs.

    Args:
        spec: ``results``, ``where``, ``each`` and the rest, as CONTRIBUTING.md describes them.
        each_run: without ``group``, every run counts for itself; otherwise runs of one seed are averaged first.
    """
    place = f"{spec.get('id', spec.get('quantity'))!r} on {spec['results']}"
    runs = [(r, other) for r in runs_of(spec["results"], spec.get("where", {}))
            if (other := beside(spec, r[0])) is not None]  # fmt: skip
    if not runs:
        return None
    if "each" not in spec:
        raise ParameterError(f"{place}: the results are stored now, so give each")
    key = lambda r: json.dumps([r[0].get(name) for name in spec.get("independent", ["seed"])])
    sizes: dict[str, int] = {}
    groups: dict[str, list[tuple[Any, Any]]] = {}
    kept, premises = [], listed(spec.get("premise"))
    for run, other in runs:
        sizes[key(run)] = sizes.get(key(run), 0) + 1
        local = {**run[0], **run[1], **other}
        if all(meets(premise, local, place) for premise in premises):
            kept.append(run)
            groups.setdefault(key(run), []).append((run[0].get(spec.get("by")), value(spec["each"], local, place)))
    left_out, full = len(runs) - len(kept), max(sizes.values())
    if "group" in spec:
        groups = {k: sorted(g, key=lambda pair: pair[0]) if "by" in spec else g for k, g in groups.items()}
        group = lambda found: value(spec["group"], {"v": np.array([v for _, v in found])}, place)
        values = [group(g) for _, g in sorted(groups.items()) if len(g) == full]
        asked = sum(size == full for size in sizes.values())
    elif each_run:
        values, asked = [v for g in groups.values() for _, v in g], len(runs)
    else:
        values, asked = [average([v for _, v in g], spec, place) for _, g in sorted(groups.items())], len(sizes)
    if not all(np.ndim(v) == 0 and np.isfinite(v) for v in values):
        raise ParameterError(f"{place}: each and group give one finite number for each run; a premise leaves runs out")
    if spec.get("of", "mean") == "mean" and not each_run and any(isinstance(v, bool | np.bool_) for v in values):
        raise ParameterError(f"{place}: truth values: give of: share")
    return Measure(values, kept, asked, left_out)


def average(values: list[Any], spec: dict[str, Any], place: str) -> Any:
    """One value for several runs of one seed."""
    if len(values) == 1:
        return values[0]
    if any(isinstance(v, bool | np.bool_) for v in values):
        raise ParameterError(f"{place}: several runs of one seed: give group, such as all(v)")
    return np.exp(np.mean(np.log(values))) if spec.get("scale") == "log" else np.mean(values)


# ---------------------------------------------------------------- the ledger


def expand(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries that one with ``rows`` (with $name replaced) or with ``parts`` stands for."""
    rows = entry.get("rows")
    if rows is not None:
        text = yaml.safe_dump({k: v for k, v in entry.items() if k != "rows"}, allow_unicode=True, width=10_000)
        return [one for row in rows for one in expand(yaml.safe_load(Template(text).safe_substitute(row)))]
    if "parts" not in entry:
        return [entry]
    whole = {k: v for k, v in entry.items() if k != "parts"}
    found = []
    for part in entry["parts"]:
        where = {**whole.get("where", {}), **part.get("where", {})}
        base = {k: v for k, v in whole.items() if not (k in judged_by(whole) and judged_by(part))}
        one = {**base, **part, "id": f"{entry['id']}-{part['id']}", "of_statement": entry["id"]}
        found.append({**one, "where": where} if where else one)
    return found


def judged_by(entry: dict[str, Any]) -> set[str]:
    """Which of the keys that say where the quantity must lie an entry has."""
    return entry.keys() & {"bound", "same", "different"}


def checked(claim: dict[str, Any], file: str) -> dict[str, Any]:
    """A claim, if it is well formed."""
    place = f"{file}, {claim.get('id', '?')}"
    missing, unknown = [k for k in NEEDED if k not in claim], sorted(claim.keys() - CLAIM)
    if missing or unknown:
        raise ParameterError(f"{place}: give {', '.join(missing) or 'nothing else'}; unknown: {', '.join(unknown)}")
    if len(judged_by(claim)) != 1 or ("bound" in claim and "why" not in claim):
        raise ParameterError(f"{place}: give one of same, different and bound, and with bound say why")
    if claim.get("of", "mean") not in judging.STATISTICS or claim.get("scale", "log") not in ("log", "linear", "share"):
        raise ParameterError(f"{place}: of is one of {', '.join(judging.STATISTICS)}, scale log, linear or share")
    names = {claim[k] for k in ("same", "different") if k in claim}
    if names - judging.same().keys():
        raise ParameterError(f"{place}: {names} is not in same.yml")
    judging.limits(claim)
    return claim


def files() -> list[Path]:
    """The files of the ledger, by name."""
    return [path for path in sorted(LEDGER.glob("*.yml")) if path != judging.SAME]


@cache
def ledger() -> dict[str, list[dict[str, Any]]]:
    """``claims`` and ``numbers`` of the ledger. Raises ``ParameterError`` where it is not well formed."""
    book: dict[str, list[dict[str, Any]]] = {"claims": [], "numbers": []}
    for path in files():
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ParameterError(f"{path.name}: {error}") from error
        common = {"chapter": path.stem, **({"registered": found["registered"]} if "registered" in found else {})}
        for claim in (one for entry in found.get("claims", ()) for one in expand(entry)):
            book["claims"].append(checked({**common, **claim}, path.name))
        book["numbers"] += [one for entry in found.get("numbers", ()) for one in expand(entry)]
    names = [entry["id"] for part in ("claims", "numbers") for entry in book[part]]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise ParameterError(f"the ledger has {', '.join(sorted(twice))} more than once")
    return book


# ---------------------------------------------------------------- verdicts


def judged(claim: dict[str, Any], found: Measure | None) -> tuple[str, float | None, judging.Interval | None]:
    """Verdict, deciding number and interval of a claim."""
    if found is None:
        return judging.NOT_RUN, None, None
    if not found.count:
        return judging.UNMET, None, None
    try:
        number, interval = judging.estimate(found.values, claim.get("of", "mean"), claim.get("scale", "linear"))
    except ParameterError as error:
        raise ParameterError(f"{claim['id']}: {error}") from error
    if interval is None:
        unmet = found.left_out and found.asked >= judging.ENOUGH
        return judging.UNMET if unmet else judging.ONE_RUN, number, None
    return judging.judge(interval, *judging.limits(claim)), number, interval


def context(claim: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The other numbers of a claim, which decide nothing: name and record."""
    inherited = {k: claim[k] for k in ("results", "where", "each", "independent", "with") if k in claim}
    for entry in (one for e in claim.get("context", ()) for one in expand(e)):
        same = entry.get("results", claim["results"]) == claim["results"]
        found = measure({"id": claim["id"], **(inherited if same else {}), **entry})
        text = "not run"
        if found and found.count:
            number, interval = judging.estimate(found.values, entry.get("of", "mean"), entry.get("scale", "linear"))
            text = numbers.measurement(number, interval, entry.get("format", ""), entry.get("of") == "share")
        record = {**found.record(), "mean": seven(number)} if found and found.count else None  # as it is shown
        yield entry.get("name", ""), {"quantity": entry["quantity"], "measured": text, "numbers": record}


def explained(claim: dict[str, Any], verdict: str, names: dict[str, Any]) -> str:
    """What the ledger says of a verdict, with the numbers that its text quotes."""
    text = claim.get("explains", "")
    text = text.get(verdict, "") if isinstance(text, dict) else text if verdict != judging.HOLDS else ""
    try:
        return numbers.prose(text.format(**names))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        if verdict in (judging.NOT_RUN, judging.UNMET):
            return ""
        raise ParameterError(f"{claim['id']}: explains: {error!r}") from error


def quotable(outcome: dict[str, Any]) -> SimpleNamespace:
    """The numbers of a claim as ``explains`` may quote them."""
    interval = outcome["interval"] or (np.nan, np.nan)
    spread = outcome["numbers"] or {}
    mean = {"mean": outcome["value"]} if outcome["value"] is not None else {}
    return SimpleNamespace(**{**spread, "sd": spread.get("std"), "lower": interval[0], "upper": interval[1], **mean})


def evaluate(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim with its verdict and all that a reader or a program needs to trace it, but for ``explains``."""
    found = measure(claim)
    verdict, number, interval = judged(claim, found)
    low, high = judging.limits(claim)
    there, percent = found is not None and found.count > 0, claim.get("of") == "share"
    text = numbers.measurement(number, interval, claim.get("format", ""), percent) if number is not None else ""
    labels = found.made if found else []
    join = lambda key: ", ".join(sorted({label[key] for label in labels}))
    finite = lambda v: None if not np.isfinite(v) else seven(v)
    return {
        "id": claim["id"], "chapter": claim["chapter"], "section": str(claim["section"]),
        "paper": str(claim["paper"]),
        "statement": numbers.prose(claim["statement"]), "part": str(claim.get("part", "")),
        "of_statement": claim.get("of_statement", ""), "setting": claim.get("setting", ""),
        "later": bool(claim.get("later", False)),
        "quantity": numbers.prose(claim["quantity"]), "statistic": claim.get("of", "mean"),
        "scale": claim.get("scale", "linear"), "results": claim["results"], "where": claim.get("where", {}),
        "expression": expression(claim), "premises": [p["text"] for p in listed(claim.get("premise"))],
        "bound": judging.demand(low, high, percent), "limits": [finite(low), finite(high)],
        "same": claim.get("same", claim.get("different", "")), "why": numbers.prose(judging.reason(claim)),
        "registered": str(claim["registered"]),
        "before": [{k: numbers.prose(str(v)) for k, v in old.items()} for old in claim.get("before", [])],
        "value": None if number is None else seven(number), "interval": interval and [finite(v) for v in interval],
        "measured": text, "numbers": found.record() if found and there else None,
        "runs": found.count if found else 0, "stored": len(labels), "left_out": found.left_out if found else 0,
        "verdict": verdict, "source": origin(claim["results"]), "date": join("date"), "device": numbers.devices(labels),
    }  # fmt: skip


def expression(claim: dict[str, Any]) -> str:
    """What is evaluated, as text."""
    over = f"over {claim['by']}: " if "by" in claim else ""
    group = f"; {over}{claim['group']}" if "group" in claim else ""
    return " ".join(f"{claim.get('each', 'not run')}{group}".split())


def report() -> dict[str, Any]:
    """Every verdict and every number of the prose, computed now from the stored results."""
    book = ledger()
    numbers = {number["id"]: measure(number, each_run=True) for number in book["numbers"]}
    outcomes = {claim["id"]: evaluate(claim) for claim in book["claims"]}
    names: dict[str, Any] = {**numbers, **{name: quotable(outcome) for name, outcome in outcomes.items()}}
    for claim in book["claims"]:
        outcome = outcomes[claim["id"]]
        beside = list(context(claim))
        here = {name: SimpleNamespace(**record["numbers"]) for name, record in beside if name and record["numbers"]}
        outcome["context"] = [record for _, record in beside]
        outcome["explains"] = explained(claim, outcome["verdict"], {**names, "value": names[claim["id"]], **here})
    return {"claims": list(outcomes.values()), "numbers": {name: m and m.record() for name, m in numbers.items()}}


# ---------------------------------------------------------------- what the book shows


def acknowledged() -> dict[str, Any]:
    """The verdicts and numbers that the book shows."""
    return json.loads(ACKNOWLEDGED.read_text(encoding="utf-8"))


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
    """Make the verdicts of now those that the book shows, in the ledger and in the executed notebooks."""
    with replacing(ACKNOWLEDGED, "w") as file:
        file.write(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        text = path.read_text(encoding="utf-8")
        renewed = with_verdicts(text, now["claims"])
        if renewed != text:
            with replacing(path, "w") as file:
                file.write(renewed)


def with_verdicts(text: str, claims: list[dict[str, Any]]) -> str:
    """An executed notebook with its tables of verdicts as they are now."""
    notebook, changed = json.loads(text), False
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            chapter = output.get("metadata", {}).get("hesslib", {}).get("verdicts")
            if chapter:
                lines = markdown(claims, chapter).splitlines(keepends=True)
                changed |= output["data"]["text/markdown"] != lines
                output["data"]["text/markdown"] = lines
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n" if changed else text


def markdown(claims: list[dict[str, Any]], chapter: str) -> str:
    """The claims of a chapter as a table: what was measured, what was asked, the verdict."""
    lines = ["| Claim | Measured, with 95 % interval | Asked | Verdict |", "|:--|:--|:--|:--|"]
    cell = lambda text: " ".join(text.split()).replace("|", "\\|")
    for claim in (c for c in claims if c["chapter"] == chapter):
        part = f" *{claim['part']}*" if claim["part"] else ""
        runs = f", {claim['runs']} run{'s' * (claim['runs'] != 1)}" if claim["runs"] else ""
        measured = f"{claim['measured']}{runs}" if claim["measured"] else ""
        row = (f"{claim['statement']}{part}", f"{claim['quantity']}: {measured}" if measured else claim["quantity"])
        lines.append(f"| {' | '.join(map(cell, (*row, claim['bound'], '**' + claim['verdict'] + '**')))} |")
    told = "Means of ratios are geometric. After ± in the text stands the standard deviation over runs, if nothing "
    told += "else is said. [The ledger](../book/claims.md) says how each bound was chosen, and when."
    return "\n".join([*lines, "", told]) + "\n"


def verdicts(chapter: str) -> None:
    """Show the claims of a chapter with their verdicts, as a table in Markdown.

    They are read from ``book/claims.json`` and not computed: they rest on the stored runs alone, whatever the
    parameters of the notebook, so every door shows what the ledger shows; a test holds the file against the results.

    Args:
        chapter: such as ``"04_size"``.
    """
    from IPython.display import display

    data = {"text/markdown": markdown(acknowledged()["claims"], chapter)}
    display(data, raw=True, metadata={"hesslib": {"verdicts": chapter}})


def listing(claims: list[dict[str, Any]]) -> str:
    """The verdicts as a text table, and their counts."""
    lines = [f"{'claim':<34} {'verdict':<16} {'measured (95 % interval)':<32} {'asked':<20} {'runs':>4} registered"]
    for c in claims:
        texts = f"{c['id']:<34} {c['verdict']:<16} {c['measured']:<32} {c['bound']:<20}"
        lines.append(f"{texts} {c['runs'] or '':>4} {c['registered']}")
    found = [c["verdict"] for c in claims]
    counts = [f"{v}: {found.count(v)}" for v in judging.VERDICTS if v in found]
    return "\n".join([*lines, f"{len(claims)} verdicts; " + ", ".join(counts)])
