"""Ranks of H, G and R of deep linear networks: a theorem and 27 published integers, which no code of ours has made."""

import pytest
import torch

from hesslib import EmpiricalRisk, spectrum
from hesslib.experiments.zeros import PUBLISHED, digits_of_rank, linear_ranks, without_bias, zeros_of

WIDTHS = [pytest.param(i, m, marks=[pytest.mark.slow] if m > 20 else []) for i, m in enumerate(PUBLISHED["m"])]


def found(model, x, y, loss="cross_entropy"):
    risk = EmpiricalRisk(model, x, y, loss=loss)
    operators = {"H": risk.hessian(), "G": risk.ggn(), "R": risk.residual()}
    values = {k: spectrum(op, progress=False).eigenvalues for k, op in operators.items()}
    return {k: len(v) - zeros_of(v) for k, v in values.items()}


@pytest.mark.parametrize("i, m", WIDTHS)
def test_the_published_ranks_of_deep_linear_networks_come_out(i, m):
    """64-m-m-10, N = 100, cross-entropy. Ours are other digits, with 23 pixels made black, so that the rank is 41."""
    x, y = digits_of_rank(100, seed=0, rank=41)
    assert int(torch.linalg.matrix_rank(x)) == 41
    published = {k: PUBLISHED[k][i] for k in "HGR"}
    assert linear_ranks([m, m], 41, 9) == published
    assert found(without_bias([64, m, m, 10], "linear", 0), x, y) == published


@pytest.mark.parametrize(
    "widths, rank, loss", [([5], 20, "cross_entropy"), ([12, 6, 8], 15, "mse"), ([3, 9], 4, "mse")]
)
def test_the_formula_holds_for_other_depths_ranks_and_losses(widths, rank, loss):
    x, y = digits_of_rank(60, seed=1, rank=rank)
    slopes = 10 if loss == "mse" else 9
    targets = torch.eye(10, dtype=x.dtype)[y] if loss == "mse" else y
    assert found(without_bias([64, *widths, 10], "linear", 2), x, targets, loss) == linear_ranks(widths, rank, slopes)


def test_a_tanh_network_has_another_rank():
    """What the count says where the formula is no theorem: the test can fail."""
    x, y = digits_of_rank(100, seed=0, rank=41)
    assert found(without_bias([64, 16, 16, 10], "tanh", 0), x, y)["H"] > linear_ranks([16, 16], 41, 9)["H"]
