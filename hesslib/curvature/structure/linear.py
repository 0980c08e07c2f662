"""Closed-form curvature of chains of Linear layers and elementwise activations.

Write z_l = W_l a_{l-1} + b_l and a_l = phi_l(z_l), and let q be a scalar function of the outputs with
gradient d and Hessian A at each example. With d_l and A_l the gradient and Hessian of q with respect
to z_l, T_{ml} = dz_m/dz_l and P_{ml} = da_{m-1}/dz_l, the Hessian of the mean of q has the blocks
(m >= l; rows p, q of W_m and columns i, j of W_l; biases are an extra constant input)

    H[pq, ij] = 1/N sum_n ( (A_m T_ml)[p, i] a_{m-1}[q] + d_m[p] P_ml[q, i] ) a_{l-1}[j].

Each of the two terms is one matrix product that contracts the examples. The operators differ only in
(A, d): H takes the loss's own, G sets d = 0, and R sets A = 0 (see ``operators.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from .chain import derivatives, inputs_of, tail_of

if TYPE_CHECKING:
    from ..risk import EmpiricalRisk

    Pulled: TypeAlias = tuple[Tensor, Tensor, Any]  # d of a layer's outputs and of its z, and A or None


@dataclass(eq=False)
class Layer:
    """One Linear layer and the activation after it, with what is known at each of the N examples."""

    weight: Tensor  # (n, fan_in)
    weight_at: slice | None  # where its weight lies among the M chosen parameters
    bias_at: slice | None
    inputs: Tensor  # (N, fan_in [+ 1]), with the constant input of the bias appended
    slope: Tensor  # phi'(z), (N, n)
    bend: Tensor | None  # phi''(z), None where it is zero everywhere

    @property
    def width(self) -> int:
        """Number of units."""
        return self.weight.shape[0]


class LayerStructure:
    """The chain at the end of a risk's model, evaluated at all its examples.

    ``LayerStructure.of(risk)`` is None where the model has no such chain or its outputs are not (N, C).
    """

    layers: list[Layer]
    head: list[tuple[str, slice]]  # chosen parameters before the chain, with their places
    outputs: Tensor  # (N, C)
    targets: Tensor  # (N, ...)

    @classmethod
    def of(cls, risk: EmpiricalRisk) -> LayerStructure | None:
        """Evaluate the chain at the end of ``risk.model``; None if there is none."""
        chain = tail_of(risk.model)
        if not chain:
            return None
        caught, outputs = inputs_of(risk, chain[0][1])  # type: Any, Any
        if any(a.ndim != 2 for a in caught + outputs):
            return None
        a, outputs = torch.cat(caught), torch.cat(outputs)
        if len(a) != len(outputs) or len(a) != risk.num_examples:
            return None
        self, places = cls(), risk.places
        values = {**risk.parameters, **risk.constants}
        self.layers = []
        for name, layer, activations in chain:
            w, b = values[f"{name}.weight"], values.get(f"{name}.bias") if layer.bias is not None else None
            z = a @ w.T if b is None else torch.addmm(b, a, w.T)
            inputs = a if b is None else torch.cat([a, torch.ones_like(a[:, :1])], 1)
            a, slope, bend = derivatives(activations, z)
            at = places.pop(f"{name}.weight", None), places.pop(f"{name}.bias", None)
            self.layers.append(Layer(w, *at, inputs, slope, bend))
        if not torch.allclose(a, outputs, rtol=1e-4, atol=1e-5 * float(outputs.abs().max())):
            return None  # something between the layers escaped the trace
        self.head = list(places.items())
        self.outputs, self.targets = outputs, torch.cat([y for _, y in risk.batches])
        return self

    def backward(self, gradient: Tensor, curvature: Tensor | None) -> list[Pulled]:
        """Gradient (N, n_l) and Hessian (N, n_l, n_l) with respect to each z_l, first layer first.

        ``gradient`` and ``curvature`` are those with respect to the outputs; a curvature of None asks
        for the gradients alone. The loop also yields the gradient with respect to each a_l.
        """
        found = []
        for layer in reversed(self.layers):
            outer, gradient = gradient, gradient * layer.slope
            if curvature is not None:
                curvature = layer.slope[:, :, None] * curvature * layer.slope[:, None, :]
                if layer.bend is not None:
                    curvature = curvature + torch.diag_embed(outer * layer.bend)
            found.append((outer, gradient, curvature))
            gradient = gradient @ layer.weight
            if curvature is not None and layer is not self.layers[0]:
                curvature = layer.weight.T @ curvature @ layer.weight
        return found[::-1]

    def product(self, vectors: Tensor, gradient: Tensor, curve: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Products with k vectors (k, M) by Pearlmutter's R-operator, batched; returns (k, M).

        ``gradient`` (N, C) and ``curve``, the map u -> A u of (k, N, C), are q's, already divided by N.
        """
        k, result = len(vectors), torch.zeros_like(vectors)
        known = self.backward(gradient, None)
        bent = bool(gradient.any())  # G has no gradient term
        matrices, z_dots, a_dots, a_dot = [], [], [], None  # type: list[Tensor], list[Tensor], list[Any], Any
        for layer in self.layers:
            n, fan_in = layer.weight.shape
            matrix = vectors.new_zeros(k, n, layer.inputs.shape[1])
            if layer.weight_at is not None:
                matrix[:, :, :fan_in] = vectors[:, layer.weight_at].reshape(k, n, fan_in)
            if layer.bias_at is not None:
                matrix[:, :, fan_in] = vectors[:, layer.bias_at]
            z_dot = (layer.inputs @ matrix.reshape(k * n, -1).T).reshape(-1, k, n)
            if a_dot is not None:
                z_dot += a_dot @ layer.weight.T
            matrices.append(matrix)
            a_dots.append(a_dot)
            z_dots.append(z_dot)
            a_dot = layer.slope[:, None] * z_dot
        d_dot = torch.zeros_like(a_dot) if curve is None else curve(a_dot.transpose(0, 1)).transpose(0, 1)
        steps = zip(self.layers, matrices, z_dots, a_dots, known, strict=True)
        for layer, matrix, z_dot, a_dot, (outer, inner, _) in reversed(list(steps)):
            n, fan_in = layer.weight.shape
            d_dot = d_dot * layer.slope[:, None]
            if layer.bend is not None and bent:
                d_dot += (outer * layer.bend)[:, None] * z_dot
            block = (d_dot.reshape(-1, k * n).T @ layer.inputs).reshape(k, n, -1)
            if a_dot is not None and bent:
                block[:, :, :fan_in] += (inner.T @ a_dot.reshape(-1, k * fan_in)).reshape(n, k, fan_in).transpose(0, 1)
            if layer.weight_at is not None:
                result[:, layer.weight_at] = block[:, :, :fan_in].reshape(k, -1)
            if layer.bias_at is not None:
                result[:, layer.bias_at] = block[:, :, fan_in]
            if layer is not self.layers[0]:
                d_dot = d_dot @ layer.weight
                if bent:
                    d_dot += torch.einsum("np,kpi->nki", inner, matrix[:, :, :fan_in])
        return result


def factor(curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors b (N, r, C) and signs (N, r) with A_n = sum_r sign b b', r the largest rank among the A_n."""
    values, vectors = torch.linalg.eigh(curvature)
    order = values.abs().argsort(1, descending=True)
    values = values.gather(1, order)
    vectors = vectors.transpose(1, 2).gather(1, order[:, :, None].expand_as(vectors))
    floor = 10 * torch.finfo(values.dtype).eps * values.abs().amax(1, keepdim=True)
    rank = int((values.abs() > floor).sum(1).max())
    values, vectors = values[:, :rank], vectors[:, :rank]
    return vectors * values.abs().sqrt()[:, :, None], torch.where(values < 0, -1.0, 1.0).to(values)
