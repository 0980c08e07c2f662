"""Dense curvature matrices: closed form where the layers allow it, products in column chunks elsewhere."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any  # noqa: F401  # in a type comment

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._files import Checkpoint
from .._progress import bar, waiting
from .certificates import check_product, probe
from .memory import free_memory
from .structure.convolution import fill_convolutions
from .structure.linear import Layer, LayerStructure

if TYPE_CHECKING:
    from .operators import CurvatureOperator

CHUNK_BYTES = 2**28  # temporary outer products; larger gains nothing, smaller loses to call overhead


def to_dense(op: CurvatureOperator, *, checkpoint: str | Path | None = None, progress: bool | None = None) -> Tensor:
    """The symmetric matrix (M, M) of an operator, in its dtype and on its device.

    The block of the Linear layers at the model's end comes in closed form (``structure/linear.py``), the rows of
    the other parameters from batched products. With ``checkpoint`` (a folder) the finished rows are kept
    there, and a call with the same operator goes on where an interrupted one stopped. The bar appears
    when the work takes more than two seconds (``progress=False``: never).

    Raises:
        MemoryError: the matrix does not fit into free memory; nothing has been allocated.
    """
    m, itemsize = op.shape[0], op.dtype.itemsize
    needed, free = m * m * itemsize, free_memory(op.risk.device)
    if needed + op.memory_budget > free:
        raise MemoryError(
            f"{op.name}: {m} x {m} needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free; use "
            "spectrum(op, method='gram') where it applies, top_eigenpairs(op, k) or spectral_density(op, ...)"
        )
    op.risk.certify()
    structure, where = op.structure, list(range(m))  # type: LayerStructure | None, Any
    matrix = torch.zeros(m, m, dtype=op.risk.dtype, device=op.risk.device)
    if structure is not None:
        with waiting(f"{op.name}, closed form", _closed_form_seconds(op), progress):
            fill_closed_form(matrix, structure, *op.closed_terms)
        where = [i for _, at in structure.head for i in range(at.start, at.stop)]
        if where and fill_convolutions(matrix, op, structure, progress):
            where = []
    if where:
        rows = _product_rows(op, where, checkpoint, progress)
        where = torch.as_tensor(where, device=matrix.device)
        matrix[where] = rows
        matrix[:, where] = rows.T
    check_product(op, matrix @ probe(op.risk), "the matrix")
    return matrix


def _closed_form_seconds(op: CurvatureOperator) -> float:
    """About what the closed form takes, M M N / 2 multiply-adds, from the time of a small matrix product."""
    work = op.shape[0] ** 2 * op.risk.num_examples / 2
    if work < 1e9:
        return 0.0
    small = torch.rand(512, 512, dtype=op.risk.dtype, generator=torch.Generator().manual_seed(0)).to(op.risk.device)
    start = time.perf_counter()
    small @ small
    return work / 512**3 * (time.perf_counter() - start)


def _product_rows(
    op: CurvatureOperator, where: list[int], checkpoint: str | Path | None, progress: bool | None
) -> Tensor:
    """Rows ``where`` of the matrix from batched products; with a checkpoint each chunk is a file of its own."""
    m, rows, key = op.shape[0], [], None if checkpoint is None else fingerprint(op, len(where))
    # at least 20 steps, so that the bar moves and an interruption loses little
    parts = torch.arange(len(where)).split(max(1, min(op.chunk, -(-len(where) // 20))))
    for part in bar(parts, desc=f"{op.name}, rows", show=progress):
        save = Checkpoint(Path(checkpoint, f"{key}-{part[0]}-{len(part)}.npz"), key) if key else None  # type: ignore[arg-type]
        found = save.load() if save else None
        if found is None:
            basis = torch.zeros(len(part), m, dtype=op.risk.dtype, device=op.risk.device)
            basis[range(len(part)), [where[i] for i in part]] = 1
            rows.append(op.product(basis))
            if save:
                save.save(rows=rows[-1].cpu().numpy())
        else:
            rows.append(torch.as_tensor(found["rows"]).to(op.risk.vector))
    return torch.cat(rows)


def fingerprint(op: CurvatureOperator, count: int) -> str:
    """What tells an operator's rows from another's: kind, shape, parameters and data."""
    loss = op.risk.criterion
    digest = hashlib.sha256(repr((op.kind, op.output, op.shape, loss.name, loss.reduction, count)).encode())
    for tensor in (op.risk.vector, *(t for t in tree_leaves(op.risk.batches) if isinstance(t, Tensor))):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


# -- closed form --------------------------------------------------------------------------------------


def fill_closed_form(matrix: Tensor, structure: LayerStructure, gradient: Tensor, curvature: Tensor) -> None:
    """Add the blocks between the layers of the chain to ``matrix`` (M, M), zero there before."""
    known = dict(zip(map(id, structure.layers), structure.backward(gradient, curvature), strict=True))
    for column, low in enumerate(structure.layers):
        if not places(low):
            continue
        jacobian = None  # dz_high / dz_low, (N, n_high, n_low)
        for row in range(column, len(structure.layers)):
            high = structure.layers[row]
            _, d, a = known[id(high)]
            if row == column:
                cross, inner = a, None
            else:
                below = structure.layers[row - 1]
                inner = torch.diag_embed(below.slope) if jacobian is None else below.slope[:, :, None] * jacobian
                jacobian = high.weight @ inner
                cross = a @ jacobian
            if places(high):
                _add_curvature(matrix, high, low, cross)
                if inner is not None and bool(d.any()):
                    _add_gradient(matrix, high, low, d, inner, diagonal=row == column + 1)
                if row != column:
                    for r, c in ((r, c) for r in places(high) for c in places(low)):
                        matrix[c, r] = matrix[r, c].T


def places(layer: Layer) -> list[slice]:
    """Where a layer's chosen weight and bias lie among the parameters."""
    return [at for at in (layer.weight_at, layer.bias_at) if at is not None]


