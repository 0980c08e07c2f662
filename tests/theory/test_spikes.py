import numpy as np
import pytest
from scipy.linalg import eigh_tridiagonal
from scipy.stats import ks_2samp

from hesslib.theory import (
    MarchenkoPastur,
    edge_scale,
    spike_deviation,
    spike_location,
    spike_overlap,
    spiked_wishart,
)


def test_published_value_and_the_threshold():
    assert abs(spike_location(4.0, 0.25) - 13 / 3) < 1e-14
    for ratio in (0.25, 1.0, 3.0):
        c, (low, high) = 1 + np.sqrt(ratio), MarchenkoPastur(ratio).edges
        assert spike_location([1.0, c - 1e-9], ratio) == pytest.approx([high, high])
        assert spike_location(c + 1e-6, ratio) == pytest.approx(high) and spike_location(c + 0.1, ratio) > high
        assert spike_overlap(c - 1e-9, ratio) == 0 < spike_overlap(c + 0.1, ratio) < 1
        assert spike_location(0.999, ratio) == pytest.approx(low)


def test_left_outliers_need_fewer_parameters_than_examples():
    low = MarchenkoPastur(0.25).edges[0]
    assert 0 < spike_location(0.1, 0.25) < low and spike_overlap(0.1, 0.25) > 0.5
    assert spike_location(0.1, 2.0) == pytest.approx(MarchenkoPastur(2.0).edges[0]) and spike_overlap(0.1, 2.0) == 0


def test_overlap_in_its_usual_form():
    ell, ratio = np.array([2.0, 3.0, 10.0, 0.2]), 0.5
    usual = (1 - ratio / (ell - 1) ** 2) / (1 + ratio / (ell - 1))
    np.testing.assert_allclose(spike_overlap(ell, ratio), usual, rtol=1e-13)


def simulated(ell, m, n, draws, entries):
    """Outlier and overlap of full matrices, the spike along the first coordinate."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        x = entries(rng, (m, n))
        x[0] *= np.sqrt(ell)
        values, vectors = np.linalg.eigh(x @ x.T / n)
        at = -1 if ell > 1 else 0
        found.append((values[at], vectors[0, at] ** 2))
    return np.array(found).T


NORMAL = lambda rng, shape: rng.standard_normal(shape)
SIGNS = lambda rng, shape: rng.choice([-1.0, 1.0], shape)


@pytest.mark.parametrize(("ell", "m", "n"), [(4.0, 80, 160), (6.0, 160, 80), (0.1, 40, 160)])
@pytest.mark.parametrize(("entries", "kurtosis"), [(NORMAL, 0), (SIGNS, -2)])
def test_location_deviation_and_overlap_of_outliers(ell, m, n, entries, kurtosis):
    draws = 200
    values, overlaps = simulated(ell, m, n, draws, entries)
    deviation = spike_deviation(ell, m / n, n, kurtosis)
    # means within 4 standard errors, besides a bias of order 1/N
    assert abs(values.mean() - spike_location(ell, m / n)) < 4 * deviation / np.sqrt(draws) + 2 * ell / n
    assert abs(values.std() / deviation - 1) < 4 / np.sqrt(2 * draws) + 0.1
    assert abs(overlaps.mean() - spike_overlap(ell, m / n)) < 4 * overlaps.std() / np.sqrt(draws) + 4 / n


@pytest.mark.parametrize(("m", "n"), [(20, 50), (50, 20), (30, 30)])
@pytest.mark.parametrize("ell", [1.0, 5.0])
def test_the_tridiagonal_matrix_has_the_distribution_of_the_full_one(m, n, ell):
    draws = 300
    values, overlaps = simulated(max(ell, 1 + 1e-9), m, n, draws, NORMAL)
    pairs = [eigh_tridiagonal(*spiked_wishart(ell, m, n, seed)) for seed in range(draws)]
    assert ks_2samp(values, [v[-1] for v, _ in pairs]).pvalue > 1e-3
    assert ks_2samp(overlaps, [u[0, -1] ** 2 for _, u in pairs]).pvalue > 1e-3
    nonzero = [v[v > 1e-12 * v[-1]] for v, _ in pairs]
    assert {len(v) for v in nonzero} == {min(m, n)}
    trace = np.array([v.sum() for v in nonzero])
    error = np.sqrt(2 * (m - 1 + ell**2) / n / draws)
    assert abs(trace.mean() - (m - 1 + ell)) < 4 * error


def test_seeds_fix_the_draw_and_the_spike_only_scales_it():
    a, b = spiked_wishart(1.0, 30, 50, seed=3), spiked_wishart(4.0, 30, 50, seed=3)
    assert b[0][0] == pytest.approx(4 * a[0][0]) and b[1][0] == pytest.approx(2 * a[1][0])
    assert (a[0][1:] == b[0][1:]).all() and (spiked_wishart(1.0, 30, 50, seed=4)[0] != a[0]).all()


def test_without_a_spike_the_edge_is_johnstones():
    values = [eigh_tridiagonal(*spiked_wishart(1.0, 400, 200, s), True, "i", (200, 200))[0] for s in range(200)]
    centre, width = edge_scale(400, 200)
    assert abs((np.mean(values) - centre) / width + 1.20653) < 4 * 1.268 / np.sqrt(200)


def test_what_is_out_of_range_is_refused_by_name():
    for ell in (0, -1.0, np.nan, [2.0, np.inf]):
        with pytest.raises(ValueError, match="ell="):
            spike_location(ell, 1.0)
    with pytest.raises(ValueError, match="ratio=-1"):
        spike_overlap(2.0, -1)
    with pytest.raises(ValueError, match="examples=0"):
        spike_deviation(4.0, 1.0, 0)
    with pytest.raises(ValueError, match="kurtosis=-3"):
        spike_deviation(4.0, 1.0, 10, -3)
    with pytest.raises(ValueError, match="parameters=1"):
        spiked_wishart(2.0, 1, 10, 0)
    with pytest.raises(ValueError, match="ell=0"):
        spiked_wishart(0, 10, 10, 0)
    assert np.isnan(spike_deviation(1.5, 1.0, 100))
