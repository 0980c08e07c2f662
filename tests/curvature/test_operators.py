import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn import functional as F

from hesslib import EmpiricalRisk, ggn_spectrum, spectrum, top_eigenpairs
from tests.curvature.cases import CASES, distance, mlp, reference

by_name = {case.name: case for case in CASES}


def risk_of(case, **options):
    return EmpiricalRisk(case.model, case.inputs, case.targets, case.loss, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_hessian_agrees_with_torch_func(case):
    op, exact = risk_of(case).hessian(), reference(case.model, case.inputs, case.targets, case.loss)
    identity = torch.eye(len(exact), dtype=torch.float64)
    assert distance(op.to_dense(), exact) < 1e-12
    assert distance(op @ identity, exact) < 1e-12
    assert distance(op._autograd_product(identity), exact) < 1e-12


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_two_routes_agree_for_ggn_and_residual(case):
    risk = risk_of(case)
    readings = ("logits", "probability") if case.loss == "cross_entropy" else ("logits",)
    exact = reference(case.model, case.inputs, case.targets, case.loss)
    for output in readings:
        ggn, residual = risk.ggn(output), risk.residual(output)
        for op in (ggn, residual):
            rows = op._autograd_product(torch.eye(len(exact), dtype=torch.float64))
            assert torch.allclose(op.to_dense(), rows, atol=1e-13 * float(exact.abs().max()), rtol=1e-11)
        assert distance(ggn.to_dense() + residual.to_dense(), exact) < 1e-12
        assert np.linalg.eigvalsh(ggn.to_dense())[0] > -1e-14


def test_closed_form_is_used_where_it_applies_and_only_there():
    found = {c.name: risk_of(c).hessian().structure for c in CASES}
    assert all(found[n] is not None and not found[n].head for n in ("ReLU-5-4-3", "functional", "flatten", "no-bias"))
    assert found["convolution"].head and len(found["convolution"].layers) == 2
    assert found["shared"] is None or len(found["shared"].layers) == 1
    assert [len(found["skip"].layers), len(found["skip"].head)] == [1, 4]


@pytest.mark.parametrize("name", ["Tanh-5-4-6-3", "convolution", "mse"])
def test_product_agrees_with_central_differences(name):
    risk = risk_of(by_name[name])
    v = torch.randn(risk.num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = 1e-5
    difference = (risk.at(risk.vector + h * v).gradient() - risk.at(risk.vector - h * v).gradient()) / (2 * h)
    assert distance(risk.hessian() @ v, difference) < 1e-7


def test_linear_regression_has_its_closed_form():
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = x.sum(1, keepdim=True)
    op = EmpiricalRisk(nn.Linear(4, 1, bias=False).double(), x, y, "mse").hessian()
    assert distance(op.to_dense(), 2 / 20 * x.T @ x) < 1e-14


def test_softmax_regression_has_its_closed_form():
    case = by_name["ReLU-5-3"]
    p = case.model(case.inputs).detach().softmax(1)
    x = torch.cat([case.inputs, torch.ones(11, 1, dtype=torch.float64)], 1)
    blocks = torch.einsum("ncd,nj,nk->cjdk", torch.diag_embed(p) - p[:, :, None] * p[:, None], x, x) / 11
    order = [c * 6 + j for c in range(3) for j in range(5)] + [c * 6 + 5 for c in range(3)]
    assert distance(risk_of(case).hessian().to_dense(), blocks.reshape(18, 18)[order][:, order]) < 1e-13


def test_probability_reading_is_the_empirical_fisher_matrix():
    case = by_name["GELU-5-4-6-3"]
    rows = []
    for x, y in zip(case.inputs, case.targets):
        loss = F.cross_entropy(case.model(x[None]), y[None])
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(case.model.parameters()))]))
    rows = torch.stack(rows)
    assert distance(risk_of(case).ggn("probability").to_dense(), rows.T @ rows / len(rows)) < 1e-13


