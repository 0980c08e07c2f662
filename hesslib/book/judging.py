"""How a claim is judged: a statistic of independent runs, its 95 % interval, and the verdict that the interval gives.

The interval of a mean is Student's t over independent runs (of the logarithms for ratios, so that a factor up and a
factor down weigh the same; cut at 0 and 1 for shares). That of a share of runs is Clopper and Pearson's, that of a
median the sign test's. The last two assume no distribution; the first assumes that means of few runs are near normal.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import scipy  # loads scipy.stats, which takes half a second, where it is first used
import yaml

from .numbers import rounding, written
from .parameters import ParameterError
from .paths import ROOT

SAME = ROOT / "book" / "claims" / "same.yml"
HOLDS, FAILS, UNDECIDED, ONE_RUN = "holds", "does not hold", "undecided", "one run"
UNMET, NOT_RUN = "premise not met", "not run"
VERDICTS = (HOLDS, FAILS, UNDECIDED, ONE_RUN, UNMET, NOT_RUN)
ENOUGH = 3  # independent runs; fewer decide nothing
LEVEL = 0.95
BOUNDS = ("at_least", "at_most", "within")
STATISTICS = ("mean", "share", "median")
Interval = tuple[float, float]


def mean_interval(values: np.ndarray) -> Interval:
    """The 95 % interval of a mean, Student's t."""
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def share_interval(values: np.ndarray) -> Interval:
    """The 95 % interval of the share of true values, Clopper and Pearson's."""
    found = scipy.stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, "exact")
    return float(found.low), float(found.high)


def median_interval(values: np.ndarray) -> Interval:
    """The 95 % interval of a median by the sign test: order statistics; unbounded for fewer than six values."""
    cut = int(scipy.stats.binom.ppf((1 - LEVEL) / 2, len(values), 0.5))
    if not cut:
        return -math.inf, math.inf
    ordered = np.sort(values)
    return float(ordered[cut - 1]), float(ordered[-cut])


def estimate(values: np.ndarray, of: str = "mean", scale: str = "linear") -> tuple[float, Interval | None]:
    """The statistic of one number for each independent run, and its interval; None for fewer than three runs."""
    values, few = np.asarray(values, dtype=float), len(values) < ENOUGH
    if of == "share":
        return float(values.mean()), None if few else share_interval(values)
    if of == "median":
        return float(np.median(values)), None if few else median_interval(values)
    if scale == "log":
        if not (values > 0).all():
            raise ParameterError("scale: log needs positive values")
        value, interval = estimate(np.log(values))
        return math.exp(value), interval and (math.exp(interval[0]), math.exp(interval[1]))
    cut = (0.0, 1.0) if scale == "share" else (-math.inf, math.inf)
    return float(values.mean()), None if few else tuple(np.clip(mean_interval(values), *cut).tolist())


def judge(interval: Interval, low: float, high: float) -> str:
    """The verdict: the interval lies wholly within the bounds, wholly beyond one of them, or on both sides."""
    if low <= interval[0] and interval[1] <= high:
        return HOLDS
    return FAILS if interval[1] < low or interval[0] > high else UNDECIDED


@cache
def same() -> dict[str, dict[str, Any]]:
    """What 'the same' means for sizes, losses, curves, shares and counts."""
    return yaml.safe_load(SAME.read_text(encoding="utf-8"))


def limits(entry: dict[str, Any]) -> Interval:
    """Where the statistic must lie for the entry's claim to hold."""
    if "bound" in entry:
        kind, value = next(iter(entry["bound"].items()))
        if kind not in BOUNDS or len(entry["bound"]) > 1:
            raise ParameterError(f"{entry['id']}: bound is one of {', '.join(BOUNDS)}")
        low, high = value if kind == "within" else (value, value)
        return (-math.inf if kind == "at_most" else float(low)), (math.inf if kind == "at_least" else float(high))
    rule = same()[entry["same" if "same" in entry else "different"]]
    if "factor" in rule:
        to = float(entry.get("to", 1))
        low, high = to / rule["factor"], to * rule["factor"]
    else:
        to = float(entry.get("to", 0))
        low, high = to - rule["difference"], to + rule["difference"]
    return (low, high) if "same" in entry else (high, math.inf)


def reason(entry: dict[str, Any]) -> str:
    """Where the bound comes from, in words."""
    if "why" in entry:
        return entry["why"]
    if "same" in entry:
        words = same()[entry["same"]]["words"]
        return f"{words[0].upper()}{words[1:]}."
    return f"Less than that would still be the same: {same()[entry['different']]['words']}."


def demand(low: float, high: float, percent: bool = False) -> str:
    """Where the statistic must lie, in words."""
    unit, times = (" %", 100) if percent else ("", 1)
    plain = lambda v: not v or 1e-3 <= abs(v) < 1e3
    text = lambda v: written(float(v), ".3g" if plain(v) else rounding(v), tex=False)
    low, high = times * low, times * high
    if math.isinf(high):
        return f"at least {text(low)}{unit}"
    if math.isinf(low):
        return f"at most {text(high)}{unit}"
    return f"{text(low)} to {text(high)}{unit}"
