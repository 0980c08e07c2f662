"""Every eigenvalue of G from inner products of example gradients, against explicit Jacobians."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional as F

from hesslib import EmpiricalRisk, ggn_spectrum, spectrum
from hesslib.curvature import ggn
from hesslib.curvature.certificates import CertificateError
from hesslib.curvature.structure.examples import layers_of
from hesslib.experiments.models import alexnet
from tests.curvature.models import TABLE, Language, Net, Recurrent, Transformer, build, draw, labels, set_weights

LOSSES = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}


def explicit(model, x, y, loss="cross_entropy"):
    """G (M, M) from the Jacobian of all outputs in all parameters and the Hessian of the mean loss in all outputs."""
    named = {n: p.detach() for n, p in model.named_parameters()}
    f = lambda p: functional_call(model, p, (x,))
    outputs = f(named)
    parts = jacrev(f)(named)
    jacobian = torch.cat([parts[n].flatten(outputs.ndim).flatten(0, -2) for n in named], 1)
    curvature = hessian(lambda z: LOSSES[loss](z, y))(outputs).reshape(outputs.numel(), -1)
    return jacobian.T @ curvature @ jacobian


def conv2d(size=7, channels=2, **options):
    """A convolution of some kind before a Linear layer, on images."""
    first = nn.Conv2d(channels, 4, 3, **options)
    features = first(torch.zeros(1, channels, size, size)).numel()
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(features, 3)), draw(4, channels, size, size)


def pooled(pool):
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(27, 3)), draw(4, 1, 8, 8)


class Block(nn.Module):
    def __init__(self, fan_in, width, stride):
        super().__init__()
        self.one, self.two = (nn.Conv2d(a, width, 3, s, 1, bias=False) for a, s in ((fan_in, stride), (width, 1)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.short = nn.Conv2d(fan_in, width, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x):
        z = self.norms[1](self.two(F.relu(self.norms[0](self.one(x)))))
        return F.relu(z + (x if self.short is None else self.norms[2](self.short(x))))


def resnet18(width=64, classes=10, blocks=2):
    """ResNet-18 as it is usual for images of 32 x 32: 11,173,962 parameters that count."""
    stages = [(width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)]
    layers, before = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()], width
    for w, stride in stages:
        for i in range(blocks):
            layers.append(Block(before, w, stride if i == 0 else 1))
            before = w
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    for block in model:  # the third norm of a block without shortcut is not used
        if isinstance(block, Block) and block.short is None:
            del block.norms[2]
    return model


def tied():
    forward = lambda m, x: m.out(torch.tanh(m.b(torch.tanh(m.a(torch.tanh(m.a(x)))))))
    return Net(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 4), out=nn.Linear(4, 3))


def small_maps(n=3):
    """The book's AlexNet, narrow, on random images."""
    return alexnet(2, seed=0, dtype=torch.float64), draw(n, 3, 32, 32)


