"""Trace and diagonal: exact where that is cheap, elsewhere estimated with a standard error.

The estimates are of the kind of Hutch++ (Meyer, Musco, Musco and Woodruff 2021). Products with random signs find a
basis Q of a space in which the operator is large, and what belongs to it is exact. What is left, (1 - QQ') H (1 - QQ'),
is estimated by further random signs z, independent of the first, as z times its product with z, entry by entry. Given Q
these are independent, so their scatter is an honest standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from .._checks import whole
from .._progress import bar
from .certificates import report
from .jacobian import jacobian_chunks
from .lanczos import _fits, _rows
from .operators import CurvatureOperator, SymmetricOperator

Value = TypeVar("Value")


@dataclass(frozen=True)
class ValueWithError(Generic[Value]):
    """A number, or one for each parameter, and its standard error.

    Attributes:
        value: float, or float64 (M,).
        error: the same; zero where the value is exact.
        exact: whether no part is estimated.
        reason: how it was found.
        products: matrix-vector products spent, those of checks left out.
    """

    value: Value
    error: Value
    exact: bool
    reason: str
    products: int


def trace(
    op: LinearOperator,
    method: Literal["auto", "exact", "estimate"] = "auto",
    *,
    probes: int = 20,
    sketch: int = 20,
    seed: int = 0,
    progress: bool | None = None,
) -> ValueWithError[float]:
    """The trace, the sum of all eigenvalues; exact where that is cheap, elsewhere with a standard error.

    Exact in closed form are the Linear layers at the end of a model, and G of every model (C passes over
    the data). What is left takes a product for each parameter, with ``"auto"`` only if these are not more than the
    products of an estimate.

    Args:
        op: a ``CurvatureOperator`` or any symmetric scipy ``LinearOperator``, (M, M).
        method: ``"auto"``; ``"exact"``, whatever it costs; ``"estimate"``, by products alone.
        probes: of an estimate, at least 2: its error falls with the square root of their number.
        sketch: half the number of products spent on the space of the largest eigenvalues, which is then exact; 0 for
            Hutchinson's estimator.
        seed: of probes and sketch.
        progress: False hides the bar.

    Raises:
        ValueError: method, probes, sketch or seed out of range; op is not square or complex, or its products have NaN.
        TypeError: op is no ``LinearOperator``.
        MemoryError: twice probes + sketch vectors of length M do not fit.
        CertificateError: a closed form differs from products.

    Example:
        >>> import numpy as np
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> from hesslib import trace
        >>> found = trace(aslinearoperator(np.diag([3.0, -5.0, 1.0])))
        >>> found.value, found.error, found.reason
        (-1.0, 0.0, '3 products')
    """
    known, samples, reason, products = _diagonal(op, method, probes, sketch, seed, progress)
    if not len(samples):
        return ValueWithError(float(known.sum()), 0.0, True, reason, products)
    each = samples.sum(1)
    error = float(each.std(ddof=1) / np.sqrt(len(each)))
    return ValueWithError(float(known.sum() + each.mean()), error, False, reason, products)


def diagonal(
    op: LinearOperator,
    method: Literal["auto", "exact", "estimate"] = "auto",
    *,
    probes: int = 20,
    sketch: int = 20,
    seed: int = 0,
    progress: bool | None = None,
) -> ValueWithError[np.ndarray]:
    """The M entries on the diagonal, each with a standard error; arguments and costs as for ``trace``.

    The standard deviation of an estimated entry of one probe is about the norm of the rest of its row, so small entries
    need many probes.

    Example:
        >>> import torch
        >>> from hesslib import EmpiricalRisk, diagonal
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2)).double()
        >>> risk = EmpiricalRisk(model, torch.eye(3).double(), torch.tensor([0, 1, 0]))
        >>> found = diagonal(risk.hessian())
        >>> found.value.shape, found.exact, found.reason
        ((8,), True, 'closed form of the Linear layers')
    """
    known, samples, reason, products = _diagonal(op, method, probes, sketch, seed, progress)
    if not len(samples):
        return ValueWithError(known, np.zeros_like(known), True, reason, products)
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return ValueWithError(known + samples.mean(0), error, False, reason, products)


def _diagonal(
    op: LinearOperator, method: str, probes: int, sketch: int, seed: int, progress: bool | None
) -> tuple[np.ndarray, np.ndarray, str, int]:
    """What is known of the diagonal (M,), samples (probes, M) whose mean is the rest, how, and products spent."""
    if method not in ("auto", "exact", "estimate"):
        raise ValueError(f"method={method!r} is unknown: give 'auto', 'exact' or 'estimate'")
    whole(2, probes=probes)
    whole(0, sketch=sketch, seed=seed)
    if not isinstance(op, LinearOperator):
        raise TypeError(f"op: a LinearOperator (M, M) is needed, as risk.hessian() is; got {type(op).__name__}")
    if op.shape[0] != op.shape[1] or np.issubdtype(op.dtype, np.complexfloating):
        raise ValueError(f"op: a real square operator is needed, got {op.dtype} of shape {op.shape}")
    m, closed = op.shape[0], isinstance(op, CurvatureOperator) and method != "estimate"
    known, rest, reasons = _closed_form(op) if closed else (np.zeros(m), np.arange(m), [])
    if not len(rest):
        return known, np.zeros((0, m)), reasons[0], 0
    sketch = min(sketch, len(rest))
    estimated = method == "estimate" or (method == "auto" and len(rest) > 2 * sketch + probes)
    products = 2 * sketch + probes if estimated else len(rest)
    where = "" if len(rest) == m else f" for {len(rest)} of {m} parameters"
    found = np.zeros((probes, m))
    with bar(desc="diagonal, products", total=products, show=progress) as shown:
        multiply, dtype, device = _restricted(op, rest, shown)
        if estimated:
            _fits(2 * (probes + sketch), m, dtype, device, f"probes={probes}, sketch={sketch}")
            base, samples = _samples(multiply, len(rest), dtype, device, probes, sketch, seed)
            known[rest], found[:, rest] = base, samples
            reasons.append(f"{products} products, {sketch} + {probes} random directions{where}")
        else:
            known[rest], found = _entries(multiply, len(rest), dtype, device), np.zeros((0, m))
            reasons.append(f"{products} products{where}")
    return known, found, "; ".join(reasons), products


def _restricted(op: LinearOperator, rest: np.ndarray, shown: Any) -> tuple[Any, torch.dtype, torch.device]:
    """Products (k, n) of the block of some parameters with the rows of (k, n), a few at a time."""
    product, dtype, device = _rows(op)
    at = torch.as_tensor(rest, device=device)

    def multiply(rows: Tensor) -> Tensor:
        parts = []
        for part in rows.split(op.chunk if isinstance(op, CurvatureOperator) else 16):
            full = torch.zeros(len(part), op.shape[0], dtype=dtype, device=device)
            full[:, at] = part
            parts.append(product(full)[:, at])
            if not bool(torch.isfinite(parts[-1]).all()):
                raise ValueError("op: a product with it contains NaN or infinite values")
            shown.update(len(part))
        return torch.cat(parts) if parts else rows

    return multiply, dtype, device


def _entries(multiply: Callable[[Tensor], Tensor], m: int, dtype: torch.dtype, device: torch.device) -> np.ndarray:
    """The diagonal (m,) by a product with each unit vector."""
    found = []
    for index in torch.arange(m, device=device).split(64):
        unit = torch.zeros(len(index), m, dtype=dtype, device=device)
        unit[torch.arange(len(index), device=device), index] = 1
        found.append(multiply(unit).gather(1, index[:, None])[:, 0])
    return torch.cat(found).double().cpu().numpy()


def _samples(
    multiply: Callable[[Tensor], Tensor], m: int, dtype: torch.dtype, device: torch.device, probes: int, sketch: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The diagonal (m,) of what a sketch holds, and samples (probes, m) whose mean is the rest of it."""
    generator = torch.Generator().manual_seed(seed)
    signs = lambda n: (torch.randint(0, 2, (n, m), generator=generator) * 2 - 1).to(device, dtype)
    q = torch.linalg.qr(multiply(signs(sketch)).T)[0].T.contiguous()
    image = multiply(q)
    base = 2 * (q * image).sum(0) - ((q @ image.T @ q) * q).sum(0)
    clean = lambda rows: rows - (rows @ q.T) @ q
    z = signs(probes)
    samples = z * clean(multiply(clean(z)))
    return base.double().cpu().numpy(), samples.double().cpu().numpy()


