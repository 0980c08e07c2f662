"""The networks of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "softplus": nn.Softplus, "gelu": nn.GELU}


def fully_connected(
    sizes: Sequence[int], *, activation: str = "relu", scale: float | None = None, seed: int
) -> nn.Sequential:
    """Linear layers with an activation between them, in float64.

    Args:
        sizes: widths from the input to the output, e.g. ``[784, 6, 12, 10]``.
        activation: ``"relu"``, ``"tanh"``, ``"softplus"`` or ``"gelu"``.
        scale: standard deviation of normal weights and biases; None draws weights and biases
            uniformly within 1/sqrt(fan_in), PyTorch's default.
        seed: of the random start.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)}: give at least input and output width, all positive")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is unknown: give one of {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [
            nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=torch.float64),
            ACTIVATIONS[activation](),
        ]
    model = nn.Sequential(*layers[:-1])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model[::2]:
            for p in (layer.weight, layer.bias):
                if scale is None:
                    p.uniform_(-(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)
                else:
                    p.normal_(0, scale, generator=generator)
    return model
