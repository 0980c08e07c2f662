"""What the step and the batch decide: edges of stability, leading directions, and curvature by finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor
from torch.func import functional_call, grad, vjp, vmap
from torch.nn.utils import vector_to_parameters

from ..curvature.lanczos import top_eigenpairs
from ..curvature.risk import EmpiricalRisk
from .data import mnist
from .flatness import shrunk_digits
from .levels import hessian_products, passages
from .models import convolutional, fully_connected
from .training import batches_of


def small_risk(
    examples: int, seed: int, loss: str = "mse", *, hidden: int = 30, activation: str = "tanh"
) -> EmpiricalRisk:
    """Digits of 7 by 7 pixels, centred, of deviation one, and a network at its start (49-hidden-hidden-10).

    Targets are one-hot rows for ``"mse"``, the mean over examples and outputs, and labels for ``"cross_entropy"``.
    """
    x, y = shrunk_digits(examples, seed)
    model = fully_connected([49, hidden, hidden, 10], activation=activation, seed=seed)
    targets = torch.eye(10, dtype=x.dtype)[y] if loss == "mse" else y
    return EmpiricalRisk(model, (x - x.mean(0)) / x.std(), targets, loss)


def descent(
    risk: EmpiricalRisk, update: Callable[[int, Tensor, Tensor], Tensor], *, batch: int, iterations: int, seed: int
) -> Iterator[tuple[int, Tensor]]:
    """Weights (M,) before each step, and at the end, with their number; batches are reshuffled each epoch.

    ``update(i, weights, gradient)`` gives the change of the weights. The run ends early where the weights leave the
    finite numbers.
    """
    (x, y), model = risk.batches[0], copy.deepcopy(risk.model)
    weights, order = list(model.parameters()), batches_of(len(x), batch, torch.Generator().manual_seed(seed))
    vector = risk.vector.clone()
    for i in range(iterations + 1):
        if not bool(vector.abs().max() < 1e6):
            return
        yield i, vector
        chosen = slice(None) if batch == len(x) else next(order)
        vector_to_parameters(vector, weights)
        value = risk.criterion.function(model(x[chosen]), y[chosen])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])
        vector = vector + update(i, vector, gradient)


def sharpness(risk: EmpiricalRisk) -> float:
    """The largest eigenvalue of the Hessian, to four digits."""
    return float(top_eigenpairs(risk.hessian(), 1, tolerance=1e-4, progress=False).eigenvalues[0])


def batch_sharpness(risk: EmpiricalRisk, batch: int, draws: int, seed: int) -> float:
    """E[g_B' H_B g_B] / E|g_B|^2 over batches drawn without replacement (Andreyev and Beneventano 2024).

    g_B and H_B are gradient and Hessian of the loss of one batch: the mean curvature that a step of SGD meets.
    """
    x, y = risk.batches[0]
    loss, draw = risk.criterion.function, torch.Generator().manual_seed(seed)
    if batch == len(x):
        draws = 1
    chosen = torch.stack([torch.randperm(len(x), generator=draw)[:batch] for _ in range(draws)])

    def one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        g, pull = vjp(grad(lambda w: loss(functional_call(risk.model, w, (x,)), y)), risk.parameters)
        h = pull(g)[0]
        return sum((g[n] * h[n]).sum() for n in g), sum((g[n] ** 2).sum() for n in g)  # type: ignore[return-value]

    curved, squared = vmap(one, chunk_size=max(1, 1024 // batch))(x[chosen], y[chosen])
    return float(curved.mean() / squared.mean())


def spread(found: list[list[float]], names: Sequence[str], moments: int) -> dict[str, np.ndarray]:
    """Records of a run as arrays by name, with NaN where a run ended early."""
    rows = np.full((moments + 1, len(names)), np.nan)
    rows[: len(found)] = found[: moments + 1]
    return dict(zip(names, rows.T, strict=True))


def stochastic_edge(
    loss: str,
    step: float,
    batch: int,
    *,
    examples: int,
    iterations: int,
    seed: int,
    moments: int = 25,
    draws: int = 100,
) -> dict[str, np.ndarray]:
    """A run of SGD: at moments the loss over all examples, the sharpness, and the sharpness of batches."""
    risk, found = small_risk(examples, seed, loss), []
    update = lambda i, w, g: -step * g
    for i, w in descent(risk, update, batch=batch, iterations=iterations, seed=seed):
        if i % (iterations // moments) == 0:
            here = risk.at(w)
            found.append([i, here.loss(), sharpness(here), batch_sharpness(here, batch, draws, i)])
    return spread(found, ("moments", "losses", "sharpness", "batch_sharpness"), moments)


def batches_of_pictures(
    batch: int, step_size: float, levels: Sequence[float], *, examples: int, limit: int, seed: int, draws: int = 100
) -> dict[str, np.ndarray]:
    """The runs of Chapter 5 on digits, cross-entropy, in float32: both sharpnesses at levels of the loss.

    The network is ``convolutional()``, the order of the examples that of ``seed``.
    """
    data, model = mnist(examples, seed=seed), convolutional(seed=seed).float()
    x = data.inputs.view(-1, 1, 28, 28).float().contiguous(memory_format=torch.channels_last)
    options = {"step_size": step_size, "batch_size": batch, "seed": seed, "iterations": limit, "limit": limit}
    found = np.full((len(levels), 4), np.nan)
    for stop, iteration, loss in passages(model, x, data.targets, levels=levels, **options):  # type: ignore[arg-type]
        if 0 < stop <= len(levels):
            op, risk = hessian_products(model, x, data.targets), EmpiricalRisk(model, x, data.targets)
            top = top_eigenpairs(op, 1, tolerance=1e-2, progress=False).eigenvalues[0]
            found[stop - 1] = [iteration, loss, top, batch_sharpness(risk, batch, draws, seed)]
    return dict(zip(("iterations", "losses", "sharpness", "batch_sharpness"), found.T, strict=True))


def subspaces(
    step: float, batch: int, *, examples: int, start: int, iterations: int, renew: int, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Three ways on from one point of a run of SGD: plain, within the leading directions, and outside of them.

    The ``count`` leading eigenvectors of the Hessian of all examples are computed anew every ``renew`` steps.

    Returns:
        losses over all examples every ``renew`` steps, by way; at the point, the share of the squared norm in the
        leading directions, of the whole gradient and of the gradients of batches (mean over an epoch).
    """
    begin = small_risk(examples, seed)
    *_, (_, w) = descent(begin, lambda i, w, g: -step * g, batch=batch, iterations=start, seed=seed)
    begin, found = begin.at(w.clone()), {}
    leading = lambda risk: torch.as_tensor(
        top_eigenpairs(risk.hessian(), count, tolerance=1e-3, progress=False).eigenvectors
    )

    def restricted(way: str) -> Callable[[int, Tensor, Tensor], Tensor]:
        basis = torch.zeros(0)

        def update(i: int, w: Tensor, g: Tensor) -> Tensor:
            nonlocal basis
            if way == "plain":
                return -step * g
            if i % renew == 0:
                basis = leading(begin.at(w))
            within = basis @ (basis.T @ g)
            return -step * (within if way == "leading" else g - within)

        return update

    for way in ("plain", "leading", "rest"):
        run = descent(begin, restricted(way), batch=batch, iterations=iterations, seed=seed + 1000)
        losses = [begin.at(w).loss() for i, w in run if i % renew == 0]
        found |= spread([[v] for v in losses], [way], iterations // renew)
    basis, (x, y) = leading(begin), begin.batches[0]
    share = lambda g: float((basis.T @ g).square().sum() / g.square().sum())
    each = [
        EmpiricalRisk(begin.model, *part, begin.criterion.name).at(begin.vector)
        for part in zip(x.split(batch), y.split(batch), strict=True)
    ]
    found["share"] = np.array([share(begin.gradient()), np.mean([share(one.gradient()) for one in each])])
    return found


def scaled(op: LinearOperator, scale: np.ndarray) -> LinearOperator:
    """D op D, (M, M), with D the diagonal matrix of ``scale`` (M,)."""
    product = lambda v: scale.reshape(-1, *[1] * (v.ndim - 1)) * (op @ (scale.reshape(-1, *[1] * (v.ndim - 1)) * v))
    return LinearOperator(op.shape, matvec=product, matmat=product, dtype=np.float64)


def adam_edge(
    step: float,
    *,
    examples: int,
    iterations: int,
    seed: int,
    moments: int = 25,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
) -> dict[str, np.ndarray]:
    """Adam on all examples: at moments the loss, the sharpness of H, and that of P^(-1/2) H P^(-1/2).

    P is the diagonal matrix of the square roots of Adam's mean square gradients, plus 1e-8, by which it divides.
    """
    risk, found = small_risk(examples, seed), []
    mean, square = torch.zeros_like(risk.vector), torch.zeros_like(risk.vector)
    divisor = torch.ones_like(risk.vector)

    def update(i: int, w: Tensor, g: Tensor) -> Tensor:
        nonlocal mean, square, divisor
        mean, square = beta_1 * mean + (1 - beta_1) * g, beta_2 * square + (1 - beta_2) * g**2
        divisor = (square / (1 - beta_2 ** (i + 1))).sqrt() + 1e-8
        return -step * mean / (1 - beta_1 ** (i + 1)) / divisor

    for i, w in descent(risk, update, batch=examples, iterations=iterations, seed=seed):
        if i and i % (iterations // moments) == 0:
            here = risk.at(w)
            op = scaled(here.hessian(), divisor.rsqrt().numpy())
            top = top_eigenpairs(op, 1, tolerance=1e-4, progress=False).eigenvalues[0]
            found.append([i, here.loss(), sharpness(here), float(top)])
    return spread(found, ("moments", "losses", "sharpness", "preconditioned"), moments - 1)


def difference_products(risk: EmpiricalRisk, vectors: Tensor, length: float, chunk: int = 200) -> Tensor:
    """(g(w + h v) - g(w - h v)) / 2h for each row v of (k, M), with h = ``length``; in the risk's dtype."""
    x, y = risk.batches[0]
    value = lambda w: risk.criterion.function(functional_call(risk.model, risk.unflatten(w), (x,)), y)
    ahead, behind = (vmap(grad(value), chunk_size=chunk)(risk.vector + t * vectors) for t in (length, -length))
    return (ahead - behind) / (2 * length)


def by_differences(risk: EmpiricalRisk, length: float) -> LinearOperator:
    """The Hessian as an operator whose products are differences of gradients, in the risk's dtype."""
    m, kind = risk.num_parameters, np.float32 if risk.dtype == torch.float32 else np.float64
    rows = lambda v: difference_products(risk, torch.as_tensor(np.atleast_2d(v.T), dtype=risk.dtype), length)
    product = lambda v: rows(v).T.numpy().reshape(v.shape)
    return LinearOperator((m, m), matvec=product, matmat=product, dtype=kind)


def against_exact(
    risk: EmpiricalRisk, exact: Tensor, basis: Tensor, length: float | None, negative: float
) -> list[float]:
    """How far the Hessian by differences along an orthonormal basis (rows) is from the exact one; None: exact products.

    Returns:
        error in the Frobenius norm, error of the product with the leading eigenvector (both relative), largest
        eigenvalue, tenth and lowest of the symmetric part, share of its eigenvalues below ``-negative``
    """
    values, vectors = torch.linalg.eigh(exact)
    directions = torch.cat([basis, vectors[:, -1:].T]).to(risk.dtype)
    products = risk.hessian().product(directions) if length is None else difference_products(risk, directions, length)
    products = products.double()
    matrix, leading = products[:-1].T @ basis, products[-1]
    found = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return [
        float((matrix - exact).norm() / exact.norm()),
        float((leading - values[-1] * vectors[:, -1]).norm() / values[-1]),
        float(found[-1]), float(found[-10:][0]), float(found[0]), float((found < -negative).double().mean()),
    ]  # fmt: skip


def differences(
    activation: str, step: float, lengths: Sequence[float], *, examples: int, hidden: int, iterations: int, seed: int
) -> dict[str, np.ndarray]:
    """The Hessian by finite differences of gradients against the exact one, after gradient descent.

    Returns:
        ``exact``: the eigenvalues. ``double`` and ``single``: for exact products and for each length of the difference
        the numbers of ``against_exact``. ``late``: sharpness at ten moments of the second half, exact and by Lanczos on
        differences in float32 of the last but two of the lengths.
    """
    risk, late = small_risk(examples, seed, hidden=hidden, activation=activation), []
    for i, w in descent(risk, lambda i, w, g: -step * g, batch=examples, iterations=iterations, seed=seed):
        if 2 * i >= iterations and i % (iterations // 20) == 0:
            op = by_differences(single_precision(risk.at(w)), lengths[-3])
            seen = top_eigenpairs(op, 1, tolerance=1e-2, max_products=100, progress=False).eigenvalues[0]
            late.append([sharpness(risk.at(w)), float(seen)])
    risk = risk.at(w)
    exact = risk.hessian().to_dense(progress=False)
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(exact), len(exact), generator=draw, dtype=torch.float64))[0]
    values = np.linalg.eigvalsh(exact.numpy())
    rows = lambda at: np.array([against_exact(at, exact, basis, h, 1e-4 * values[-1]) for h in (None, *lengths)])
    found = {"double": rows(risk), "single": rows(single_precision(risk))}
    return {"exact": values, **found, "late": np.array(late)}


def single_precision(risk: EmpiricalRisk) -> EmpiricalRisk:
    """The same risk in float32."""
    x, y = risk.batches[0]
    model = copy.deepcopy(risk.model).float()
    vector_to_parameters(risk.vector.float(), model.parameters())
    return EmpiricalRisk(model, x.float(), y.float(), risk.criterion.name)
