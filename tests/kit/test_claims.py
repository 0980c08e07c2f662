"""The ledger agrees with the stored results, its verdicts with the rules, and the prose with the ledger."""

import copy
import json
import re

import numpy as np
import pytest
from scipy import stats

from hesslib import cli
from hesslib.book import claims, judging, numbers
from hesslib.book.parameters import ParameterError
from hesslib.book.paths import ROOT

BOOK = claims.ledger()
CHAPTERS = [p.stem for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.py")]


@pytest.fixture(scope="module")
def now():
    return claims.report()


def test_every_verdict_and_number_is_the_acknowledged_one(now):
    changed = claims.differences(now, claims.acknowledged())
    hint = "if the change is meant, run python -m hesslib claims --acknowledge and commit book/claims.json with it"
    assert not changed, "\n".join([*changed, hint])


def test_a_changed_verdict_or_number_is_noticed(now):
    shown = copy.deepcopy(now)
    shown["claims"][3]["verdict"] = "perhaps"
    shown["claims"][0]["value"] *= 1 + 1e-5
    found = [line.split(":")[0] for line in claims.differences(now, shown)]
    assert sorted(found) == sorted(
        [f"claims.{now['claims'][0]['id']}.value", f"claims.{now['claims'][3]['id']}.verdict"]
    )


def test_each_claim_is_traceable(now):
    for claim in now["claims"]:
        assert claim["verdict"] in judging.VERDICTS and claim["chapter"] in CHAPTERS
        said = ("id", "section", "statement", "paper", "quantity", "bound", "why", "registered")
        assert all(claim[key] for key in said)
        assert claim["registered"] == "known" or re.fullmatch(r"20\d\d-\d\d-\d\d", claim["registered"]), claim["id"]
        if claim["stored"]:
            assert claim["date"] and claim["device"] and claim["source"], claim["id"]


def test_no_verdict_rests_on_fewer_than_three_independent_runs(now):
    for claim in now["claims"]:
        if claim["verdict"] in (judging.HOLDS, judging.FAILS, judging.UNDECIDED):
            assert claim["runs"] >= 3 and claim["interval"], claim["id"]


def test_each_verdict_follows_from_its_interval(now):
    for claim in now["claims"]:
        if claim["interval"]:
            low, high = (v if v is not None else sign * np.inf for v, sign in zip(claim["limits"], (-1, 1)))
            a, b = claim["interval"]
            inside, beyond = low <= a and b <= high, b < low or a > high
            wanted = judging.HOLDS if inside else judging.FAILS if beyond else judging.UNDECIDED
            assert claim["verdict"] == wanted, claim["id"]


# ---------------------------------------------------------------- statistics


def test_the_interval_of_a_mean_is_students():
    values = np.array([0.3, 1.2, 0.9, 2.0, 1.4])
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert np.allclose(judging.mean_interval(values), (wanted.low, wanted.high), rtol=1e-12)
    value, interval = judging.estimate(values, scale="log")
    wanted = stats.ttest_1samp(np.log(values), 0).confidence_interval(0.95)
    assert np.allclose(interval, np.exp([wanted.low, wanted.high])) and np.isclose(value, stats.gmean(values))
    shares = np.array([0.5, 1.0, 1.0, 1.0])
    (low, high), plain = judging.estimate(shares, scale="share")[1], judging.mean_interval(shares)
    assert low == plain[0] and high == 1 < plain[1]


def test_the_reason_of_a_difference_agrees_with_its_bound():
    entry = {"id": "one", "different": "size"}
    assert judging.demand(*judging.limits(entry)).startswith("at least")
    assert judging.reason(entry).startswith("Less than that would still be the same")


def test_the_interval_of_a_claim_is_students_over_its_runs():
    """From the stored runs by hand: one number a seed, scipy's interval."""
    spec = {"id": "x", "results": "width", "each": "eigenvalues[-1]", "by": "width", "group": "max(v) / min(v)"}
    seeds = {}
    for q, r, _ in claims.stored("width"):
        seeds.setdefault(q["seed"], []).append(r["eigenvalues"][-1])
    by_hand = [max(v) / min(v) for v in seeds.values()]
    wanted = stats.ttest_1samp(by_hand, 0).confidence_interval(0.95)
    assert np.allclose(judging.estimate(claims.measure(spec).values)[1], (wanted.low, wanted.high))


def test_intervals_of_shares_and_medians():
    assert judging.share_interval(np.ones(5)) == pytest.approx((0.025**0.2, 1))
    low, high = judging.share_interval(np.array([1] * 7 + [0] * 3))
    assert (low, high) == pytest.approx((stats.beta.ppf(0.025, 7, 4), stats.beta.ppf(0.975, 8, 3)))
    assert judging.median_interval(np.arange(5)) == (-np.inf, np.inf)
    assert judging.median_interval(np.arange(6)) == (0, 5)
    assert judging.median_interval(np.arange(20)) == (5, 14)


def test_intervals_hold_what_they_promise():
    """Drawn many times, each contains the truth in about 95 of 100."""
    rng = np.random.default_rng(0)
    mean = np.mean([a <= 0 <= b for a, b in map(judging.mean_interval, rng.standard_normal((1000, 5)))])
    median = np.mean([a <= 0 <= b for a, b in map(judging.median_interval, rng.standard_t(2, (1000, 20)))])
    assert abs(mean - 0.95) < 0.025 and median >= 0.94
    share = 0.0
    for k in range(21):
        low, high = judging.share_interval(np.arange(20) < k)
        share += stats.binom.pmf(k, 20, 0.7) * (low <= 0.7 <= high)
    assert share >= 0.95


def test_two_runs_decide_nothing():
    assert judging.estimate(np.array([1.0, 1.1]))[1] is None
    judged = claims.judged({"id": "x", "bound": {"at_least": 0}}, claims.Measure([1.0, 1.1], []))
    assert judged == ("one run", 1.05, None)


@pytest.mark.parametrize(
    ("interval", "bounds", "verdict"),
    [
        ((1.1, 1.4), (1, np.inf), "holds"),
        ((0.9, 1.4), (1, np.inf), "undecided"),
        ((0.7, 0.9), (1, np.inf), "does not hold"),
        ((0.9, 1.2), (0.8, 1.25), "holds"),
        ((0.7, 1.3), (0.8, 1.25), "undecided"),
        ((1.3, 1.4), (0.8, 1.25), "does not hold"),
    ],
)
def test_the_interval_gives_the_verdict(interval, bounds, verdict):
    assert judging.judge(interval, *bounds) == verdict


def test_the_same_is_one_table():
    limits = lambda **entry: judging.limits({"id": "x", **entry})
    assert limits(same="size") == limits(same="loss") == limits(same="curve") == (0.8, 1.25)
    assert limits(same="share") == pytest.approx((1 / 1.1, 1.1)) and limits(same="count") == (-1, 1)
    assert limits(same="count", to=9) == (8, 10) and limits(same="size", to=100) == (80, 125)
    assert limits(different="size") == (1.25, np.inf)


# ---------------------------------------------------------------- tests of ours on data for which the claim is false


def spectrum(kind, seed):
    """A spectrum of 500 eigenvalues: nine outliers behind a gap, or none at all; with the bulk moved."""
    rng = np.random.default_rng(seed)
    bulk = np.sort(rng.exponential(1e-3, 491))
    if kind == "no gap":
        return np.geomspace(1e-8, 1, 500) * np.exp(0.01 * rng.standard_normal(500))
    if kind == "one outlier":
        return np.sort(np.r_[rng.exponential(0.02, 499), 1.0])
    return np.r_[3 * bulk if kind == "moved" else bulk, np.sort(rng.uniform(0.3, 1, 9))]


def pretend(monkeypatch, runs):
    """Stored results of an experiment 'made_up'; ``runs`` are pairs of parameters and arrays."""
    label = {"date": "2026-11-29", "device": "none"}
    monkeypatch.setattr(claims, "stored", lambda name: [(q, r, label) for q, r in runs if name == "made_up"])


FIXED = {"id": "x", "section": 1, "paper": "p", "statement": "s", "quantity": "q", "registered": "known"}


def outcome(**claim):
    """The verdict of a claim on made-up results."""
    claim = {**FIXED, "chapter": "01", "results": "made_up", **({"why": "w"} if "bound" in claim else {}), **claim}
    return claims.evaluate(claims.checked(claim, "test"))


def test_a_size_that_changes_by_1_3_is_not_the_same(monkeypatch):
    for factor, verdict in ((1.02, "holds"), (1.25, "undecided"), (1.3, "does not hold"), (1 / 1.3, "does not hold")):
        rng = np.random.default_rng(1)
        runs = [
            ({"seed": s, "width": w}, {"top": np.exp(0.004 * rng.standard_normal()) * (factor if w == 70 else 1)})
            for s in range(5)
            for w in (10, 70)
        ]
        pretend(monkeypatch, runs)
        assert outcome(each="top", by="width", group="v[1] / v[0]", scale="log", same="size")["verdict"] == verdict


def test_a_spectrum_without_a_gap_has_no_nine_outliers(monkeypatch):
    """Without a gap the ratio rule counts at random, and a mean of such counts must not pass for nine."""
    for kind, verdict in (("gap", "holds"), ("no gap", "does not hold"), ("one outlier", "does not hold")):
        pretend(monkeypatch, [({"seed": s}, {"top": np.sort(spectrum(kind, s))[-20:]}) for s in range(8)])
        each = "count_outliers(top, 'ratio')"
        assert outcome(each=f"abs({each} - 9)", same="count")["verdict"] == verdict, kind
        assert (outcome(each=each, same="count", to=9)["verdict"] == "holds") == (kind == "gap"), kind
        found = outcome(each=f"abs({each} - 9) <= 1", of="share", bound={"at_least": 0.5})
        assert (found["verdict"] == "holds") == (kind == "gap"), kind
    # a gap that can be seen is a factor of 2
    for kind, verdict in (("gap", "holds"), ("no gap", "does not hold"), ("one outlier", "does not hold")):
        pretend(monkeypatch, [({"seed": s}, {"top": np.sort(spectrum(kind, s))[-20:]}) for s in range(8)])
        assert outcome(each="top[-9] / top[-10]", bound={"at_least": 2}, scale="log")["verdict"] == verdict, kind


def test_a_bulk_that_moves_is_not_the_same(monkeypatch):
    each, group = "quantile(values[:491], arange(0.1, 0.91, 0.1))", "exp(max(abs(log(v[1] / v[0]))))"
    for kind, verdict in (("gap", "holds"), ("moved", "does not hold")):
        runs = [({"seed": s, "k": k}, {"values": spectrum(kind if k else "gap", s)}) for s in range(5) for k in (0, 1)]
        pretend(monkeypatch, runs)
        assert outcome(each=each, by="k", group=group, same="curve")["verdict"] == verdict, kind


def test_an_exponential_law_is_not_gaussian(monkeypatch):
    """Distance of 1,000 draws of each seed from the normal law of their mean and variance, against its 99.9 % point."""
    each = "scipy.stats.kstest((draws - mean(draws)) / std(draws), 'norm').statistic"
    for law, verdict in (("standard_normal", "holds"), ("exponential", "does not hold")):
        draw = lambda s, law=law: getattr(np.random.default_rng(s), law)(size=1000)
        pretend(monkeypatch, [({"seed": s}, {"draws": draw(s)}) for s in range(5)])
        limit = float(stats.kstwo.ppf(0.999, 1000))
        assert outcome(each=each, bound={"at_most": limit})["verdict"] == verdict
    each = "scipy.stats.skew(draws)"
    for law, verdict in (("standard_normal", "holds"), ("exponential", "does not hold")):
        draw = lambda s, law=law: getattr(np.random.default_rng(s), law)(size=1000)
        pretend(monkeypatch, [({"seed": s}, {"draws": draw(s)}) for s in range(8)])
        assert outcome(each=each, bound={"within": [-0.15, 0.15]})["verdict"] == verdict


def test_a_share_of_runs_that_is_a_coin_is_undecided(monkeypatch):
    pretend(monkeypatch, [({"seed": s}, {"right": s % 2 == 0}) for s in range(20)])
    assert outcome(each="right", of="share", bound={"at_least": 0.5})["verdict"] == "undecided"
    assert outcome(each="right", of="share", bound={"at_least": 0.9})["verdict"] == "does not hold"
    assert outcome(each="right | True", of="share", bound={"at_least": 0.5})["measured"] == "100 % (83 to 100 %)"


# ---------------------------------------------------------------- how runs are taken


def test_runs_that_fail_a_premise_are_left_out_and_counted(monkeypatch):
    loss = lambda s, b: 0.5 if s == 1 and b else 0.01
    both = [(s, b) for s in range(5) for b in (0, 1)]
    runs = [({"seed": s, "batch": b}, {"loss": loss(s, b), "top": 2.0 + s + b}) for s, b in both]
    pretend(monkeypatch, runs)
    premise = {"text": "fitted", "each": "loss", "bound": {"at_most": 0.02}}
    ask = dict(each="top", by="batch", group="v[1] - v[0]", bound={"at_least": 0}, premise=premise)
    found = outcome(**ask)
    assert (found["runs"], found["left_out"], found["verdict"], found["premises"]) == (4, 1, "holds", ["fitted"])
    strict = {**premise, "each": "loss + seed"}
    assert outcome(**{**ask, "premise": strict})["verdict"] == "premise not met"
    assert outcome(**{**ask, "premise": [{"text": "never", "each": "loss < 0"}]})["verdict"] == "premise not met"


def test_runs_of_one_seed_are_one_run(monkeypatch):
    pretend(monkeypatch, [({"seed": s, "k": k}, {"top": 1.0 + s + 0.1 * k}) for s in range(2) for k in range(9)])
    found = outcome(each="top", bound={"at_least": 0})
    assert (found["runs"], found["stored"], found["verdict"]) == (2, 18, "one run")
    assert outcome(each="top", bound={"at_least": 0}, independent=["seed", "k"])["runs"] == 18
    with pytest.raises(ParameterError, match="give group"):
        outcome(each="top > 1", of="share", bound={"at_least": 0.5})
    assert outcome(each="top > 0", of="share", group="all(v)", bound={"at_least": 0.3})["runs"] == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_stop_the_ledger(monkeypatch, bad):
    pretend(monkeypatch, [({"seed": s}, {"top": bad if s == 2 else 1.0}) for s in range(5)])
    with pytest.raises(ParameterError, match="finite number for each run"):
        outcome(each="top", bound={"at_least": 0.5})
    with pytest.raises(ParameterError, match="finite number for each run"):
        outcome(each="array([1.0, 2.0])", bound={"at_least": 0.5})


def test_truth_values_have_no_mean(monkeypatch):
    pretend(monkeypatch, [({"seed": s}, {"top": 1.0}) for s in range(5)])
    with pytest.raises(ParameterError, match="of: share"):
        outcome(each="top > 0", bound={"at_least": 0.5})


def test_parts_have_verdicts_of_their_own():
    whole = {"id": "a", "statement": "s", "where": {"x": 1}, "bound": {"at_least": 1}}
    parts = [{"id": "b", "part": "one", "where": {"k": 2}}, {"id": "c", "same": "size"}]
    parts = claims.expand({**whole, "parts": parts})
    assert [p["id"] for p in parts] == ["a-b", "a-c"] and all(p["of_statement"] == "a" for p in parts)
    assert parts[0]["where"] == {"x": 1, "k": 2} and "bound" not in parts[1]


def test_results_that_do_not_exist_are_not_run(monkeypatch):
    pretend(monkeypatch, [])
    found = outcome(bound={"at_least": 1}, registered="2026-11-29")
    assert (found["verdict"], found["runs"], found["interval"]) == ("not run", 0, None)
    assert found["registered"] == "2026-11-29"


def test_runs_of_another_experiment_lie_beside(monkeypatch):
    runs = lambda count, a: [({"seed": s}, {"a": a}, {"date": "", "device": ""}) for s in range(count)]
    table = {"made_up": runs(4, 2.0), "other": runs(3, 4.0)}
    monkeypatch.setattr(claims, "stored", lambda name: table[name])
    big = {"big": {"results": "other", "shared": ["seed"]}}
    found = outcome(each="a / big.a", bound={"within": [0.5, 0.5]}, **{"with": big})
    assert (found["runs"], found["value"], found["verdict"]) == (3, 0.5, "holds")


def test_stale_runs_decide_nothing(monkeypatch):
    experiments, present = claims.made()
    assert len(claims.stored.__wrapped__("theorem2")) >= 60
    monkeypatch.setattr(claims, "made", lambda: (experiments, {**present, "theorem2": "the code of tomorrow"}))
    assert claims.stored.__wrapped__("theorem2") == []


def test_an_expression_that_cannot_be_evaluated_is_named():
    with pytest.raises(ParameterError, match=r"'quantity'.*'no_such_array'"):
        claims.measure({"quantity": "quantity", "results": "width", "each": "no_such_array"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": None}, "give one of same"),
        ({"bond": 1}, "unknown: bond"),
        ({"of": "mode"}, "of is one of"),
        ({"bound": {"near": 3}}, "bound is one of"),
        ({"bound": None, "same": "colour"}, "not in same.yml"),
    ],
)
def test_a_claim_that_is_not_well_formed_is_named(change, message):
    claim = {k: v for k, v in {**FIXED, "results": "r", "bound": {"at_least": 1}, "why": "w", **change}.items() if v}
    with pytest.raises(ParameterError, match=message):
        claims.checked(claim, "file.yml")


# ---------------------------------------------------------------- what is shown


def test_prose_quotes_only_what_the_ledger_has():
    claims_of = {c["id"] for c in BOOK["claims"]} | {c.get("of_statement") for c in BOOK["claims"]}
    known, quoted = {"claim": claims_of, "number": {n["id"] for n in BOOK["numbers"]}}, set()
    for path in [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("[0-9][0-9]_*.py")]:
        found = {
            (role, re.split(r"[.:]", name)[0])
            for role, name in re.findall(r"\{(claim|number)\}`([^`]+)`", path.read_text())
        }
        assert all(name in known[role] for role, name in found), path.name
        quoted |= found
    assert {role for role, _ in quoted} == {"claim", "number"}


def test_a_date_of_registration_is_not_after_the_runs_that_it_decides():
    for claim in BOOK["claims"]:
        if claim["registered"] != "known":
            dates = [label["date"] for *_, label in claims.runs_of(claim["results"], claim.get("where", {}))]
            assert not dates or str(claim["registered"]) <= min(dates), claim["id"]


def test_executed_chapters_show_the_verdicts_of_the_ledger(now):
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        text = path.read_text(encoding="utf-8")
        assert claims.with_verdicts(text, now["claims"]) == text, f"{path.name}: python -m hesslib claims --acknowledge"


def test_a_table_of_verdicts_in_a_notebook_is_renewed(now):
    output = {"data": {"text/markdown": ["old"]}, "metadata": {"hesslib": {"verdicts": "06_basins"}}}
    text = json.dumps({"cells": [{"outputs": [output]}, {"source": []}]})
    renewed = claims.with_verdicts(text, now["claims"])
    shown = "".join(json.loads(renewed)["cells"][0]["outputs"][0]["data"]["text/markdown"])
    assert shown == claims.markdown(now["claims"], "06_basins")
    assert all(f"**{c['verdict']}**" in shown for c in now["claims"] if c["chapter"] == "06_basins")
    assert claims.with_verdicts(renewed, now["claims"]) == renewed
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + sum(c["chapter"] == "06_basins" for c in now["claims"])
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}


