"""Checks of a model and its loss that evaluate or differentiate them.

Their functions are called for their refusals alone, so the closures of stored results leave them out, as they do
``hesslib/_checks.py``: a refusal more changes no number.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .certificates import CAUSES, CertificateError, _First, plain_product, probe, relative, report, value_and_gradient

if TYPE_CHECKING:
    from .risk import EmpiricalRisk


def cut(data: Any, size: int, to: int) -> Any:
    """The first examples of a batch of a size."""
    return tree_map(lambda t: t[:to] if isinstance(t, Tensor) and t.ndim and len(t) == size else t, data)


def evaluate(risk: EmpiricalRisk, inputs: Any) -> Any:
    """The model's outputs, without a trace in random states and buffers."""
    once = copy.copy(risk)
    once.constants = {n: c.clone() for n, c in risk.constants.items()}
    with torch.random.fork_rng(devices=[risk.device] if risk.device.type == "cuda" else []):
        outputs = once.outputs(risk.parameters, inputs)
    return outputs.detach() if isinstance(outputs, Tensor) else outputs


def check_loss(risk: EmpiricalRisk) -> None:
    """Refuse a callable loss that fails, that depends on parameters, or that sums over the examples.

    Raises:
        ValueError: the message names the loss and what is valid.
    """
    f = evaluate(risk, risk.batches[0][0]) if risk.loss_name == "custom" else None
    if not isinstance(f, Tensor):  # what else is wrong with outputs the risk says itself
        return
    y, loss = risk.batches[0][1], risk.loss_function
    try:
        with torch.enable_grad():
            value = loss(f, y)
    except Exception as error:
        hint = "; loss='cross_entropy' takes (N, ..., C) too" if isinstance(loss, nn.CrossEntropyLoss) else ""
        raise ValueError(
            f"loss: it fails for outputs {tuple(f.shape)} {f.dtype} and targets {tuple(y.shape)} {y.dtype}: "
            f"{str(error).splitlines()[0]}{hint}"
        ) from error
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            "loss: it depends on parameters directly (weight decay?), and H would be without that term; take it out "
            "(decay of lambda/2 |w|^2 adds lambda to each eigenvalue); a loss's own parameters need requires_grad=False"
        )
    if not isinstance(value, Tensor) or value.ndim or value.abs() > 1e-3:  # the risk itself tries the examples twice
        return
    rolled = f.roll(1, 0)  # where all examples are fitted, a sum is zero too
    try:
        one, two = loss(rolled, y), loss(torch.cat([rolled, rolled]), torch.cat([y, y]))
    except Exception:  # a loss for these outputs alone
        return
    if not torch.allclose(one, two, rtol=1e-4, equal_nan=True):
        raise ValueError(
            f"loss: the callable must average over the examples, but gives {one.item():.4g} for a batch and "
            f"{two.item():.4g} for the same batch twice; use reduction='mean'"
        )


def check_examples(risk: EmpiricalRisk) -> None:
    """Refuse several batches for a model whose outputs for an example depend on the others of its batch.

    Raises:
        ValueError: it does, seen on the first batch and its first half.
    """
    x, y = risk.batches[0]
    size = len(y)
    if len(risk.batches) == 1 or size == 1:
        return
    try:
        whole, half = evaluate(risk, x), evaluate(risk, cut(x, size, size // 2))
    except Exception:  # a model for batches of this size alone
        return
    tensors = isinstance(whole, Tensor) and isinstance(half, Tensor)
    if not tensors or len(whole) != size or half.shape != whole[: size // 2].shape:
        return
    apart = relative(half, whole[: size // 2])
    if apart > (1e-6 if risk.dtype == torch.float64 else 1e-3):
        raise ValueError(
            f"model: its outputs for an example depend on the other examples of the batch (by {apart:.1e}), so the "
            "risk would depend on how they are batched; give them as one batch"
        )


def check_single_precision(risk: EmpiricalRisk) -> None:
    """Double backward of a float32 model must be the derivative of its gradient, by differences in double precision.

    Of at most 32 examples of one batch. Where the model does not run in double precision the differences are in single,
    too coarse to tell anything over the kinks of a ReLU.

    Raises:
        CertificateError: it is not.
    """
    if risk.dtype == torch.float64:
        return
    _, x, y = next(iter(risk.weighted_batches()))
    batch = (1.0, cut(x, len(y), 32), y[:32])
    double = lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t
    other = risk.at(risk.vector)
    other.parameters, other.constants = tree_map(double, risk.parameters), tree_map(double, risk.constants)
    other.dtype = torch.float64
    try:
        compare_second_derivative(other, tree_map(double, batch), (1e-5, 1e-6, 1e-7), 1e-3)
    except CertificateError:
        raise
    except Exception:
        compare_second_derivative(risk, batch, (1e-2, 3e-3, 1e-3), 5e-2)


def compare_second_derivative(
    risk: EmpiricalRisk, batch: tuple[float, Any, Tensor], steps: tuple[float, ...], allowed: float
) -> None:
    """Report where double backward differs from differences of gradients and these agree with each other."""
    v, w = probe(risk), risk.vector
    v *= (float(w.norm()) or 1.0) / v.norm()
    product = plain_product(_First(risk, batch), "hessian", "logits", v)
    at = lambda vector: value_and_gradient(risk, risk.unflatten(vector), [batch])[1]
    found = [(at(w + h * v) - at(w - h * v)) / (2 * h) for h in steps]
    spread = max(float((a - found[0]).norm()) for a in found)
    apart = min(float((a - product).norm()) for a in found)
    if relative(found[0], product) > allowed and spread < 0.1 * apart:
        report(
            risk, f"H: double backward differs by {relative(found[-1], product):.1e} from differences of gradients; "
            f"{CAUSES}",
        )  # fmt: skip
