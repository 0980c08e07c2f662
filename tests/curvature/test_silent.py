"""Models and uses that once gave wrong numbers without a word: each is right now, or refused with the cause."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hesslib import EmpiricalRisk, ggn_spectrum, spectrum, top_eigenpairs, trace
from tests.curvature.cases import distance, mlp, relu_conv


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Wrapped(nn.Module):
    """A network behind something done to its input."""

    def __init__(self, body, first):
        super().__init__()
        self.body, self.first = body, first

    def forward(self, x):
        return self.body(self.first(x))


def double_backward(model, value):
    """The Hessian of a loss, row by row, by ``torch.autograd`` alone."""
    leaves = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(value(), leaves, create_graph=True, materialize_grads=True)
    flat, rows = torch.cat([g.reshape(-1) for g in slopes]), []
    for entry in flat:
        parts = [torch.zeros_like(p) for p in leaves]
        if entry.requires_grad:
            parts = torch.autograd.grad(entry, leaves, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([p.reshape(-1) for p in parts]))
    return torch.stack(rows)


def assert_right(model, x, y, loss="cross_entropy", batches=None, value=None):
    """H in every way it is returned."""
    function = F.cross_entropy if loss == "cross_entropy" else loss
    exact = double_backward(model, value or (lambda: function(model(x), y)))
    cut = (lambda t: t) if batches is None else (lambda t: list(t.split(batches)))
    op = EmpiricalRisk(model, cut(x), cut(y), loss).hessian()
    assert distance(op @ torch.eye(op.shape[0], dtype=torch.float64), exact) < 1e-10
    assert distance(op.to_dense(), exact) < 1e-10
    np.testing.assert_allclose(
        spectrum(op).eigenvalues, np.linalg.eigvalsh(exact), atol=1e-10 * float(exact.abs().max()) * 10
    )


FIRST = {
    "normalise": lambda x: (x - 0.4) / 0.3,
    "clamp": lambda x: x.clamp(0, 0.5),
    "transpose": lambda x: x.transpose(2, 3),
    "pool": lambda x: F.avg_pool2d(F.interpolate(x, scale_factor=2.0, mode="bilinear"), 2) * 2,
    "view": lambda x: x.view(-1, 1, 8, 8),
    "slice": lambda x: x[:, 1:],
}


@pytest.mark.parametrize("name", FIRST)
def test_what_stands_before_the_first_convolution(name):
    torch.manual_seed(0)
    x, y = draw(6, *{"view": (64,), "slice": (2, 8, 8)}.get(name, (1, 8, 8))), torch.arange(6) % 3
    assert_right(Wrapped(relu_conv().double(), FIRST[name]), x, y)


class BeforeToo(nn.Module):
    """A layer of the final chain that is used once more before it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.a(F.layer_norm(self.b(x), (4,))))
        return self.c(torch.tanh(self.b(x)))


class ScaledBefore(BeforeToo):
    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.b(torch.relu(self.a(x))) * 0.5))))


class TiedDecoder(BeforeToo):
    def forward(self, x):
        return self.c(torch.tanh(F.linear(self.c(torch.tanh(self.a(x))), self.c.weight.T)))


class InALoop(BeforeToo):
    def forward(self, x):
        for _ in range(2):
            x = torch.tanh(self.a(F.layer_norm(x, (4,))))
        return self.c(x)


@pytest.mark.parametrize("kind", [BeforeToo, ScaledBefore, TiedDecoder, InALoop])
def test_a_layer_used_twice(kind):
    torch.manual_seed(1)
    assert_right(kind().double(), draw(7, 4), torch.arange(7) % 3)


class Probe(nn.Module):
    """A linear probe on a body under no_grad."""

    def __init__(self, conv=False):
        super().__init__()
        self.body = nn.Sequential(*list(relu_conv())[:-3]) if conv else nn.Sequential(nn.Linear(5, 12), nn.Tanh())
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        with torch.no_grad():
            h = self.body(x)
        return self.head(h)


