"""Results of earlier code are used where the present code gives the same bits, and only there."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from hesslib.book import closure, confirm, pack
from hesslib.book.parameters import ParameterError
from hesslib.book.paths import ROOT
from hesslib.book.store import stale


def label(seconds, **parameters):
    return {"name": "demo", "key": f"{seconds}", "seconds": seconds, "parameters": parameters, "closure": "then"}


def test_the_sample_has_the_quickest_run_of_each_combination_of_words():
    labels = [
        label(3, kind="a", n=5),
        label(2, kind="a", n=9),
        label(1, kind="b", n=5),
        label(0, kind="b", n=5, on=True),
    ]
    assert sorted(one["seconds"] for one in confirm.sample(labels)) == [0, 1, 2]


def test_a_chain_of_confirmations_leads_to_earlier_code(tmp_path, monkeypatch):
    steps = [("demo", "c0", "c1"), ("other", "c1", "c2"), ("demo", "c1", "c2")]
    lines = [json.dumps({"name": n, "earlier": a, "closure": b}) for n, a, b in steps]
    monkeypatch.setattr(closure, "CONFIRMED", tmp_path / "confirmed.jsonl")
    assert closure.same_numbers("demo", "c2") == {"c2"}
    closure.CONFIRMED.write_text("\n".join(lines) + "\n")
    assert closure.same_numbers("demo", "c2") == {"c0", "c1", "c2"}
    assert closure.same_numbers("demo", "c1") == {"c0", "c1"} and closure.same_numbers("demo", "c0") == {"c0"}
    assert not stale({"name": "demo", "closure": "c0"}, "c2") and stale({"name": "other", "closure": "c0"}, "c2")


def test_a_confirmation_names_a_commit_with_its_code(tmp_path, monkeypatch):
    here = closure.git("rev-parse", "HEAD")
    monkeypatch.setattr(closure, "CONFIRMED", tmp_path / "confirmed.jsonl")
    monkeypatch.setattr(pack, "_closures_of", lambda commit: {"c1"})
    line = {"name": "demo", "earlier": "c0", "closure": "c1", "commit": here}
    for change, why in (({}, ""), ({"closure": "c2"}, "has other code"), ({"commit": "0" * 12}, "not in this history")):
        made = line | change
        sealed = {**made, "checksum": confirm.label_checksum(made)}
        closure.CONFIRMED.write_text(json.dumps(sealed) + "\n")
        closure._confirmations.cache_clear()
        found = pack.faults(tmp_path / "results")[1]
        assert why in found.get("confirmed.jsonl, demo", "") and bool(found) == bool(why)
    closure.CONFIRMED.write_text(json.dumps({**sealed, "earlier": "c5"}) + "\n")
    closure._confirmations.cache_clear()
    assert pack.faults(tmp_path / "results")[1]  # its checksum is of another line


def test_only_clean_sources_are_compared(monkeypatch):
    monkeypatch.setattr(confirm, "commit", lambda: ("abc", False))
    with pytest.raises(ParameterError, match="uncommitted changes"):
        list(confirm.confirm([]))


@pytest.mark.slow
def test_a_change_of_the_code_is_confirmed_or_found(tmp_path):
    """In a clone: a statement without effect, then one that changes a number."""
    if closure.git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("a shallow clone has no earlier commits")
    tree = tmp_path / "tree"
    git = lambda *words: subprocess.run(["git", *words], check=True, capture_output=True, text=True)
    git("clone", "-q", "--shared", str(ROOT), str(tree))
    for path in (tree / "book" / "results").iterdir():  # the labels of this one are enough, and looked at faster
        if not path.name.startswith("two_blobs."):
            path.unlink()
    made = closure.experiments(closure.tree())["two_blobs"]
    source = tree / "notebooks" / f"{made.chapter}.py"
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-C", str(tree)]

    def change(line):
        head = re.search(rf"def {made.function}\(.*?\):\n    \"\"\".*?\"\"\"\n", source.read_text(), re.S)[0]
        source.write_text(source.read_text().replace(head, f"{head}    {line}\n"))
        git(*who, "commit", "-qam", "change")

    def hesslib(*words):
        variables = {**os.environ, "PYTHONPATH": str(tree)}
        return subprocess.run(
            [sys.executable, "-m", "hesslib", *words], cwd=tree, env=variables, capture_output=True, text=True
        )

    stored = len((tree / "book" / "results" / "two_blobs.jsonl").read_text().splitlines())
    change("assert True")
    done = hesslib("confirm", "two_blobs")
    assert (done.stdout, done.returncode) == ("two_blobs: the same bits\n", 0), done.stderr
    (line,) = [one for one in (tree / "book" / "confirmed.jsonl").read_text().splitlines() if "two_blobs" in one]
    assert len(json.loads(line)["compared"]) == len(confirm.sample(pack.published_labels("two_blobs")))
    after = hesslib("labels")
    assert after.returncode == 0 and f"{stored} of them were made by earlier code" in after.stdout
    name = next(iter(json.loads(line)["compared"][0]))
    change(f"{name} = type({name})({name} * 2)")
    done = hesslib("confirm", "two_blobs")
    assert done.returncode == 1 and re.search(r"two_blobs: DIFFERS at .*largest deviation", done.stdout), done
    assert (tree / "book" / "confirmed.jsonl").read_text().splitlines()[-1] == line  # none was added


def test_times_are_not_compared(tmp_path):
    (tmp_path / "notebooks").mkdir()
    text = "import numpy as np\n\ndef made(n):\n    return {'a': np.arange(n), 'seconds': np.ones(1)}\n"
    (tmp_path / "notebooks" / "01_one.py").write_text(text)
    os.symlink(ROOT / "hesslib", tmp_path / "hesslib")
    found = confirm.arrays_of(tmp_path, closure.Experiment("01_one", "made", ""), {"n": 3})
    assert list(found) == ["a"] and np.array_equal(found["a"], [0, 1, 2])
    with pytest.raises(ParameterError, match=r"made fails in .*unexpected keyword"):
        confirm.arrays_of(tmp_path, closure.Experiment("01_one", "made", ""), {"m": 3})
