"""Extreme eigenpairs by Lanczos iteration.

The whole Krylov basis is kept and each new vector orthogonalised against it twice, so no eigenvalue
appears more often than it should; a new vector that is lost in rounding error ends the space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from .._checks import positive, whole
from .._progress import bar
from .memory import free_memory
from .operators import SymmetricOperator

BREAKDOWN = 100  # a new direction shorter than this times eps times the operator's norm is rounding error


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenpairs of a symmetric operator.

    Attributes:
        eigenvalues: (k,), the most extreme first: descending for LA, ascending for SA, descending in
            magnitude for LM.
        eigenvectors: (M, k), orthonormal.
        residuals: (k,), norms of H x - lambda x.
        converged: whether these are the k most extreme pairs, each counted as often as it is repeated, every
            residual being below the tolerance and below 100 times it relative to its own eigenvalue. An eigenvalue
            below 20 eps times the largest is zero up to rounding; between that and 5 eps / (100 tolerance) an
            eigenvalue cannot be relatively accurate, and this is False.
        products: matrix-vector products spent.
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    residuals: np.ndarray
    converged: bool
    products: int


def _rows(op: LinearOperator) -> tuple[Callable[[Tensor], Tensor], torch.dtype, torch.device]:
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
    total = 0  # type: Any
    for _ in range(2):
        coefficients = torch.einsum("j...m,...m->j...", basis, w)
        w = w - torch.einsum("j...,j...m->...m", coefficients, basis)
        total = total + coefficients
    return w, total


def top_eigenpairs(
    op: LinearOperator,
    k: int,
    which: Literal["LA", "SA", "LM"] = "LA",
    *,
    tolerance: float | None = None,
    max_products: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
) -> Eigenpairs:
    """The k extreme eigenpairs, repeated ones as often as they are, by thick-restart Lanczos.

    A search ends when all k residuals are below ``tolerance`` times the largest Ritz value in magnitude and below
    100 ``tolerance`` times their own. From one start a repeated eigenvalue is seen once, so further searches
    follow, orthogonal to all that is known, until one finds nothing more extreme than the k-th pair.

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
        MemoryError: the Krylov basis, twice max(3 k, 60) vectors of length M, does not fit.

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
    search = _Search(op, k, keys[which], tolerance, max_products, seed)
    search.shown = bar(desc="eigenpairs, products at most", total=max_products, show=progress)  # type: ignore[attr-defined]
    complete = search.run()
    while complete and len(search.vectors) < m:  # until a search beside all that is known finds nothing that belongs
        edge = search.values[search.order()[k - 1]]
        # first beside the whole of the last search's space, which leaves little to look at; a repeated eigenvalue's
        # other vectors are orthogonal to that space
        complete = search.run(edge, search.spare)
        if search.count:
            complete = search.run(edge)
        if not search.count:
            break
    search.shown.close()  # type: ignore[attr-defined]
    chosen = search.order()[:k]
    theta, residuals = search.values[chosen], search.residuals[chosen]
    converged = complete and len(chosen) == k and bool(search.accurate(theta, residuals).all())
    vectors = search.vectors[torch.as_tensor(chosen, device=search.device)].T.cpu().numpy()
    return Eigenpairs(theta * search.unit, vectors, residuals * search.unit, converged, search.products)


