import pytest
import torch
from torch.nn import functional as F

from hesslib.experiments.data import blobs
from hesslib.experiments.models import fully_connected
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
