"""Checks of a model and its loss that evaluate or differentiate them.

Their functions are called for their refusals alone, so the closures of stored results leave them out, as they do
``hesslib/_checks.py``: a refusal more changes no number. Where a check cannot be made, it is silent.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .batches import agree, spread
from .certificates import (
    CAUSES,
    CertificateError,
    _Some,
    direction,
    plain_product,
    relative,
    report,
    value_and_gradient,
)

if TYPE_CHECKING:
    from .risk import EmpiricalRisk

    Batch = tuple[float, Any, Tensor]


def take_own(risk: EmpiricalRisk, index: int, examples: slice) -> Any:
    """Some examples of a batch of inputs; None where its tensors are not all one row an example."""
    shared = Counter(id(t) for x, _ in risk.batches for t in tree_leaves(x) if isinstance(t, Tensor))
    x, y = risk.batches[index]
    own = [t for t in tree_leaves(x) if isinstance(t, Tensor) and shared[id(t)] == 1]
    if not all(t.ndim and len(t) == len(y) for t in own):
        return None
    return tree_map(lambda t: t[examples] if any(t is one for one in own) else t, x)


def evaluate(risk: EmpiricalRisk, inputs: Any, vector: Tensor | None = None) -> Any:
    """The model's outputs, without a trace in random states and buffers."""
    once = copy.copy(risk)
    once.constants = {n: c.clone() for n, c in risk.constants.items()}
    values = risk.parameters if vector is None else risk.unflatten(vector)
    with torch.random.fork_rng(devices=[risk.device] if risk.device.type == "cuda" else []):
        outputs = once.outputs(values, inputs)
    return outputs.detach() if isinstance(outputs, Tensor) else outputs


def variables_of(value: Tensor) -> Iterator[Tensor]:
    """The tensors that require a gradient of which a value is made."""
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            if hasattr(node, "variable"):
                yield node.variable


