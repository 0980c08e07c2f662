"""Small relatives of today's networks: residual networks and transformers, their Hessians by parts and by layers."""

from __future__ import annotations

import codecs
import contextlib
import copy
import importlib
import io
import re
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..curvature.density import spectral_density
from ..curvature.ggn import ggn_spectrum
from ..curvature.jacobian import jacobian_chunks
from ..curvature.risk import EmpiricalRisk
from .data import mnist
from .landscape import barrier
from .models import fully_connected
from .training import batches_of

NETWORKS = ("residual", "normalised", "vision", "language")
STEP = {"SGD": 0.03, "AdamW": 0.01}
CONTEXT = 16  # characters that the language model reads


class Places(nn.Conv2d):
    """A padded 3 x 3 convolution of maps of 4 by 4 as one matrix product: most taps fall on the padding."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, channels, 4, 4) to the same."""
        padded = F.pad(self.weight, (2, 2, 2, 2))
        at = [slice(3 - i, 7 - i) for i in range(4)]  # the taps that output place i has on the map
        weight = torch.stack([padded[:, :, rows, columns] for rows in at for columns in at], 1)
        out = F.linear(x.flatten(1), weight.reshape(16 * self.out_channels, -1))
        return out.view(-1, self.out_channels, 4, 4) + self.bias[:, None, None]


class Residual(nn.Module):
    """A residual network for digits of 12 by 12 pixels: patches of 3 by 3, two blocks, and a mean over places.

    Args:
        channels: of every convolution but the first.
        normalised: batch normalisation after each convolution of a block.
    """

    def __init__(self, channels: int, *, normalised: bool) -> None:
        super().__init__()
        self.stem, self.out = nn.Linear(9, channels), nn.Linear(channels, 10)
        self.convolutions = nn.ModuleList(Places(channels) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) if normalised else nn.Identity() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Patches (n, 16, 9) of digits to outputs (n, 10)."""
        x = self.stem(x).transpose(1, 2).unflatten(2, (4, 4))
        for i in (0, 2):
            inner = self.norms[i](self.convolutions[i](x)).relu()
            x = (x + self.norms[i + 1](self.convolutions[i + 1](inner))).relu()
        return self.out(x.mean((2, 3)))


class Block(nn.Module):
    """A block of a transformer, normalised before attention and before its two layers with GELU."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.before, self.between = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """Tokens (n, T, width) to the same; ``hidden`` (T, T) marks what a token must not see."""
        y = self.before(x)
        q, k, v = (
            part(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -1e9)
        x = x + self.mix((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Transformer(nn.Module):
    """A transformer that reads tokens: patches of a digit, with one output, or characters, with one for each.

    Args:
        embed: makes tokens (n, T, width) of the inputs.
        width, blocks, length: of the tokens, number of blocks, most tokens.
        classes: number of outputs C.
        causal: a token sees those before it, and each has its outputs; else the mean of the tokens has them.
    """

    def __init__(self, embed: nn.Module, width: int, blocks: int, length: int, classes: int, *, causal: bool) -> None:
        super().__init__()
        self.embed, self.causal = embed, causal
        self.place = nn.Parameter(0.1 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.last, self.out = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, C), or (n, T, C) if causal."""
        x = self.embed(x) + self.place
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        for block in self.blocks:
            x = block(x, hidden)
        x = self.last(x)
        return self.out(x if self.causal else x.mean(1))


