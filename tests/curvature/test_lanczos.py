import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh

from hesslib import EmpiricalRisk, spectral_density, top_eigenpairs
from tests.curvature.cases import CASES

by_name = {case.name: case for case in CASES}


def with_spectrum(values, seed=0):
    """A dense symmetric matrix with the given eigenvalues."""
    values = np.asarray(values, dtype=float)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values),) * 2))
    return (q * values) @ q.T


OUTLIERS = np.concatenate([np.linspace(5, 15, 10), np.random.default_rng(1).normal(0, 0.1, 490), [-3.0, -4.0]])


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_extreme_pairs_of_outliers_and_bulk(which, k):
    a = with_spectrum(OUTLIERS)
    found = top_eigenpairs(aslinearoperator(a), k, which)
    order = {
        "LA": np.sort(OUTLIERS)[::-1],
        "SA": np.sort(OUTLIERS),
        "LM": OUTLIERS[np.argsort(-np.abs(OUTLIERS))],
    }
    np.testing.assert_allclose(found.eigenvalues, order[which][:k], atol=1e-7)
    assert found.converged and found.eigenvectors.shape == (502, k)
    true = np.linalg.norm(a @ found.eigenvectors - found.eigenvectors * found.eigenvalues, axis=0)
    assert (true <= 1.1e-8 * 15).all() and np.allclose(true, found.residuals, rtol=0.1, atol=1e-12)
    np.testing.assert_allclose(found.eigenvectors.T @ found.eigenvectors, np.eye(k), atol=1e-12)


def counted(a):
    calls = []
    op = LinearOperator(a.shape, matvec=lambda v: (calls.append(1), a @ v)[1], dtype=a.dtype)
    return op, calls


def test_no_more_products_than_scipy_at_the_same_residual():
    a = with_spectrum(OUTLIERS)
    op, ours = counted(a)
    found = top_eigenpairs(op, 10)
    op, theirs = counted(a)
    values, vectors = eigsh(op, 10, which="LA", tol=1e-8)
    residual = np.linalg.norm(a @ vectors - vectors * values, axis=0).max()
    assert len(ours) == found.products <= len(theirs) + 4  # the search for a pair that one start has missed
    assert found.residuals.max() <= max(residual, 1.5e-7)


def test_restarts_reach_a_spectrum_without_gaps():
    values = np.linspace(0, 1, 400)
    found = top_eigenpairs(aslinearoperator(with_spectrum(values)), 3, max_products=5000)
    np.testing.assert_allclose(found.eigenvalues, values[::-1][:3], atol=1e-9)
    assert found.converged and found.products > 60


def test_giving_up_is_admitted():
    found = top_eigenpairs(aslinearoperator(with_spectrum(np.linspace(0, 1, 400))), 3, max_products=10)
    assert not found.converged and found.products == 10


@pytest.mark.parametrize("values", [[5.0] * 3 + [1.0] * 40, [0.0] * 30, [2.0] * 20, [7.0, 7.0, -7.0, 0.0] + [0.0] * 30])
@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_exhausted_spaces_and_repeated_eigenvalues(values, which):
    k = 3
    found = top_eigenpairs(aslinearoperator(with_spectrum(values)), k, which)
    key = {"LA": -np.array(values), "SA": np.array(values), "LM": -np.abs(values)}[which]
    np.testing.assert_allclose(
        np.abs(found.eigenvalues), np.abs(np.array(values)[np.argsort(key, kind="stable")][:k]), atol=1e-9
    )


def float32(values, seed=0):
    a = torch.as_tensor(with_spectrum(values, seed)).float().numpy()
    return LinearOperator(a.shape, matvec=lambda v: a @ v.astype(np.float32), matmat=lambda v: a @ v, dtype=np.float32)


