"""Gradient descent with the number of iterations as its time scale (paper, Section 4.1)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from tqdm.auto import tqdm


class DivergenceError(RuntimeError):
    """Training left the finite numbers; the message says at which iteration."""


@dataclass
class History:
    """What was recorded: iteration numbers, loss and gradient norm over the whole training set, parameters (M,)."""

    iterations: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)


def batches_of(count: int, size: int, generator: torch.Generator | None):
    """Endless index batches: without a generator in order, as stored; with one, shuffled anew each epoch.

    The last batch of an epoch may be smaller.
    """
    while True:
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        yield from order.split(size)


def train(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    step_size: float,
    iterations: int,
    batch_size: int = 0,
    seed: int | None = None,
    record: Collection[int] = (),
    gradient_tolerance: float = 0.0,
    progress: bool | None = None,
) -> History:
    """Train in place on the mean cross-entropy by (stochastic) gradient descent with a constant step.

    Args:
        model, inputs, targets: the network and its training set of N examples.
        step_size: the constant step.
        iterations: number of steps, whatever the batch size.
        batch_size: examples a step; 0 takes all N.
        seed: of the order of the examples, reshuffled each epoch; None takes them as they are stored.
        record: iterations at which to record, before the step of that number is taken;
            ``iterations`` itself is the end, always recorded.
        gradient_tolerance: stop before a step whose (batch) gradient norm is at most this.
        progress: False hides the bar, which otherwise shows when training takes over two seconds.

    Returns:
        the records.

    Raises:
        ValueError: batch_size exceeds N, or a number is out of range.
        DivergenceError: loss or gradient became infinite or NaN.
    """
    n = len(inputs)
    if not 0 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size}: give 0 (all) to N={n}")
    if iterations < 0 or not step_size > 0:
        raise ValueError(f"iterations={iterations}, step_size={step_size}: give at least 0, and a positive step")
    parameters = list(model.parameters())
    order = batches_of(n, batch_size, None if seed is None else torch.Generator().manual_seed(seed))
    history, record = History(), set(record)

    def gradient(x: Tensor, y: Tensor) -> tuple[float, list[Tensor], float]:
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, parameters)
        norm = float(torch.stack([g.norm() for g in gradients]).norm())
        return float(loss.detach()), gradients, norm

    def keep(iteration: int, loss: float, norm: float) -> None:
        history.iterations.append(iteration)
        history.losses.append(loss)
        history.gradient_norms.append(norm)
        history.parameters.append(parameters_to_vector(parameters).detach().clone())

    iteration = 0
    for iteration in tqdm(range(iterations), desc="training", delay=2, mininterval=1, disable=progress is False):
        if batch_size in (0, n):
            loss, gradients, norm = gradient(inputs, targets)
        else:
            batch = next(order)
            loss, gradients, norm = gradient(inputs[batch], targets[batch])
        if not norm < float("inf"):
            raise DivergenceError(
                f"training diverged at iteration {iteration}: loss {loss}, gradient norm {norm}; "
                f"step_size={step_size} is too large here, try {step_size / 4:g}"
            )
        if iteration in record:
            full = (loss, gradients, norm) if batch_size in (0, n) else gradient(inputs, targets)
            keep(iteration, full[0], full[2])
        if norm <= gradient_tolerance:
            break
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= step_size * g
    else:
        iteration = iterations
    if not history.iterations or history.iterations[-1] != iteration:
        loss, _, norm = gradient(inputs, targets)
        if not norm < float("inf"):
            raise DivergenceError(
                f"training diverged at iteration {iteration}: loss {loss}; step_size={step_size} is too large"
            )
        keep(iteration, loss, norm)
    return history


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Share of examples whose largest output is the label's."""
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).double().mean())
