import hashlib

import numpy as np
import pytest
import torch

from hesslib.experiments import data
from hesslib.experiments.data import blobs, cifar10, mnist


def test_mnist_is_the_embedded_digits_split_without_overlap():
    d = mnist(1000, seed=3)
    assert d.inputs.shape == (1000, 784) and d.inputs.dtype == torch.float64
    assert d.test_inputs.shape == (4000, 784)
    assert torch.equal(d.targets.bincount(), torch.full((10,), 100))
    assert float(d.inputs.min()) == 0 and float(d.inputs.max()) == 1
    seen = {row.numpy().tobytes() for row in d.inputs}
    assert not any(row.numpy().tobytes() in seen for row in d.test_inputs)


def test_mnist_depends_on_its_seed_alone():
    assert torch.equal(mnist(50, seed=1).inputs, mnist(50, seed=1).inputs)
    assert not torch.equal(mnist(50, seed=1).inputs, mnist(50, seed=2).inputs)
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    mnist(20, seed=5), blobs(20, 3, 4, seed=5)
    assert torch.equal(first, torch.rand(1))


def test_mnist_balance_is_an_option():
    counts = mnist(200, seed=0, balanced=False).targets.bincount()
    assert int(counts.sum()) == 200 and len(set(counts.tolist())) > 1
    assert mnist(25, seed=0).targets.bincount().tolist().count(3) == 5


def test_blobs_follow_the_released_recipe():
    d = blobs(500, classes=5, dimension=20, cluster_std=2.0, seed=1)
    both = torch.cat([d.inputs, d.test_inputs]).numpy()
    assert d.inputs.shape == (500, 20) and d.classes == 5
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(both.std(0), 1, atol=1e-12)
    assert set(d.targets.tolist()) == set(range(5))


def test_separation_is_the_distance_between_centres():
    d = blobs(4000, classes=4, dimension=12, cluster_std=2.0, seed=0, separation=10.0)
    # undo the standardisation's scale through the within-cluster deviation, which is known
    x, y = torch.cat([d.inputs, d.test_inputs]), torch.cat([d.targets, d.test_targets])
    means = torch.stack([x[y == c].mean(0) for c in range(4)])
    within = torch.stack([x[y == c].std(0) for c in range(4)]).mean(0)
    distances = torch.pdist(means / within)
    assert torch.allclose(distances, torch.full_like(distances, 10.0), rtol=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mnist(5), "examples=5"),
        (lambda: mnist(5000), "10 to 4990"),
        (lambda: blobs(10, classes=1), "classes=1"),
        (lambda: blobs(10, classes=11), "classes=11"),
        (lambda: blobs(10, 2, dimension=0), "dimension=0"),
        (lambda: blobs(10, 2, 3, cluster_std=-1.0), "cluster_std=-1.0"),
        (lambda: blobs(10, 5, 3, separation=2.0), "separation=2.0"),
        (lambda: blobs(10, 2, 3, separation=-2.0), "separation=-2.0"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def few_images(tmp_path, monkeypatch):
    """A cache with three images a file in place of CIFAR-10, and no network."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    sums = {}
    for i, name in enumerate(data.CIFAR10):
        raw = np.random.default_rng(i).integers(0, 256, (3, 3073), dtype=np.uint8)
        raw[:, 0] = [i, 0, 9]
        (folder / name).write_bytes(raw.tobytes())
        sums[name] = hashlib.sha256(raw.tobytes()).hexdigest()
    monkeypatch.setattr(data, "CIFAR10", sums)
    monkeypatch.setenv("HESSLIB_DATA", str(tmp_path))

    def no_network(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(data.pooch, "retrieve", no_network)
    return folder


def test_cifar_is_read_from_the_cache(few_images):
    d = cifar10()
    assert d.inputs.shape == (15, 3, 32, 32) and d.test_inputs.shape == (3, 3, 32, 32)
    assert d.targets[:6].tolist() == [0, 0, 9, 1, 0, 9] and d.test_targets.tolist() == [5, 0, 9]
    raw = np.frombuffer((few_images / "data_batch_2.bin").read_bytes(), np.uint8).reshape(3, 3073)
    plain = torch.as_tensor(raw[1, 1:].astype(np.float32)).view(3, 32, 32)
    for channel, seen in zip(plain, d.inputs[4]):  # red, green and blue planes, each moved and scaled
        assert float(torch.corrcoef(torch.stack([channel.flatten(), seen.flatten()]))[0, 1]) == pytest.approx(1)
    torch.testing.assert_close(d.inputs.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)


def test_a_damaged_image_file_is_never_used(few_images):
    file = few_images / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(OSError, match=r"could not be downloaded.*Place the six files.*HESSLIB_DATA"):
        cifar10()