CASES = {
    "stride": lambda: conv2d(stride=2),
    "padding": lambda: conv2d(padding=1),
    "padding by name": lambda: conv2d(padding="same", dilation=2),
    "uneven padding": lambda: conv2d(padding=(2, 0), stride=(1, 3)),
    "reflecting padding": lambda: conv2d(padding=2, padding_mode="reflect"),
    "circular padding": lambda: conv2d(padding=1, padding_mode="circular"),
    "groups": lambda: conv2d(groups=2),
    "depthwise": lambda: conv2d(channels=4, groups=4, stride=2),
    "dilation": lambda: conv2d(dilation=2, stride=2, padding=1),
    "no bias": lambda: conv2d(bias=False),
    "max pooling": lambda: pooled(nn.MaxPool2d(2)),
    "average pooling": lambda: pooled(nn.AvgPool2d(2)),
    "one dimension": lambda: (
        nn.Sequential(nn.Conv1d(2, 3, 3, dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(15, 3)), draw(4, 2, 9)),
    "three dimensions": lambda: (
        nn.Sequential(nn.Conv3d(1, 2, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)), draw(4, 1, 4, 4, 4)),
    "layer norm": lambda: (
        nn.Sequential(nn.Linear(5, 8), set_weights(nn.LayerNorm(8)), nn.Tanh(), nn.Linear(8, 3)), draw(4, 5)),
    "attention": lambda: (Transformer(), draw(3, 3, 4)),
    "attention in eval": lambda: (Transformer(norm_first=True).eval(), draw(3, 3, 4)),
    "embedding": lambda: (
        Net(lambda m, x: m.o(m.e(x).mean(1)), e=nn.Embedding(9, 4), o=nn.Linear(4, 3)), labels(4, 5, classes=6)),
    "layer used twice": lambda: (tied(), draw(4, 5)),
    "recurrent": lambda: (Recurrent(nn.LSTM), draw(3, 4, 5)),
    "alexnet": small_maps,
    "residual network": lambda: (set_weights(resnet18(1, 3, 1)).eval(), draw(4, 3, 16, 16)),
}  # fmt: skip


def close(s, matrix, bound=1e-12):
    true = torch.linalg.eigvalsh(matrix).numpy()
    assert len(s.eigenvalues) == len(true)
    np.testing.assert_allclose(s.eigenvalues, true, rtol=0, atol=bound * true[-1])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("memory", [None, 1500], ids=["at once", "piece by piece"])
def test_against_the_explicit_matrix(name, memory):
    torch.manual_seed(5)
    model, x = CASES[name]()
    model, y = model.double(), labels(len(x))
    op = EmpiricalRisk(model, x, y).ggn()
    s = ggn_spectrum(op, memory=memory)
    assert s.method == "gram" and max(s.certificates.values()) < 1e-11
    close(s, explicit(model, x, y))
    assert memory is None or int(s.reason.split()[-5]) > 1


def test_a_language_model_with_tied_embedding_and_ignored_targets():
    torch.manual_seed(5)
    model, x, y = Language().double(), labels(2, 3, classes=6), labels(2, 3, classes=6).flip(1)
    y[1, 2] = -100
    s = ggn_spectrum(EmpiricalRisk(model, x, y).ggn())
    flat = Net(lambda m, x: m.model(x).flatten(0, 1), model=model)
    assert s.method == "gram"
    close(s, explicit(flat, x, y.flatten()))
    moved = Net(lambda m, x: m.model(x).movedim(-1, 1), model=model)
    np.testing.assert_allclose(ggn_spectrum(EmpiricalRisk(moved, x, y).ggn()).eigenvalues, s.eigenvalues, atol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (1, 4, 4)], ids=["vectors", "images"])
def test_mean_squared_error(shape):
    torch.manual_seed(5)
    images = len(shape) == 3
    model = nn.Sequential(nn.Conv2d(1, 9, 3, padding=1), nn.Tanh(), nn.Conv2d(9, 1, 1)) if images else nn.Linear(9, 3)
    x = draw(2, 1, 4, 4) if images else draw(3, 9)
    model, y = model.double(), draw(len(x), *shape)
    s = ggn_spectrum(EmpiricalRisk(model, x, y, "mse").ggn())
    assert s.method == "gram"
    close(s, explicit(model, x, y, "mse"))


def test_the_empirical_fisher_and_a_loss_of_ones_own():
    torch.manual_seed(5)
    model, x = conv2d()
    model, y = model.double(), labels(len(x))
    risk = EmpiricalRisk(model, x, y)
    rows = torch.stack([EmpiricalRisk(model, x[i : i + 1], y[i : i + 1]).gradient() for i in range(len(x))])
    close(ggn_spectrum(risk.ggn("probability")), rows.T @ rows / len(x))
    own = EmpiricalRisk(model, x, y, nn.CrossEntropyLoss(label_smoothing=0.1)).ggn()
    close(ggn_spectrum(own), explicit(model, x, y))  # the curvature does not depend on the labels
    bent = lambda f, y: torch.sin(f).sum(1).mean()  # a loss that is not convex: eigenvalues of both signs
    s = ggn_spectrum(EmpiricalRisk(model, x, y, bent).ggn())
    true = spectrum(EmpiricalRisk(model, x, y, bent).ggn(), "dense").eigenvalues
    assert s.method == "gram" and true[0] < -0.1 * true[-1]
    np.testing.assert_allclose(s.eigenvalues, true, atol=1e-12 * true[-1])


RIGHT = [row for row in TABLE if row[3] is None]
# losses that are not a mean of the examples' own, which have no G by example
MIXING = {"class weights", "class weights, ignored, smooth", "ignored targets", "mixes examples", "soft labels"}