@pytest.mark.parametrize("times", [2, 3, 5])
@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_repeated_pairs_are_counted(which, times):
    values = np.repeat(np.arange(50.0, 0, -1), times) - (80 if which == "SA" else 0)
    found = top_eigenpairs(aslinearoperator(with_spectrum(values)), 6, which)
    exact = {"LA": np.sort(values)[::-1], "SA": np.sort(values), "LM": values[np.argsort(-abs(values))]}[which][:6]
    np.testing.assert_allclose(found.eigenvalues, exact, rtol=1e-9)
    assert found.converged
    np.testing.assert_allclose(found.eigenvectors.T @ found.eigenvectors, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("make", [lambda a: aslinearoperator(with_spectrum(a)), float32])
def test_small_negatives_are_right_or_not_converged(make, size):
    values = np.concatenate(
        [
            np.linspace(0.5, 1, 10),
            np.abs(np.random.default_rng(0).normal(0, 1e-3, 300)),
            -size * np.linspace(0.88, 1, 5),
        ]
    )
    op = make(values)
    found, exact = top_eigenpairs(op, 5, "SA"), np.sort(values)[:5]
    if found.converged:  # below 2.4e-6 of the largest float32 has only rounding
        rounding = 2.4e-6 if op.dtype == np.float32 else 1e-14
        np.testing.assert_allclose(
            found.eigenvalues, exact, rtol=1e-2 if op.dtype == np.float32 else 1e-6, atol=rounding
        )
    else:
        assert op.dtype == np.float32 and size < 1e-3


def test_a_cluster_in_float32_and_extreme_scales():
    values = np.concatenate([1 + 1e-6 * np.arange(12), np.linspace(-0.5, 0.5, 200)])
    found = top_eigenpairs(float32(values), 10)
    np.testing.assert_allclose(found.eigenvalues, np.sort(values)[::-1][:10], atol=1e-5)
    for scale in (1e-160, 1e150, 1e-300):
        a = with_spectrum(OUTLIERS) * scale
        for which in ("LA", "SA"):
            found = top_eigenpairs(aslinearoperator(a), 2, which)
            np.testing.assert_allclose(
                found.eigenvalues / scale, np.sort(OUTLIERS)[[-1, -2] if which == "LA" else [0, 1]]
            )
            assert found.converged
    with pytest.raises(ValueError, match="NaN or infinite"):
        top_eigenpairs(aslinearoperator(np.full((80, 80), np.nan)), 2)


def test_exact_low_rank_leaves_no_ghosts():
    values = np.concatenate([np.arange(1, 11.0), np.zeros(190)])
    density = spectral_density(aslinearoperator(with_spectrum(values)), 3, 60, seed=0)
    heavy = density.nodes[density.weights > 1e-12]
    assert all(np.abs(values - node).min() < 1e-9 for node in heavy)
    assert (density.nodes > 0.5).sum(1).tolist() == [10, 10, 10]


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 30), k=st.integers(1, 30), seed=st.integers(0, 5))
def test_any_size(m, k, seed):
    k = min(k, m)
    values = np.random.default_rng(seed).standard_normal(m)
    found = top_eigenpairs(aslinearoperator(with_spectrum(values, seed)), k, seed=seed)
    np.testing.assert_allclose(found.eigenvalues, np.sort(values)[::-1][:k], atol=1e-8)


def test_pairs_of_a_hessian_agree_with_its_matrix():
    case = by_name["relu-convolution"]
    op = EmpiricalRisk(case.model, case.inputs, case.targets).hessian()
    exact = np.linalg.eigvalsh(op.to_dense().numpy())
    np.testing.assert_allclose(top_eigenpairs(op, 3).eigenvalues, exact[::-1][:3], rtol=1e-10)
    np.testing.assert_allclose(top_eigenpairs(op, 2, "SA").eigenvalues, exact[:2], atol=1e-10)


def test_float32_converges_to_its_own_accuracy():
    case = by_name["Tanh-5-4-6-3"]
    model = __import__("copy").deepcopy(case.model).float()
    found = top_eigenpairs(EmpiricalRisk(model, case.inputs.float(), case.targets).hessian(), 2)
    exact = np.linalg.eigvalsh(EmpiricalRisk(case.model, case.inputs, case.targets).hessian().to_dense())[::-1][:2]
    assert found.converged and found.eigenvectors.dtype == np.float32
    np.testing.assert_allclose(found.eigenvalues, exact, rtol=1e-4)


def wishart(m=300, n=600):
    x = np.random.default_rng(0).standard_normal((n, m))
    return x.T @ x / n


