"""The empirical risk of a model on a data set, and the curvature operators that belong to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from .certificates import check_derivatives, value_and_gradient
from .losses import IGNORED, LOSSES, class_axis
from .operators import CurvatureOperator
from .validation import check_examples, check_loss, check_single_precision


class _AutocastWatch(TorchFunctionMode):
    """Notices whether any operation runs under autocast."""

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type, self.seen = device_type, False

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen |= torch.is_autocast_enabled(self.device_type)
        return function(*args, **(kwargs or {}))


def _frozen_copy(model: nn.Module) -> nn.Module:
    """The model's modules, with their mode, around the same tensors."""
    shared = [t for m in model.modules() for kind in (m._parameters, m._buffers, m.__dict__) for t in kind.values()]
    try:
        return copy.deepcopy(model, {id(t): t for t in shared if isinstance(t, Tensor)})
    except Exception as error:
        raise ValueError(
            f"model: it cannot be copied ({error}), so later changes of it could not be kept out"
        ) from error


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


def _pair_batches(inputs: Any, targets: Any) -> list[tuple[Any, Tensor]]:
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


class EmpiricalRisk:
    """Mean loss of a model over N examples, frozen at the model's present parameters.

    Parameters, buffers, layers and mode are copied, so training the model later does not change the risk,
    and nothing done with the risk changes the model (its mode, gradients, hooks and buffers included). The
    data are not copied: changes in place are refused, but not seen if made through memory shared with NumPy.

    Before the first number of an operator is returned, its route is compared with independent ones
    (``certificates.py``).

    Args:
        model: any ``nn.Module`` that is deterministic as it stands; call ``model.eval()`` first if it
            has dropout or batch normalisation.
        inputs: tensor whose first axis runs over the N examples, or a list of such batches, which may
            differ in size (each example weighs 1/N). A batch may also be a dict of keyword arguments of the
            model's forward or, in a list, a tuple of positional ones. Without ``targets``, an iterable
            of pairs (inputs, targets) or tuples (a, b, ..., targets), such as a ``DataLoader``; gone through once.
        targets: tensor or list alike; class indices (N,) for cross-entropy.
        loss: ``"cross_entropy"`` (outputs (N, C) or, with one target for each token or pixel, (N, ..., C) or
            (N, C, ...); the mean over all targets of the set that are not -100), ``"mse"`` (mean over
            examples and outputs, as ``torch.nn.MSELoss``), ``"binary_cross_entropy"`` (outputs are logits, targets
            probabilities of the same shape; mean over both, as ``torch.nn.BCEWithLogitsLoss``), or a callable
            ``(outputs, targets) -> scalar``.
            The risk is the loss over the whole set, and batches are a way to compute it: a batch of a
            ``torch.nn.CrossEntropyLoss`` with class weights or ignored targets weighs by its sum of weights;
            any other callable must average over the examples, which is checked over all batches.
        parameters: names (as in ``model.named_parameters()``) to differentiate with respect to; the
            default is every parameter that requires a gradient, in the model's order. M counts these, in the
            order given.
        reduction: ``"mean"``, or ``"sum"``: the risk is the loss's sum, over all targets of the set (cross-entropy),
            over examples and outputs (mse, binary cross-entropy), and a callable sums too, as
            ``torch.nn.MSELoss(reduction="sum")`` does. Loss, gradient and matrices are of the sum.
        on_failure: ``"raise"``, or ``"warn"`` to get numbers although independent routes to them differ.

    Raises:
        ValueError: an argument is out of its range; the message names it, its value and what is valid.
        RuntimeError: two evaluations differ (active dropout), or an evaluation changes a buffer.
        CertificateError: (from products, matrices and spectra) independent routes differ; (with several batches)
            outputs for an example depend on the others of its batch.

    Example:
        >>> import torch
        >>> from hesslib import EmpiricalRisk
        >>> model = torch.nn.Linear(3, 2).double()
        >>> risk = EmpiricalRisk(model, torch.eye(3).double(), torch.tensor([0, 1, 0]))
        >>> (risk.hessian() @ torch.ones(risk.num_parameters).double()).shape
        torch.Size([8])
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor | dict[str, Any] | Iterable[Any],
        targets: Tensor | Iterable[Tensor] | None = None,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy",
        *,
        parameters: Iterable[str] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        on_failure: Literal["raise", "warn"] = "raise",
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={reduction!r} is unknown: give 'mean' or 'sum'")
        if on_failure not in ("raise", "warn"):
            raise ValueError(f"on_failure={on_failure!r} is unknown: give 'raise' or 'warn'")
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: an nn.Module is needed, got {model!r}")
        if not (callable(loss) or loss in LOSSES):
            raise ValueError(f"loss={loss!r} is unknown: give one of {', '.join(map(repr, LOSSES))} or a callable")
        self.model, self.reduction, self.on_failure = _frozen_copy(model), reduction, on_failure
        self.loss_name = loss if isinstance(loss, str) else "custom"
        self.loss_function = LOSSES[loss] if isinstance(loss, str) else loss
        everything = dict(model.named_parameters())
        if parameters is None:
            chosen = [n for n, p in everything.items() if p.requires_grad]
            if not chosen:
                raise ValueError("model: none of its parameters requires a gradient")
        else:
            chosen = [parameters] if isinstance(parameters, str) else list(parameters)
            unknown = [n if isinstance(n, str) else type(n).__name__ for n in chosen if n not in everything]
            if unknown or not chosen:
                raise ValueError(f"parameters={unknown}: give names, at least one of {', '.join(everything)}")
        own = lambda t: t.detach().clone(memory_format=torch.contiguous_format)
        self.parameters = {n: own(everything[n]) for n in chosen}
        self.constants = {n: own(p) for n, p in everything.items() if n not in self.parameters}
        self.constants |= {n: own(b) for n, b in model.named_buffers()}
        self.num_parameters = sum(p.numel() for p in self.parameters.values())
        first = next(iter(self.parameters.values()))
        self.dtype, self.device = first.dtype, first.device
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"model: its parameters are {self.dtype}; float32 or float64 is needed")
        if self.device.type == "meta":
            raise ValueError("model: its parameters are on the device 'meta', which holds no values; load them first")
        for name, p in self.parameters.items():
            if p.dtype != self.dtype:
                raise ValueError(f"model: the parameter {name!r} is {p.dtype}, others are {self.dtype}; convert one")
            if not bool(torch.isfinite(p).all()):
                raise ValueError(f"model: the parameter {name!r} contains NaN or infinite values")
        self._batches = _pair_batches(inputs, targets)
        self._versions = self._current_versions()
        self._check_data()
        check_loss(self)
        self._check_outputs()
        check_examples(self)
        self._certified: set[Any] = set()

    def _current_versions(self) -> list[int]:
        return [0 if t.is_inference() else t._version for t in tensors_of(self._batches)]

    @property
    def batches(self) -> list[tuple[Any, Tensor]]:
        """Inputs and targets, batch by batch; refused if they have been changed in place."""
        if self._current_versions() != self._versions:
            raise RuntimeError("inputs or targets were changed in place after the risk was made: make a new risk")
        return self._batches

    def _weigh(self, targets: Tensor) -> float:
        """How much of ``total_weight`` some targets are: all count alike but for ignored ones and class weights."""
        if self.loss_name == "cross_entropy":
            return int((targets != IGNORED).sum())
        if self._class_weights is None:
            return len(targets)
        known = self.loss_function  # type: Any
        return float(self._class_weights[targets[targets != known.ignore_index]].sum())

    def _divide(self, num_targets: int) -> None:
        """The shares of the batches in the risk, and what the sum over the targets is divided by."""
        self.num_targets = num_targets
        self.total_weight = sum(self._weigh(y) for _, y in self.batches)  # what a mean divides by
        each = 1 if self.loss_name == "cross_entropy" else self.num_outputs  # terms of a target's own mean
        self.divisor = 1 / each if self.reduction == "sum" and self.loss_name != "custom" else 1.0
        self.divisor = num_targets if self.reduction == "mean" else self.divisor
        self.shares = [self._share(y) for _, y in self.batches] if self.total_weight else []

    def _share(self, targets: Tensor) -> float:
        """What the loss of some targets is multiplied by in the risk."""
        if self.reduction == "mean":
            return self._weigh(targets) / self.total_weight
        return 1.0 if self.loss_name == "custom" else self._weigh(targets) / self.divisor

    def certify(self) -> None:
        """Check, once, that the gradient is the loss's derivative and its own derivative is right."""
        if "derivatives" not in self._certified:
            check_derivatives(self)
            check_single_precision(self)
            self._certified.add("derivatives")

    def weighted_batches(self) -> Iterator[tuple[float, Any, Tensor]]:
        """Batches with their shares of the risk: the risk is the sum of share times loss of the batch."""
        for share, (x, y) in zip(self.shares, self.batches, strict=True):
            if share:  # else every target of it is ignored, and its own mean is 0 / 0
                yield share, x, y

    def _check_data(self) -> None:
        if not self.batches or any(count_examples(x) == 0 for x, _ in self.batches):
            raise ValueError("inputs: there must be at least one batch, and one example in each")
        for batch, y in self.batches:
            if count_examples(batch) != len(y):
                raise ValueError(f"targets: {len(y)} given for {count_examples(batch)} inputs; the numbers must agree")
            for x in tensors_of(batch):
                if x.is_floating_point() and x.dtype != self.dtype:
                    raise ValueError(
                        f"inputs: dtype {x.dtype} differs from the model's {self.dtype}; convert one of them"
                    )
                if x.device != self.device or y.device != self.device:
                    raise ValueError(f"inputs are on {x.device}, targets on {y.device}, the model on {self.device}")
            for name, data in (("inputs", batch), ("targets", y)):
                if any(t.is_floating_point() and not bool(torch.isfinite(t).all()) for t in tensors_of(data)):
                    raise ValueError(f"{name}: contains NaN or infinite values")
        self.num_examples = sum(count_examples(x) for x, _ in self.batches)

    def _check_outputs(self) -> None:
        """Evaluate the model: it must be deterministic, and fit targets and loss."""
        x, y = self.batches[0]
        buffers = {n: self.constants[n].clone() for n, _ in self.model.named_buffers()}
        values = {**self.parameters, **self.constants, **buffers}
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), _AutocastWatch(self.device.type) as watch:
            outputs, again = (functional_call(self.model, values, *arguments_of(x)) for _ in range(2))
        if watch.seen:
            raise ValueError("model: it computes under torch.autocast, with a few digits: take autocast out of forward")
        if not isinstance(outputs, Tensor):
            raise ValueError(f"model: its output must be one tensor, got {type(outputs).__name__}")
        for name, buffer in buffers.items():
            if not torch.equal(buffer, self.constants[name]):
                raise RuntimeError(f"the model changes its buffer {name!r} when evaluated: call model.eval() first")
        if not torch.allclose(outputs, again, rtol=1e-4, atol=0, equal_nan=True):
            raise RuntimeError("two evaluations of the model differ: call model.eval() to switch dropout off")
        outputs = outputs.detach()
        self.num_outputs, shape = outputs[0].numel(), tuple(outputs.shape[1:])
        self.flat_outputs = outputs.ndim <= 2  # (N, C), not a map or a sequence of outputs an example
        self._class_weights = None  # type: Tensor | None
        self._divide(self.num_examples)
        if self.loss_name == "cross_entropy":
            self._check_classes(outputs, y)
        elif self.loss_name == "custom":
            self._check_callable(outputs, y)
        else:
            self._check_shape(shape)

    def _check_classes(self, outputs: Tensor, y: Tensor) -> None:
        """Cross-entropy needs one class index, or -100, for each output; batches weigh by how many count."""
        self.num_outputs = outputs.shape[class_axis(outputs, y) if y.ndim == outputs.ndim - 1 else -1]
        for _, y in self.batches:
            if y.dtype != torch.int64 or bool(((y < 0) & (y != IGNORED)).any()) or int(y.max()) >= self.num_outputs:
                raise ValueError(
                    f"targets: cross-entropy needs int64 class indices (N,) from 0 to {self.num_outputs - 1}, got "
                    f"{y.dtype} {tuple(y.shape)} from {y.min().item()} to {y.max().item()}; {IGNORED} is ignored"
                )
        class_axis(outputs, self.batches[0][1])
        self._divide(int(self.total_weight))
        if not self.num_targets:
            raise ValueError(f"targets: all are {IGNORED}, so there is nothing to average over")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """A loss with a target for each output needs the outputs' shape, and binary cross-entropy probabilities."""
        for _, y in self.batches:
            if tuple(y.shape[1:]) != shape:
                raise ValueError(
                    f"targets: {self.loss_name} needs the outputs' shape (N, *{shape}), got {tuple(y.shape)}"
                )
            chance = self.loss_name != "binary_cross_entropy" or (
                y.is_floating_point() and 0 <= y.min() <= y.max() <= 1
            )
            if not chance:
                raise ValueError(
                    f"targets: binary_cross_entropy needs probabilities from 0 to 1 as {self.dtype}, got "
                    f"{y.dtype} from {y.min().item():.4g} to {y.max().item():.4g}"
                )

    def _check_callable(self, outputs: Tensor, y: Tensor) -> None:
        """Refuse a sum over the examples where a mean is needed, or the reverse: its weights would be wrong."""
        value = self.loss_function(outputs, y)
        if not (isinstance(value, Tensor) and value.ndim == 0):
            raise ValueError("loss: the callable must return a scalar tensor, the mean over the examples")
        twice = self.loss_function(torch.cat([outputs, outputs]), torch.cat([y, y]))
        times, verb = (1, "average") if self.reduction == "mean" else (2, "sum")
        if not torch.allclose(times * value, twice, rtol=1e-4, equal_nan=True):
            raise ValueError(
                f"loss: the callable must {verb} over the examples, but gives {value.item():.4g} for a batch and "
                f"{twice.item():.4g} for the same batch twice; use reduction={self.reduction!r} in the loss, or give "
                "the other one to EmpiricalRisk"
            )
        known = self.loss_function  # type: Any
        if type(known) is nn.CrossEntropyLoss and not y.is_floating_point():
            ones = torch.ones(int(outputs.shape[1])).to(outputs)
            self._class_weights = ones if known.weight is None else known.weight
            self._divide(self.num_examples)
        if len(self.batches) > 1:
            self._check_batches()

    def _check_batches(self) -> None:
        """Refuse a loss whose sum over batches, each with its share, is not the loss over the whole set."""
        targets = [y for _, y in self.batches]
        outputs = [self.outputs(self.parameters, x).detach() for x, _ in self.batches]
        if len({f.shape[1:] for f in outputs}) > 1 or len({y.shape[1:] for y in targets}) > 1:
            raise ValueError("loss: outputs of different shapes in different batches; a callable loss needs one shape")
        whole, y = torch.cat(outputs), torch.cat(targets)
        noise = torch.randn(whole.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(whole)
        for f in (whole, whole + whole.std().nan_to_num(1.0) * noise):
            parts = zip(self.shares, f.split([len(t) for t in targets]), targets, strict=True)
            summed = sum(share * self.loss_function(a, b) for share, a, b in parts if share)  # type: Any
            if not torch.allclose(self.loss_function(f, y), summed, rtol=1e-5, equal_nan=True):
                raise ValueError("loss: the callable depends on how the examples are batched; give them as one batch")

    def outputs(self, parameters: dict[str, Tensor], inputs: Any) -> Tensor:
        """Outputs (n, C) of the model at the given values of the chosen parameters."""
        if torch.is_autocast_enabled(self.device.type):
            raise RuntimeError(
                "torch.autocast is on, which leaves a few digits: leave it for the risk and its operators"
            )
        return functional_call(self.model, {**parameters, **self.constants}, *arguments_of(inputs))

    def unflatten(self, vectors: Tensor) -> dict[str, Tensor]:
        """Views ``(..., *shape)`` of a ``(..., M)`` tensor, one for each parameter."""
        parts = vectors.split([p.numel() for p in self.parameters.values()], dim=-1)
        return {
            n: part.reshape((*vectors.shape[:-1], *p.shape))
            for (n, p), part in zip(self.parameters.items(), parts, strict=True)
        }

    @property
    def places(self) -> dict[str, slice]:
        """Where each parameter lies in the flattened vector."""
        places, start = {}, 0
        for name, p in self.parameters.items():
            places[name] = slice(start, start := start + p.numel())
        return places

    @property
    def vector(self) -> Tensor:
        """The parameters (M,) at which the risk is taken."""
        return torch.cat([p.reshape(-1) for p in self.parameters.values()])

    def at(self, vector: Tensor) -> EmpiricalRisk:
        """The same risk at other parameters (M,)."""
        vector = torch.as_tensor(vector)
        if vector.shape != (self.num_parameters,):
            raise ValueError(f"vector: shape {tuple(vector.shape)} given, ({self.num_parameters},) needed")
        other = object.__new__(EmpiricalRisk)
        values = self.unflatten(vector.detach().clone().to(self.vector))
        other.__dict__.update(self.__dict__, parameters=values, _certified=set())
        return other

    def loss(self) -> float:
        """The risk: the mean loss over the N examples, or the sum."""
        return sum(
            share * self.loss_function(self.outputs(self.parameters, x), y).item()
            for share, x, y in self.weighted_batches()
        )

    def gradient(self) -> Tensor:
        """The gradient (M,) of the mean loss."""
        return value_and_gradient(self, self.parameters, self.weighted_batches())[1]

    def output_terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of each example's loss in its F outputs: gradient (n, F), Hessian (n, F, F).

        Cross-entropy by name takes outputs (n, C) only: a row for each target.
        """
        if self.loss_name == "cross_entropy":
            p, c = outputs.softmax(1), outputs.shape[1]
            d, a = (
                p - F.one_hot(targets.clamp_min(0), c).to(p.dtype),
                torch.diag_embed(p) - p[:, :, None] * p[:, None, :],
            )
            counts = targets != IGNORED
            return (d, a) if bool(counts.all()) else (d * counts[:, None], a * counts[:, None, None])
        n, c = len(outputs), outputs[0].numel()
        if self.loss_name == "mse":
            d, a = 2 / c * (outputs - targets), (2 / c * torch.eye(c).to(outputs)).expand(n, c, c)
            return d.reshape(n, c), a
        d, curve, _ = self.loss_derivatives(outputs, targets)
        units = torch.eye(c).to(outputs).view(c, 1, *outputs.shape[1:]).expand(c, *outputs.shape)
        a = curve(units).reshape(c, n, c).movedim(0, 1)
        u = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(outputs)
        apart = torch.einsum("nc,ncd->nd", u.reshape(n, c), a) - curve(u).reshape(n, c)
        if float(apart.abs().max()) > 1e-5 * max(float(a.abs().max()), torch.finfo(a.dtype).tiny):
            raise ValueError("loss: this callable is not a mean over examples, so it has no per-example curvature")
        return d.reshape(n, c), a

    def loss_derivatives(
        self, outputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor], int | tuple[int, ...]]:
        """The loss's gradient d in the outputs, its Hessian as a map u -> A u, and the axes of an example's outputs.

        Each example's or token's own, without the mean. The map takes any leading axes, and needs no (n, C, C). That
        of a callable is a product by differentiation, and holds too where the callable mixes examples.
        """
        if self.loss_name == "cross_entropy":
            axis = class_axis(outputs, targets)
            p, axis = outputs.softmax(axis), axis - outputs.ndim if axis > 0 else axis
            hot = F.one_hot(targets.clamp_min(0), p.shape[axis]).to(p.dtype).movedim(-1, axis)
            counts = (targets != IGNORED).unsqueeze(axis).to(p.dtype)
            q = p * counts
            return (p - hot) * counts, lambda u: q * (u - (p * u).sum(axis, keepdim=True)), axis
        axes = tuple(range(1 - outputs.ndim, 0))
        if self.loss_name == "mse":
            factor = 2 / outputs[0].numel()
            return factor * (outputs - targets), lambda u: factor * u, axes
        if self.loss_name == "binary_cross_entropy":
            p, factor = outputs.sigmoid(), 1 / outputs[0].numel()
            bend = factor * p * (1 - p)
            return factor * (p - targets), lambda u: bend * u, axes
        scale = self._share(targets) * self.divisor

        def scaled(f: Tensor) -> Tensor:
            return scale * self.loss_function(f, targets)

        d, pull = vjp(grad(scaled), outputs.detach())  # type: ignore[misc]

        def curve(u: Tensor) -> Tensor:
            product = lambda one: pull(one)[0]  # type: Callable[[Tensor], Tensor]
            for _ in range(u.ndim - outputs.ndim):
                product = vmap(product)
            return product(u)

        return d.detach(), curve, axes

    def separates(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether the loss's curvature in the outputs is one of each example alone; False where torch.func fails."""
        if self.loss_name != "custom":
            return True
        noise = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(outputs)
        index, shape = torch.arange(len(outputs), device=outputs.device), (-1, *[1] * (outputs.ndim - 1))
        try:
            curve = self.loss_derivatives(outputs, targets)[1]
            limit = 1e-6 * float(curve(noise).abs().max())
            for bit in range((len(outputs) - 1).bit_length()):  # two examples differ in one at least
                kept = (index >> bit & 1).view(shape).bool()
                if float((curve(noise * kept) * ~kept).abs().max()) > limit:
                    return False
        except Exception:
            return False
        return True

    def hessian(self) -> CurvatureOperator:
        """The Hessian H of the mean loss (paper, Eq. 4)."""
        return CurvatureOperator(self, "hessian")

    def ggn(self, output: Literal["logits", "probability"] = "logits") -> CurvatureOperator:
        """The generalised Gauss-Newton matrix G, first term of the paper's Eq. 4.

        ``output="logits"``: ``G = 1/N sum J^T A J`` with A the Hessian of the loss in the outputs; for
        cross-entropy its rank is at most C - 1 for each target. ``output="probability"``: the paper's reading of
        Eq. 5, where the model's real-valued output is the probability p_y of the label and the loss
        is -log p_y; this is the empirical Fisher matrix ``1/N sum g g^T`` of the gradients of the examples' losses
        (of the targets', where cross-entropy has several an example), of rank at most N. It is defined alike for
        every loss that is a mean over examples.
        """
        return CurvatureOperator(self, "ggn", output)

    def residual(self, output: Literal["logits", "probability"] = "logits") -> CurvatureOperator:
        """R = H - G, the second term of Eq. 4, formed on its own: 1/N sum_c l'_c Hessian(f_c)."""
        return CurvatureOperator(self, "residual", output)
