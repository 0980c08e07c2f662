"""Small problems with a readable name each, shared by the curvature tests, and their plain reference."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, hessian
from torch.nn import functional as F

LOSSES = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}


@dataclass
class Case:
    name: str
    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor
    loss: str = "cross_entropy"


def mlp(*sizes, activation=nn.ReLU, bias=True):
    layers = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(a, b, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


class Functional(nn.Module):
    """A chain written with functions, as users write it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Skip(nn.Module):
    """Not a chain: the closed form must not be used for all of it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.softplus(self.first(x))
        return self.third(x + torch.tanh(self.second(x)))


class Twice(nn.Module):
    """One layer used twice: its parameters are shared."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3),
    )  # fmt: skip


def relu_conv():
    """Convolutions for which the closed form applies, with most of the options there are."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2), nn.LeakyReLU(0.2),
        nn.Conv2d(3, 2, 3, padding=2, dilation=2, bias=False), nn.ReLU(), nn.MaxPool2d(2, padding=1),
        nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3),
    )  # fmt: skip


def make_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(7)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    labels = lambda n: torch.randint(3, (n,), generator=generator)
    torch.manual_seed(3)
    cases = []
    for activation in (nn.ReLU, nn.Tanh, nn.Softplus, nn.GELU):
        for sizes in ((5, 3), (5, 4, 3), (5, 4, 6, 3), (3, 8, 2, 4, 3)):
            model = mlp(*sizes, activation=activation).double()
            cases.append(
                Case(
                    f"{activation.__name__}-{'-'.join(map(str, sizes))}",
                    model,
                    normal(11, sizes[0]),
                    labels(11),
                )
            )
    cases += [
        Case("no-bias", mlp(5, 4, 3, bias=False).double(), normal(9, 5), labels(9)),
        Case("mse", mlp(5, 4, 4, 3, activation=nn.Tanh).double(), normal(9, 5), normal(9, 3), "mse"),
        Case(
            "output-activation",
            nn.Sequential(mlp(5, 4, 3), nn.Sigmoid()).double(),
            normal(9, 5),
            normal(9, 3),
            "mse",
        ),
        Case("functional", Functional().double(), normal(9, 5), labels(9)),
        Case("skip", Skip().double(), normal(9, 5), labels(9)),
        Case("shared", Twice().double(), normal(9, 4), labels(9)),
        Case("flatten", nn.Sequential(nn.Flatten(), mlp(6, 4, 3)).double(), normal(9, 2, 3), labels(9)),
        Case("convolution", conv().double(), normal(6, 1, 8, 8), labels(6)),
        Case("relu-convolution", relu_conv().double(), normal(6, 1, 8, 8), labels(6)),
    ]
    return cases


CASES = make_cases()


def reference(model, inputs, targets, loss="cross_entropy"):
    """The Hessian by torch.func.hessian over the flattened parameters."""
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def scalar(w):
        values = {n: part.view_as(p) for (n, p), part in zip(named.items(), w.split(sizes))}
        return LOSSES[loss](functional_call(model, values, (inputs,)), targets)

    return hessian(scalar)(torch.cat([p.detach().reshape(-1) for p in named.values()]))


def distance(a, b):
    """Largest difference relative to the largest entry."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return float((a - b).abs().max() / b.abs().max())
