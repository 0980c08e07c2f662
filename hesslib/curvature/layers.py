"""Closed-form curvature of chains of Linear layers and elementwise activations.

Write z_l = W_l a_{l-1} + b_l and a_l = phi_l(z_l), and let q be a scalar function of the outputs with
gradient d and Hessian A at each example. With d_l and A_l the gradient and Hessian of q with respect
to z_l, T_{ml} = dz_m/dz_l and P_{ml} = da_{m-1}/dz_l, the Hessian of the mean of q has the blocks
(m >= l; rows p, q of W_m and columns i, j of W_l; biases are an extra constant input)

    H[pq, ij] = 1/N sum_n ( (A_m T_ml)[p, i] a_{m-1}[q] + d_m[p] P_ml[q, i] ) a_{l-1}[j].

Each of the two terms is one matrix product that contracts the examples. The operators differ only in
(A, d): H takes the loss's own, G sets d = 0, and R sets A = 0 (see ``operators.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from .risk import EmpiricalRisk

    Kind = TypeVar("Kind", bound=nn.Module)
    Pulled: TypeAlias = tuple[Tensor, Tensor, Any]  # d of a layer's outputs and of its z, and A or None


class Function(nn.Module):
    """An elementwise function with its options."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, z: Tensor) -> Tensor:
        """Apply it."""
        return self.function(z, **self.options)


ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.Mish,
    nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.ReLU6, nn.Identity, Function,
)  # fmt: skip
FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, nn.functional.relu, nn.functional.tanh, nn.functional.sigmoid,
    nn.functional.hardtanh, nn.functional.relu6,
    nn.functional.softplus, nn.functional.gelu, nn.functional.elu, nn.functional.silu, nn.functional.leaky_relu,
}  # fmt: skip


@dataclass(eq=False)
class Layer:
    """One Linear layer and the activation after it, with what is known at each of the N examples."""

    weight: Tensor  # (n, fan_in)
    weight_at: slice | None  # where its weight lies among the M chosen parameters
    bias_at: slice | None
    inputs: Tensor  # (N, fan_in [+ 1]), with the constant input of the bias appended
    slope: Tensor  # phi'(z), (N, n)
    bend: Tensor | None  # phi''(z), None where it is zero everywhere

    @property
    def width(self) -> int:
        """Number of units."""
        return self.weight.shape[0]


def chain_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules (name, module) that follow one another up to the model's output, first to last.

    Functions that have a module of the same meaning count as that module. The list goes back from the
    output as far as each step has one input, is one of those known here, and holds no parameter that is used
    anywhere else; it may be empty.
    """
    try:
        nodes = list(fx.symbolic_trace(model).graph.nodes)
    except Exception:  # control flow that cannot be traced: no closed form, not an error
        return []
    modules, chain, node = dict(model.named_modules()), [], nodes[-1].args[0]  # type: Any, list[Any], Any
    uses = count_uses(model, nodes, modules)
    while isinstance(node, fx.Node) and len(node.users) == 1 and node.op.startswith("call") and node.args:
        if node.op == "call_module":
            module = modules[node.target]
            if any(uses[id(p)] > 1 for p in module.parameters()) or not is_plain(module):
                break
            chain.append((node.target, module))
        elif (function := module_of(node)) is not None:
            chain.append(("", function))
        else:
            break
        node = node.args[0]
    return [(n, m) for n, m in chain[::-1] if not (isinstance(m, nn.Dropout) and not m.training)]


def module_of(node: fx.Node) -> nn.Module | None:
    """The module that does the same as a function in a trace; None if there is none."""
    if node.target in (torch.flatten, "flatten"):
        return nn.Flatten() if node.args[1:] == (1,) and not node.kwargs else None
    options = {k: v for k, v in node.kwargs.items() if k != "inplace"}
    constant = len(node.args) == 1 and not any(isinstance(v, fx.Node) for v in options.values())
    return Function(node.target, options) if node.target in FUNCTIONS and constant else None


def count_uses(model: nn.Module, nodes: list[fx.Node], modules: dict[Any, nn.Module]) -> Counter[int]:
    """How often each parameter, by its id, is used in a trace."""
    uses = Counter()  # type: Counter[int]
    for node in nodes:
        if node.op == "call_module":
            uses.update(id(p) for p in modules[node.target].parameters())
        elif node.op == "get_attr":
            uses[id(reduce(getattr, node.target.split("."), model))] += 1  # type: ignore[union-attr]
    return uses


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(module: nn.Module) -> bool:
    """Whether a module is what its class says: without hooks, and weights not computed (pruned, parametrised)."""
    computed = (isinstance(vars(module).get(name), Tensor) for name in ("weight", "bias"))
    parametrised = hasattr(module, "parametrizations")
    return not parametrised and not any(computed) and not any(getattr(module, kind) for kind in HOOKS)


def grouped(chain: list[tuple[str, Any]], kind: type[Kind]) -> list[tuple[str, Kind, list[nn.Module]]]:
    """The longest end of a chain made of ``kind`` and elementwise modules, as (name, layer, activations after it)."""
    found, after = [], []  # type: list[Any], list[nn.Module]
    for name, module in reversed(chain):
        if type(module) is kind:
            found.append((name, module, after[::-1]))
            after = []
        elif isinstance(module, ELEMENTWISE):
            after.append(module)
        else:
            break
    return found[::-1]


def tail_of(model: nn.Module) -> list[tuple[str, nn.Linear, list[nn.Module]]]:
    """The chain of Linear layers and activations at the model's end, none used elsewhere; empty if there is none."""
    return grouped(chain_of(model), nn.Linear)