@pytest.mark.parametrize("name", ["Softplus-5-4-6-3", "convolution", "mse"])
def test_unequal_batches_weigh_by_their_size(name):
    case = by_name[name]
    cut = lambda t: [t[:1], t[1:5], t[5:]]
    whole = risk_of(case)
    parts = EmpiricalRisk(case.model, cut(case.inputs), cut(case.targets), case.loss)
    assert parts.loss() == pytest.approx(whole.loss(), rel=1e-13)
    assert distance(parts.gradient(), whole.gradient()) < 1e-12
    for make in (EmpiricalRisk.hessian, EmpiricalRisk.ggn, EmpiricalRisk.residual):
        identity = torch.eye(whole.num_parameters, dtype=torch.float64)
        assert distance(make(parts).to_dense(), make(whole).to_dense()) < 1e-12
        assert distance(make(parts)._autograd_product(identity), make(whole).to_dense()) < 1e-12


@pytest.mark.parametrize(
    "names", [["0.weight"], ["2.bias", "0.weight"], ["2.weight", "2.bias"], ["0.bias", "4.weight"]]
)
def test_parameter_subset_is_a_submatrix(names):
    case = by_name["Tanh-5-4-6-3"]
    risk, places, start = risk_of(case, parameters=names), {}, 0
    for name, p in case.model.named_parameters():
        places[name] = range(start, start := start + p.numel())
    where = [i for name in names for i in places[name]]  # in the order in which they are given
    exact = reference(case.model, case.inputs, case.targets)[where][:, where]
    assert distance(risk.hessian().to_dense(), exact) < 1e-12
    assert distance(risk.hessian() @ torch.eye(len(where), dtype=torch.float64), exact) < 1e-12


def test_frozen_parameters_are_left_out():
    model = mlp(5, 4, 3).double()
    model[0].weight.requires_grad_(False)
    risk = EmpiricalRisk(model, torch.ones(2, 5).double(), torch.tensor([0, 1]))
    assert risk.num_parameters == 4 + 12 + 3


@settings(max_examples=25, deadline=None)
@given(columns=st.integers(1, 9), budget=st.integers(1, 40_000))
def test_chunks_do_not_change_the_product(columns, budget):
    case = by_name["convolution"]
    op = risk_of(case).hessian()
    v = torch.randn(op.shape[0], columns, dtype=torch.float64, generator=torch.Generator().manual_seed(columns))
    whole = op @ v
    op.memory_budget = budget
    assert distance(op @ v, whole) < 1e-13


def test_operator_is_a_scipy_linear_operator():
    op = risk_of(by_name["Tanh-5-4-3"]).hessian()
    assert isinstance(op, LinearOperator) and op.dtype == np.float64
    dense = op.to_dense().numpy()
    v = np.random.default_rng(0).standard_normal((op.shape[0], 3))
    assert isinstance(op @ v, np.ndarray) and isinstance(op @ torch.as_tensor(v), torch.Tensor)
    np.testing.assert_allclose(op @ v, dense @ v, atol=1e-14)
    np.testing.assert_allclose(op @ v[:, 0], dense @ v[:, 0], atol=1e-14)
    np.testing.assert_allclose(op.T @ v, dense @ v, atol=1e-14)
    np.testing.assert_allclose((op + 2 * op) @ v, 3 * dense @ v, atol=1e-13)
    values = eigsh(op, k=2, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(dense)[-2:], rtol=1e-9)


def test_float32_models_stay_float32():
    case = by_name["convolution"]
    model = copy.deepcopy(case.model).float()
    op = EmpiricalRisk(model, case.inputs.float(), case.targets).hessian()
    assert op.dtype == np.float32 and op.to_dense().dtype == torch.float32
    assert distance(op.to_dense().double(), reference(case.model, case.inputs, case.targets)) < 1e-4


def test_callable_loss():
    case = by_name["Tanh-5-4-3"]
    squared = lambda f, y: ((f - F.one_hot(y, 3)) ** 4).sum(1).mean()
    mixed = lambda f, y: F.cross_entropy(f, y) + f.mean(0).pow(3).sum()  # not a mean over examples
    for loss in (squared, mixed):
        op = EmpiricalRisk(case.model, case.inputs, case.targets, loss).hessian()
        identity = torch.eye(op.shape[0], dtype=torch.float64)
        assert distance(op.to_dense(), op._autograd_product(identity)) < 1e-12
        ggn = EmpiricalRisk(case.model, case.inputs, case.targets, loss).ggn()
        assert distance(ggn.to_dense(), ggn_by_definition(case.model, case.inputs, case.targets, loss)) < 1e-12
        assert distance(ggn @ identity, ggn.to_dense()) < 1e-12
    with pytest.raises(ValueError, match="a mean over examples, so that each has a gradient of its own"):
        EmpiricalRisk(case.model, case.inputs, case.targets, mixed).ggn("probability")


