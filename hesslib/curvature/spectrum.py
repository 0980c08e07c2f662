"""Every eigenvalue of a curvature operator, with certificates."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import torch

from .operators import CurvatureOperator


@dataclass(frozen=True)
class Spectrum:
    """All M eigenvalues of a symmetric operator.

    Attributes:
        eigenvalues: ascending float64 (M,), exact zeros included.
        method: the route taken, ``"dense"`` or ``"gram"``.
        reason: why this route.
        seconds: wall time of assembly and eigendecomposition.
        certificates: relative defects, each zero up to rounding where all is well; see ``spectrum``.
    """

    eigenvalues: np.ndarray
    method: str
    reason: str
    seconds: float
    certificates: dict[str, float] = field(default_factory=dict)

    def count(self, above: float) -> int:
        """Number of eigenvalues larger than a threshold."""
        return int((self.eigenvalues > above).sum())

    def count_bulk(self, fraction: float = 1e-3) -> int:
        """Number of eigenvalues smaller in magnitude than ``fraction`` times the largest one."""
        return int((np.abs(self.eigenvalues) < fraction * self.eigenvalues[-1]).sum())

    def count_negative(self, tolerance: float) -> int:
        """Number of eigenvalues below ``-tolerance``, which must be above the rounding error."""
        if tolerance < 0:
            raise ValueError(f"tolerance={tolerance}: it must not be negative")
        return int((self.eigenvalues < -tolerance).sum())


def spectrum(
    op: CurvatureOperator, method: str = "auto", *, checkpoint=None, progress: bool | None = None
) -> Spectrum:
    """Exact spectrum of a curvature operator, in float64 whatever the model's dtype.

    Certificates: ``symmetry``, the largest entry of the matrix minus its transpose; ``product``, the
    distance between a matrix-vector product and the operator's by automatic differentiation, an
    independent route; ``trace`` and ``frobenius``, the eigenvalues' sum against the trace and their sum
    of squares against the squared Frobenius norm, both taken from the matrix. All are relative.

    Args:
        op: a ``CurvatureOperator``.
        method: ``"dense"``, or ``"auto"`` to choose.
        checkpoint, progress: as in ``to_dense``.

    Raises:
        MemoryError: no exact route fits into free memory; nothing has been allocated.
    """
    if method not in ("auto", "dense"):
        raise ValueError(f"method={method!r} is unknown: give 'auto' or 'dense'")
    start = time.perf_counter()
    matrix = op.to_dense(checkpoint=checkpoint, progress=progress)
    certificates = matrix_certificates(op, matrix)
    # rows of parameters that touch no example (a pixel that is always black, a dead unit) are zero:
    # their eigenvalues are known, and the rest of the matrix is smaller
    alive = matrix.any(1)
    inner = matrix[alive][:, alive].double().cpu().numpy()
    trace, square = float(np.trace(inner)), float((inner**2).sum())
    values = scipy.linalg.eigvalsh(inner, driver="evd", overwrite_a=True, check_finite=False)
    eigenvalues = np.sort(np.concatenate([values, np.zeros(len(alive) - len(values))]))
    certificates |= {
        "trace": abs(eigenvalues.sum() - trace) / max(np.abs(eigenvalues).sum(), 1e-300),
        "frobenius": abs((eigenvalues**2).sum() - square) / max(square, 1e-300),
    }
    seconds = time.perf_counter() - start
    return Spectrum(
        eigenvalues, "dense", f"the {op.shape[0]} x {op.shape[0]} matrix fits", seconds, certificates
    )


def matrix_certificates(op: CurvatureOperator, matrix: torch.Tensor) -> dict[str, float]:
    """Symmetry defect of a matrix, and its distance to the operator on one random vector, both relative."""
    probe = torch.randn(op.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(
        matrix
    )
    product = op._autograd_product(probe[None])[0]
    scale = max(float(matrix.abs().max()), 1e-300)
    step = max(1, 2**24 // len(matrix))
    defect = max(
        float((matrix[i : i + step] - matrix[:, i : i + step].T).abs().max())
        for i in range(0, len(matrix), step)
    )
    return {
        "symmetry": defect / scale,
        "product": float((matrix @ probe - product).norm()) / max(float(product.norm()), 1e-300),
    }