def patches(digits: Tensor, size: int) -> Tensor:
    """Patches (n, k * k, size * size) of digits (n, 1, 12, 12), k = 12 / size."""
    shape = (12 // size, size)
    return digits.unflatten(3, shape).unflatten(2, shape).permute(0, 1, 2, 4, 3, 5).reshape(len(digits), -1, size**2)


@cache
def zen() -> str:
    """The Zen of Python, which comes with Python as the module ``this``: small letters, and a space for all else."""
    with contextlib.redirect_stdout(io.StringIO()):
        text = codecs.decode(importlib.import_module("this").s, "rot13")
    return re.sub("[^a-z]+", " ", text.lower()).strip()


def data_of(network: str, examples: int, seed: int) -> tuple[Tensor, Tensor, int]:
    """Inputs, targets and the number of classes: digits, or pieces of the text with the next character for each."""
    if network == "language":
        text = zen()
        characters = sorted(set(text))
        code = torch.tensor([characters.index(c) for c in text])
        pieces = code.unfold(0, CONTEXT + 1, CONTEXT)
        pieces = pieces[torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))][:examples]
        return pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous(), len(characters)
    data = mnist(examples, seed=seed)
    x = F.avg_pool2d(data.inputs.view(-1, 1, 28, 28)[:, :, 2:26, 2:26], 2)
    x = (x - x.mean()) / x.std()
    return patches(x, 4 if network == "vision" else 3), data.targets, 10


def network_of(network: str, width: int, classes: int, seed: int) -> nn.Module:
    """One of ``NETWORKS`` at its random start, PyTorch's default for each layer; float64, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if network in ("residual", "normalised"):
            model = Residual(width, normalised=network == "normalised")  # type: nn.Module
        elif network == "vision":
            model = Transformer(nn.Linear(16, width), width, 2, 9, classes, causal=False)
        elif network == "language":
            model = Transformer(nn.Embedding(classes, width), width, 2, CONTEXT, classes, causal=True)
        else:
            raise ValueError(f"network={network!r} is unknown: give one of {', '.join(NETWORKS)}")
    return model.double()


def settle(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Put the model into evaluation mode, its batch normalisation at the mean and variance of all inputs."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the running values are then the averages of what was seen
    if norms:
        with torch.no_grad():
            model.train()(inputs)
    return model.eval()


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over examples, and over characters where each has its target."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def fit(
    model: nn.Module, data: tuple[Tensor, Tensor], optimizer: str, batch: int, iterations: int, seed: int
) -> nn.Module:
    """Train in place by ``"SGD"``, momentum 0.9, or ``"AdamW"`` with PyTorch's defaults; returns the model settled."""
    (x, y), step = data, STEP[optimizer]
    chosen = (
        torch.optim.SGD(model.parameters(), step, momentum=0.9)
        if optimizer == "SGD"
        else torch.optim.AdamW(model.parameters(), step)
    )
    order = batches_of(len(x), batch, torch.Generator().manual_seed(seed))
    model.train()
    for _ in range(iterations):
        part = next(order)
        chosen.zero_grad()
        cross_entropy(model(x[part]), y[part]).backward()
        chosen.step()
    return settle(model, x)


def gauss_newton(risk: EmpiricalRisk) -> Tensor:
    """The matrix G (M, M) of a mean cross-entropy, a chunk of examples at a time."""
    matrix, (x, _), start = torch.zeros(risk.num_parameters, risk.num_parameters).double(), risk.batches[0], 0
    p = risk.outputs(risk.parameters, x).detach().softmax(-1).unsqueeze(-1) / risk.num_targets
    for part in jacobian_chunks(risk, 2**28):
        share, start = p[start : start + len(part)], start + len(part)
        mean = (share * part).sum(-2, keepdim=True) * risk.num_targets
        rows = (share.sqrt() * (part - mean)).flatten(0, -2)
        matrix.addmm_(rows.T, rows)
    return matrix


def unlikeness(spectra: Sequence[np.ndarray], floor: float = 1e-6) -> float:
    """Mean Jensen-Shannon distance (base 2: 0 to 1) between the spectra of blocks, over all pairs of them.

    A spectrum is counted in half decades of the magnitude, for each sign, from ``floor`` times the largest magnitude in
    any block up to that magnitude; all that is below the floor counts in one bin.
    """
    largest, half = max(float(np.abs(v).max()) for v in spectra), -2 * np.log10(floor)
    counts = []
    for values in spectra:
        place = np.floor(2 * np.log10(np.maximum(np.abs(values) / largest, floor)) + half).clip(0, half)
        bins = np.where(np.abs(values) < floor * largest, 0, np.sign(values) * (place + 1)).astype(int) + int(half) + 1
        counts.append(np.bincount(bins, minlength=2 * int(half) + 3))
    return float(np.mean([jensenshannon(a, b, base=2) for a, b in combinations(counts, 2)]))


