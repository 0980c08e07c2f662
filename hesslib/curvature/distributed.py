"""Curvature of data that lie on several processes, summed by ``torch.distributed``."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .._progress import bar
from .operators import CurvatureOperator, SymmetricOperator


def fingerprints(op: CurvatureOperator) -> dict[str, int]:
    """A number for each thing that must be the same on all ranks."""
    risk = op.risk
    loss: Any = risk.criterion.function
    options = [(k, v) for k, v in getattr(loss, "__dict__", {}).items() if isinstance(v, int | float | str)]
    parts = {
        "kind of operator": (f"{op.kind} {op.output} {op.shape} {op.dtype}", {}),
        "loss": (
            f"{risk.criterion.name} {risk.criterion.reduction} {type(loss).__name__} {options}",
            dict(getattr(loss, "_buffers", {})),
        ),
        "parameters": ("", risk.parameters),
        "buffers or frozen parameters": ("", risk.constants),
    }  # type: dict[str, tuple[str, dict[str, Tensor | None]]]
    found = {}
    for name, (text, tensors) in parts.items():
        digest = hashlib.sha256(text.encode())
        for key, tensor in tensors.items():
            digest.update(key.encode())
            digest.update(b"" if tensor is None else tensor.detach().cpu().numpy().tobytes())
        found[name] = int.from_bytes(digest.digest()[:7])
    return found


class ShardedOperator(SymmetricOperator):
    """The operator of the examples of all ranks, each of which holds a part of them.

    Every rank makes the operator of its own examples, as many as it has, with the same model, and all ranks call
    the same methods in the same order. Each rank's products are weighted by what its mean loss divides by (examples,
    targets that count, or their class weights), summed over the ranks, and the same on each; ``top_eigenpairs`` takes
    the operator as it is. ``columns`` leaves each rank its part of the matrix, ``spectral_density`` of the probes.

    Args:
        op: this rank's operator, ``EmpiricalRisk(model, own_inputs, own_targets).hessian()`` or the like.
        group: the process group; by default all ranks.

    Raises:
        RuntimeError: ``torch.distributed.init_process_group`` has not been called.
        ValueError: the ranks differ in their parameters, buffers, loss or kind of operator, or the loss is a function
            whose sum over the ranks is not the loss over all examples; on every rank.
    """

    def __init__(self, op: CurvatureOperator, group: dist.ProcessGroup | None = None) -> None:
        if not isinstance(op, CurvatureOperator):
            raise ValueError(f"op: a CurvatureOperator (risk.hessian(), risk.ggn(), ...) is needed, got {op!r}")
        if not dist.is_initialized():
            raise RuntimeError(
                "no process group: call torch.distributed.init_process_group first, and start with torchrun"
            )
        self.op, self.risk, self.group = op, op.risk, group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        own = fingerprints(op)
        every = torch.zeros(self.ranks, len(own), dtype=torch.int64, device=op.risk.device)
        every[self.rank] = torch.tensor(list(own.values()))
        for name, seen in zip(own, self._sum(every).T.tolist(), strict=True):
            if differing := [rank for rank, other in enumerate(seen) if other != seen[0]]:
                raise ValueError(f"op: rank 0 and ranks {differing} differ in their {name}")
        total = torch.tensor(op.risk.criterion.total_weight, dtype=torch.float64, device=op.risk.device)
        self.total_weight = float(self._sum(total))
        if op.risk.criterion.name == "custom":
            self._check_loss()
        super().__init__(dtype=op.dtype, shape=op.shape)

    def _check_loss(self) -> None:
        """Refuse a function of outputs and targets that the ranks' shares do not add up to."""
        risk = self.risk
        every: list[Any] = [None] * self.ranks
        own = [(risk.outputs(risk.parameters, x).detach().cpu(), y.cpu()) for x, y in risk.batches]
        dist.all_gather_object(every, (own, [share * self.weight for share in risk.shares]), self.group)
        pairs = [pair for parts, _ in every for pair in parts]
        outputs, targets = ([pair[i].to(risk.device) for pair in pairs] for i in (0, 1))
        try:
            risk.criterion.check_batches(outputs, targets, [share for _, shares in every for share in shares])
        except ValueError as error:
            raise ValueError(
                "loss: the callable depends on how the examples are spread over the ranks; give 'cross_entropy', 'mse' "
                "or nn.CrossEntropyLoss, which says its class weights"
            ) from error

    @property
    def name(self) -> str:
        """What the operator is, in words."""
        return f"{self.op.name} on {self.ranks} ranks"

    def _sum(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, group=self.group)
        return tensor

    @property
    def weight(self) -> float:
        """What this rank's risk is multiplied by: for a mean the share of the total weight that it holds."""
        if self.risk.criterion.reduction == "sum":
            return 1.0
        return self.risk.criterion.total_weight / self.total_weight

    def product(self, vectors: Tensor) -> Tensor:
        """Products with the rows of a (k, M) tensor, the same on every rank."""
        return self._sum(self.weight * self.op.product(vectors))

    def own(self, count: int) -> slice:
        """Which of ``count`` things this rank keeps."""
        return slice(count * self.rank // self.ranks, count * (self.rank + 1) // self.ranks)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """All ``count`` rows on every rank, from each one's own."""
        every = torch.zeros(count, *rows.shape[1:], dtype=rows.dtype, device=self.risk.device)
        every[self.own(count)] = rows.to(every)
        return self._sum(every)

    def product_of_own(self, rows: Tensor, count: int) -> Tensor:
        """Products with this rank's part of ``count`` rows that are spread over the ranks."""
        return self.product(self.gather(rows, count))[self.own(count)]

    def columns(self, *, progress: bool | None = None) -> Tensor:
        """The columns ``own(M)`` of the matrix, (M, own): each rank stores a part of it."""
        m: int = self.shape[0]
        step: Any = torch.tensor(self.op.chunk, device=self.risk.device)
        dist.all_reduce(step, dist.ReduceOp.MIN, self.group)  # the ranks may differ in memory
        own, step = self.own(m), int(step)
        found = torch.zeros(own.stop - own.start, m, dtype=self.risk.dtype, device=self.risk.device)
        for start in bar(range(0, m, step), desc=f"{self.name}, columns", show=False if self.rank else progress):
            stop = min(m, start + step)
            basis = torch.zeros(stop - start, m, dtype=found.dtype, device=found.device)
            basis[range(stop - start), range(start, stop)] = 1
            product = self.product(basis)
            first, last = max(start, own.start), min(stop, own.stop)
            if first < last:
                found[first - own.start : last - own.start] = product[first - start : last - start]
        return found.T

    def to_dense(self, *, progress: bool | None = None) -> Tensor:
        """The whole matrix (M, M) on every rank, from each one's by the fastest exact route; see ``columns``."""
        return self._sum(self.weight * self.op.to_dense(progress=progress))
