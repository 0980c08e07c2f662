import numpy as np
import pytest
from scipy.integrate import quad

from hesslib.theory import DeformedMarchenkoPastur, MarchenkoPastur, spike_location, spike_overlap

RATIOS = [0.1, 0.5, 1.0, 2.0, 20.0]


def spectrum(population, examples, seed=0):
    """Eigenvalues of a sample covariance of normal data, rounding errors set to zero."""
    x = np.sqrt(population)[:, None] * np.random.default_rng(seed).standard_normal((len(population), examples))
    values = np.linalg.eigvalsh(x @ x.T / examples)
    return np.where(values < 1e-12 * values[-1], 0.0, values)


def distance(values, law):
    """Kolmogorov-Smirnov distance over the eigenvalues that are not zero."""
    values = np.sort(values)
    share = (np.arange(1, len(values) + 1) - 0.5) / len(values)
    return np.abs(law.cdf(values) - share)[values > 0].max()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("variance", [1.0, 3.0])
def test_distribution_function_is_the_integral_of_the_density(ratio, variance):
    law = MarchenkoPastur(ratio, variance)
    low, high = law.edges
    mean = quad(lambda x: x * law.pdf(x), low, high, epsabs=1e-12, limit=500)[0]
    assert abs(mean - variance) < 1e-7
    middle = (low + high) / 2
    for x in (low + 0.3 * (high - low), low + 0.8 * (high - low)):  # from the middle: no edge is integrated over
        area = quad(law.pdf, middle, x, epsabs=1e-14)[0]
        assert abs(law.cdf(x) - law.cdf(middle) - area) < 1e-12
    assert abs(law.cdf(high) - 1) < 1e-15 and abs(law.cdf(low) - law.atom) < 1e-15
    assert law.cdf(-1.0) == 0 and law.cdf(0.0) == pytest.approx(law.atom, abs=1e-15)


def test_values_in_closed_form():
    law = MarchenkoPastur(4.0)
    assert law.edges == (1, 9) and law.atom == 0.75
    assert abs(law.pdf(5.0) - 4 / (2 * np.pi * 4 * 5)) < 1e-16
    quarter = MarchenkoPastur(1.0)  # eigenvalues of ratio 1 are squares of a quarter circle's
    for x in (1e-9, 0.3, 2.0, 3.9):
        s = np.sqrt(x)
        assert abs(quarter.cdf(x) - (s * np.sqrt(4 - x) / 2 + 2 * np.arcsin(s / 2)) / np.pi) < 1e-14


@pytest.mark.parametrize("ratio", RATIOS)
def test_quantiles_invert_and_draws_follow_the_law(ratio):
    law = MarchenkoPastur(ratio, 2.0)
    q = law.atom + (1 - law.atom) * np.array([[1e-6, 0.2], [0.5, 1 - 1e-6]])
    np.testing.assert_allclose(law.cdf(law.ppf(q)), q, atol=1e-13)
    draws = law.sample(4000, seed=1)
    assert (law.sample(4000, seed=1) == draws).all() and (law.sample(4000, seed=2) != draws).any()
    assert abs((draws == 0).mean() - law.atom) < 4 * np.sqrt(0.25 / 4000)
    assert distance(draws, law) < 2.2 / np.sqrt(4000)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_spectra_of_normal_data(ratio):
    m = 400
    law, values = MarchenkoPastur(ratio), spectrum(np.ones(m), int(m / ratio))
    assert (values == 0).mean() == law.atom
    assert distance(values, law) < 4 / min(m, m / ratio)  # eigenvalues repel: ranks are off by a few, not by sqrt(m)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_general_law_of_a_constant_population_is_the_plain_one(ratio):
    plain, general = MarchenkoPastur(ratio, 3.0), DeformedMarchenkoPastur([3.0, 3.0], ratio)
    low, high = plain.edges
    np.testing.assert_allclose(general.edges, [plain.edges], atol=1e-12)
    assert general.atom == plain.atom
    x = low + (high - low) * np.array([-0.1, 0.02, 0.3, 0.9, 0.999, 1.1])
    np.testing.assert_allclose(general.pdf(x), plain.pdf(x), atol=1e-12)
    np.testing.assert_allclose(general.cdf(x), plain.cdf(x), atol=1e-4)


CASES = [
    ([1, 3, 10], 0.1), ([1, 3, 10], 2.0), ([1, 100], 0.1), ([0, 0, 1, 50], 0.5), (np.geomspace(1e-5, 1, 60), 0.5),
    (np.geomspace(1e-5, 1, 60), 3.0),
]  # fmt: skip


@pytest.mark.parametrize(("population", "ratio"), CASES)
def test_the_general_law_against_spectra(population, ratio):
    law, m = DeformedMarchenkoPastur(population, ratio), 360
    values = spectrum(np.repeat(np.asarray(population, float), m // len(population)), int(m / ratio))
    assert (values == 0).mean() == pytest.approx(law.atom, abs=1e-12)
    assert distance(values, law) < 3 / min(m * (1 - law.atom), m / ratio)
    assert law.cdf(law.edges[-1, 1]) == pytest.approx(1, abs=1e-3)
    assert distance(values, MarchenkoPastur(ratio, np.mean(population))) > 0.05


def test_separate_populations_make_separate_bulks_with_their_shares():
    law = DeformedMarchenkoPastur([1.0, 100.0], 0.1, weights=[0.7, 0.3])
    assert law.edges.shape == (2, 2) and law.edges[0, 1] < law.edges[1, 0]
    assert law.cdf(10.0) == pytest.approx(0.7, abs=1e-4)
    assert law.pdf(10.0) == 0


@pytest.mark.parametrize("ratio", [0.3, 2.0])
def test_the_general_map_is_that_of_spikes_where_the_population_is_one(ratio):
    law = DeformedMarchenkoPastur([1.0], ratio)
    ell = np.array([5.0, 2.9, 0.2, 1.2])
    found = law.location(ell)
    out = (ell - 1) ** 2 > ratio
    np.testing.assert_allclose(found[out], spike_location(ell, ratio)[out], rtol=1e-12)
    assert np.isnan(found[~out]).all()
    np.testing.assert_allclose(law.overlap(ell), spike_overlap(ell, ratio), atol=1e-12)


def test_an_outlier_of_correlated_data():
    base = np.repeat([1.0, 4.0], 200)
    law = DeformedMarchenkoPastur([1.0, 4.0], 0.5)
    values = spectrum(np.append(base, 20.0), 800)
    assert abs(values[-1] / law.location(20.0) - 1) < 4 * np.sqrt(2 / 800)
    assert values[-2] < law.edges[-1, 1] + 4 * law.edge_width(800)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_what_is_out_of_range_is_refused_by_name(value):
    with pytest.raises(ValueError, match="ratio="):
        MarchenkoPastur(value)
    with pytest.raises(ValueError, match="variance="):
        MarchenkoPastur(1.0, value)
    with pytest.raises(ValueError, match="ratio="):
        DeformedMarchenkoPastur([1.0], value)


@pytest.mark.parametrize("population", [[], [0.0], [-1.0, 2.0], [[1.0]], [np.nan]])
def test_populations_out_of_range_are_refused(population):
    with pytest.raises(ValueError, match="population"):
        DeformedMarchenkoPastur(population, 1.0)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0]])
def test_weights_out_of_range_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        DeformedMarchenkoPastur([1.0, 2.0], 1.0, weights)
