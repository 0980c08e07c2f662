"""Closed-form rows of convolutions that precede a chain of Linear layers.

A stage is a convolution, a piecewise linear activation and, perhaps, max-pooling. At each example a
feature of its output is then a linear function of one patch of its input: the patch at the position that
won the pooling, times the slope of the activation there. So for the stages as for the Linear layers (see
``linear.py``)

* the Jacobian of the outputs in a stage's weights is a sum over features of (backpropagated output) times
  patch, and the term J' A J of the rows of the stage's weights is one matrix product;
* the term with d couples a stage's weights only to those of later layers, through the derivative X of
  the features in the weights: for a Linear layer above it is sum_n d[p] X[q, :], for a convolution above, the
  sum over the features f of channel p of d[f] X[patch(f, q), :].

All of it is exact; it needs no product with M unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..._progress import bar
from .chain import ELEMENTWISE, chain_of, derivatives, inputs_of
from .linear import LayerStructure, factor

if TYPE_CHECKING:
    from ..operators import CurvatureOperator
    from ..risk import EmpiricalRisk
    from .linear import Pulled


@dataclass(eq=False)
class Stage:
    """A convolution with the activation and pooling after it, at a chunk of n examples."""

    weight: Tensor  # (channels, q), q = fan_in
    rows: Tensor  # where weight and bias lie among the M parameters, (channels, q [+ 1])
    patches: Tensor  # (n, channels, places, q [+ 1]): each feature's patch, the bias's input appended
    index: Tensor  # (n, channels, places, q): the patch's entries among the inputs; the last slot is padding
    slope: Tensor  # (n, channels, places)
    inputs: int  # number of input features

    def transfer(self) -> Tensor:
        """Derivative (n, features, inputs) of the features in the stage's inputs."""
        n, channels, places, q = self.index.shape
        values = (self.slope[..., None] * self.weight[:, None]).expand(n, channels, places, q)
        full = self.weight.new_zeros(n, channels * places, self.inputs + 1)
        return full.scatter_add_(2, self.index.reshape(n, -1, q), values.reshape(n, -1, q))[..., :-1]

    def own(self) -> Tensor:
        """Derivative (n, features, parameters) of the features in the stage's own parameters."""
        n, channels, places, q = self.patches.shape
        full = self.patches.new_zeros(n, channels, places, channels, q)
        full.diagonal(dim1=1, dim2=3).copy_((self.slope[..., None] * self.patches).permute(0, 2, 3, 1))
        return full.view(n, channels * places, channels * q)


def stages_of(model: nn.Module) -> list[list[tuple[str, nn.Module]]]:
    """The model's stages, each a list that begins with its convolution; empty if it is not made of stages."""
    chain = chain_of(model)
    while chain and (isinstance(chain[-1][1], ELEMENTWISE) or type(chain[-1][1]) is nn.Linear):
        chain.pop()
    stages, pooled = [], False  # type: list[list[tuple[str, Any]]], bool
    for name, module in chain[:-1]:
        if type(module) is nn.Conv2d:
            if module.groups != 1 or isinstance(module.padding, str) or module.padding_mode != "zeros":
                return []
            stages.append([(name, module)])
            pooled = False
        elif not stages or pooled or not isinstance(module, (*ELEMENTWISE, nn.MaxPool2d)):
            return []
        else:
            stages[-1].append((name, module))
            pooled = isinstance(module, nn.MaxPool2d)
    return stages if chain and isinstance(chain[-1][1], nn.Flatten) and chain[-1][1].start_dim == 1 else []


