"""Each reading note, checked by an independent small computation."""

from math import comb

import numpy as np
import torch
import yaml
from torch.func import functional_call

from hesslib import EmpiricalRisk
from hesslib.book.claims import PAPER
from hesslib.book.paths import ROOT
from hesslib.experiments.data import blobs
from hesslib.experiments.models import fully_connected

PAGE = " ".join((ROOT / "book" / "reading_notes.md").read_text().split())
ROWS = yaml.safe_load(PAPER.read_text(encoding="utf-8"))["table_1"]


def risk_of(seed=0, loss="cross_entropy", **options):
    data = blobs(30, 3, 5, seed=seed)
    model = fully_connected([5, 4, 3], seed=seed, **options)
    targets = torch.eye(3).double()[data.targets] if loss == "mse" else data.targets
    return EmpiricalRisk(model, data.inputs, targets, loss), data


def largest(matrix):
    return float(matrix.abs().max())


def test_expansion_needs_a_half():
    risk, _ = risk_of(activation="tanh")
    d = 1e-3 * torch.randn(risk.num_parameters, generator=torch.Generator().manual_seed(0)).double()
    rest = risk.at(risk.vector + d).loss() - risk.loss() - float(d @ risk.gradient())
    quadratic = float(d @ (risk.hessian() @ d))
    assert abs(rest / quadratic - 0.5) < 0.01


def test_zeros_decide_nothing():
    hessian = lambda sign: torch.func.hessian(lambda v: v[0] ** 2 + sign * v[1] ** 4)(torch.zeros(2).double())
    assert torch.equal(hessian(1), hessian(-1)) and hessian(1).tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_ranks_of_the_two_readings():
    for classes in (2, 3, 5):
        data = blobs(6, classes, 40, seed=1)
        model = fully_connected([40, 6, classes], scale=0.5, seed=1, activation="tanh")
        risk = EmpiricalRisk(model, data.inputs, data.targets)
        rank = lambda output, risk=risk: int(torch.linalg.matrix_rank(risk.ggn(output).to_dense(), rtol=1e-11))
        assert rank("probability") == 6 and rank("logits") == 6 * (classes - 1)
    assert (
        "$M = 4{,}924$, $N = 1{,}000$ and $C = 10$ the first promises 3,924" in PAGE
        and 4924 - 1000 == 3924 > 0 > 4924 - 9000
    )


def test_mean_of_p_minus_y_is_the_gradient_in_the_output_bias():
    risk, data = risk_of()
    p = risk.outputs(risk.parameters, data.inputs).softmax(1)
    mean = (p - torch.eye(3).double()[data.targets]).mean(0)
    assert largest(risk.gradient()[-3:] - mean) < 1e-15
    p_y = p[torch.arange(30), data.targets]
    assert float((-1 / p_y).mean()) <= -1


def test_vanishing_example_gradients_take_the_first_term_with_them():
    risk, data = risk_of()
    one = EmpiricalRisk(risk.model, data.inputs, torch.zeros(30).long())  # all of one class, fitted by the bias
    fitted = one.at(torch.cat([one.vector[:-3], torch.tensor([2000.0, 0.0, 0.0]).double()]))
    assert largest(fitted.gradient()) == 0
    assert all(largest(op.to_dense()) == 0 for op in (fitted.ggn(), fitted.ggn("probability"), fitted.hessian()))
    square, _ = risk_of(loss="mse")
    other = EmpiricalRisk(square.model, data.inputs, square.outputs(square.parameters, data.inputs).detach(), "mse")
    assert largest(other.gradient()) == 0 and largest(other.ggn().to_dense() - square.ggn().to_dense()) < 1e-14


def test_squared_norm_of_batch_gradients():
    """The formula of the chapter on what came after, against all batches there are."""
    from itertools import combinations

    g = np.random.default_rng(0).standard_normal((7, 3))
    n, mean = len(g), (g.mean(0) ** 2).sum()
    for b in (1, 3, 6):
        every = [(g[list(pick)].mean(0) ** 2).sum() for pick in combinations(range(n), b)]
        assert len(every) == comb(n, b)
        assert abs(np.mean(every) - mean - (n - b) / (b * (n - 1)) * ((g**2).sum(1).mean() - mean)) < 1e-12


def test_a_linear_map_changes_relative_curvatures():
    risk, data = risk_of()
    hidden, out = 5 * 4 + 4, 4 * 3
    scale = torch.ones(risk.num_parameters).double()
    scale[:hidden], scale[hidden : hidden + out] = 10.0, 1 / 10.0
    other = risk.at(scale * risk.vector)
    assert largest(other.outputs(other.parameters, data.inputs) - risk.outputs(risk.parameters, data.inputs)) < 1e-14
    ratio = lambda r: float(np.divide(*torch.linalg.eigvalsh(r.hessian().to_dense())[[-10, -1]].numpy()))
    assert abs(ratio(other) / ratio(risk) - 1) > 0.1


