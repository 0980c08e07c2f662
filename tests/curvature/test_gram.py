import numpy as np
import pytest
import torch

from hesslib import EmpiricalRisk, spectrum
from hesslib.curvature import gram
from tests.curvature.cases import CASES, mlp

by_name = {case.name: case for case in CASES}


def operators(case):
    risk = EmpiricalRisk(case.model, case.inputs, case.targets, case.loss)
    found = [risk.hessian(), risk.ggn(), risk.residual()]
    return found + ([risk.ggn("probability"), risk.residual("probability")] if case.loss == "cross_entropy" else [])


def test_gram_agrees_with_dense_wherever_it_applies():
    compared = 0
    for case in CASES:
        for op in operators(case):
            if gram.why_not(op):
                continue
            few, all_ = spectrum(op, "gram"), spectrum(op, "dense")
            scale = max(np.abs(all_.eigenvalues).max(), 1e-6)
            np.testing.assert_allclose(
                few.eigenvalues, all_.eigenvalues, atol=2e-14 * scale, err_msg=f"{case.name} {op.name}"
            )
            assert max(few.certificates.values()) < 1e-10 or scale == 1e-6, (
                case.name,
                op.name,
                few.certificates,
            )
            compared += 1
    assert compared > 40


def test_more_parameters_than_the_rank():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(12, 40, generator=generator).double(), torch.arange(12) % 3
    op = EmpiricalRisk(mlp(40, 9, 3).double(), x, y).hessian()
    s = spectrum(op)
    assert s.method == "gram" and "rank at most" in s.reason and gram.columns(op) == 12 * 2 + 2 * 2 * 9
    dense = spectrum(op, "dense")
    np.testing.assert_allclose(s.eigenvalues, dense.eigenvalues, atol=1e-14 * dense.eigenvalues[-1])
    assert len(s.eigenvalues) == op.shape[0] and (s.eigenvalues == 0).sum() >= op.shape[0] - gram.columns(op)
    # at most C - 1 negative eigenvalues for each hidden unit
    assert 0 < s.count_negative(1e-13) == dense.count_negative(1e-13) <= 2 * 9


def test_a_singular_gram_matrix_is_handled():
    x = torch.rand(6, 30, generator=torch.Generator().manual_seed(0)).double()
    x, y = torch.cat([x, x]), torch.arange(12) % 3  # every example twice, with another label
    y[6:] = y[:6]
    op = EmpiricalRisk(mlp(30, 5, 3).double(), x, y).hessian()
    few, all_ = spectrum(op, "gram"), spectrum(op, "dense")
    np.testing.assert_allclose(few.eigenvalues, all_.eigenvalues, atol=1e-14 * all_.eigenvalues[-1])


def test_auto_takes_the_smaller_matrix_and_says_why():
    case = by_name["ReLU-5-3"]
    risk = EmpiricalRisk(case.model, case.inputs, case.targets)
    assert spectrum(risk.hessian()).reason == "M = 18 is below the bound 22 on the rank"
    assert spectrum(risk.ggn("probability")).method == "gram"
    curved = by_name["Tanh-5-4-3"]
    assert "piecewise linear" in spectrum(EmpiricalRisk(curved.model, curved.inputs, curved.targets).hessian()).reason


@pytest.mark.parametrize(
    ("name", "why"),
    [("convolution", "outside the chain"), ("Tanh-5-4-3", "piecewise"), ("ReLU-5-4-6-3", "one hidden")],
)
def test_gram_says_why_it_does_not_apply(name, why):
    case = by_name[name]
    with pytest.raises(ValueError, match=f"method='gram' does not apply to H: .*{why}"):
        spectrum(EmpiricalRisk(case.model, case.inputs, case.targets).hessian(), "gram")


def test_a_subset_of_the_parameters_is_refused():
    case = by_name["ReLU-5-4-3"]
    for names, why in ((["0.weight", "0.bias"], "weight"), (["0.weight", "2.weight"], "bias")):
        with pytest.raises(ValueError, match=f"not every layer's {why}"):
            spectrum(EmpiricalRisk(case.model, case.inputs, case.targets, parameters=names).ggn(), "gram")


def test_memory_is_asked_for_before_it_is_taken(monkeypatch):
    import hesslib.curvature.spectrum as module

    monkeypatch.setattr(module, "free_memory", lambda device: 100)
    case = by_name["ReLU-5-4-3"]
    with pytest.raises(MemoryError, match=r"order 39 need .* gram: a matrix of order 38.* top_eigenpairs"):
        spectrum(EmpiricalRisk(case.model, case.inputs, case.targets).hessian(), "dense")
