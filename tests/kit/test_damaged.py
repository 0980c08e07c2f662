"""Damaged files, full disks, folders that cannot be written to, and what pickle could smuggle in."""

import ast
import multiprocessing
import os
import resource
import warnings

import numpy as np
import pytest
import torch

from hesslib import EmpiricalRisk
from hesslib._files import STALE, StorageError, replacing
from hesslib.book.paths import ROOT
from hesslib.book.store import Store
from hesslib.curvature.dense import to_dense
from hesslib.experiments import data as data_module
from hesslib.experiments.data import blobs, cifar10
from hesslib.experiments.training import train

from . import work


def flips(path, count, seed=0):
    """Put one flipped bit after another into a file, each at another place; the file is mended in between."""
    whole = path.read_bytes()
    for place in np.random.default_rng(seed).choice(8 * len(whole), min(count, 8 * len(whole)), replace=False):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        yield place
    path.write_bytes(whole)


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_a_flipped_bit_anywhere_in_a_stored_result_is_found(tmp_path, ending):
    store, parameters = Store(tmp_path), {"seed": 0, "size": 30}
    expected, made = store.run("bulky", work.bulky, parameters)
    for place in flips(store.path("bulky", parameters).with_suffix(ending), 80):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = store.load("bulky", parameters)
        if found is None:
            assert "damaged" in str(said[0].message) and "bulky/" in str(said[0].message)
        else:  # a name that is not read, as of the label's own checksum, or a date within the archive
            assert found[0]["noise"].tolist() == expected["noise"].tolist(), place
            assert {**found[1], "checksum": ""} == {**made, "checksum": ""}


def train_with(checkpoint):
    data, model = blobs(20, 3, 4, seed=0), torch.nn.Linear(4, 3).double()
    torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    options = {
        "step_size": 0.1,
        "iterations": 3,
        "record": [1],
        "measure": lambda m: {"w": float(m.weight.detach().sum())},
    }
    history = train(model, data.inputs, data.targets, checkpoint=checkpoint, **options)
    return history.measures, model.weight.detach().clone()


def test_a_flipped_bit_in_a_training_checkpoint_changes_no_number(memory_path):
    path = memory_path / "run.npz"
    measures, weight = train_with(path)
    found = 0
    for place in flips(path, 40):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            again = train_with(path)
        found += any("damaged" in str(w.message) and "run.npz" in str(w.message) for w in said)
        assert again[0] == measures and torch.equal(again[1], weight), place
    assert found > 20  # the others fall on bytes without meaning, such as the dates within the archive


def test_a_flipped_bit_in_finished_rows_changes_no_number(memory_path):
    data = blobs(10, 3, 8, seed=0)
    op = EmpiricalRisk(work.Skip(3, 0).double(), data.inputs, data.targets).hessian()
    exact, found = to_dense(op, checkpoint=memory_path), 0
    path = sorted(memory_path.glob("*.npz"))[0]
    for place in flips(path, 10):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert torch.equal(to_dense(op, checkpoint=memory_path), exact), place
        found += any("is damaged" in str(w.message) and path.name in str(w.message) for w in said)
    assert found > 3  # the others fall on bytes without meaning, such as the dates within the archive
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(to_dense(op, checkpoint=memory_path), exact)


def test_a_truncated_download_is_refused_and_fetched_anew(tmp_path, monkeypatch):
    """With a server of our own in the place of the official one."""
    import functools
    import hashlib
    import http.server
    import tarfile
    import threading

    site, cache = tmp_path / "site", tmp_path / "cache"
    folder = site / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    sums = {}
    for i, name in enumerate(data_module.CIFAR10):
        raw = np.random.default_rng(i).integers(0, 10, (2, 3073), dtype=np.uint8).tobytes()
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.sha256(raw).hexdigest()
    with tarfile.open(site / "cifar.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-bin")
    whole = (site / "cifar.tar.gz").read_bytes()

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(data_module, "CIFAR10", sums)
    monkeypatch.setattr(data_module, "CIFAR10_SHA256", hashlib.sha256(whole).hexdigest())
    monkeypatch.setattr(data_module, "CIFAR10_ARCHIVE", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
    monkeypatch.setenv("HESSLIB_DATA", str(cache))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)

    (site / "cifar.tar.gz").write_bytes(whole[:-100])
    with pytest.raises(OSError, match=r"could not be downloaded.*cifar.*Place the six files"):
        cifar10()
    assert not (cache / "cifar-10-batches-bin").exists()
    (site / "cifar.tar.gz").write_bytes(whole)
    first = cifar10()
    file = cache / "cifar-10-batches-bin" / "data_batch_2.bin"
    for place in flips(file, 1):
        assert torch.equal(cifar10().inputs, first.inputs), place  # unpacked anew from the archive
    archive = next(p for p in cache.iterdir() if p.is_file())
    archive.write_bytes(whole[:50])
    file.unlink()
    assert torch.equal(cifar10().inputs, first.inputs)
    server.shutdown()


