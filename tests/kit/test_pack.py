"""What is published is packed from true labels, and nothing else is."""

import json

import numpy as np
import pytest

from hesslib.book import closure, pack
from hesslib.book.closure import git
from hesslib.book.parameters import ParameterError
from hesslib.book.provenance import provenance
from hesslib.book.store import Store, published_labels, published_result


def test_every_published_label_is_true():
    if git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("the history is not here (a shallow clone, or no git): commits of labels cannot be looked up")
    count, found = pack.faults()
    assert count >= 700
    assert not found, pack.report(count, found)


PRESENT = {"demo": "c1"}


@pytest.fixture
def made(monkeypatch):
    """Labels whose code and commit are taken to be in order, but for what a test changes."""
    monkeypatch.setattr(closure, "present", lambda code: PRESENT)
    monkeypatch.setattr(pack, "_closures_of", lambda commit: {"c1"})
    return {**provenance("demo", {}, "c1", 1.0), "commit": git("rev-parse", "--short=12", "HEAD"), "clean": True}


def fill(store, made, seeds, **changes):
    for seed in seeds:
        result = {"a": np.arange(3.0) + seed, "weights": np.ones(4, dtype=np.float16) * seed}
        store.save("demo", {"seed": seed}, result, {**made, **changes})


def test_packing_publishes_the_runs_and_empties_the_working_store(tmp_path, made):
    store, folder = Store(tmp_path / "loose"), tmp_path / "published"
    fill(store, made, [0, 1])
    assert pack.pack(folder, store) == {"demo": 2}
    assert not list(store.folder.rglob("*.npz")) and len(list(folder.iterdir())) == 4
    before = (folder / "demo.jsonl").read_text().splitlines()
    heavy = {p: p.read_bytes() for p in folder.glob("demo.*.weights.npz")}
    fill(store, made, [2])
    pack.pack(folder, store)
    assert len(heavy) == 2 and all(p.read_bytes() == kept for p, kept in heavy.items())
    after = (folder / "demo.jsonl").read_text().splitlines()
    assert after[:2] == before and len(after) == 3  # a run more is a line more
    store.published = folder
    for seed in range(3):
        result, label = store.load("demo", {"seed": seed}, "c1")
        np.testing.assert_array_equal(result["a"], np.arange(3.0) + seed)
        assert result["weights"].dtype == np.float16 and label["key"] == store.path("demo", {"seed": seed}).name
    assert store.load("demo", {"seed": 0}, "other code") is None


def test_the_same_runs_give_the_same_bytes_in_whatever_order(tmp_path, made):
    packed = []
    for name, seeds in (("one", [0, 1, 2]), ("two", [2, 0, 1])):
        store = Store(tmp_path / name)
        for seed in seeds:
            fill(store, made, [seed])
            pack.pack(tmp_path / f"published {name}", store)
        packed.append({p.name: p.read_bytes() for p in (tmp_path / f"published {name}").iterdir()})
    assert packed[0] == packed[1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clean": False}, "made from changed sources"),
        ({"closure": "c0"}, "stale, its code has changed since"),
        ({"commit": "119f99576457"}, "commit 119f99576457 is not in this history"),
    ],
)
def test_what_has_no_true_label_is_not_published(tmp_path, made, changes, why):
    store = Store(tmp_path / "loose")
    fill(store, made, [0])
    fill(store, made, [1], **changes)
    with pytest.raises(ParameterError, match=rf"demo/\w+ cannot be published: {why}"):
        pack.pack(tmp_path / "published", store)
    assert not (tmp_path / "published").exists() and len(list(store.folder.rglob("*.npz"))) == 2


def test_a_commit_with_other_code_makes_no_true_label(tmp_path, made, monkeypatch):
    monkeypatch.setattr(pack, "_closures_of", lambda commit: {"c0"})
    assert pack.fault({**made, "arrays": {}}, PRESENT) == f"commit {made['commit']} has other code"


