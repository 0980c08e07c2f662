"""A batch too large for the memory budget goes through the model in parts, and no number changes."""

import pytest
import torch
from torch import nn

from hesslib import EmpiricalRisk, top_eigenpairs
from tests.curvature.cases import distance

N = 11
seen = []  # numbers of examples that a model was given


class Watched(nn.Module):
    """A model that notes how many examples it is given."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x, *others):
        seen.append(len(x))
        return self.body(x, *others)


class Mixing(nn.Module):
    """Examples are compared with the mean of their batch; the last layer may be zero."""

    def __init__(self, zero):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        if zero:
            nn.init.zeros_(self.last.weight), nn.init.zeros_(self.last.bias)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h - h.mean(0))


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.mix = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)

    def forward(self, tokens):
        return self.head(self.mix(self.embed(tokens)))


def variance(f, y):
    """Each example's outputs against the mean of its batch."""
    return (f - f.mean(0)).square().mean() ** 2


def case(name):
    """A risk whose examples are all in one batch."""
    torch.manual_seed(0)
    labels, options = torch.arange(N) % 3, {}
    mlp = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y, loss, model = torch.randn(N, 4).double(), labels, "cross_entropy", mlp
    if name == "convolution":
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(8, 3))
        x = torch.randn(N, 1, 4, 4).double()
    elif name == "language":
        model, x = Language(), torch.randint(0, 7, (N, 5))
        y = x.roll(-1, 1).masked_fill(torch.rand(N, 5) < 0.4, -100)
    elif name == "ignored":
        y = labels.where(torch.arange(N) > 5, torch.tensor(-100))
    elif name == "weights":
        loss = nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0]).double())
    elif name == "binary":
        loss, y = "binary_cross_entropy", torch.rand(N, 3).double()
    elif name == "huber":
        loss, y = nn.HuberLoss(), torch.randn(N, 3).double()
    elif name == "sum":
        y, loss, options = torch.randn(N, 3).double(), "mse", {"reduction": "sum"}
    elif name == "variance":
        loss = variance
    elif name == "mixing":
        model = Mixing(zero=False)
    elif name == "mixing, zero outputs":
        model = Mixing(zero=True)
    return EmpiricalRisk(Watched(model).double(), x, y, loss, **options)


WHOLE = ["variance", "mixing", "mixing, zero outputs"]
SPLIT = ["plain", "convolution", "language", "ignored", "weights", "binary", "huber", "sum"]


@pytest.mark.parametrize("name", SPLIT + WHOLE)
def test_parts_change_no_number(name):
    one, many = case(name), case(name)
    many.memory_budget = 4 * many.num_parameters * 8 + 3 * many.bytes_per_example  # three examples at a time
    v = torch.randn(one.num_parameters, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kinds = [lambda r: r.hessian(), lambda r: r.ggn(), lambda r: r.residual()]
    for make in kinds:
        a, b = make(one), make(many)
        assert distance(b._autograd_product(v.T), a._autograd_product(v.T)) < 1e-13
        assert distance(b @ v, a @ v) < 1e-13
    assert distance(many.gradient(), one.gradient()) < 1e-13 and abs(many.loss() / one.loss() - 1) < 1e-14
    sizes = [len(y) for _, _, y in many.weighted_batches()]
    if name in WHOLE:
        assert sizes == [N]
    else:
        assert len(sizes) > 1 and max(sizes) <= 3


def test_no_more_examples_go_through_a_product_than_the_budget_allows():
    risk = case("convolution")
    risk.memory_budget = 4 * risk.num_parameters * 8 + 2 * risk.bytes_per_example
    op = risk.hessian()
    op.certify()
    seen.clear()
    top_eigenpairs(op, 2)
    assert seen and max(seen) == 2 and op.chunk == 1


def test_the_budget_belongs_to_the_risk():
    risk = case("plain")
    op, other = risk.hessian(), risk.ggn()
    op.memory_budget = 12345
    assert other.memory_budget == risk.memory_budget == 12345
    with pytest.raises(ValueError, match="memory_budget=0"):
        op.memory_budget = 0
