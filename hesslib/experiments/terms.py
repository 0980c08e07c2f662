"""What the second term of the Hessian is made of: slopes of the loss times second derivatives of the outputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, hessian, vmap

from ..curvature.risk import EmpiricalRisk


def output_slopes(risk: EmpiricalRisk) -> Tensor:
    """Gradient d_n of each example's loss in its outputs, (N, C)."""
    x, y = risk.batches[0]
    with torch.no_grad():
        return risk.criterion.terms(risk.outputs(risk.parameters, x), y)[0]


def curvature_of_outputs(risk: EmpiricalRisk, slopes: Tensor) -> Tensor:
    """Mean over examples of the sum over outputs of slope times second derivative, (M, M): R, if the slopes are d_n."""
    x, _ = risk.batches[0]
    linear = EmpiricalRisk(risk.model, x, slopes, lambda f, d: (f * d).sum(1).mean())
    return linear.at(risk.vector).hessian().to_dense()


def summand_norms(risk: EmpiricalRisk, slopes: Tensor, chunk: int = 50) -> Tensor:
    """Frobenius norms of the N matrices of which R is the mean, for a chain of layers that begins with a Linear one.

    The first layer's parameters act on one example through its pre-activation z alone, and the derivative of z in them
    has orthogonal rows of length |(x, 1)|: in units of that length the norm is the one in z and the later parameters.
    """
    x, _ = risk.batches[0]
    (_, weight), (_, bias), *later = risk.parameters.items()
    z, length, tail = x @ weight.T + bias, (x.square().sum(1) + 1).sqrt(), risk.model[1:]

    def output(theta: Tensor, z: Tensor, length: Tensor, slope: Tensor) -> Tensor:
        parts = theta[len(z) :].split([p.numel() for _, p in later])
        values = {name: part.view_as(p) for (name, p), part in zip(later, parts, strict=True)}
        return functional_call(tail, values, (z + length * theta[: len(z)],), strict=True) @ slope

    theta = torch.cat([torch.zeros_like(z[0]), *(p.flatten() for _, p in later)])
    norm = lambda z, length, slope: hessian(output)(theta, z, length, slope).square().sum().sqrt()
    return vmap(norm, chunk_size=chunk)(z, length, slopes)


def class_means(risk: EmpiricalRisk) -> Tensor:
    """What is left of G where gradients are replaced by class means, as a square root (C C, M): G is about B' B.

    G = 1/N sum_n sum_l p_nl g_nl g_nl' with g_nl = J_n' (p_n - e_l), the gradient of example n if its label were l
    (Papyan 2019). Each g_nl gives way to its mean over the examples of the same class, weighted by p_nl. Needs
    cross-entropy, outputs (N, C) and one batch.
    """
    (x, y), k = risk.batches[0], risk.num_outputs
    weights = {name: w.clone().requires_grad_() for name, w in risk.parameters.items()}
    outputs, found = risk.outputs(weights, x), []
    p = outputs.detach().softmax(1)
    for c in y.unique():
        own = p[y == c]
        pulled = own.T[:, :, None] * (own - torch.eye(k).to(p)[:, None]) / len(x)  # (label, example, output)
        options = {"retain_graph": True, "is_grads_batched": True}
        parts = torch.autograd.grad(outputs[y == c], list(weights.values()), pulled, **options)
        found.append(torch.cat([g.flatten(1) for g in parts], 1) / (own.sum(0) / len(x)).sqrt()[:, None])
    return torch.cat(found)