class _Search:
    """Lanczos from random vectors beside the eigenpairs already known, ``vectors`` (j, M), which it adds to."""

    def __init__(
        self,
        op: LinearOperator,
        k: int,
        key: Callable[[Any], Any],
        tolerance: float | None,
        max_products: int,
        seed: int,
    ) -> None:
        self.multiply, self.dtype, self.device = _rows(op)
        self.m, self.k, self.key, self.max_products = op.shape[0], k, key, max_products
        self.size = min(self.m, max(3 * k, 60))
        _fits(min(self.m, 2 * self.size), self.m, self.dtype, self.device, f"k={k}")
        self.tolerance = tolerance or (1e-8 if self.dtype == torch.float64 else 1e-4)
        self.eps, self.generator = torch.finfo(self.dtype).eps, torch.Generator().manual_seed(seed)
        self.vectors = torch.zeros(0, self.m, dtype=self.dtype, device=self.device)
        self.values, self.residuals = np.zeros(0), np.zeros(0)
        self.products, self.scale, self.unit = 0, 0.0, None  # type: int, float, Any

    def order(self) -> np.ndarray:
        """The known pairs, the most extreme first."""
        return np.argsort(self.key(self.values), kind="stable")

    def random(self, basis: Tensor) -> Tensor:
        """A random vector orthogonal to what is known and to a basis."""
        w = torch.randn(self.m, generator=self.generator, dtype=torch.float64).to(self.device, self.dtype)
        return _orthogonalise(w, torch.cat([self.beside, basis]))[0]

    def product(self, v: Tensor) -> Tensor:
        """The operator times v, in units (a power of two) in which squares neither overflow nor vanish."""
        image = self.multiply(v[None])[0]
        self.products += 1
        self.shown.update(1)  # type: ignore[attr-defined]
        largest = float(image.abs().max())
        if not np.isfinite(largest):
            raise ValueError("op: a product with it contains NaN or infinite values")
        if self.unit is None:
            safe = largest == 0 or self.eps**2 < largest < self.eps**-2
            self.unit = 1.0 if safe else 2.0 ** round(np.log2(largest))
        return self.clean(image / self.unit)

    def clean(self, w: Tensor) -> Tensor:
        """What of a vector is orthogonal to what this search stands beside."""
        return _orthogonalise(w, self.beside)[0] if len(self.beside) else w

    def accurate(self, theta: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Whether residuals are small against the spectrum and against each value that is not zero up to rounding."""
        own = 100 * self.tolerance * np.abs(theta)
        rounding = 5 * self.eps * self.scale
        zero = (np.abs(theta) <= 4 * rounding) & (residuals <= rounding)
        return (residuals <= self.tolerance * self.scale) & (zero | (np.maximum(residuals, rounding) <= own))

    def enough(self, theta: np.ndarray, residuals: np.ndarray, edge: float | None) -> tuple[int, bool]:
        """How many leading Ritz pairs to take, and whether they are good enough to stop.

        Beside known pairs, the last of which is at ``edge``, only those count that are more extreme; there is none
        when the leading value cannot reach the edge, or is itself well determined.
        """
        small = residuals <= np.maximum(
            np.minimum(self.tolerance * self.scale, 100 * self.tolerance * np.abs(theta)), self.eps * self.scale
        )
        if edge is None:
            return self.k, len(theta) >= self.k and bool(small[: self.k].all())
        slack = max(min(100 * self.tolerance, 1e-3) * abs(edge), 20 * self.eps * self.scale)
        ahead = int((self.key(theta) < self.key(edge) - slack)[: self.k].sum())
        if ahead == len(theta):
            return ahead, False
        # an eigenvalue beyond the edge gains on all others by a Chebyshev polynomial: has it shown itself by now?
        distance, spread = self.key(theta[ahead]) - self.key(edge), np.ptp(theta[ahead:])
        growth = (len(theta) - 1) * np.arccosh(1 + 2 * max(distance, 0) / spread) if spread else np.inf
        shown = growth > np.log(20 * np.sqrt(self.m)) and residuals[ahead] <= distance
        resolved = residuals[ahead] <= max(1e-4, self.tolerance) * self.scale
        return ahead, bool(small[:ahead].all()) and (len(theta) > 1) and bool(shown or resolved)

    def run(self, edge: float | None = None, spare: Tensor | None = None) -> bool:
        """Add pairs to those known; False if the products were not enough.

        Beside spare vectors too it only finds whether there is any pair, ``count``, beyond the edge.
        """
        self.beside = self.vectors if spare is None else torch.cat([self.vectors, spare])
        left, self.count = self.m - len(self.beside), 0
        if not left:
            return True
        size = min(left, self.size)
        basis = torch.zeros(size, self.m, dtype=self.dtype, device=self.device)
        projected, j, w = np.zeros((size, size)), 0, self.random(basis[:0])
        while True:
            basis[j] = w / w.norm()
            w, coefficients = _orthogonalise(self.product(basis[j]), basis[: j + 1])
            projected[: j + 1, j] = projected[j, : j + 1] = coefficients.double().cpu().numpy()
            w = self.clean(w)  # again: rounding grows as w is short
            j, beta = j + 1, float(w.norm())
            theta, s = eigh(projected[:j, :j])
            order = np.argsort(self.key(theta), kind="stable")
            self.scale = max(self.scale, np.abs(theta).max())
            exhausted = beta <= BREAKDOWN * self.eps * self.scale
            residuals = beta * np.abs(s[-1, order])
            self.count, settled = self.enough(theta[order], residuals, edge)
            settled |= spare is not None and self.count > 0
            whole = j == left or (exhausted and (j >= self.k or edge is not None))
            if settled or whole or self.products >= self.max_products:
                break
            if exhausted:  # what this space knows is exact, but it is too small
                w = self.random(basis[:j])
            if j == size:  # keep the wanted Ritz vectors and as many again, and go on from there
                keep = order[: min(2 * self.k, size - 2)]
                basis[: len(keep)] = torch.as_tensor(s[:, keep].T, dtype=self.dtype, device=self.device) @ basis
                projected[:] = 0
                projected[range(len(keep)), range(len(keep))] = theta[keep]
                j = len(keep)
        if spare is not None:
            return settled or whole
        chosen = order[: min(self.count, j)]
        rows = torch.as_tensor(s[:, order].T, dtype=self.dtype, device=self.device) @ basis[:j]
        self.vectors, self.spare = torch.cat([self.vectors, rows[: len(chosen)]]), rows[len(chosen) :]
        self.values = np.append(self.values, theta[chosen])
        self.residuals = np.append(self.residuals, residuals[: len(chosen)])
        return settled or whole
