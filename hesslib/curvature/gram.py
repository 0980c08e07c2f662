"""Exact spectra from a small matrix, where the rank is far below the number of parameters.

Write the operator as U S U' with U of shape (M, r) and S a diagonal of signs. Its nonzero eigenvalues
are those of S (U'U), a matrix of order r. U is never formed: the inner products of its columns are
products of layer quantities.

G: each example n gives columns J_n' b, where A_n = sum +- b b'. A column's part in layer l is the
outer product of a backpropagated b with the layer's input, so inner products factorise layer by layer.

R of one hidden layer with a piecewise linear activation couples a hidden unit's incoming weights (with
bias) only to its outgoing ones, through E_h = sum_n phi'(z_nh) x_n d_n'. Each singular triple (sigma, u,
v) of E_h gives the two columns sqrt(sigma / 2) (u, +-v) with signs +-. For cross-entropy the entries of
d_n sum to zero, so E_h has rank at most C - 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any  # noqa: F401  # in a type comment

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from .structure.linear import factor

if TYPE_CHECKING:
    from .operators import CurvatureOperator
    from .structure.linear import Layer, Pulled


def why_not(op: CurvatureOperator) -> str:
    """Why the gram route does not apply to an operator; empty if it does."""
    structure = op.structure  # type: Any
    if structure is None:
        return "the model does not end in a chain of Linear layers and elementwise activations"
    if structure.head:
        names = ", ".join(name for name, _ in structure.head)
        return f"parameters outside the chain of Linear layers at the model's end: {names}"
    if any(layer.weight_at is None for layer in structure.layers):
        return "not every layer's weight is among the chosen parameters"
    if any(layer.bias_at is None and layer.inputs.shape[1] > layer.weight.shape[1] for layer in structure.layers):
        return "not every layer's bias is among the chosen parameters"
    if op.kind != "ggn" and (len(structure.layers) > 2 or any(layer.bend is not None for layer in structure.layers)):
        return "R is of low rank only for at most one hidden layer with a piecewise linear activation"
    return ""


def columns(op: CurvatureOperator) -> int:
    """An upper bound on the order r of the small matrix."""
    structure = op.structure  # type: Any
    n, c = structure.outputs.shape
    rank = c - 1 if op.risk.criterion.name == "cross_entropy" else c
    if op.output == "probability" and op.kind == "ggn":
        rank = 1
    hidden = structure.layers[0].width if len(structure.layers) == 2 and op.kind != "ggn" else 0
    return n * rank * (op.kind != "residual" or op.output == "probability") + 2 * rank * hidden


def gram_matrix(op: CurvatureOperator) -> tuple[Tensor, Tensor]:
    """U'U (r, r) and the signs (r,) of an operator to which the route applies."""
    structure = op.structure  # type: Any
    layers, (gradient, curvature) = structure.layers, op.closed_terms
    b, signs = factor(curvature)
    n, rank, _ = b.shape
    count = n * rank
    pulled, d = [], b.reshape(count, b.shape[2])
    for layer in reversed(layers):  # the columns' parts: d at each layer's z, (N r, width)
        d = (d.view(n, rank, layer.width) * layer.slope[:, None]).reshape(count, layer.width)
        pulled.append(d)
        d = d @ layer.weight
    pulled = pulled[::-1]
    coupling = _couplings(layers, structure.backward(gradient, None)) if bool(gradient.any()) else None
    extra = 0 if coupling is None else 2 * len(coupling[0])
    gram = torch.zeros(count + extra, count + extra, dtype=b.dtype, device=b.device)
    step = max(1, 2**27 // max(1, 8 * rank * count))
    for layer, d in zip(layers, pulled, strict=True) if count else ():
        inputs = layer.inputs @ layer.inputs.T
        for start in range(0, n, step):
            stop = min(n, start + step)
            rows = slice(start * rank, stop * rank)
            part = (d[rows] @ d.T).view(stop - start, rank, n, rank)
            part *= inputs[start:stop, None, :, None]
            gram[rows, :count] += part.view(-1, count)
    signs = signs.reshape(-1)
    if coupling is not None:
        unit, sigma, u, v = coupling
        first = (u @ layers[0].inputs.T).repeat_interleave(rank, 1) * pulled[0].T[unit]
        second = (v @ pulled[1].T) * layers[1].inputs.T[unit].repeat_interleave(rank, 1)
        half = (sigma / 2).sqrt()[:, None]
        cross = torch.cat([half * (first + second), half * (first - second)])
        gram[count:, :count], gram[:count, count:] = cross, cross.T
        gram.diagonal()[count:] = torch.cat([sigma, sigma])
        signs = torch.cat([signs, torch.ones_like(sigma), -torch.ones_like(sigma)])
    return gram, signs


def _couplings(layers: list[Layer], known: list[Pulled]) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Singular triples of every hidden unit's E_h: the unit's index, sigma, u (., inputs) and v (., C)."""
    if len(layers) < 2:
        return None
    low, d = layers[0], known[1][1]
    e = torch.stack([(low.inputs * low.slope[:, h, None]).T @ d for h in range(low.width)])
    u, sigma, v = torch.linalg.svd(e, full_matrices=False)
    floor = 100 * torch.finfo(sigma.dtype).eps * sigma.max()
    unit, index = torch.nonzero(sigma > floor, as_tuple=True)
    return unit, sigma[unit, index], u.transpose(1, 2)[unit, index], v[unit, index]


def cholesky(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Lower trapezoidal L (r, rank) and an order of the rows with L L' = gram[order][:, order], up to rounding."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    if int(failed) == 0:
        return lower, torch.arange(len(gram), device=gram.device)
    # singular: pivoting finds the numerical rank. The transposed view is the same matrix in Fortran order.
    lower, pivots, rank, _ = lapack.dpstrf(gram.cpu().numpy().T, lower=1)
    return torch.as_tensor(lower).tril()[:, :rank].to(gram), torch.as_tensor(pivots - 1, device=gram.device).long()


def gram_eigenvalues(op: CurvatureOperator) -> tuple[np.ndarray, dict[str, float]]:
    """The eigenvalues that are not zero of themselves, and trace and squared Frobenius norm of the small matrix."""
    gram, signs = gram_matrix(op)
    gram, signs = gram.double(), signs.double()
    trace = float(signs @ gram.diagonal())
    square = sum(
        float((part.square() * s[:, None]).sum(0) @ signs) for part, s in zip(gram.split(512), signs.split(512))
    )
    lower, order = cholesky(gram)
    del gram
    # the eigenvalues of S L L' are those of L' S L, whose upper half is summed over the rows where both
    # factors are not zero
    signs, rank = signs[order], lower.shape[1]
    small = torch.zeros(rank, rank, dtype=lower.dtype, device=lower.device)
    for start in range(0, rank, 1024):
        stop = min(rank, start + 1024)
        small[:stop, start:stop] = lower[start:, :stop].T @ (signs[start:, None] * lower[start:, start:stop])
    del lower
    values = torch.linalg.eigvalsh(small, UPLO="U").cpu().numpy()
    return values, {"trace": trace, "square": square}
