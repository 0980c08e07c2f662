"""The networks of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._checks import positive, whole

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
    if len(sizes) < 2:
        raise ValueError(f"sizes={list(sizes)}: give at least input and output width")
    whole(1, **{f"sizes={list(sizes)}, entry {i}": width for i, width in enumerate(sizes)})
    whole(0, seed=seed)
    if scale is not None:
        positive(scale=scale)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is unknown: give one of {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [
            nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=torch.float64),
            ACTIVATIONS[activation](),
        ]
    model = nn.Sequential(*layers[:-1])
    return draw(model, seed, scale)


def draw(model: nn.Module, seed: int, scale: float | None = None) -> nn.Module:
    """Draw weights and biases of all linear and convolutional layers anew, in place; returns the model.

    They are normal with deviation ``scale``, or uniform within 1/sqrt(fan_in), PyTorch's default.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = layer.weight[0].numel() ** -0.5
                for p in (layer.weight, layer.bias):
                    if scale is None:
                        p.uniform_(-bound, bound, generator=generator)
                    else:
                        p.normal_(0, scale, generator=generator)
    return model


def convolutional(filters: Sequence[int] = (8, 16), hidden: int = 32, classes: int = 10, *, seed: int) -> nn.Sequential:
    """Two 5 x 5 convolutions, each with ReLU and max-pooling, then two Linear layers; float64 (Section 3.3).

    Takes digits (n, 1, 28, 28). The default has 11,978 parameters.
    """
    if len(filters) != 2 or min(*filters, hidden, classes) < 1:
        raise ValueError(
            f"filters={filters}, hidden={hidden}, classes={classes}: give two filter numbers, all positive"
        )
    a, b = filters
    model = nn.Sequential(
        nn.Conv2d(1, a, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * b, hidden), nn.ReLU(), nn.Linear(hidden, classes),
    ).double()  # fmt: skip
    return draw(model, seed)


MANY = 256  # examples from which on another layout of maps and weights is faster


def channels_last(x: Tensor) -> Tensor:
    """Many images (n, c, h, w) in the order of memory that poolings take ten times faster, few as they are."""
    return x.contiguous(memory_format=torch.channels_last) if len(x) >= MANY else x


class SmallMap(nn.Conv2d):
    """A padded convolution whose maps are hardly larger than its kernel, for many examples as one matrix product.

    Most taps fall on the padding there, so that the usual way computes about twice what is needed; laying
    out the weights costs more than that on few examples.
    """

    def __init__(self, fan_in: int, fan_out: int, kernel: int) -> None:
        super().__init__(fan_in, fan_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Square maps (n, fan_in, s, s) to (n, fan_out, s, s)."""
        if len(x) < MANY:
            return super().forward(x)
        side, taps = x.shape[-1], self.kernel_size[0] ** 2
        # the weights are laid out for maps in the order of `channels_last`
        weight = F.pad(self.weight.permute(2, 3, 0, 1).reshape(taps, -1), [0, 0, 0, 1])  # a tap of zeros at the end
        weight = weight.index_select(0, self.tap(side).flatten().to(x.device))
        weight = weight.view(side**2, side**2, self.out_channels, self.in_channels).transpose(1, 2)
        bias = self.bias.repeat(side**2)
        out = F.linear(x.permute(0, 2, 3, 1).flatten(1), weight.reshape(len(bias), -1), bias)
        return out.view(-1, side, side, self.out_channels).permute(0, 3, 1, 2)

    def tap(self, side: int) -> Tensor:
        """The tap that joins each output place (rows) to each input place; for none, the number of taps."""
        kernel, place = self.kernel_size[0], torch.arange(side)
        tap = place[None, :] - place[:, None] + self.padding[0]
        within = (tap >= 0) & (tap < kernel)
        both = tap[:, None, :, None] * kernel + tap[None, :, None, :]
        seen = within[:, None, :, None] & within[None, :, None, :]
        return torch.where(seen, both, kernel**2).reshape(side**2, side**2)


def alexnet(width: int = 64, classes: int = 10, *, seed: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """The common CIFAR-10 variant of AlexNet, bare: no dropout, no normalisation (Section 4.1).

    Takes images (n, 3, 32, 32). Five convolutions of width, 3 width, 6 width, 4 width and 4 width filters, three
    max-poolings and one Linear layer: 2,472,266 parameters at width 64.
    """
    whole(1, width=width)
    whole(2, classes=classes)
    w = width
    model = nn.Sequential(
        nn.Conv2d(3, w, 11, stride=4, padding=5), nn.ReLU(), nn.MaxPool2d(2),
        SmallMap(w, 3 * w, 5), nn.ReLU(), nn.MaxPool2d(2),
        SmallMap(3 * w, 6 * w, 3), nn.ReLU(), SmallMap(6 * w, 4 * w, 3), nn.ReLU(), SmallMap(4 * w, 4 * w, 3),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * w, classes),
    ).to(dtype)  # fmt: skip
    return draw(model, seed)


class MixedPrecision(nn.Module):
    """A float32 network whose products are taken in bfloat16 and summed in float32; its outputs are float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs (n, C)."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(channels_last(x)).float()
