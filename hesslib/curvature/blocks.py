"""An operator by groups of parameters: what each block on the diagonal is, and how strong the others are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._checks import whole
from .._progress import bar
from .memory import free_memory
from .operators import CurvatureOperator


@dataclass(frozen=True)
class Blocks:
    """A symmetric operator by groups of its parameters.

    Attributes:
        names: of the groups, in their order.
        sizes: (groups,), numbers of parameters.
        norms: (groups, groups), Frobenius norms of the blocks.
        errors: (groups, groups), standard errors of the norms; zero where they are exact.
        eigenvalues: for each name all eigenvalues of the block on the diagonal, ascending float64; empty where the
            norms are estimated.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    norms: np.ndarray
    errors: np.ndarray
    eigenvalues: dict[str, np.ndarray]

    @property
    def diagonal_share(self) -> float:
        """Share of the squared Frobenius norm that the blocks on the diagonal hold: 1 if there is nothing else."""
        squares = self.norms**2
        return float(np.trace(squares) / squares.sum()) if squares.any() else float("nan")


def blocks(
    op: CurvatureOperator,
    groups: Literal["layer", "parameter"] | Mapping[str, Iterable[str]] | None = None,
    *,
    probes: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Blocks:
    """The blocks of an operator: spectra of those on the diagonal, Frobenius norms of all of them.

    Exact, at the cost of the matrix: it is assembled where it fits into ``op.memory_budget``; otherwise its rows come
    from products, a chunk at a time. Memory: twice ``op.memory_budget``, and three times the largest block on the
    diagonal in float64.

    With ``probes``, the norms alone are estimated, from ``probes`` products for each group and without any block: for
    random signs z on the parameters of a group, the mean of the squared norm of the rows of a group of H z is the
    squared norm of the block.

    Args:
        op: ``risk.hessian()``, ``risk.ggn()`` or ``risk.residual()``.
        groups: ``"layer"`` (the default; the parameters of one module), ``"parameter"`` (each tensor), or a dict from
            the name of a group to the names of its parameters. Parameters in no group are left out.
        probes: at least 2, to estimate the norms; by default they are exact.
        seed: of the probes.
        progress: False hides the bar.

    Raises:
        MemoryError: the largest block does not fit into free memory; nothing has been allocated.
        ValueError: a group is empty, names something unknown, or shares a parameter with another.
        TypeError: op is another kind of operator.

    Example:
        >>> import torch
        >>> from hesslib import EmpiricalRisk, blocks
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).double()
        >>> risk = EmpiricalRisk(model, torch.eye(3).double(), torch.tensor([0, 1, 0]))
        >>> found = blocks(risk.hessian())
        >>> found.names, found.sizes.tolist(), found.norms.shape, len(found.eigenvalues["0"])
        (('0', '2'), [16, 10], (2, 2), 16)
    """
    if not isinstance(op, CurvatureOperator):
        raise TypeError(f"op: a CurvatureOperator (risk.hessian(), risk.ggn(), ...) is needed, got {type(op).__name__}")
    at = _indices(op, groups)
    sizes = np.array([len(index) for index in at.values()])
    if probes is not None:
        whole(2, probes=probes)
        whole(0, seed=seed)
        norms, errors = _estimated_norms(op, list(at.values()), probes, seed, progress)
        return Blocks(tuple(at), sizes, norms, errors, {})
    largest, free = max(at, key=lambda name: len(at[name])), free_memory(op.risk.device)
    needed = 3 * 8 * len(at[largest]) ** 2
    if needed + 2 * op.memory_budget > free:
        raise MemoryError(
            f"{op.name}: the block {largest!r} of order {len(at[largest])} needs {needed / 2**30:.1f} GiB besides "
            f"{2 * op.memory_budget / 2**30:.1f} GiB for products, and {free / 2**30:.1f} GiB are free; give smaller "
            "groups, or probes=10 for the norms alone, with standard errors"
        )
    squares, eigenvalues = np.zeros((len(at), len(at))), {}
    for i, (name, rows) in enumerate(_rows_of_groups(op, at, progress)):
        inner = torch.zeros(len(at[name]), len(at[name]), dtype=torch.float64, device=op.risk.device)
        for start, part in rows:
            for j, (other, index) in enumerate(at.items()):
                found = part[:, index].double()
                squares[i, j] += float(found.square().sum())
                if other == name:
                    inner[start : start + len(part)] = found
        eigenvalues[name] = _eigenvalues(inner)
    squares = (squares + squares.T) / 2
    return Blocks(tuple(at), sizes, np.sqrt(squares), np.zeros_like(squares), eigenvalues)


def _indices(
    op: CurvatureOperator, groups: Literal["layer", "parameter"] | Mapping[str, Iterable[str]] | None
) -> dict[str, Tensor]:
    """Where the parameters of each group lie in the flattened vector."""
    places = op.risk.places
    if groups is None or groups == "layer":
        made: dict[str, list[str]] = {}
        for name in places:
            made.setdefault(name.rpartition(".")[0], []).append(name)
    elif groups == "parameter":
        made = {name: [name] for name in places}
    elif isinstance(groups, Mapping):
        for name, own in groups.items():
            if not isinstance(own, Iterable):
                raise ValueError(f"groups: {name!r} is {own!r}; give names of parameters: {', '.join(places)}")
        made = {name: [own] if isinstance(own, str) else list(own) for name, own in groups.items()}
    else:
        raise ValueError(
            f"groups={groups!r}: give 'layer', 'parameter' or a dict from a group's name to its parameters' names"
        )
    named = [name for own in made.values() for name in own]
    unknown = [name for name in named if name not in places]
    twice = sorted({name for name in named if named.count(name) > 1})
    empty = [name for name, own in made.items() if not own]
    if unknown or twice or empty or not made:
        what = f"unknown: {unknown}" if unknown else f"in several groups: {twice}" if twice else f"empty: {empty}"
        raise ValueError(f"groups: {what if made else 'none given'}; the parameters are {', '.join(places)}")
    spread = lambda own: torch.cat([torch.arange(places[name].start, places[name].stop) for name in own])
    return {name: spread(own).to(op.risk.device) for name, own in made.items()}


def _rows_of_groups(
    op: CurvatureOperator, at: dict[str, Tensor], progress: bool | None
) -> Iterator[tuple[str, Iterator[tuple[int, Tensor]]]]:
    """For each group the rows (n, M) of its parameters, with where they begin, a chunk at a time."""
    m, size, itemsize = op.shape[0], sum(map(len, at.values())), op.dtype.itemsize
    step = max(1, min(op.chunk, op.memory_budget // (m * itemsize)))
    matrix = op.to_dense(progress=progress) if m * m * itemsize <= op.memory_budget else None
    with bar(desc=f"{op.name}, rows", total=size, show=progress) as shown:

        def rows(index: Tensor) -> Iterator[tuple[int, Tensor]]:
            for start in range(0, len(index), step):
                part = index[start : start + step]
                if matrix is None:
                    yield start, op.product(_unit_vectors(op, part))
                else:
                    yield start, matrix[part]
                shown.update(len(part))

        for name, index in at.items():
            yield name, rows(index)


def _unit_vectors(op: CurvatureOperator, index: Tensor) -> Tensor:
    """The unit vectors (n, M) of some places."""
    basis = torch.zeros(len(index), op.shape[0], dtype=op.risk.dtype, device=op.risk.device)
    basis[torch.arange(len(index), device=index.device), index] = 1
    return basis


def _eigenvalues(matrix: Tensor) -> np.ndarray:
    """All eigenvalues of a symmetric matrix, those of its zero rows being exact zeros."""
    alive = matrix.any(1)
    inner = matrix if bool(alive.all()) else matrix[alive][:, alive]
    values = torch.linalg.eigvalsh(inner).cpu().numpy()
    return np.sort(np.concatenate([values, np.zeros(len(matrix) - len(inner))]))


def _estimated_norms(
    op: CurvatureOperator, at: list[Tensor], probes: int, seed: int, progress: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Frobenius norms of the blocks, and their standard errors over the probes."""
    generator = torch.Generator().manual_seed(seed)
    samples = np.zeros((probes, len(at), len(at)))
    for j, index in enumerate(bar(at, desc=f"{op.name}, groups", show=progress)):
        z = torch.zeros(probes, op.shape[0], dtype=op.risk.dtype, device=op.risk.device)
        signs = torch.randint(0, 2, (probes, len(index)), generator=generator) * 2 - 1
        z[:, index] = signs.to(z)
        image = op.product(z).double().square()
        samples[:, :, j] = torch.stack([image[:, rows].sum(1) for rows in at], 1).cpu().numpy()
    samples = (samples + samples.transpose(0, 2, 1)) / 2
    norms = np.sqrt(samples.mean(0))
    errors = samples.std(0, ddof=1) / np.sqrt(probes)
    return norms, np.divide(errors, 2 * norms, out=np.zeros_like(errors), where=norms > 0)
