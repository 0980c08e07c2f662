"""Every eigenvalue of G of any network, from the inner products of its examples' gradients.

Write A_n = sum_a s_a b_a b_a' for the curvature of the loss in example n's outputs; for softmax and cross-entropy C - 1
vectors b suffice. Then G = U S U' with a column J_n' b_a for each example and each a, r = N (C - 1) of them, and its
nonzero eigenvalues are those of S U'U, a matrix of order r whatever M is. U, of M r numbers, is never formed: U'U is
a sum over layers (``structure/examples.py``), and a layer's part comes in the cheaper of two ways:

* columns: the layer's part of U itself, some output channels at a time;
* pairs: the sum over pairs of places of (patch . patch) (delta . delta), where the places are few.

Others (normalisation, attention, embeddings, weights used twice) come by differentiating each example's outputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._checks import whole
from .._progress import bar, waiting
from .batches import axes_of, count_examples, take
from .certificates import _push, probe, relative
from .gram import cholesky
from .lanczos import top_eigenpairs
from .losses import class_axis
from .memory import free_memory
from .operators import CurvatureOperator
from .spectrum import Spectrum, check_spectrum, eigenvalue_seconds, spectrum
from .structure.examples import ExampleLayer, layers_of, other_gradients, watched
from .structure.linear import factor

CHUNK = 512  # examples that go through the network together, at most


def ggn_spectrum(op: CurvatureOperator, *, memory: int | None = None, progress: bool | None = None) -> Spectrum:
    """Every eigenvalue of G, in float64, for any network whose examples do not mix.

    With more parameters than N (C - 1), the rank of G for cross-entropy over N targets, this needs a matrix of that
    order only: millions of parameters on 1,000 examples are within reach. Linear layers and convolutions go by their
    inputs and the gradients in their outputs, all other parameters by differentiating each example's outputs. With
    fewer parameters it is ``spectrum(op, "dense")``.

    Certificates, all relative and an error above 1e-6 (float32: 5e-3): ``product``, the matrix of inner products
    and G, each times a random vector, against derivatives of the whole network and of its loss; ``trace`` and
    ``frobenius``, the eigenvalues' sum and sum of squares against those of the matrix; ``top``, the largest eigenvalue
    against Lanczos on products by differentiation.

    Args:
        op: ``risk.ggn()``, also with ``output="probability"``.
        memory: bytes for what is kept of the layers at a time, beside the matrix and its copy; default: 2 GiB, or a
            quarter of what is free. Less takes more passes over the data.
        progress: False hides the bars.

    Raises:
        MemoryError: the matrix, its copy and ``memory`` do not fit; nothing has been allocated.
        CertificateError: independent routes differ, as they do where an example's outputs depend on other examples.
        TypeError: op is no ``CurvatureOperator``.
        ValueError: op is H or R, which are not of low rank; memory is negative.

    Example:
        >>> import torch
        >>> from hesslib import EmpiricalRisk, ggn_spectrum
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(32, 2)).double()
        >>> x, y = torch.eye(10).double()[:3, None], torch.tensor([0, 1, 0])
        >>> s = ggn_spectrum(EmpiricalRisk(model, x, y).ggn(), progress=False)
        >>> len(s.eigenvalues), int((s.eigenvalues > 1e-12).sum()), s.method
        (82, 3, 'gram')
    """
    if not isinstance(op, CurvatureOperator):
        raise TypeError(f"op: risk.ggn() is needed, got {type(op).__name__}; top_eigenpairs takes any linear operator")
    if op.kind != "ggn":
        raise ValueError(f"op: {op.name} given; G alone (risk.ggn()) is of rank N (C - 1), use spectrum(op) for others")
    whole(0, **({} if memory is None else {"memory": memory}))
    start, m, r = time.perf_counter(), op.shape[0], count_columns(op)
    if r >= m:
        return replace(spectrum(op, "dense", progress=progress), reason=f"rank at most {r}, M = {m} is no more")
    free = free_memory(op.risk.device)
    memory = min(2**31, free // 4) if memory is None else memory
    check_memory(op, r, memory, free)
    roots = Roots.of(op)
    if not roots.count:  # one class, or a loss without curvature
        return Spectrum(np.zeros(m), "gram", "rank 0", time.perf_counter() - start)
    gram, signs, reason = inner_products(op, roots, memory, progress)
    certificates = {"product": product_certificate(op, roots, gram, signs)}
    trace, square = float(signs @ gram.diagonal()), squared_norm(gram, signs)
    with waiting(f"{op.name}, matrix of order {r}", eigenvalue_seconds(r), progress):
        values = signed_eigenvalues(gram, signs)
    del gram
    eigenvalues = np.sort(np.concatenate([values, np.zeros(m - len(values))]))
    top = largest_by_lanczos(op, roots, signs, progress)
    largest = np.abs(values).max(initial=0.0)
    certificates |= {
        "trace": abs(eigenvalues.sum() - trace) / max(np.abs(eigenvalues).sum(), 1e-300),
        "frobenius": abs((eigenvalues**2).sum() - square) / max(square, 1e-300),
        "top": abs(largest - top) / max(largest, 1e-300),
    }
    certificates = {name: float(value) for name, value in certificates.items()}
    size = float(op.reference_product.norm() / probe(op.risk).norm())  # of G itself, should every value be a wrong zero
    check_spectrum(op, certificates, np.append(eigenvalues, size))
    reason = f"rank at most {r}, below M = {m}; {reason}"
    return Spectrum(eigenvalues, "gram", reason, time.perf_counter() - start, certificates)


def check_memory(op: CurvatureOperator, r: int, memory: int, free: int) -> None:
    """Refuse what does not fit, with numbers: the matrix with its copy, or with what is kept of the layers."""
    matrix, rest = 8 * r**2, memory + op.memory_budget
    if matrix + max(matrix, rest) > free:
        gib = lambda size: f"{size / 2**30:.1f} GiB"
        raise MemoryError(
            f"{op.name}: a matrix of order {r} needs {gib(matrix)}, its eigenvalues as much again, and the layers at a "
            f"time {gib(rest)}; {gib(free)} are free. For part of the spectrum use top_eigenpairs(op, k) or "
            "spectral_density(op)"
        )


# -- the square root of the loss's curvature -----------------------------------------------------------


def count_columns(op: CurvatureOperator) -> int:
    """How many vectors the examples' G consist of together, from the outputs of the first batch."""
    x, y = op.risk.batches[0]
    outputs = op.risk.outputs(op.risk.parameters, x)
    each = outputs[0].numel()
    if op.risk.criterion.name == "cross_entropy":
        targets = y[0].numel()
        each = targets if op.output == "probability" else each - targets
    elif op.output == "probability":
        each = 1
    return op.risk.num_examples * each


