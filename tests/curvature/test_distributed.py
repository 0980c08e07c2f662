"""Curvature over data on two processes, started by torchrun as the book's page on clusters says."""

import json
import os
import subprocess
import sys

import pytest
import torch

from hesslib import EmpiricalRisk
from hesslib.book.paths import ROOT
from hesslib.curvature.distributed import ShardedOperator


@pytest.mark.distributed
def test_two_processes_agree_with_one():
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = str(ROOT / "tests" / "curvature" / "ranks.py")
    done = subprocess.run([*line, script], capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(ranks) == 2
    for found in ranks:
        parameters, buffers, loss, smoothing, hidden = found["refused"]
        assert parameters == "op: rank 0 and ranks [1] differ in their parameters"
        assert buffers == "op: rank 0 and ranks [1] differ in their buffers or frozen parameters"
        assert loss == smoothing == "op: rank 0 and ranks [1] differ in their loss"
        assert hidden.startswith("loss: the callable depends on how the examples are spread over the ranks")
        assert found["class weights"] < 1e-12
        for model in ("chain", "skip"):
            assert len(found[model]) == 19
            for quantity, distance in found[model].items():
                # weights and nodes of the quadrature are as sensitive as eigenvectors of the small matrices
                assert distance < (1e-9 if "density" in quantity else 1e-12), (model, quantity, distance)


def test_without_a_process_group_it_says_what_to_do():
    risk = EmpiricalRisk(torch.nn.Linear(2, 2).double(), torch.eye(2).double(), torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match=r"no process group: call torch.distributed.init_process_group.*torchrun"):
        ShardedOperator(risk.hessian())
    with pytest.raises(ValueError, match="op: a CurvatureOperator"):
        ShardedOperator(torch.eye(2))
