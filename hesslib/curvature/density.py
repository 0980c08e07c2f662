"""Spectral densities by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from .._checks import positive, whole
from .._progress import bar
from .lanczos import BREAKDOWN, Eigenpairs, _fits, _orthogonalise, _rows


@dataclass(frozen=True)
class SpectralDensity:
    """Stochastic Lanczos quadrature of a spectrum of M eigenvalues.

    Attributes:
        nodes: (probes, steps), the places of the quadrature.
        weights: (probes, steps); each probe's sum to one, unused places weigh 0.
        dimension: the number M of eigenvalues.
        deflated: eigenvalues (d,) taken out beforehand and known exactly.
        products: matrix-vector products spent.
        residuals: (probes, steps), of the Ritz vectors that belong to the nodes.
    """

    nodes: np.ndarray
    weights: np.ndarray
    dimension: int
    deflated: np.ndarray = field(default_factory=lambda: np.zeros(0))
    products: int = 0
    residuals: np.ndarray | None = None

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> tuple[Any, Any]:
        """Mean of ``function`` over the eigenvalues, and the standard error over the probes.

        ``function`` maps an array of eigenvalues to one of shape ``(..., *its shape)``.
        """
        known, d, m = function(self.deflated).sum(-1), len(self.deflated), self.dimension
        each = (known[..., None] + (m - d) * (function(self.nodes) * self.weights).sum(-1)) / m
        return each.mean(-1), each.std(-1, ddof=1) / np.sqrt(each.shape[-1]) if each.shape[-1] > 1 else np.nan * each[
            ..., 0
        ]

    def density(self, grid: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Density on a grid, each eigenvalue a Gaussian of standard deviation ``width``; and its standard error."""
        grid = np.asarray(grid)
        positive(width=width)

        def gaussians(x: np.ndarray) -> np.ndarray:
            z = (grid.reshape(-1, *[1] * x.ndim) - x) / width
            return np.exp(-(z**2) / 2) / (width * np.sqrt(2 * np.pi))

        return self.mean(gaussians)

    def fraction(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """Share of the eigenvalues in [low, high), and its error.

        The error joins the standard error over the probes and a bound on the bias of the quadrature, which
        represents what lies near a threshold by nodes on one side of it: a share near a threshold that the steps
        do not resolve has an error as large as the weight of the nodes beside it. More steps resolve more.
        """
        share, error = self.mean(lambda x: ((x >= low) & (x < high)).astype(float))
        bias = sum(self._bias(threshold) for threshold in (low, high) if np.isfinite(threshold))
        return share, float(np.hypot(error, bias * (1 - len(self.deflated) / self.dimension)))

    def negative_fraction(self, tolerance: float) -> tuple[float, float]:
        """Share of the eigenvalues below ``-tolerance``, and its error as of ``fraction``."""
        return self.fraction(high=-tolerance)

    def _bias(self, threshold: float) -> float:
        """A bound on how much of a probe's weight stands on the wrong side of a threshold, mean over the probes.

        By Chebyshev, Markov and Stieltjes the measure below a threshold differs from the sum of the weights below
        by at most the weight of a neighbouring node. And with y a Ritz vector of residual r at distance d, the part of
        y on the other side has norm at most r / d, so the difference is also at most the sum of sqrt(weight) r / d.
        """
        bounds = []
        for i, (nodes, weights) in enumerate(zip(self.nodes, self.weights, strict=True)):
            below, above = (weights > 0) & (nodes < threshold), (weights > 0) & (nodes >= threshold)
            sides = ((below, np.argmax), (above, np.argmin))
            bound = max(weights[side][nearest(nodes[side])] for side, nearest in sides if side.any())
            if self.residuals is not None:
                distance = np.maximum(np.abs(nodes - threshold), 1e-300)
                bound = min(bound, float((np.sqrt(weights) * np.minimum(self.residuals[i] / distance, 1)).sum()))
            bounds.append(bound)
        return float(np.mean(bounds))


def spectral_density(
    op: LinearOperator, probes: int = 10, steps: int = 80, seed: int = 0, *, deflate: Eigenpairs | None = None,
    progress: bool | None = None,
) -> SpectralDensity:  # fmt: skip
    """Spectral density by stochastic Lanczos quadrature (Lin, Saad and Yang 2016), all probes in one block.

    The result keeps the raw nodes and weights; ``result.density(grid, width)`` smooths them,
    ``result.fraction(low, high)`` counts, each with a standard error.

    Args:
        op: symmetric operator (M, M).
        probes: random directions, at least 1; with 2 or more there is a standard error.
        steps: Lanczos steps a probe, at most M.
        seed: of the probes.
        deflate: eigenpairs to take out first, exactly; what is left of the spectrum is resolved better.
        progress: False hides the bar.

    Memory: probes x steps vectors of length M; ``MemoryError`` if they do not fit.
    """
    m = op.shape[0]
    known = 0 if deflate is None else len(deflate.eigenvalues)
    whole(1, probes=probes, steps=steps)
    whole(0, seed=seed)
    steps = min(steps, m - known)
    multiply, dtype, device = _rows(op)
    own, shared = slice(0, probes), hasattr(op, "ranks")
    if shared:  # each rank keeps the vectors of its own probes, and all take every step together
        own, multiply = op.own(probes), lambda rows: op.product_of_own(rows, probes)
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(0, 1, m, dtype=dtype, device=device)
    if deflate is not None:
        out = torch.as_tensor(deflate.eigenvectors.T, dtype=dtype, device=device)[:, None]
    mine = own.stop - own.start
    _fits(mine * (steps + 4), m, dtype, device, f"probes={probes}, steps={steps}")
    clean = lambda w: _orthogonalise(w, out.expand(-1, mine, -1))[0] if known else w
    w = clean(torch.randn(probes, m, generator=generator, dtype=torch.float64)[own].to(device, dtype))
    alpha, beta, length = _tridiagonalise(lambda rows: clean(multiply(rows)), w, steps, shared, progress)
    nodes, weights, residuals = np.zeros((3, mine, steps))
    for i, n in enumerate(length):
        theta, s = eigh_tridiagonal(alpha[i, :n], beta[i, : n - 1])
        nodes[i, :n], weights[i, :n], residuals[i, :n] = theta, s[0] ** 2, beta[i, n - 1] * np.abs(s[-1])
    if shared:
        nodes, weights, residuals, length = (
            op.gather(torch.as_tensor(a), probes).cpu().numpy() for a in (nodes, weights, residuals, length)
        )
    deflated = np.zeros(0) if deflate is None else deflate.eigenvalues
    return SpectralDensity(nodes, weights, m, deflated, probes * int(length.max()), residuals)


def _tridiagonalise(
    multiply: Callable[[Tensor], Tensor], w: Tensor, steps: int, shared: bool, progress: bool | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lanczos from each row of w (probes, M): the two diagonals (probes, steps), and how many steps each took.

    ``shared``: other ranks take every step with this one, so it does not stop where its own probes have ended.
    """
    (probes, m), eps = w.shape, torch.finfo(w.dtype).eps
    basis = torch.zeros(steps, probes, m, dtype=w.dtype, device=w.device)
    alpha, beta = np.zeros((probes, steps)), np.zeros((probes, steps))
    length, scale = np.full(probes, steps), np.zeros(probes)
    basis[0] = w / w.norm(dim=1, keepdim=True)
    for j in bar(range(steps), desc="Lanczos steps", show=progress):
        image = multiply(basis[j])
        alpha[:, j] = (image * basis[j]).sum(1).double().cpu().numpy()
        w, _ = _orthogonalise(image, basis[: j + 1])
        norms = w.norm(dim=1)
        beta[:, j] = norms.double().cpu().numpy()
        scale = np.maximum(scale, np.abs(alpha[:, j]) + beta[:, j])
        ended = (beta[:, j] <= BREAKDOWN * eps * scale) & (length == steps)
        length[ended] = j + 1
        if j + 1 < steps:
            alive = torch.as_tensor(length > j + 1, device=w.device)
            if not bool(alive.any()) and not shared:
                break
            basis[j + 1] = torch.where(alive[:, None], w / norms.clamp_min(1e-300)[:, None], 0)
    return alpha, beta, length
