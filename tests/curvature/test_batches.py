"""A batch too large for the memory budget goes through the model in parts, and no number changes."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from hesslib import EmpiricalRisk, top_eigenpairs, trace
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


class Masked(nn.Module):
    """Examples mix, and one class is shut out by a constant beside which the other outputs are small."""

    def __init__(self, constant):
        super().__init__()
        self.body, self.constant = Mixing(zero=False), constant

    def forward(self, x):
        return self.body(x).masked_fill(torch.tensor([False, False, True]), self.constant)


class Clipped(nn.Module):
    """Examples mix only where their outputs together are large."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        h = self.layer(x)
        return h / (h.norm() / 50).clamp_min(1)


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


def budget_for(risk, examples):
    """Let so many examples through at a time, if they take more than a vector of M numbers."""
    assert risk.bytes_per_example * examples > 8 * risk.num_parameters
    risk.memory_budget = 4 * 8 * risk.num_parameters + examples * risk.bytes_per_example


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
    elif name.startswith("masked"):
        model, y = Masked({"masked": -1e12, "masked by infinity": -torch.inf}[name]), torch.arange(N) % 2
    elif name == "flooding":
        loss, y = lambda f, y: (nn.functional.mse_loss(f, y) - 1.2).abs() + 1.2, torch.randn(N, 3).double()
    elif name == "no convolution yet":
        norm = nn.BatchNorm1d(2, affine=False, track_running_stats=False)
        model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Tanh(), norm, nn.Conv1d(2, 9, 3), nn.Flatten())
        x = x[:, None]
        nn.init.zeros_(model[3].weight), nn.init.zeros_(model[3].bias)
    elif name == "mixing":
        model = Mixing(zero=False)
    elif name == "mixing, zero outputs":
        model = Mixing(zero=True)
    return EmpiricalRisk(Watched(model).double(), x, y, loss, **options)


WHOLE = ["variance", "mixing", "mixing, zero outputs", "masked", "masked by infinity", "flooding", "no convolution yet"]
SPLIT = ["plain", "convolution", "language", "ignored", "weights", "binary", "huber", "sum"]


@pytest.mark.parametrize("name", SPLIT + WHOLE)
def test_parts_change_no_number(name):
    one, many = case(name), case(name)
    budget_for(many, 3)
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
    budget_for(risk, 2)
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


def test_whether_examples_mix_is_asked_at_each_point():
    torch.manual_seed(0)
    x, y = torch.randn(N, 4).double(), torch.arange(N) % 3
    risk = EmpiricalRisk(Clipped().double(), x, y)
    risk.memory_budget = 1
    assert len(list(risk.weighted_batches())) > 1
    far = risk.at(100 * risk.vector)
    assert len(list(far.weighted_batches())) == 1
    whole = EmpiricalRisk(Clipped().double(), x, y).at(100 * risk.vector)
    assert distance(far.gradient(), whole.gradient()) < 1e-14


def test_parts_without_a_weight_count_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)).double()
    x, y = torch.randn(6, 1, 4, 4).double(), torch.tensor([0, 0, 0, 1, 2, 1])
    op = EmpiricalRisk(model, x, y, nn.CrossEntropyLoss(torch.tensor([0.0, 1, 2]).double())).ggn()
    exact = float(op.to_dense().trace())
    for budget in (1, 3e3, 1e9):
        op.memory_budget = budget
        assert abs(trace(op).value / exact - 1) < 1e-12


class Force(nn.Module):
    """A derivative in the inputs, by torch.func, which no hook on saved tensors can be beside."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x):
        return vmap(grad(lambda one: self.net(one).sum()))(x)


def test_models_whose_memory_cannot_be_watched():
    torch.manual_seed(0)
    x, y = torch.randn(N, 4).double(), torch.randn(N, 4).double()
    for model in (Force().double(), Sparse(N).double()):
        one, many = EmpiricalRisk(model, x, y, "mse"), EmpiricalRisk(model, x, y, "mse")
        many.memory_budget = 1
        v = one.vector.cos()
        assert distance(many.hessian() @ v, one.hessian() @ v) < 1e-13


class Sparse(nn.Module):
    """Each example's neighbours by a sparse matrix: examples mix."""

    def __init__(self, size):
        super().__init__()
        ring = torch.eye(size).roll(1, 0) + torch.eye(size)
        self.layer, self.edges = nn.Linear(4, 4), ring.double().to_sparse()

    def forward(self, x):
        return torch.sparse.mm(self.edges, torch.tanh(self.layer(x)))