def test_command_prints_and_fails_on_a_change(capsys, monkeypatch, tmp_path, now):
    assert cli.main(["claims"]) == 0
    assert f"{len(now['claims'])} verdicts; holds:" in capsys.readouterr().out
    changed = copy.deepcopy(now)
    changed["claims"][0]["verdict"] = "perhaps"
    (tmp_path / "claims.json").write_text(json.dumps(changed))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(claims, "ACKNOWLEDGED", tmp_path / "claims.json")
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    assert cli.main(["claims", "--json"]) == 1
    out, err = capsys.readouterr()
    wanted = "id, section, statement, paper, quantity, bound, why, registered, interval, runs, verdict, source"
    assert set(wanted.split(", ")) <= set(json.loads(out)[0])
    first = now["claims"][0]
    assert f"changed: claims.{first['id']}.verdict: shown 'perhaps', now '{first['verdict']}'" in err
    assert cli.main(["claims", "--acknowledge"]) == 0 and claims.differences(now, claims.acknowledged()) == []


@pytest.mark.parametrize(
    ("value", "interval", "form", "text"),
    [
        (1.302, (1.177, 1.428), "", "1.30 (1.18 to 1.43)"),
        (9.0, (9.0, 9.0), "", "9 (9 to 9)"),
        (-1.4, (-3.5, 0.7), "", "−1.4 (−3.5 to 0.7)"),
        (1334.2, (411.3, 4329.0), "", "1,334 (411 to 4,329)"),
        (0.4, (0.061, 2.83), "", "0.40 (0.061 to 2.8)"),
        (2.3e-5, (2.2e-5, 2.4e-5), "", "2.3×10⁻⁵ (2.2×10⁻⁵ to 2.4×10⁻⁵)"),
        (0.17, None, "", "0.170"),
        (9.72, (9.5, 9.9), ".1f", "9.7 (9.5 to 9.9)"),
    ],
)
def test_a_measurement_is_shown_to_the_digits_of_its_interval(value, interval, form, text):
    assert numbers.measurement(value, interval, form) == text
