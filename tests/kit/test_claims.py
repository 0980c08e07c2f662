"""The ledger agrees with the stored results, and the prose with the ledger."""

import copy
import json
import re

import nbformat
import pytest

from hesslib import cli
from hesslib.book import claims
from hesslib.book.parameters import ParameterError
from hesslib.book.paths import ROOT

BOOK = claims.ledger()


@pytest.fixture(scope="module")
def now():
    return claims.report()


def test_every_verdict_and_number_is_the_acknowledged_one(now):
    changed = claims.differences(now, claims.acknowledged())
    hint = "if the change is meant, run python -m hesslib claims --acknowledge and commit book/claims.json with it"
    assert not changed, "\n".join([*changed, hint])


def test_a_changed_verdict_or_number_is_noticed(now):
    shown = copy.deepcopy(now)
    shown["claims"][3]["verdict"] = "holds"
    shown["claims"][0]["checks"][0]["numbers"]["mean"] *= 1 + 1e-5
    found = claims.differences(now, shown)
    assert [line.split(":")[0] for line in found] == [
        "claims.bulk-start.checks.0.numbers.mean",
        "claims.outliers-away.verdict",
    ]


def test_the_ledger_is_large_and_traceable(now):
    assert len(now["claims"]) >= 60
    for claim in now["claims"]:
        assert claim["verdict"] in ("holds", "holds in part", "does not hold", "not run")
        assert all(claim[key] for key in ("id", "section", "statement", "paper", "chapter", "tolerance"))
        if claim["verdict"] != "not run":
            assert claim["source"]["notebook"] == claim["chapter"] and claim["date"] and claim["device"]
            assert claim["seeds"] >= claim_seeds(claim), claim["id"]


def claim_seeds(claim):
    """Seeds that a claim needs: five, or one where its entry says why."""
    return next(c.get("seeds", 5) for c in BOOK["claims"] if c["id"] == claim["id"])


def test_a_verdict_that_is_not_holds_is_explained_with_numbers(now):
    for claim in now["claims"]:
        if claim["verdict"] in ("holds in part", "does not hold"):
            assert len(claim["why"]) > 80 and re.search(r"\d", claim["why"]), claim["id"]


def test_every_claim_has_been_examined(now):
    assert not [c["id"] for c in now["claims"] if c["verdict"] == "not run"]


@pytest.mark.parametrize(
    ("values", "check", "holds"),
    [
        ([1, 2, 3], {"at_least": 1}, True),
        ([1, 2, 3], {"at_least": 1.5}, False),
        ([1, 2, 3], {"at_least": 1.5, "of": "mean"}, True),
        ([1, 2, 9], {"at_most": 3, "of": "median"}, True),
        ([1, 2, 9], {"at_most": 3, "of": "mean"}, False),
        ([1, 2, 9], {"at_most": 3, "of": "most"}, True),
        ([1, 9, 9, 1], {"at_most": 3, "of": "most"}, False),
        ([1, 2], {"within": [0, 1.9]}, False),
        ([1, 4], {"covers": 3}, True),
        ([1, 2], {"covers": 3}, False),
    ],
)
def test_checks(values, check, holds):
    found = claims.Measure(values, [({"seed": i}, {}, {}) for i in range(len(values))])
    assert claims.passed(check, found) is holds


def test_verdict_follows_from_the_checks():
    one = {"quantity": "largest", "results": "width", "each": "eigenvalues[-1]"}
    claim = {"id": "x", "section": 1, "statement": "s", "paper": "p", "chapter": "04_size", "why": "{0.mean:.3f}"}
    verdict = lambda *bounds: claims.evaluate({**claim, "checks": [{**one, "at_least": b} for b in bounds]}, {})
    assert verdict(0, 0.1)["verdict"] == "holds" and verdict(0)["why"] == ""
    assert verdict(0, 99)["verdict"] == "holds in part"
    assert verdict(98, 99)["verdict"] == "does not hold" and verdict(98)["why"].startswith("0.")
    missing = {**claim, "checks": [{**one, "at_least": 0}, {**one, "results": "no_such", "at_least": 0}]}
    assert claims.evaluate(missing, {})["verdict"] == "not run"