def evaluate(
    stages: list[list[tuple[str, Any]]], risk: EmpiricalRisk, places: dict[str, slice], x: Tensor
) -> tuple[list[Stage], Tensor] | None:
    """The stages at a chunk of inputs, and their flattened output; None if an activation is curved."""
    values, found = {**risk.parameters, **risk.constants}, []
    for (name, conv), *after in stages:
        w, b = values[f"{name}.weight"], values.get(f"{name}.bias") if conv.bias is not None else None
        geometry = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        z = F.conv2d(x, w, b, **geometry)
        a, slope, bend = derivatives([m for _, m in after if not isinstance(m, nn.MaxPool2d)], z)
        if bend is not None:
            return None
        n, channels, height, width = z.shape
        size = x[0].numel()
        # the entries of each position's patch among the inputs, the padding as one more entry that is zero
        table = torch.arange(1, size + 1, device=x.device).double().view(1, *x.shape[1:])
        table = F.unfold(table, conv.kernel_size, conv.dilation, conv.padding, conv.stride)[0].T.long() - 1
        table[table < 0] = size
        position = torch.arange(height * width, device=x.device).expand(n, channels, -1)
        for _, pool in after:
            if isinstance(pool, nn.MaxPool2d):
                options = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
                a, winner = F.max_pool2d(a, *options, return_indices=True)
                position = winner.flatten(2)
        index = table[position]
        padded = torch.cat([x.flatten(1), torch.zeros_like(x[:, 0, 0, :1])], 1)
        patches = padded.gather(1, index.view(n, -1)).view(index.shape)
        at = torch.arange(w.numel()).view(channels, -1) + places[f"{name}.weight"].start
        if b is not None:
            patches = torch.cat([patches, torch.ones_like(patches[..., :1])], -1)
            at = torch.cat([at, torch.arange(channels)[:, None] + places[f"{name}.bias"].start], 1)
        slope = slope.flatten(2).gather(2, position)
        found.append(Stage(w.flatten(1), at.to(x.device), patches, index, slope, size))
        x = a
    return found, x.flatten(1)


