"""Each example's gradients, layer by layer.

A Linear layer or a convolution multiplies its weight W (c, q) with a patch x_p of its input at each of P places. The
gradient of a scalar of example n in W is then sum_p d_p x_p', with d_p the scalar's gradient in the layer's outputs at
place p: what is needed are the layer's inputs and the gradients in its outputs, example by example.

That holds for a layer that is called once and whose parameters are used nowhere else. Both are found by evaluating the
model with hooks and going through the graph of that evaluation, and the layer's outputs are compared with
its patches times its weight.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from ..batches import axes_of, count_examples, take
from .chain import is_plain

if TYPE_CHECKING:
    from ..risk import EmpiricalRisk

    # input, output, what was added to it, the module, and its weight and bias in that call
    Call: TypeAlias = tuple[Tensor, Tensor, Tensor, nn.Module, Tensor, Tensor | None]

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False)
class ExampleLayer:
    """A layer of which the examples' gradients are known by its inputs and the gradients in its outputs."""

    name: str
    module: Any
    weight: bool  # whether its weight is among the chosen parameters, and its bias
    bias: bool
    groups: int
    channels: int  # outputs of a group
    places: int  # in the first batch; inputs of other batches may be longer
    axes: int  # of an example's outputs

    @property
    def inputs(self) -> int:
        """Numbers in a patch: those that a chosen weight multiplies, and the constant input of a chosen bias."""
        return self.weight * int(self.module.weight[0].numel()) + self.bias

    def patches(self, x: Tensor) -> Tensor:
        """Patches (n, groups, places, inputs) of the layer's input, as far as its parameters are chosen."""
        found = patches(self.module, x)
        one = torch.ones_like(found[..., :1])
        return torch.cat([found] * self.weight + [one] * self.bias, -1)

    def confirm(self, x: Tensor, delta: Tensor, weight: Any, bias: Any) -> None:
        """Keep as the layer's own the parameters whose gradient is what its input and that of its outputs give."""
        d, self.weight, self.bias = self.deltas(delta), False, False
        if weight is not None:
            made = torch.einsum("ngpc,ngpq->gcq", d, patches(self.module, x))
            self.weight = same(made.reshape(weight.shape), weight)
        if bias is not None:
            self.bias = same(d.sum((0, 2)).flatten(), bias)

    def deltas(self, gradient: Tensor) -> Tensor:
        """Gradients (..., groups, places, channels) in the outputs, from (..., *shape of an example's outputs)."""
        lead = gradient.shape[: -self.axes]
        if isinstance(self.module, nn.Linear):
            return gradient.reshape(*lead, 1, -1, self.channels)
        return gradient.reshape(*lead, self.groups, self.channels, -1).transpose(-1, -2)


