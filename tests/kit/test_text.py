"""Words with their numbers: one rule of writing, nothing said of what was not run, and the same for every reader."""

import math

import numpy as np
import pytest
from scipy import stats

from hesslib.book import text
from hesslib.book.numbers import typeset, written
from hesslib.book.parameters import integer, resolve
from hesslib.book.text import Estimate, check, fill, learnt, say, this_run


@pytest.fixture
def shown(monkeypatch):
    """What is shown, as (text, metadata)."""
    found = []
    monkeypatch.setattr(text, "show", lambda words, **metadata: found.append((words, metadata)))
    return found


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        (0.000672, ".1e", r"$6.7\times10^{-4}$"),
        (-0.5, ".2f", "−0.50"),
        (-0.0001, ".2f", "0.00"),
        (1234567, "", "1,234,567"),
        (np.float64(93.52), ".1f", "93.5"),
        (np.int64(7), "", "7"),
        (0.94, ".0%", "94 %"),
        (2.5, "+.1f", "+2.5"),
        (-3e-9, ".2g", r"$-3\times10^{-9}$"),
        (12345.678, ".3g", r"$1.23\times10^{4}$"),
        (math.inf, "", "∞"),
        (math.nan, ".2f", "not run"),
        (True, "", "True"),
        ("a word", "", "a word"),
        (Estimate([0.9, 0.96, 0.93]), ".2f", "0.93 ± 0.03"),
        (Estimate([1e-4, 3e-4]), ".0e", r"(2.0 ± 1.4)$\times10^{-4}$"),
        (Estimate([-1.0]), ".1f", "−1.0"),
        (Estimate([3.3, 3.5]), ".2g", "3.40 ± 0.14"),
        (Estimate([1131, 1199]), ".3g", "1,165 ± 48"),
        (Estimate([2.3e-4, 2.8e-4]), ".2g", r"(2.55 ± 0.35)$\times10^{-4}$"),
        (Estimate([0.5, 0.5]), ".2g", "0.5"),
        (Estimate([0.1] * 3), "", "0.1"),
        (Estimate([0.65, 0.6502]), ".2f", "0.6501 ± 0.0001"),
        (Estimate([9, 9, 9, 9, 8]), ".0f", "8.8 ± 0.4"),
        (Estimate([2.5, 2.51]), "+.1f", "+2.505 ± 0.007"),
        (Estimate([9, 9]), ".1f", "9"),
        (Estimate([-1, -1]), "+.1f", "−1.0"),
        (Estimate([1, 1]), ".0%", "100 %"),
        (Estimate([0.5, 0.7]), "+.1f", "+0.6 ± 0.1"),
        (Estimate([]), ".1f", "not run"),
    ],
)
def test_numbers_are_written_by_one_rule(value, spec, expected):
    assert written(value, spec) == expected


def test_words_with_digits_in_them_are_left_alone():
    assert typeset("e-mail to v1.2e") == "e-mail to v1.2e"


def test_an_estimate_is_mean_spread_and_interval():
    values = [0.2, 0.5, 0.4, 0.9]
    e = Estimate(values)
    assert (e.mean, e.median, e.low, e.high, e.count) == (0.5, 0.45, 0.2, 0.9, 4) and e
    assert e.sd == pytest.approx(np.std(values, ddof=1))
    assert e.interval == pytest.approx(stats.t.interval(0.95, 3, 0.5, stats.sem(values)))
    assert Estimate([2]).interval == (-math.inf, math.inf) and not Estimate([]) and math.isnan(Estimate().mean)


def test_braces_of_tex_are_not_fields():
    said = fill(r"$\frac{N}{M}$ of $\lambda_{k}$, $k = {k}$, $10^{-3}$, and $h = {h:.1e}$", k=-3, h=1e-4)
    assert said == r"$\frac{N}{M}$ of $\lambda_{k}$, $k = -3$, $10^{-3}$, and $h = 1.0\times10^{-4}$"


def test_a_name_without_a_value_or_a_value_without_a_name_is_refused():
    with pytest.raises(ValueError, match="top: in the text, but not given"):
        fill("the largest is {top}")
    with pytest.raises(ValueError, match="low: given, but not in the text"):
        say("nothing", low=1)


def test_a_paragraph_without_its_numbers_is_left_out_and_said_to_be(shown):
    say(
        """The largest of {M:,} is {top:.2f}.

        Over seeds it is {seeds:.1f}, and {share:.2f}.

        A last word.""",
        M=5000,
        top=np.float32(2.25),
        seeds=Estimate([], of="spectrum"),
        share=None,
    )
    (words, metadata) = shown[0]
    assert words.split("\n\n") == [
        "The largest of 5,000 is 2.25.",
        "A last word.",
        "*A paragraph is left out: what it needs of spectrum, `share` is not computed, or not defined.*",
    ]
    assert metadata["numbers"] == {"M": 5000, "top": 2.25}


def test_a_check_prints_its_verdict(capsys):
    check("error below 1e-10", 1e-12, below=1e-10)
    check("it is so", np.bool_(True))
    check("error below 1e-10", math.nan, below=1e-10)
    check("above", 2, above=3, otherwise="no")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["error below 1e-10: pass", "it is so: pass", "error below 1e-10: FAIL (nan)", "above: no (2)"]


def test_a_network_has_learnt_below_a_tenth_of_a_guess():
    assert learnt(0.2, 10) and not learnt(2.3, 10) and not learnt(0.24, 10) and not learnt(math.nan, 10)


TOUR = {"hidden": 20, "examples": 60, "iterations": 0, "seed": 0}


def resolved(**others):
    ranges = {n: integer(0) for n in TOUR} | {"iterations": integer(1, smoke=100, quick=3000, paper=3000)}
    return resolve({"scale": "smoke", **TOUR, **others}, **ranges)


def test_the_box_names_what_differs_from_the_standard_run(shown):
    this_run(resolved())
    this_run(resolved(iterations=100))
    assert not shown
    this_run(resolved(iterations=30, seed=4))
    words, _ = shown[0]
    assert "`iterations = 30` (standard: `100`), `seed = 4` (standard: `0`)" in words and "hidden" not in words