def no_fisher_of(outputs, targets, loss, reduction="mean"):
    model = nn.Sequential(nn.Linear(5, outputs or 1), nn.Flatten(0 if outputs == 0 else 1)).double()
    x = torch.randn(len(targets), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    risk = EmpiricalRisk(model, x, targets, loss, reduction=reduction)
    risk.hessian() @ torch.ones(risk.num_parameters).double()  # H is defined
    return risk.ggn("probability")


REAL = torch.tensor([[0.3], [0.7], [0.1]]).double()
NO_FISHER = {
    "outputs .N, 1. in the place": (0, REAL[:, 0], "mse"),
    "of 'mse' it needs reduction='mean'": (1, REAL, "mse", "sum"),
    "with class weights or ignored": (2, torch.tensor([0, 1, -100]), nn.CrossEntropyLoss()),
    "'cross_entropy' by name": (2, torch.tensor([0, 1, 1]), nn.CrossEntropyLoss(weight=torch.ones(2).double())),
    "not the mean of its values": (1, REAL, lambda f, y: (f - y).square().sum(1).max()),
}


@pytest.mark.parametrize("message", NO_FISHER)
def test_no_fisher_matrix_where_examples_have_no_gradient_of_their_own(message):
    with pytest.raises(ValueError, match=f"output='probability': .*{message}"):
        no_fisher_of(*NO_FISHER[message])


def ggn_by_definition(model, x, y, loss):
    """J' A J with the whole Hessian A of the loss in the outputs of all examples."""
    f, leaves = model(x), list(model.parameters())
    rows = [torch.autograd.grad(out, leaves, retain_graph=True) for out in f.reshape(-1)]
    j = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    a = torch.autograd.functional.hessian(lambda u: loss(u.view_as(f), y), f.detach().reshape(-1))
    return j.T @ a @ j


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "binary_cross_entropy"])
def test_the_sum_is_the_mean_times_what_it_divides_by(loss):
    model, draw = copy.deepcopy(by_name["Tanh-5-4-3"].model), torch.Generator().manual_seed(0)
    x, y = torch.randn(9, 5, dtype=torch.float64, generator=draw), torch.arange(9) % 3
    y[4] = -100
    y = y if loss == "cross_entropy" else torch.rand(9, 3, generator=draw).double()
    mean, whole = (EmpiricalRisk(model, x.split(5), y.split(5), loss, reduction=r) for r in ("mean", "sum"))
    module = {"cross_entropy": nn.CrossEntropyLoss, "mse": nn.MSELoss, "binary_cross_entropy": nn.BCEWithLogitsLoss}
    other = EmpiricalRisk(model, x.split(5), y.split(5), module[loss](reduction="sum"), reduction="sum")
    count = 8 if loss == "cross_entropy" else 27
    assert abs(whole.loss() / mean.loss() / count - 1) < 1e-14 and abs(other.loss() / whole.loss() - 1) < 1e-14
    assert distance(whole.gradient(), count * mean.gradient()) < 1e-14
    for kind in ("hessian", "ggn", "residual"):
        exact = count * getattr(mean, kind)().to_dense()
        for risk in (whole, other):
            op = getattr(risk, kind)()
            assert distance(op.to_dense(), exact) < 1e-13
            assert distance(op @ torch.eye(op.shape[0]).double(), exact) < 1e-13
            values = spectrum(op, progress=False).eigenvalues
            assert np.abs(values - np.linalg.eigvalsh(exact.numpy())).max() < 1e-12 * np.abs(values).max()
    for risk in (whole, other):
        values = ggn_spectrum(risk.ggn(), progress=False).eigenvalues
        assert np.abs(values - count * ggn_spectrum(mean.ggn(), progress=False).eigenvalues).max() < 1e-12 * values[-1]
    with pytest.raises(ValueError, match="must sum over the examples"):
        EmpiricalRisk(model, x, y, module[loss](), reduction="sum")