def _add(matrix: Tensor, high: Layer, low: Layer, block: Tensor, p: slice, q: slice, i: slice) -> None:
    """Add a block (p, q, i, j) of layer coordinates, the last q and j being the biases, to the matrix."""
    n, m = high.weight.shape[1], low.weight.shape[1]
    for rows, q_take, q_put in ((high.weight_at, slice(0, n), n), (high.bias_at, slice(n, n + 1), 1)):
        for columns, j_take in ((low.weight_at, slice(0, m)), (low.bias_at, slice(m, m + 1))):
            start, stop = max(q.start, q_take.start), min(q.stop, q_take.stop)
            if rows is None or columns is None or start >= stop:
                continue
            target = matrix[rows, columns].view(high.width, q_put, low.width, -1)
            put = slice(start - q_take.start, stop - q_take.start)
            target[p, put, i] += block[:, start - q.start : stop - q.start, :, j_take]


def _add_curvature(matrix: Tensor, high: Layer, low: Layer, cross: Tensor) -> None:
    """Add sum_n cross[p, i] a_high[q] a_low[j], with whichever outer product is the smaller."""
    a, b, same = high.inputs, low.inputs, high is low
    n, q, j = len(a), a.shape[1], b.shape[1]
    if same:  # symmetric in (p, i): half the pairs
        lower, upper = torch.tril_indices(high.width, high.width).tolist()
        pairs = cross[:, lower, upper]
        lookup = torch.empty(high.width, high.width, dtype=torch.long)
        lookup[lower, upper] = lookup[upper, lower] = torch.arange(len(lower))
    else:
        pairs, lookup = cross.flatten(1), torch.arange(high.width * low.width).view(high.width, low.width)
    everything = slice(0, None)
    if q * j < pairs.shape[1] * min(q, j):
        step = max(1, CHUNK_BYTES // (n * j * a.element_size()))
        for start in range(0, q, step):
            part = a[:, start : start + step]
            outer = (part[:, :, None] * b[:, None, :]).flatten(1)
            block = (pairs.T @ outer).view(pairs.shape[1], part.shape[1], j)
            at = slice(start, start + part.shape[1])
            for p in range(high.width):  # (i, q, j) -> (1, q, i, j)
                _add(matrix, high, low, block[lookup[p]].transpose(0, 1)[None], slice(p, p + 1), at, everything)
        return
    for p in range(high.width):
        for i in range(p + 1 if same else low.width):
            weight = cross[:, p, i, None]
            block = (a * weight).T @ b if q <= j else a.T @ (b * weight)
            for r, c in {(p, i), (i, p)} if same else {(p, i)}:
                _add(matrix, high, low, block[None, :, None], slice(r, r + 1), slice(0, q), slice(c, c + 1))


def _add_gradient(matrix: Tensor, high: Layer, low: Layer, d: Tensor, inner: Tensor, diagonal: bool) -> None:
    """Add sum_n d[p] inner[q, i] a_low[j]; ``inner`` is diagonal between neighbouring layers."""
    if high.weight_at is None:
        return
    b, fan_in = low.inputs, high.weight.shape[1]
    step = max(1, CHUNK_BYTES // (len(b) * b.shape[1] * b.element_size()))
    for start in range(0, high.width, step):
        part = d[:, start : start + step]
        p = slice(start, start + part.shape[1])
        outer = (part[:, :, None] * b[:, None, :]).flatten(1).T
        if diagonal:
            found = (outer @ inner.diagonal(dim1=1, dim2=2)).view(part.shape[1], b.shape[1], fan_in).permute(0, 2, 1)
            for columns, take in (
                (low.weight_at, slice(0, low.weight.shape[1])),
                (low.bias_at, slice(low.weight.shape[1], None)),
            ):
                if columns is not None:
                    target = matrix[high.weight_at, columns].view(high.width, fan_in, low.width, -1)
                    target[p].diagonal(dim1=1, dim2=2).add_(found[..., take].transpose(1, 2))
        else:
            found = (outer @ inner.flatten(1)).view(part.shape[1], b.shape[1], fan_in, low.width).permute(0, 2, 3, 1)
            _add(matrix, high, low, found, p, slice(0, fan_in), slice(0, None))
