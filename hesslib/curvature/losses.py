"""The loss as a function of the outputs: its value, its derivatives in them, and how much each batch weighs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn import functional as F

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


def _noise(outputs: Tensor) -> Tensor:
    """Random numbers of the outputs' shape, always the same."""
    return torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(outputs)


@torch.enable_grad()
def _derivatives_one_by_one(
    loss: Callable[[Tensor], Tensor], outputs: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A loss's gradient in the outputs and its Hessian as a map, by ``torch.autograd`` alone."""
    f = outputs.clone().requires_grad_()
    (d,) = torch.autograd.grad(loss(f), f, create_graph=True)

    def curve(u: Tensor) -> Tensor:
        rows = u.reshape(-1, *f.shape)
        if not d.requires_grad:
            return torch.zeros_like(u)
        return torch.cat(
            [torch.autograd.grad(d, f, row, retain_graph=True, materialize_grads=True)[0] for row in rows]
        ).view(u.shape)

    return d.detach(), curve


class Loss:
    """The loss over all targets of a set, given in batches, as a mean or a sum.

    ``bind`` takes what depends on the data. Then the risk is the sum over batches of ``share`` times ``function``.

    Attributes:
        name: ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``, or ``"custom"`` for a callable.
        function: ``(outputs, targets) -> scalar``; by name the mean over the targets of a batch.
        reduction: ``"mean"`` or ``"sum"``.
        num_outputs: of an example, or the number of classes.
        flat: whether the outputs are (N, C) or (N,), not a map or a sequence an example.
        num_targets: the number of targets that count.
        total_weight: what a mean divides by: the number of targets, or their class weights.
        divisor: what the sum of the targets' own losses is divided by.
    """

    def __init__(
        self, loss: str | Callable[[Tensor, Tensor], Tensor], reduction: Literal["mean", "sum"] = "mean"
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={reduction!r} is unknown: give 'mean' or 'sum'")
        if not (callable(loss) or loss in LOSSES):
            raise ValueError(f"loss={loss!r} is unknown: give one of {', '.join(map(repr, LOSSES))} or a callable")
        self.name = loss if isinstance(loss, str) else "custom"
        self.function = LOSSES[loss] if isinstance(loss, str) else loss
        self.reduction = reduction
        self._class_weights = None  # type: Tensor | None

    def bind(self, outputs: Tensor, targets: Sequence[Tensor]) -> None:
        """Take the outputs of the first batch and the targets of all, and refuse those that do not fit."""
        self.num_outputs, self.flat = outputs[0].numel(), outputs.ndim <= 2
        self.num_targets = sum(len(y) for y in targets)
        if self.name == "cross_entropy":
            self._check_classes(outputs, targets)
        elif self.name == "custom":
            self._check_callable(outputs, targets[0])
        else:
            self._check_shape(tuple(outputs.shape[1:]), targets)
        self.total_weight = sum(self._weigh(y) for y in targets)
        if not self.total_weight:
            raise ValueError("targets: no class among them has a weight, so there is nothing to average over")
        own = 1.0 if self.name in ("cross_entropy", "custom") else 1 / self.num_outputs  # a target's loss is a mean too
        self.divisor = self.num_targets if self.reduction == "mean" else own

    def _weigh(self, targets: Tensor) -> float:
        """How much of ``total_weight`` some targets are: all count alike but for ignored ones and class weights."""
        if self.name == "cross_entropy":
            return int((targets != IGNORED).sum())
        if self._class_weights is None:
            return len(targets)
        known: Any = self.function
        return float(self._class_weights[targets[targets != known.ignore_index]].sum())

    def share(self, targets: Tensor) -> float:
        """What the loss of some targets is multiplied by in the loss over all."""
        if self.reduction == "mean":
            return self._weigh(targets) / self.total_weight
        return 1.0 if self.name == "custom" else self._weigh(targets) / self.divisor

    # -- what fits ------------------------------------------------------------------------------------

    def _check_classes(self, outputs: Tensor, targets: Sequence[Tensor]) -> None:
        """Cross-entropy needs one class index, or -100, for each output; batches weigh by how many count."""
        first = targets[0]
        self.num_outputs = outputs.shape[class_axis(outputs, first) if first.ndim == outputs.ndim - 1 else -1]
        for y in targets:
            if y.dtype != torch.int64 or bool(((y < 0) & (y != IGNORED)).any()) or int(y.max()) >= self.num_outputs:
                raise ValueError(
                    f"targets: cross-entropy needs int64 class indices (N,) from 0 to {self.num_outputs - 1}, got "
                    f"{y.dtype} {tuple(y.shape)} from {y.min().item()} to {y.max().item()}; {IGNORED} is ignored"
                )
        class_axis(outputs, first)
        self.num_targets = sum(int((y != IGNORED).sum()) for y in targets)
        if not self.num_targets:
            raise ValueError(f"targets: all are {IGNORED}, so there is nothing to average over")

    def _check_shape(self, shape: tuple[int, ...], targets: Sequence[Tensor]) -> None:
        """A loss with a target for each output needs the outputs' shape, and binary cross-entropy probabilities."""
        for y in targets:
            if tuple(y.shape[1:]) != shape:
                raise ValueError(f"targets: {self.name} needs the outputs' shape (N, *{shape}), got {tuple(y.shape)}")
            chance = y.is_floating_point() and 0 <= y.min() <= y.max() <= 1
            if self.name == "binary_cross_entropy" and not chance:
                raise ValueError(
                    "targets: binary_cross_entropy needs probabilities from 0 to 1 as floating-point numbers, got "
                    f"{y.dtype} from {y.min().item():.4g} to {y.max().item():.4g}"
                )

    def _check_callable(self, outputs: Tensor, y: Tensor) -> None:
        """Refuse a sum over the examples where a mean is needed, or the reverse: its weights would be wrong."""
        value = self.function(outputs.clone(), y)
        if not (isinstance(value, Tensor) and value.ndim == 0):
            raise ValueError("loss: the callable must return a scalar tensor, the mean over the examples")
        twice = self.function(torch.cat([outputs, outputs]), torch.cat([y, y]))
        times, verb = (1, "average") if self.reduction == "mean" else (2, "sum")
        if not torch.allclose(times * value, twice, rtol=1e-4, equal_nan=True):
            raise ValueError(
                f"loss: the callable must {verb} over the examples, but gives {value.item():.4g} for a batch and "
                f"{twice.item():.4g} for the same batch twice; use reduction={self.reduction!r} in the loss, or give "
                "the other one to EmpiricalRisk"
            )
        known: Any = self.function
        if type(known) is nn.CrossEntropyLoss and not y.is_floating_point():
            ones = torch.ones(int(outputs.shape[1])).to(outputs)
            self._class_weights = ones if known.weight is None else known.weight

    def check_batches(self, outputs: Sequence[Tensor], targets: Sequence[Tensor], shares: Sequence[float]) -> None:
        """Refuse a callable whose sum over batches, each with its share, is not its value for all together."""
        if len({f.shape[1:] for f in outputs}) > 1 or len({y.shape[1:] for y in targets}) > 1:
            raise ValueError("loss: outputs of different shapes in different batches; a callable loss needs one shape")
        whole, y = torch.cat(list(outputs)), torch.cat(list(targets))
        found = []
        for f in (whole, whole + whole.std().nan_to_num(1.0, 1.0, 1.0) * _noise(whole)):
            parts = zip(shares, f.split([len(t) for t in targets]), targets, strict=True)
            summed: Any = sum(share * self.function(a.clone(), b) for share, a, b in parts if share)
            found.append((float(self.function(f.clone(), y)), float(summed)))
        rounding = 100 * torch.finfo(whole.dtype).eps * max(abs(a) for a, _ in found)  # where all is fitted
        if not all(abs(a - b) <= 1e-5 * abs(a) + rounding or a != a != b for a, b in found):
            raise ValueError("loss: the callable depends on how the examples are batched; give them as one batch")

    # -- derivatives in the outputs -------------------------------------------------------------------

    @torch.no_grad()
    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of each example's loss in its F outputs: gradient (n, F), Hessian (n, F, F).

        Cross-entropy by name takes outputs (n, C) only: a row for each target.
        """
        if self.name == "cross_entropy":
            p, c = outputs.softmax(1), outputs.shape[1]
            d, a = (
                p - F.one_hot(targets.clamp_min(0), c).to(p.dtype),
                torch.diag_embed(p) - p[:, :, None] * p[:, None, :],
            )
            counts = targets != IGNORED
            return (d, a) if bool(counts.all()) else (d * counts[:, None], a * counts[:, None, None])
        n, c = len(outputs), outputs[0].numel()
        if self.name == "mse":
            d, a = 2 / c * (outputs - targets), (2 / c * torch.eye(c).to(outputs)).expand(n, c, c)
            return d.reshape(n, c), a
        d, curve, _ = self.derivatives(outputs, targets)
        units = torch.eye(c).to(outputs).view(c, 1, *outputs.shape[1:]).expand(c, *outputs.shape)
        a, u = curve(units).reshape(c, n, c).movedim(0, 1), _noise(outputs)
        apart = torch.einsum("nc,ncd->nd", u.reshape(n, c), a) - curve(u).reshape(n, c)
        if float(apart.abs().max()) > 1e-5 * max(float(a.abs().max()), torch.finfo(a.dtype).tiny):
            raise ValueError("loss: this callable is not a mean over examples, so it has no per-example curvature")
        return d.reshape(n, c), a

    def derivatives(
        self, outputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor], int | tuple[int, ...]]:
        """The loss's gradient d in the outputs, its Hessian as a map u -> A u, and the axes of an example's outputs.

        Each example's or token's own, without the mean. The map takes any leading axes, and needs no (n, C, C). That
        of a callable is a product by differentiation, and holds too where the callable mixes examples.
        """
        if self.name == "cross_entropy":
            axis = class_axis(outputs, targets)
            p, axis = outputs.softmax(axis), axis - outputs.ndim if axis > 0 else axis
            hot = F.one_hot(targets.clamp_min(0), p.shape[axis]).to(p.dtype).movedim(-1, axis)
            counts = (targets != IGNORED).unsqueeze(axis).to(p.dtype)
            q = p * counts
            return (p - hot) * counts, lambda u: q * (u - (p * u).sum(axis, keepdim=True)), axis
        axes = tuple(range(1 - outputs.ndim, 0))
        if self.name == "mse":
            factor = 2 / outputs[0].numel()
            return factor * (outputs - targets), lambda u: factor * u, axes
        if self.name == "binary_cross_entropy":
            p, factor = outputs.sigmoid(), 1 / outputs[0].numel()
            bend = factor * p * (1 - p)
            return factor * (p - targets), lambda u: bend * u, axes
        scale = self.share(targets) * self.divisor
        if not scale:  # no target counts, and their mean is 0 / 0
            return torch.zeros_like(outputs), torch.zeros_like, axes

        def scaled(f: Tensor) -> Tensor:
            return scale * self.function(f, targets)

        try:
            d, pull = vjp(grad(scaled), outputs.detach())  # type: ignore[misc]
        except Exception:  # old autograd.Functions: not for torch.func
            return *_derivatives_one_by_one(scaled, outputs.detach()), axes

        def curve(u: Tensor) -> Tensor:
            product: Callable[[Tensor], Tensor] = lambda one: pull(one)[0]
            for _ in range(u.ndim - outputs.ndim):
                product = vmap(product)
            return product(u)

        return d.detach(), curve, axes

    @torch.no_grad()
    def separates(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether the loss's curvature in the outputs is one of each example alone; False where it cannot be told."""
        if self.name != "custom":
            return True
        noise = _noise(outputs)
        index, shape = torch.arange(len(outputs), device=outputs.device), (-1, *[1] * (outputs.ndim - 1))
        try:
            curve = self.derivatives(outputs, targets)[1]
            limit = 1e-6 * float(curve(noise).abs().max())
            for bit in range((len(outputs) - 1).bit_length()):  # two examples differ in one at least
                kept = (index >> bit & 1).view(shape).bool()
                if float((curve(noise * kept) * ~kept).abs().max()) > limit:
                    return False
        except Exception:
            return False
        return True
