"""The tests of Chapters 7 to 9, tried on data for which what they ask is false: they must say so."""

import numpy as np
import pytest
from scipy.stats import norm

from hesslib.experiments.covariance import explained, normal_sample
from hesslib.theory import MarchenkoPastur, TracyWidom, distance
from tests.chapters.test_exercises import definitions


def test_the_distance_of_fluctuations_tells_an_exponential_law_and_passes_the_right_one():
    apart, rng, tw = definitions("07_random_matrix")["apart"], np.random.default_rng(0), TracyWidom(1)
    exponential = rng.exponential(size=400) - 1
    assert apart(exponential, norm) > 1 and apart(tw.mean + tw.std * exponential, tw) > 1
    assert apart(rng.standard_normal(400), norm) < 1 and apart(tw.ppf(rng.random(400)), tw) < 1


@pytest.mark.parametrize(("classes", "count"), [(2, 1), (3, 4), (5, 16)])
def test_the_count_of_softmax_outliers_needs_clusters(classes, count):
    space = definitions("08_examples")
    assert space["softmax_counts"](classes, 3)["outliers"] == count
    x = np.random.default_rng(0).standard_normal((300, 60))
    assert not (space["logistic"](x, 0) > 2 * MarchenkoPastur(0.2, 0.25).edges[1]).any()


def test_one_blob_passes_and_correlated_data_does_not():
    space = definitions("08_examples")
    ratio = [np.divide(*(space["one_blob"](1.0, 200, seed)[k] for k in ("blob", "white"))) for seed in range(4)]
    assert np.exp(np.log(ratio).mean()) < 1.25
    x = np.random.default_rng(0).standard_normal((200, 200)) * np.repeat([1.0, 2.0], 100)
    values = space["logistic"](x, 0)
    white = space["one_blob"](1.0, 200, 0)["white"]
    assert distance(values, MarchenkoPastur(1.0, values.mean())) / white > 1.25


def test_the_null_passes_normal_columns_and_tells_another_population():
    rng, n, c = np.random.default_rng(0), 100, 4
    population = np.sort(rng.exponential(size=60))
    other = np.sort(np.where(np.arange(60) % 2, 4.0, 1.0) * population)
    spectra = [normal_sample(t, n * (c - 1), rng) for t in (population, other)]
    found = explained([*spectra, population], n, c, 0, rng, 20, 2)
    right, wrong = np.array(found["distance_many"]) / found["null_many"].mean()
    assert right < 2 < wrong
    right, wrong = (np.sqrt((definitions("09_population")["deviations"](found, i) ** 2).mean()) for i in (0, 1))
    assert right < 1.6 < wrong


def test_columns_that_come_in_pairs_are_told_from_independent_ones():
    """Each normal column twice is half as many examples: farther from the law than its null."""
    rng, n, c = np.random.default_rng(1), 100, 4
    population = np.sort(rng.exponential(size=60))
    paired = normal_sample(population, n * (c - 1) // 2, rng)
    found = explained([paired, population], n, c, 0, rng, 5, 4)
    assert found["distance_many"][0] / found["null_many"].mean() > 2
