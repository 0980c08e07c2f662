import pytest
import torch

from hesslib import EmpiricalRisk
from hesslib.curvature.structure import convolution
from tests.curvature.cases import CASES, distance, reference

case = next(c for c in CASES if c.name == "relu-convolution")


def test_no_product_is_needed(monkeypatch):
    op = EmpiricalRisk(case.model, case.inputs, case.targets).hessian()
    monkeypatch.setattr(op, "product", lambda v: pytest.fail("a product was taken"))
    assert distance(op.to_dense(), reference(case.model, case.inputs, case.targets)) < 1e-12


@pytest.mark.parametrize("budget", [1, 100_000, 10**9])
def test_chunks_of_examples_do_not_matter(budget):
    op = EmpiricalRisk(case.model, list(case.inputs.split(4)), list(case.targets.split(4))).hessian()
    op.memory_budget = budget
    assert distance(op.to_dense(), reference(case.model, case.inputs, case.targets)) < 1e-12


def test_what_is_not_made_of_stages_is_left_to_products():
    names = [c.name for c in CASES if convolution.stages_of(c.model)]
    assert names == ["convolution", "relu-convolution"]
    curved = next(c for c in CASES if c.name == "convolution")  # its second stage has a tanh
    op = EmpiricalRisk(curved.model, curved.inputs, curved.targets).hessian()
    matrix = torch.zeros(op.shape, dtype=torch.float64)
    assert not convolution.fill_convolutions(matrix, op, op.structure, None)
