"""Losses by name, and where the classes of an output lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable  # noqa: F401  # in a type comment

IGNORED = -100  # targets that do not count, as in torch.nn.functional.cross_entropy


def class_axis(outputs: Tensor, targets: Tensor) -> int:
    """Which axis of outputs (N, C), (N, ..., C) or (N, C, ...) runs over the classes, with targets (N, ...)."""
    last = outputs.shape[:-1] == targets.shape
    second = outputs.ndim > 1 and (outputs.shape[0], *outputs.shape[2:]) == tuple(targets.shape)
    if not (last or second):
        raise ValueError(
            f"model: cross-entropy needs outputs (N, C), (N, ..., C) or (N, C, ...) for targets (N, ...), got "
            f"{tuple(outputs.shape)} for {tuple(targets.shape)}"
        )
    if last and second and outputs.ndim > 2:
        raise ValueError(
            f"model: outputs {tuple(outputs.shape)} may be (N, ..., C) or (N, C, ...); give a callable loss"
        )
    return -1 if last else 1


def token_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, the mean over all targets that are not -100."""
    if outputs.ndim > 2 and class_axis(outputs, targets) == -1:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return F.cross_entropy(outputs, targets)


LOSSES = {
    "cross_entropy": token_cross_entropy,
    "mse": F.mse_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
}  # type: dict[str, Callable[..., Tensor]]
