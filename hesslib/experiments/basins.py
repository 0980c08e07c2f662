"""Large batches, then small ones from where they ended (paper, Section 4.1, Figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..curvature.density import spectral_density
from ..curvature.lanczos import top_eigenpairs
from ..curvature.risk import EmpiricalRisk
from .data import Dataset, cifar10, mnist
from .landscape import along_line, loss_and_accuracy
from .models import MixedPrecision, alexnet, channels_last
from .training import DivergenceError, History, train

MEASURES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@cache
def images(dataset: str, seed: int) -> Dataset:
    """CIFAR-10, or 1,000 digits in its form: three equal colours, 32 x 32; float32, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = cifar10() if dataset == "cifar10" else mnist(1000, seed=seed)
    form = lambda x: x
    if dataset == "digits":
        mean, std = data.inputs.mean(), data.inputs.std()
        square = lambda x: F.pad(x.view(-1, 1, 28, 28), [2, 2, 2, 2])
        form = lambda x: ((square(x) - mean) / std).float().repeat(1, 3, 1, 1)
    inputs, test_inputs = form(data.inputs), form(data.test_inputs)
    data = replace(data, inputs=inputs, test_inputs=test_inputs)
    names = ("inputs", "targets", "test_inputs", "test_targets")
    return replace(data, **{k: getattr(data, k).to(device) for k in names})


def measure(model: nn.Module, data: Dataset) -> Callable[[nn.Module], dict[str, float]]:
    """What is recorded: loss and accuracy on the first 5,000 training images and on all test images."""
    inputs, test_inputs = channels_last(data.inputs[:5000]), channels_last(data.test_inputs)

    def now(_):
        seen = loss_and_accuracy(model, inputs, data.targets[:5000])
        new = loss_and_accuracy(model, test_inputs, data.test_targets)
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        return dict(zip(names, (*seen, *new)))

    return now


def stage(
    start: np.ndarray | None,
    *,
    dataset: str,
    width: int,
    step: float,
    batch: int,
    iterations: int,
    every: int,
    precision: str,
    seed: int,
    order: int,
    average: int = 0,
    checkpoint: Path | None = None,
) -> dict[str, np.ndarray]:
    """One stage of training: bare AlexNet, constant step, constant batch.

    Args:
        start: weights (M,) to go on from; None for the random start of the seed.
        dataset: ``"cifar10"`` or ``"digits"``.
        width: filters of the first convolution.
        step, batch, iterations: of gradient descent.
        every: iterations between two records.
        precision: of the products, ``"float32"`` or ``"bfloat16"``.
        seed: of the digits and the random start.
        order: seed of the order of the examples.
        average: records at the end over which the mean of the weights is taken; 0 takes none.
        checkpoint: file that keeps the state, for runs of hours.

    Returns:
        the records, ``iterations`` and ``MEASURES``, one entry a record; ``diverged``, the iteration at which the
        loss left the finite numbers, or -1; and, unless it did, ``weights`` at the end and ``weights_mean``, both
        in half precision.
    """
    data = images(dataset, seed)
    model = alexnet(width, seed=seed).to(data.inputs.device)
    if start is not None:
        vector_to_parameters(torch.as_tensor(start).to(data.inputs), model.parameters())
    trained = MixedPrecision(model) if precision == "bfloat16" else model
    if data.inputs.is_cuda:
        # a step is many small kernels: CUDA graphs record them once and replay them
        trained = torch.compile(trained, mode="reduce-overhead", dynamic=False)
    options = {"step_size": step, "batch_size": batch, "iterations": iterations, "seed": order}
    options |= {"record": range(0, iterations, every), "measure": measure(model, data), "average": average}
    try:
        history = train(trained, data.inputs, data.targets, checkpoint=checkpoint, **options)
    except DivergenceError as error:
        return records(error.history) | {"diverged": np.asarray(error.iteration)}
    half = lambda vector: vector.detach().cpu().half().numpy()
    found = records(history) | {"diverged": np.asarray(-1), "weights": half(parameters_to_vector(model.parameters()))}
    return found | ({"weights_mean": half(history.average)} if average else {})


