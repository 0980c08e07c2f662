"""Stored results can be computed again from the chapters' functions, and two are, each day others."""

from datetime import date

import numpy as np
import pytest

from hesslib import cli
from hesslib.book import audit, closure
from hesslib.book.parameters import ParameterError
from hesslib.book.paths import ROOT
from hesslib.book.provenance import provenance
from hesslib.book.store import Store

CHEAP = [label for label in audit.entries([]) if label["seconds"] < 5]
DAY = date.today().toordinal()
# Two entries of the day, half the list apart, so that they rarely belong to one experiment.
CHOSEN = [CHEAP[(DAY + i * (len(CHEAP) // 2)) % len(CHEAP)] for i in (0, 1)]


@pytest.mark.parametrize("label", CHOSEN, ids=lambda label: f"{label['name']}-{label['key']}")
def test_a_stored_result_of_the_day_is_what_its_function_gives(label):
    finding = audit.audit(label)
    assert finding.agrees, str(finding)


def test_every_experiment_names_the_function_that_made_it():
    made = closure.experiments(closure.tree())
    for name in {label["name"] for label in audit.entries([])}:
        source = ROOT / "notebooks" / f"{made[name].chapter}.py"
        assert callable(audit.load_function(source, made[name].function))


CELLS = """
# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper

# %%
import numpy as np
p = undefined_name(globals())
FACTOR = 2.0

# %%
def helper(x):
    return FACTOR * x

# %%
def good(seed):
    p = np.ones(3)  # a local name
    return {"a": helper(p) + seed}

# %%
def bad(seed):
    return {"a": p.size}

raise RuntimeError("this must not run")
"""


def test_only_what_a_function_needs_is_run(tmp_path):
    source = tmp_path / "99_test.py"
    source.write_text(CELLS)
    assert audit.load_function(source, "good")(seed=1)["a"].tolist() == [3.0, 3.0, 3.0]
    with pytest.raises(ParameterError, match="bad depends on the chapter's parameters"):
        audit.load_function(source, "bad")
    with pytest.raises(ParameterError, match="no function missing"):
        audit.load_function(source, "missing")


def test_comparison_notices_one_changed_number():
    kept = {"a": np.array([1e-3, 1.0, 1000.0]), "n": np.array(3)}
    assert audit.compare({"a": kept["a"], "n": 3}, kept)[0] == 0
    for i in range(3):
        changed = kept["a"].copy()
        changed[i] *= 1 + 1e-5
        assert audit.compare({"a": changed, "n": 3}, kept) == (pytest.approx(1e-5, rel=1e-3), "a")
    assert audit.compare({"a": kept["a"], "n": 4}, kept)[0] > 0.3
    assert audit.compare({"a": kept["a"][:2], "n": 3}, kept) == (np.inf, "a")
    assert audit.compare({"a": kept["a"]}, kept)[0] == np.inf
    assert audit.compare({"a": kept["a"] * np.nan, "n": 3}, kept)[0] == np.inf
    zeros = {"a": np.array([0.0, 1.0])}
    assert audit.compare({"a": np.array([1e-15, 1.0])}, zeros)[0] == pytest.approx(1e-9)
    rounding = {"a": np.array(1.3e-30)}  # the square of a rounding error
    assert audit.compare({"a": np.array(1.4e-30)}, rounding)[0] < 1e-6


def test_a_drifted_result_fails_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HESSLIB_STORE", str(tmp_path))
    parameters = next(label["parameters"] for label in CHEAP if label["name"] == "recipe")
    result = {"mean": np.array(1.0), "iterations": np.array(2)}
    Store().save("recipe", parameters, result, provenance("recipe", parameters, "old code", 0.0))
    assert cli.main(["audit", "recipe"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS" in out and "its code has changed since" in out
    assert cli.main(["audit", "no_such"]) == 2
    assert "'no_such' is not there: give NAME or NAME/KEY, names are recipe" in capsys.readouterr().err


def test_renewing_computes_what_is_stale_once_and_keeps_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HESSLIB_STORE", str(tmp_path))
    chosen = [label["parameters"] for label in CHEAP if label["name"] == "two_blobs"][:2]
    for parameters in chosen:
        Store().save("two_blobs", parameters, {"a": np.ones(2)}, provenance("two_blobs", parameters, "old code", 0.0))
    assert cli.main(["renew", "two_blobs"]) == 0
    assert capsys.readouterr().out.count("DIFFERS") == 2
    code = closure.tree()
    made = closure.experiments(code)["two_blobs"]
    for parameters in chosen:
        result, label = Store().load("two_blobs", parameters, code.closure(f"notebooks.{made.chapter}", made.function))
        assert "largest" in result and label["seconds"] > 0
    assert cli.main(["renew", "two_blobs"]) == 0 and capsys.readouterr().out == "nothing to renew\n"


def test_a_result_of_changed_sources_is_renewed_once_they_are_committed(tmp_path, monkeypatch):
    """What was made in a changed tree serves there, is marked, and counts as stale in a clean one."""
    from hesslib.book import store

    monkeypatch.setenv("HESSLIB_STORE", str(tmp_path))
    code = closure.tree()
    made = closure.experiments(code)["two_blobs"]
    now = code.closure(f"notebooks.{made.chapter}", made.function)
    parameters = next(label["parameters"] for label in CHEAP if label["name"] == "two_blobs")
    label = {**provenance("two_blobs", parameters, now, 0.0), "clean": False}
    Store().save("two_blobs", parameters, {"a": np.ones(2)}, label)
    for module in (store, audit):
        monkeypatch.setattr(module, "commit", lambda: ("a commit", False))
    assert Store().load("two_blobs", parameters, now) is not None and list(audit.renew(["two_blobs"])) == []
    for module in (store, audit):
        monkeypatch.setattr(module, "commit", lambda: ("a commit", True))
    assert Store().load("two_blobs", parameters, now) is None
    monkeypatch.setattr(audit, "provenance", lambda *arguments: {**provenance(*arguments), "clean": True})
    found = list(audit.renew(["two_blobs"]))
    assert len(found) == 1 and not found[0].agrees
    assert "largest" in Store().load("two_blobs", parameters, now)[0]
    assert "with changes" in store.Sweep("two_blobs", [parameters], [({}, label)]).label
