"""The empirical risk of a model on a data set, and the curvature operators that belong to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from .._checks import positive
from .batches import agree, arguments_of, axes_of, count_examples, pair_batches, spread, take, tensors_of
from .certificates import check_derivatives, differentiable_gradient, direction, value_and_gradient
from .losses import Loss
from .memory import free_memory, output_bytes, saved_bytes
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


class EmpiricalRisk:
    """Mean loss of a model over N examples, frozen at the model's present parameters.

    Parameters, buffers, layers and mode are copied, so training the model later does not change the risk,
    and nothing done with the risk changes the model (its mode, gradients, hooks and buffers included). The
    data are not copied: changes in place are refused, but not seen if made through memory shared with NumPy.

    Before the first number of an operator is returned, its route is compared with independent ones
    (``certificates.py``).

    A batch for which a product would need more than ``memory_budget`` bytes (settable; default: a quarter of what is
    free, at most 1 GiB) goes through the model in parts, if its outputs and loss are those of the parts.

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
        self.criterion = Loss(loss, reduction)
        if on_failure not in ("raise", "warn"):
            raise ValueError(f"on_failure={on_failure!r} is unknown: give 'raise' or 'warn'")
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: an nn.Module is needed, got {model!r}")
        self.model, self.on_failure = _frozen_copy(model), on_failure
        self._take_parameters(model, parameters)
        self.memory_budget = min(2**30, free_memory(self.device) // 4)
        self._batches = pair_batches(inputs, targets)
        self._versions = self._current_versions()
        self._check_data()
        check_loss(self)
        self.criterion.bind(self._evaluate(), [y for _, y in self.batches])
        self.num_outputs, self.num_targets = self.criterion.num_outputs, self.criterion.num_targets
        self.shares = [self.criterion.share(y) for _, y in self.batches]
        if self.criterion.name == "custom" and len(self.batches) > 1:
            outputs = [self.outputs(self.parameters, x).detach() for x, _ in self.batches]
            self.criterion.check_batches(outputs, [y for _, y in self.batches], self.shares)
        check_examples(self)
        self._certified: set[Any] = set()
        self._parts: dict[tuple[int, int], list[tuple[float, Any, Tensor]]] = {}

    def _take_parameters(self, model: nn.Module, parameters: Iterable[str] | None) -> None:
        """Copy the parameters to differentiate with respect to, and all else that the model holds."""
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

    def _current_versions(self) -> list[int]:
        return [0 if t.is_inference() else t._version for t in tensors_of(self._batches)]

    @property
    def batches(self) -> list[tuple[Any, Tensor]]:
        """Inputs and targets, batch by batch; refused if they have been changed in place."""
        if self._current_versions() != self._versions:
            raise RuntimeError("inputs or targets were changed in place after the risk was made: make a new risk")
        return self._batches

    def certify(self) -> None:
        """Check, once, that the gradient is the loss's derivative and its own derivative is right."""
        if "derivatives" not in self._certified:
            check_derivatives(self)
            check_single_precision(self)
            self._certified.add("derivatives")

    @property
    def memory_budget(self) -> int:
        """Bytes for what a product needs beside its result; settable."""
        return self._memory_budget

    @memory_budget.setter
    def memory_budget(self, size: float) -> None:
        positive(memory_budget=size)
        self._memory_budget = int(size)

    @cached_property
    def bytes_per_example(self) -> int:
        """Temporary memory of a product with one vector for one example: 3 times what autograd keeps of a gradient.

        Of a gradient that can be differentiated again; measured were 2.6 to 2.9 times.
        """
        x, y = max(self.batches, key=lambda batch: sum(t.numel() for t in tensors_of(batch[0])) / len(batch[1]))
        axes, few = axes_of(x), min(4, len(y))
        kept = lambda n: saved_bytes(lambda: differentiable_gradient(self, take(x, axes, slice(n)), y[:n]))
        try:  # what does not grow with the examples cancels
            return max(1, 3 * (kept(few) - kept(few // 2)) // (few - few // 2))
        except Exception:  # a model for batches of one size, or one whose tensors autograd does not show
            return max(1, 4 * output_bytes(self.model, lambda: self.outputs(self.parameters, x)) // len(y))

    def weighted_batches(self) -> Iterator[tuple[float, Any, Tensor]]:
        """Batches with their shares of the risk: the risk is the sum of share times loss of the batch.

        A batch too large for ``memory_budget`` comes in parts, if the model's outputs for them and the loss allow it.
        """
        for index in range(len(self.batches)):
            yield from self.parts(index)

    def parts(self, index: int) -> list[tuple[float, Any, Tensor]]:
        """A batch as ``weighted_batches`` gives it; nothing if its share is zero."""
        (x, y), share = self.batches[index], self.shares[index]
        # parts smaller than a vector of M numbers would save nothing
        vector, each = self.num_parameters * torch.finfo(self.dtype).bits // 8, self.bytes_per_example
        count = -(-len(y) // max(1, (self.memory_budget - 4 * vector) // each, vector // each))
        if count > 1 and (index, count) not in self._parts:
            self._parts[index, count] = self._split(x, y, count)
        parts = [(share, x, y)] if count == 1 else self._parts[index, count]
        return [part for part in parts if part[0]]  # where every target is ignored, the mean is 0 / 0

    def _split(self, x: Any, y: Tensor, count: int) -> list[tuple[float, Any, Tensor]]:
        """A batch in so many parts with their shares, or whole where examples depend on others of their batch."""
        axes, ends = axes_of(x), [len(y) * i // count for i in range(count + 1)]
        parts = [(take(x, axes, slice(i, j)), y[i:j]) for i, j in zip(ends, ends[1:], strict=False)]
        share, shares = self.criterion.share(y), [self.criterion.share(b) for _, b in parts]
        for vector in (self.vector, self.vector + 0.1 * direction(self)):  # at one of them the outputs may vanish
            values = self.unflatten(vector)
            whole = self.outputs(values, x)
            try:
                some = [self.outputs(values, a) for a, _ in parts]
                same = agree(torch.cat(some), whole, spread(whole), 1e-10 if self.dtype == torch.float64 else 1e-4)
                if share and self.criterion.name == "custom":
                    self.criterion.check_batches(some, [b for _, b in parts], [part / share for part in shares])
            except Exception:  # a model for batches of one size, or a loss of the whole batch
                same = False
            if not same or len(whole) != len(y):
                return [(share, x, y)]
        return [(part, a, b) for part, (a, b) in zip(shares, parts, strict=True)]

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

    def _evaluate(self) -> Tensor:
        """The model's outputs for the first batch, of a model that is deterministic and changes nothing."""
        x, _ = self.batches[0]
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
        return outputs.detach()

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
        other.__dict__.update(self.__dict__, parameters=values, _certified=set(), _parts={})
        return other

    def loss(self) -> float:
        """The risk: the mean loss over the N examples, or the sum."""
        return sum(
            share * self.criterion.function(self.outputs(self.parameters, x), y).item()
            for share, x, y in self.weighted_batches()
        )

    def gradient(self) -> Tensor:
        """The gradient (M,) of the mean loss."""
        return value_and_gradient(self, self.parameters, self.weighted_batches())[1]

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
