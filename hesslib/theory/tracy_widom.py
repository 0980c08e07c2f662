"""The Tracy-Widom laws, and the centre and width by which a largest sample eigenvalue follows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.polynomial import Chebyshev
from scipy.special import airy, roots_legendre

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DOMAIN = (-12.0, 14.0)  # outside, both distribution functions are 0 or 1 to 1e-15


def fredholm(s: np.ndarray, beta: int, nodes: int = 60) -> np.ndarray:
    """The distribution function of the Tracy-Widom law at points s (n,) of ``DOMAIN``, as a Fredholm determinant.

    With A the integral operator of kernel Ai(x + y + s) on (0, infinity), F1 = det(1 - A) (Ferrari & Spohn 2005) and,
    since the Airy kernel is A squared, F2 = det(1 - A) det(1 + A). Gauss-Legendre nodes turn A into a matrix
    (Bornemann 2010), whose eigenvalues give both; 60 and 80 nodes agree to 1e-14.
    """
    x, w = roots_legendre(nodes)
    end = 18 - DOMAIN[0]  # Ai(18) is 1e-23
    x, root = (x + 1) * end / 2, np.sqrt(w * end / 2)
    kernel = root[:, None] * airy(x[:, None] + x + s[:, None, None])[0] * root
    mu = np.linalg.eigvalsh(kernel)
    return np.prod(1 - mu if beta == 1 else 1 - mu**2, axis=-1)


@cache
def series(beta: int) -> Chebyshev:
    """The distribution function on ``DOMAIN`` as a Chebyshev series, exact to 1e-14."""
    return Chebyshev.interpolate(lambda s: fredholm(s, beta), 120, DOMAIN)


class TracyWidom:
    """The limit law of the largest eigenvalue of a sample covariance matrix without spikes.

    beta = 1 for real data, 2 for complex data. The scale is that of Tracy and Widom (1994, 1996). Errors are
    absolute: 1e-13 for ``cdf`` and 1e-11 for ``pdf``, so that far tails have no correct digits.

    Args:
        beta: 1 or 2.

    Example:
        >>> round(float(TracyWidom(1).cdf(0.0)), 12)
        0.831908066203
    """

    def __init__(self, beta: Literal[1, 2]) -> None:
        if beta not in (1, 2):
            raise ValueError(f"beta={beta!r}: give 1 (real data) or 2 (complex data)")
        self.beta, self._series = beta, series(beta)

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """Distribution function at x (any shape)."""
        return self._series(np.clip(x, *DOMAIN)).clip(0, 1)

    def pdf(self, x: ArrayLike) -> np.ndarray:
        """Density at x (any shape)."""
        x = np.asarray(x, dtype=float)
        inside = (x > DOMAIN[0]) & (x < DOMAIN[1])
        return np.where(inside, self._series.deriv()(np.clip(x, *DOMAIN)), 0.0).clip(0)[()]

    def ppf(self, q: ArrayLike) -> np.ndarray:
        """Quantile at probabilities q in (0, 1), any shape."""
        return invert(self.cdf, q, *DOMAIN)

    @property
    def mean(self) -> float:
        """Mean of the law."""
        integral = self._series.integ(lbnd=DOMAIN[0])
        return float(DOMAIN[1] - integral(DOMAIN[1]))

    @property
    def std(self) -> float:
        """Standard deviation of the law."""
        twice = self._series.integ(2, lbnd=DOMAIN[0])  # E (b - s)^2 = 2 * the double integral of the cdf up to b
        return float(np.sqrt(2 * twice(DOMAIN[1]) - (DOMAIN[1] - self.mean) ** 2))


def invert(
    cdf: Callable[[np.ndarray], np.ndarray], q: ArrayLike, low: float | np.ndarray, high: float | np.ndarray
) -> np.ndarray:
    """The points of (low, high) at which an increasing function takes the values q, by bisection."""
    q = np.asarray(q, dtype=float)
    if not ((q > 0) & (q < 1)).all():
        raise ValueError(f"q={q}: probabilities must lie between 0 and 1, ends excluded")
    low, high = np.full(q.shape, low), np.full(q.shape, high)
    for _ in range(60):
        middle = (low + high) / 2
        below = cdf(middle) < q
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high[()]


def edge_scale(
    parameters: int, examples: int, variance: float = 1.0, side: Literal["right", "left"] = "right"
) -> tuple[float, float]:
    """Centre and width of the largest eigenvalue of X X' / N, X (M, N) of independent real entries.

    (largest - centre) / width follows ``TracyWidom(1)`` as M and N grow (Johnstone 2001); with Ma's (2012) choice of
    N - 1/2 and M - 1/2 the error falls as N^(-2/3). With side "left", (centre - smallest nonzero) / width does, where
    M and N are not close to each other (Feldheim & Sodin 2010).

    Args:
        parameters: M, at least 2.
        examples: N, at least 2.
        variance: of the entries.
        side: of the bulk, "right" or "left"; left needs M and N to differ.
    """
    if not min(parameters, examples) >= 2:
        raise ValueError(f"parameters={parameters}, examples={examples}: give at least 2 of each")
    if not 0 < variance < np.inf:
        raise ValueError(f"variance={variance}: give a positive number")
    if side not in ("right", "left") or (side == "left" and parameters == examples):
        raise ValueError(f"side={side!r}: give 'right', or 'left' where parameters={parameters} and examples differ")
    m, n = np.sqrt(parameters - 0.5), np.sqrt(examples - 0.5)
    sign, scale = 1 if side == "right" else -1, variance / examples
    return scale * (m + sign * n) ** 2, scale * abs(m + sign * n) * abs(1 / m + sign / n) ** (1 / 3)