@pytest.mark.parametrize("batches", [1, 2])
def test_class_weights_smoothing_and_binary_targets_have_their_ggn(batches):
    """Of the loss over the whole set, whose mean divides by the weights of the targets that count."""
    draw, model = torch.Generator().manual_seed(0), copy.deepcopy(by_name["Tanh-5-4-3"].model)
    x, y = torch.randn(9, 5, dtype=torch.float64, generator=draw), torch.arange(9) % 3
    y[4], weight, soft = -100, torch.tensor([0.2, 1.0, 3.0]).double(), torch.rand(9, 3, generator=draw).double()
    cut = lambda t: list(t.split(5)) if batches == 2 else t
    losses = [(nn.CrossEntropyLoss(weight=weight), y), (nn.CrossEntropyLoss(label_smoothing=0.1), y.clamp_min(0))]
    losses += [(nn.BCEWithLogitsLoss(pos_weight=weight), soft), (F.binary_cross_entropy_with_logits, soft)]
    for loss, targets in losses:
        exact = ggn_by_definition(model, x, targets, loss)
        given = "binary_cross_entropy" if loss is F.binary_cross_entropy_with_logits else loss
        risk = EmpiricalRisk(model, cut(x), cut(targets), given)
        op = risk.ggn()
        assert distance(op @ torch.eye(op.shape[0]).double(), exact) < 1e-12
        assert distance(op.to_dense(), exact) < 1e-12
        assert distance(risk.hessian().to_dense() - risk.residual().to_dense(), exact) < 1e-12
        values = ggn_spectrum(op, progress=False).eigenvalues
        assert np.abs(values - np.linalg.eigvalsh(exact.numpy())).max() < 1e-12 * values[-1]


def test_model_is_left_as_it_was_and_the_risk_as_it_is():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).double().eval()
    model[0].weight.grad = torch.ones(4, 5).double()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    x, y = by_name["functional"].inputs, by_name["functional"].targets
    risk = EmpiricalRisk(model, x, y)
    dense = risk.hessian().to_dense()
    risk.gradient()
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before) and not model.training
    assert torch.equal(model[0].weight.grad, torch.ones(4, 5).double()) and model[0].weight.requires_grad
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with torch.no_grad():
        model[0].weight += 1
    assert torch.equal(risk.hessian().to_dense(), dense)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_a_model_that_is_not_deterministic_is_refused(layer):
    model = nn.Sequential(nn.Linear(5, 4), layer, nn.Linear(4, 3)).double()
    case = by_name["functional"]
    with pytest.raises(RuntimeError, match=r"model\.eval\(\)"):
        EmpiricalRisk(model, case.inputs, case.targets)


BAD = {
    "loss='hinge'": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, "hinge"),
    "targets: 3 given for 9": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y[:3]),
    "from 0 to 2": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y + 1),
    "class indices": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y.double()),
    "dtype": lambda x, y: EmpiricalRisk(mlp(5, 3), x, y),
    "NaN": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x / 0, y),
    "at least one batch": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x[:0], y[:0]),
    "0.weight, 0.bias": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, parameters=["weight"]),
    "mse needs": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, "mse"),
    "reduction='none'": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, reduction="none"),
    "targets: dtype torch.float64 differs": lambda x, y: EmpiricalRisk(mlp(5, 3), x.float(), x[:, :3], "mse"),
    "targets: all are -100": lambda x, y: EmpiricalRisk(
        mlp(5, 3).double(), [x, x], [0 * y - 100, 0 * y - 100], nn.CrossEntropyLoss()
    ),
    "it has reduction='sum'": lambda x, y: EmpiricalRisk(
        mlp(5, 3).double(), [x, x], [0 * y - 100, y], nn.CrossEntropyLoss(reduction="sum")
    ),
    "output='softmax'": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y).ggn("softmax"),
    "binary_cross_entropy needs probabilities from 0 to 1": lambda x, y: EmpiricalRisk(
        mlp(5, 3).double(), x, 1 + x[:, :3] ** 2, "binary_cross_entropy"
    ),
    "V has shape": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y).hessian() @ torch.ones(4),
    "vector: shape": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y).at(torch.ones(4)),
}


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def half_weighted(x, y):
    weight = torch.tensor([1.0, 5.0, 9.0]).double()
    loss = lambda f, y: F.cross_entropy(f, y, weight)  # as a function: its denominators cannot be known
    return EmpiricalRisk(mlp(5, 3).double(), [x[:4], x[4:]], [y[:4], y[4:]], loss)


