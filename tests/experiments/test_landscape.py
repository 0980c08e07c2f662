import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from hesslib.experiments.landscape import (
    align,
    along_line,
    barrier,
    loss_and_accuracy,
    on_plane,
    pass_between,
    reorder,
)
from hesslib.experiments.models import fully_connected

vector = lambda model: parameters_to_vector(model.parameters()).detach()


@pytest.fixture
def nets():
    return [fully_connected([5, 6, 4, 3], seed=s) for s in (0, 1)]


def test_the_line_passes_through_both_ends_and_leaves_the_model_alone(nets):
    a, b = map(vector, nets)
    seen = along_line(nets[0], a, b, [0, 1, 2, -0.5], vector)
    for got, want in zip(seen, [a, b, 2 * b - a, 1.5 * a - 0.5 * b]):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
    assert torch.equal(vector(nets[0]), a)
    with pytest.raises(ValueError, match=r"end: shape \(3,\)"):
        along_line(nets[0], a, b[:3], [0], vector)


def test_loss_and_accuracy_do_not_depend_on_the_batch(nets):
    x, y = torch.rand(50, 5).double(), torch.arange(50) % 3
    whole, parts = (loss_and_accuracy(nets[0], x, y, size) for size in (50, 7))
    assert whole == pytest.approx(parts, rel=1e-13)
    assert whole[1] == float((nets[0](x).argmax(1) == y).double().mean())


def test_barrier_counts_from_the_higher_end_and_only_between():
    assert barrier([-1, 0, 0.5, 1, 2], [9, 1, 1.5, 2, 9]) == 0
    assert barrier([0, 0.5, 1], [1, 3, 2]) == 1
    with pytest.raises(ValueError, match="0 and 1 among them"):
        barrier([0, 0.5], [1, 2])


def test_reordering_units_moves_the_point_and_keeps_the_function(nets):
    orders = [torch.tensor([3, 0, 5, 1, 2, 4]), torch.tensor([1, 0, 3, 2])]
    other, x = reorder(nets[0], orders), torch.rand(9, 5).double()
    torch.testing.assert_close(other(x), nets[0](x), rtol=1e-13, atol=1e-13)
    assert float((vector(other) - vector(nets[0])).norm()) > 0.1
    with pytest.raises(ValueError, match="orders"):
        reorder(nets[0], orders[:1])


def test_alignment_undoes_a_reordering(nets):
    orders = [torch.tensor([3, 0, 5, 1, 2, 4]), torch.tensor([1, 0, 3, 2])]
    assert torch.equal(vector(align(reorder(nets[0], orders), nets[0])), vector(nets[0]))


def test_alignment_of_one_hidden_layer_is_the_best_of_all_orders():
    a, b = (fully_connected([3, 5, 2], seed=s) for s in (0, 1))
    distance = lambda model: float((vector(model) - vector(b)).norm())
    best = min(distance(reorder(a, [torch.tensor(o)])) for o in itertools.permutations(range(5)))
    assert distance(align(a, b)) == pytest.approx(best, rel=1e-12)
    with pytest.raises(ValueError, match="reference"):
        align(a, fully_connected([3, 4, 2], seed=0))


def test_the_plane_through_three_points_holds_them_and_its_lengths():
    model = nn.Linear(3, 1)
    points = [torch.tensor(v, dtype=torch.float64) for v in ([0.0, 0, 0, 1], [3.0, 0, 0, 1], [1.0, 2, 0, 1])]
    weights = lambda net: parameters_to_vector(net.parameters()).detach()
    function = lambda net: float((weights(net) - points[2]).square().sum())
    found = on_plane(model.double(), points, function, size=7)
    assert found["points"] == pytest.approx(np.array([[0, 0], [3, 0], [1, 2]]))
    x, y = np.meshgrid(found["x"], found["y"])
    assert found["values"] == pytest.approx((x - 1) ** 2 + (y - 2) ** 2)
    assert {0.0, 1.0, 3.0} <= set(found["x"].round(12)) and {0.0, 2.0} <= set(found["y"].round(12))
    with pytest.raises(ValueError, match="on one line"):
        on_plane(model, [points[0], points[1], 2 * points[1] - points[0]], function)


def test_the_pass_between_two_points_goes_round_a_hill():
    model = nn.Linear(1, 1).double()
    points = [torch.tensor(v, dtype=torch.float64) for v in ([-1.0, 0.0], [1.0, 0.0], [0.0, 1.0])]

    def hill(net):
        a, b = parameters_to_vector(net.parameters()).tolist()
        return float(np.exp(-20 * (a**2 + b**2)) + 0.1 * abs(b))

    found = on_plane(model, points, hill, size=31)
    straight = found["values"][np.argmin(abs(found["y"]))].max()
    assert straight > 0.9 and 0.02 < pass_between(found, 0, 1) < 0.2
    flat = {**found, "values": found["values"] * 0 + 3.0}
    assert pass_between(flat, 0, 2) == 3.0
