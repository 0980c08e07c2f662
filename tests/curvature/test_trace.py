"""Trace and diagonal: the exact ones against the matrix, the errors of the others against many repeats."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import nn

from hesslib import EmpiricalRisk, diagonal, trace
from hesslib.curvature import trace as module
from hesslib.curvature.certificates import CertificateError
from tests.curvature.cases import CASES, mlp
from tests.curvature.models import TABLE, Language, build, draw, labels

RISKS = {c.name: EmpiricalRisk(c.model, c.inputs, c.targets, c.loss) for c in CASES}
RISKS |= {
    name: EmpiricalRisk(*build(make))
    for name, make, *_ in TABLE
    if name in ("residual network", "transformer", "layer norm")
}


def operators(risk):
    found = [risk.hessian(), risk.ggn(), risk.residual()]
    return found + ([risk.ggn("probability"), risk.residual("probability")] if risk.criterion.name != "mse" else [])


def symmetric(m, seed=0, decay=1.0):
    """A matrix with a few large eigenvalues of both signs and many small ones."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((m, m)))
    return (q * (rng.choice([-1, 1], m) / np.arange(1, m + 1) ** decay)) @ q.T


@pytest.mark.parametrize("name", RISKS)
def test_what_is_called_exact_is_the_diagonal_of_the_matrix(name):
    for op in operators(RISKS[name]):
        exact = op.to_dense().diagonal().numpy()
        scale = max(float(op.to_dense().abs().max()), 1e-6)
        entries, total = diagonal(op, "exact"), trace(op, "exact")
        np.testing.assert_allclose(entries.value, exact, atol=1e-13 * scale, err_msg=f"{name} {op.name}")
        assert total.value == pytest.approx(exact.sum(), abs=1e-12 * scale)
        assert entries.exact and total.exact and total.error == 0 == entries.error.max()


def test_auto_is_exact_where_that_is_cheap_and_says_how():
    chain, body, block = (RISKS[name] for name in ("Tanh-5-4-6-3", "convolution", "transformer"))
    for risk in (chain, body):
        for op in (risk.hessian(), risk.ggn(), risk.residual()):
            assert trace(op).exact
    assert trace(chain.hessian()).reason == "closed form of the Linear layers" and trace(chain.hessian()).products == 0
    head = sum(risk.numel() for name, risk in body.parameters.items() if name[0] in "03")
    assert (
        trace(body.hessian()).reason
        == f"closed form of the Linear layers; {head} products for {head} of 114 parameters"
    )
    assert trace(body.ggn()).reason == trace(block.ggn("probability")).reason == "Jacobian"
    left = trace(block.hessian())
    assert not left.exact and left.products == 60 and left.error > 0
    assert left.reason.startswith("closed form of the Linear layers; 60 products, 20 + 20 random directions for ")
    assert trace(block.hessian(), "exact").value == pytest.approx(float(block.hessian().to_dense().trace()))


def test_tokens_and_batches():
    torch.manual_seed(0)
    words, following = labels(5, 4, classes=6), labels(5, 4, classes=6).roll(1)
    following[3:, 2:] = -100
    risk = EmpiricalRisk(Language().double(), list(words.split(3)), list(following.split(3)))
    np.testing.assert_allclose(diagonal(risk.ggn()).value, risk.ggn().to_dense().diagonal(), atol=1e-15)


def test_wide_layers_do_not_take_more_than_the_budget():
    op = EmpiricalRisk(mlp(5, 40, 3, activation=nn.Tanh).double(), draw(9, 5), labels(9)).hessian()
    assert trace(op).exact
    op.memory_budget = 9 * 40**2
    assert trace(op, probes=5).products == 45


def test_single_precision():
    model, x = mlp(5, 4, 3, activation=nn.Tanh), draw(9, 5)
    single = trace(EmpiricalRisk(model, x.float(), labels(9)).hessian())
    assert single.value == pytest.approx(trace(EmpiricalRisk(model.double(), x, labels(9)).hessian()).value, rel=1e-5)


