import numpy as np
import pytest

from hesslib import count_outliers

TWO = np.array([10.0, 9.0, 0.1, 0.09, 0.08, 0.07, 0.0, -0.2])


@pytest.mark.parametrize("rule", ["gap", "ratio", "elbow"])
def test_two_clear_outliers_are_two_by_every_rule(rule):
    assert count_outliers(TWO, rule) == 2
    assert count_outliers(np.random.default_rng(0).permutation(TWO) * 1e-5, rule) == 2


def test_rules_differ_where_they_should():
    values = [100.0, 20.0, 10.0, 0.5, 0.4]
    assert count_outliers(values, "gap") == 1 and count_outliers(values, "ratio") == 3


def test_ratio_does_not_look_below_its_cutoff():
    values = [10.0, 9.0, 1.0, 0.9, 1e-9, 1e-15]
    assert count_outliers(values, "ratio") == 2
    assert count_outliers(values, "ratio", cutoff=1e-12) == 4


def test_threshold_counts_what_is_above():
    assert count_outliers(TWO, "threshold", cutoff=0.085) == 4
    with pytest.raises(ValueError, match="needs one"):
        count_outliers(TWO, "threshold")


@pytest.mark.parametrize(
    ("values", "rule", "message"),
    [
        (TWO, "knee", "rule='knee'"),
        ([-1.0, -2.0], "gap", "positive"),
        ([1.0], "gap", "two"),
        ([[1.0, 2.0]], "gap", r"got shape \(1, 2\)"),
        ([1.0, np.nan], "ratio", "NaN"),
    ],
)
def test_bad_input_is_refused(values, rule, message):
    with pytest.raises(ValueError, match=message):
        count_outliers(values, rule)


@pytest.mark.parametrize(("rule", "cutoff"), [("threshold", np.nan), ("elbow", -5.0), ("ratio", 0.0)])
def test_a_wrong_cutoff_is_refused(rule, cutoff):
    with pytest.raises(ValueError, match="cutoff="):
        count_outliers(TWO, rule, cutoff)


def test_a_negative_eigenvalue_is_no_gap_of_the_large_ones():
    assert count_outliers([3.0, 2.9, 0.1, 0.0, 0.0, -10.0], "gap") == 2


def test_a_plot_above_its_chord_has_no_elbow():
    assert count_outliers([10.0, 9.9, 9.8, 9.7, 1e-3], "elbow") == 0
