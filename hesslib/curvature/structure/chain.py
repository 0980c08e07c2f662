"""The modules that follow one another up to a model's output, as far as they are known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from ..risk import EmpiricalRisk

    Kind = TypeVar("Kind", bound=nn.Module)


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
