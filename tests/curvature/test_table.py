"""A table of models and losses: each Hessian is right to 1e-10 or refused in a sentence that names the cause."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hesslib import EmpiricalRisk
from hesslib.curvature.certificates import CertificateError
from tests.curvature.cases import distance
from tests.curvature.models import TABLE, build

LOSSES = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}


@sdpa_kernel(SDPBackend.MATH)  # the fused attention kernels have no second derivative
def exact_hessian(model, x, y, loss):
    """Row by row by ``torch.autograd``, the loss over the whole set."""
    leaves = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(LOSSES.get(loss, loss)(model(x), y), leaves, create_graph=True, materialize_grads=True)
    rows = []
    for entry in torch.cat([g.reshape(-1) for g in slopes]):
        parts = [torch.zeros_like(p) for p in leaves]
        if entry.requires_grad:
            parts = torch.autograd.grad(entry, leaves, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([p.reshape(-1) for p in parts]))
    return torch.stack(rows)


def test_there_are_enough_models():
    assert len(TABLE) >= 100 and len({name for name, *_ in TABLE}) == len(TABLE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "make", "batches", "message"), TABLE, ids=[row[0] for row in TABLE])
def test_right_or_refused(name, make, batches, message):
    model, x, y, loss = build(make)
    step = math.ceil(len(x) / batches)
    cut = (lambda t: list(t.split(step))) if batches > 1 else lambda t: t
    use = lambda: EmpiricalRisk(model, cut(x), cut(y), loss).hessian()
    if message is not None:
        for call in (lambda: use() @ torch.ones(use().shape[0]), lambda: use().to_dense()):
            with pytest.raises((ValueError, RuntimeError, CertificateError), match=message):
                call()
        return
    op, exact = use(), exact_hessian(model, x, y, loss)
    scale = float(exact.abs().max())
    assert distance(op @ torch.eye(op.shape[0], dtype=torch.float64), exact) < 1e-10 or scale < 1e-280
    assert distance(op.to_dense(), exact) < 1e-10 or scale < 1e-280
    column = op @ torch.eye(op.shape[0], dtype=torch.float64)[0]
    assert float((column - exact[0]).abs().max()) < 1e-10 * scale
