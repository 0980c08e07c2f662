"""How many eigenvalues of H, G and R are exactly zero: by theorem, by structure, at a global minimum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..curvature.jacobian import jacobian
from ..curvature.risk import EmpiricalRisk
from ..curvature.spectrum import spectrum
from .data import blobs, mnist
from .flatness import shrunk_digits
from .models import ACTIVATIONS, fully_connected

# Ranks that the released code of Singh, Bachmann and Hofmann (2021) stores: bias-free linear networks 64-m-m-10 under
# cross-entropy, 100 digits of 8 by 8 pixels whose matrix has rank 41.
PUBLISHED = {
    "m": [4, 8, 12, 16, 20, 24, 28, 32, 36],
    "H": [216, 464, 639, 783, 927, 1071, 1215, 1359, 1503],
    "G": [184, 336, 369, 369, 369, 369, 369, 369, 369],
    "R": [88, 208, 351, 495, 639, 783, 927, 1071, 1215],
}


def digits_of_rank(examples: int, seed: int, rank: int = 0) -> tuple[Tensor, Tensor]:
    """Digits of 8 by 8 pixels, (n, 64), and labels.

    With a rank all pixels but that many, the brightest over all digits, are made black.
    """
    data = mnist(examples, seed=seed)
    x = F.interpolate(data.inputs.view(-1, 1, 28, 28), size=8, mode="area").flatten(1)
    if rank:
        x = x * torch.zeros(64, dtype=x.dtype).index_fill_(0, x.sum(0).argsort(descending=True)[:rank], 1)
    return x, data.targets


def without_bias(sizes: Sequence[int], activation: str, seed: int) -> nn.Sequential:
    """Linear layers without bias and the activation between them, in float64; Glorot's normal start.

    Args:
        sizes: widths from the input to the output.
        activation: as in ``fully_connected``, or ``"linear"`` for none.
        seed: of the random start.
    """
    draw, layers = torch.Generator().manual_seed(seed), []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=False, dtype=torch.float64)
        nn.init.xavier_normal_(layer.weight, generator=draw)
        layers += [layer, nn.Identity() if activation == "linear" else ACTIVATIONS[activation]()]
    return nn.Sequential(*[layer for layer in layers[:-1] if not isinstance(layer, nn.Identity)])


def linear_ranks(widths: Sequence[int], inputs: int, slopes: int) -> dict[str, int]:
    """Ranks of H, G and R of a deep linear network without biases (Singh, Bachmann and Hofmann 2021).

    Args:
        widths: of the hidden layers.
        inputs: rank of the matrix of the inputs.
        slopes: outputs that count: C for squared error, C - 1 for cross-entropy.
    """
    s = min(inputs, slopes)
    q = min(s, *widths)
    r = q * (2 * sum(widths) + 2 * s - (len(widths) + 1) * q)
    g = q * (inputs + slopes - q)
    return {"H": r + g + q * (q - 2 * s), "G": g, "R": r}


def zeros_of(values: np.ndarray, tolerance: float = 1e-12) -> int:
    """Eigenvalues whose magnitude is at most ``tolerance`` of the largest."""
    size = np.abs(values)
    return int((size <= tolerance * size.max()).sum())


def to_zero_loss(risk: EmpiricalRisk, tolerance: float = 1e-28, iterations: int = 200) -> EmpiricalRisk:
    """A global minimum of squared error: damped Gauss-Newton steps until the loss is at most ``tolerance``.

    A step solves (J J' + damping) u = residual over the N C outputs and moves by -J' u, so that it costs little where
    parameters outnumber outputs. It ends before, where no step lowers the loss any more.
    """
    (x, y), damping = risk.batches[0], 1.0
    for _ in range(iterations):
        loss = risk.loss()
        if loss <= tolerance or damping >= 1e8:
            break
        j = jacobian(risk, progress=False).flatten(0, 1)
        residual = (risk.outputs(risk.parameters, x) - y).flatten().detach()
        while damping < 1e8:
            kernel = j @ j.T + damping * torch.eye(len(j), dtype=j.dtype)
            there = risk.at(risk.vector - j.T @ torch.linalg.solve(kernel, residual))
            if there.loss() < loss:
                risk, damping = there, damping / 10
                break
            damping *= 10
    return risk


def at_minimum(targets: str, examples: int, seed: int) -> dict[str, Any]:
    """Zeros of H at a random start and at a global minimum of squared error."""
    x, y = shrunk_digits(examples, seed)
    x, eye = (x - x.mean(0)) / x.std(), torch.eye(10, dtype=x.dtype)
    draw = torch.Generator().manual_seed(seed)
    normal = torch.randn(examples, 10, generator=draw, dtype=x.dtype)
    kinds = {"one": y[:, None].to(x) / 10, "random": normal, "one-hot": eye[y]}
    t = kinds[targets]
    model = fully_connected([49, 20, t.shape[1]], activation="tanh", seed=seed)
    start = EmpiricalRisk(model, x, t, loss="mse")
    end = to_zero_loss(start)
    of = lambda risk: spectrum(risk.hessian(), progress=False).eigenvalues
    values = [of(start), of(end)]
    size = np.sort(np.abs(values[1]))[::-1]
    zeros = [zeros_of(v) for v in values]
    found = {"zeros": zeros, "parameters": len(size), "outputs": t.shape[1]}
    last = size[len(size) - zeros[1] - 1] / size[0]
    return found | {"loss": end.loss(), "last": last}


def chapter_network(name: str, seed: int) -> tuple[Tensor, Tensor, list[int], float, int]:
    """Data and setting of a ReLU network as on the book's pages: inputs, labels, widths, step and iterations.

    Args:
        name: ``"spectrum"`` (Chapter 1), ``"pages"`` and ``"under"`` (Chapter 2, 50 and 800 digits of 7 by 7 pixels),
            ``"clusters"`` (Chapter 3's five clusters, with units as in Chapter 1), ``"size"`` (Chapter 4).
        seed: of the digits or clusters.
    """
    if name == "clusters":
        data = blobs(1000, 5, 100, seed=seed)
        return data.inputs, data.targets, [100, 6, 12, 5], 0.1, 3000
    if name in ("pages", "under"):
        x, y = shrunk_digits(50 if name == "pages" else 800, seed)
        return x, y, [49, 6 if name == "pages" else 8, 10], 0.2, 3000
    data, hidden = mnist(200, seed=seed), {"spectrum": [4, 8], "size": [3]}[name]
    return data.inputs, data.targets, [784, *hidden, 10], 0.1, 3000


def live_units(risk: EmpiricalRisk) -> list[dict[str, Tensor]]:
    """Of each layer of a fully connected ReLU network with biases: its inputs, one for the bias last, and what counts.

    ``inputs`` (N, n + 1), and ``counts`` (N, units): the unit is active on the example, and some path from it to the
    outputs is. Outputs count always.
    """
    a, _ = risk.batches[0]
    names = sorted({int(name.split(".")[0]) for name in risk.parameters})
    layers: list[dict[str, Tensor]] = []
    for name in names:
        given = torch.cat([a, torch.ones_like(a[:, :1])], 1)
        z = a @ risk.parameters[f"{name}.weight"].T + risk.parameters[f"{name}.bias"]
        layers.append({"inputs": given, "counts": z > 0})
        a = z.relu()
    layers[-1]["counts"] = torch.ones_like(layers[-1]["counts"])
    reached = torch.ones(len(a), dtype=torch.bool)
    for layer in reversed(layers[:-1]):
        layer["counts"] = layer["counts"] & reached[:, None]
        reached = layer["counts"].any(1)
    return layers


def undone(layer: dict[str, Tensor], following: dict[str, Tensor], unit: int) -> int:
    """Independent changes of a unit's weights in that change its output, and that the weights into the next layer undo.

    Each unit of the next layer undoes them by its own weights in, on the examples on which it counts.
    """
    change = layer["inputs"] * layer["counts"][:, unit, None]
    scale, left = float(change.norm()), change[:0]
    for counts in following["counts"].T.unique(dim=0):
        if counts.any():
            u, size, _ = torch.linalg.svd(following["inputs"][counts], full_matrices=False)
            span, rows = u[:, size > 1e-12 * size[0]], change[counts]
            left = torch.linalg.qr(torch.cat([left, rows - span @ (span.T @ rows)]), mode="r").R
    rank = lambda matrix: int((torch.linalg.svdvals(matrix) > 1e-12 * scale).sum())
    return rank(change) - rank(left)


def account(risk: EmpiricalRisk) -> dict[str, int]:
    """Zeros of G that the structure of a fully connected ReLU network under cross-entropy explains, by reason.

    The weights into a unit change the outputs through the inputs of those examples alone on which the unit counts
    (``live_units``): G is zero along every direction orthogonal to these inputs. If a unit's weights in are multiplied
    by a number and its weights out divided by it, the outputs stay; more generally the next layer may undo what a
    change of a unit's weights does (``undone``), as when units are active on the same examples, or on all. Adding one
    vector to the weights into all outputs shifts all outputs alike, and no softmax changes. And N examples give G at
    most N (C - 1) dimensions. These directions are independent, so that their number is a lower bound.

    Returns:
        numbers of zeros: ``black`` (a pixel is zero in all examples), ``pairs`` (an input is zero on all examples on
        which the unit counts), ``dependent`` (the inputs left span less), ``scaling`` (one for each unit that counts),
        ``undone`` (by the next layer, in other ways), ``shifts`` (softmax), and ``examples``, what the last bound
        leaves beyond these.
    """
    layers, n, c = live_units(risk), risk.num_examples, risk.num_outputs
    black = int((~risk.batches[0][0].any(0)).sum()) * layers[0]["counts"].shape[1]
    found = {"black": black, "pairs": -black, "dependent": 0, "scaling": 0, "undone": 0}
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        for j, unit in enumerate(layer["counts"].T):
            part = layer["inputs"][unit]
            dead = int((~part.any(0)).sum())
            found["pairs"] += dead
            if len(part):
                found["dependent"] += part.shape[1] - dead - int(torch.linalg.matrix_rank(part))
            if len(part) and following:
                found["scaling"] += 1
                found["undone"] += undone(layer, following, j) - 1
    found["shifts"] = int(torch.linalg.matrix_rank(layers[-1]["inputs"]))
    return found | {"examples": max(0, risk.num_parameters - sum(found.values()) - n * (c - 1))}


def unweighted(risk: EmpiricalRisk) -> EmpiricalRisk:
    """The same network under the squared error of its centred outputs: its G has the zeros that structure makes.

    G under cross-entropy weighs each example by its probabilities, and fitted examples fall below rounding. Here all
    weigh alike, and the shifts of the softmax stay zeros.
    """
    x, y = risk.batches[0]
    centred = lambda f, t: (f - f.mean(1, keepdim=True)).square().sum(1).mean() / 2
    return EmpiricalRisk(risk.model, x, y, centred).at(risk.vector)


def true_against_rest(risk: EmpiricalRisk) -> tuple[Tensor, Tensor]:
    """Two parts of G under cross-entropy, (M, M) each: the true class against the rest, and within the rest.

    With q_n the probabilities of the other classes among themselves, A_n = p_y (1 - p_y) (e_y - q)(e_y - q)' +
    (1 - p_y) (diag q - q q'): the first has rank one for each example (Korbit and Zanon 2026).
    """
    x, y = risk.batches[0]
    j = jacobian(risk, progress=False)  # (N, C, M)
    p = risk.outputs(risk.parameters, x).detach().softmax(1)
    own = F.one_hot(y, p.shape[1]).to(p)
    right = (p * own).sum(1)
    rest = (p * (1 - own)).sum(1)  # not 1 - right, which loses digits
    q = p * (1 - own) / rest[:, None]
    margin = torch.einsum("nc,ncm->nm", own - q, j) * (right * rest / len(x)).sqrt()[:, None]
    spread = (j - torch.einsum("nc,ncm->nm", q, j)[:, None]) * (q * rest[:, None] / len(x)).sqrt()[..., None]
    spread = spread.flatten(0, 1)
    return margin.T @ margin, spread.T @ spread


def spacing_ratios(values: np.ndarray, floor: float = 1e-10, leading: int = 10) -> np.ndarray:
    """Smaller over larger of neighbouring spacings in the nonzero bulk, on either side of zero apart.

    Args:
        values: ascending eigenvalues.
        floor: what is below this share of the largest counts as zero.
        leading: so many at either end are left out.
    """
    size = np.abs(values).max()
    sides = values[values > floor * size], values[values < -floor * size][::-1]
    found = []
    for side in sides:
        gaps = np.abs(np.diff(side[: len(side) - leading] if len(side) > leading else side[:0]))
        if len(gaps) > 1:
            found.append(np.minimum(gaps[1:], gaps[:-1]) / np.maximum(np.maximum(gaps[1:], gaps[:-1]), 1e-300))
    return np.concatenate(found) if found else np.zeros(0)


def parts_at(risk: EmpiricalRisk) -> dict[str, np.ndarray | float]:
    """Of one moment of a run: G, its two parts and H, by trace, norms, leading eigenvalues and ratios of spacings.

    Returns:
        ``share`` of the true class against the rest in the trace of G; ``norm_X`` and ``top_X`` (400 leading
        eigenvalues) of ``G``, ``true``, ``rest``, ``H``, ``R`` = H - G, and ``left`` = H - ``true``; and of G and H the
        mean (``spacing_X``), number (``number_X``) and histogram (``histogram_X``) of the ratios of spacings.
    """
    own, rest = true_against_rest(risk)
    h = risk.hessian().to_dense()
    matrices = {"G": own + rest, "true": own, "rest": rest, "H": h, "R": h - own - rest, "left": h - own}
    values = {k: torch.linalg.eigvalsh(v).numpy() for k, v in matrices.items()}
    found: dict[str, np.ndarray | float] = {"share": float(own.trace() / matrices["G"].trace())}
    for k, v in values.items():
        found |= {f"norm_{k}": np.abs(v).max(), f"top_{k}": v[::-1][:400]}
    for k in ("G", "H"):
        ratios = spacing_ratios(values[k])
        found |= {f"spacing_{k}": ratios.mean() if len(ratios) else np.nan, f"number_{k}": len(ratios)}
        found[f"histogram_{k}"] = np.histogram(ratios, np.linspace(0, 1, 11))[0]
    return found