def test_density_of_a_wishart_matrix():
    a = wishart()
    values = np.linalg.eigvalsh(a)
    density = spectral_density(aslinearoperator(a), 20, 60, seed=1)
    grid = np.linspace(-0.2, 3.4, 80)
    mean, error = density.density(grid, 0.1)
    z = (grid[:, None] - values) / 0.1
    exact = np.exp(-(z**2) / 2).mean(1) / (0.1 * np.sqrt(2 * np.pi))
    assert (np.abs(mean - exact) < 4 * error + 1e-6).all() and error.max() < 0.1
    assert np.trapezoid(mean, grid) == pytest.approx(1, abs=0.01)
    trace, trace_error = density.mean(lambda x: x)
    assert abs(trace - values.mean()) < 4 * trace_error
    np.testing.assert_allclose(density.weights.sum(1), 1)


def test_all_steps_make_the_quadrature_exact_for_its_probe():
    a = with_spectrum(np.random.default_rng(3).standard_normal(25))
    density = spectral_density(aslinearoperator(a), 1, 25, seed=0)
    np.testing.assert_allclose(np.sort(density.nodes[0]), np.linalg.eigvalsh(a), atol=1e-10)


def test_negative_fraction_has_an_honest_error():
    values = np.concatenate([-np.ones(60) - np.arange(60) / 60, np.linspace(1, 2, 240)])
    hits = 0
    for seed in range(10):
        mean, error = spectral_density(aslinearoperator(with_spectrum(values)), 10, 40, seed).negative_fraction(0.1)
        hits += abs(mean - 0.2) < 2 * error
    assert hits >= 7


@pytest.mark.parametrize("threshold", [1e-2, 1e-4, 1e-6])
def test_the_error_of_a_fraction_covers_the_bias_of_the_quadrature(threshold):
    generator = np.random.default_rng(5)
    sizes = 10 ** generator.uniform(-8, -1, 250) * generator.choice([-1, 1, 1], 250)
    values = np.concatenate([sizes, np.linspace(0.2, 1, 10), np.zeros(140)])
    a, exact, hits = with_spectrum(values), (values < -threshold).mean(), 0
    for seed in range(20):
        share, error = spectral_density(aslinearoperator(a), 10, 40, seed).negative_fraction(threshold)
        hits += abs(share - exact) < 2 * error
    assert hits >= 18


def test_the_error_of_a_fraction_is_small_where_the_steps_resolve_the_threshold():
    density = spectral_density(aslinearoperator(with_spectrum(OUTLIERS)), 10, 60, seed=0)
    probes = density.mean(lambda x: (x >= 1).astype(float))[1]
    assert probes <= density.fraction(low=1)[1] < 1.6 * probes


def test_deflation_takes_outliers_out_exactly():
    a = with_spectrum(OUTLIERS)
    top = top_eigenpairs(aslinearoperator(a), 12, "LM", tolerance=1e-10)
    density = spectral_density(aslinearoperator(a), 5, 30, seed=0, deflate=top)
    assert np.abs(density.nodes[density.weights > 1e-10]).max() < 1
    assert density.fraction(low=1)[0] == pytest.approx(10 / 502)
    assert density.fraction(high=-1)[0] == pytest.approx(2 / 502)
    assert density.mean(np.ones_like)[0] == pytest.approx(1)


def test_seed_decides_and_one_probe_has_no_error():
    a = aslinearoperator(wishart(40, 80))
    one, two, three = (spectral_density(a, 2, 10, seed=s).nodes for s in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, three)
    assert np.isnan(spectral_density(a, 1, 10).mean(lambda x: x)[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: top_eigenpairs(a, 0), "k=0: give a whole number from 1 to 40"),
        (lambda a: top_eigenpairs(a, 41), "k=41"),
        (lambda a: top_eigenpairs(a, 1, "BE"), "which='BE'"),
        (lambda a: spectral_density(a, 0), "probes=0"),
        (lambda a: spectral_density(a, 1, 0), "steps=0"),
    ],
)
def test_bad_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(aslinearoperator(wishart(40, 80)))


def test_model_on_batches_gives_the_same_pairs():
    case = by_name["Softplus-5-4-6-3"]
    whole = EmpiricalRisk(case.model, case.inputs, case.targets).hessian()
    parts = EmpiricalRisk(case.model, case.inputs.split(4), case.targets.split(4)).hessian()
    np.testing.assert_allclose(top_eigenpairs(whole, 2).eigenvalues, top_eigenpairs(parts, 2).eigenvalues, rtol=1e-12)
    assert isinstance(whole @ torch.ones(whole.shape[0]).double(), torch.Tensor)