def _closed_form(op: CurvatureOperator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The diagonal (M,) as far as it is cheap, the places that are left, and how it was found."""
    op.certify()
    m, found = op.shape[0], _layers(op)
    if found is not None:
        how = "closed form of the Linear layers"
    elif op.kind == "ggn":
        found, how = (_from_jacobian(op), np.arange(0)), "Jacobian"
    else:
        return np.zeros(m), np.arange(m), []
    diagonal, rest = found
    _compare(op, diagonal, rest, how)
    return diagonal.double().cpu().numpy(), rest, [how]


def _layers(op: CurvatureOperator) -> tuple[Tensor, np.ndarray] | None:
    """The diagonal of the Linear layers at the model's end, and the places of the other parameters.

    The term with d couples different layers only, so the entry of a weight is 1/N sum_n A_n[p, p] a_n[q]^2.
    """
    structure = op.structure
    if structure is None or (structure.head and op.kind == "ggn"):  # then the Jacobian has all of it
        return None
    width = max(layer.width for layer in structure.layers)
    if 3 * op.risk.num_examples * width**2 * op.dtype.itemsize > op.memory_budget:
        return None
    diagonal = torch.zeros(op.shape[0], dtype=op.risk.dtype, device=op.risk.device)
    for layer, (_, _, a) in zip(structure.layers, structure.backward(*op.closed_terms), strict=True):
        fan_in = layer.weight.shape[1]
        entries = a.diagonal(dim1=1, dim2=2).T @ layer.inputs.square()  # (width, fan_in [+ 1])
        if layer.weight_at is not None:
            diagonal[layer.weight_at] = entries[:, :fan_in].flatten()
        if layer.bias_at is not None:
            diagonal[layer.bias_at] = entries[:, fan_in]
    head = [np.arange(at.start, at.stop) for _, at in structure.head]
    return diagonal, np.concatenate([np.zeros(0, int), *head])


def _from_jacobian(op: CurvatureOperator) -> Tensor:
    """The diagonal of G = 1/N sum J' A J, a few examples at a time."""
    diagonal = torch.zeros(op.shape[0], dtype=op.risk.dtype, device=op.risk.device)
    chunks = jacobian_chunks(op.risk, max(1, op.memory_budget // 3))
    for x, y in op.risk.batches:
        f, start = op.risk.outputs(op.risk.parameters, x).detach(), 0
        while start < len(f):
            part = next(chunks).movedim(-1, 0)  # (M, n, ...)
            own = slice(start, start + part.shape[1])
            _, curve = op.curve(f[own], y[own])
            diagonal += (part * curve(part).detach()).flatten(1).sum(1)  # type: ignore[misc]  # G has an A
            start = own.stop
    return diagonal


def _compare(op: SymmetricOperator, diagonal: Tensor, rest: np.ndarray, how: str) -> None:
    """The largest entries must be those of products with unit vectors."""
    known = diagonal.abs().clone()
    known[torch.as_tensor(rest, device=known.device)] = 0
    index = known.topk(min(3, len(known))).indices
    unit = torch.zeros(len(index), op.shape[0], dtype=diagonal.dtype, device=diagonal.device)
    unit[torch.arange(len(index), device=index.device), index] = 1
    entries = op.product(unit).gather(1, index[:, None])[:, 0]
    size = float(known.max())
    apart = float(((entries - diagonal[index]) * (known[index] > 0)).abs().max())
    if not apart <= (1e-7 if op.risk.dtype == torch.float64 else 5e-3) * size:
        report(op.risk, f"{op.name}: its diagonal ({how}) differs by {apart / size:.1e} from products")
