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

from .data import Dataset, cifar10, mnist
from .landscape import loss_and_accuracy
from .models import MixedPrecision, alexnet
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

    def now(_):
        seen = loss_and_accuracy(model, data.inputs[:5000], data.targets[:5000])
        new = loss_and_accuracy(model, data.test_inputs, data.test_targets)
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