def inputs_of(risk: EmpiricalRisk, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What a module of the risk's model is given, and the model's outputs, batch by batch."""
    caught = []
    hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach()))
    try:
        outputs = [risk.outputs(risk.parameters, x).detach() for x, _ in risk.batches]
    finally:
        hook.remove()
    return caught, outputs


def derivatives(activations: list[nn.Module], z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """phi(z), phi'(z) and phi''(z) (None if zero) of a composition of elementwise functions."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        a = z.clone()  # in-place activations must not overwrite z
        for f in activations:
            a = f(a)
        (slope,) = torch.autograd.grad(a.sum(), z, create_graph=True)
        bend = torch.autograd.grad(slope.sum(), z, allow_unused=True)[0] if slope.requires_grad else None
    return a.detach(), slope.detach(), bend if bend is not None and bool(bend.any()) else None


class LayerStructure:
    """The chain at the end of a risk's model, evaluated at all its examples.

    ``LayerStructure.of(risk)`` is None where the model has no such chain or its outputs are not (N, C).
    """

    layers: list[Layer]
    head: list[tuple[str, slice]]  # chosen parameters before the chain, with their places
    outputs: Tensor  # (N, C)
    targets: Tensor  # (N, ...)

    @classmethod
    def of(cls, risk: EmpiricalRisk) -> LayerStructure | None:
        """Evaluate the chain at the end of ``risk.model``; None if there is none."""
        chain = tail_of(risk.model)
        if not chain:
            return None
        caught, outputs = inputs_of(risk, chain[0][1])  # type: Any, Any
        if any(a.ndim != 2 for a in caught + outputs):
            return None
        a, outputs = torch.cat(caught), torch.cat(outputs)
        if len(a) != len(outputs) or len(a) != risk.num_examples:
            return None
        self, places = cls(), risk.places
        values = {**risk.parameters, **risk.constants}
        self.layers = []
        for name, layer, activations in chain:
            w, b = values[f"{name}.weight"], values.get(f"{name}.bias") if layer.bias is not None else None
            z = a @ w.T if b is None else torch.addmm(b, a, w.T)
            inputs = a if b is None else torch.cat([a, torch.ones_like(a[:, :1])], 1)
            a, slope, bend = derivatives(activations, z)
            at = places.pop(f"{name}.weight", None), places.pop(f"{name}.bias", None)
            self.layers.append(Layer(w, *at, inputs, slope, bend))
        if not torch.allclose(a, outputs, rtol=1e-4, atol=1e-5 * float(outputs.abs().max())):
            return None  # something between the layers escaped the trace
        self.head = list(places.items())
        self.outputs, self.targets = outputs, torch.cat([y for _, y in risk.batches])
        return self

    def backward(self, gradient: Tensor, curvature: Tensor | None) -> list[Pulled]:
        """Gradient (N, n_l) and Hessian (N, n_l, n_l) with respect to each z_l, first layer first.

        ``gradient`` and ``curvature`` are those with respect to the outputs; a curvature of None asks
        for the gradients alone. The loop also yields the gradient with respect to each a_l.
        """
        found = []
        for layer in reversed(self.layers):
            outer, gradient = gradient, gradient * layer.slope
            if curvature is not None:
                curvature = layer.slope[:, :, None] * curvature * layer.slope[:, None, :]
                if layer.bend is not None:
                    curvature = curvature + torch.diag_embed(outer * layer.bend)
            found.append((outer, gradient, curvature))
            gradient = gradient @ layer.weight
            if curvature is not None and layer is not self.layers[0]:
                curvature = layer.weight.T @ curvature @ layer.weight
        return found[::-1]

    def product(self, vectors: Tensor, gradient: Tensor, curve: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Products with k vectors (k, M) by Pearlmutter's R-operator, batched; returns (k, M).

        ``gradient`` (N, C) and ``curve``, the map u -> A u of (k, N, C), are q's, already divided by N.
        """
        k, result = len(vectors), torch.zeros_like(vectors)
        known = self.backward(gradient, None)
        bent = bool(gradient.any())  # G has no gradient term
        matrices, z_dots, a_dots, a_dot = [], [], [], None  # type: list[Tensor], list[Tensor], list[Any], Any
        for layer in self.layers:
            n, fan_in = layer.weight.shape
            matrix = vectors.new_zeros(k, n, layer.inputs.shape[1])
            if layer.weight_at is not None:
                matrix[:, :, :fan_in] = vectors[:, layer.weight_at].reshape(k, n, fan_in)
            if layer.bias_at is not None:
                matrix[:, :, fan_in] = vectors[:, layer.bias_at]
            z_dot = (layer.inputs @ matrix.reshape(k * n, -1).T).reshape(-1, k, n)
            if a_dot is not None:
                z_dot += a_dot @ layer.weight.T
            matrices.append(matrix)
            a_dots.append(a_dot)
            z_dots.append(z_dot)
            a_dot = layer.slope[:, None] * z_dot
        d_dot = torch.zeros_like(a_dot) if curve is None else curve(a_dot.transpose(0, 1)).transpose(0, 1)
        steps = zip(self.layers, matrices, z_dots, a_dots, known, strict=True)
        for layer, matrix, z_dot, a_dot, (outer, inner, _) in reversed(list(steps)):
            n, fan_in = layer.weight.shape
            d_dot = d_dot * layer.slope[:, None]
            if layer.bend is not None and bent:
                d_dot += (outer * layer.bend)[:, None] * z_dot
            block = (d_dot.reshape(-1, k * n).T @ layer.inputs).reshape(k, n, -1)
            if a_dot is not None and bent:
                block[:, :, :fan_in] += (inner.T @ a_dot.reshape(-1, k * fan_in)).reshape(n, k, fan_in).transpose(0, 1)
            if layer.weight_at is not None:
                result[:, layer.weight_at] = block[:, :, :fan_in].reshape(k, -1)
            if layer.bias_at is not None:
                result[:, layer.bias_at] = block[:, :, fan_in]
            if layer is not self.layers[0]:
                d_dot = d_dot @ layer.weight
                if bent:
                    d_dot += torch.einsum("np,kpi->nki", inner, matrix[:, :, :fan_in])
        return result


def factor(curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors b (N, r, C) and signs (N, r) with A_n = sum_r sign b b', r the largest rank among the A_n."""
    values, vectors = torch.linalg.eigh(curvature)
    order = values.abs().argsort(1, descending=True)
    values = values.gather(1, order)
    vectors = vectors.transpose(1, 2).gather(1, order[:, :, None].expand_as(vectors))
    floor = 10 * torch.finfo(values.dtype).eps * values.abs().amax(1, keepdim=True)
    rank = int((values.abs() > floor).sum(1).max())
    values, vectors = values[:, :rank], vectors[:, :rank]
    return vectors * values.abs().sqrt()[:, :, None], torch.where(values < 0, -1.0, 1.0).to(values)
