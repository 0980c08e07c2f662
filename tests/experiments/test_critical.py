"""Searches for critical points: the fitted law, the descent, and a critical point known in closed form."""

import numpy as np
import pytest
import torch

from hesslib import EmpiricalRisk, spectrum
from hesslib.experiments.critical import critical_points, descend, flatten_gradient, index_law
from hesslib.experiments.zeros import without_bias


@pytest.fixture
def problem():
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    return without_bias([3, 3, 3], "tanh", 0), x, y


@pytest.mark.parametrize("law", [(2.0, 0.2, 1.5), (0.7, 0.1, 1.0)])
def test_the_fit_finds_a_law_that_holds(law):
    factor, edge, exponent = law
    energy = np.linspace(0.22, 0.5, 12)
    assert np.allclose(index_law(energy, factor * (energy - edge) ** exponent), law, rtol=1e-4)
    assert np.isnan(index_law(energy[:4], energy[:4])).all()


def test_the_descent_is_that_of_automatic_differentiation(problem):
    model, x, y = problem
    other = without_bias([3, 3, 3], "tanh", 0)
    for _ in range(5):
        loss = (other(x) - y).square().mean()
        for weight, slope in zip(other.parameters(), torch.autograd.grad(loss, list(other.parameters())), strict=True):
            weight.data -= 2.0 * slope
    descend(model, x, y, 5)
    assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_near_zero_the_search_finds_the_saddle_at_zero_whose_index_is_half(problem):
    model, x, y = problem
    for weight in model.parameters():
        weight.data *= 0.01
    found = flatten_gradient(EmpiricalRisk(model, x, y, loss="mse"), 50)
    assert float(found.gradient().norm()) < 1e-12 and float(found.vector.norm()) < 1e-8
    values = spectrum(found.hessian(), progress=False).eigenvalues
    expected = np.linalg.svd((y.T @ x).numpy() * 2 / y.numel(), compute_uv=False)
    assert np.allclose(values[9:], np.sort(np.repeat(expected, 3))) and (values < 0).sum() == 9


def test_the_norm_of_the_gradient_falls_and_the_numbers_belong_together():
    few, more = (critical_points(0.5, 3, 6, n, 0) for n in (2, 30))
    assert (more["gradient"] <= few["gradient"]).all() and (more["gradient"] < few["gradient"]).any()
    assert ((more["index"] >= 0) & (more["index"] <= 0.5)).all() and (more["energy"] > 0).all()
    assert np.array_equal(more["laws"][0], index_law(more["energy"], more["index"]), equal_nan=True)


def test_where_an_undamped_step_overshoots_a_damped_one_lowers_the_gradient(problem):
    model, x, y = problem
    for weight in model.parameters():
        weight.data *= 2
    risk = EmpiricalRisk(model, x, y, loss="mse")
    g, h = risk.gradient(), risk.hessian().to_dense()
    newton = risk.at(risk.vector - torch.linalg.solve(h, g)).gradient().norm()
    assert newton > g.norm() and flatten_gradient(risk, 1).gradient().norm() < g.norm()
