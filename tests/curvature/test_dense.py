import numpy as np
import pytest
import torch

from hesslib import EmpiricalRisk, spectrum
from hesslib.curvature import dense
from hesslib.curvature.certificates import CertificateError
from tests.curvature.cases import CASES, distance, mlp, reference

by_name = {case.name: case for case in CASES}


def hessian_of(case):
    return EmpiricalRisk(case.model, case.inputs, case.targets, case.loss).hessian()


@pytest.mark.parametrize("chunk", [1, 1000, 30_000])
def test_outer_products_may_be_cut_anywhere(chunk, monkeypatch):
    monkeypatch.setattr(dense, "CHUNK_BYTES", chunk)
    case = by_name["Softplus-3-8-2-4-3"]
    exact = reference(case.model, case.inputs, case.targets)
    assert distance(hessian_of(case).to_dense(), exact) < 1e-12


@pytest.mark.parametrize("sizes", [(2, 30, 3), (30, 2, 3), (4, 4, 30, 3), (20, 20, 20)])
def test_both_contractions_are_right(sizes):
    torch.manual_seed(0)
    x, y = torch.randn(7, sizes[0]).double(), torch.randint(3, (7,))
    model = mlp(*sizes, activation=torch.nn.Tanh).double()
    exact = reference(model, x, y)
    assert distance(EmpiricalRisk(model, x, y).hessian().to_dense(), exact) < 1e-12


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, monkeypatch):
    op, calls = hessian_of(by_name["convolution"]), []
    product = op.product

    def breaks_after_four(v):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(len(v))
        return product(v)

    monkeypatch.setattr(op, "product", breaks_after_four)
    with pytest.raises(KeyboardInterrupt):
        op.to_dense(checkpoint=tmp_path)
    again = hessian_of(by_name["convolution"])
    rows = []
    monkeypatch.setattr(again, "product", lambda v, f=again.product: (rows.append(len(v)), f(v))[1])
    exact = reference(by_name["convolution"].model, by_name["convolution"].inputs, by_name["convolution"].targets)
    assert distance(again.to_dense(checkpoint=tmp_path), exact) < 1e-12
    assert sum(rows) == sum(1 for _, at in again.structure.head for _ in range(at.start, at.stop)) - sum(calls)


def test_a_checkpoint_of_another_problem_is_not_used(tmp_path):
    case = by_name["convolution"]
    hessian_of(case).to_dense(checkpoint=tmp_path)
    other = EmpiricalRisk(case.model, case.inputs + 1, case.targets).hessian()
    exact = reference(case.model, case.inputs + 1, case.targets)
    assert distance(other.to_dense(checkpoint=tmp_path), exact) < 1e-12


def test_what_cannot_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(dense, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"39 x 39 needs .* top_eigenpairs"):
        hessian_of(by_name["ReLU-5-4-3"]).to_dense()


@pytest.mark.parametrize("name", ["ReLU-5-4-6-3", "convolution", "mse", "skip"])
def test_spectrum_agrees_with_the_dense_reference(name):
    case = by_name[name]
    s = spectrum(hessian_of(case))
    exact = np.linalg.eigvalsh(reference(case.model, case.inputs, case.targets, case.loss).numpy())
    np.testing.assert_allclose(s.eigenvalues, exact, atol=1e-13 * abs(exact).max())
    assert s.eigenvalues.dtype == np.float64 and s.method == "dense" and s.reason
    assert set(s.certificates) == {"symmetry", "product", "trace", "frobenius"}
    assert max(s.certificates.values()) < 1e-12


def test_parameters_that_touch_no_example_give_exact_zeros():
    x, y = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)).double(), torch.arange(9) % 3
    x[:, :2] = 0
    s = spectrum(EmpiricalRisk(mlp(5, 4, 3).double(), x, y).hessian())
    assert (s.eigenvalues == 0).sum() >= 8


def test_certificates_notice_a_wrong_matrix(monkeypatch):
    op = hessian_of(by_name["Tanh-5-4-3"])
    wrong = op.to_dense()
    wrong[0, 1] += 1e-3
    monkeypatch.setattr(op, "to_dense", lambda **_: wrong)
    with pytest.raises(CertificateError, match=r"H: certificates of the spectrum are above 1e-06: symmetry .*product"):
        spectrum(op)
    op.risk.on_failure = "warn"
    with pytest.warns(UserWarning, match="certificates of the spectrum"):
        found = spectrum(op).certificates
    assert found["symmetry"] > 1e-5 and found["product"] > 1e-5


def test_counts_name_their_threshold():
    from hesslib import Spectrum

    s = Spectrum(np.array([-1.0, -1e-9, 0, 1e-4, 2, 10]), "dense", "", 0.0)
    assert (s.count(above=1), s.count_bulk(1e-3), s.count_negative(1e-6)) == (2, 3, 1)
    with pytest.raises(ValueError, match="tolerance=-1"):
        s.count_negative(-1)
    with pytest.raises(ValueError, match="method='fast'"):
        spectrum(hessian_of(by_name["Tanh-5-4-3"]), "fast")
