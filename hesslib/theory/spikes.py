"""Spiked population covariance: where a few eigenvalues of Sigma that differ from one appear in the sample.

One formula holds for outliers on either side of the bulk (Baik, Ben Arous & Peche 2005; Paul 2007;
Bloemendal, Knowles, Yau & Yin 2016): with psi(l) = l (1 + ratio / (l - 1)), a population eigenvalue l with
psi'(l) > 0, that is (l - 1)^2 > ratio, has a sample eigenvalue at psi(l). Left of the bulk this needs
l < 1 - sqrt(ratio), hence ratio < 1: with more parameters than examples there are no left outliers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .marchenko_pastur import MarchenkoPastur, positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def spike(ell: ArrayLike, ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked spikes l, psi(l) and psi'(l); the latter is 0 for spikes that have no outlier."""
    ell, ratio = np.asarray(ell, dtype=float), positive("ratio", ratio)
    if not ((ell > 0) & (ell < np.inf)).all():
        raise ValueError(f"ell={ell}: population eigenvalues must be positive")
    outside = (ell - 1) ** 2 > ratio
    distance = np.where(outside, ell - 1, 1.0)
    return ell, ell * (1 + ratio / distance), np.where(outside, 1 - ratio / distance**2, 0.0)


def spike_location(ell: ArrayLike, ratio: float) -> np.ndarray:
    """Limit of the sample eigenvalue that belongs to a population eigenvalue ell, the others being one.

    An outlier if there is one; else the edge of the bulk on that side, right for ell >= 1, left for ell < 1.

    Args:
        ell: population eigenvalues, positive, any shape.
        ratio: M / N.

    Example:
        >>> round(float(spike_location(4.0, 0.25)), 4)
        4.3333
    """
    ell, location, slope = spike(ell, ratio)
    low, high = MarchenkoPastur(ratio).edges
    return np.where(slope > 0, location, np.where(ell >= 1, high, low))[()]


def spike_overlap(ell: ArrayLike, ratio: float) -> np.ndarray:
    """Limit of the squared cosine between sample and population eigenvector: l psi'(l) / psi(l), or 0."""
    ell, location, slope = spike(ell, ratio)
    return (ell * slope / location)[()]


def spike_deviation(ell: ArrayLike, ratio: float, examples: int, excess_kurtosis: float = 0.0) -> np.ndarray:
    """Standard deviation of an outlier: l sqrt(psi'(l) (2 + k psi'(l)) / N); NaN where there is none.

    Bai & Yao (2008), for real entries of excess kurtosis k (0: normal, -2: random signs) and a spike along one of the
    coordinates; for a spike along a spread-out direction, the formula of k = 0 holds whatever the entries.

    Args:
        ell, ratio: as in ``spike_location``.
        examples: the number N of examples.
        excess_kurtosis: k, at least -2.
    """
    if not examples >= 1 or not excess_kurtosis >= -2:
        raise ValueError(f"examples={examples}, excess_kurtosis={excess_kurtosis}: give at least 1, and at least -2")
    ell, _, slope = spike(ell, ratio)
    return np.where(slope > 0, ell * np.sqrt(slope * (2 + excess_kurtosis * slope) / examples), np.nan)[()]


def spiked_wishart(ell: float, parameters: int, examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A tridiagonal matrix with the nonzero spectrum of a normal sample covariance with one spike.

    Householder rotations turn a normal X (M, N) into a bidiagonal matrix of independent chi variables and leave the
    spike's direction alone (Bloemendal & Virag 2013), so eigenvalues, and the squared first components of the
    eigenvectors as overlaps, have exactly the distribution of those of ``Sigma^(1/2) X X' Sigma^(1/2) / N``.

    Args:
        ell: the spike, positive; the other population eigenvalues are one.
        parameters: M, at least 2.
        examples: N, at least 2.
        seed: of the chi variables; it fixes them whatever ell is.

    Returns:
        diagonal (K,) and secondary diagonal (K - 1,), for ``scipy.linalg.eigh_tridiagonal``; K is M, or N + 1 (with
        one zero eigenvalue) if M > N.
    """
    positive("ell", ell)
    if not min(parameters, examples) >= 2:
        raise ValueError(f"parameters={parameters}, examples={examples}: give at least 2 of each")
    rng, k = np.random.default_rng(seed), min(parameters, examples)
    main = np.sqrt(rng.chisquare(examples - np.arange(k)))
    below = np.sqrt(rng.chisquare(parameters - np.arange(1, min(k, parameters - 1) + 1)))
    main[0] *= np.sqrt(ell)
    off = main[: len(below)] * below
    if parameters > examples:
        main = np.append(main, 0.0)
    diagonal = main**2
    diagonal[1:] += below**2
    return diagonal / examples, off / examples