def test_stale_runs_decide_nothing(monkeypatch):
    experiments, present = claims.made()
    assert len(claims.stored.__wrapped__("theorem1")) >= 60
    monkeypatch.setattr(claims, "made", lambda: (experiments, {**present, "theorem1": "the code of tomorrow"}))
    assert claims.stored.__wrapped__("theorem1") == []


def test_groups_compare_runs_of_one_seed():
    spec = {"results": "width", "each": "parameters", "by": "width", "group": "v[-1] / v[0]"}
    found = claims.measure(spec)
    assert found.count == found.seeds >= 5 and abs(found.mean - 55660 / 7960) < 1e-12 and found.std == 0


def test_an_expression_that_cannot_be_evaluated_is_named():
    with pytest.raises(ParameterError, match=r"'quantity'.*'no_such_array'"):
        claims.measure({"quantity": "quantity", "results": "width", "each": "no_such_array"})


@pytest.mark.parametrize("quote", BOOK["quotes"], ids=lambda q: f"{q['notebook']}-{q['name']}")
def test_chapters_quote_what_is_stored(quote, now):
    """A number that a chapter took from the store when it was executed is still what the store gives."""
    node, key = nbformat.read(ROOT / "notebooks" / f"{quote['notebook']}.ipynb", as_version=4), "scrapbook"
    outputs = [o for c in node.cells if c.cell_type == "code" for o in c.outputs if key in o.get("metadata", {})]
    glued = {o.metadata[key]["name"]: o.data.get("application/papermill.record/text/plain") for o in outputs}
    quoted = glued[quote["name"]].strip("'")
    numbers = [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", quoted)]
    digits = quote.get("digits", 2)
    for position, (name, key) in enumerate(part.split(".") for part in quote["numbers"]):
        assert round(numbers[position], digits) == pytest.approx(now["numbers"][name][key], abs=0.51 * 10**-digits)


def test_prose_quotes_only_what_the_ledger_has():
    known = {c["id"] for c in BOOK["claims"]}, {n["id"] for n in BOOK["numbers"]}
    for path in [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("[0-9][0-9]_*.py")]:
        text = path.read_text()
        assert set(re.findall(r"\{claim\}`([^`]+)`", text)) <= known[0], path.name
        assert {re.split(r"[.:]", n)[0] for n in re.findall(r"\{number\}`([^`]+)`", text)} <= known[1], path.name


def test_command_prints_and_fails_on_a_change(capsys, monkeypatch, tmp_path, now):
    assert cli.main(["claims"]) == 0
    assert f"{len(now['claims'])} claims; holds:" in capsys.readouterr().out
    changed = copy.deepcopy(now)
    changed["claims"][0]["verdict"] = "does not hold"
    (tmp_path / "claims.json").write_text(json.dumps(changed))
    monkeypatch.setattr(claims, "ACKNOWLEDGED", tmp_path / "claims.json")
    assert cli.main(["claims", "--json"]) == 1
    out, err = capsys.readouterr()
    wanted = "id, section, statement, paper, measured, spread, seeds, scale, tolerance, verdict, source"
    assert set(wanted.split(", ")) <= set(json.loads(out)[0])
    assert "changed: claims.bulk-start.verdict: shown 'does not hold', now 'holds'" in err
    assert cli.main(["claims", "--acknowledge"]) == 0 and claims.differences(now, claims.acknowledged()) == []


@pytest.mark.parametrize(
    ("mean", "std", "count", "form", "text"),
    [
        (4.632e-3, 4.8e-3, 5, ".3g", "0.0046 ± 0.0048"),
        (0.23, 0.004, 5, ".2f", "0.2300 ± 0.0040"),
        (1234.5, 56.7, 5, ".3g", "1,234 ± 57"),
        (9.72, 0.0, 5, ".1f", "9.7"),
        (9.72, 0.4, 1, ".1f", "9.7"),
    ],
)
def test_a_measurement_shows_two_digits_of_its_deviation(mean, std, count, form, text):
    assert claims.written({"mean": mean, "std": std, "count": count}, form) == text


def test_a_count_is_shown_with_its_range():
    assert claims.spanned({"low": 2, "median": 3, "high": 51}) == "3 [2, 51]"
    assert claims.spanned({"low": 3, "median": 3, "high": 3}) == "3"
