"""Critical points of a small network's loss: how many directions lead down, against the energy."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor, nn

from ..curvature.risk import EmpiricalRisk
from .zeros import without_bias


def descend(model: nn.Sequential, x: Tensor, y: Tensor, steps: int, step: float = 2.0) -> None:
    """Gradient descent on the mean squared error of two layers with tanh between them, in place."""
    first, last = model[0].weight.detach(), model[2].weight.detach()
    for _ in range(steps):
        a = (x @ first.T).tanh()
        e = (a @ last.T - y) * (2 / y.numel())
        back = ((e @ last) * (1 - a**2)).T @ x
        last -= step * e.T @ a
        first -= step * back


def flatten_gradient(risk: EmpiricalRisk, iterations: int) -> EmpiricalRisk:
    """Levenberg-Marquardt steps that lower the norm of the gradient, towards a critical point of any index.

    It ends where the gradient is at most 1e-12, or where no step lowers its norm any more. Such a place need not be
    critical: where H g is nearly zero the norm is stationary with g other than zero (Frye et al. 2021).
    """
    damping, g = 1e-3, risk.gradient()
    for _ in range(iterations):
        size, h = g.norm(), risk.hessian().to_dense(progress=False)
        if size <= 1e-12:
            break
        square, eye = h @ h, torch.eye(len(h), dtype=h.dtype)
        while damping < 1e8:
            factor, failed = torch.linalg.cholesky_ex(square + damping * size * eye)
            there = risk.at(risk.vector - torch.cholesky_solve((h @ g)[:, None], factor)[:, 0])
            if not failed and there.gradient().norm() < size:
                risk, g, damping = there, there.gradient(), max(damping / 4, 1e-13)
                break
            damping *= 4
        else:
            break
    return risk


def index_law(energy: np.ndarray, index: np.ndarray) -> tuple[float, float, float]:
    """Factor, edge and exponent of index = factor (energy - edge)^exponent, fitted by least squares.

    The edge lies between zero and the lowest energy. All three are NaN for fewer than five points.
    """
    if len(energy) < 5:
        return np.nan, np.nan, np.nan
    law = lambda e, factor, edge, exponent: factor * np.maximum(e - edge, 1e-12) ** exponent
    low = float(energy.min())
    found, _ = curve_fit(law, energy, index, (1, 0.9 * low, 1.5), bounds=([0, 0, 0.1], [1e3, low, 9]))
    return tuple(map(float, found))


def critical_points(ratio: float, width: int, starts: int, iterations: int, seed: int) -> dict[str, np.ndarray]:
    """Energies and indices where the gradient of a network with tanh has become small.

    The network has ``width`` inputs, hidden units and outputs and no biases, so M = 2 width^2; inputs and targets are
    normal, as in Pennington and Bahri (2017). Each search starts at another random point, after between 10 and 10,000
    steps of gradient descent, and then lowers the norm of the gradient.

    Args:
        ratio: of parameters to targets, M / (N width).
        width: of all three layers.
        starts: number of searches.
        iterations: Levenberg-Marquardt steps of each.
        seed: of the data and the starts.

    Returns:
        energy, half the mean squared error; index, the share of negative eigenvalues of H; gradient, its norm; flat,
        the norm of H g over that of g times the largest eigenvalue; ``starts`` numbers each. laws (2, 3): what
        ``index_law`` fits to all points, and to those whose index is at most a tenth.
    """
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(round(2 * width / ratio), width, generator=draw, dtype=torch.float64) for _ in range(2))
    rows = []
    for i, steps in enumerate(np.logspace(1, 4, starts)):
        model = without_bias([width] * 3, "tanh", seed * starts + i)
        descend(model, x, y, round(steps))
        risk = flatten_gradient(EmpiricalRisk(model, x, y, loss="mse"), iterations)
        h, g = risk.hessian().to_dense(progress=False), risk.gradient()
        values = torch.linalg.eigvalsh(h)
        flat = (h @ g).norm() / g.norm() / values.abs().max()
        rows.append([risk.loss() / 2, float((values < 0).double().mean()), float(g.norm()), float(flat)])
    energy, index, gradient, flat = np.array(rows).T
    few = index <= 0.1
    laws = np.array([index_law(energy, index), index_law(energy[few], index[few])])
    return {"energy": energy, "index": index, "gradient": gradient, "flat": flat, "laws": laws}
