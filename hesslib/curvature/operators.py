"""Hessian, generalised Gauss-Newton matrix and residual as linear operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar  # noqa: F401  # in a type comment

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from .certificates import check_product, plain_product, probe
from .structure.linear import LayerStructure
from .validation import check_own_gradients

if TYPE_CHECKING:
    from .risk import EmpiricalRisk

    Vectors = TypeVar("Vectors")

KINDS, OUTPUTS = ("hessian", "ggn", "residual"), ("logits", "probability")


class SymmetricOperator(LinearOperator):
    """A symmetric (M, M) matrix known by ``product``, which multiplies the rows of a (k, M) tensor."""

    def __matmul__(self, other: Vectors) -> Vectors:
        """Product with (M,) or (M, k), in the kind (numpy or torch) of what is given."""
        if not isinstance(other, Tensor):
            return super().__matmul__(other)
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            raise ValueError(
                f"{self.name} @ V: V has shape {tuple(other.shape)}, ({self.shape[1]},) or ({self.shape[1]}, k) needed"
            )
        if other.is_complex():
            raise ValueError(f"{self.name} @ V: V is complex; multiply its real and imaginary part")
        rows = other[None] if other.ndim == 1 else other.T
        # whole numbers and truth values are vectors too, but what they are multiplied to is real
        result = self.product(rows).to(other if other.is_floating_point() else other.device)
        return result[0] if other.ndim == 1 else result.T

    def _matmat(self, matrix: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(matrix):
            raise ValueError(f"{self.name} @ V: V is complex; multiply its real and imaginary part")
        rows = torch.as_tensor(np.ascontiguousarray(np.asarray(matrix).T))
        return self.product(rows).T.cpu().numpy()

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._matmat(np.asarray(vector).reshape(-1, 1))[:, 0]

    def _adjoint(self) -> SymmetricOperator:
        return self


class CurvatureOperator(SymmetricOperator):
    """A symmetric (M, M) curvature matrix known by its products.

    With J_n the Jacobian of the outputs at example n, every operator here has the form ::

        v -> 1/N sum_n (J_n^T A_n J_n v + sum_c d_nc Hessian(f_nc) v)

    and they differ in the pair (A, d): the loss's own Hessian and gradient in the outputs for H;
    d = 0 for G; A = 0 for R = H - G. With ``output="probability"`` G has A = d d' (empirical
    Fisher) and R keeps what is left of A. A product takes 2 to 3.5 times as long as a gradient.

    ``op @ V`` takes (M,) or (M, k), numpy or torch, and returns the same kind. Columns, and the examples of a large
    batch where they do not depend on each other, go through in parts that keep temporary memory below
    ``memory_budget`` bytes (settable, for all operators of a risk; default: a quarter of what is free, at most
    1 GiB). It is a ``scipy.sparse.linalg.LinearOperator``.
    """

    def __init__(
        self,
        risk: EmpiricalRisk,
        kind: Literal["hessian", "ggn", "residual"],
        output: Literal["logits", "probability"] = "logits",
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is unknown: give one of {KINDS}")
        if output not in OUTPUTS:
            raise ValueError(f"output={output!r} is unknown: give one of {OUTPUTS}")
        self.risk, self.kind, self.output = risk, kind, output
        loss = risk.criterion
        if output == "probability" and loss.name == "custom" and not (loss.flat and self._separable):
            raise ValueError(
                "output='probability': of a callable loss it needs outputs (N, C) and a mean over examples, so that "
                "each has a gradient of its own"
            )
        check_own_gradients(risk, output)
        self._batched = True
        dtype = np.dtype(str(risk.dtype).removeprefix("torch."))
        super().__init__(dtype=dtype, shape=(risk.num_parameters,) * 2)

    @property
    def name(self) -> str:
        """What the operator is, in words."""
        letter = {"hessian": "H", "ggn": "G", "residual": "R"}[self.kind]
        return letter if self.kind == "hessian" or self.output == "logits" else f"{letter} (probability)"

    @cached_property
    def structure(self) -> LayerStructure | None:
        """The Linear layers at the model's end, where the closed form applies; else None."""
        return LayerStructure.of(self.risk) if self._separable else None

    @cached_property
    def _separable(self) -> bool:
        risk = self.risk
        return risk.criterion.name != "custom" or all(
            risk.criterion.separates(risk.outputs(risk.parameters, x).detach(), y) for x, y in risk.batches
        )

    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The pair d (n, C), A (n, C, C) of this operator, divided by the number of targets if the risk is a mean."""
        d, a = self.risk.criterion.terms(outputs, targets)
        first = d[:, :, None] * d[:, None, :] if self.output == "probability" else a
        if self.kind == "ggn":
            a, d = first, torch.zeros_like(d)
        elif self.kind == "residual":
            a = a - first
        return d / self.risk.criterion.divisor, a / self.risk.criterion.divisor

    def curve(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """The same pair with A as a map u -> A u that takes leading axes; None where it is zero."""
        d, map_, axis = self.risk.criterion.derivatives(outputs, targets)
        n = self.risk.criterion.divisor
        first = (lambda u: d * (d * u).sum(axis, keepdim=True)) if self.output == "probability" else map_
        if self.kind == "ggn":
            return torch.zeros_like(d), lambda u: first(u) / n
        if self.kind == "hessian":
            return d / n, lambda u: map_(u) / n
        return d / n, (lambda u: (map_(u) - first(u)) / n) if self.output == "probability" else None

    @cached_property
    def closed_curve(self) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """``curve`` at all examples of the layer structure."""
        return self.curve(self.structure.outputs, self.structure.targets)  # type: ignore[union-attr]

    @cached_property
    def closed_terms(self) -> tuple[Tensor, Tensor]:
        """``terms`` at all examples of the layer structure."""
        return self.terms(self.structure.outputs, self.structure.targets)  # type: ignore[union-attr]

    # -- products ---------------------------------------------------------------------------------

    @cached_property
    def reference_product(self) -> Tensor:
        """The product (M,) with ``certificates.probe`` by plain double backward."""
        return plain_product(self.risk, self.kind, self.output, probe(self.risk))

    def certify(self) -> None:
        """Compare the route of the products with independent ones, once for each risk and kind of operator."""
        done = self.risk._certified
        self.risk.certify()
        columns = min(2, self.chunk)  # several at a time go another way than one
        if (self.kind, self.output, columns) not in done:
            v = probe(self.risk)
            check_product(self, self._route(torch.stack([v, v.flip(0)])[:columns])[0], "a product")
            done.add((self.kind, self.output, columns))

    def _route(self, vectors: Tensor) -> Tensor:
        """Products with the rows of (k, M), in closed form or by automatic differentiation."""
        if self.structure is not None and not self.structure.head:
            return self.structure.product(vectors, *self.closed_curve)
        if self._batched and (len(vectors) > 1 or self.kind != "hessian"):  # for one vector double backward is faster
            try:
                return self._autograd_product(vectors)
            except ValueError:
                raise
            except Exception:  # old autograd.Functions, checkpoints, some compiled modules: not for torch.func
                self._batched = False
        return torch.stack([plain_product(self.risk, self.kind, self.output, v) for v in vectors])

    @sdpa_kernel(SDPBackend.MATH)  # the fused attention kernels have no second derivative
    def _autograd_product(self, vectors: Tensor) -> Tensor:
        """Products with the rows of (k, M) by automatic differentiation, over all batches."""
        risk, total = self.risk, torch.zeros_like(vectors)
        tangents = risk.unflatten(vectors)
        for weight, x, y in risk.weighted_batches():
            f = lambda p, x=x: risk.outputs(p, x)
            if self.kind == "hessian":
                scalar = lambda p, y=y, f=f, w=weight: w * risk.criterion.function(f(p), y)  # type: Callable[..., Tensor]
            else:
                f0 = f(risk.parameters).detach()
                if len(f0) != len(y):
                    raise ValueError(f"model: {self.kind} needs outputs of shape (N, ...), got {tuple(f0.shape)}")
                d, curve = self.curve(f0, y)
                # a function of the parameters whose Hessian is this operator; d and A held fixed
                scalar = lambda p, f=f, f0=f0, d=d, curve=curve: (
                    (d * f(p)).sum() + (0 if curve is None else ((f(p) - f0) * curve(f(p) - f0)).sum() / 2)
                )
            # linear maps are set up once; only their application is batched over the vectors
            if self.kind == "ggn":
                _, pull = vjp(f, risk.parameters)  # type: ignore[misc]
                # transpose of the transpose
                _, push = vjp(lambda u, pull=pull: pull(u)[0], torch.zeros_like(f0))  # type: ignore[misc]
                product = lambda v, curve=curve, pull=pull, push=push: pull(curve(push(v)[0]))[0]  # type: Callable[..., Any]
            else:
                _, pull = vjp(grad(scalar), risk.parameters)  # type: ignore[misc]
                product = lambda v, pull=pull: pull(v)[0]
            parts = vmap(product)(tangents)
            total += torch.cat([parts[n].reshape(len(vectors), -1) for n in risk.parameters], 1)
        return total

    @property
    def memory_budget(self) -> int:
        """Bytes for what a product needs beside its result, shared by all operators of the risk; settable."""
        return self.risk.memory_budget

    @memory_budget.setter
    def memory_budget(self, size: float) -> None:
        self.risk.memory_budget = size

    @property
    def bytes_per_column(self) -> int:
        """Temporary memory of one product, with as many examples at a time as the budget allows."""
        largest = max(len(y) for _, _, y in self.risk.weighted_batches())
        return largest * self.risk.bytes_per_example + 4 * self.risk.num_parameters * self.dtype.itemsize

    @property
    def chunk(self) -> int:
        """Columns that go through at a time within the memory budget; more than 256 gain nothing."""
        return max(1, min(256, self.memory_budget // self.bytes_per_column))

    def product(self, vectors: Tensor) -> Tensor:
        """Products with the rows of a (k, M) tensor, in chunks of bounded memory."""
        self.certify()
        if not len(vectors):
            return vectors.to(self.risk.vector)
        # a loss may have parameters of its own that require a gradient
        return torch.cat([self._route(v).detach() for v in vectors.to(self.risk.vector).split(self.chunk)])

    def to_dense(self, *, checkpoint: str | Path | None = None, progress: bool | None = None) -> Tensor:
        """The matrix (M, M), by the fastest exact route (see ``hesslib.curvature.dense``).

        Raises ``MemoryError`` before anything is allocated that cannot fit.
        """
        from .dense import to_dense

        return to_dense(self, checkpoint=checkpoint, progress=progress)