def not_a_number(x, y):
    model = mlp(5, 3).double()
    model[0].bias.data[1] = float("nan")
    return EmpiricalRisk(model, x, y)


def frozen(x, y):
    return EmpiricalRisk(mlp(5, 3).double().requires_grad_(False), x, y)


BAD |= {
    "average over the examples": lambda x, y: EmpiricalRisk(
        mlp(5, 3).double(), x, y, nn.CrossEntropyLoss(reduction="sum")
    ),
    "scalar tensor": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, nn.CrossEntropyLoss(reduction="none")),
    "depends on how the examples are batched": half_weighted,
    "outputs' shape (N, *(3,)), got (4, 1)": lambda x, y: EmpiricalRisk(
        mlp(5, 3).double(), [x[:4], x[4:8]], [x[:4, :3], x[4:8, :1]], "mse"
    ),
    "one tensor, got tuple": lambda x, y: EmpiricalRisk(Pair(5, 3).double(), x, y),
    "int64 class indices": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y.int()),
    "list of tensors is needed": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x.numpy(), y.numpy()),
    "1 batches given for 2": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), [x, x], [y]),
    "an nn.Module is needed": lambda x, y: EmpiricalRisk(nn.Linear, x, y),
    "float32 or float64": lambda x, y: EmpiricalRisk(mlp(5, 3).half(), x.half(), y),
    "'0.bias' contains NaN": not_a_number,
    "loss=None": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, None),
    "requires a gradient": frozen,
    "parameters=['a.weight']": lambda x, y: EmpiricalRisk(mlp(5, 3).double(), x, y, parameters="a.weight"),
    "max_products=3: k=5": lambda x, y: top_eigenpairs(
        EmpiricalRisk(mlp(5, 3).double(), x, y).hessian(), 5, max_products=3
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_gets_a_clear_message(message):
    case = by_name["functional"]
    with pytest.raises(ValueError, match=".*".join(map(__import__("re").escape, message.split("|")))):
        BAD[message](case.inputs, case.targets)


def test_spectrum_names_what_it_takes():
    case = by_name["functional"]
    risk = EmpiricalRisk(case.model, case.inputs, case.targets)
    with pytest.raises(TypeError, match=r"a CurvatureOperator .* got _SumLinearOperator"):
        spectrum(risk.hessian() + risk.ggn())


def test_attention_has_products_too():
    torch.manual_seed(0)

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.layer(x).mean(1))

    x, y = torch.randn(5, 6, 4).double(), torch.arange(5) % 3
    risk = EmpiricalRisk(Attends().double(), x, y)
    v = torch.randn(risk.num_parameters, dtype=torch.float64)
    difference = (risk.at(risk.vector + 1e-6 * v).gradient() - risk.at(risk.vector - 1e-6 * v).gradient()) / 2e-6
    assert distance(risk.hessian() @ v, difference) < 1e-6


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x, z, scale=None):
        h = torch.tanh(self.a(x) + self.b(z))
        return self.c(h if scale is None else scale[:, None] * h)


def test_inputs_as_loaders_tuples_and_dicts():
    x, y = by_name["functional"].inputs, by_name["functional"].targets
    z, scale, model = x[:, :2] ** 2, x[:, 0], TwoInputs().double()
    plain = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    assert distance(EmpiricalRisk(plain, loader).hessian().to_dense(), reference(plain, x, y)) < 1e-12
    kept = lambda x, z, s, y: EmpiricalRisk(model, {"x": x, "z": z, "scale": s}, y)
    exact = kept(x, z, scale, y).hessian().to_dense()
    loss = F.cross_entropy(model(x, z, scale), y)
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    row = torch.autograd.grad(slopes[0][0, 0], list(model.parameters()))
    assert distance(exact[0], torch.cat([g.reshape(-1) for g in row])) < 1e-12
    cut = lambda *tensors: list(zip(*(t.split(4) for t in tensors)))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, z, scale, y), batch_size=4)
    for risk in (
        EmpiricalRisk(model, cut(x, z, scale), list(y.split(4))),
        EmpiricalRisk(model, loader),
        EmpiricalRisk(model, [dict(zip(("x", "z", "scale"), part)) for part in cut(x, z, scale)], list(y.split(4))),
    ):
        assert risk.num_examples == 9 and risk.loss() == pytest.approx(float(loss.detach()))
        for make in (EmpiricalRisk.hessian, EmpiricalRisk.ggn, EmpiricalRisk.residual):
            whole = make(kept(x, z, scale, y)).to_dense()
            assert distance(make(risk).to_dense(), whole) < 1e-12
    with pytest.raises(ValueError, match="targets: give them, or as inputs a DataLoader"):
        EmpiricalRisk(plain, x)
    with pytest.raises(ValueError, match="each item must be a pair"):
        EmpiricalRisk(plain, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x)))


