"""Distances, zeros and minima, on cases whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from hesslib import EmpiricalRisk, spectrum
from hesslib.experiments.flatness import directions, finite_curvature, newton_descent, structural_zeros
from hesslib.experiments.models import fully_connected


def some_data(n, d, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


@pytest.mark.parametrize("n", [5, 60])
def test_zeros_of_one_hidden_layer_are_all_explained(n):
    x, y = some_data(n, 12, 3)
    x[:, 4] = 0  # a black pixel
    x[: n // 2, 7] = 0
    risk = EmpiricalRisk(fully_connected([12, 5, 3], seed=1), x, y)
    found, values = structural_zeros(risk), np.abs(spectrum(risk.hessian()).eigenvalues)
    assert found["black"] == 5
    assert sum(found.values()) == (values <= 1e-12 * values.max()).sum()


def test_more_layers_never_have_fewer_zeros_than_explained():
    for seed in range(5):
        x, y = some_data(8, 12, 3, seed)
        risk = EmpiricalRisk(fully_connected([12, 4, 4, 3], seed=seed), x, y)
        values = np.abs(spectrum(risk.hessian()).eigenvalues)
        assert sum(structural_zeros(risk).values()) <= (values <= 1e-12 * values.max()).sum()


def test_a_quadratic_loss_has_the_same_curvature_over_every_distance():
    x, _ = some_data(20, 4, 2)
    risk = EmpiricalRisk(nn.Linear(4, 2).double(), x, torch.zeros(20, 2, dtype=torch.float64), "mse")
    top, found = directions(risk, leading=2, drawn=3, seed=0)
    curvatures, rises = finite_curvature(risk, found["leading"], [1e-3, 1.0])
    assert np.allclose(curvatures, curvatures[:, :1], rtol=1e-8) and curvatures[0, 0] == pytest.approx(top)
    assert np.allclose(rises, curvatures * np.array([1e-6, 1.0]) / 2, rtol=1e-6)


def test_a_kink_is_seen_from_its_distance_on():
    """A direction of a ReLU network that the Hessian calls flat bends where it meets a kink: the test can fail."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for p, value in zip(model.parameters(), (1.0, -0.99, 1.0, 0.0)):
            p.fill_(value)
    inputs, targets = torch.tensor([[0.98]]).double(), torch.ones(1, 1).double()  # inactive by 0.01
    risk = EmpiricalRisk(model, inputs, targets, "mse")
    v = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double()
    curvatures, _ = finite_curvature(risk, v, [1e-3, 1e-1])
    assert curvatures[0, 0] == 0 and abs(curvatures[0, 1]) > 1


def test_newton_ends_at_a_minimum_and_not_at_a_saddle():
    x, y = some_data(30, 6, 3)
    start = EmpiricalRisk(fully_connected([6, 4, 3], activation="softplus", seed=2), x, y)
    end, rows = newton_descent(start, 1e-2)
    assert rows[0, 2] < 0 < rows[-1, 2] and rows[-1, 1] <= 1e-12
    assert np.all(np.diff(rows[:, 0]) < 1e-12)
    assert float((end.gradient() + 1e-2 * end.vector).norm()) <= 1e-12