@pytest.mark.parametrize("conv", [False, True])
def test_a_body_under_no_grad(conv):
    torch.manual_seed(0)
    model, x, y = Probe(conv).double(), draw(9, *((1, 8, 8) if conv else (5,))), torch.arange(9) % 3
    for use in (lambda op: op @ torch.ones(op.shape[0]).double(), lambda op: op.to_dense(), spectrum):
        with pytest.raises(RuntimeError, match=r"gradient: .*no_grad.*parameters=\[...\]"):
            use(EmpiricalRisk(model, x, y).hessian())
    head = EmpiricalRisk(model, x, y, parameters=["head.weight", "head.bias"]).hessian()
    exact = double_backward(model, lambda: F.cross_entropy(model(x), y))[-head.shape[0] :, -head.shape[0] :]
    assert distance(head.to_dense(), exact) < 1e-10


class Normed(nn.Module):
    """Not a chain."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return F.layer_norm(self.b(torch.tanh(self.a(x))), (3,))


@pytest.mark.parametrize("model", [Normed, lambda: mlp(5, 4, 3)])
def test_class_weights_and_ignored_targets_over_batches(model):
    torch.manual_seed(0)
    x, y, model = draw(11, 5), torch.tensor([0] * 4 + [1, 2, 1, 0, 2, 2, 1]), model().double()
    weight = torch.tensor([1.0, 5.0, 9.0]).double()
    assert_right(model, x, y, nn.CrossEntropyLoss(weight=weight), batches=4)
    y[5] = y[9] = -100
    assert_right(model, x, y, nn.CrossEntropyLoss(), batches=4)
    assert_right(model, x, y, nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1), batches=4)
    y[:4] = -100  # a batch without any
    assert_right(model, x, y, nn.CrossEntropyLoss(), batches=4)
    for late in (torch.tensor([0] * 4 + [1] * 4 + [2] * 3), y.roll(4)):
        with pytest.raises(ValueError, match="depends on how the examples are batched"):
            function = lambda f, y: F.cross_entropy(f, y, weight)
            EmpiricalRisk(model, list(x.split(4)), list(late.split(4)), function)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_the_mode_is_kept(layer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), layer, nn.Tanh(), nn.Linear(4, 3)).double().eval()
    x, y = draw(9, 5), torch.arange(9) % 3
    exact = double_backward(model, lambda: F.cross_entropy(model(x), y))
    op = EmpiricalRisk(model, x, y).hessian()
    model.train()
    model[2] = nn.ReLU()
    identity = torch.eye(op.shape[0], dtype=torch.float64)
    assert distance(op @ identity, exact) < 1e-10 and distance(op.to_dense(), exact) < 1e-10


def test_data_changed_in_place_are_refused():
    x, y = draw(9, 5), torch.arange(9) % 3
    op = EmpiricalRisk(mlp(5, 4, 3).double(), x, y).hessian()
    x.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        op @ torch.ones(op.shape[0])


def test_whole_numbers_truth_values_and_complex_vectors():
    op = EmpiricalRisk(mlp(5, 4, 3).double(), draw(9, 5), torch.arange(9) % 3).hessian()
    dense = op.to_dense()
    assert distance(op @ F.one_hot(torch.tensor(3), op.shape[0]), dense[:, 3]) < 1e-12
    assert distance(op @ (torch.arange(op.shape[0]) == 3), dense[:, 3]) < 1e-12
    assert distance(op @ np.eye(op.shape[0], dtype=int)[:, :5], dense[:, :5]) < 1e-12
    assert (op @ torch.zeros(op.shape[0], 0)).shape == (op.shape[0], 0)
    for v in (np.full(op.shape[0], 1j), torch.ones(op.shape[0]).to(torch.complex128)):
        with pytest.raises(ValueError, match="V is complex"):
            op @ v


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.b(torch.tanh(self.a(x)))


def test_autocast_is_refused():
    x, y = draw(9, 5).float(), torch.arange(9) % 3
    with pytest.raises(ValueError, match="autocast"):
        EmpiricalRisk(Autocast(), x, y)
    op = EmpiricalRisk(mlp(5, 4, 3), x, y).hessian()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="autocast is on"):
        op @ torch.ones(op.shape[0])


class Flipped(torch.autograd.Function):
    """The identity, with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 3 * g