def fill_convolutions(matrix: Tensor, op: CurvatureOperator, structure: LayerStructure, progress: bool | None) -> bool:
    """Fill the rows of the parameters before the Linear layers in closed form; False if that is not possible."""
    risk, stages, places = op.risk, stages_of(op.risk.model), op.risk.places
    needed = {
        f"{name}.{kind}" for (name, m), *_ in stages for kind in ("weight", "bias") if getattr(m, kind) is not None
    }
    whole = all(layer.weight_at is not None for layer in structure.layers)
    if not stages or needed != {name for name, _ in structure.head} or not whole:
        return False
    if any(layer.bend is not None for layer in structure.layers):
        return False
    b, signs = factor(op.closed_terms[1])
    bent = bool(op.closed_terms[0].any())
    known = structure.backward(op.closed_terms[0], None)
    caught, _ = inputs_of(risk, stages[0][0][1])  # not the model's inputs, which it may scale or reshape first
    if any(x.ndim != 4 for x in caught):
        return False
    inputs = torch.cat(caught)
    if len(inputs) != risk.num_examples or (first := evaluate(stages, risk, places, inputs[:1])) is None:
        return False
    # the largest array of an example: a stage's features, differentiated in its own or an earlier stage's parameters
    found = first[0]
    pairs = [(high.slope.numel(), low.rows.numel()) for i, low in enumerate(found) for high in found[i:]]
    step = max(1, op.memory_budget // (4 * matrix.element_size() * max(f * m for f, m in pairs)))
    head = torch.cat([s.rows.flatten() for s in found])
    rows = matrix.new_zeros(len(head), len(matrix))
    starts = range(0, len(inputs), step)
    kept, begin = [], 0  # Jacobians of several chunks, for one matrix product, and their first example
    for start in bar(starts, desc=f"{op.name}, examples", show=progress):
        part = slice(start, start + step)
        if (evaluated := evaluate(stages, risk, places, inputs[part])) is None:  # curved, but not at the first example
            return False
        found, _ = evaluated
        kept.append(_jacobian(structure, found, part, b[part], len(matrix)))
        if sum(map(len, kept)) > 1000 or start == starts[-1]:
            jacobian, sign = torch.cat(kept), signs[begin : part.stop].reshape(-1, 1)
            rows += (jacobian[:, head] * sign).T @ jacobian
            kept, begin = [], part.stop
        if bent:
            _add_gradient_rows(rows, structure, found, part, known)
    matrix[head] = rows
    matrix[:, head] = rows.T
    return True


def _jacobian(structure: LayerStructure, stages: list[Stage], part: slice, seeds: Tensor, m: int) -> Tensor:
    """Derivative (n r, M) of seeds (n, r, C) times the outputs in all parameters."""
    n, r, _ = seeds.shape
    result = seeds.new_zeros(n, r, m)
    d = seeds
    for layer in reversed(structure.layers):
        d = d * layer.slope[part, None]
        outer = d[..., None] * layer.inputs[part, None, None]
        fan_in = layer.weight.shape[1]
        result[..., layer.weight_at] = outer[..., :fan_in].flatten(2)
        if layer.bias_at is not None:
            result[..., layer.bias_at] = outer[..., fan_in]
        d = d @ layer.weight
    for stage in reversed(stages):
        _, channels, count, _ = stage.patches.shape
        weighted = d.view(n, r, channels, count) * stage.slope[:, None]
        found = weighted.transpose(1, 2) @ stage.patches  # (n, channels, r, q)
        result[:, :, stage.rows.flatten()] = found.transpose(1, 2).flatten(2)
        if stage is not stages[0]:
            d = d @ stage.transfer()
    return result.flatten(0, 1)


def _add_gradient_rows(
    rows: Tensor, structure: LayerStructure, stages: list[Stage], part: slice, known: list[Pulled]
) -> None:
    """Add the term with d between each stage (rows) and everything above it (columns), and its mirror among stages."""
    d = known[0][1][part] @ structure.layers[0].weight  # with respect to the last stage's features
    pulled = []
    for stage in reversed(stages):
        pulled.append(d.view(stage.slope.shape) * stage.slope)
        d = torch.einsum("nf,nfi->ni", d, stage.transfer()) if stage is not stages[0] else None  # type: ignore[assignment]
    pulled, start = pulled[::-1], 0
    begins = []
    for stage in stages:
        begins.append(start)
        start += stage.rows.numel()
    for low, stage in enumerate(stages):
        here = slice(begins[low], begins[low] + stage.rows.numel())
        x = stage.own()
        for high in range(low + 1, len(stages)):
            above = stages[high]
            found = _couple(pulled[high], above, x)  # (channels, q, parameters)
            columns = above.rows[:, : above.weight.shape[1]]
            rows[here][:, columns.flatten()] += found.flatten(0, 1).T
            place = begins[high] + torch.arange(above.rows.numel(), device=x.device).view(above.rows.shape)
            place = place[:, : above.weight.shape[1]].flatten()
            rows[place[:, None], stage.rows.flatten()[None]] += found.flatten(0, 1)
            x = above.transfer() @ x
        for layer, (_, inner, _) in zip(structure.layers, known, strict=True):
            found = inner[part].T @ x.flatten(1)  # (units, inputs * parameters)
            found = found.view(layer.width, *x.shape[1:]).flatten(0, 1)
            rows[here, layer.weight_at] += found.T
            if layer is not structure.layers[-1]:
                x = (layer.slope[part, :, None] * layer.weight) @ x


def _couple(d: Tensor, stage: Stage, x: Tensor) -> Tensor:
    """sum_n sum_f d[n, f] x[n, patch(f, q), :] for each channel of f, (channels, q, parameters)."""
    n, channels, places, q = stage.index.shape
    total = x.new_zeros(channels * q, x.shape[2])
    for i in range(n):  # the scattered matrix of one example is as large as all that is kept of it
        picked = x.new_zeros(channels, q, stage.inputs + 1)
        picked.scatter_add_(2, stage.index[i].transpose(1, 2), d[i, :, None].expand(channels, q, places))
        total += picked[..., :-1].reshape(channels * q, -1) @ x[i]
    return total.view(channels, q, -1)
