"""Batches of examples: how they are given, counted, and taken apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


def tensors_of(data: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    return [t for t in tree_leaves(data) if isinstance(t, Tensor)]


def count_examples(inputs: Any) -> int:
    """The number of examples of a batch: the first axis of its first tensor."""
    return len(tensors_of(inputs)[0])


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the model's forward for a batch."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def axes_of(inputs: Any) -> Any:
    """For each tensor of a batch whether its first axis runs over the examples: 0, or None."""
    count = count_examples(inputs)
    return tree_map(lambda t: 0 if isinstance(t, Tensor) and t.ndim and len(t) == count else None, inputs)


def take(inputs: Any, axes: Any, part: slice) -> Any:
    """Some examples of a batch; what has no axis of examples stays whole."""
    return tree_map(lambda t, axis: t if axis is None else t[part], inputs, axes)


def spread(outputs: Tensor) -> Tensor:
    """How far each output, of any example, lies from its mean over the examples; 0 where it is infinite."""
    return (outputs - outputs.mean(0)).abs().amax(0).nan_to_num(0.0, 0.0, 0.0)


def agree(some: Tensor, others: Tensor, size: Tensor, allowed: float) -> bool:
    """Whether outputs are the same but for rounding and ``allowed`` times a size for each; infinite ones are equal."""
    if some.shape != others.shape:
        return False
    near = (some - others).abs() <= allowed * size + 10 * torch.finfo(some.dtype).eps * others.abs()
    return bool(((some == others) | near).all())


def pair_batches(inputs: Any, targets: Any) -> list[tuple[Any, Tensor]]:
    """Batches (inputs, targets), whichever way they are given."""
    if targets is None:
        if isinstance(inputs, Tensor | dict) or not isinstance(inputs, Iterable):
            raise ValueError("targets: give them, or as inputs a DataLoader that yields pairs (inputs, targets)")
        pairs = list(inputs)
        if not all(isinstance(pair, tuple | list) and len(pair) >= 2 for pair in pairs):
            raise ValueError(
                "inputs: without targets each item must be a pair (inputs, targets), or (a, b, ..., targets)"
            )
        inputs = [pair[0] if len(pair) == 2 else tuple(pair[:-1]) for pair in pairs]
        targets = [pair[-1] for pair in pairs]
    single = lambda data: isinstance(data, Tensor | dict) or not isinstance(data, Iterable)
    inputs, targets = ([data] if single(data) else list(data) for data in (inputs, targets))
    for name, batches, kinds in (("inputs", inputs, Tensor | tuple | dict), ("targets", targets, Tensor)):
        if not all(isinstance(batch, kinds) and tensors_of(batch) for batch in batches):
            raise ValueError(f"{name}: a tensor or a list of tensors is needed (torch.as_tensor makes one)")
    if len(inputs) != len(targets):
        raise ValueError(f"targets: {len(targets)} batches given for {len(inputs)} of the inputs")
    # torch.func cannot do channels_last
    contiguous = lambda t: t.contiguous() if isinstance(t, Tensor) else t
    return [(tree_map(contiguous, x), y) for x, y in zip(inputs, targets, strict=True)]