class NewStyle(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return 3 * g


def hooked(kind):
    model = mlp(5, 4, 3, activation=nn.Tanh).double()
    if kind == "full_backward":
        model[0].register_full_backward_hook(lambda m, i, o: tuple(3 * g if g is not None else g for g in i))
        model[2].register_full_backward_hook(lambda m, i, o: (3 * i[0],))
    elif kind == "root":
        model.register_full_backward_pre_hook(lambda m, o: (3 * o[0],))
    elif kind == "detach":
        model[1].register_forward_hook(lambda m, i, o: o.detach())
    elif kind == "old function":
        model = nn.Sequential(model[0], Wrapped(model[1:], Flipped.apply))
    else:
        model = nn.Sequential(model[0], Wrapped(model[1:], NewStyle.apply))
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["full_backward", "root", "detach", "old function", "new function"])
def test_what_changes_the_gradient_is_refused(kind, dtype):
    torch.manual_seed(0)
    x, y = draw(9, 5).to(dtype), torch.arange(9) % 3
    op = EmpiricalRisk(hooked(kind).to(dtype), x, y).hessian()
    with pytest.raises(RuntimeError, match=r"gradient: .*hook"):
        op @ torch.ones(op.shape[0])
    with pytest.raises(RuntimeError, match=r"gradient: .*hook"):
        op.to_dense()


@pytest.mark.parametrize("conv", [False, True])
def test_weight_norm_whose_second_derivative_is_wrong_in_torch(conv):
    torch.manual_seed(0)
    model = relu_conv() if conv else mlp(5, 4, 3, activation=nn.Tanh)
    nn.utils.parametrizations.weight_norm(model[0])
    model = model.double()
    op = EmpiricalRisk(model, draw(6, *((1, 8, 8) if conv else (5,))), torch.arange(6) % 3).hessian()
    with pytest.raises(RuntimeError, match=r"H: double backward differs .*weight_norm"):
        op @ torch.ones(op.shape[0])


class Cast(nn.Module):
    """A network that only runs in single precision."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x.float())


@pytest.mark.parametrize(("conv", "wrap"), [(False, nn.Sequential), (True, nn.Sequential), (False, Cast)])
def test_weight_norm_in_single_precision(conv, wrap):
    torch.manual_seed(0)
    model = relu_conv() if conv else mlp(5, 4, 3, activation=nn.Tanh)
    x, y = draw(6, *((1, 8, 8) if conv else (5,))).float(), torch.arange(6) % 3
    top_eigenpairs(EmpiricalRisk(wrap(model), x, y).hessian(), 1)
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(RuntimeError, match=r"H: double backward differs .*weight_norm"):
        top_eigenpairs(EmpiricalRisk(wrap(model), x, y).hessian(), 1)


def test_a_loss_with_weight_decay_is_refused():
    model, x, y = mlp(5, 4, 3).double(), draw(9, 5), torch.arange(9) % 3
    decay = lambda f, y: F.cross_entropy(f, y) + 1e-3 * sum(p.square().sum() for p in model.parameters())
    for mode in (torch.enable_grad, torch.no_grad):
        with mode(), pytest.raises(ValueError, match="loss: it depends on the model's parameters directly"):
            EmpiricalRisk(model, x, y, decay)
    model.requires_grad_(False)
    EmpiricalRisk(model, x, y, decay, parameters=["0.weight"])  # a number is added, no more


@pytest.mark.parametrize("loss", [lambda f, y: F.mse_loss(f, y, reduction="sum"), lambda f, y: (f - y).abs().sum()])
def test_a_sum_is_refused_where_the_loss_is_zero(loss):
    model, x = nn.Linear(5, 3).double(), draw(9, 5)
    with pytest.raises(ValueError, match="must average over the examples, but gives"):
        EmpiricalRisk(model, x, model(x).detach(), loss)


def test_a_loss_that_fails_is_named():
    model, x = nn.Linear(5, 3).double(), draw(2, 4, 5)
    with pytest.raises(ValueError, match=r"loss: it fails for outputs \(2, 4, 3\) .*loss='cross_entropy' takes"):
        EmpiricalRisk(model, x, torch.arange(8).reshape(2, 4) % 3, nn.CrossEntropyLoss())

    with pytest.raises(ValueError, match=r"loss: it fails .* NotImplementedError"):
        EmpiricalRisk(model, x, draw(2, 4, 3), nn.Module())


def test_what_a_loss_may_depend_on():
    """Targets of a network, a network within the loss, a parameter of its own: none of them is the model's."""
    model, teacher, x = mlp(5, 4, 3).double(), mlp(5, 4, 3).double(), draw(9, 5)
    heat = nn.Parameter(torch.tensor(2.0).double())
    exact = EmpiricalRisk(model, x, teacher(x).detach(), nn.MSELoss()).hessian().to_dense()
    within = lambda f, y: F.mse_loss(f, teacher(y))
    scaled = lambda f, y: F.mse_loss(f, y) * heat / 2
    for y, loss in ((teacher(x), nn.MSELoss()), (x, within), (teacher(x), scaled)):
        torch.testing.assert_close(EmpiricalRisk(model, x, y, loss).hessian().to_dense(), exact)


