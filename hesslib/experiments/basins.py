"""Large batches, then small ones from where they ended (paper, Section 4.1, Figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..curvature.lanczos import top_eigenpairs
from ..curvature.risk import EmpiricalRisk
from .data import Dataset, cifar10, mnist
from .landscape import along_line, barrier, loss_and_accuracy
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


def recorded(history, part):
    """The records of a part as arrays."""
    found = {"iterations": history.iterations, "seconds": history.seconds}
    found |= {k: [m[k] for m in history.measures] for k in history.measures[0]}
    return {f"{k}_{part}": v for k, v in found.items()}


def rounded(model):
    """The weights in half precision, as they are stored."""
    vector = parameters_to_vector(model.parameters()).detach()
    return vector.cpu().half().numpy()


def run_part(trained, model, data, part, options):
    """One part of the training: its records and its end; Part II may diverge."""
    if data.inputs.is_cuda and "checkpoint" in options:
        # a step is many small kernels: CUDA graphs record them once and replay them
        trained = torch.compile(trained, mode="reduce-overhead", dynamic=False)
    try:
        history = train(trained, data.inputs, data.targets, **options)
    except DivergenceError as error:
        if part == 1:
            raise
        return recorded(error.history, part) | {"diverged": error.iteration}
    return recorded(history, part) | {f"weights_{part}": rounded(model)}


def ends(setting, result):
    """Data, network and the weights at the ends of Part I and Part II."""
    data = images(setting["dataset"], setting["seed"])
    model = alexnet(setting["width"], seed=0).to(data.inputs.device)
    names = ("weights_1", "weights_2")
    return data, model, *(torch.as_tensor(result[k]).to(data.inputs) for k in names)


def line(setting, result, positions):
    """Loss and accuracy of both data sets on the line: t = 0 is Part I, t = 1 Part II."""
    data, model, start, end = ends(setting, result)
    pairs = [(data.inputs, data.targets), (data.test_inputs, data.test_targets)]
    look = lambda m: [v for x, y in pairs for v in loss_and_accuracy(m, x, y)]
    values = np.array(along_line(model, start, end, positions, look)).T
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return {"positions": positions, **dict(zip(names, values))}


def local(setting, result, t, k, examples):
    """Top k eigenvalues at position t, and the share of the batch noise in their span."""
    data, model, start, end = ends(setting, result)
    x, y = data.inputs[:examples], data.targets[:examples]
    risk = EmpiricalRisk(model, *batches(x, y)).at((1 - t) * start + t * end)
    pairs = top_eigenpairs(risk.hessian(), k, tolerance=1e-2)
    noise = batch_noise(risk, x, y, setting["small"], 50, setting["seed"])
    inside = (noise @ torch.as_tensor(pairs.eigenvectors).to(noise)) ** 2
    share = (inside.sum(1) / (noise**2).sum(1)).cpu().numpy()
    return {"eigenvalues": pairs.eigenvalues, "noise_share": share}


def batches(x, y, size=1000):
    """Inputs and targets in parts that fit into memory."""
    return list(x.split(size)), list(y.split(size))


def batch_noise(risk, x, y, size, count, seed):
    """Gradients (count, M) of random batches minus the gradient of the whole."""
    generator = torch.Generator().manual_seed(seed)
    model, mean = risk.model, risk.gradient()
    picks = [torch.randperm(len(x), generator=generator)[:size] for _ in range(count)]
    one = lambda pick: EmpiricalRisk(model, x[pick], y[pick]).at(risk.vector)
    return torch.stack([one(pick).gradient() - mean for pick in picks])


def together(result, key):
    """Iterations and values of both parts, one after the other."""
    first = np.asarray(result["iterations_1"])
    time = np.concatenate([first, first[-1] + np.asarray(result["iterations_2"])])
    parts = [np.asarray(result[f"{key}_{part}"]) for part in (1, 2)]
    return time, np.concatenate(parts)


def ends_of(result):
    """Test accuracy and training loss of both parts, means over the last 50 records, and the jump.

    In per cent; of a short run over its last quarter. None of a run that was not made.
    """
    names = ("loss_1", "test_1", "scatter_1", "last_1", "loss_2", "test_2", "scatter_2", "last_2")
    if result is None:
        return dict.fromkeys((*names, "highest", "ratio", "jump", "gain"))
    found = {}
    for part in (1, 2):
        last = min(50, max(1, len(result[f"train_loss_{part}"]) // 4))
        tests = 100 * np.asarray(result[f"test_accuracy_{part}"][-last:])
        found[f"loss_{part}"] = float(np.mean(result[f"train_loss_{part}"][-last:]))
        found |= {f"test_{part}": tests.mean(), f"scatter_{part}": tests.std(), f"last_{part}": tests[-1]}
    highest = np.max(result["train_loss_2"][1:21])
    found |= {"highest": highest, "jump": highest / result["train_loss_1"][-1]}
    return found | {"ratio": found["loss_2"] / found["loss_1"], "gain": found["test_2"] - found["test_1"]}


def line_numbers(result):
    """The barrier, absolute and relative to the higher end, and the losses at both ends."""
    if result is None:
        return dict.fromkeys(("barrier", "times", "start", "end"))
    t, loss = (np.asarray(result[k]) for k in ("positions", "train_loss"))
    start, end = (loss[np.argmin(abs(t - x))] for x in (0, 1))
    height = barrier(t, loss)
    return {
        "barrier": height, "times": 1 + height / max(start, end),
        "start": start, "end": end,
    }  # fmt: skip


def first_steps(
    start: np.ndarray,
    *,
    dataset: str,
    width: int,
    step: float,
    batch: int,
    steps: int,
    leading: int,
    examples: int,
    seed: int,
    order: int,
) -> dict[str, np.ndarray]:
    """How the loss rises in the first steps from some weights, and what of it lies in the leading eigenvectors there.

    With d the displacement, g gradient and H Hessian at the start, P the projection on the leading eigenvectors of H.

    Args:
        start: weights (M,).
        dataset, width, step, batch: as in ``stage``.
        steps: how many are followed; each is recorded.
        leading: how many eigenvectors.
        examples: over the first of these losses, gradient and Hessian are taken.
        seed, order: of the digits, and of the order of the examples.

    Returns:
        one entry a record: ``iterations``; ``rise`` of the loss; ``quadratic``, g . Pd + Pd . H Pd / 2; ``rest``, the
        rise at start + d - Pd; ``share``, that of Pd in the squared length of d; and the ``eigenvalues``.
    """
    data, model = images(dataset, seed), alexnet(width, seed=seed)
    x, y = data.inputs[:examples], data.targets[:examples]
    origin = torch.as_tensor(start).to(x)
    vector_to_parameters(origin.clone(), model.to(x.device).parameters())  # training changes what it is given
    risk = EmpiricalRisk(model, list(x.split(1000)), list(y.split(1000)))
    pairs = top_eigenpairs(risk.hessian(), leading, tolerance=1e-2, progress=False)
    basis = torch.as_tensor(pairs.eigenvectors).to(x)
    slope, curvature = basis.T @ risk.gradient(), torch.as_tensor(pairs.eigenvalues).to(x)
    first = risk.loss()

    def now(trained):
        moved = parameters_to_vector(trained.parameters()).detach() - origin
        inside = basis.T @ moved
        quadratic = float(slope @ inside + (curvature * inside**2).sum() / 2)
        rest = risk.at(origin + moved - basis @ inside).loss() - first
        share = float((inside**2).sum()) / max(float((moved**2).sum()), 1e-300)
        return {"rise": risk.at(origin + moved).loss() - first, "quadratic": quadratic, "rest": rest, "share": share}

    options = {"step_size": step, "batch_size": batch, "iterations": steps, "seed": order, "progress": False}
    history = train(model, data.inputs, data.targets, record=range(steps), measure=now, **options)
    found = {name: np.array([m[name] for m in history.measures]) for name in history.measures[0]}
    return {"iterations": np.array(history.iterations), "eigenvalues": pairs.eigenvalues, **found}
