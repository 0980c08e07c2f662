import numpy as np
import pytest

from hesslib.theory import DeformedMarchenkoPastur, TracyWidom, edge_scale
from hesslib.theory.tracy_widom import fredholm

VALUES = {  # F1, F2: Fredholm determinants with 80 nodes, equal to those TracyWidom.jl publishes
    0: (0.83190806620295, 0.96937282835526),
    -1: (0.58378989551972, 0.80721424199928),
    -2: (0.27432019790921, 0.41322414250511),
    -3: (0.06960011886737, 0.08031955293933),
}
MOMENTS = {1: (-1.20653, 1.60778), 2: (-1.77109, 0.81319)}
QUANTILES = {1: [-1.26857, 0.45014, 0.97932, 2.02345], 2: [-1.80491, -0.59685, -0.23247, 0.47764]}


@pytest.mark.parametrize("beta", [1, 2])
def test_published_values_moments_and_quantiles(beta):
    law = TracyWidom(beta)
    for s, values in VALUES.items():
        assert abs(law.cdf(s) - values[beta - 1]) < 1e-12
    np.testing.assert_allclose([law.mean, law.std**2], MOMENTS[beta], atol=6e-6)
    np.testing.assert_allclose(law.ppf([0.5, 0.9, 0.95, 0.99]), QUANTILES[beta], atol=6e-6)


@pytest.mark.parametrize("beta", [1, 2])
def test_the_series_is_the_determinant_at_any_number_of_nodes(beta):
    s = np.linspace(-11.9, 13.9, 57)
    for nodes in (60, 90):
        np.testing.assert_allclose(TracyWidom(beta).cdf(s), fredholm(s, beta, nodes), atol=1e-12)


@pytest.mark.parametrize("beta", [1, 2])
def test_density_is_the_derivative_and_the_ends_are_flat(beta):
    law, s = TracyWidom(beta), np.linspace(-6, 4, 21)
    h = 1e-4
    slope = (law.cdf(s - 2 * h) - 8 * law.cdf(s - h) + 8 * law.cdf(s + h) - law.cdf(s + 2 * h)) / (12 * h)
    np.testing.assert_allclose(law.pdf(s), slope, atol=1e-9)
    assert law.cdf(-50.0) < 1e-12 and abs(law.cdf(50.0) - 1) < 1e-12 and law.pdf(-50.0) == law.pdf(50.0) == 0
    np.testing.assert_allclose(law.cdf(law.ppf([[0.01, 0.3], [0.6, 0.999]])), [[0.01, 0.3], [0.6, 0.999]], atol=1e-12)


def test_largest_eigenvalue_of_normal_data():
    rng, m, n = np.random.default_rng(0), 60, 120
    centre, width = edge_scale(m, n)
    draws = (x @ x.T / n for x in (rng.standard_normal((m, n)) for _ in range(400)))
    z = (np.array([np.linalg.eigvalsh(s)[-1] for s in draws]) - centre) / width
    law = TracyWidom(1)
    assert abs(z.mean() - law.mean) < 4 * law.std / 20
    assert abs((z > law.ppf(0.95)).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(("m", "n"), [(40, 160), (160, 40)])
def test_smallest_eigenvalue_of_normal_data(m, n):
    rng = np.random.default_rng(0)
    centre, width = edge_scale(m, n, side="left")
    draws = (x.T @ x / n if m > n else x @ x.T / n for x in (rng.standard_normal((m, n)) for _ in range(400)))
    z = (centre - np.array([np.linalg.eigvalsh(s)[0] for s in draws])) / width
    assert abs(z.mean() - TracyWidom(1).mean) < 4 * TracyWidom(1).std / 20 + 0.1


def test_edge_scale_is_symmetric_scales_and_meets_the_general_formula():
    centre, width = edge_scale(300, 700)
    other = np.array(edge_scale(700, 300)) * 300 / 700
    np.testing.assert_allclose([centre, width], other, rtol=1e-12)
    np.testing.assert_allclose(edge_scale(300, 700, 2.5), [2.5 * centre, 2.5 * width], rtol=1e-12)
    general = DeformedMarchenkoPastur([1.0], 0.5)
    centre, width = edge_scale(5 * 10**7, 10**8)
    assert abs(general.edges[-1, 1] - centre) < 1e-7 and abs(general.edge_width(10**8) / width - 1) < 1e-6


def test_what_is_out_of_range_is_refused_by_name():
    with pytest.raises(ValueError, match="beta=4"):
        TracyWidom(4)
    for q in (0, 1, -0.1, [0.5, np.nan]):
        with pytest.raises(ValueError, match="q="):
            TracyWidom(1).ppf(q)
    with pytest.raises(ValueError, match="examples=1"):
        edge_scale(10, 1)
    with pytest.raises(ValueError, match="variance=0"):
        edge_scale(10, 10, 0)
    for side, m in (("top", 20), ("left", 10)):
        with pytest.raises(ValueError, match="side="):
            edge_scale(m, 10, side=side)