def in_process(function, *arguments):
    """The value of a function in a process of its own, where limits may be set."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kit.work"])
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def store_on_full_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return work.storage_error(lambda: Store(folder).run("bulky", work.bulky, {"seed": 1, "size": 100_000}))


def store_without_permission(folder):
    if os.getuid() == 0:  # permissions do not hold for root
        os.setuid(65534)
    return work.storage_error(lambda: Store(folder).run("bulky", work.bulky, {"seed": 1, "size": 100}))


def rows_on_full_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    data = blobs(10, 3, 8, seed=0)
    op = EmpiricalRisk(work.Skip(3, 0).double(), data.inputs, data.targets).hessian()
    return work.storage_error(lambda: to_dense(op, checkpoint=folder))


def training_on_full_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return work.storage_error(lambda: train_with(folder / "run.npz"))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (store_on_full_disk, ".npz could not be written (File too large); earlier ones are intact"),
        (store_without_permission, ".npz could not be written (Permission denied); earlier ones are intact"),
        (rows_on_full_disk, ".npz could not be written (File too large)"),
        (training_on_full_disk, "run.npz could not be written (File too large)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_full_disk_or_a_locked_folder_ends_with_one_sentence(memory_path, function, reason):
    folder, store = memory_path, Store(memory_path)
    store.run("bulky", work.bulky, {"seed": 0, "size": 100})
    folder.chmod(0o777), (folder / "bulky").chmod(0o555 if "permission" in function.__name__ else 0o777)
    (folder / "bulky" / ".lock").chmod(0o666)
    message = in_process(function, folder)
    assert reason in message and "\n" not in message
    assert store.load("bulky", {"seed": 0, "size": 100}) is not None
    assert store.load("bulky", {"seed": 1, "size": 100_000}) is None
    assert not list(folder.rglob("*.part"))


def test_what_a_killed_run_left_is_cleared_later(tmp_path):
    left, fresh = tmp_path / ".file.0.part", tmp_path / ".file.1.part"
    left.write_text("half"), fresh.write_text("half")
    old = left.stat().st_mtime - STALE - 1
    os.utime(left, (old, old))
    with replacing(tmp_path / "file", "w") as file:
        file.write("whole")
    assert not left.exists() and fresh.exists()  # the fresh one may belong to a run that is still writing


def test_what_fails_in_the_middle_leaves_the_earlier_file(tmp_path):
    (tmp_path / "file").write_text("earlier")
    with pytest.raises(KeyError), replacing(tmp_path / "file", "w") as file:
        file.write("half")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "earlier"
    with pytest.raises(StorageError, match="could not be written"), replacing(tmp_path / "file" / "below") as file:
        pass


def test_python_objects_are_neither_stored_nor_loaded(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        Store(tmp_path).save("demo", {}, {"x": np.array([{}], dtype=object)}, {})
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]


def test_no_call_can_reach_pickle():
    """Every numpy load says allow_pickle=False, every torch.load weights_only=True, and nothing imports pickle."""
    calls = 0
    for path in (p for folder in ("hesslib", "notebooks", "tests/benchmarks") for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", "") or "")}
                assert not names & {"pickle", "dill", "cloudpickle", "shelve"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                owner = getattr(node.func.value, "id", "")
                if owner in ("np", "numpy", "torch"):
                    calls += 1
                    options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                    safe = (
                        options.get("weights_only") is True
                        if owner == "torch"
                        else options.get("allow_pickle") is False
                    )
                    assert safe, (path, node.lineno)
    assert calls >= 3
