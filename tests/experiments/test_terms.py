"""What R is made of: each measure by another route, and the test of correlation where the claim is false."""

import pytest
import torch

from hesslib import EmpiricalRisk, jacobian
from hesslib.experiments.data import blobs
from hesslib.experiments.models import fully_connected
from hesslib.experiments.terms import class_means, curvature_of_outputs, output_slopes, summand_norms


@pytest.fixture
def risk():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=generator)
    return EmpiricalRisk(fully_connected([6, 4, 5, 3], seed=3), x, y)


def test_with_the_slopes_it_is_the_residual(risk):
    found = curvature_of_outputs(risk, output_slopes(risk))
    torch.testing.assert_close(found, risk.residual().to_dense(), rtol=1e-12, atol=1e-14)


def test_norms_of_summands_are_those_of_single_examples(risk):
    x, y = risk.batches[0]
    norms = summand_norms(risk, output_slopes(risk), chunk=7)
    for i in (0, 17, 39):
        alone = EmpiricalRisk(risk.model, x[i : i + 1], y[i : i + 1]).residual().to_dense().norm()
        torch.testing.assert_close(norms[i], alone.detach(), rtol=1e-12, atol=1e-14)


def distance_to_dealt(risk, slopes):
    """The deciding number of the claim that slopes and second derivatives are not correlated."""
    mean = curvature_of_outputs(risk, slopes.mean(0).expand_as(slopes))
    deal = torch.randperm(len(slopes), generator=torch.Generator().manual_seed(0))
    r, dealt = (curvature_of_outputs(risk, s) for s in (slopes, slopes[deal]))
    return float((r - mean).norm() / (dealt - mean).norm())


def test_the_test_of_correlation_tells_correlated_slopes_from_independent_ones(risk):
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn(20, 40, 3, generator=generator, dtype=torch.float64)
    assert 0.8 < sum(distance_to_dealt(risk, independent) for independent in draws) / 20 < 1.25
    one, other = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    x = torch.where(
        (torch.arange(40) % 2 == 0)[:, None], 5 * one, 5 * other
    )  # two clusters, and slopes that tell them apart
    split = EmpiricalRisk(risk.model, x, risk.batches[0][1])
    assert distance_to_dealt(split, (torch.arange(40) % 2 * 2.0 - 1)[:, None].double().expand(40, 3)) > 1.25


def test_class_means_are_weighted_means_of_the_gradients_of_all_labels():
    data = blobs(30, 3, 5, seed=0)
    risk = EmpiricalRisk(fully_connected([5, 4, 3], seed=0), data.inputs, data.targets)
    p = risk.outputs(risk.parameters, data.inputs).softmax(1)
    g = torch.einsum("ncm,nlc->nlm", jacobian(risk), p[:, None] - torch.eye(3).double())
    assert torch.allclose(torch.einsum("nl,nlm,nlk->mk", p, g, g) / 30, risk.ggn().to_dense(), atol=1e-14)
    cells = [(data.targets == c, label) for c in range(3) for label in range(3)]
    direct = [p[at, label] @ g[at, label] / (30 * p[at, label].sum()) ** 0.5 for at, label in cells]
    assert torch.allclose(class_means(risk), torch.stack(direct), atol=1e-14)


def test_class_means_are_all_of_g_where_the_examples_of_a_class_are_one():
    x = torch.eye(3).double().repeat(4, 1)
    risk = EmpiricalRisk(fully_connected([3, 5, 3], seed=1), x, torch.arange(12) % 3)
    b = class_means(risk)
    assert torch.allclose(b.T @ b, risk.ggn().to_dense(), atol=1e-14)
