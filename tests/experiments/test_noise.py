"""Curvature along steps of batches, restricted and scaled steps, and differences, where the answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from hesslib import EmpiricalRisk, spectrum
from hesslib.experiments.noise import (
    adam_edge,
    against_exact,
    batch_sharpness,
    by_differences,
    descent,
    difference_products,
    differences,
    scaled,
    single_precision,
    small_risk,
    stochastic_edge,
    subspaces,
)
from hesslib.experiments.training import train


def test_batch_sharpness_is_the_mean_over_batches():
    risk = small_risk(20, 0, hidden=4)
    x, y = risk.batches[0]
    draw, terms = torch.Generator().manual_seed(3), []
    for _ in range(7):
        chosen = torch.randperm(20, generator=draw)[:5]
        one = EmpiricalRisk(risk.model, x[chosen], y[chosen], "mse")
        g = one.gradient()
        terms.append([float(g @ (one.hessian() @ g)), float(g @ g)])
    above, below = np.mean(terms, 0)
    assert batch_sharpness(risk, 5, 7, 3) == pytest.approx(above / below, rel=1e-10)


def test_descent_is_that_of_train_and_leaves_the_risk_as_it_was():
    risk = small_risk(30, 0, "cross_entropy", hidden=4)
    x, y = risk.batches[0]
    model, before = nn.Sequential(*risk.model), risk.vector.clone()
    *_, (last, w) = descent(risk, lambda i, w, g: -0.3 * g, batch=10, iterations=12, seed=5)
    assert last == 12 and torch.equal(risk.vector, before)
    history = train(model, x, y, step_size=0.3, iterations=12, batch_size=10, seed=5, progress=False)
    assert torch.allclose(history.parameters[-1], w, rtol=1e-12)


def test_a_run_that_diverges_is_padded():
    found = stochastic_edge("mse", 1000.0, 10, examples=20, iterations=50, seed=0, moments=5)
    assert np.isfinite(found["losses"][0]) and np.isnan(found["losses"][-1]) and len(found["losses"]) == 6


def test_the_two_parts_of_a_step_are_its_whole():
    found = subspaces(0.5, 10, examples=20, start=5, iterations=1, renew=1, count=3, seed=0)
    change = {k: found[k][1] - found[k][0] for k in ("plain", "leading", "rest")}
    assert found["plain"][0] == found["leading"][0] == found["rest"][0]
    assert all(0 < share <= 1 for share in found["share"]) and change["leading"] < 0 > change["rest"]
    # The parts are orthogonal in H too, so the loss is their sum but for third derivatives.
    assert abs(change["plain"] - change["leading"] - change["rest"]) < 1e-3 * abs(change["plain"])


def test_scaling_from_both_sides():
    risk = small_risk(20, 0, hidden=3)
    scale = np.linspace(0.5, 2, risk.num_parameters)
    dense = risk.hessian().to_dense(progress=False).numpy()
    v = np.random.default_rng(0).standard_normal((risk.num_parameters, 2))
    assert np.allclose(scaled(risk.hessian(), scale) @ v, np.diag(scale) @ dense @ np.diag(scale) @ v)


def test_adam_takes_the_steps_of_the_library():
    risk = small_risk(20, 0)
    x, y = risk.batches[0]
    model = nn.Sequential(*risk.model)
    library = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        library.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        library.step()
    expected = nn.functional.mse_loss(model(x), y).item()
    found = adam_edge(0.01, examples=20, iterations=20, seed=0, moments=2)
    assert found["losses"][-1] == pytest.approx(expected, rel=1e-9)


def test_differences_of_a_quadratic_loss_are_its_products():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    risk = EmpiricalRisk(nn.Linear(4, 2).double(), x, torch.zeros(20, 2, dtype=torch.float64), "mse")
    v = torch.eye(10, dtype=torch.float64)
    assert torch.allclose(difference_products(risk, v, 0.1), risk.hessian().to_dense(progress=False), atol=1e-12)
    single = by_differences(single_precision(risk), 0.1) @ np.eye(10, dtype=np.float32)
    assert single.dtype == np.float32 and np.allclose(single, by_differences(risk, 0.1) @ np.eye(10), atol=1e-5)


def test_a_kink_within_the_difference_is_seen_and_one_beyond_is_not():
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for p, value in zip(model.parameters(), (1.0, -0.99, 1.0, 0.0), strict=True):
            p.fill_(value)
    risk = EmpiricalRisk(model, torch.tensor([[0.98]]).double(), torch.ones(1, 1).double(), "mse")
    exact, basis = risk.hessian().to_dense(progress=False), torch.eye(4, dtype=torch.float64)
    near, far = (against_exact(risk, exact, basis, h, 1e-4)[0] for h in (1e-3, 1e-1))
    assert near < 1e-9 and far > 1


def test_the_exact_row_is_exact_and_short_differences_in_single_precision_are_not():
    found = differences("tanh", 1.0, [1e-6, 1e-3, 1e-2, 1e-1], examples=20, hidden=3, iterations=20, seed=0)
    assert found["double"][0, 0] < 1e-12 and found["single"][0, 0] < 1e-5 < found["single"][1, 0]
    assert found["double"][0, 2] == pytest.approx(found["exact"][-1]) and found["late"].shape == (11, 2)
    risk = small_risk(20, 0, hidden=3)
    assert len(found["exact"]) == len(spectrum(risk.hessian()).eigenvalues)