class Tokens(nn.Module):
    """Outputs (N, T, C), or (N, C, T)."""

    def __init__(self, last):
        super().__init__()
        self.last, self.embed, self.a, self.b = last, nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.embed(x)
        f = self.b(torch.tanh(self.a(h + h.cumsum(1))))
        return f if self.last else f.transpose(1, 2)


@pytest.mark.parametrize("last", [True, False])
def test_one_target_for_each_token(last):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(c, (5, 4), generator=generator) for c in (6, 3))
    y[0, 1:], y[3, :2], y[4] = -100, -100, -100
    model = Tokens(last).double()
    cut = lambda t: [t[:1], t[1:4], t[4:]]  # the last batch has no target that counts
    whole, parts = EmpiricalRisk(model, x, y), EmpiricalRisk(model, cut(x), cut(y))
    rows = lambda f: (f if last else f.transpose(1, 2)).reshape(-1, 3)
    flat = lambda w: F.cross_entropy(rows(torch.func.functional_call(model, whole.unflatten(w), (x,))), y.reshape(-1))
    exact = torch.func.hessian(flat)(whole.vector)
    jacobian = torch.func.jacrev(lambda w: rows(torch.func.functional_call(model, whole.unflatten(w), (x,))))(
        whole.vector
    )
    f, counts = rows(model(x)).detach(), y.reshape(-1) != -100
    p = f.softmax(1)
    a = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) * counts[:, None, None] / counts.sum()
    d = (p - F.one_hot(y.reshape(-1).clamp_min(0), 3)) * counts[:, None]
    g = torch.einsum("ncp,ncd,ndq->pq", jacobian, a, jacobian)
    fisher = torch.einsum("ncp,nc,nd,ndq->pq", jacobian, d, d, jacobian) / counts.sum()
    for risk in (whole, parts):
        assert risk.loss() == pytest.approx(float(flat(whole.vector)))
        assert distance(risk.hessian().to_dense(), exact) < 1e-12
        assert distance(risk.ggn().to_dense(), g) < 1e-12
        assert distance(risk.residual().to_dense(), exact - g) < 1e-11
        assert distance(risk.ggn("probability").to_dense(), fisher) < 1e-12
        assert distance(risk.residual("probability").to_dense(), exact - fisher) < 1e-11


def test_ignored_targets_in_a_chain():
    case = by_name["Tanh-5-4-6-3"]
    y = case.targets.clone()
    y[[0, 5, 6]] = -100
    risk = EmpiricalRisk(case.model, list(case.inputs.split(4)), list(y.split(4)))
    exact = reference(case.model, case.inputs[y >= 0], y[y >= 0])
    for op in (risk.hessian(), risk.ggn(), risk.ggn("probability"), risk.residual("probability")):
        kept = EmpiricalRisk(case.model, case.inputs[y >= 0], y[y >= 0])
        other = {"hessian": kept.hessian, "ggn": kept.ggn, "residual": kept.residual}[op.kind]
        other = other() if op.kind == "hessian" else other(op.output)
        assert distance(op.to_dense(), other.to_dense()) < 1e-12
        assert distance(op @ torch.eye(len(exact), dtype=torch.float64), other.to_dense()) < 1e-12


def test_a_product_with_many_classes_needs_no_array_of_their_pairs():
    model, n, c = mlp(4, 3, 400).double(), 400, 400  # (N, C, C) would be 512 MB
    x, y = torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(n) % c
    op = EmpiricalRisk(model, x, y).hessian()
    op @ torch.ones(op.shape[0])
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            largest = max(largest, found.numel() if isinstance(found, torch.Tensor) else 0)
            return found

    with Watch():
        op @ torch.ones(op.shape[0])
    assert n * c <= largest < 4 * n * c
