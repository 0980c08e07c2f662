"""Training to given levels of the loss, and what a point of a run is like: curvature, sharpness, gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..curvature.lanczos import top_eigenpairs
from .training import batches_of


def passages(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    levels: Sequence[float],
    step_size: float,
    batch_size: int,
    seed: int,
    iterations: int,
    limit: int,
    every: int = 20,
) -> Iterator[tuple[int, int, float]]:
    """Train in place, and stop on the way: at the start, where the loss falls below each level, after ``iterations``.

    The loss over the whole training set is looked at ``every`` so many steps. Training ends after the last of these
    stops, at ``limit``, or where the loss is no longer finite.

    Args:
        model, inputs, targets, step_size, batch_size, seed: as in ``train``.
        levels: of the training loss, descending.
        iterations: a stop of its own, whatever the loss.
        limit: the most iterations.

    Yields:
        number of the stop (0 the start, then one for each level, then that after ``iterations``), iteration, loss.
    """
    order = batches_of(len(inputs), batch_size, torch.Generator().manual_seed(seed))
    parameters, stops = list(model.parameters()), dict(enumerate([np.inf, *levels]))
    for i in range(limit + 1):
        if i == iterations or i % every == 0:
            with torch.no_grad():
                loss = float(F.cross_entropy(model(inputs), targets))
            if not np.isfinite(loss):
                return
            for stop in [s for s, level in stops.items() if loss <= level]:
                del stops[stop]
                yield stop, i, loss
            if i == iterations:
                yield len(levels) + 1, i, loss
            if i >= iterations and not stops:
                return
        batch = next(order)
        gradients = torch.autograd.grad(F.cross_entropy(model(inputs[batch]), targets[batch]), parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= step_size * g


def hessian_products(model: nn.Module, inputs: Tensor, targets: Tensor) -> LinearOperator:
    """The Hessian of the mean cross-entropy, (M, M), from one kept graph: quicker than ``EmpiricalRisk`` for many
    products at one point, and not checked.
    """
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(inputs), targets)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])

    def product(v: np.ndarray) -> np.ndarray:
        vector = torch.as_tensor(v.ravel()).to(gradient.dtype)
        return torch.cat([p.flatten() for p in torch.autograd.grad(gradient, parameters, vector, True)]).numpy()

    kind = np.dtype(str(gradient.dtype).removeprefix("torch."))
    return LinearOperator((len(gradient),) * 2, matvec=product, dtype=kind)


def box_sharpness(model: nn.Module, inputs: Tensor, targets: Tensor, box: float = 1e-3, steps: int = 10) -> float:
    """The sharpness of Keskar et al. (2016), in per cent: 100 (max f - f(w)) / (1 + f(w)).

    The maximum is over shifts of each weight w_i by up to ``box`` (|w_i| + 1). It is looked for by steps from corner to
    corner of this box, each by the signs of the gradient at the last, so what is found is a lower bound.
    """
    parameters = list(model.parameters())
    here, shift, losses = parameters_to_vector(parameters).detach(), 0, []
    for _ in range(steps + 1):
        vector_to_parameters(here + shift, parameters)
        loss = F.cross_entropy(model(inputs), targets)
        losses.append(float(loss.detach()))
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        shift = box * (here.abs() + 1) * gradient.sign()
    vector_to_parameters(here, parameters)
    return 100 * (max(losses) - losses[0]) / (1 + losses[0])


def gradient_norms(model: nn.Module, inputs: Tensor, targets: Tensor, sizes: Sequence[int], seed: int) -> list[float]:
    """Mean norm of the gradient over the batches of one epoch, for each size of a batch."""
    parameters, means = list(model.parameters()), []
    for size in sizes:
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
        each = [
            torch.autograd.grad(F.cross_entropy(model(inputs[batch]), targets[batch]), parameters)
            for batch in order.split(size)
            if len(batch) == min(size, len(inputs))
        ]
        means.append(float(np.mean([float(torch.stack([g.norm() for g in one]).norm()) for one in each])))
    return means


def local(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, count: int, sizes: Sequence[int], seed: int
) -> dict[str, float | np.ndarray]:
    """What the loss is like at a point.

    Args:
        model, inputs, targets: of the loss, the mean cross-entropy.
        count: of the largest eigenvalues, by Lanczos to a residual of 1 %; the lowest too where it is above one.
        sizes: of the batches whose gradients' mean norm is wanted.
        seed: of the order of the examples.

    Returns:
        train_accuracy, sharpness (``box_sharpness``), norms (of ``sizes``), top (count,), descending, lowest.
    """
    with torch.no_grad():
        right = float((model(inputs).argmax(1) == targets).double().mean())
    found = {"train_accuracy": right, "sharpness": box_sharpness(model, inputs, targets)}
    found["norms"] = np.array(gradient_norms(model, inputs, targets, sizes, seed))
    op = hessian_products(model, inputs, targets) if count else None
    pairs = lambda k, which: top_eigenpairs(op, k, which, tolerance=1e-2, progress=False).eigenvalues
    found |= {"top": pairs(count, "LA")} if count else {}
    return found | ({"lowest": float(pairs(1, "SA")[0])} if count > 1 else {})


def stacked(records: dict[int, dict[str, float | np.ndarray]], count: int) -> dict[str, np.ndarray]:
    """Arrays whose first axis counts the stops of a run, NaN where one was not reached or nothing was measured."""
    found = {}
    for name in {name: None for record in records.values() for name in record}:
        shape = max((np.shape(r[name]) for r in records.values() if name in r), default=())
        found[name] = np.full((count, *shape), np.nan)
        for stop, record in records.items():
            if name in record:
                value = np.asarray(record[name], dtype=float)
                found[name][(stop, *map(slice, value.shape))] = value
    return found
