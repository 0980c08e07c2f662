"""The Jacobian of a model's outputs in its parameters, at each example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import grad
from torch.func import jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten

from .._checks import positive
from .._progress import bar
from .certificates import CAUSES, _push, probe, relative, report
from .memory import free_memory

if TYPE_CHECKING:
    from .risk import EmpiricalRisk


def jacobian(risk: EmpiricalRisk, *, progress: bool | None = None) -> Tensor:
    """The Jacobian (N, ..., M) of the outputs (N, ...) in the chosen parameters, in their order.

    For outputs (N, C) it is (N, C, M), and with A_n the loss's Hessian in the outputs of an example
    ``G = 1/N sum J_n^T A_n J_n``. It comes in chunks of examples (``jacobian_chunks``), each compared with a product
    J v by plain double backward. Cost: about C passes over the data and the result, 8 M N C bytes in float64.

    Raises:
        MemoryError: the result does not fit into free memory; nothing has been allocated.
        ValueError: the outputs of different batches have different shapes; ``jacobian_chunks`` takes them.
        CertificateError: independent routes differ.

    Example:
        >>> import torch
        >>> from hesslib import EmpiricalRisk, jacobian
        >>> model = torch.nn.Linear(3, 2).double()
        >>> risk = EmpiricalRisk(model, torch.eye(3).double(), torch.tensor([0, 1, 0]))
        >>> jacobian(risk).shape
        torch.Size([3, 2, 8])
    """
    with torch.no_grad():
        shapes = [tuple(risk.outputs(risk.parameters, x).shape) for x, _ in risk.batches]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"model: its outputs have the shapes {shapes}; take jacobian_chunks(risk), chunk by chunk")
    shape = (sum(s[0] for s in shapes), *shapes[0][1:], risk.num_parameters)
    needed, free = torch.Size(shape).numel() * risk.vector.element_size(), free_memory(risk.device)
    if needed > free:
        raise MemoryError(
            f"jacobian: {' x '.join(map(str, shape))} needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            "free; take jacobian_chunks(risk), which yields it for some examples at a time"
        )
    result, start = torch.empty(shape, dtype=risk.dtype, device=risk.device), 0
    with bar(desc="jacobian, examples", total=shape[0], show=progress) as shown:
        for part in jacobian_chunks(risk):
            result[start : start + len(part)] = part
            start += len(part)
            shown.update(len(part))
    return result


def jacobian_chunks(risk: EmpiricalRisk, memory_budget: int | None = None) -> Iterator[Tensor]:
    """The rows of ``jacobian(risk)``, (n, ..., M) for a few examples at a time, in the order of the examples.

    Args:
        risk: any, with outputs of any shape.
        memory_budget: bytes for a chunk and what it takes to compute it, or at least one example; by default a quarter
            of what is free, at most 1 GiB. A chunk does not reach over the end of a batch.

    Raises:
        CertificateError: independent routes differ.
    """
    if memory_budget is not None:
        positive(memory_budget=memory_budget)
    budget = memory_budget or risk.memory_budget
    risk.certify()
    v = probe(risk)
    for x, _ in risk.batches:
        pushed = _pushed(risk, x, v)
        row = risk.bytes_per_example + 4 * risk.num_parameters * v.element_size()
        step = max(1, int(budget / (row * max(1, pushed[0].numel()))))
        for start in range(0, len(pushed), step):
            yield _certified(risk, x, slice(start, min(start + step, len(pushed))), pushed, v)


def _certified(risk: EmpiricalRisk, x: Any, part: slice, pushed: Tensor, v: Tensor) -> Tensor:
    """The Jacobian of some examples of a batch, by the faster route if that is right, and an error if none is."""
    allowed = 1e-7 if risk.dtype == torch.float64 else 5e-3
    size = max(float(pushed.norm()), 1e-300)
    try:
        found = _by_example(risk, x, part)
        if found.shape[:-1] == pushed[part].shape and float((found @ v - pushed[part]).norm()) <= allowed * size:
            return found
    except torch.OutOfMemoryError:
        raise
    except Exception:  # not for torch.func: control flow on values, old autograd.Functions, arguments without examples
        pass
    found = _by_row(risk, x, part)
    if float((found @ v - pushed[part]).norm()) > allowed * size:
        apart = relative(found @ v, pushed[part])
        report(risk, f"jacobian: its product with a vector differs by {apart:.1e} from double backward; {CAUSES}")
    return found


@sdpa_kernel(SDPBackend.MATH)  # the fused attention kernels have no second derivative
def _pushed(risk: EmpiricalRisk, x: Any, v: Tensor) -> Tensor:
    """J v of a batch, in the shape of its outputs, by ``torch.autograd`` alone."""
    with torch.enable_grad():
        leaves = {n: p.clone().requires_grad_() for n, p in risk.parameters.items()}
        f = risk.outputs(leaves, x)
        pushed = f if not f.requires_grad else _push(f, list(leaves.values()), list(risk.unflatten(v).values()))
    return pushed.detach() if f.requires_grad else torch.zeros_like(f)


@sdpa_kernel(SDPBackend.MATH)
def _by_example(risk: EmpiricalRisk, x: Any, part: slice) -> Tensor:
    """For models whose outputs at an example are a function of that example: all at once."""
    leaves, form = tree_flatten(x)
    own = [isinstance(leaf, Tensor) for leaf in leaves]

    def outputs(parameters: dict[str, Tensor], *single: Any) -> Tensor:
        given = [leaf[None] if axis else leaf for leaf, axis in zip(single, own, strict=True)]
        return risk.outputs(parameters, tree_unflatten(given, form))[0]

    axes = (None, *(0 if axis else None for axis in own))
    some = [leaf[part] if axis else leaf for leaf, axis in zip(leaves, own, strict=True)]
    found = vmap(jacrev(outputs), in_dims=axes)(risk.parameters, *some)
    flat = [
        found[n].detach().flatten(found[n].ndim - p.ndim) if p.ndim else found[n].detach()[..., None]
        for n, p in risk.parameters.items()
    ]
    return torch.cat(flat, -1)


@sdpa_kernel(SDPBackend.MATH)
@torch.enable_grad()
def _by_row(risk: EmpiricalRisk, x: Any, part: slice) -> Tensor:
    """One output after the other of the whole batch: slow, and right for any model."""
    leaves = {n: p.clone().requires_grad_() for n, p in risk.parameters.items()}
    f = risk.outputs(leaves, x)
    wanted, values = f[part], list(leaves.values())
    rows = []
    for output in wanted.reshape(-1):
        parts = [torch.zeros_like(p) for p in values]
        if output.requires_grad:
            parts = list(grad(output, values, retain_graph=True, materialize_grads=True))
        rows.append(torch.cat([p.reshape(-1) for p in parts]))
    return torch.stack(rows).reshape(*wanted.shape, -1) if rows else wanted.new_zeros(*wanted.shape, len(risk.vector))