@dataclass(eq=False)
class Roots:
    """Vectors b with A_n = sum_a s_a b_a b_a' for the N examples, each of which has T targets of C outputs."""

    vectors: Tensor  # (N, T, a, C), divided by the square root of the number of targets
    signs: Tensor  # (N, T, a)
    axis: int  # of the classes in the model's outputs
    shape: torch.Size  # of an example's outputs, the classes last
    outputs: Tensor  # (N, ...), for comparison

    @classmethod
    def of(cls, op: CurvatureOperator) -> Roots:
        """Evaluate the model on all batches."""
        risk = op.risk
        found = [(risk.outputs(risk.parameters, x).detach(), y) for x, y in risk.batches]
        if len({f.shape[1:] for f, _ in found}) > 1:
            raise ValueError("inputs: outputs of different shapes in different batches; pad them to one shape")
        if any(len(f) != count_examples(x) for (f, _), (x, _) in zip(found, risk.batches)):
            raise ValueError("model: outputs (N, ...) are needed, one row for each example")
        outputs, targets = torch.cat([f for f, _ in found]), torch.cat([y for _, y in found])
        if risk.criterion.name != "cross_entropy":  # one target of all outputs
            b, signs = cls._of_examples(op, outputs, targets)
            return cls(b[:, None], signs[:, None], -1, outputs.shape[1:], outputs)
        axis = class_axis(outputs, targets)
        last = outputs.movedim(axis, -1)
        flat, y = last.reshape(-1, last.shape[-1]), targets.reshape(-1)
        if op.output == "probability":
            d, _ = risk.criterion.terms(flat, y)
            b = d[:, None] / risk.criterion.divisor**0.5
        else:
            b = softmax_root(flat) * (y >= 0)[:, None, None] / risk.criterion.divisor**0.5
        signs = torch.ones_like(b[..., 0])
        lead = len(outputs), len(flat) // len(outputs)
        return cls(b.view(*lead, *b.shape[1:]), signs.view(*lead, -1), axis, last.shape[1:], outputs)

    @staticmethod
    def _of_examples(op: CurvatureOperator, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, a, F) and signs (N, a) of a loss whose examples have F outputs each."""
        risk, n = op.risk, len(outputs)
        if op.output == "probability":
            d = risk.criterion.derivatives(outputs, targets)[0].reshape(n, 1, -1)
            return d / risk.criterion.divisor**0.5, torch.ones_like(d[..., 0])
        if risk.criterion.name == "mse":
            size = outputs[0].numel()
            b = (2 / size / risk.criterion.divisor) ** 0.5 * torch.eye(size).to(outputs)
            b = b.expand(n, *b.shape)
            return b, torch.ones_like(b[..., 0])
        if risk.criterion.name == "binary_cross_entropy":
            p = outputs.reshape(n, -1).sigmoid()
            b = torch.diag_embed((p * (1 - p) / p.shape[1] / risk.criterion.divisor).sqrt())
            return b, torch.ones_like(b[..., 0])
        return factor(op.terms(outputs, targets)[1])

    @property
    def each(self) -> int:
        """Columns of an example."""
        return self.vectors.shape[1] * self.vectors.shape[2]

    @property
    def count(self) -> int:
        """Columns of all examples."""
        return len(self.vectors) * self.each

    def seeds(self, part: slice) -> Tensor:
        """The vectors (n, columns, ...) of some examples in the shape of the model's outputs."""
        b = self.vectors[part]
        n, t, a, c = b.shape
        full = b.new_zeros(n, t, a, t, c)
        full.diagonal(dim1=1, dim2=3).copy_(b.permute(0, 2, 3, 1))
        found = full.view(n, t * a, *self.shape)
        return found if self.axis == -1 else found.movedim(-1, self.axis + 1)


