import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from hesslib.experiments.data import blobs
from hesslib.experiments.models import MixedPrecision, SmallMap, alexnet, convolutional, fully_connected
from hesslib.experiments.training import DivergenceError, accuracy, batches_of, train


@pytest.fixture
def data():
    return blobs(40, classes=3, dimension=5, seed=0)


def network(seed=0, **options):
    return fully_connected([5, 6, 3], seed=seed, **options)


def test_gradient_descent_is_torch_sgd(data):
    ours, theirs = network(), network()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.3)
    train(ours, data.inputs, data.targets, step_size=0.3, iterations=25)
    for _ in range(25):
        optimizer.zero_grad()
        F.cross_entropy(theirs(data.inputs), data.targets).backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_records_are_taken_before_the_step_of_that_number(data):
    model = network()
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    history = train(model, data.inputs, data.targets, step_size=0.3, iterations=10, record=[0, 4])
    assert history.iterations == [0, 4, 10] and torch.equal(history.parameters[0], start)
    assert history.losses[0] > history.losses[1] > history.losses[2]
    assert torch.equal(history.parameters[-1], torch.nn.utils.parameters_to_vector(model.parameters()))
    assert history.losses[-1] == pytest.approx(float(F.cross_entropy(model(data.inputs), data.targets).detach()))


def test_mini_batch_records_are_of_the_whole_training_set(data):
    model = network()
    whole = float(F.cross_entropy(model(data.inputs), data.targets).detach())
    history = train(model, data.inputs, data.targets, step_size=0.1, iterations=3, batch_size=8, seed=1, record=[0])
    assert history.losses[0] == pytest.approx(whole, rel=1e-14)


def test_batches_cover_each_epoch_once():
    stored = batches_of(7, 3, None)
    assert [next(stored).tolist() for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]
    shuffled = batches_of(7, 3, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(shuffled) for _ in range(3)]).tolist()
    assert sorted(epoch) == list(range(7)) and epoch != list(range(7))


def test_training_stops_at_the_gradient_tolerance(data):
    history = train(network(), data.inputs, data.targets, step_size=0.5, iterations=5000, gradient_tolerance=0.05)
    assert history.iterations[-1] < 5000 and history.gradient_norms[-1] <= 0.05


def test_divergence_names_the_iteration(data):
    with pytest.raises(DivergenceError, match=r"iteration \d+.*step_size=1e\+200"):
        train(network(), data.inputs, data.targets, step_size=1e200, iterations=50)


def test_the_seed_alone_decides(data):
    a, b, c = network(1), network(1), network(2)
    torch.manual_seed(9)
    assert torch.equal(a[0].weight, b[0].weight) and not torch.equal(a[0].weight, c[0].weight)
    assert float(fully_connected([1000, 500], scale=0.1, seed=0)[0].weight.detach().std()) == pytest.approx(
        0.1, rel=0.01
    )
    assert float(network()[0].weight.detach().abs().max()) <= 5**-0.5


def test_accuracy_counts_the_largest_output(data):
    model = torch.nn.Identity()
    assert accuracy(model, torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 41}, "batch_size=41"),
        ({"iterations": -1}, "iterations=-1"),
        ({"step_size": 0.0}, "step_size=0.0"),
    ],
)
def test_bad_numbers_are_refused(data, change, message):
    with pytest.raises(ValueError, match=message):
        train(network(), data.inputs, data.targets, **{"step_size": 0.1, "iterations": 5, **change})


def test_bad_networks_are_refused():
    with pytest.raises(ValueError, match=r"sizes=\[5\]"):
        fully_connected([5], seed=0)
    with pytest.raises(ValueError, match="activation='swish'"):
        fully_connected([5, 3], activation="swish", seed=0)


class Stop(Exception):
    """Stands for whatever ends a run from outside."""


