"""The Marchenko-Pastur law, and its generalisation to any population covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .tracy_widom import invert

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def positive(name: str, value: float) -> float:
    """The value, if it is a positive finite number."""
    if not 0 < value < np.inf:
        raise ValueError(f"{name}={value}: give a positive finite number")
    return value


@dataclass(frozen=True)
class MarchenkoPastur:
    """Limit of the spectrum of X X' / N, where X (M, N) has independent entries of mean zero (Marchenko & Pastur 1967).

    Args:
        ratio: M / N, positive. Above 1, a share 1 - 1/ratio of the eigenvalues is zero.
        variance: of the entries.

    Example:
        >>> MarchenkoPastur(4.0).edges, MarchenkoPastur(4.0).atom
        ((1.0, 9.0), 0.75)
    """

    ratio: float
    variance: float = 1.0

    def __post_init__(self) -> None:
        positive("ratio", self.ratio)
        positive("variance", self.variance)

    @property
    def edges(self) -> tuple[float, float]:
        """Ends of the bulk, the part that is not at zero."""
        root = np.sqrt(self.ratio)
        return float(self.variance * (1 - root) ** 2), float(self.variance * (1 + root) ** 2)

    @property
    def atom(self) -> float:
        """Share of eigenvalues that are exactly zero."""
        return max(0.0, 1 - 1 / self.ratio)

    def pdf(self, x: ArrayLike) -> np.ndarray:
        """Density of the bulk at x (any shape); it integrates to 1 - ``atom``."""
        x, (low, high) = np.asarray(x, dtype=float), self.edges
        inside = (x > low) & (x < high)
        at = np.where(inside, x, high)
        density = np.sqrt((high - at) * (at - low)) / (2 * np.pi * self.ratio * self.variance * at)
        return np.where(inside, density, 0.0)[()]

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """Share of eigenvalues of at most x (any shape), the zeros included."""
        x, (low, high) = np.asarray(x, dtype=float), self.edges
        at = np.clip(x, low, high)
        root = np.sqrt((high - at) * (at - low))
        product = np.sqrt(low * high)
        # the antiderivative of root / x; arctan2 keeps the digits that arcsin loses at the edges
        area = root + (low + high) / 2 * np.arctan2(2 * at - low - high, 2 * root)
        area = area - product * np.arctan2((low + high) * at - 2 * low * high, 2 * product * root)
        whole = np.pi * ((low + high) / 2 - product)
        share = (area + whole / 2) / whole
        return np.where(x < 0, 0.0, self.atom + (1 - self.atom) * share)[()]

    def ppf(self, q: ArrayLike) -> np.ndarray:
        """Quantile at probabilities q in (0, 1), any shape."""
        low, high = self.edges
        return np.where(np.asarray(q) <= self.atom, 0.0, invert(self.cdf, q, low, high))[()]

    def sample(self, size: int, seed: int) -> np.ndarray:
        """Independent draws (size,) from the law, zeros included; real eigenvalues repel, these do not."""
        return self.ppf(1 - np.random.default_rng(seed).random(size).clip(1e-16))


class DeformedMarchenkoPastur:
    """Limit of the spectrum of ``Sigma^(1/2) X X' Sigma^(1/2) / N`` for any population covariance Sigma.

    The Stieltjes transform v of the spectrum of the N x N companion matrix solves, at z in the upper half plane,
    z = -1/v + ratio * mean(t / (1 + t v)) over the population eigenvalues t (Silverstein 1995). On the real axis, with
    v = -1/l, this is psi(l) = l + ratio * l * mean(t / (l - t)), which maps a population eigenvalue l outside the
    bulk to its sample eigenvalue wherever psi'(l) > 0 (Bai & Yao 2012); where psi' vanishes are the edges
    (Silverstein & Choi 1995).

    Args:
        population: eigenvalues t (k,) of Sigma, non-negative, not all zero.
        ratio: M / N, positive.
        weights: their shares (k,), positive; equal by default.
    """

    def __init__(self, population: ArrayLike, ratio: float, weights: ArrayLike | None = None) -> None:
        t = np.atleast_1d(np.asarray(population, dtype=float))
        w = np.ones(t.shape) if weights is None else np.asarray(weights, dtype=float)
        if t.ndim != 1 or not t.size or not ((t >= 0) & (t < np.inf)).all() or not t.max() > 0:
            raise ValueError("population: give a list of eigenvalues, non-negative and not all zero")
        if w.shape != t.shape or not (w > 0).all():
            raise ValueError(f"weights: give one positive share for each of the {t.size} population eigenvalues")
        self.ratio = positive("ratio", ratio)
        t, group = np.unique(t, return_inverse=True)
        w = np.bincount(group, w) / w.sum()
        self.zeros = float(w[t == 0].sum())
        self.population, self.weights = t[t > 0], w[t > 0]

    @property
    def atom(self) -> float:
        """Share of eigenvalues that are exactly zero."""
        return max(self.zeros, 1 - 1 / self.ratio)

    def location(self, ell: ArrayLike) -> np.ndarray:
        """psi(ell): the sample eigenvalue of a population eigenvalue ell added to the others; NaN if no outlier."""
        ell, slope = np.asarray(ell, dtype=float), self._slope(ell)
        return np.where(slope > 0, self._psi(ell), np.nan)[()]

    def overlap(self, ell: ArrayLike) -> np.ndarray:
        """Squared cosine between its sample and population eigenvectors: ell psi'(ell) / psi(ell), or 0."""
        ell, slope = np.asarray(ell, dtype=float), self._slope(ell)
        return np.where(slope > 0, ell * slope / self._psi(ell), 0.0)[()]

    def _psi(self, ell: np.ndarray) -> np.ndarray:
        t, w = self.population, self.ratio * self.weights
        return ell * (1 + (w * t / (np.asarray(ell)[..., None] - t)).sum(-1))

    def _slope(self, ell: np.ndarray, order: int = 2) -> np.ndarray:
        """psi'(ell); with order 3 minus half of psi''(ell)."""
        t, w = self.population, self.ratio * self.weights
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = w * t**2 / (np.asarray(ell, dtype=float)[..., None] - t) ** order
        return (1 if order == 2 else 0) - terms.sum(-1)

    @cached_property
    def critical(self) -> np.ndarray:
        """Population values (intervals, 2) between which psi' <= 0: their images are the ends of the bulk."""
        t, top = self.population, self.population[-1]
        reach = top * (2 + 2 * np.sqrt(self.ratio))  # psi' > 0 beyond
        root = lambda a, b: bisect(lambda x: -self._slope(x), a, b)  # psi' falls from a to b
        ends = [root(np.array([-reach]), t[:1]), root(np.array([top + reach]), t[-1:])]
        gaps = np.stack([t[:-1], t[1:]])
        size = np.cbrt(self.ratio * self.weights * t**2)
        gaps = gaps[:, (size[:-1] + size[1:]) ** 3 < np.diff(t) ** 2]  # others are closed by their two ends alone
        # in a gap psi' is concave: largest where its derivative changes sign
        middle = bisect(lambda x: self._slope(x, 3), *gaps)
        is_open = self._slope(middle) > 0
        left = root(middle[is_open], gaps[0, is_open])
        right = root(middle[is_open], gaps[1, is_open])
        return np.stack([np.concatenate([ends[0], right]), np.concatenate([left, ends[1]])], 1)

    @cached_property
    def edges(self) -> np.ndarray:
        """Ends (intervals, 2) of the parts of the bulk, ascending."""
        found = self._psi(self.critical)
        found[0, 0] = max(0.0, found[0, 0])
        return found

    def edge_width(self, examples: int) -> float:
        """Width of the fluctuations of the largest eigenvalue at the right edge, in the units of ``TracyWidom(1)``.

        N^(-2/3) times the cube root of l^3 (1 + ratio * mean(t^3 / (l - t)^3)), l critical (El Karoui 2007 for complex
        data, Lee & Schnelli 2016 for real), where no population eigenvalue stands apart at that edge.
        """
        ell, t = self.critical[-1, 1], self.population
        cube = ell**3 * (1 + self.ratio * (self.weights * t**3 / (ell - t) ** 3).sum())
        return float(np.cbrt(cube) * positive("examples", examples) ** (-2 / 3))

    def pdf(self, x: ArrayLike) -> np.ndarray:
        """Density of the bulk at x (any shape); it integrates to 1 - ``atom``.

        Newton's method from far above the real axis down to it, all points at a time.

        Raises:
            ArithmeticError: it did not converge at some point.
        """
        x = np.asarray(x, dtype=float)
        inside = ((x[..., None] > self.edges[:, 0]) & (x[..., None] < self.edges[:, 1])).any(-1)
        at, height = x[inside], 10 * self.edges[-1, 1]
        v = -1 / (at + 1j * height)
        for eta in [*(height * 4.0 ** -np.arange(26)), 0.0]:
            v, error = self._newton(v, at + 1j * eta, 1e-12 if eta == 0 else 1e-4)
        if (error > 1e-5).any():
            raise ArithmeticError(f"the Silverstein equation was not solved at {(error > 1e-5).sum()} points")
        density = np.zeros(x.shape)
        density[inside] = v.imag / (np.pi * self.ratio)
        return density[()]

    def _newton(self, v: np.ndarray, z: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """Solutions v of the Silverstein equation at points z (n,) from nearby ones, and the last steps' sizes."""
        t, w, v = self.population, self.ratio * self.weights, v.copy()
        error = np.ones(v.shape)
        for _ in range(60):
            if not (left := error > tolerance).any():
                break
            at = v[left]
            part = t / (1 + at[:, None] * t)
            step = (part @ w - 1 / at - z[left]) / (1 / at**2 - part**2 @ w)
            while (bad := (at - step).imag <= 0).any():  # stay in the upper half plane, where the solution is unique
                step = np.where(bad, step / 2, step)
            v[left] = at - step
            error[left] = np.abs(step / at)
        return v, error

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Points and the distribution function there, by the trapezoidal rule in the angle of log x."""
        low = np.maximum(self.edges[:, 0], 1e-20 * self.edges[-1, 1])
        lengths = np.log(self.edges[:, 1] / low)
        points, shares = [], []
        for start, length in zip(low, lengths, strict=True):
            count = int(10 + 600 * length / lengths.sum())
            angle = np.linspace(0, np.pi, count + 1)
            points.append(start * np.exp(length * (1 - np.cos(angle)) / 2))
            shares.append(np.sin(angle) * length / 2 * points[-1] * np.pi / count)
        x, dx = np.concatenate(points), np.concatenate(shares)
        mass = self.pdf(x) * dx
        return x, self.atom + np.cumsum(mass) - mass / 2

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """Share of eigenvalues of at most x (any shape), the zeros included, by quadrature to about 1e-4."""
        x = np.asarray(x, dtype=float)
        return np.where(x < 0, 0.0, np.interp(x, *self._table, left=self.atom))[()]


def distance(values: np.ndarray, law: MarchenkoPastur | DeformedMarchenkoPastur) -> float:
    """Kolmogorov-Smirnov distance of ascending eigenvalues (n,) from a law, over those above 1e-6 of the largest.

    The k-th eigenvalue is set against the share (k - 1/2) / n: up to 1/2n less than the supremum over all points.
    """
    share = (np.arange(len(values)) + 0.5) / len(values)
    return np.abs(law.cdf(values) - share)[values > 1e-6 * values[-1]].max()


def bisect(function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Points where functions change from below zero at ``low`` to above at ``high``, which may lie left of it."""
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    for _ in range(100):
        middle = (low + high) / 2
        if ((middle == low) | (middle == high)).all():
            break
        below = function(middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
