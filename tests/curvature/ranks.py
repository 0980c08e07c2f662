"""Started by torchrun: curvature over shards against the same in one process. Prints what it found as JSON."""

import json
import sys

import numpy as np
import torch
import torch.distributed as dist

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


def main():
    dist.init_process_group("gloo")
    rank, data = dist.get_rank(), blobs(20, 3, 8, seed=0)
    found = {}
    for name, model in {"chain": fully_connected([8, 5, 4, 3], seed=0), "skip": Skip(4, 0).double()}.items():
        found[name] = distances(model, data, rank)
    other = fully_connected([8, 5, 3], seed=rank)
    try:
        ShardedOperator(EmpiricalRisk(other, data.inputs, data.targets).hessian())
    except ValueError as error:
        found["refused"] = str(error)
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, found)
    if rank == 0:
        print(json.dumps(every))
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
