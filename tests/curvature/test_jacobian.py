"""The Jacobian of the outputs against torch.func, finite differences, and the operators made of it."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from hesslib import EmpiricalRisk, jacobian
from hesslib.curvature import jacobian as module
from hesslib.curvature.certificates import CertificateError
from hesslib.curvature.jacobian import jacobian_chunks
from tests.curvature.cases import CASES, distance
from tests.curvature.models import TABLE, Language, Net, build, draw, labels

MODELS = [
    "layer norm", "average pooling", "residual network", "U-net", "transformer", "LSTM", "embedding", "adapters",
    "scalar parameter", "unused parameter", "old function, right", "control flow on values",
]  # fmt: skip
PROBLEMS = {name: (build(make), batches) for name, make, batches, _ in TABLE if name in MODELS}
PROBLEMS |= {c.name: ((c.model, c.inputs, c.targets, c.loss), 2) for c in CASES if c.name in ("Tanh-5-4-6-3", "shared")}


def risk_of(problem):
    (model, x, y, loss), batches = problem
    step = -(-len(x) // batches)
    return EmpiricalRisk(model, list(x.split(step)), list(y.split(step)), loss)


@sdpa_kernel(SDPBackend.MATH)
def by_torch(risk, x):
    """Rows of every output of a batch, by plain reverse mode."""
    found = torch.autograd.functional.jacobian(
        lambda *p: risk.outputs(dict(zip(risk.parameters, p, strict=True)), x), tuple(risk.parameters.values())
    )
    shape = risk.outputs(risk.parameters, x).shape
    return torch.cat([part.reshape(*shape, -1) for part in found], -1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROBLEMS)
def test_it_is_the_derivative_of_the_outputs(name):
    risk = risk_of(PROBLEMS[name])
    found = jacobian(risk)
    exact = torch.cat([by_torch(risk, x) for x, _ in risk.batches])
    assert found.shape == (risk.num_examples, risk.num_outputs, risk.num_parameters)
    assert distance(found, exact) < 1e-12
    # nothing of autograd: central differences, along one direction
    v, h = torch.randn(risk.num_parameters, generator=torch.Generator().manual_seed(5)).double(), 1e-6
    v[:4] *= name != "embedding"  # its row of padding has no gradient, by PyTorch's definition
    at = lambda w: torch.cat([risk.outputs(risk.unflatten(w), x).detach() for x, _ in risk.batches])
    difference = (at(risk.vector + h * v) - at(risk.vector - h * v)) / (2 * h)
    assert distance(found @ v, difference) < 1e-6


@pytest.mark.parametrize("name", ["Tanh-5-4-6-3", "residual network", "transformer"])
def test_the_gauss_newton_matrix_is_made_of_it(name):
    risk = risk_of(PROBLEMS[name])
    j = jacobian(risk)
    outputs = torch.cat([risk.outputs(risk.parameters, x).detach() for x, _ in risk.batches])
    p = outputs.softmax(1)
    a = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    g = torch.einsum("ncp,ncd,ndq->pq", j, a, j) / risk.num_examples
    assert distance(g, risk.ggn().to_dense()) < 1e-12
    slopes = p - nn.functional.one_hot(torch.cat([y for _, y in risk.batches]), p.shape[1])
    gradients = torch.einsum("nc,ncp->np", slopes, j)
    assert distance(gradients.mean(0), risk.gradient()) < 1e-12
    assert distance(gradients.T @ gradients / risk.num_examples, risk.ggn("probability").to_dense()) < 1e-12


def test_func_jacrev_gives_the_same_for_a_plain_network():
    model, x, y, _ = PROBLEMS["Tanh-5-4-6-3"][0]
    found = jacrev(lambda p: functional_call(model, p, (x,)))(dict(model.named_parameters()))
    flat = torch.cat([part.flatten(2) for part in found.values()], -1)
    assert distance(jacobian(EmpiricalRisk(model, x, y)), flat.detach()) < 1e-14


def test_outputs_of_any_shape_and_parameters_in_the_order_given():
    torch.manual_seed(0)
    model, words = Language().double(), labels(4, 5, classes=6)
    names = ["mix.bias", "embed.weight"]
    risk = EmpiricalRisk(model, list(words.split(3)), list(words.roll(1, 1).split(3)), parameters=names)
    j = jacobian(risk)
    assert j.shape == (4, 5, 6, 12 + 24)
    assert distance(j, torch.cat([by_torch(risk, x) for x, _ in risk.batches])) < 1e-13
    images = EmpiricalRisk(nn.Conv2d(1, 3, 2).double(), draw(2, 1, 5, 4), labels(2, 4, 3))  # a class for each pixel
    assert jacobian(images).shape == (2, 3, 4, 3, 15)
    keyed = EmpiricalRisk(Net(lambda m, a, scale: scale * m.a(a), a=nn.Linear(5, 3)).double(),
                          {"a": draw(7, 5), "scale": 2.0}, labels(7))  # fmt: skip
    assert distance(jacobian(keyed), by_torch(keyed, keyed.batches[0][0])) < 1e-14


def test_examples_that_mix_are_not_taken_apart():
    centred = Net(lambda m, x: m.a(x) - m.a(x).mean(0), a=nn.Linear(5, 3)).double()
    risk = EmpiricalRisk(centred, draw(6, 5), labels(6))
    assert distance(jacobian(risk), by_torch(risk, risk.batches[0][0])) < 1e-13


def test_chunks_are_the_rows_within_a_budget():
    risk = risk_of(PROBLEMS["residual network"])
    whole = jacobian(risk)
    small = list(jacobian_chunks(risk, memory_budget=1))
    assert [len(part) for part in small] == [1] * risk.num_examples
    torch.testing.assert_close(torch.cat(small), whole)
    assert len(list(jacobian_chunks(risk))) == len(risk.batches)
    with pytest.raises(ValueError, match="memory_budget=0"):
        next(jacobian_chunks(risk, memory_budget=0))


def test_what_is_refused(monkeypatch):
    risk = risk_of(PROBLEMS["Tanh-5-4-6-3"])
    monkeypatch.setattr(module, "free_memory", lambda device: 10**4)
    with pytest.raises(MemoryError, match=r"jacobian: 11 x 3 x 75 needs .*jacobian_chunks\(risk\)"):
        jacobian(risk)
    monkeypatch.undo()
    words = [labels(3, 5, classes=6), labels(2, 4, classes=6)]
    unequal = EmpiricalRisk(Language().double(), words, words)
    with pytest.raises(ValueError, match=r"\(3, 5, 6\), \(2, 4, 6\).*jacobian_chunks"):
        jacobian(unequal)
    assert [tuple(part.shape[:-1]) for part in jacobian_chunks(unequal)] == [(3, 5, 6), (2, 4, 6)]


def test_routes_that_differ_are_reported(monkeypatch):
    risk = risk_of(PROBLEMS["Tanh-5-4-6-3"])
    for route in ("_by_example", "_by_row"):
        kept = getattr(module, route)
        monkeypatch.setattr(module, route, lambda *args, kept=kept: 1.01 * kept(*args))
    with pytest.raises(CertificateError, match=r"jacobian: its product with a vector differs by 9\.9e-03"):
        jacobian(risk)
