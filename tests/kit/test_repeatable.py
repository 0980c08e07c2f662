"""The same numbers whatever the threads, chunks and workers."""

import numpy as np
import pytest
import torch

from hesslib import EmpiricalRisk, spectral_density, spectrum, top_eigenpairs
from hesslib.book.store import Store
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.models import convolutional, fully_connected
from hesslib.experiments.training import train

from .work import Skip

pytestmark = pytest.mark.slow

MODELS = {
    "chain": lambda seed: fully_connected([8, 12, 10, 3], seed=seed),
    "skip": lambda seed: Skip(8, seed).double(),
    "convolutions": lambda seed: convolutional((2, 3), 4, seed=seed),
}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def data_of(name, seed):
    if name != "convolutions":
        return blobs(60, 3, 8, seed=seed)
    data = mnist(30, seed=seed)
    object.__setattr__(data, "inputs", data.inputs.view(-1, 1, 28, 28))
    return data


def trained_operators(name, seed):
    """H and G after a short training by small batches."""
    data, model = data_of(name, seed), MODELS[name](seed)
    options = {"step_size": 0.2, "iterations": 60, "batch_size": 20, "seed": seed, "progress": False}
    train(model, data.inputs, data.targets, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    return risk.hessian(), risk.ggn()


def eigenvalues(name, seed=0, budget=None):
    """All eigenvalues of H, those of G, five by Lanczos, and the nodes of a density."""
    found = {}
    for op in trained_operators(name, seed):
        if budget:
            op.memory_budget = budget
        found[op.name] = spectrum(op, progress=False).eigenvalues
        if op.name == "H":
            found["top"] = top_eigenpairs(op, 5, progress=False).eigenvalues
            found["density"] = np.array(spectral_density(op, 2, 5, seed=1, progress=False).mean(lambda x: x))
    return found


def assert_same(one, two):
    for key in one:
        scale = np.abs(one["H"]).max()
        assert np.abs(one[key] - two[key]).max() <= 1e-10 * scale, key


@pytest.mark.parametrize("name", MODELS)
def test_threads_and_chunks_do_not_matter(name, threads):
    threads(1)
    expected = eigenvalues(name)
    for count, budget in ((2, None), (2, 1)):
        threads(count)
        assert_same(expected, eigenvalues(name, budget=budget))
    assert np.abs(eigenvalues(name, seed=1)["H"] - expected["H"]).max() > 1e-6  # the seed does


def test_workers_do_not_matter(tmp_path):
    grid = [{"name": name, "seed": seed} for name in ("chain", "skip") for seed in (0, 1)]
    one, two = (Store(tmp_path / str(jobs)).sweep("run", eigenvalues, grid, run=True, jobs=jobs) for jobs in (1, 2))
    assert len(one) == len(two) == 4
    for a, b in zip(one.results, two.results):
        assert_same(a, b)