def softmax_root(outputs: Tensor) -> Tensor:
    """C - 1 vectors b (n, C - 1, C) with sum b b' = diag(p) - p p', p the softmax of the outputs (n, C).

    With s the root of p, a unit vector, diag(p) - p p' = diag(s) (1 - s s') diag(s), and 1 - s s' is the sum of q q'
    over the columns q of the reflection that takes s to an axis, that one left out. With the axis of the largest p none
    of it cancels, so each b is as accurate for a network that is sure as for one that is not.
    """
    s = (outputs.log_softmax(1) / 2).exp()
    n, c = s.shape
    first = s.argmax(1, keepdim=True)
    others = torch.arange(c - 1, device=s.device).expand(n, -1)
    others = others + (others >= first)
    normal = s.scatter_add(1, first, torch.ones_like(first, dtype=s.dtype))
    scale = 1 + s.gather(1, first)
    q = -(s.gather(1, others) / scale)[:, :, None] * normal[:, None]
    q.scatter_add_(2, others[..., None], torch.ones_like(others[..., None], dtype=s.dtype))
    return q * s[:, None]


# -- the matrix of inner products ----------------------------------------------------------------------


@dataclass(eq=False)
class Piece:
    """Part of the parameters: columns of U for them or, of a whole layer, the factors of their inner products."""

    width: int  # columns kept
    layer: ExampleLayer | None = None
    groups: slice = field(default_factory=lambda: slice(None))
    channels: slice = field(default_factory=lambda: slice(None))
    pairs: bool = False
    name: str = ""  # of another parameter
    part: slice = field(default_factory=lambda: slice(None))