MIXING = {
    "centre": lambda x: x - x.mean(0),
    "pairs": lambda x: x - x.unflatten(0, (-1, 2)).mean(1, keepdim=True).expand(-1, 2, -1).flatten(0, 1),
    "causal": lambda x: x.cumsum(0),
}


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_examples_is_refused_in_several_batches(name, keyed):
    model, x, y = Wrapped(MIXING[name], nn.Linear(5, 3)).double(), draw(10, 5), torch.arange(10) % 3
    named = lambda parts: [{"x": part} for part in parts] if keyed else list(parts)
    assert EmpiricalRisk(model, named([x[:8]]), [y[:8]]).num_examples == 8
    with pytest.raises(RuntimeError, match="depend on the other examples of the batch"):
        EmpiricalRisk(model, named(x.split([2, 8])), y.split([2, 8]))


class Attends(nn.Module):
    """Examples attend to a memory that all batches share."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x, memory):
        return self.b((self.a(x) @ memory.T).softmax(1) @ memory)


class Cancels(nn.Module):
    """Outputs that are rounding errors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)
        self.b.weight.data = self.a.weight.data.clone()

    def forward(self, x):
        return self.a(x) - self.b(3 * x) / 3


def test_batches_of_what_does_not_mix():
    torch.manual_seed(0)
    memory, (x, z), y = draw(6, 4), draw(2, 6, 5), torch.arange(6) % 3  # as long as a batch
    assert EmpiricalRisk(Attends().double(), [(x, memory), (z, memory)], [y, y]).num_examples == 12
    assert EmpiricalRisk(Cancels().double(), list(x.split(2)), list(draw(6, 3).split(2)), "mse").num_examples == 6


class Graph(nn.Module):
    """Nodes that see their neighbours."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x, edges):
        return self.b(torch.relu(self.a(x)[edges[0]].index_add(0, edges[1], self.a(x))))


class Words(nn.Module):
    """A row of padding that reaches the outputs."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.out(torch.tanh(self.embed(tokens)).mean(1))


def elu_on_black_borders():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ELU(), nn.Flatten(), nn.Linear(108, 3))
    nn.init.zeros_(model[0].bias)
    return model, F.pad(draw(9, 1, 4, 4).float(), (2, 2, 2, 2))


RIGHT = {  # in single precision; each was refused by a draft of the comparison in double
    "padding": lambda: (Words(), torch.arange(45).reshape(9, 5) % 9),
    "graph": lambda: (Graph(), [(draw(40, 5).float(), torch.arange(80).reshape(2, 40) % 40)]),
    "border": elu_on_black_borders,
    "zeros": lambda: (nn.Linear(5, 3).requires_grad_(), torch.zeros(9, 5)),
    "masked class": lambda: (shifted(mlp(5, 4, 3), -1e9), draw(9, 5).float()),
}


