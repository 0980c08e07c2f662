"""Lanczos iteration: extreme eigenpairs, and the spectral density by quadrature.

Both keep the whole Krylov basis and orthogonalise each new vector against it twice, so no eigenvalue
appears more often than it should; both stop when the new vector is lost in rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.linalg import eigh, eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from .._checks import positive, whole
from .._progress import bar
from .operators import SymmetricOperator, free_memory

BREAKDOWN = 100  # a new direction shorter than this times eps times the operator's norm is rounding error


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenpairs of a symmetric operator.

    Attributes:
        eigenvalues: (k,), the most extreme first: descending for LA, ascending for SA, descending in
            magnitude for LM.
        eigenvectors: (M, k), orthonormal.
        residuals: (k,), norms of H x - lambda x.
        converged: whether every residual is below the tolerance.
        products: matrix-vector products spent.
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    residuals: np.ndarray
    converged: bool
    products: int


def _rows(op: LinearOperator):
    """How to multiply the rows of a (k, M) tensor, and the dtype and device to do it in."""
    if isinstance(op, SymmetricOperator):
        return op.product, op.risk.dtype, op.risk.device
    dtype = torch.float32 if op.dtype == np.float32 else torch.float64
    return lambda v: torch.as_tensor(op @ v.numpy().T).T.to(dtype), dtype, torch.device("cpu")


def _fits(vectors: int, m: int, dtype: torch.dtype, device: torch.device, what: str) -> None:
    """Refuse a number of vectors of length M that cannot be held."""
    needed, free = vectors * m * dtype.itemsize, free_memory(device)
    if needed > free:
        raise MemoryError(
            f"{what}: {vectors} vectors of length M={m} need {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            "free; ask for less"
        )


def _orthogonalise(w: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Take from w (..., M) its part in the span of the rows of basis (j, ..., M); also the coefficients (j, ...)."""
    total = 0
    for _ in range(2):
        coefficients = torch.einsum("j...m,...m->j...", basis, w)
        w = w - torch.einsum("j...,j...m->...m", coefficients, basis)
        total = total + coefficients
    return w, total


def top_eigenpairs(
    op: LinearOperator,
    k: int,
    which: str = "LA",
    *,
    tolerance: float | None = None,
    max_products: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
) -> Eigenpairs:
    """The k extreme eigenpairs, by thick-restart Lanczos from one random vector.

    It stops at the first product after which all k residuals are below ``tolerance`` times the largest
    Ritz value in magnitude. As with every Krylov method from one start, a repeated eigenvalue counts
    once unless the space is exhausted.

    Args:
        op: a ``CurvatureOperator`` or any symmetric scipy ``LinearOperator``, (M, M).
        k: how many, 1 to M.
        which: ``"LA"`` largest, ``"SA"`` smallest (most negative), ``"LM"`` largest in magnitude.
        tolerance: relative residual; by default 1e-8 in float64, 1e-4 in float32. The error of an
            eigenvalue is of the order of its residual squared over its gap.
        max_products: give up after this many; ``converged`` is then False.
        seed: of the start vector.
        progress: False hides the bar, which counts products up to the most that are allowed.

    Raises:
        ValueError: k, which, tolerance or max_products out of range.
        MemoryError: the Krylov basis, max(3 k, 60) vectors of length M, does not fit.

    Example:
        >>> import numpy as np
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> from hesslib import top_eigenpairs
        >>> top_eigenpairs(aslinearoperator(np.diag([3.0, -5.0, 1.0])), 1, "LM").eigenvalues.round(6)
        array([-5.])
    """
    m = op.shape[0]
    whole(1, m, k=k)
    whole(1, max_products=max_products)
    whole(0, seed=seed)
    if tolerance is not None:
        positive(tolerance=tolerance)
    if max_products < k:
        raise ValueError(f"max_products={max_products}: k={k} pairs need at least as many")
    keys = {"LA": lambda t: -t, "SA": lambda t: t, "LM": lambda t: -abs(t)}
    if which not in keys:
        raise ValueError(f"which={which!r} is unknown: give one of {', '.join(map(repr, keys))}")
    multiply, dtype, device = _rows(op)
    eps = torch.finfo(dtype).eps
    tolerance = (1e-8 if dtype == torch.float64 else 1e-4) if tolerance is None else tolerance
    size = min(m, max(3 * k, 60))
    _fits(size, m, dtype, device, f"k={k}")
    generator = torch.Generator().manual_seed(seed)
    random = lambda: torch.randn(m, generator=generator, dtype=torch.float64).to(device, dtype)
    basis = torch.zeros(size, m, dtype=dtype, device=device)
    projected = np.zeros((size, size))
    w, j, products, before, last = random(), 0, 0, None, -np.inf
    shown = bar(desc="eigenpairs, products at most", total=max_products, show=progress)
    while True:
        basis[j] = w / w.norm()
        w, coefficients = _orthogonalise(multiply(basis[j][None])[0], basis[: j + 1])
        projected[: j + 1, j] = projected[j, : j + 1] = coefficients.double().cpu().numpy()
        j, products, beta = j + 1, products + 1, float(w.norm())
        shown.update(1)
        theta, s = eigh(projected[:j, :j])
        order = np.argsort(keys[which](theta), kind="stable")
        scale = np.abs(theta).max()
        residuals = beta * np.abs(s[-1, order[:k]])
        settled = bool((residuals <= tolerance * scale).all()) and j >= k
        exhausted = beta <= BREAKDOWN * eps * scale
        if (settled and not exhausted and products - last >= 20) or products >= max_products or j == m:
            break
        if exhausted:
            # the Krylov space is exhausted: what it knows is exact, but a repeated eigenvalue has been
            # seen once; go on from a new random vector until that changes nothing
            top = theta[order[:k]]
            if before is not None and len(top) == k and np.allclose(top, before, rtol=0, atol=tolerance * scale):
                break
            before, last = top if len(top) == k else None, products
            w = _orthogonalise(random(), basis[:j])[0]
        if j == size:  # keep the wanted Ritz vectors and as many again, and go on from there
            keep = order[: min(2 * k, size - 2)]
            kept = torch.as_tensor(s[:, keep].T, dtype=dtype, device=device) @ basis
            basis[: len(keep)] = kept
            projected[:] = 0
            projected[range(len(keep)), range(len(keep))] = theta[keep]
            j = len(keep)
    shown.close()
    chosen = order[: min(k, j)]
    vectors = (torch.as_tensor(s[:, chosen].T, dtype=dtype, device=device) @ basis[:j]).T
    converged = len(chosen) == k and bool((residuals <= tolerance * scale).all())
    return Eigenpairs(theta[chosen], vectors.cpu().numpy(), residuals[: len(chosen)], converged, products)


