"""Straight lines through weight space, barriers on them, and the symmetry that swaps hidden units (Section 4.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.ndimage import label
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def loss_and_accuracy(model: nn.Module, inputs: Tensor, targets: Tensor, batch_size: int = 1000) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers over all examples, computed ``batch_size`` at a time."""
    with torch.no_grad():
        outputs = torch.cat([model(part) for part in inputs.split(batch_size)])
    return float(F.cross_entropy(outputs, targets)), float((outputs.argmax(1) == targets).double().mean())


def along_line(
    model: nn.Module, start: Tensor, end: Tensor, positions: Sequence[float], function: Callable[[nn.Module], object]
) -> list:
    """``function`` of the model at (1 - t) start + t end for each position t; the model itself is left alone.

    Args:
        model: gives the architecture.
        start, end: parameters (M,).
        positions: t = 0 is the start, t = 1 the end; below 0 and above 1 lies what is beyond them.
        function: called with a network at each position.

    Raises:
        ValueError: the ends are not vectors of the model's M parameters.
    """
    model, m = copy.deepcopy(model), sum(p.numel() for p in model.parameters())
    for name, vector in (("start", start), ("end", end)):
        if vector.shape != (m,):
            raise ValueError(f"{name}: shape {tuple(vector.shape)} given, ({m},) needed")
    values = []
    for t in positions:
        vector_to_parameters((1 - t) * start + t * end, model.parameters())
        values.append(function(model))
    return values


def barrier(positions: Sequence[float], losses: Sequence[float]) -> float:
    """How far the loss rises between the ends (positions 0 to 1) above the higher of them; 0 if it does not.

    Example:
        >>> from hesslib.experiments.landscape import barrier
        >>> barrier([-1, 0, 0.5, 1], [9.0, 1.0, 4.0, 2.0])
        2.0
    """
    t, losses = np.asarray(positions, dtype=float), np.asarray(losses, dtype=float)
    if t.shape != losses.shape or not {0.0, 1.0} <= set(t.tolist()):
        raise ValueError(f"positions={t.tolist()}: give one for each of {losses.size} losses, 0 and 1 among them")
    inside = losses[(t >= 0) & (t <= 1)].max()
    return float(inside - max(losses[t == 0].max(), losses[t == 1].max()))


def rise_factor(positions: Sequence[float], losses: Sequence[float]) -> float:
    """The highest loss between the ends (positions 0 to 1) over that of the higher of them; 1 is no barrier.

    Example:
        >>> from hesslib.experiments.landscape import rise_factor
        >>> rise_factor([-1, 0, 0.5, 1], [9.0, 1.0, 4.0, 2.0])
        2.0
    """
    t, losses = np.asarray(positions, dtype=float), np.asarray(losses, dtype=float)
    return 1 + barrier(t, losses) / float(losses[(t == 0) | (t == 1)].max())


def on_plane(
    model: nn.Module, points: Sequence[Tensor], function: Callable[[nn.Module], float], size: int = 25
) -> dict[str, np.ndarray]:
    """``function`` of the model on the plane through three points, which lie on the grid.

    Args:
        model: gives the architecture.
        points: three parameter vectors (M,), not on one line.
        function: called with a network at each grid point.
        size: grid points a side, evenly spread, besides those of the three points; they reach a third beyond these.

    Returns:
        ``x`` and ``y`` of the grid, lengths in weight space along two orthonormal directions, the first from the first
        point to the second; ``values`` (y, x); and ``points`` (3, 2), where the three are.
    """
    origin, (side, far) = points[0], (p - points[0] for p in points[1:])
    ahead = side / side.norm()
    beside = far - (ahead @ far) * ahead
    if not (side.norm() > 0 and beside.norm() > 1e-6 * far.norm()):
        raise ValueError("points: three on one line span no plane")
    beside = beside / beside.norm()
    places = np.array([[0, 0], [float(side.norm()), 0], [float(ahead @ far), float(beside @ far)]])
    margin = np.ptp(places, axis=0) / 3
    even = np.linspace(places.min(0) - margin, places.max(0) + margin, size).T
    x, y = (np.union1d(line, mark) for line, mark in zip(even, places.T))
    rows = [along_line(model, origin + b * beside, origin + b * beside + ahead, x, function) for b in y.tolist()]
    return {"x": x, "y": y, "values": np.array(rows, dtype=float), "points": places}


def pass_between(plane: dict[str, np.ndarray], first: int, second: int) -> float:
    """The lowest value that has to be reached on the way from one of the three points of a plane to another.

    The way leads over neighbouring grid points of ``on_plane``, so that within the plane there may be a lower one.
    """
    cell = lambda i: tuple(int(np.argmin(abs(plane[k] - plane["points"][i, j]))) for k, j in (("y", 1), ("x", 0)))
    a, b, values = cell(first), cell(second), plane["values"]
    joined = lambda level: (regions := label(values <= level)[0])[a] == regions[b] > 0
    return float(next(level for level in np.unique(values) if joined(level)))


def reorder(model: nn.Sequential, orders: Sequence[Tensor]) -> nn.Sequential:
    """The same function at another point: hidden units of a fully connected network put in another order.

    Args:
        model: Linear layers with elementwise activations between them.
        orders: one permutation for each hidden layer; unit i of the result is unit ``order[i]`` of the model.
    """
    model = copy.deepcopy(model)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    if [len(o) for o in orders] != [layer.out_features for layer in layers[:-1]]:
        raise ValueError(f"orders: lengths {[len(o) for o in orders]} do not fit the hidden layers")
    with torch.no_grad():
        for low, high, order in zip(layers[:-1], layers[1:], orders, strict=True):
            low.weight.copy_(low.weight[order])
            low.bias.copy_(low.bias[order])
            high.weight.copy_(high.weight[:, order])
    return model


def align(model: nn.Sequential, reference: nn.Sequential, sweeps: int = 20) -> nn.Sequential:
    """``model`` with its hidden units reordered to lie as near to ``reference`` as can be found.

    Each hidden layer in turn takes the order that maximises the inner product of the two networks' weights,
    until no layer changes (weight matching, Ainsworth et al. 2023). With one hidden layer the
    result is the nearest of all orders.
    """
    weights = lambda net: [layer for layer in net if isinstance(layer, nn.Linear)]
    target, aligned = weights(reference), model
    if [layer.weight.shape for layer in weights(model)] != [layer.weight.shape for layer in target]:
        raise ValueError("reference: its layers differ in size from the model's")
    for _ in range(sweeps):
        before = parameters_to_vector(aligned.parameters()).detach()
        for i in range(len(target) - 1):
            layers = weights(aligned)
            low, high, low_target, high_target = layers[i], layers[i + 1], target[i], target[i + 1]
            likeness = low_target.weight @ low.weight.T + torch.outer(low_target.bias, low.bias)
            likeness = likeness + high_target.weight.T @ high.weight
            order = linear_sum_assignment(likeness.detach().cpu().numpy(), maximize=True)[1]
            orders = [torch.arange(layer.out_features) for layer in layers[:-1]]
            orders[i] = torch.as_tensor(order)
            aligned = reorder(aligned, orders)
        if torch.equal(before, parameters_to_vector(aligned.parameters()).detach()):
            break
    return aligned