def records(history: History) -> dict[str, np.ndarray]:
    """The records of a stage as arrays."""
    found = {name: np.array([m[name] for m in history.measures]) for name in MEASURES}
    return {"iterations": np.array(history.iterations), **found}


def risk_over(weights: np.ndarray, *, dataset: str, width: int, seed: int, examples: int) -> EmpiricalRisk:
    """The risk over the first training images, at some weights (M,)."""
    data = images(dataset, seed)
    x, y = data.inputs[:examples], data.targets[:examples]
    model = alexnet(width, seed=seed).to(x.device)
    parts = list(channels_last(x).split(1000)), list(y.split(1000))  # parts that fit into memory
    return EmpiricalRisk(model, *parts).at(torch.as_tensor(weights).to(x))


def on_line(
    start: np.ndarray, end: np.ndarray, positions: Sequence[float], *, dataset: str, width: int, seed: int
) -> dict[str, np.ndarray]:
    """``MEASURES`` at each position of the line from start (t = 0) to end (t = 1), both weights (M,)."""
    data = images(dataset, seed)
    start, end = (torch.as_tensor(weights).to(data.inputs) for weights in (start, end))
    model = alexnet(width, seed=seed).to(start.device)
    found = along_line(model, start, end, positions, lambda there: measure(there, data)(there))
    return {"positions": np.array(positions), **{name: np.array([m[name] for m in found]) for name in MEASURES}}


def first_steps(
    start: np.ndarray,
    *,
    dataset: str,
    width: int,
    seed: int,
    examples: int,
    arms: Sequence[tuple[float, int]],
    steps: int,
    leading: int,
    order: int,
) -> dict[str, np.ndarray]:
    """How the loss rises in the first steps from some weights, and what of it lies in the leading eigenvectors there.

    With d the displacement, g gradient and H Hessian at the start, P the projection on the leading eigenvectors of H.

    Args:
        start: weights (M,).
        dataset, width, seed: as in ``stage``.
        examples: over the first of these losses, gradient and Hessian are taken.
        arms: step and batch of each arm.
        steps: how many are followed; each is recorded.
        leading: how many eigenvectors.
        order: seed of the order of the examples.

    Returns:
        ``loss`` at the start, the ``eigenvalues``, ``iterations``, and for each arm (rows) and record (columns):
        ``rise`` of the loss; ``quadratic``, g . Pd + Pd . H Pd / 2; ``rest``, the rise at start + d - Pd; the lengths
        of Pd, ``along``, and of d - Pd, ``across``.
    """
    risk = risk_over(start, dataset=dataset, width=width, seed=seed, examples=examples)
    pairs = top_eigenpairs(risk.hessian(), leading, tolerance=1e-2)
    origin, first, data = risk.vector, risk.loss(), images(dataset, seed)
    basis, curvature = (torch.as_tensor(v).to(origin) for v in (pairs.eigenvectors, pairs.eigenvalues))
    slope = basis.T @ risk.gradient()

    def now(trained: nn.Module) -> dict[str, float]:
        moved = parameters_to_vector(trained.parameters()).detach() - origin
        inside = basis.T @ moved
        outside = moved - basis @ inside
        rise, rest = (risk.at(origin + part).loss() - first for part in (moved, outside))
        quadratic = float(slope @ inside + (curvature * inside**2).sum() / 2)
        lengths = {"along": float(inside.norm()), "across": float(outside.norm())}
        return {"rise": rise, "quadratic": quadratic, "rest": rest, **lengths}

    rows = []
    for step, batch in arms:
        model = alexnet(width, seed=seed).to(origin.device)
        vector_to_parameters(origin.clone(), model.parameters())  # training changes what it is given
        options = {"step_size": step, "batch_size": batch, "iterations": steps, "seed": order, "progress": False}
        rows.append(train(model, data.inputs, data.targets, record=range(steps), measure=now, **options).measures)
    found = {name: np.array([[m[name] for m in row] for row in rows]) for name in rows[0][0]}
    return {"loss": np.asarray(first), "eigenvalues": pairs.eigenvalues, "iterations": np.arange(steps + 1), **found}