def plan(op: CurvatureOperator, layers: list[ExampleLayer], n: int, each: int, memory: int) -> list[list[Piece]]:
    """The pieces, each pass over the data with as many as fit into ``memory``."""
    r, pieces, known = n * each, [], set()  # type: int, list[Piece], set[str]
    most = max(1, memory // max(1, 8 * r))
    shapes = {tuple(x.shape[1:]) if isinstance(x, Tensor) else None for x, _ in op.risk.batches}
    for layer in layers:
        g, c, p, q = layer.groups, layer.channels, layer.places, layer.inputs
        prefix = f"{layer.name}." if layer.name else ""
        known |= {f"{prefix}weight"} if layer.weight else set()
        known |= {f"{prefix}bias"} if layer.bias else set()
        columns = r * g * c * q * (r / 2 + p)
        pairs = g * n**2 * p * (p * q + p * each * c + each**2 * c) / 2
        width = -(-g * p * (r * c + n * q) // max(1, r))
        if pairs < columns and width <= most and len(shapes) == 1:
            pieces.append(Piece(width, layer, pairs=True))
            continue
        few = max(1, most // (c * q))  # groups at a time, and channels where one group is too many
        step = c if c * q <= most else max(1, most // q)
        for i in range(0, g, few):
            part = slice(i, min(g, i + few))
            for j in range(0, c, step):
                piece = Piece(0, layer, part, slice(j, min(c, j + step)))
                piece.width = (part.stop - i) * (piece.channels.stop - j) * q
                pieces.append(piece)
    for name, value in op.risk.parameters.items():
        size = 0 if name in known else value.numel()
        for i in range(0, size, most):
            pieces.append(Piece(min(most, size - i), name=name, part=slice(i, min(size, i + most))))
    passes: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.width):  # the first pass that has room
        room = (found for found in passes if sum(other.width for other in found) + piece.width <= most)
        if (found := next(room, None)) is None:
            passes.append(found := [])
        found.append(piece)
    return passes


def inner_products(
    op: CurvatureOperator, roots: Roots, memory: int, progress: bool | None
) -> tuple[Tensor, Tensor, str]:
    """U'U (r, r), the signs (r,), and in words how it was made."""
    layers, n, each = layers_of(op.risk) if roots.count else [], len(roots.vectors), roots.each
    passes = plan(op, layers, n, each, memory) if roots.count else []
    gram = torch.zeros(n * each, n * each, dtype=torch.float64, device=op.risk.device)
    for pieces in bar(passes, desc=f"{op.name}, passes over the data", show=progress):
        block, factors = gather(op, roots, pieces)
        add_columns(gram, block)
        del block
        for piece, (x, d) in factors.items():
            add_pairs(gram, x, d)
            factors[piece] = ()
    for start in range(0, len(gram), 1024):  # its lower half is complete
        stop = start + 1024
        square = gram[start:stop, start:stop]
        square.copy_(square.tril() + square.tril(-1).T)
        gram[start:stop, stop:] = gram[stop:, start:stop].T
    pieces = [piece for found in passes for piece in found]
    by_pairs = [piece.layer.name for piece in pieces if piece.pairs and piece.layer]
    others = {piece.name for piece in pieces if piece.name}
    reason = f"{len(layers)} layers, {len(by_pairs)} of them by pairs of places, {len(others)} other parameters, "
    times = "1 pass" if len(passes) == 1 else f"{len(passes)} passes"
    return gram, roots.signs.reshape(-1).double(), f"{reason}{times} over the data"


def chunks(op: CurvatureOperator, step: int) -> Iterator[tuple[slice, Any, Any]]:
    """The examples, some at a time: their place among all N, their inputs, and what axes these have."""
    start = 0
    for x, _ in op.risk.batches:
        axes, count = axes_of(x), count_examples(x)
        for i in range(0, count, step):
            stop = min(count, i + step)
            yield slice(start + i, start + stop), take(x, axes, slice(i, stop)), axes
        start += count


def examples_at_a_time(op: CurvatureOperator, pieces: list[Piece], each: int) -> int:
    """How many examples go through the network together within the operator's memory budget."""
    size, needed = op.dtype.itemsize, op.risk.bytes_per_example
    for layer in {piece.layer for piece in pieces if piece.layer is not None}:
        needed += 2 * 8 * layer.groups * layer.places * (each * layer.channels + layer.inputs)
    needed += (
        3 * size * each * max((op.risk.parameters[piece.name].numel() for piece in pieces if piece.name), default=0)
    )
    return max(1, min(CHUNK, op.memory_budget // needed))


def gather(op: CurvatureOperator, roots: Roots, pieces: list[Piece]) -> tuple[Tensor, dict[Piece, Any]]:
    """One pass over the data: the columns (r, width) of its pieces and, by pairs, patches and gradients."""
    risk, n, each = op.risk, len(roots.vectors), roots.each
    double = {"dtype": torch.float64, "device": risk.device}  # type: dict[str, Any]
    layers = {piece.layer.name: piece.layer for piece in pieces if piece.layer is not None}
    block = torch.empty(n, each, sum(piece.width for piece in pieces if not piece.pairs), **double)
    factors = {}
    for piece in pieces:
        if piece.pairs and (own := piece.layer):
            x = torch.empty(own.groups, n, own.places, own.inputs, **double)
            factors[piece] = x, torch.empty(own.groups, n, own.places, each, own.channels, **double)
    leaves = {name: p.clone().requires_grad_() for name, p in risk.parameters.items()}
    modules = {name: layer.module for name, layer in layers.items()}
    for rows, x, axes in chunks(op, examples_at_a_time(op, pieces, each)):
        seeds = roots.seeds(rows)
        known = layer_factors(op, roots, layers, watched(risk, modules, x, leaves), rows, seeds) if layers else {}
        start = 0
        for piece in pieces:
            if piece.pairs and piece.layer:
                patch, delta = known[piece.layer.name]
                factors[piece][0][:, rows] = patch.transpose(0, 1)
                factors[piece][1][:, rows] = delta.permute(2, 0, 3, 1, 4)
                continue
            columns = slice(start, start := start + piece.width)
            if piece.layer:
                patch, delta = known[piece.layer.name]
                delta = delta[:, :, piece.groups, :, piece.channels].permute(0, 2, 1, 4, 3).flatten(2, 3)
                for i in range(0, len(delta), 16):  # (n, groups, columns of an example * channels, q)
                    found = delta[i : i + 16] @ patch[i : i + 16, piece.groups]
                    found = found.unflatten(2, (each, -1)).transpose(1, 2).flatten(2)
                    block[rows, :, columns][i : i + 16] = found
            else:
                block[rows, :, columns] = other_gradients(risk, [piece.name], x, axes, seeds)[..., piece.part]
    return block.flatten(0, 1), factors


def layer_factors(
    op: CurvatureOperator, roots: Roots, layers: dict[str, ExampleLayer], evaluated: Any, rows: slice, seeds: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Patches (n, groups, places, q) and gradients (n, a, groups, places, channels) of layers, for some examples."""
    outputs, calls = evaluated
    whole = roots.outputs[rows]
    if not torch.allclose(outputs, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max())):
        raise ValueError("model: an example's outputs depend on the other examples, so G is no sum over examples")
    added = [calls[name][0][2] for name in layers]
    found = [
        torch.autograd.grad(outputs, added, seeds[:, a], retain_graph=True, materialize_grads=True)
        for a in range(seeds.shape[1])
    ]
    return {
        name: (layer.patches(calls[name][0][0]).double(), layer.deltas(torch.stack(gradients, 1)).double())
        for (name, layer), gradients in zip(layers.items(), zip(*found))
    }


def add_columns(gram: Tensor, block: Tensor) -> None:
    """Add the inner products of the rows of a block (r, width) to the lower half."""
    if block.shape[1]:
        for start in range(0, len(block), 1024):
            stop = min(len(block), start + 1024)
            gram[start:stop, :stop].addmm_(block[start:stop], block[:stop].T)


def add_pairs(gram: Tensor, patches: Tensor, deltas: Tensor) -> None:
    """Add the sum over pairs of places of (patch . patch) (delta . delta) to the lower half.

    patches: (groups, N, places, q); deltas: (groups, N, places, a, channels). For a pair of examples first the
    deltas of one are summed over its places, as the patches' inner products weigh them, then multiplied by
    the other's.
    """
    groups, n, places, each, channels = deltas.shape
    matrix = gram.view(n, each, n, each)
    height = min(n, 8)
    width = max(1, 2**22 // (height * places * each * channels))  # what is between the two sums stays small
    for g, i in product(range(groups), range(0, n, height)):
        rows = slice(i, min(n, i + height))
        high = (rows.stop - i) * places
        left = deltas[g, rows].flatten(0, 1).transpose(1, 2)  # (high, channels, a)
        for j in range(0, rows.stop, width):
            columns = slice(j, min(rows.stop, j + width))
            inputs = patches[g, rows].flatten(0, 1) @ patches[g, columns].flatten(0, 1).T
            summed = gram.new_empty(high, columns.stop - j, each * channels)
            for k, (weights, right) in enumerate(zip(inputs.split(places, 1), deltas[g, columns].flatten(2))):
                torch.mm(weights, right, out=summed[:, k])
            found = torch.bmm(summed.view(high, -1, channels), left).view(-1, places, columns.stop - j, each, each)
            matrix[rows, :, columns] += found.sum(1).permute(0, 3, 1, 2)


# -- its eigenvalues, and second opinions --------------------------------------------------------------


def squared_norm(gram: Tensor, signs: Tensor) -> float:
    """The squared Frobenius norm of U S U'."""
    parts = zip(gram.split(512), signs.split(512))
    return sum(float(((part.square() * s[:, None]).sum(0) * signs).sum()) for part, s in parts)


def signed_eigenvalues(gram: Tensor, signs: Tensor) -> np.ndarray:
    """The eigenvalues of S U'U."""
    if bool((signs > 0).all()):
        return torch.linalg.eigvalsh(gram).cpu().numpy()
    lower, order = cholesky(gram)
    return torch.linalg.eigvalsh(lower.T @ (signs[order, None] * lower)).cpu().numpy()


def pull(op: CurvatureOperator, roots: Roots, weights: Tensor) -> Tensor:
    """U w (M,) by differentiating the whole network once."""
    risk, total = op.risk, torch.zeros_like(op.risk.vector)
    leaves = {name: p.clone().requires_grad_() for name, p in risk.parameters.items()}
    weights = weights.view(len(roots.vectors), -1).to(total)
    for rows, x, _ in chunks(op, examples_at_a_time(op, [], roots.each)):
        seed = torch.einsum("na,na...->n...", weights[rows], roots.seeds(rows))
        with torch.enable_grad():
            outputs = risk.outputs(leaves, x)
        parts = torch.autograd.grad(outputs, list(leaves.values()), seed, materialize_grads=True)
        total += torch.cat([p.flatten() for p in parts])
    return total


@sdpa_kernel(SDPBackend.MATH)
def push(op: CurvatureOperator, roots: Roots, vector: Tensor) -> Tensor:
    """U'v (r,) in float64 by the derivative of the whole network along v."""
    risk, found = op.risk, []  # type: Any, list[Tensor]
    tangents = list(risk.unflatten(vector).values())
    for rows, x, _ in chunks(op, examples_at_a_time(op, [], roots.each)):
        leaves = {name: p.clone().requires_grad_() for name, p in risk.parameters.items()}
        with torch.enable_grad():  # forward derivatives would give the row of padding a slope
            pushed = _push(risk.outputs(leaves, x), list(leaves.values()), tangents).detach()
        found.append(torch.einsum("n...,na...->na", pushed, roots.seeds(rows)))
    return torch.cat(found).flatten().double()


def product_certificate(op: CurvatureOperator, roots: Roots, gram: Tensor, signs: Tensor) -> float:
    """How far U'U is from derivatives of the whole network, and U S U' from G, each on a random vector."""
    v = torch.randn(len(gram), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(gram)
    inner = relative(gram @ v, push(op, roots, pull(op, roots, v)))
    op.risk.certify()
    outer = pull(op, roots, signs * push(op, roots, probe(op.risk)))
    return max(inner, relative(outer, op.reference_product))


def largest_by_lanczos(op: CurvatureOperator, roots: Roots, signs: Tensor, progress: bool | None) -> float:
    """The largest eigenvalue of G in magnitude, by products that differentiate the whole network."""
    if bool((signs < 0).any()):
        return float(abs(top_eigenpairs(op, 1, "LM", progress=progress).eigenvalues[0]))
    matvec = lambda v: push(op, roots, pull(op, roots, torch.as_tensor(v.ravel()).to(signs))).cpu().numpy()
    inner = LinearOperator((len(signs),) * 2, matvec=matvec, dtype=np.float64)
    tolerance = 1e-6 if op.risk.dtype == torch.float64 else 1e-4
    return float(top_eigenpairs(inner, 1, tolerance=tolerance, progress=progress).eigenvalues[0])