def test_signs_are_a_symmetry_of_tanh_only():
    for activation, same in (("tanh", True), ("relu", False)):
        risk, data = risk_of(activation=activation)
        flipped = {n: -p if n != "2.bias" else p for n, p in risk.parameters.items()}
        change = largest(functional_call(risk.model, flipped, data.inputs) - risk.outputs(risk.parameters, data.inputs))
        assert (change < 1e-14) == same


def test_expectation_of_the_sample_covariance():
    t = np.random.default_rng(0).standard_normal((3, 2))
    x = np.random.default_rng(1).standard_normal((20_000, 2, 4))
    g = t @ x @ x.transpose(0, 2, 1) @ t.T / 4
    error = np.abs(g.mean(0) - t @ t.T).max()
    assert error < 0.1 < np.abs(g[0] - t @ t.T).max()


def test_theorem_1_below_one_and_no_left_outlier_above():
    rng = np.random.default_rng(0)
    spectrum = lambda m, n, ell: np.linalg.eigvalsh(
        (lambda x: x @ x.T / n)(np.sqrt(np.r_[ell, np.ones(m - 1)])[:, None] * rng.standard_normal((m, n)))
    )
    assert abs(spectrum(600, 1200, 4.0)[-1] - 4 * (1 + 0.5 / 3)) < 0.35 and (1 + 0.5**0.5) ** 2 < 3
    edge = (1 - 0.25**0.5) ** 2
    assert spectrum(300, 1200, 0.05)[0] < 0.5 * edge  # alpha = 1/4: a left outlier
    values = spectrum(1200, 600, 0.001)  # alpha = 2: none
    assert values[values > 1e-10][0] > 0.9 * (2**0.5 - 1) ** 2


def test_logistic_factor_and_softmax_kronecker_product():
    s = torch.linspace(-4, 4, 9).double()
    assert largest(torch.sigmoid(2 * s) - 0.5 * (1 + torch.tanh(s))) < 1e-15
    loss = lambda factor: lambda s: -torch.nn.functional.logsigmoid(factor * s)
    curvature = [float(torch.func.hessian(loss(factor))(torch.zeros(()).double())) for factor in (1, 2)]
    assert curvature == [0.25, 1.0]
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).double()
    for c in (2, 3, 4):
        model = torch.nn.Linear(6, c, bias=False).double()
        torch.nn.init.constant_(model.weight, 0.1)
        h = EmpiricalRisk(model, x, torch.arange(40) % c).hessian().to_dense()
        inner = (torch.eye(c).double() - torch.ones(c, c).double() / c) / c
        assert largest(h - torch.kron(inner, x.T @ x / 40)) < 1e-14
        assert int((torch.linalg.eigvalsh(inner) > 1e-9).sum()) == c - 1
    assert abs(float(torch.sigmoid(torch.zeros(1)) * torch.sigmoid(torch.zeros(1))) - 0.25) == 0


def test_what_table_1_says_of_itself():
    with_cutoff = [row for row in ROWS if "heuristic" in row]
    equal = sum(row["heuristic"] == row["classes"] for row in with_cutoff)
    assert f"in {equal} of the {len(with_cutoff)} rows that have one" in PAGE
    within = sum(abs(row["heuristic"] - row["classes"]) <= 1 for row in with_cutoff)
    assert f"lies within 1 of it, which Appendix A of the paper marks, in {within}." in PAGE
    assert len(ROWS) - len(with_cutoff) == 4 and f"holds {len(ROWS)} of the {5 * 2 * 2 * 2} combinations" in PAGE
    assert min(row["gap"] for row in ROWS) == 2 and min(row["ratio"] for row in ROWS) == 3
    two = next(row for row in ROWS if (row["algorithm"], row["activation"], row["classes"]) == ("GD", "relu", 2))
    assert (two["gap"], two["ratio"]) == (3, 4)
    sizes = {2: 4022, 5: 4115, 10: 4270, 20: 4580, 50: 5510}  # the paper's column 'alg-size'
    for k, size in sizes.items():
        assert size == 3960 + 31 * k == sum(p.numel() for p in fully_connected([100, 30, 30, k], seed=0).parameters())


def test_epochs():
    assert (
        f"are {25_000 * 1000 // 50_000} epochs in Part I" in PAGE and f"and {25_000 * 32 // 50_000} in Part II" in PAGE
    )