def check_loss(risk: EmpiricalRisk) -> None:
    """Refuse a callable loss that fails, that depends on the model's parameters, or that sums over the examples.

    Raises:
        ValueError: the message names the loss and what is valid.
    """
    check_reduction(risk)
    check_targets(risk)
    f = evaluate(risk, risk.batches[0][0]) if risk.criterion.name == "custom" else None
    if not isinstance(f, Tensor) or f.dtype != risk.dtype:  # what is wrong with outputs the risk says itself
        return
    y, loss = risk.batches[0][1], risk.criterion.function
    twice = lambda t: torch.cat([t, t])
    cuda = [risk.device] if risk.device.type == "cuda" else []
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=cuda):
            given = f.clone()
            value = loss(given, y)
            loss(twice(f), twice(y))
    except Exception as error:
        hint = "; loss='cross_entropy' takes (N, ..., C) too" if isinstance(loss, nn.CrossEntropyLoss) else ""
        raise ValueError(
            f"loss: it fails for outputs {tuple(f.shape)} {f.dtype} and targets {tuple(y.shape)} {y.dtype}, or for the "
            f"same examples twice: {type(error).__name__} {(str(error).splitlines() or [''])[0]}{hint}"
        ) from error
    if given._version:
        raise ValueError("loss: it changes the outputs in place; let it work on a copy, outputs.clone()")
    if not isinstance(value, Tensor) or value.ndim:
        return
    if any(v is p for v in variables_of(value) for p in risk.model.parameters()):
        raise ValueError(
            "loss: it depends on the model's parameters directly (weight decay?), and H would be without that term; "
            "take it out: decay of lambda/2 |w|^2 adds lambda to each eigenvalue"
        )
    noise = torch.randn(f.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(f)
    for g in (f, f.roll(1, 0), f + (f.abs().mean() or 1.0) * noise):  # where all is fitted, a sum is zero too
        try:
            with torch.random.fork_rng(devices=cuda):
                one, two = (float(v.detach()) for v in (loss(g, y), loss(twice(g), twice(y))))
        except Exception:  # outputs that the loss does not take
            continue
        wrong, verb = (2, "average") if risk.criterion.reduction == "mean" else (1, "sum")
        if one and abs(two - wrong * one) <= 1e-3 * abs(one):
            raise ValueError(
                f"loss: the callable must {verb} over the examples, but gives {one:.4g} for a batch and {two:.4g} for "
                f"the same batch twice; use reduction={risk.criterion.reduction!r} in the loss, or give the other one "
                "to EmpiricalRisk"
            )


def check_reduction(risk: EmpiricalRisk) -> None:
    """Refuse a loss module that says the other reduction than the risk.

    Raises:
        ValueError: it does.
    """
    kind = getattr(risk.criterion.function, "reduction", risk.criterion.reduction)
    if kind != risk.criterion.reduction and kind in ("mean", "sum"):
        raise ValueError(
            f"loss: the callable must {'average' if kind == 'sum' else 'sum'} over the examples, but it has "
            f"reduction={kind!r}; give it reduction={risk.criterion.reduction!r}, or the other one to EmpiricalRisk"
        )


def check_targets(risk: EmpiricalRisk) -> None:
    """Refuse targets in double precision for a model in single, and targets of which none counts.

    Raises:
        ValueError: the message says which.
    """
    targets, known = [y for _, y in risk.batches], risk.criterion.function  # type: list[Tensor], Any
    if risk.criterion.name in ("mse", "binary_cross_entropy") and risk.dtype == torch.float32:
        for y in targets:
            if y.dtype == torch.float64:
                raise ValueError(f"targets: dtype {y.dtype} differs from the model's {risk.dtype}; convert one of them")
    classes = type(known) is nn.CrossEntropyLoss and not any(y.is_floating_point() for y in targets)
    if classes and all(bool((y == known.ignore_index).all()) for y in targets):
        raise ValueError(f"targets: all are {known.ignore_index}, so there is nothing to average over")


def check_own_gradients(risk: EmpiricalRisk, output: str) -> None:
    """The empirical Fisher matrix needs a loss that is a mean over the examples, each with a gradient of its own.

    Raises:
        ValueError: the loss is none, or whose gradients are meant is not to be known.
    """
    if output != "probability" or risk.criterion.name == "cross_entropy":
        return
    loss, why = risk.criterion.function, ""  # type: Any, str
    x, y = next((x, y) for share, x, y in risk.weighted_batches())
    f = evaluate(risk, x)
    if f.ndim == 1:
        why = "it needs outputs (N, 1) in the place of (N,)"
    elif risk.criterion.name != "custom":
        why = "" if risk.criterion.reduction == "mean" else f"of {risk.criterion.name!r} it needs reduction='mean'"
    elif isinstance(loss, nn.CrossEntropyLoss) and not y.is_floating_point():
        ignored = any(bool((t == loss.ignore_index).any()) for _, t in risk.batches)
        why = (
            "with class weights or ignored targets it needs 'cross_entropy' by name"
            if loss.weight is not None or ignored
            else ""
        )
    if risk.criterion.name == "custom" and not why:
        few = slice(64)
        ones = [loss(a[None].clone(), b[None]) for a, b in zip(f[few], y[few], strict=True)]
        whole = torch.stack(ones).mean() * (1 if risk.criterion.reduction == "mean" else len(ones))
        if not torch.allclose(loss(f[few].clone(), y[few]), whole, rtol=1e-5, equal_nan=True):
            why = f"the loss is not the {risk.criterion.reduction} of its values for single examples"
    if why:
        raise ValueError(f"output='probability': {why}")


def check_examples(risk: EmpiricalRisk) -> None:
    """Several batches need a model whose outputs for an example do not depend on the others of its batch.

    Raises:
        CertificateError: they do, seen on every second example of the largest batch.
    """
    index = max(range(len(risk.batches)), key=lambda i: len(risk.batches[i][1]))
    (x, y), part = risk.batches[index], slice(1, None, 2)
    some = None if len(risk.batches) == 1 or len(y) < 2 else take_own(risk, index, part)
    if some is None:
        return
    try:
        whole, few = evaluate(risk, x), evaluate(risk, some)
    except Exception:  # a model for batches of this size alone
        return
    tensors = isinstance(whole, Tensor) and isinstance(few, Tensor)
    if not tensors or len(whole) != len(y) or few.shape != whole[part].shape:
        return
    allowed, rest = 1e-6 if risk.dtype == torch.float64 else 1e-3, whole[part]
    same = agree(few, rest, spread(whole), allowed)
    if not same:  # or the outputs cancel at this point
        same = agree(few, rest, spread(evaluate(risk, x, risk.vector + 0.1 * direction(risk))), allowed)
    if not same:
        apart = float((few - rest).abs().nan_to_num(0.0).max())
        report(
            risk, f"model: its outputs for an example depend on the other examples of the batch (by {apart:.1e}), so "
            "the risk depends on how they are batched; give them as one batch, or each sequence with a batch axis: "
            "inputs (1, T, ...) and targets (1, T)",
        )  # fmt: skip


def check_single_precision(risk: EmpiricalRisk) -> None:
    """Double backward of a float32 model must be the derivative of its gradient, by differences in double precision.

    Of 32 examples of a batch, or all of it where these tell nothing. Where the model does not run in double precision
    the differences are in single, too coarse to tell anything over the kinks of a ReLU.

    Raises:
        CertificateError: it is not.
    """
    if risk.dtype == torch.float64:
        return
    index = next(i for i, share in enumerate(risk.shares) if share)
    x, y = risk.batches[index]
    few = take_own(risk, index, slice(32))
    batches = [(1.0, x, y)] if few is None else [(1.0, few, y[:32]), (1.0, x, y)]
    for precise in (True, False):
        for batch in batches:
            try:
                if precise:
                    told = compare_second_derivative(*in_double(risk, batch), (1e-5, 1e-6, 1e-7), 1e-3)
                else:
                    told = compare_second_derivative(risk, batch, (1e-2, 3e-3, 1e-3), 5e-2)
            except CertificateError:
                raise
            except Exception:  # what cannot be differentiated twice the operator says itself
                continue
            if told:
                return


def in_double(risk: EmpiricalRisk, batch: Batch) -> tuple[EmpiricalRisk, Batch]:
    """The same risk and batch in double precision."""
    double = lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t
    other = risk.at(risk.vector)
    other.parameters, other.constants = tree_map(double, risk.parameters), tree_map(double, risk.constants)
    other.dtype = torch.float64
    if isinstance(risk.criterion.function, nn.Module):
        other.criterion = copy.copy(risk.criterion)
        other.criterion.function = copy.deepcopy(risk.criterion.function).double()
    return other, tree_map(double, batch)


def compare_second_derivative(risk: EmpiricalRisk, batch: Batch, steps: tuple[float, ...], allowed: float) -> bool:
    """Report where double backward differs from differences of gradients that agree with each other.

    At a point beside the risk's own, which may lie on a kink.

    Returns:
        whether the batch tells anything: a loss without curvature does not.
    """
    v = direction(risk)
    w = risk.vector + 1e-3 * v.flip(0).sign() * v.abs()
    one = _Some(risk.at(w), [batch])
    at = lambda vector: value_and_gradient(risk, risk.unflatten(vector), [batch])[1]
    difference = lambda h: (at(w + h * v) - at(w - h * v)) / (2 * h)
    product, found = plain_product(one, "hessian", "logits", v), [difference(steps[0])]
    if relative(found[0], product) <= allowed:
        return bool(product.norm() > 0)
    found += [difference(h) for h in steps[1:]]
    spread = max(float((a - found[0]).norm()) for a in found)
    apart = min(float((a - product).norm()) for a in found)
    rounding = 1e4 * torch.finfo(risk.dtype).eps * float(plain_product(one, "scale", "logits", v).norm())
    if spread < 0.1 * apart and apart > rounding:
        report(
            risk, f"H: double backward differs by {relative(found[-1], product):.1e} from differences of gradients; "
            f"{CAUSES}, or a cast to bfloat16 or half precision in forward",
        )  # fmt: skip
    return True
