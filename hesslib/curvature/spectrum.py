"""Every eigenvalue of a curvature operator, with certificates."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .._progress import waiting
from . import gram
from .certificates import is_rounding, probe, relative, report
from .lanczos import top_eigenpairs
from .memory import free_memory
from .operators import CurvatureOperator
from .route import choose


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
    op: CurvatureOperator,
    method: Literal["auto", "dense", "gram"] = "auto",
    *,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Spectrum:
    """Exact spectrum of a curvature operator, in float64 whatever the model's dtype.

    ``"dense"`` assembles the matrix and finds its eigenvalues. ``"gram"`` finds them from a matrix of the
    order of the rank (``gram.py``): for G of any chain of Linear layers, for H and R with at most one hidden
    layer and a piecewise linear activation. ``"auto"`` takes the smaller matrix of those that apply.

    Certificates: ``symmetry``, the asymmetry of the matrix (gram: of the products); ``product``, the
    distance of a matrix-vector product (gram: in closed form) to the operator's by automatic
    differentiation, an independent route; ``trace`` and ``frobenius``, the eigenvalues' sum against the trace
    and their sum of squares against the squared Frobenius norm, both taken before the
    eigendecomposition; ``top`` (gram), the largest eigenvalue against Lanczos on products. All are relative,
    and one above 1e-6 (float32: 5e-3) is an error, unless the operator is zero up to rounding.

    Args:
        op: a ``CurvatureOperator``.
        method: ``"auto"``, ``"dense"`` or ``"gram"``.
        checkpoint: a folder that keeps the rows made by products, so that a stopped run goes on; ``progress``: bars.

    Raises:
        MemoryError: the matrix does not fit into free memory; nothing has been allocated.
        CertificateError: independent routes differ.
        TypeError: op is another kind of operator.
        ValueError: the gram route was asked for and does not apply; the message says why.
    """
    chosen, reason, order = choose(op, method)
    check_memory(op, chosen, order)
    start, m = time.perf_counter(), op.shape[0]
    if chosen == "gram":
        with waiting(f"{op.name}, matrix of order {order}", 2 * eigenvalue_seconds(order), progress):
            values, sums = gram.gram_eigenvalues(op)
        certificates = product_certificates(op, values, progress)
    else:
        values, sums, certificates = dense_eigenvalues(op, checkpoint, progress)
    eigenvalues = np.sort(np.concatenate([values, np.zeros(m - len(values))]))
    certificates |= {
        "trace": abs(eigenvalues.sum() - sums["trace"]) / max(np.abs(eigenvalues).sum(), 1e-300),
        "frobenius": abs((eigenvalues**2).sum() - sums["square"]) / max(sums["square"], 1e-300),
    }
    certificates = {name: float(value) for name, value in certificates.items()}
    check_spectrum(op, certificates, eigenvalues)
    return Spectrum(eigenvalues, chosen, reason, time.perf_counter() - start, certificates)


def check_memory(op: CurvatureOperator, method: str, order: int) -> None:
    """Refuse a matrix that does not fit, and say what the other method would need."""
    needed, free = 3 * 8 * order**2, free_memory(op.risk.device)  # the matrix, a factor or copy, and work space
    if needed > free:
        small = gram.why_not(op) or f"a matrix of order {gram.columns(op)}"
        other = f"dense: order {op.shape[0]}" if method == "gram" else f"gram: {small}"
        raise MemoryError(
            f"{op.name}: eigenvalues of a matrix of order {order} need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} "
            f"GiB are free; {other}. For part of the spectrum use top_eigenpairs(op, k) or spectral_density(op)"
        )


def dense_eigenvalues(
    op: CurvatureOperator, checkpoint: str | Path | None, progress: bool | None
) -> tuple[np.ndarray, dict[str, float], dict[str, float]]:
    """Eigenvalues of the assembled matrix without its zero rows, trace, squared Frobenius norm, certificates."""
    matrix = op.to_dense(checkpoint=checkpoint, progress=progress)
    certificates = matrix_certificates(op, matrix)
    # rows of parameters that touch no example (a pixel that is always black, a dead unit) are zero:
    # their eigenvalues are known, and the rest of the matrix is smaller
    alive = matrix.any(1)
    inner = matrix[alive][:, alive].double()
    del matrix
    sums = {"trace": float(inner.trace()), "square": float(inner.square().sum())}
    with waiting(f"{op.name}, eigenvalues", eigenvalue_seconds(len(inner)), progress):
        return torch.linalg.eigvalsh(inner).cpu().numpy(), sums, certificates


def eigenvalue_seconds(order: int) -> float:
    """What the eigenvalues of a matrix of an order will take, from the time of a small one; 0 if it is little."""
    if order < 1000:
        return 0.0
    small = torch.rand(400, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    torch.linalg.eigvalsh(small + small.T)
    return (order / 400) ** 3 * (time.perf_counter() - start)


def check_spectrum(op: CurvatureOperator, certificates: dict[str, float], eigenvalues: np.ndarray) -> None:
    """Refuse a spectrum of which a certificate failed."""
    allowed = 1e-6 if op.risk.dtype == torch.float64 else 5e-3
    failed = {name: value for name, value in certificates.items() if not value <= allowed}
    if failed and not is_rounding(op, float(np.abs(eigenvalues).max() * probe(op.risk).norm())):
        listed = ", ".join(f"{name} {value:.1e}" for name, value in failed.items())
        report(op.risk, f"{op.name}: certificates of the spectrum are above {allowed:.0e}: {listed}")


def matrix_certificates(op: CurvatureOperator, matrix: torch.Tensor) -> dict[str, float]:
    """Relative asymmetry of a matrix, and its distance to the operator on one random vector."""
    product = op.reference_product
    step = max(1, 2**24 // len(matrix))
    parts = ((matrix[i : i + step], matrix[:, i : i + step].T) for i in range(0, len(matrix), step))
    defect = max(float((a - b).abs().max()) for a, b in parts)
    return {
        "symmetry": defect / max(float(matrix.abs().max()), 1e-300),
        "product": relative(matrix @ probe(op.risk), product),
    }


def product_certificates(op: CurvatureOperator, values: np.ndarray, progress: bool | None) -> dict[str, float]:
    """The same of an operator whose matrix is not formed, and its largest eigenvalue by Lanczos."""
    x = probe(op.risk)
    y = torch.randn(op.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(x)
    hx, hy = op.product(torch.stack([x, y]))
    top = top_eigenpairs(op, 1, "LM", progress=progress).eigenvalues[0]
    largest = np.abs(values).max(initial=0.0)
    return {
        "symmetry": float((x @ hy - y @ hx).abs()) / max(float(hx.norm() * y.norm()), 1e-300),
        "product": relative(hx, op.reference_product),
        "top": abs(largest - abs(top)) / max(largest, 1e-300),
    }