@pytest.mark.parametrize("batch_size", [0, 8])
def test_a_stopped_run_ends_as_if_never_stopped(data, tmp_path, batch_size):
    def run(checkpoint, stop_at=None):
        model, seen = network(), []

        def measure(model):
            seen.append(1)
            if len(seen) == stop_at:
                raise Stop
            return {"loss": float(F.cross_entropy(model(data.inputs), data.targets).detach())}

        options = {
            "step_size": 0.3,
            "iterations": 40,
            "batch_size": batch_size,
            "seed": 3,
            "record": range(0, 40, 7),
            "average": 3,
        }
        history = train(model, data.inputs, data.targets, **options, measure=measure, checkpoint=checkpoint)
        return model, history, len(seen)

    whole, expected, _ = run(tmp_path / "whole.npz")
    for stop_at in (2, 4):
        with pytest.raises(Stop):
            run(tmp_path / "parts.npz", stop_at)
    resumed, history, calls = run(tmp_path / "parts.npz")
    assert calls == 3  # of seven records four had been kept
    assert history.iterations == expected.iterations == [0, 7, 14, 21, 28, 35, 40]
    assert history.measures == expected.measures and torch.equal(history.average, expected.average)
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    options = {"step_size": 0.3, "iterations": 4, "measure": lambda m: {}, "checkpoint": tmp_path / "c.npz"}
    train(network(), data.inputs, data.targets, **options)
    with pytest.raises(ValueError, match="another run"):
        train(network(1), data.inputs, data.targets, **options)
    with pytest.raises(ValueError, match="another run"):
        train(network(), data.inputs, data.targets, **{**options, "step_size": 0.2})
    whole = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        train(network(), data.inputs, data.targets, **options)
    with pytest.raises(ValueError, match="give measure too"):
        train(network(), data.inputs, data.targets, step_size=0.3, iterations=4, checkpoint=tmp_path / "c.npz")


def test_sizes_of_the_convolutional_networks():
    count = lambda model: sum(p.numel() for p in model.parameters())
    assert count(convolutional(seed=0)) == 11978 and count(alexnet(seed=0)) == 2472266
    assert convolutional((2, 3), 4, seed=0)(torch.zeros(5, 1, 28, 28).double()).shape == (5, 10)
    assert alexnet(2, 7, seed=0)(torch.zeros(5, 3, 32, 32)).shape == (5, 7)
    with pytest.raises(ValueError, match="width=0"):
        alexnet(0, seed=0)
    with pytest.raises(ValueError, match=r"filters=\(8,\)"):
        convolutional((8,), seed=0)


@pytest.mark.parametrize(("side", "kernel"), [(2, 3), (4, 5), (6, 3)])
def test_the_convolution_on_a_small_map_is_a_convolution(side, kernel):
    layer, x = SmallMap(3, 5, kernel).double(), torch.rand(300, 3, side, side).double()
    few = torch.cat([layer(part) for part in x.split(100)])
    torch.testing.assert_close(layer(x), few, rtol=1e-13, atol=1e-13)
    got, want = (torch.autograd.grad((y**2).sum(), layer.weight)[0] for y in (layer(x), few))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_mixed_precision_is_the_same_network_to_bfloat16():
    model, x = alexnet(8, seed=0), torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mixed, exact = MixedPrecision(model)(x), model(x)
    assert mixed.dtype == torch.float32
    assert 0 < float((mixed - exact).detach().abs().max()) < 0.02 * float(exact.detach().abs().max())


def test_a_compiled_network_trains_to_the_same_numbers():
    """What the long runs use on a GPU, here without the code generator: no step falls out of the graph."""
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(12, 3, 32, 32, generator=draw), torch.arange(12) % 10
    ends = []
    for compiled in (False, True):
        model = alexnet(2, seed=0)
        trained = MixedPrecision(model)
        if compiled:
            trained = torch.compile(trained, backend="aot_eager", fullgraph=True, dynamic=False)
        train(trained, inputs, targets, step_size=0.05, iterations=4, batch_size=5, seed=0)
        ends.append(parameters_to_vector(model.parameters()))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_divergence_tells_where_and_what_was_seen_before_also_across_processes(data):
    with pytest.raises(DivergenceError, match="diverged at iteration") as caught:
        train(network(), data.inputs, data.targets, step_size=1e6, iterations=50, record=range(50))
    error = pickle.loads(pickle.dumps(caught.value))
    assert f"at iteration {error.iteration}:" in str(error) and error.iteration > 0
    assert error.history.iterations == list(range(error.iteration))


def test_the_average_is_that_of_the_last_records(data):
    options = {"step_size": 0.3, "iterations": 6, "record": range(0, 6, 2)}
    history = train(network(), data.inputs, data.targets, **options, average=2)
    assert history.iterations == [0, 2, 4, 6]
    torch.testing.assert_close(history.average, torch.stack(history.parameters[-2:]).mean(0), rtol=1e-15, atol=0)
    assert train(network(), data.inputs, data.targets, **options).average is None
    stopped = train(network(), data.inputs, data.targets, **options, average=2, gradient_tolerance=1e9)
    assert stopped.average is None  # it never came to these records