def patches(module: Any, x: Tensor) -> Tensor:
    """What a Linear layer or a convolution multiplies with its weight, (n, groups, places, q)."""
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), 1, -1, x.shape[-1])
    sizes = list(zip(module.kernel_size, module.stride, module.dilation))
    if isinstance(module.padding, str):
        wide = [d * (k - 1) * (module.padding == "same") for k, _, d in sizes]
        pads = [(w // 2, w - w // 2) for w in wide]
    else:
        pads = [(w, w) for w in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, [w for pair in reversed(pads) for w in pair], mode)
    for axis, (k, s, d) in enumerate(sizes, 2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    x = x.unflatten(1, (module.groups, -1))
    dims = len(sizes)
    x = x.permute(0, 1, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims))
    return x.reshape(*x.shape[:2], x.shape[2 : 2 + dims].numel(), -1)


def watched(
    risk: EmpiricalRisk, modules: dict[str, nn.Module], x: Any, leaves: dict[str, Tensor]
) -> tuple[Tensor, dict[str, list[Call | None]]]:
    """The outputs for a batch, and each call of the modules; zeros added to a module's output carry its gradient."""
    calls = {name: [] for name in modules}  # type: dict[str, list[Call | None]]

    def hook(name: str) -> Any:
        def seen(module: Any, given: Any, output: Any) -> Any:
            usual = len(given) == 1 and isinstance(output, Tensor) and torch.is_grad_enabled()
            if not (usual and output.is_floating_point()):
                calls[name].append(None)
                return None
            zeros = torch.zeros_like(output, requires_grad=True)
            weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
            calls[name].append((given[0].detach(), output.detach(), zeros, module, weight, bias))
            return output + zeros

        return seen

    hooks = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        with torch.enable_grad():
            return risk.outputs(leaves, x), calls
    finally:
        for handle in hooks:
            handle.remove()


def uses_of(outputs: Tensor) -> Counter[int]:
    """How often each leaf, by its id, is used in the graph of an evaluation."""
    uses, seen, todo = Counter(), set(), [outputs.grad_fn]  # type: Counter[int], set[Any], list[Any]
    while todo:
        node = todo.pop()
        for following, _ in node.next_functions if node is not None else ():
            if hasattr(following, "variable"):
                uses[id(following.variable)] += 1
            elif following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return uses


def layers_of(risk: EmpiricalRisk) -> list[ExampleLayer]:
    """The Linear layers and convolutions that are called once, with parameters that are used nowhere else."""
    modules = {n: m for n, m in risk.model.named_modules() if isinstance(m, KINDS) and is_plain(m)}  # type: Any
    leaves = {n: p.clone().requires_grad_() for n, p in risk.parameters.items()}
    x, _ = risk.batches[0]
    axes, layers = axes_of(x), []  # type: Any, list[ExampleLayer]
    for count in (
        1,
        min(8, count_examples(x)),
    ):  # the axis that is as long as the examples, whatever their number, is theirs
        outputs, calls = watched(risk, modules, take(x, axes, slice(0, count)), leaves)
        uses = uses_of(outputs)
        layers = [layer for name in modules if (layer := understood(name, calls[name], count)) is not None]
        own = {layer: [f"{layer.name}.{kind}".lstrip(".") for kind in ("weight", "bias")] for layer in layers}
        once = {layer: [name in leaves and uses[id(leaves[name])] == 1 for name in own[layer]] for layer in layers}
        layers = [layer for layer in layers if any(once[layer])]
        if not layers:
            break
        inputs = [calls[layer.name][0][2] for layer in layers]  # type: ignore[index]
        inputs += [leaves[name] for layer in layers for name, one in zip(own[layer], once[layer]) if one]
        noise = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = list(torch.autograd.grad(outputs, inputs, noise.to(outputs), materialize_grads=True))
        deltas, gradients = found[: len(layers)], iter(found[len(layers) :])
        for layer, delta in zip(layers, deltas):
            own_gradients = [next(gradients) if one else None for one in once[layer]]
            layer.confirm(calls[layer.name][0][0], delta, *own_gradients)  # type: ignore[index]
        layers = [layer for layer in layers if layer.weight or layer.bias]
        modules = {layer.name: layer.module for layer in layers}
    return layers


def understood(name: str, calls: list[Call | None], count: int) -> ExampleLayer | None:
    """A layer whose one call, with so many examples, was its patches times its weight; else None."""
    if len(calls) != 1 or calls[0] is None:
        return None
    x, output, _, module, weight, bias = calls[0]  # type: Tensor, Tensor, Tensor, Any, Tensor, Any
    if x.ndim < 2 or len(x) != count or len(output) != count:
        return None
    flat = patches(module, x)
    groups, places, q = flat.shape[1:]
    channels = len(weight) // groups
    layer = ExampleLayer(name, module, True, bias is not None, groups, channels, places, output.ndim - 1)
    made = torch.einsum("ngpq,gcq->ngpc", flat, weight.view(groups, channels, q))
    if bias is not None:
        made = made + bias.view(groups, 1, channels)
    return layer if same(made, layer.deltas(output)) else None


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal up to rounding."""
    return float((a - b).abs().max()) <= torch.finfo(a.dtype).eps ** 0.5 * float(b.abs().max())


@sdpa_kernel(SDPBackend.MATH)
def other_gradients(risk: EmpiricalRisk, names: list[str], x: Any, axes: Any, seeds: Tensor) -> Tensor:
    """Gradients (n, R, size) in the named parameters of the examples' outputs, weighted by the seeds (n, R, ...).

    By ``torch.func`` for all examples at once or, where it cannot take an operation, one after the other.
    """
    chosen = {name: risk.parameters[name] for name in names}

    def pull(x: Any, u: Tensor) -> Tensor:
        alone = tree_map(lambda t, axis: t if axis is None else t[None], x, axes)
        _, back = vjp(lambda p: risk.outputs({**risk.parameters, **p}, alone)[0], chosen)  # type: ignore[misc]
        found = vmap(lambda v: back(v)[0])(u)
        return torch.cat([found[name].flatten(1) for name in names], 1)

    try:
        return vmap(pull, in_dims=(axes, 0))(x, seeds)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # not for torch.func: recurrent layers, old autograd.Functions, checkpoints
        return torch.stack([_one_by_one(risk, chosen, take(x, axes, slice(i, i + 1)), u) for i, u in enumerate(seeds)])


def _one_by_one(risk: EmpiricalRisk, chosen: dict[str, Tensor], x: Any, seeds: Tensor) -> Tensor:
    """The same of one example, (R, size), by ``torch.autograd``."""
    leaves = {n: p.clone().requires_grad_(n in chosen) for n, p in risk.parameters.items()}
    with torch.enable_grad():
        f = risk.outputs(leaves, x)
    inputs = [leaves[name] for name in chosen]
    options = {"retain_graph": True, "materialize_grads": True}  # type: dict[str, Any]
    found = [torch.autograd.grad(f, inputs, u[None], **options) for u in seeds]
    return torch.stack([torch.cat([p.flatten() for p in parts]) for parts in found])