def curvature(
    weights: np.ndarray,
    *,
    dataset: str,
    width: int,
    seed: int,
    examples: int,
    leading: int,
    probes: int,
    steps: int,
    batch: int,
    picks: int,
) -> dict[str, np.ndarray]:
    """The Hessian at some weights: leading eigenvalues, trace, negative part; and where the noise of a batch lies.

    Args:
        weights: (M,).
        dataset, width, seed: as in ``stage``.
        examples: the Hessian is that of the loss over the first of these.
        leading: how many of the largest eigenvalues.
        probes, steps: of the Lanczos quadrature for the rest of the spectrum.
        batch, picks: size and number of the random batches, of these examples, whose noise is taken: their
            gradient less that of all.

    Returns:
        ``eigenvalues`` (leading,), the largest first, and whether they ``converged``; ``trace``, the sum of the
        ``negative`` eigenvalues and that of all magnitudes (``absolute``), each with its standard error over the
        probes (``trace_error``, ...); ``nodes`` and ``node_weights`` of the quadrature; and for each batch the squared
        noise along each leading eigenvector (``noise_inside``) and in all (``noise``).
    """
    risk = risk_over(weights, dataset=dataset, width=width, seed=seed, examples=examples)
    pairs = top_eigenpairs(risk.hessian(), leading, tolerance=1e-2)
    density = spectral_density(risk.hessian(), probes, steps, seed, deflate=pairs)
    means, errors = density.mean(lambda v: np.stack([v, np.minimum(v, 0), np.abs(v)]))
    found = {"eigenvalues": pairs.eigenvalues, "converged": np.asarray(pairs.converged)}
    for name, mean, error in zip(("trace", "negative", "absolute"), means, errors, strict=True):
        found |= {name: risk.num_parameters * mean, f"{name}_error": risk.num_parameters * error}
    data, generator = images(dataset, seed), torch.Generator().manual_seed(seed)
    basis, whole = torch.as_tensor(pairs.eigenvectors).to(risk.vector), risk.gradient()
    inside, total = np.zeros((picks, leading)), np.zeros(picks)
    for i in range(picks):
        pick = torch.randperm(examples, generator=generator)[:batch]
        part = EmpiricalRisk(risk.model, data.inputs[pick], data.targets[pick]).at(risk.vector)
        noise = part.gradient() - whole
        inside[i], total[i] = ((basis.T @ noise) ** 2).cpu(), float(noise @ noise)
    return found | {"nodes": density.nodes, "node_weights": density.weights, "noise_inside": inside, "noise": total}


def tail(result: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The last fifth of the records of a stage: 50 of 250."""
    values = np.asarray(result[name])
    return values[-max(1, len(values) // 5) :]


def ends_of(stages: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """What the stages of a run end with, means over ``tail``, and rise to in 20 records; accuracies in per cent."""
    out = {}
    for name, result in stages.items():
        tests = 100 * tail(result, "test_accuracy")
        out |= {f"{name}_loss": tail(result, "train_loss").mean(), f"{name}_test": tests.mean()}
        out |= {f"{name}_scatter": tests.std(), f"{name}_highest": result["train_loss"][1:21].max()}
        out |= {f"{name}_jump": out[f"{name}_highest"] / out["large_loss"]}
    out |= {"since": out["small_test"] - out["large_test"], "level": out["small_loss"] / out["large_loss"]}
    return out | ({"gain": out["small_test"] - out["control_test"]} if "control" in stages else {})