def shifted(model, by):
    with torch.no_grad():
        model[-1].bias[2] += by
    return model


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_in_single_precision(name):
    torch.manual_seed(0)
    model, x = RIGHT[name]()
    y = torch.arange(40 if name == "graph" else 9) % (2 if name == "masked class" else 3)
    op = EmpiricalRisk(model, x, [y] if name == "graph" else y).hessian()
    assert torch.isfinite(op @ torch.ones(op.shape[0])).all()


def test_what_needs_no_second_derivative_is_not_refused_for_lack_of_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(20, 3))
    op = EmpiricalRisk(model, torch.arange(45).reshape(9, 5) % 9, torch.arange(9) % 3).ggn()
    assert torch.isfinite(op @ torch.ones(op.shape[0])).all()


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(weight=torch.ones(3))])
def test_a_wrong_derivative_of_examples_that_count(loss):
    """The comparison looks at 32 examples; where all of these are ignored, at all."""
    torch.manual_seed(0)
    model, x, y = mlp(5, 4, 3), draw(90, 5).float(), torch.arange(90) % 3
    nn.utils.parametrizations.weight_norm(model[0])
    y[:40] = -100
    with pytest.raises(RuntimeError, match="H: double backward differs"):
        EmpiricalRisk(model, x, y, loss).hessian() @ torch.ones(39 + 4)


def test_parameters_of_two_dtypes_are_refused():
    model = mlp(5, 4, 3).double()
    model[0].to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"'2.weight' is torch.float64|parameters are torch.bfloat16"):
        EmpiricalRisk(model, draw(3, 5).bfloat16(), torch.arange(3))
    model = nn.Sequential(nn.Linear(5, 4).double(), nn.Linear(4, 3).bfloat16())
    with pytest.raises(ValueError, match=r"'1.weight' is torch.bfloat16"):
        EmpiricalRisk(model, draw(3, 5), torch.arange(3))


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5).double())

    def forward(self, f, y):
        return self.scale * (f - y).pow(4).mean()


class OldFourth(torch.autograd.Function):
    """A fourth power in the form that torch.func cannot take."""

    @staticmethod
    def forward(ctx, f):
        ctx.save_for_backward(f)
        return f**4

    @staticmethod
    def backward(ctx, g):
        return 4 * ctx.saved_tensors[0] ** 3 * g


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("loss", [Scaled(), lambda f, y: 1.5 * OldFourth.apply(f - y).mean()], ids=["own", "old"])
def test_losses_with_parameters_of_their_own_and_of_old_functions(loss, conv):
    model, x, y = mlp(5, 4, 3).double(), draw(6, 5), draw(6, 3, seed=1)
    if conv:
        model, x = (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)).double(),
            draw(6, 1, 4, 4),
        )
    risk, plain = (EmpiricalRisk(model, x, y, f) for f in (loss, lambda f, y: 1.5 * (f - y).pow(4).mean()))
    for kind in ("hessian", "ggn", "residual"):
        op, exact = getattr(risk, kind)(), getattr(plain, kind)().to_dense()
        assert distance(op.to_dense(), exact) < 1e-13 and not op.to_dense().requires_grad
        allowed = 1e-11 * float(exact.abs().max())
        assert abs(trace(op, "exact").value - float(exact.trace())) < allowed
        assert np.allclose(spectrum(op).eigenvalues, np.linalg.eigvalsh(exact), rtol=0, atol=allowed)
    assert np.allclose(ggn_spectrum(risk.ggn()).eigenvalues, spectrum(plain.ggn()).eigenvalues, atol=1e-13)


def test_a_loss_that_works_in_place_is_refused():
    def loss(f, y):
        f -= y
        return f.square().mean()

    with pytest.raises(ValueError, match="changes the outputs in place"):
        EmpiricalRisk(mlp(5, 4, 3).double(), draw(6, 5), draw(6, 3), loss)
