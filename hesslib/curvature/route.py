"""What ``spectrum`` would do with an operator, and at what cost, before it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from . import gram
from .memory import free_memory
from .operators import CurvatureOperator
from .structure.chain import derivatives
from .structure.convolution import stages_of


@dataclass(frozen=True)
class Route:
    """The way of ``spectrum`` to the eigenvalues of an operator.

    Attributes:
        method: ``"dense"`` or ``"gram"``.
        reason: why this one.
        order: of the matrix whose eigenvalues are found.
        bytes: of memory that must be free, with ``op.memory_budget`` for what is temporary.
        free: bytes that are free now.
        seconds: roughly, to a factor of about three on a machine that does nothing else.
    """

    method: str
    reason: str
    order: int
    bytes: int
    free: int
    seconds: float

    @property
    def fits(self) -> bool:
        """Whether the memory that is free is enough; otherwise ``spectrum`` raises ``MemoryError``."""
        return self.bytes <= self.free

    def __str__(self) -> str:
        """All of it in one sentence."""
        needed, free = self.bytes / 2**30, self.free / 2**30
        seconds = f"{self.seconds:.1g}" if self.seconds < 9.5 else f"{self.seconds:,.0f}"
        return (
            f"{self.method} ({self.reason}): a matrix of order {self.order:,}, {needed:.1f} GiB of {free:.1f} GiB that "
            f"are free{'' if self.fits else ', which is too much'}, about {seconds} s"
        )


def select_route(op: CurvatureOperator, method: Literal["auto", "dense", "gram"] = "auto") -> Route:
    """Say which way ``spectrum(op, method)`` would go, why, and what that costs; nothing large is made.

    It takes about one product, and some small matrices whose time is scaled up.

    Raises:
        TypeError, ValueError: as ``spectrum``.

    Example:
        >>> import torch
        >>> from hesslib import EmpiricalRisk, select_route
        >>> model = torch.nn.Sequential(torch.nn.Linear(30, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).double()
        >>> risk = EmpiricalRisk(model, torch.eye(5, 30).double(), torch.tensor([0, 1, 0, 1, 0]))
        >>> route = select_route(risk.hessian())
        >>> route.method, route.reason, route.order, route.fits
        ('gram', 'rank at most 11, below M = 101', 11, True)
    """
    chosen, reason, order = choose(op, method)
    needed, free = 3 * 8 * order**2, free_memory(op.risk.device)  # the matrix, a factor or copy, and work space
    if chosen == "gram":
        return Route(chosen, reason, order, needed, free, _gram_seconds(op, order))
    needed = max(needed, order**2 * op.dtype.itemsize + op.memory_budget)  # or the matrix and its making
    return Route(chosen, reason, order, needed, free, _dense_seconds(op))


def choose(op: CurvatureOperator, method: str) -> tuple[str, str, int]:
    """The method that ``spectrum(op, method)`` takes, why, and the order of its matrix; errors as of ``spectrum``."""
    if not isinstance(op, CurvatureOperator):
        raise TypeError(
            f"op: a CurvatureOperator (risk.hessian(), risk.ggn(), ...) is needed, got {type(op).__name__}; "
            "top_eigenpairs and spectral_density take any linear operator"
        )
    if method not in ("auto", "dense", "gram"):
        raise ValueError(f"method={method!r} is unknown: give 'auto', 'dense' or 'gram'")
    obstacle, m = gram.why_not(op), op.shape[0]
    if method == "gram" and obstacle:
        raise ValueError(f"method='gram' does not apply to {op.name}: {obstacle}")
    if method == "dense":
        return "dense", "asked for", m
    if obstacle:
        return "dense", f"gram does not apply: {obstacle}", m
    order = gram.columns(op)
    if method == "gram" or order < m:
        return "gram", f"rank at most {order}, below M = {m}", order
    return "dense", f"M = {m} is below the bound {order} on the rank", m


def _dense_seconds(op: CurvatureOperator) -> float:
    """The matrix, whose Linear layers and convolutions have a closed form, and its eigenvalues."""
    m, n, structure = op.shape[0], op.risk.num_examples, op.structure
    speed, seconds = _multiply_adds_a_second(op), _eigenvalue_seconds(m) + 2 * _product_seconds(op)
    head = m if structure is None else sum(at.stop - at.start for _, at in structure.head)
    if structure is not None:
        seconds += (m - head) ** 2 * n / 2 / speed
    if structure is not None and head and _convolutions_in_closed_form(op):
        return seconds + 2 * n * op.risk.num_outputs * head * m / speed
    return seconds + head * _product_seconds(op, 4)


def _convolutions_in_closed_form(op: CurvatureOperator) -> bool:
    """Whether all before the Linear layers is convolutions, and no activation is curved."""
    stages, z = stages_of(op.risk.model), torch.linspace(-3, 3, 64, dtype=op.risk.dtype, device=op.risk.device)
    plain = [[m for _, m in after if not isinstance(m, nn.MaxPool2d)] for _, *after in stages]
    bent = any(derivatives(activations, z)[2] is not None for activations in plain)
    return bool(stages) and not bent and not any(layer.bend is not None for layer in op.structure.layers)  # type: ignore[union-attr]


def _gram_seconds(op: CurvatureOperator, order: int) -> float:
    """Inner products layer by layer, a factorisation, its eigenvalues, and the largest by Lanczos."""
    structure: Any = op.structure
    each = sum(layer.width + layer.inputs.shape[1] for layer in structure.layers)
    work = order**2 * each + order**3
    return work / _multiply_adds_a_second(op) + _eigenvalue_seconds(order) + 60 * _product_seconds(op)


def _time(work: Callable[[], object]) -> float:
    """Seconds of a small piece of work, the better of two."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _multiply_adds_a_second(op: CurvatureOperator) -> float:
    """Speed of matrix products."""
    small = torch.rand(384, 384, dtype=op.risk.dtype, generator=torch.Generator().manual_seed(0)).to(op.risk.device)
    return 384**3 / max(_time(lambda: (small @ small).sum().item()), 1e-9)


def _eigenvalue_seconds(order: int) -> float:
    """The eigenvalues of a matrix of an order, from the time of a smaller one."""
    size = min(order, 400)
    small = torch.rand(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (order / max(size, 1)) ** 3 * _time(lambda: torch.linalg.eigvalsh(small + small.T))


def _product_seconds(op: CurvatureOperator, columns: int = 1) -> float:
    """A product, of as many columns at a time as are given."""
    vectors = op.risk.vector.expand(min(columns, op.chunk), -1)
    op.product(vectors[:1])  # the checks of the first one are not counted
    return _time(lambda: op.product(vectors).sum().item()) / len(vectors)