@dataclass(frozen=True)
class SpectralDensity:
    """Stochastic Lanczos quadrature of a spectrum of M eigenvalues.

    Attributes:
        nodes, weights: (probes, steps); each probe's weights sum to one, unused places weigh 0.
        dimension: M.
        deflated: eigenvalues (d,) taken out beforehand and known exactly.
        products: matrix-vector products spent.
    """

    nodes: np.ndarray
    weights: np.ndarray
    dimension: int
    deflated: np.ndarray = field(default_factory=lambda: np.zeros(0))
    products: int = 0

    def mean(self, function) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Mean of ``function`` over the eigenvalues, and the standard error over the probes.

        ``function`` maps an array of eigenvalues to one of shape (..., *its shape).
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

        def gaussians(x):
            z = (grid.reshape(-1, *[1] * x.ndim) - x) / width
            return np.exp(-(z**2) / 2) / (width * np.sqrt(2 * np.pi))

        return self.mean(gaussians)

    def fraction(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """Share of the eigenvalues in [low, high), and its standard error."""
        return self.mean(lambda x: ((x >= low) & (x < high)).astype(float))

    def negative_fraction(self, tolerance: float) -> tuple[float, float]:
        """Share of the eigenvalues below ``-tolerance``, and its standard error."""
        return self.fraction(high=-tolerance)


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
    eps, generator = torch.finfo(dtype).eps, torch.Generator().manual_seed(seed)
    out = torch.zeros(0, 1, m, dtype=dtype, device=device)
    if deflate is not None:
        out = torch.as_tensor(deflate.eigenvectors.T, dtype=dtype, device=device)[:, None]
    mine = own.stop - own.start
    _fits(mine * (steps + 4), m, dtype, device, f"probes={probes}, steps={steps}")
    clean = lambda w: _orthogonalise(w, out.expand(-1, mine, -1))[0] if known else w
    w = clean(torch.randn(probes, m, generator=generator, dtype=torch.float64)[own].to(device, dtype))
    basis = torch.zeros(steps, mine, m, dtype=dtype, device=device)
    alpha, beta = np.zeros((mine, steps)), np.zeros((mine, steps))
    length, scale = np.full(mine, steps), np.zeros(mine)
    basis[0] = w / w.norm(dim=1, keepdim=True)
    for j in bar(range(steps), desc="Lanczos steps", show=progress):
        image = clean(multiply(basis[j]))
        alpha[:, j] = (image * basis[j]).sum(1).double().cpu().numpy()
        w, _ = _orthogonalise(image, basis[: j + 1])
        norms = w.norm(dim=1)
        beta[:, j] = norms.double().cpu().numpy()
        scale = np.maximum(scale, np.abs(alpha[:, j]) + beta[:, j])
        ended = (beta[:, j] <= BREAKDOWN * eps * scale) & (length == steps)
        length[ended] = j + 1
        if j + 1 < steps:
            alive = torch.as_tensor(length > j + 1, device=device)
            if not bool(alive.any()) and not shared:
                break
            basis[j + 1] = torch.where(alive[:, None], w / norms.clamp_min(1e-300)[:, None], 0)
    nodes, weights = np.zeros((mine, steps)), np.zeros((mine, steps))
    for i, n in enumerate(length):
        theta, s = eigh_tridiagonal(alpha[i, :n], beta[i, : n - 1])
        nodes[i, :n], weights[i, :n] = theta, s[0] ** 2
    if shared:
        nodes, weights, length = (op.gather(torch.as_tensor(a), probes).cpu().numpy() for a in (nodes, weights, length))
    deflated = np.zeros(0) if deflate is None else deflate.eigenvalues
    return SpectralDensity(nodes, weights, m, deflated, products=probes * int(length.max()))
