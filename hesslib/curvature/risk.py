"""The empirical risk of a model on a data set, and the curvature operators that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, vmap
from torch.nn import functional as F

from .operators import CurvatureOperator

LOSSES = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}


class EmpiricalRisk:
    """Mean loss of a model over N examples, frozen at the model's present parameters.

    The parameters and buffers are copied, so training the model later does not change the risk, and
    nothing done with the risk changes the model (its mode, gradients, hooks and buffers included).

    Args:
        model: any ``nn.Module`` that is deterministic as it stands; call ``model.eval()`` first if it
            has dropout or batch normalisation.
        inputs: tensor whose first axis runs over the N examples, or a list of such tensors (batches,
            which may differ in size: each example weighs 1/N). ``EmpiricalRisk(model, *zip(*loader))``
            takes a ``DataLoader``.
        targets: tensor or list alike; class indices (N,) for cross-entropy.
        loss: ``"cross_entropy"`` (mean over examples), ``"mse"`` (mean over examples and outputs, as
            ``torch.nn.MSELoss``), or a callable ``(outputs, targets) -> scalar`` that averages over
            the examples of a batch.
        parameters: names (as in ``model.named_parameters()``) to differentiate with respect to; the
            default is every parameter that requires a gradient. M counts these, in the model's order.

    Raises:
        ValueError: an argument is out of its range; the message names it, its value and what is valid.
        RuntimeError: two evaluations differ (active dropout), or an evaluation changes a buffer.

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
        inputs: Tensor | Iterable[Tensor],
        targets: Tensor | Iterable[Tensor],
        loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy",
        *,
        parameters: Iterable[str] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: an nn.Module is needed, got {model!r}")
        if not (callable(loss) or loss in LOSSES):
            raise ValueError(f"loss={loss!r} is unknown: give one of {', '.join(map(repr, LOSSES))} or a callable")
        self.model, self.loss_name = model, loss if isinstance(loss, str) else "custom"
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
        self.parameters = {n: p.detach().clone() for n, p in everything.items() if n in set(chosen)}
        self.constants = {n: p.detach().clone() for n, p in everything.items() if n not in self.parameters}
        self.constants |= {n: b.detach().clone() for n, b in model.named_buffers()}
        self.num_parameters = sum(p.numel() for p in self.parameters.values())
        first = next(iter(self.parameters.values()))
        self.dtype, self.device = first.dtype, first.device
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"model: its parameters are {self.dtype}; float32 or float64 is needed")
        if self.device.type == "meta":
            raise ValueError("model: its parameters are on the device 'meta', which holds no values; load them first")
        for name, p in self.parameters.items():
            if not bool(torch.isfinite(p).all()):
                raise ValueError(f"model: the parameter {name!r} contains NaN or infinite values")
        as_batches = lambda data: list(data) if isinstance(data, Iterable) and not isinstance(data, Tensor) else [data]
        inputs, targets = as_batches(inputs), as_batches(targets)
        for name, batches in (("inputs", inputs), ("targets", targets)):
            if not all(isinstance(batch, Tensor) for batch in batches):
                raise ValueError(f"{name}: a tensor or a list of tensors is needed (torch.as_tensor makes one)")
        if len(inputs) != len(targets):
            raise ValueError(f"targets: {len(targets)} batches given for {len(inputs)} of the inputs")
        self.batches = list(zip(inputs, targets, strict=True))
        self._check_data()
        self._check_outputs()

    def _check_data(self) -> None:
        if not self.batches or any(len(x) == 0 for x, _ in self.batches):
            raise ValueError("inputs: there must be at least one batch, and one example in each")
        for x, y in self.batches:
            if len(x) != len(y):
                raise ValueError(f"targets: {len(y)} given for {len(x)} inputs; the numbers must agree")
            if x.is_floating_point() and x.dtype != self.dtype:
                raise ValueError(f"inputs: dtype {x.dtype} differs from the model's {self.dtype}; convert one of them")
            if x.device != self.device or y.device != self.device:
                raise ValueError(f"inputs are on {x.device}, targets on {y.device}, the model on {self.device}")
            for name, data in (("inputs", x), ("targets", y)):
                if data.is_floating_point() and not bool(torch.isfinite(data).all()):
                    raise ValueError(f"{name}: contains NaN or infinite values")
        self.num_examples = sum(len(x) for x, _ in self.batches)

    def _check_outputs(self) -> None:
        """Evaluate the model: it must be deterministic, and fit targets and loss."""
        x, y = self.batches[0]
        buffers = {n: self.constants[n].clone() for n, _ in self.model.named_buffers()}
        values = {**self.parameters, **self.constants, **buffers}
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            outputs, again = (functional_call(self.model, values, (x,)) for _ in range(2))
        if not isinstance(outputs, Tensor):
            raise ValueError(f"model: its output must be one tensor, got {type(outputs).__name__}")
        for name, buffer in buffers.items():
            if not torch.equal(buffer, self.constants[name]):
                raise RuntimeError(f"the model changes its buffer {name!r} when evaluated: call model.eval() first")
        if not torch.allclose(outputs, again, rtol=1e-4, atol=0, equal_nan=True):
            raise RuntimeError("two evaluations of the model differ: call model.eval() to switch dropout off")
        self.num_outputs, shape = outputs[0].numel(), tuple(outputs.shape[1:])
        if self.loss_name == "cross_entropy":
            if outputs.ndim != 2:
                raise ValueError(f"model: cross-entropy needs outputs (N, C), got (N, *{shape})")
            for _, y in self.batches:
                whole = y.dtype == torch.int64 and y.ndim == 1
                if not whole or int(y.min()) < 0 or int(y.max()) >= self.num_outputs:
                    raise ValueError(
                        f"targets: cross-entropy needs int64 class indices (N,) from 0 to {self.num_outputs - 1}, "
                        f"got {y.dtype} {tuple(y.shape)} from {y.min().item()} to {y.max().item()}"
                    )
        elif self.loss_name == "mse":
            for _, y in self.batches:
                if tuple(y.shape[1:]) != shape:
                    raise ValueError(f"targets: mse needs the outputs' shape (N, *{shape}), got {tuple(y.shape)}")
        else:
            self._check_callable(outputs, y)

    def _check_callable(self, outputs: Tensor, y: Tensor) -> None:
        """A loss that sums over the examples would be weighted wrongly, so it is refused."""
        value = self.loss_function(outputs, y)
        if not (isinstance(value, Tensor) and value.ndim == 0):
            raise ValueError("loss: the callable must return a scalar tensor, the mean over the examples")
        twice = self.loss_function(torch.cat([outputs, outputs]), torch.cat([y, y]))
        if not torch.allclose(value, twice, rtol=1e-4, equal_nan=True):
            raise ValueError(
                f"loss: the callable must average over the examples, but gives {value.item():.4g} for a batch and "
                f"{twice.item():.4g} for the same batch twice; use reduction='mean'"
            )
        if len(self.batches) > 1 and len(outputs) > 1:
            parts = [self.loss_function(outputs[i::2], y[i::2]) * len(y[i::2]) for i in range(2)]
            if not torch.allclose(value, sum(parts) / len(y), rtol=1e-4, equal_nan=True):
                raise ValueError("loss: the callable depends on how the examples are batched; give them as one batch")

    def outputs(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (n, C) of the model at the given values of the chosen parameters."""
        return functional_call(self.model, {**parameters, **self.constants}, (inputs,))

    def unflatten(self, vectors: Tensor) -> dict[str, Tensor]:
        """Views (..., *shape) of a (..., M) tensor, one for each parameter."""
        parts = vectors.split([p.numel() for p in self.parameters.values()], dim=-1)
        return {
            n: part.reshape(*vectors.shape[:-1], *p.shape)
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
        other.__dict__.update(self.__dict__, parameters=self.unflatten(vector.detach().clone().to(self.vector)))
        return other

    def loss(self) -> float:
        """The mean loss over the N examples."""
        with torch.no_grad():
            return sum(
                len(x) / self.num_examples * self.loss_function(self.outputs(self.parameters, x), y).item()
                for x, y in self.batches
            )

    def gradient(self) -> Tensor:
        """The gradient (M,) of the mean loss."""
        total = torch.zeros(self.num_parameters, dtype=self.dtype, device=self.device)
        leaves = {n: p.clone().requires_grad_() for n, p in self.parameters.items()}
        for x, y in self.batches:
            value = self.loss_function(self.outputs(leaves, x), y)
            parts = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            total += len(x) / self.num_examples * torch.cat([p.reshape(-1) for p in parts])
        return total

    def output_terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of each example's loss with respect to its outputs: gradient (n, C), Hessian (n, C, C)."""
        n, c = outputs.shape
        if self.loss_name == "cross_entropy":
            p = outputs.softmax(1)
            return p - F.one_hot(targets, c).to(p.dtype), torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        if self.loss_name == "mse":
            return 2 / c * (outputs - targets), (2 / c * torch.eye(c).to(outputs)).expand(n, c, c)
        one = lambda f, y: self.loss_function(f[None], y[None])
        mean = vmap(one)(outputs, targets).mean()
        if not torch.allclose(mean, self.loss_function(outputs, targets), rtol=1e-5):
            raise ValueError("loss: this callable is not a mean over examples, so it has no per-example curvature")
        return vmap(torch.func.grad(one))(outputs, targets), vmap(hessian(one))(outputs, targets)

    def hessian(self) -> CurvatureOperator:
        """The Hessian H of the mean loss (paper, Eq. 4)."""
        return CurvatureOperator(self, "hessian")

    def ggn(self, output: str = "logits") -> CurvatureOperator:
        """The generalised Gauss-Newton matrix G, first term of the paper's Eq. 4.

        ``output="logits"``: G = 1/N sum J' A J with A the Hessian of the loss in the outputs; for
        cross-entropy its rank is at most N (C - 1). ``output="probability"``: the paper's reading of
        Eq. 5, where the model's real-valued output is the probability p_y of the label and the loss
        is -log p_y; this is the empirical Fisher matrix 1/N sum g g' of the example gradients, of rank
        at most N (cross-entropy only).
        """
        return CurvatureOperator(self, "ggn", output)

    def residual(self, output: str = "logits") -> CurvatureOperator:
        """R = H - G, the second term of Eq. 4, formed on its own: 1/N sum_c l'_c Hessian(f_c)."""
        return CurvatureOperator(self, "residual", output)
