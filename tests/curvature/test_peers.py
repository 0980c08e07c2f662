"""An outside oracle: curvlinops computes the same operators by other code."""

import pytest
import torch
from torch import nn

from hesslib import EmpiricalRisk
from tests.benchmarks.peers import curvlinops_parameters
from tests.curvature.cases import CASES, distance

pytestmark = pytest.mark.slow

curvlinops = pytest.importorskip("curvlinops", reason="curvlinops is not installed (pip install -e '.[peers]')")

names = ["Tanh-5-4-6-3", "ReLU-5-4-3", "relu-convolution", "skip", "mse"]
cases = [c for c in CASES if c.name in names]


@pytest.mark.parametrize("case", cases, ids=lambda c: c.name)
@pytest.mark.parametrize("kind", ["hessian", "ggn", "fisher"])
def test_operators_agree_with_curvlinops(case, kind):
    if kind == "fisher" and case.loss == "mse":
        pytest.skip("the probability reading needs cross-entropy")
    loss = nn.CrossEntropyLoss() if case.loss == "cross_entropy" else nn.MSELoss()
    theirs = {
        "hessian": curvlinops.HessianLinearOperator,
        "ggn": curvlinops.GGNLinearOperator,
        "fisher": curvlinops.EFLinearOperator,
    }[kind]
    data = list(zip(case.inputs.split([1, len(case.inputs) - 1]), case.targets.split([1, len(case.inputs) - 1])))
    other = theirs(case.model, loss, curvlinops_parameters(theirs, case.model), data)
    risk = EmpiricalRisk(case.model, *zip(*data), case.loss)
    ours = {"hessian": risk.hessian, "ggn": risk.ggn, "fisher": lambda: risk.ggn("probability")}[kind]()
    identity = torch.eye(risk.num_parameters, dtype=torch.float64)
    assert distance(ours.to_dense(), other @ identity) < 1e-12


def test_parameters_are_given_as_the_release_takes_them():
    class Now:
        def __init__(self, model, loss, params: list[nn.Parameter], data): ...

    class Next:
        def __init__(self, model, loss, params: dict[str, nn.Parameter], data): ...

    model = nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    assert curvlinops_parameters(Now, model) == [model.weight]
    assert curvlinops_parameters(Next, model) == {"weight": model.weight}