@pytest.mark.slow
@pytest.mark.parametrize("row", RIGHT, ids=[row[0] for row in RIGHT])
def test_models_as_users_write_them(row):
    _, make, batches, _ = row
    model, x, y, loss = build(make)
    cut = lambda t: list(torch.tensor_split(t, batches)) if batches > 1 else t
    op = EmpiricalRisk(model, cut(x), cut(y), loss).ggn()
    try:
        roots = ggn.Roots.of(op)
    except (RuntimeError, ValueError):
        assert row[0] in MIXING
        return
    gram, signs, _ = ggn.inner_products(op, roots, 10000, None)
    assert ggn.product_certificate(op, roots, gram, signs) < 1e-12
    found = ggn.signed_eigenvalues(gram, signs)
    true = spectrum(op, "dense").eigenvalues
    both = [np.sort(np.concatenate([v, np.zeros(max(0, len(w) - len(v)))])) for v, w in ((found, true), (true, found))]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-12 * max(np.abs(true).max(), 1e-300))


def test_a_network_that_is_sure_keeps_its_digits():
    outputs = torch.tensor([[0.0, 40.0, -3.0, 2.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    b = ggn.softmax_root(outputs)
    p = outputs.softmax(1)
    for i in (0, 2, 3):  # p_i (1 - p_i) beside p_1 = 1 - 5e-17
        assert abs((b[0, :, i] ** 2).sum() / (p[0, i] * (1 - p[0, i])) - 1) < 1e-14
    assert abs((b[0, :, 1] ** 2).sum() / p[0, [0, 2, 3]].sum() - 1) < 1e-14
    torch.testing.assert_close(b[1].T @ b[1], p[1].diag() - torch.outer(p[1], p[1]), rtol=0, atol=1e-16)


def test_fewer_parameters_than_the_rank_go_by_the_matrix():
    model, x = nn.Linear(2, 3).double(), draw(20, 2)
    assert ggn_spectrum(EmpiricalRisk(model, x, labels(20)).ggn()).method == "dense"


def test_layers_are_understood_at_other_weights_than_the_models_own():
    model, x = conv2d()
    risk = EmpiricalRisk(model.double(), x.double(), torch.tensor([0, 1, 2, 1]))
    moved = risk.at(risk.vector + torch.linspace(-0.1, 0.1, risk.num_parameters).double())
    assert [(layer.name, layer.weight, layer.bias) for layer in layers_of(moved)] == [
        ("0", True, True),
        ("3", True, True),
    ]


def test_gradients_of_a_large_parameter_that_is_no_layers_keep_to_the_budget():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10**6))

        def forward(self, x):
            return x * self.scale[:3]

    risk = EmpiricalRisk(Scaled().double(), torch.eye(60, 3).double(), torch.arange(60) % 3)
    op = risk.ggn()
    few = ggn.examples_at_a_time(op, [ggn.Piece(10, name="scale")], 2)
    assert few * 2 * 3 * 8 * 10**6 <= op.memory_budget < 60 * 2 * 3 * 8 * 10**6


def test_what_is_refused(monkeypatch):
    model, x = conv2d()
    risk = EmpiricalRisk(model.double(), x, labels(4))
    with pytest.raises(ValueError, match="H given"):
        ggn_spectrum(risk.hessian())
    monkeypatch.setattr(ggn, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"order 8 needs 0.0 GiB.*top_eigenpairs"):
        ggn_spectrum(risk.ggn())
    monkeypatch.undo()
    for mixing in (lambda m, x: m.a(x) - m.a(x).mean(0), lambda m, x: m.a((m.b(x) - m.b(x).mean(0)).tanh())):
        net = Net(mixing, a=nn.Linear(9, 3), b=nn.Linear(9, 9)).double()
        with pytest.raises((ValueError, CertificateError), match=r"depend on the other examples|certificates"):
            ggn_spectrum(EmpiricalRisk(net, draw(4, 9), labels(4)).ggn())


def test_arguments_that_cannot_be_are_refused():
    model, x = conv2d()
    op = EmpiricalRisk(model.double(), x, labels(4)).ggn()
    with pytest.raises(TypeError, match=r"risk.ggn\(\) is needed, got EmpiricalRisk"):
        ggn_spectrum(op.risk)
    with pytest.raises(ValueError, match="memory=-5"):
        ggn_spectrum(op, memory=-5)
    tokens = nn.Sequential(nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    loss = lambda f, y: nn.functional.cross_entropy(f.flatten(0, 1), y.flatten()) + f.mean(0).square().sum()
    with pytest.raises(ValueError, match="this callable is not a mean over examples"):
        ggn_spectrum(EmpiricalRisk(tokens, draw(4, 2, 9), torch.arange(8).view(4, 2) % 3, loss).ggn())


def test_a_callable_loss_of_tokens_has_the_spectrum_of_the_named_one():
    tokens = nn.Sequential(nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = draw(4, 2, 9), torch.arange(8).view(4, 2) % 3
    flat = lambda f, y: nn.functional.cross_entropy(f.flatten(0, 1), y.flatten())
    named, other = (
        ggn_spectrum(EmpiricalRisk(tokens, x, y, loss).ggn()).eigenvalues for loss in ("cross_entropy", flat)
    )
    assert np.abs(named - other).max() < 1e-13 * named[-1]


def test_a_matrix_that_does_not_fit_is_refused_before_anything_is_made(monkeypatch):
    model, x = conv2d()
    monkeypatch.setattr(ggn, "free_memory", lambda device: 1000)
    monkeypatch.setattr(ggn, "softmax_root", lambda outputs: pytest.fail("allocated"))
    with pytest.raises(MemoryError):
        ggn_spectrum(EmpiricalRisk(model.double(), x, labels(4)).ggn())


def test_one_class_has_no_curvature():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    s = ggn_spectrum(EmpiricalRisk(model, draw(3, 5), torch.zeros(3, dtype=torch.long)).ggn())
    assert s.eigenvalues.tolist() == [0] * 29


@pytest.mark.parametrize("layer", [nn.Linear(5, 8), nn.Conv1d(5, 8, 2)])
def test_batches_of_longer_inputs(layer):
    """Outputs averaged over the length may have one shape where the inputs do not."""
    torch.manual_seed(5)
    along = (lambda x: x) if isinstance(layer, nn.Linear) else (lambda x: x.transpose(1, 2))
    net = Net(lambda m, x: m.b(along(m.a(along(x))).tanh().mean(1)), a=layer, b=nn.Linear(8, 3)).double()
    op = EmpiricalRisk(net, [draw(3, 4, 5), draw(2, 6, 5)], [labels(3), labels(2)]).ggn()
    exact = torch.linalg.eigvalsh(op.to_dense()).numpy()
    np.testing.assert_allclose(ggn_spectrum(op).eigenvalues, exact, atol=1e-12 * exact[-1])


def test_both_ways_and_all_piece_sizes_give_one_matrix():
    torch.manual_seed(5)
    x = draw(5, 3, 8, 8)
    parts = [nn.Conv2d(3, 8, 3, 2, 1, groups=1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1, groups=4), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(48, 3)).double()
    op = EmpiricalRisk(model, x, labels(5)).ggn()
    roots, found = ggn.Roots.of(op), []
    for memory in (1, 3000, 10**5, 2**31):
        gram, _, reason = ggn.inner_products(op, roots, memory, None)
        found.append(gram)
    assert "by pairs" in reason and torch.equal(gram, gram.T)
    for other in found:
        torch.testing.assert_close(other, gram, rtol=0, atol=1e-14 * float(gram.diagonal().max()))


@pytest.mark.slow
def test_single_precision_is_as_good_as_its_gradients():
    torch.manual_seed(5)
    model, x = small_maps(6)
    wide = ggn_spectrum(EmpiricalRisk(model, x, labels(6)).ggn())
    narrow = ggn_spectrum(EmpiricalRisk(model.float(), x.float(), labels(6)).ggn())
    np.testing.assert_allclose(narrow.eigenvalues, wide.eigenvalues, atol=3e-6 * wide.eigenvalues[-1])


@pytest.mark.slow
def test_resnet_18_on_a_few_images():
    torch.manual_seed(5)
    model = set_weights(resnet18()).double().eval()
    for module in model.modules():  # outputs of a usual size, though nothing is trained
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.mul_(0.5)
    s = ggn_spectrum(EmpiricalRisk(model, draw(2, 3, 16, 16), labels(2, classes=10)).ggn())
    assert len(s.eigenvalues) == 11_173_962 and s.method == "gram" and (s.eigenvalues != 0).sum() <= 18
    assert max(s.certificates.values()) < 1e-10
