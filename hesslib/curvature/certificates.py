"""Second opinions on an operator, asked for once, before any number of it is returned.

Three routes that share as little as possible: the operator's own (a closed form, or ``torch.func``); plain double
backward of the loss as given over the batches as given; and differences of losses and gradients at nearby
parameters, which know nothing of second derivatives. A ReLU network has kinks, where a difference tells nothing:
its error there changes with the step, that of a wrong derivative does not, and only the latter counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .losses import class_axis

if TYPE_CHECKING:
    from .operators import CurvatureOperator
    from .risk import EmpiricalRisk

CAUSES = (
    "likely causes are a custom autograd.Function, a hook that changes gradients, checkpoint() in forward, or an "
    "operation whose derivative PyTorch has wrong (weight_norm)"
)
DETACHED = (
    "likely causes are no_grad() or detach() in forward (name the parameters that count: parameters=[...]), a hook "
    "that changes gradients, or a custom autograd.Function"
)


class CertificateError(RuntimeError):
    """Two independent routes to the same numbers differ, so none is returned."""


def report(risk: EmpiricalRisk | _Some, message: str) -> None:
    """Raise a failed certificate, or warn of it where the risk was made with ``on_failure="warn"``."""
    if risk.on_failure == "raise":
        raise CertificateError(message)
    warnings.warn(message, stacklevel=2)


def probe(risk: EmpiricalRisk) -> Tensor:
    """A random direction (M,), always the same."""
    return torch.randn(risk.num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(
        risk.vector
    )


def direction(risk: EmpiricalRisk) -> Tensor:
    """A random direction (M,) of the size of each parameter, in which a row of padding stays: it has no gradient."""
    v = probe(risk)
    for part, p in zip(risk.unflatten(v).values(), risk.parameters.values(), strict=True):
        part *= p.abs() + (p.abs().median() or 1.0)
    for name, module in risk.model.named_modules():
        weight = f"{name}.weight" if name else "weight"
        if getattr(module, "padding_idx", None) is not None and weight in risk.parameters:
            risk.unflatten(v)[weight][module.padding_idx] = 0
    return v


def plain_product(risk: EmpiricalRisk | _Some, kind: str, output: str, vector: Tensor) -> Tensor:
    """H v, G v or R v, (M,), by differentiating twice with ``torch.autograd`` alone, batch by batch.

    ``kind`` may also be ``"scale"``: 1/N J'J v, the size of which says what is rounding error.
    """
    try:
        return _differentiate_twice(risk, kind, output, vector)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, CertificateError) or "memory" in str(error):
            raise
        raise RuntimeError(
            f"model: PyTorch cannot differentiate it twice ({str(error).splitlines()[0]}); sparse gradients, quantised "
            "and scripted modules have no second derivative"
        ) from error


@sdpa_kernel(SDPBackend.MATH)  # the fused attention kernels have no second derivative
@torch.enable_grad()
def _differentiate_twice(risk: EmpiricalRisk | _Some, kind: str, output: str, vector: Tensor) -> Tensor:
    total, tangents = torch.zeros_like(vector), list(risk.unflatten(vector).values())
    for weight, x, y in risk.weighted_batches():
        values = {n: p.clone().requires_grad_() for n, p in risk.parameters.items()}
        leaves = list(values.values())
        f = risk.outputs(values, x)
        found = [torch.zeros_like(p) for p in leaves]
        if kind in ("hessian", "residual"):
            slopes = grad(weight * risk.criterion.function(f, y), leaves, create_graph=True, materialize_grads=True)
            dot = sum((a * b).sum() for a, b in zip(slopes, tangents))
            if dot.requires_grad:
                found = list(grad(dot, leaves, retain_graph=True, materialize_grads=True))
        if kind != "hessian":
            sign = -1 if kind == "residual" else 1
            pushed = _push(f, leaves, tangents)
            curved = pushed / risk.num_examples if kind == "scale" else _curve(risk, weight, f, y, pushed, output)
            pulled = grad(f, leaves, curved, materialize_grads=True)
            found = [a + sign * b for a, b in zip(found, pulled)]
        total += torch.cat([p.reshape(-1) for p in found])
    return total


def _push(f: Tensor, leaves: list[Tensor], tangents: list[Tensor]) -> Tensor:
    """J v as the transpose of the transpose."""
    u = torch.zeros_like(f, requires_grad=True)
    pulled = grad(f, leaves, u, create_graph=True, materialize_grads=True)
    return grad(pulled, u, tangents, materialize_grads=True)[0]


def _curve(risk: EmpiricalRisk | _Some, weight: float, f: Tensor, y: Tensor, pushed: Tensor, output: str) -> Tensor:
    """The curvature of the loss in the outputs, times J v."""
    f = f.detach().requires_grad_()
    (d,) = grad(weight * risk.criterion.function(f, y), f, create_graph=True)
    if output == "probability":
        axis = class_axis(f, y) if risk.criterion.name == "cross_entropy" else tuple(range(1, f.ndim))
        return risk.criterion.divisor * d.detach() * (d.detach() * pushed).sum(axis, keepdim=True)
    dot = (d * pushed).sum()
    return grad(dot, f, materialize_grads=True)[0] if dot.requires_grad else torch.zeros_like(f)


@sdpa_kernel(SDPBackend.MATH)
def differentiable_gradient(risk: EmpiricalRisk, inputs: Any, targets: Tensor) -> list[Tensor]:
    """The gradient for some examples with the graph of its computation; where it has none, that of their outputs."""
    leaves = [p.clone().requires_grad_() for p in risk.parameters.values()]
    f = risk.outputs(dict(zip(risk.parameters, leaves, strict=True)), inputs)
    try:
        return list(grad(risk.criterion.function(f, targets), leaves, create_graph=True, materialize_grads=True))
    except RuntimeError:
        return [f]


def value_and_gradient(
    risk: EmpiricalRisk, parameters: dict[str, Tensor], batches: Iterable[tuple[float, Any, Tensor]]
) -> tuple[float, Tensor]:
    """The loss over some weighted batches and its gradient (M,)."""
    value, total = 0.0, torch.zeros(risk.num_parameters, dtype=risk.dtype, device=risk.device)
    leaves = {n: p.detach().clone().requires_grad_() for n, p in parameters.items()}
    with torch.enable_grad():
        for weight, x, y in batches:
            part = weight * risk.criterion.function(risk.outputs(leaves, x), y)
            value += float(part.detach())
            if part.requires_grad:
                parts = grad(part, list(leaves.values()), materialize_grads=True)
                total += torch.cat([(p.to_dense() if p.is_sparse else p).reshape(-1) for p in parts])
    return value, total


def relative(a: Tensor, b: Tensor) -> float:
    """Distance of a to b relative to the larger of the two."""
    a, b = a.detach(), b.detach()
    size = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / size if size else 0.0


def check_derivatives(risk: EmpiricalRisk) -> None:
    """The gradient must be the loss's derivative and, in float64, double backward the gradient's; on one batch."""
    first = next(parts for i in range(len(risk.batches)) if (parts := risk.parts(i)))
    at = lambda vector: value_and_gradient(risk, risk.unflatten(vector), first)
    v, w, double = probe(risk), risk.vector, risk.dtype == torch.float64
    for name, module in risk.model.named_modules():  # the row of padding has no gradient, by PyTorch's definition
        weight = f"{name}.weight" if name else "weight"
        if getattr(module, "padding_idx", None) is not None and weight in risk.parameters:
            risk.unflatten(v)[weight][module.padding_idx] = 0
    v *= (float(w.norm()) or 1.0) / v.norm()
    value, gradient = at(w)
    h = 1e-5 if double else 1e-3
    (ahead, up), (behind, down) = at(w + h * v), at(w - h * v)
    given, difference = float(gradient @ v), (ahead - behind) / (2 * h)
    apart, kink = abs(difference - given), abs(ahead - 2 * value + behind) / h
    allowed = (1e-3 if double else 5e-2) * max(abs(given), abs(difference))
    if apart > allowed + torch.finfo(risk.dtype).eps ** 0.5 * abs(value) and kink < 0.2 * apart:
        size = apart / max(abs(given), abs(difference))
        report(risk, f"gradient: it differs by {size:.1e} from the loss's own difference quotient; {DETACHED}")
    if not double:
        return
    product = plain_product(_Some(risk, first), "hessian", "logits", v)
    found = [(up - down) / (2 * h)]
    if relative(found[0], product) <= 1e-3:
        return
    for step in (h / 10, h / 100):
        found.append((at(w + step * v)[1] - at(w - step * v)[1]) / (2 * step))
    spread = max(float((a - found[0]).norm()) for a in found)
    if spread < 0.1 * min(float((a - product).norm()) for a in found):
        size = relative(found[-1], product)
        report(risk, f"H: double backward differs by {size:.1e} from differences of gradients; {CAUSES}")


class _Some:
    """A risk that sees some batches."""

    def __init__(self, risk: EmpiricalRisk, batches: list[tuple[float, Any, Tensor]]) -> None:
        self.risk, self.own = risk, batches

    def weighted_batches(self) -> list[tuple[float, Any, Tensor]]:
        return self.own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.risk, name)


def is_rounding(op: CurvatureOperator, error: float) -> bool:
    """Whether an error of products with the probe is what rounding leaves of far larger terms."""
    risk = op.risk
    size = float(plain_product(risk, "scale", op.output, probe(risk)).norm())
    return error <= 1e4 * torch.finfo(risk.dtype).eps * size


def check_product(op: CurvatureOperator, product: Tensor, route: str) -> None:
    """A product (M,) with the probe by some route must agree with plain double backward's."""
    reference = op.reference_product
    size = relative(product, reference)
    if size <= (1e-7 if op.risk.dtype == torch.float64 else 5e-3) or not bool(torch.isfinite(reference).all()):
        return
    if not is_rounding(op, float((product - reference).norm())):
        report(
            op.risk, f"{op.name}: {route} differs by {size:.1e} from plain double backward of the loss; {CAUSES}, or "
            "no_grad() or detach() in forward",
        )  # fmt: skip
