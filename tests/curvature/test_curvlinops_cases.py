"""The problems on which curvlinops tests its operators (its ``test/cases.py``), restated: each is right or refused.

A row is (name, model, loss, batches, refusals): the loss by our name or as a callable, how the batches are drawn, and
for H, G and the empirical Fisher matrix the sentence with which it is refused, if it is.
"""

from collections import UserDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hesslib import EmpiricalRisk
from tests.curvature.cases import distance
from tests.curvature.test_table import exact_hessian

KINDS = ("hessian", "ggn", "fisher")
TOKENS = {"fisher": r"of a callable loss it needs outputs \(N, C\) and a mean over examples"}


def draw(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def classes(count):
    return lambda *shape: torch.randint(count, shape)


def soft(*shape):  # targets of a binary classification need not be 0 or 1
    return torch.rand(*shape, dtype=torch.float64)


def two_layers(inputs, outputs):
    return lambda: nn.Sequential(nn.Linear(inputs, 5), nn.ReLU(), nn.Linear(5, outputs))


class ClassesSecond(nn.Module):
    """Outputs (N, C, T), as torch.nn.CrossEntropyLoss wants them."""

    def __init__(self):
        super().__init__()
        self.net = two_layers(10, 3)()

    def forward(self, x):
        return self.net(x).movedim(-1, 1)


class Keyed(nn.Module):
    """Takes a mapping as its one argument."""

    def __init__(self, outputs):
        super().__init__()
        self.net = two_layers(10, outputs)()

    def forward(self, data):
        return self.net(data["x"])


def convolutions():
    """With a third of the channels, for the sake of the oracle's time."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


def batches(inputs, targets, *sizes, shape=()):
    """Random batches of the given sizes; inputs have their shape, targets are drawn for theirs."""
    return lambda: [(draw(n, *inputs), targets(n, *shape)) for n in sizes]


BCE, MSE, CE = nn.BCEWithLogitsLoss, nn.MSELoss, nn.CrossEntropyLoss
VECTORS, SEQUENCES = batches((10,), classes(3), 3, 4), batches((5, 10), classes(3), 3, 4, shape=(5,))
BINARY, BINARY_SEQUENCES = batches((10,), soft, 3, 4, shape=(2,)), batches((5, 10), soft, 3, 4, shape=(5, 2))
SERIES = batches((5, 8), draw, 2, 6, shape=(5, 3))
CASES = [
    ("classes", two_layers(10, 3), "cross_entropy", VECTORS, {}),
    ("classes, by a callable", two_layers(10, 3), CE(), VECTORS, {}),
    ("classes, sum", two_layers(10, 3), CE(reduction="sum"), VECTORS, {}),
    ("binary, one output", two_layers(10, 1), BCE(), batches((10,), soft, 3, 4, shape=(1,)), {}),
    ("binary, two outputs", two_layers(10, 2), BCE(), BINARY, {}),
    ("binary, two outputs, sum", two_layers(10, 2), BCE(reduction="sum"), BINARY, {}),
    ("binary, by name", two_layers(10, 2), "binary_cross_entropy", BINARY, {}),
    ("binary sequences, by name", two_layers(10, 2), "binary_cross_entropy", BINARY_SEQUENCES, {}),
    ("regression", two_layers(8, 3), "mse", batches((8,), draw, 2, 6, shape=(3,)), {}),
    ("regression, by a callable", two_layers(8, 3), MSE(), batches((8,), draw, 2, 6, shape=(3,)), {}),
    ("regression, sum", two_layers(8, 3), MSE(reduction="sum"), batches((8,), draw, 2, 6, shape=(3,)), {}),
    ("keyed, classes", lambda: Keyed(2), "cross_entropy", batches((10,), classes(2), 3, 4), {}),
    ("keyed, binary", lambda: Keyed(1), BCE(), batches((10,), soft, 3, 4, shape=(1,)), {}),
    ("keyed, regression", lambda: Keyed(2), "mse", batches((10,), draw, 3, 4, shape=(2,)), {}),
    ("sequences of classes", two_layers(10, 3), "cross_entropy", SEQUENCES, {}),
    ("sequences of classes, second", ClassesSecond, "cross_entropy", SEQUENCES, {}),
    ("sequences of classes, by a callable", ClassesSecond, CE(), SEQUENCES, TOKENS),
    ("sequences of classes, sum", ClassesSecond, CE(reduction="sum"), SEQUENCES, TOKENS),
    ("binary sequences", two_layers(10, 2), BCE(), BINARY_SEQUENCES, TOKENS),
    ("binary sequences, sum", two_layers(10, 2), BCE(reduction="sum"), BINARY_SEQUENCES, TOKENS),
    ("sequences, regression", two_layers(8, 3), "mse", SERIES, {}),
    ("sequences, regression, sum", two_layers(8, 3), MSE(reduction="sum"), SERIES, TOKENS),
    ("convolutions", convolutions, "cross_entropy", batches((1, 28, 28), classes(10), 5, 5), {}),
]  # fmt: skip
BY_NAME = {"cross_entropy": CE(), "mse": MSE(), "binary_cross_entropy": BCE()}


def problem(name, make, data):
    torch.manual_seed(0)
    model, pairs = make().double(), data()
    wrap = (lambda x: {"data": {"x": x}}) if name.startswith("keyed") else lambda x: x
    return model, [(wrap(x), y) for x, y in pairs], (torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))


def operator(risk, kind):
    return {"hessian": risk.hessian, "ggn": risk.ggn, "fisher": lambda: risk.ggn("probability")}[kind]()


def oracle(kind, model, x, y, loss, second):
    """The matrix from its definition, of the loss over the whole set, by ``torch.autograd`` alone."""
    given = (lambda x: model({"x": x})) if isinstance(model, Keyed) else model
    if second and not isinstance(model, ClassesSecond) and y.ndim == 2:  # the loss wants the classes there
        given = lambda x: model(x).movedim(-1, 1)
    if kind == "hessian":
        return exact_hessian(_Parameters(model, given), x, y, loss)
    f = given(x)
    leaves = [p for p in model.parameters() if p.requires_grad]
    rows = [torch.autograd.grad(out, leaves, retain_graph=True, materialize_grads=True) for out in f.reshape(-1)]
    j = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    fixed = f.detach().reshape(-1)
    value = lambda u: loss(u.view_as(f), y)
    if kind == "ggn":
        return j.T @ torch.autograd.functional.hessian(value, fixed) @ j
    slopes = (torch.autograd.functional.jacobian(value, fixed)[:, None] * j).view(*f.shape, -1)
    if isinstance(loss, CE):  # the gradient of the loss of one target
        each = slopes.sum(1).reshape(y.numel(), -1)
    else:  # of one example
        each = slopes.view(len(y), -1, slopes.shape[-1]).sum(1)
    return each.T @ each * (len(each) if loss.reduction == "mean" else 1)


class _Parameters(nn.Module):
    """A function with the parameters of a model."""

    def __init__(self, model, given):
        super().__init__()
        self.model, self.given = model, given

    def forward(self, x):
        return self.given(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "make", "loss", "data", "refusals"), CASES, ids=[case[0] for case in CASES])
def test_right_or_refused(name, make, loss, data, refusals, kind):
    model, pairs, whole = problem(name, make, data)
    use = lambda: operator(EmpiricalRisk(model, pairs, loss=loss, reduction=getattr(loss, "reduction", "mean")), kind)
    if kind in refusals:
        with pytest.raises(ValueError, match=refusals[kind]):
            use().to_dense()
        with pytest.raises(ValueError, match=refusals[kind]):
            use() @ torch.ones(1000)[: sum(p.numel() for p in model.parameters())]
        return
    op, exact = use(), oracle(kind, model, *whole, BY_NAME.get(loss, loss), loss == "cross_entropy")
    assert distance(op.to_dense(), exact) < 1e-10
    columns = torch.randn(op.shape[0], 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert distance(op @ columns, exact @ columns) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chosen", ["frozen", "shuffled", "weights", "biases"])
def test_some_of_the_parameters_in_any_order(chosen, kind):
    model, pairs, whole = problem("classes", two_layers(10, 3), VECTORS)
    exact, names = oracle(kind, model, *whole, CE(), True), [name for name, _ in model.named_parameters()]
    order = {
        "frozen": names[2:],
        "shuffled": [names[i] for i in (2, 0, 3, 1)],
        "weights": names[::2],
        "biases": names[1::2],
    }
    if chosen == "frozen":
        model[0].requires_grad_(False)
    risk = EmpiricalRisk(model, pairs, parameters=None if chosen == "frozen" else order[chosen])
    assert list(risk.parameters) == order[chosen]
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    starts = {name: sum(list(sizes.values())[:i]) for i, name in enumerate(sizes)}
    at = [i for name in order[chosen] for i in range(starts[name], starts[name] + sizes[name])]
    assert distance(operator(risk, kind).to_dense(), exact[at][:, at]) < 1e-10


def test_mappings_that_are_no_dicts_are_refused():
    _, pairs, _ = problem("classes", two_layers(10, 2), batches((10,), classes(2), 3, 4))
    with pytest.raises(ValueError, match="inputs: a tensor or a list of tensors is needed"):
        EmpiricalRisk(Keyed(2).double(), [(UserDict(x=x), y) for x, y in pairs])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Dropout(), r"two evaluations .*model\.eval\(\)"),
        (nn.BatchNorm1d(5), r"changes its buffer .*model\.eval\(\)"),
    ],
)
def test_models_that_are_not_deterministic_are_refused(layer, message):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 5), layer, nn.ReLU(), nn.Linear(5, 2)).double()
    loader = DataLoader(TensorDataset(draw(12, 10), classes(2)(12)), batch_size=3)
    with pytest.raises(RuntimeError, match=message):
        EmpiricalRisk(model, loader)


def test_of_a_loader_that_shuffles_and_drops_one_pass_is_kept():
    torch.manual_seed(0)
    model = two_layers(10, 2)().double()
    loader = DataLoader(TensorDataset(draw(12, 10), classes(2)(12)), batch_size=5, shuffle=True, drop_last=True)
    risk = EmpiricalRisk(model, loader)
    assert risk.num_examples == 10
    kept = [torch.cat(part) for part in zip(*risk.batches, strict=True)]
    assert distance(risk.hessian().to_dense(), exact_hessian(model, *kept, CE())) < 1e-10
