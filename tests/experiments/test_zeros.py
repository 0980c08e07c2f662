"""Zeros at a global minimum, by structure, and the ratio of spacings."""

import numpy as np
import torch

from hesslib import EmpiricalRisk, spectrum
from hesslib.experiments.data import blobs
from hesslib.experiments.flatness import shrunk_digits
from hesslib.experiments.models import fully_connected
from hesslib.experiments.zeros import account, spacing_ratios, to_zero_loss, true_against_rest, unweighted, zeros_of


def zeros(op):
    return zeros_of(spectrum(op, progress=False).eigenvalues)


def test_a_global_minimum_of_squared_error_has_m_minus_nc_zeros():
    x, _ = shrunk_digits(12, 0)
    x = (x - x.mean(0)) / x.std()
    t = torch.randn(12, 3, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    start = EmpiricalRisk(fully_connected([49, 8, 3], activation="tanh", seed=0), x, t, loss="mse")
    end = to_zero_loss(start)
    assert end.loss() < 1e-26 and zeros(end.hessian()) == end.num_parameters - 36
    assert zeros(start.hessian()) < start.num_parameters - 36


def test_the_account_counts_the_zeros_of_small_networks():
    for sizes, n in (([49, 6, 10], 50), ([49, 8, 10], 120)):
        x, y = shrunk_digits(n, 0)
        risk = EmpiricalRisk(fully_connected(sizes, seed=0), x, y)
        found = account(risk)
        assert sum(found.values()) == zeros(unweighted(risk).ggn()), found


def test_units_active_on_all_examples_are_mixed_and_shifted():
    """Two linear units: four ways to mix them, two to shift them; of these two are the scaling."""
    data, model = blobs(40, 3, 4, seed=0), fully_connected([4, 2, 3], seed=0)
    with torch.no_grad():
        model[0].bias += 100
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    found = account(risk)
    assert found["scaling"] == 2 and found["undone"] == 4 and found["shifts"] == 3
    assert sum(found.values()) == zeros(unweighted(risk).ggn())


def test_the_true_class_against_the_rest_has_rank_n_and_is_all_of_g_for_two_classes():
    for classes in (2, 4):
        data = blobs(15, classes, 8, seed=0)
        risk = EmpiricalRisk(fully_connected([8, 6, classes], seed=0), data.inputs, data.targets)
        own, rest = true_against_rest(risk)
        whole = risk.ggn().to_dense()
        assert float((own + rest - whole).abs().max()) < 1e-13
        assert len(own) - zeros_of(torch.linalg.eigvalsh(own).numpy()) <= 15
        assert (float(rest.abs().max()) < 1e-15) == (classes == 2)


def test_the_ratio_of_spacings_tells_gaussian_matrices_from_independent_numbers_and_from_blocks():
    draw = np.random.default_rng(0)
    gaussian = [(a + a.T) for a in draw.standard_normal((6, 400, 400))]
    values = [np.linalg.eigvalsh(a) for a in gaussian]
    mean = lambda v: np.mean(np.concatenate([spacing_ratios(one) for one in v]))
    assert abs(mean(values) - 0.5307) < 0.015
    assert abs(mean([np.sort(draw.random(5000)) + 1]) - (2 * np.log(2) - 1)) < 0.015
    pairs = [np.sort(np.concatenate(values[i : i + 2])) for i in (0, 2, 4)]
    assert mean(pairs) < 0.47  # two blocks that do not see each other
