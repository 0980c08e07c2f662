"""Gradient descent with the number of iterations as its time scale (paper, Section 4.1)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from .._checks import positive, whole
from .._files import Checkpoint
from .._progress import bar


class DivergenceError(RuntimeError):
    """Training left the finite numbers, at ``iteration``; ``history`` holds what was recorded before."""

    def __init__(self, message: str, iteration: int = 0, history: History | None = None) -> None:
        super().__init__(message)
        self.iteration, self.history = iteration, history


@dataclass
class History:
    """What was recorded: iteration numbers, loss and gradient norm over the whole training set, parameters (M,).

    With ``measure``: iteration numbers, and what it returned. ``seconds`` counts the training, pauses left out.
    ``average``: mean of the parameters (M,) over the last records, where asked for and training came to its end.
    """

    iterations: list[int] = field(default_factory=list)
    measures: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0
    average: Tensor | None = None


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
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
    average: int = 0,
    checkpoint: str | Path | None = None,
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
        measure: what to record of the model, as numbers by name, where loss and gradient over the whole
            training set and the parameters would be too much.
        average: number of last records over which to take the mean of the parameters; 0 takes none.
        checkpoint: file that keeps the state at every record (needs ``measure``). A run stopped at any moment
            and started again goes on from there and ends as if it had never been stopped, bit for bit.
        progress: False hides the bar, which otherwise shows when training takes over two seconds.

    Returns:
        the records.

    Raises:
        ValueError: batch_size exceeds N, a number is out of range, or the checkpoint is of another run.
        DivergenceError: loss or gradient became infinite or NaN.
    """
    n = len(inputs)
    whole(0, n, batch_size=batch_size)
    whole(0, iterations=iterations, average=average, **({} if seed is None else {"seed": seed}))
    positive(step_size=step_size)
    if len(targets) != n:
        raise ValueError(f"targets: {len(targets)} given for {n} inputs; the numbers must agree")
    if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs: contains NaN or infinite values")
    if checkpoint is not None and measure is None:
        raise ValueError(
            f"checkpoint={str(checkpoint)!r}: give measure too, the parameters at each record are not kept"
        )
    parameters = list(model.parameters())
    order = batches_of(n, batch_size, None if seed is None else torch.Generator().manual_seed(seed))
    history, record, begin = History(), set(record), 0
    tail = set(sorted({*record, iterations})[-average:] if average else [])
    summed = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)  # of the weights at these records
    if checkpoint is not None:
        run = json.dumps([step_size, batch_size, seed, n, gradient_tolerance, sorted(map(int, record)), average])
        state = Checkpoint(checkpoint, run, parameters_to_vector(parameters).detach().cpu().numpy().tobytes())
        begin = resume(state.load(), parameters, history, summed)
        if batch_size not in (0, n):
            next(islice(order, begin, begin), None)  # the same batches are drawn again and passed over

    def gradient(x: Tensor, y: Tensor) -> tuple[float, list[Tensor], float]:
        outputs = model(x)
        try:
            loss = F.cross_entropy(outputs, y)
        except IndexError as error:
            seen = f"from {int(y.min())} to {int(y.max())}"
            raise ValueError(
                f"targets: class indices {seen}, but the model has outputs 0 to {outputs.shape[1] - 1}"
            ) from error
        gradients = torch.autograd.grad(loss, parameters)
        norm = float(torch.stack([g.norm() for g in gradients]).norm())
        return float(loss.detach()), gradients, norm

    def keep(iteration: int, known: tuple[float, list[Tensor], float] | None = None) -> None:
        if iteration in tail:
            summed.add_(parameters_to_vector(parameters).detach().cpu())
        if measure is not None:
            history.iterations.append(iteration)
            history.measures.append(measure(model))
            history.seconds = before + time.perf_counter() - start
            if checkpoint is not None:
                weights = parameters_to_vector(parameters).detach().cpu().numpy()
                kept = json.dumps([history.iterations, history.measures, history.seconds])
                state.save(parameters=weights, iteration=iteration, history=kept, summed=summed.numpy())
            return
        loss, _, norm = known or gradient(inputs, targets)
        check(iteration, loss, norm)
        history.iterations.append(iteration)
        history.losses.append(loss)
        history.gradient_norms.append(norm)
        history.parameters.append(parameters_to_vector(parameters).detach().clone())

    def check(iteration: int, loss: float, norm: float) -> None:
        if not norm < float("inf"):
            raise DivergenceError(
                f"training diverged at iteration {iteration}: loss {loss}, gradient norm {norm}; "
                f"step_size={step_size} is too large here, try {step_size / 4:g}",
                iteration,
                history,
            )

    iteration, full = begin, batch_size in (0, n)
    before, start = history.seconds, time.perf_counter()
    for iteration in bar(range(begin, iterations), desc="training", initial=begin, total=iterations, show=progress):
        batch = slice(None) if full else next(order)
        loss, gradients, norm = gradient(inputs[batch], targets[batch])
        check(iteration, loss, norm)
        if iteration in record and history.iterations[-1:] != [iteration]:
            keep(iteration, (loss, gradients, norm) if full else None)
        if norm <= gradient_tolerance:
            break
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= step_size * g
    else:
        iteration = iterations
    if history.iterations[-1:] != [iteration]:
        keep(iteration)
        history.seconds = before + time.perf_counter() - start
    if tail and tail <= set(history.iterations):
        history.average = (summed / len(tail)).to(parameters[0])
    return history


def resume(saved: dict[str, np.ndarray] | None, parameters: list[Tensor], history: History, summed: Tensor) -> int:
    """Put a checkpoint's state into parameters, history and sum; returns the iteration to go on from, 0 without one."""
    if saved is None:
        return 0
    with torch.no_grad():
        vector_to_parameters(torch.as_tensor(saved["parameters"]).to(parameters[0].device), parameters)
    history.iterations, history.measures, history.seconds = json.loads(str(saved["history"]))
    summed.copy_(torch.as_tensor(saved["summed"]))
    return int(saved["iteration"])


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Share of examples whose largest output is the label's."""
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).double().mean())
