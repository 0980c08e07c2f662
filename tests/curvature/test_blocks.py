"""The blocks of an operator against those cut from its matrix."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator

from hesslib import EmpiricalRisk, blocks
from hesslib.curvature import blocks as module
from tests.curvature.models import TABLE, build

MODELS = ["chain Tanh", "average pooling", "residual network", "transformer"]
RISKS = {name: EmpiricalRisk(*build(make)) for name, make, *_ in TABLE if name in MODELS}


def cut(op, groups):
    """The blocks on the diagonal and all norms, from the matrix."""
    matrix, places = op.to_dense(), op.risk.places
    at = [[i for name in own for i in range(places[name].start, places[name].stop)] for own in groups.values()]
    norms = np.array([[float(matrix[rows][:, columns].norm()) for columns in at] for rows in at])
    return [np.linalg.eigvalsh(matrix[rows][:, rows].numpy()) for rows in at], norms


def layers(risk):
    found = {}
    for name in risk.places:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def compare(found, op, groups):
    spectra, norms = cut(op, groups)
    scale = norms.max()
    assert found.names == tuple(groups)
    assert found.sizes.tolist() == [len(values) for values in spectra]
    np.testing.assert_allclose(found.norms, norms, atol=1e-13 * scale)
    for name, values in zip(found.names, spectra, strict=True):
        np.testing.assert_allclose(found.eigenvalues[name], values, atol=1e-13 * scale)
    assert found.diagonal_share == pytest.approx((np.diag(norms) ** 2).sum() / (norms**2).sum())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["hessian", "ggn", "residual"])
@pytest.mark.parametrize("rows", [False, True], ids=["whole", "rows"])
def test_blocks_are_those_of_the_matrix(name, kind, rows):
    op = getattr(RISKS[name], kind)()
    op.memory_budget = op.shape[0] ** 2 * 8 - rows  # the matrix as a whole just fits, or does not
    found = blocks(op)
    compare(found, op, layers(RISKS[name]))
    assert not found.errors.any()


def test_blocks_by_tensor_and_by_any_grouping():
    risk = RISKS["transformer"]
    op, names = risk.hessian(), list(risk.places)
    compare(blocks(op, "parameter"), op, {name: [name] for name in names})
    groups = {"ends": [names[-1], names[0]], "one": [names[3]]}  # in any order, and not all of them
    compare(blocks(op, groups), op, groups)
    assert blocks(op, {"one": names[3]}).sizes.tolist() == [risk.parameters[names[3]].numel()]
    whole = blocks(op, {"all": names})
    np.testing.assert_allclose(whole.eigenvalues["all"], np.linalg.eigvalsh(op.to_dense().numpy()), atol=1e-14)
    assert whole.diagonal_share == 1


def test_rows_of_dead_parameters_are_exact_zeros():
    x = torch.rand(9, 6, generator=torch.Generator().manual_seed(0)).double()
    x[:, 2] = 0
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    found = blocks(EmpiricalRisk(model, x, torch.arange(9) % 3).hessian())
    assert (found.eigenvalues["0"] == 0).sum() == 4


def test_estimated_norms_cover():
    """Of the norms estimated from many seeds the errors hold as many as those of a Student's t with 19 degrees."""
    op = RISKS["transformer"].hessian()
    exact = blocks(op).norms
    scores = []
    for seed in range(40):
        found = blocks(op, probes=20, seed=seed)
        assert found.eigenvalues == {} and (found.errors >= 0).all()
        away = (found.norms - exact) / np.maximum(found.errors, 1e-300)
        scores.append(away[np.triu_indices(len(exact))][found.errors[np.triu_indices(len(exact))] > 0])
    scores = np.concatenate(scores)
    assert 0.90 < (np.abs(scores) < 2.1).mean() < 0.97
    assert abs(scores.mean()) < 0.3
    again, other = (blocks(op, probes=20, seed=seed).norms for seed in (3, 4))
    assert np.array_equal(again, blocks(op, probes=20, seed=3).norms) and not np.array_equal(again, other)


def test_what_is_refused(monkeypatch):
    op = RISKS["chain Tanh"].hessian()
    for groups, message in (
        ("module", "groups='module': give 'layer', 'parameter' or a dict"),
        ({"a": ["0.weights"]}, r"unknown: \['0.weights'\]; the parameters are 0.weight, "),
        ({"a": ["0.weight"], "b": ["0.weight"]}, r"in several groups: \['0.weight'\]"),
        ({"a": []}, r"empty: \['a'\]"),
        ({}, "none given"),
        ({"a": 3}, "'a' is 3; give names of parameters: 0.weight, "),
    ):
        with pytest.raises(ValueError, match=message):
            blocks(op, groups)
    with pytest.raises(TypeError, match="a CurvatureOperator"):
        blocks(aslinearoperator(np.eye(3)))
    with pytest.raises(ValueError, match="probes=1"):
        blocks(op, probes=1)
    monkeypatch.setattr(module, "free_memory", lambda device: 2 * op.memory_budget + 1000)
    with pytest.raises(MemoryError, match=r"the block '0' of order 24 needs .*smaller groups, or probes=10"):
        blocks(op)
    assert blocks(op, probes=4).errors.any()