SCORE = 2.262  # 95 % of Student's t with 9 degrees of freedom lie within


@pytest.mark.parametrize("sketch", [0, 5])
def test_errors_cover(sketch):
    """The share of 400 repeats whose true value lies within the 95 % interval of its own error."""
    matrix = symmetric(60, decay=0.7)
    op, true = aslinearoperator(matrix), np.diag(matrix)
    totals, entries = [], []
    for seed in range(400):
        found = trace(op, "estimate", probes=10, sketch=sketch, seed=seed)
        totals.append((found.value - true.sum()) / found.error)
        found = diagonal(op, "estimate", probes=10, sketch=sketch, seed=seed)
        entries.append((found.value - true) / found.error)
        assert found.products == 10 + 2 * sketch
    for scores in (np.array(totals), np.array(entries)):
        assert 0.925 < (np.abs(scores) < SCORE).mean() < 0.975
        assert abs(scores.mean()) < 0.2


def test_errors_cover_for_a_network():
    op = RISKS["layer norm"].hessian()
    true = float(op.to_dense().trace())
    found = [trace(op, "estimate", probes=10, sketch=3, seed=seed) for seed in range(200)]
    scores = np.array([(f.value - true) / f.error for f in found])
    assert 0.9 < (np.abs(scores) < SCORE).mean() < 0.99 and abs(scores.mean()) < 0.3


def test_a_sketch_takes_out_what_is_large():
    matrix = symmetric(200, decay=2.0)
    op, true = aslinearoperator(matrix), np.trace(matrix)
    errors = {
        s: [trace(op, "estimate", probes=60 - 2 * s, sketch=s, seed=i).value - true for i in range(20)] for s in (0, 20)
    }
    assert np.std(errors[20]) < 0.03 * np.std(errors[0])  # at equal cost
    low = aslinearoperator((lambda a: a @ a.T)(symmetric(40)[:, :3]))  # of rank 3
    found = diagonal(low, "estimate", sketch=6)
    np.testing.assert_allclose(found.value, np.diag(low @ np.eye(40)), atol=1e-12)
    assert found.error.max() < 1e-12


def test_seeds_and_what_is_refused(monkeypatch):
    op = aslinearoperator(symmetric(100))
    a, b, c = (trace(op, seed=seed).value for seed in (0, 0, 1))
    assert a == b != c
    assert trace(aslinearoperator(symmetric(50))).products == 50
    for options, message in (
        ({"probes": 1}, "probes=1"),
        ({"sketch": -1}, "sketch=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"method": "guess"}, "method='guess' is unknown: give 'auto', 'exact' or 'estimate'"),
    ):
        with pytest.raises(ValueError, match=message):
            trace(op, **options)
        with pytest.raises(ValueError, match=message):
            diagonal(op, **options)
    for matrix, message in (
        (np.diag([np.nan, 1.0]), "contains NaN"),
        (np.array([[0, -1j], [1j, 0]]), "complex128"),
        (np.ones((2, 3)), r"shape \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            trace(aslinearoperator(matrix))
    with pytest.raises(TypeError, match="got EmpiricalRisk"):
        trace(RISKS["Tanh-5-4-6-3"])
    monkeypatch.setattr("hesslib.curvature.lanczos.free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match="probes=20, sketch=20: 80 vectors of length M=100"):
        trace(op)


def test_a_closed_form_that_differs_is_reported(monkeypatch):
    kept = module._layers
    monkeypatch.setattr(module, "_layers", lambda op: (1.01 * kept(op)[0], kept(op)[1]))
    with pytest.raises(
        CertificateError, match=r"H: its diagonal \(closed form of the Linear layers\) differs by 9\.9e-03"
    ):
        trace(RISKS["Tanh-5-4-6-3"].hessian())
