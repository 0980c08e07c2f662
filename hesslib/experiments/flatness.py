"""How far flat directions stay flat, which zeros of H a network's structure explains, and the way to a minimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..curvature.risk import EmpiricalRisk
from .data import mnist


def shrunk_digits(examples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Digits of 7 by 7 pixels, (n, 49), each the mean of 4 by 4, and their labels."""
    data = mnist(examples, seed=seed)
    return F.avg_pool2d(data.inputs.view(-1, 1, 28, 28), 4).flatten(1), data.targets


def structural_zeros(risk: EmpiricalRisk) -> dict[str, int]:
    """Zeros of H that the activity of a fully connected ReLU network under cross-entropy explains, by reason.

    The weights into a unit of the first layer act only through the inputs of those examples on which the unit and some
    path from it to the outputs are active: H is zero along every direction orthogonal to these inputs. In later layers,
    whose inputs move with the weights before them, this holds of single inputs that are inactive on all these examples.
    One number added to the weights from one input into all outputs changes no softmax.

    Returns:
        numbers of zeros: ``black`` (a pixel is zero in all examples), ``pairs`` (in all on which the unit is active),
        ``dependent`` (the inputs left span less), ``later`` (inactive inputs of later layers), ``shifts`` (softmax).
    """
    x, _ = risk.batches[0]
    layers = sorted({int(name.split(".")[0]) for name in risk.parameters})
    inputs, active, a = [], [], x
    for layer in layers:
        inputs.append(torch.cat([a, torch.ones_like(a[:, :1])], 1))
        z = a @ risk.parameters[f"{layer}.weight"].T + risk.parameters[f"{layer}.bias"]
        a = z.relu()
        active.append(z > 0)
    found = {"black": int((~x.any(0)).sum()) * active[0].shape[1], "pairs": 0, "dependent": 0, "later": 0}
    for i, given in enumerate(inputs[:-1]):
        reached = torch.ones(len(x), dtype=torch.bool)
        for on in active[i + 1 : -1]:
            reached &= on.any(1)
        for unit in active[i].T:
            part = given[unit & reached]
            dead = int((~part.any(0)).sum())
            found["later" if i else "pairs"] += dead
            if i == 0 and len(part):
                found["dependent"] += given.shape[1] - dead - int(torch.linalg.matrix_rank(part))
    found["pairs"] -= found["black"]
    live = int(inputs[-1].any(0).sum())
    found["later"] += risk.num_outputs * (inputs[-1].shape[1] - live)
    return found | {"shifts": live}


def directions(risk: EmpiricalRisk, leading: int, drawn: int, seed: int) -> tuple[float, dict[str, Tensor]]:
    """The largest eigenvalue of H, and unit vectors (k, M) of four kinds.

    ``leading`` eigenvectors, and ``drawn`` random vectors each of the bulk (eigenvalues whose magnitude is below a
    thousandth of the largest), of its zeros (below 1e-12 of it; ``null``), and of the whole space (``random``).
    """
    values, vectors = torch.linalg.eigh(risk.hessian().to_dense())
    share, draw = values.abs() / values[-1], torch.Generator().manual_seed(seed)
    spaces = {"bulk": (share < 1e-3) & (share > 1e-12), "null": share <= 1e-12, "random": share >= 0}
    found = {"leading": vectors[:, -leading:].T.flip(0)}
    for name, chosen in spaces.items():
        basis = vectors[:, chosen]
        mixed = torch.randn(drawn, basis.shape[1], generator=draw, dtype=basis.dtype)
        found[name] = F.normalize(mixed @ basis.T, dim=1)
    return float(values[-1]), found


def finite_curvature(
    risk: EmpiricalRisk, directions: Tensor, distances: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Curvature of the risk along directions as seen over finite distances, and the rise of the risk there.

    Args:
        risk: at the point from which the distances count.
        directions: unit vectors v, (k, M).
        distances: lengths h.

    Returns:
        curvatures v.(g(w + h v) - g(w - h v)) / 2h, which tend to v.H v as h falls, and rises of the loss, the mean
        of L(w + h v) - L(w) and L(w - h v) - L(w); both (k, len(distances)).
    """
    curvatures, rises, here = np.empty((len(directions), len(distances))), [], risk.loss()
    for i, v in enumerate(directions):
        for j, h in enumerate(distances):
            ahead, behind = (risk.at(risk.vector + t * v) for t in (h, -h))
            curvatures[i, j] = float(v @ (ahead.gradient() - behind.gradient())) / (2 * h)
            rises.append((ahead.loss() + behind.loss()) / 2 - here)
    return curvatures, np.reshape(rises, curvatures.shape)


def newton_descent(
    risk: EmpiricalRisk, decay: float, tolerance: float = 1e-12, iterations: int = 300
) -> tuple[EmpiricalRisk, np.ndarray]:
    """Newton's method with the magnitudes of all eigenvalues on the risk plus ``decay`` / 2 times |w|^2.

    Along negative curvature its step goes downhill, so saddles repel it. A step is taken if the loss falls, or if the
    loss agrees to rounding and the gradient falls; else it is damped. The end is a gradient norm of ``tolerance``.

    Returns:
        the risk at the last point, and one row an iteration: loss, gradient norm, lowest and largest eigenvalue.
    """
    value = lambda at: at.loss() + decay / 2 * float(at.vector.square().sum())
    slope = lambda at: at.gradient() + decay * at.vector
    rows, damping = [], 1e-2
    for _ in range(iterations + 1):
        values, vectors = torch.linalg.eigh(risk.hessian().to_dense())
        values, loss, gradient = values + decay, value(risk), slope(risk)
        rows.append([loss, float(gradient.norm()), float(values[0]), float(values[-1])])
        if rows[-1][1] <= tolerance:
            break
        while damping < 1e6:
            there = risk.at(risk.vector - vectors @ ((vectors.T @ gradient) / (values.abs() + damping)))
            change = value(there) - loss
            if change < -1e-14 or (change < 1e-14 and float(slope(there).norm()) < rows[-1][1]):
                risk, damping = there, damping / 4
                break
            damping *= 4
    return risk, np.array(rows)
