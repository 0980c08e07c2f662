"""Started by torchrun: curvature over shards against the same in one process. Prints what it found as JSON."""

import json
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from hesslib import EmpiricalRisk, spectral_density, top_eigenpairs
from hesslib.curvature.distributed import ShardedOperator
from hesslib.experiments.data import blobs
from hesslib.experiments.models import fully_connected
from tests.kit.work import Skip

OPERATORS = {
    "H": lambda risk: risk.hessian(),
    "G": lambda risk: risk.ggn(),
    "R": lambda risk: risk.residual(),
    "F": lambda risk: risk.ggn("probability"),
}


def relative(a, b):
    a, b = (torch.as_tensor(np.asarray(v)) for v in (a, b))
    return float((a - b).abs().max() / b.abs().max())


def distances(model, data, rank):
    """Largest relative distance of each quantity to the one of a single process."""
    own = slice(0, 7) if rank == 0 else slice(7, None)  # of unequal size
    whole, part = (EmpiricalRisk(model, data.inputs[s], data.targets[s]) for s in (slice(None), own))
    vectors = torch.randn(whole.num_parameters, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {}
    for name, make in OPERATORS.items():
        one, many = make(whole), ShardedOperator(make(part))
        if rank:
            many.op.memory_budget = 1  # chunks of another size than on the other rank
        dense = one.to_dense()
        found |= {
            f"{name} products": relative(many @ vectors, one @ vectors),
            f"{name} numpy": relative(many @ vectors[:, 0].numpy(), one @ vectors[:, 0]),
            f"{name} columns": relative(many.columns(), dense[:, many.own(len(dense))]),
            f"{name} dense": relative(many.to_dense(), dense),
        }
    one, many = whole.hessian(), ShardedOperator(part.hessian())
    found["top"] = relative(top_eigenpairs(many, 5).eigenvalues, top_eigenpairs(one, 5).eigenvalues)
    for probes in (1, 5):  # with one probe the first rank has none
        a, b = (spectral_density(op, probes, 12, seed=3) for op in (many, one))
        found[f"density {probes}"] = max(relative(a.nodes, b.nodes), relative(a.weights, b.weights))
        assert a.products == b.products == 12 * probes
    return found


def refused(data, rank):
    """Risks that must not be summed: ranks with other parameters, buffers, loss, or class weights that nobody sees."""
    x, y, plain = data.inputs, data.targets, fully_connected([8, 5, 3], seed=0)
    yield EmpiricalRisk(fully_connected([8, 5, 3], seed=rank), x, y)
    norm = nn.BatchNorm1d(8).double().eval()
    norm.running_mean += rank
    yield EmpiricalRisk(nn.Sequential(norm, *plain), x, y)
    weight = torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64)
    yield EmpiricalRisk(plain, x, y, nn.CrossEntropyLoss(weight + rank))
    yield EmpiricalRisk(plain, x, y, nn.CrossEntropyLoss(label_smoothing=rank / 10))
    own = y.argsort()[:7] if rank == 0 else y.argsort()[7:]
    yield EmpiricalRisk(plain, x[own], y[own], lambda f, t: nn.functional.cross_entropy(f, t, weight))


def refusal(risk):
    try:
        ShardedOperator(risk.hessian())
    except ValueError as error:
        return str(error)


def main():
    dist.init_process_group("gloo")
    rank, data = dist.get_rank(), blobs(20, 3, 8, seed=0)
    found = {}
    for name, model in {"chain": fully_connected([8, 5, 4, 3], seed=0), "skip": Skip(4, 0).double()}.items():
        found[name] = distances(model, data, rank)
    found["refused"] = [refusal(risk) for risk in refused(data, rank)]
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64))
    model, own = fully_connected([8, 5, 3], seed=0), data.targets.argsort()[rank::2]
    many = ShardedOperator(EmpiricalRisk(model, data.inputs[own], data.targets[own], weighted).hessian())
    one = EmpiricalRisk(model, data.inputs, data.targets, weighted).hessian()
    found["class weights"] = relative(many.to_dense(), one.to_dense())
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, found)
    if rank == 0:
        print(json.dumps(every))
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
