"""How much memory there is, and how much a computation keeps."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .batches import tensors_of


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated now on the device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def saved_bytes(work: Callable[[], object]) -> int:
    """Bytes of the tensors that autograd keeps of a piece of work, each storage counted once."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that its place is not used again
        return tensor

    with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    del result  # it holds the graph until here
    return sum(storage.nbytes() for storage in kept.values())


def output_bytes(model: nn.Module, work: Callable[[], object]) -> int:
    """Bytes of what the innermost modules of a model return during a piece of work."""
    sizes: list[int] = []
    seen = lambda module, given, output: sizes.extend(t.numel() * t.element_size() for t in tensors_of(output))
    hooks = [m.register_forward_hook(seen) for m in model.modules() if not list(m.children())]
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)