def test_a_flipped_byte_names_its_run_and_no_other(tmp_path, made):
    store, folder = Store(tmp_path / "loose"), tmp_path / "published"
    fill(store, made, [0, 1, 2])
    pack.pack(folder, store)
    store.published = folder
    keys = [store.path("demo", {"seed": s}).name for s in range(3)]
    archive, lines = folder / "demo.npz", folder / "demo.jsonl"
    whole, labels = archive.read_bytes(), lines.read_text()
    place = whole.index(f"{keys[1]}/a.npy".encode()) + len(f"{keys[1]}/a.npy") + 20
    archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.warns(UserWarning, match=f"demo/{keys[1]}: the stored arrays are damaged"):
        assert store.load("demo", {"seed": 1}) is None
    assert store.load("demo", {"seed": 0}) and store.load("demo", {"seed": 2})
    with pytest.warns(UserWarning), pytest.raises(OSError, match=f"demo/{keys[1]} is damaged"):
        fill(store, made, [3]), pack.pack(folder, store)
    archive.write_bytes(whole)
    number = next(i for i, line in enumerate(labels.splitlines(), 1) if keys[2] in line)
    lines.write_text(labels.replace(keys[2], keys[2][::-1]))
    with pytest.warns(UserWarning, match=f"demo.jsonl, line {number}: the label is damaged"):
        assert store.load("demo", {"seed": 2}) is None


def test_runs_are_read_without_the_rest(monkeypatch):
    """A run of the published store is read from its own members only."""
    import zipfile

    label, read = published_labels("width")[3], []
    original = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: read.append(name) or original(self, name))
    assert set(published_result(label)) == set(label["arrays"])
    assert sorted(read) == sorted(f"{label['key']}/{name}.npy" for name in label["arrays"])


def test_a_label_fits_one_line_and_no_key_appears_twice():
    for path in sorted(pack.PUBLISHED.glob("*.jsonl")):
        keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
        assert len(keys) == len(set(keys)), path.name
        assert path.with_suffix(".npz").exists()


def test_the_closure_of_a_commit_is_found_in_its_files():
    name = git("rev-parse", "--short=12", "HEAD")
    if name is None or git("status", "--porcelain", "--", "hesslib", "notebooks") != "":
        pytest.skip("the sources differ from the commit")
    assert closure.present(closure.tree_at(name)) == closure.present(closure.tree())
    assert closure.tree_at("0" * 12) is None


def test_a_clone_without_history_is_told_so(monkeypatch):
    monkeypatch.setattr(pack, "git", lambda *words: "true")
    with pytest.raises(ParameterError, match="this clone lacks the history: git fetch --unshallow"):
        pack.faults()


def test_a_run_may_be_older_than_the_chapter_that_imports_its_function():
    """The runs along SGD were made at a commit that has their function and not yet their chapter."""
    older = [label for label in published_labels("stochastic_edge") if label["commit"] == "a80d764dbe93"]
    present = closure.present(closure.tree())
    assert older and not pack.fault(older[0], present)
    changed = {**older[0], "commit": "dc6d2fdf4b8a"[:7]}  # without the function
    assert "other code" in pack.fault(changed, present)


def test_labels_are_rehashed_where_their_commit_has_the_present_code(tmp_path, made, monkeypatch):
    store, folder = Store(tmp_path / "loose"), tmp_path / "published"
    fill(store, made, [0, 1])
    pack.pack(folder, store)
    before = published_labels("demo", folder)
    monkeypatch.setattr(closure, "present", lambda code: {"demo": "c2"})
    text = (folder / "demo.jsonl").read_text()
    assert pack.rehash(folder) == 0 and (folder / "demo.jsonl").read_text() == text  # its commit has other code
    monkeypatch.setattr(pack, "_closures_of", lambda commit: {"c2"})
    assert pack.rehash(folder) == 2 and pack.rehash(folder) == 0
    after = published_labels("demo", folder)
    changed = [{k for k in a if a[k] != b[k]} for a, b in zip(before, after, strict=True)]
    assert changed == [{"closure", "checksum"}] * 2 and {label["closure"] for label in after} == {"c2"}