def trained(
    network: str, after: str, width: int, examples: int, iterations: int, seed: int
) -> tuple[Tensor, Tensor, int, nn.Module]:
    """Data, and a network settled at its start or ``after`` training by ``"SGD"`` or ``"AdamW"`` with small batches."""
    x, y, classes = data_of(network, examples, seed)
    model = network_of(network, width, classes, seed)
    if after == "start":
        return x, y, classes, settle(model, x)
    return x, y, classes, fit(model, (x, y), after, max(1, len(x) // 2), iterations, seed)


def spectra(network: str, after: str, width: int, examples: int, iterations: int, seed: int) -> dict[str, object]:
    """All eigenvalues of H and G, norms of H, G and R, and the blocks of H that belong to one matrix of weights.

    Args:
        network: one of ``NETWORKS``.
        after: ``"start"``, ``"SGD"`` or ``"AdamW"``.
        width: channels of the residual networks, width of the transformers.
        examples: digits, or pieces of ``CONTEXT`` characters.
        iterations: of training, each with half of the examples.
        seed: of the examples, the start and the order.

    Returns:
        loss, accuracy, classes; eigenvalues of H and ggn of G (ascending, float32), norms (H, G, R); blocks, sizes and
        block_eigenvalues (one block after the other), norm of what is in these blocks, and their unlikeness.
    """
    x, y, classes, model = trained(network, after, width, examples, iterations, seed)
    risk = EmpiricalRisk(model, x, y)
    h, g = risk.hessian().to_dense(progress=False), gauss_newton(risk)
    with torch.no_grad():
        accuracy = float((model(x).argmax(-1) == y).double().mean())
    weights = [name for name, p in risk.parameters.items() if name.endswith("weight") and p.ndim > 1]
    inner = [h[risk.places[name], risk.places[name]] for name in weights]
    values = [torch.linalg.eigvalsh(block).numpy() for block in inner]
    return {
        "loss": risk.loss(),
        "accuracy": accuracy,
        "classes": classes,
        "targets": risk.num_targets,
        "eigenvalues": torch.linalg.eigvalsh(h).numpy().astype(np.float32),
        "ggn": torch.linalg.eigvalsh(g).numpy().astype(np.float32),
        "norms": [float(m.norm()) for m in (h, g, h - g)],
        "overlap": float((g * (h - g)).sum() / g.norm() / (h - g).norm()),
        "blocks": weights,
        "sizes": [len(v) for v in values],
        "block_eigenvalues": np.concatenate(values).astype(np.float32),
        "inner_norm": float(torch.stack([block.norm() for block in inner]).norm()),
        "unlikeness": unlikeness(values),
    }


def larger(network: str, after: str, width: int, examples: int, iterations: int, seed: int) -> dict[str, object]:
    """All eigenvalues of G other than zero, of networks whose H would take too long; arguments as of ``spectra``."""
    x, y, classes, model = trained(network, after, width, examples, iterations, seed)
    risk = EmpiricalRisk(model, x, y)
    found = ggn_spectrum(risk.ggn(), progress=False)
    return {
        "loss": risk.loss(),
        "classes": classes,
        "parameters": risk.num_parameters,
        "ggn": found.eigenvalues[-1000:].astype(np.float32),
        "certificate": max(found.certificates.values()),
    }


def densities(network: str, after: str, width: int, examples: int, iterations: int, seed: int) -> dict[str, object]:
    """Spectral density of H of the networks of ``larger``, by Lanczos quadrature; arguments as of ``spectra``.

    Returns:
        loss, classes, parameters; largest and lowest Ritz value of H; bulk and negatives (2,): share of the eigenvalues
        within a thousandth of the largest, and below minus that, each with its error; grid in units of the largest, and
        density (2, grid), Gaussians of a hundredth of the largest, with its standard error.
    """
    x, y, classes, model = trained(network, after, width, examples, iterations, seed)
    risk = EmpiricalRisk(model, x, y)
    found = spectral_density(risk.hessian(), probes=6, steps=160, seed=seed, progress=False)
    largest, grid = float(found.nodes.max()), np.linspace(-1, 1.1, 421)
    return {
        "loss": risk.loss(),
        "classes": classes,
        "parameters": risk.num_parameters,
        "largest": largest,
        "lowest": float(found.nodes.min()),
        "bulk": found.fraction(-largest / 1000, largest / 1000),
        "negatives": found.negative_fraction(largest / 1000),
        "grid": grid,
        "density": np.array(found.density(grid * largest, largest / 100)) * largest,
    }


def joined(network: str, optimizer: str, width: int, examples: int, iterations: int, seed: int) -> dict[str, object]:
    """Lines from a network trained with all examples a step to two trained with a fifth of them a step.

    The first of the two goes on from where the large batch ended, the second starts where it started. At each position
    on the line batch normalisation takes the mean and variance of all examples anew.

    Returns:
        positions; losses (2, positions), barriers (2,), and distances (2,) of the ends over the norm of the first end.
    """
    x, y, classes = data_of(network, examples, seed)
    start = network_of(network, width, classes, seed)
    small = max(1, len(x) // 5)
    large = fit(copy.deepcopy(start), (x, y), optimizer, len(x), iterations, seed)
    ends = [fit(copy.deepcopy(m), (x, y), optimizer, small, iterations, seed + 1) for m in (large, start)]
    vector = lambda m: parameters_to_vector(m.parameters()).detach()
    positions, model, losses = np.linspace(0, 1, 21), copy.deepcopy(large), []
    for end in ends:
        for t in positions:
            vector_to_parameters((1 - t) * vector(large) + t * vector(end), model.parameters())
            with torch.no_grad():
                losses.append(float(cross_entropy(settle(model, x)(x), y)))
    lines = [losses[:21], losses[21:]]
    return {
        "positions": positions,
        "losses": lines,
        "barriers": [barrier(list(positions), line) for line in lines],
        "distances": [float((vector(end) - vector(large)).norm() / vector(large).norm()) for end in ends],
        "classes": classes,
    }


def by_class(features: Tensor, probabilities: Tensor, most: int = 40) -> float:
    """Mean norm of the blocks between the weights into two outputs, over that of the blocks of one output.

    Of the mean cross-entropy of a linear layer, whose block (c, d) is 1/N sum (delta_cd p_c - p_c p_d) x x'. Where
    there are more than ``most`` classes, for the first of them.
    """
    p = probabilities[:, :most]
    kernel = (features @ features.T) ** 2
    norm = lambda w: ((w @ kernel) * w).sum(-1).clamp_min(0).sqrt()
    same = norm((p * (1 - p)).T).mean()
    return float(torch.stack([norm(p[:, i] * p[:, j]) for i, j in combinations(range(p.shape[1]), 2)]).mean() / same)


def class_blocks(classes: int, hidden: int, dimension: int, examples: int, seed: int) -> dict[str, float]:
    """Norms of blocks off the diagonal over those on it, means over the blocks, on Gaussian inputs at the start.

    Returns:
        ``linear``: weights into each output, of a linear network; ``output``: the same of a network with one hidden
        layer; ``hidden``: weights into each hidden unit of that network.
    """
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, dimension, generator=draw, dtype=torch.float64)
    y = torch.randint(classes, (examples,), generator=draw)
    line = fully_connected([dimension, classes], seed=seed)
    model = fully_connected([dimension, hidden, classes], seed=seed)
    with torch.no_grad():
        found = {"linear": by_class(x, line(x).softmax(1))}
        found["output"] = by_class(model[1](model[0](x)), model(x).softmax(1))
    op = EmpiricalRisk(model, x, y, parameters=["0.weight"]).hessian()
    matrix = op.product(torch.eye(op.shape[0], dtype=torch.float64))
    norms = matrix.view(hidden, dimension, hidden, dimension).square().sum((1, 3)).sqrt()
    same = norms.diagonal()
    found["hidden"] = float((norms.sum() - same.sum()) / (hidden - 1) / same.sum())
    return found
