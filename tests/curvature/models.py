"""Many models and losses as users write them, with what is to be expected of each: right, or which refusal.

A row is (name, make, batches, message): ``make()`` gives model, inputs, targets, loss; ``batches`` says into how many
parts the data are cut; ``message`` is None where H must be right to 1e-10.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape, classes=3):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A module whose forward is a function of (module, inputs)."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, nn.Parameter | nn.Module):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def mlp(*sizes, activation=nn.Tanh):
    parts = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*parts[:-1])


def conv(channels=1, after=nn.ReLU, **options):
    return nn.Sequential(
        nn.Conv2d(channels, 2, 3, **options), after(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )  # fmt: skip


VECTOR = lambda model, n=7, width=5: (model, draw(n, width), labels(n))
IMAGE = lambda model, channels=1, size=6: (model, draw(5, channels, size, size), labels(5))
TOKENS = lambda model, n=4, length=5: (model, labels(n, length, classes=6), labels(n))


def chain(activation):
    return lambda: VECTOR(mlp(5, 4, 3, activation=activation))


def function(f):
    return lambda: VECTOR(Net(lambda m, x: m.b(f(m.a(x))), a=nn.Linear(5, 4), b=nn.Linear(4, 3)))


def before_conv(f, channels=1, size=6):
    return lambda: IMAGE(Net(lambda m, x: m.body(f(x)), body=conv()), channels, size)


def pruned(layer, kind=prune.random_unstructured):
    def make():
        model = mlp(5, 4, 3) if layer != "conv" else conv()
        kind(model[0 if layer == "conv" else layer], "weight", amount=0.4)
        return IMAGE(model) if layer == "conv" else VECTOR(model)

    return make


def norm(layer, activation=nn.Tanh):
    return lambda: VECTOR(nn.Sequential(nn.Linear(5, 4), layer(), activation(), nn.Linear(4, 3)).eval())


def set_weights(module):
    """Normalisation with weights and statistics that are not the identity."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(draw(*tensor.shape, seed=2).abs() + 0.5)
    return module


def hooked(register):
    def make():
        model = mlp(5, 4, 3)
        register(model)
        return VECTOR(model)

    return make


class Triple(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, g):
        return 3 * g


class Square(torch.autograd.Function):
    """Old style, but right."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(5, 3, batch_first=True, **options)
        self.out = nn.Linear(6 if options.get("bidirectional") else 3, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer, self.out = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True, **options), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


class Language(nn.Module):
    """Tied embedding, causal attention."""

    def __init__(self, tied=True):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(6, 4), nn.Linear(4, 12), nn.Linear(4, 6, bias=False)
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, x):
        h = self.embed(x)
        q, k, v = self.mix(F.layer_norm(h, (4,))).chunk(3, -1)
        return self.out(h + F.scaled_dot_product_attention(q, k, v, is_causal=True))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.GroupNorm(1, 2)
        self.up, self.out = nn.ConvTranspose2d(2, 2, 2, stride=2), nn.Linear(3 * 16, 3)

    def forward(self, x):
        h = F.silu(self.norm(self.down(x)))
        return self.out(torch.cat([x, self.up(h)], 1).flatten(1))


def residual():
    block = lambda m, x: F.relu(x + m.norm(m.conv(x)))
    parts = {"conv": nn.Conv2d(2, 2, 3, padding=1), "norm": set_weights(nn.BatchNorm2d(2)), "out": nn.Linear(2, 3)}
    return IMAGE(Net(lambda m, x: m.out(block(m, block(m, x)).mean((2, 3))), **parts).eval(), channels=2)


def mode(f):
    """A linear probe: the body's output goes through f."""
    return lambda: VECTOR(Net(lambda m, x: m.b(f(m, x)), a=nn.Linear(5, 4), b=nn.Linear(4, 3)))


def no_grad(m, x):
    with torch.no_grad():
        return torch.tanh(m.a(x))


def autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return torch.tanh(m.a(x)).double()


def frozen_body():
    model = mlp(5, 4, 3)
    model[0].requires_grad_(False)
    return VECTOR(model)


def lora():
    parts = {
        "a": nn.Linear(5, 4).requires_grad_(False),
        "down": nn.Linear(5, 2),
        "up": nn.Linear(2, 4),
        "b": nn.Linear(4, 3),
    }
    return VECTOR(Net(lambda m, x: m.b(torch.tanh(m.a(x) + m.up(m.down(x)))), **parts))


def channels_last(model_too):
    def make():
        model, x, y = IMAGE(conv(3), channels=3)
        return (
            (model.to(memory_format=torch.channels_last) if model_too else model),
            x.to(memory_format=torch.channels_last),
            y,
        )

    return make


def pinn():
    """The residual of u'' = u, by autograd inside forward."""

    def forward(m, x):
        x = x.detach().requires_grad_()
        u = m.net(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        return ddu - u

    return Net(forward, net=mlp(1, 4, 1)), draw(7, 1), draw(7, 1), nn.MSELoss()


def loss(function, targets=None, width=3):
    return lambda: (mlp(5, 4, width), draw(7, 5), labels(7) if targets is None else targets, function)


PADDED = torch.tensor([0, 1, -100, 2, 2, -100, 1])
WEIGHT = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
NO_GRAD = r"gradient: .*no_grad"
TWICE = "cannot differentiate it twice"

TABLE = [
    *((f"chain {a.__name__}", chain(a), 1, None) for a in (
        nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.Mish,
        nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.ReLU6, nn.Identity, nn.PReLU, nn.Hardswish, nn.Softshrink,
    )),
    ("function sin", function(torch.sin), 2, None),
    ("function gelu tanh", function(lambda z: F.gelu(z, approximate="tanh")), 2, None),
    ("function softmax", function(lambda z: z.softmax(1)), 2, None),
    ("softplus by buffer", lambda: VECTOR(Net(lambda m, x: m.b(F.softplus(m.a(x), beta=2.0)), a=nn.Linear(5, 4), b=nn.Linear(4, 3))), 1, None),
    ("multiplied by itself", lambda: VECTOR(Net(lambda m, x: m.a(x) * m.b(x), a=nn.Linear(5, 3), b=nn.Linear(5, 3))), 2, None),
    ("bare linear", lambda: VECTOR(nn.Linear(5, 3)), 2, None),
    ("bilinear", lambda: VECTOR(Net(lambda m, x: m.a(x[:, :2], x[:, 2:]), a=nn.Bilinear(2, 3, 3))), 1, None),
    ("bare parameter", lambda: VECTOR(Net(lambda m, x: x @ m.w, w=nn.Parameter(draw(5, 3)))), 2, None),
    ("scalar parameter", lambda: VECTOR(Net(lambda m, x: m.t * m.a(x), t=nn.Parameter(draw(1)[0]), a=nn.Linear(5, 3))), 1, None),
    ("unused parameter", lambda: VECTOR(Net(lambda m, x: m.a(x), a=nn.Linear(5, 3), b=nn.Linear(2, 2))), 1, None),
    ("zero weights", lambda: VECTOR(Net(lambda m, x: m.b(F.relu(m.a(x))), a=set_weights(nn.Linear(5, 4)), b=nn.Linear(4, 3))), 1, None),
    ("layer norm", norm(lambda: set_weights(nn.LayerNorm(4))), 2, None),
    ("rms norm", norm(lambda: set_weights(nn.RMSNorm(4))), 1, None),
    ("batch norm in eval", norm(lambda: set_weights(nn.BatchNorm1d(4))), 2, None),
    ("batch norm in training", lambda: VECTOR(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))), 1, "eval"),
    ("dropout in eval", norm(lambda: nn.Dropout(0.5)), 1, None),
    ("dropout in training", lambda: VECTOR(nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))), 1, "eval"),
    ("normalised images", before_conv(lambda x: (x - 0.4) / 0.3), 2, None),
    ("clamped images", before_conv(lambda x: x.clamp(0, 0.5)), 2, None),
    ("transposed images", before_conv(lambda x: x.transpose(2, 3)), 1, None),
    ("pooled images", before_conv(lambda x: F.avg_pool2d(x, 2), size=12), 1, None),
    ("first channel", before_conv(lambda x: x[:, :1], channels=3), 1, None),
    ("viewed images", lambda: (Net(lambda m, x: m.body(x.view(-1, 1, 6, 6)), body=conv()), draw(5, 36), labels(5)), 2, None),
    ("images learnt to scale", lambda: IMAGE(Net(lambda m, x: m.body(x * m.t), body=conv(), t=nn.Parameter(draw(1)))), 1, None),
    ("convolution ELU", lambda: IMAGE(conv(after=nn.ELU)), 1, None),
    ("convolution ELU, black first", lambda: ((m := conv(after=nn.ELU)), (setattr(m[0].bias, "data", m[0].bias.data.abs()), torch.cat([torch.zeros(1, 1, 6, 6).double(), draw(4, 1, 6, 6)]))[1], labels(5)), 1, None),
    ("convolution same padding", lambda: IMAGE(nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))), 1, None),
    ("grouped convolution", lambda: IMAGE(conv(2, groups=2), channels=2), 1, None),
    ("reflecting convolution", lambda: IMAGE(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))), 1, None),
    ("average pooling", lambda: IMAGE(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))), 1, None),
    ("convolution used twice", lambda: IMAGE(Net(lambda m, x: m.o(F.relu(m.c(F.relu(m.c(x) * 0.5))).flatten(1)), c=nn.Conv2d(1, 1, 3, padding=1), o=nn.Linear(36, 3))), 1, None),
    ("one-dimensional convolution", lambda: (nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)), draw(5, 2, 6), labels(5)), 1, None),
    ("channels_last inputs", channels_last(False), 1, None),
    ("channels_last model", channels_last(True), 2, None),
    ("residual network", residual, 2, None),
    ("U-net", lambda: IMAGE(UNet(), size=4), 1, None),
    ("layer also before the chain", lambda: VECTOR(Net(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(F.layer_norm(m.b(x), (5,)))))), b=nn.Linear(5, 5), c=nn.Linear(5, 3))), 2, None),
    ("tied decoder by F.linear", lambda: VECTOR(Net(lambda m, x: m.c(torch.tanh(F.linear(m.c(x), m.c.weight.T))), c=nn.Linear(5, 3))), 1, None),
    ("tied autoencoder", lambda: (Net(lambda m, x: F.linear(torch.tanh(m.c(x)), m.c.weight.T), c=nn.Linear(5, 3)), draw(7, 5), draw(7, 5), "mse"), 2, None),
    ("shared over time", lambda: VECTOR(Net(lambda m, x: m.c(m.a(F.relu(m.a(F.relu(m.a(x)))))), a=nn.Linear(5, 5), c=nn.Linear(5, 3))), 1, None),
    ("pruned first layer", pruned(0), 1, None),
    ("pruned last layer", pruned(2), 2, None),
    ("pruned convolution", pruned("conv"), 1, None),
    ("pruned by magnitude", pruned(0, prune.l1_unstructured), 1, None),
    ("spectral norm", lambda: VECTOR(nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3)).eval()), 1, None),
    ("orthogonal", lambda: VECTOR(nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4), use_trivialization=False), nn.Tanh(), nn.Linear(4, 3)).eval(), width=4), 1, None),
    ("weight norm", lambda: VECTOR(nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3))), 1, "weight_norm"),
    ("recurrent", lambda: (Recurrent(nn.RNN), draw(5, 4, 5), labels(5)), 1, None),
    ("LSTM", lambda: (Recurrent(nn.LSTM), draw(5, 4, 5), labels(5)), 2, None),
    ("bidirectional LSTM", lambda: (Recurrent(nn.LSTM, bidirectional=True), draw(5, 4, 5), labels(5)), 1, None),
    ("GRU", lambda: (Recurrent(nn.GRU), draw(5, 4, 5), labels(5)), 1, None),
    ("transformer", lambda: (Transformer(), draw(5, 3, 4), labels(5)), 2, None),
    ("transformer, norm first, in eval", lambda: (Transformer(norm_first=True, activation="gelu").eval(), draw(5, 3, 4), labels(5)), 1, None),
    ("embedding", lambda: TOKENS(Net(lambda m, x: m.o(m.e(x).mean(1)), e=nn.Embedding(6, 4, padding_idx=0), o=nn.Linear(4, 3))), 2, None),
    ("sparse embedding", lambda: TOKENS(Net(lambda m, x: m.o(m.e(x).mean(1)), e=nn.Embedding(6, 4, sparse=True), o=nn.Linear(4, 3))), 1, TWICE),
    ("embedding bag", lambda: TOKENS(nn.Sequential(nn.EmbeddingBag(6, 4), nn.Linear(4, 3))), 1, TWICE),
    ("no_grad body", mode(no_grad), 1, NO_GRAD),
    ("detached body", mode(lambda m, x: torch.tanh(m.a(x)).detach()), 1, NO_GRAD),
    ("frozen body", frozen_body, 2, None),
    ("adapters", lora, 2, None),
    ("autocast", mode(autocast), 1, "autocast"),
    ("straight-through rounding", mode(lambda m, x: (h := torch.tanh(m.a(x))) + (h.round() - h).detach()), 1, "gradient: "),
    ("old function, wrong gradient", mode(lambda m, x: Triple.apply(m.a(x))), 1, "gradient: .*autograd.Function"),
    ("old function, right", mode(lambda m, x: Square.apply(m.a(x))), 2, None),
    ("checkpointed", mode(lambda m, x: checkpoint(lambda z: torch.tanh(m.a(z)), x, use_reentrant=False)), 1, r"checkpoint\(\)"),
    ("compiled", lambda: VECTOR(torch.compile(mlp(5, 4, 3), backend="eager")), 2, None),
    ("full backward hook", hooked(lambda m: m[0].register_full_backward_hook(lambda *a: None) and m[2].register_full_backward_hook(lambda m, i, o: (2 * i[0],))), 1, "gradient: .*hook"),
    ("hook that detaches", hooked(lambda m: m[1].register_forward_hook(lambda m, i, o: o.detach())), 1, NO_GRAD),
    ("hook that scales", hooked(lambda m: m[1].register_forward_hook(lambda m, i, o: 2 * o)), 2, None),
    ("pre-hook that scales", hooked(lambda m: m[2].register_forward_pre_hook(lambda m, i: (2 * i[0],))), 1, None),
    ("tensor hook", mode(lambda m, x: (h := torch.tanh(m.a(x)), h.requires_grad and h.register_hook(lambda g: 3 * g))[0]), 1, "gradient: .*hook"),
    ("random numbers", mode(lambda m, x: m.a(x) + torch.rand(4)), 1, "two evaluations"),
    ("control flow on values", mode(lambda m, x: m.a(x) if x.sum() > 0 else m.a(-x)), 1, None),
    ("matrix inverse", mode(lambda m, x: torch.linalg.solve(torch.eye(4).double() + m.a.weight[:, :4] @ m.a.weight[:, :4].T, m.a(x).T).T), 1, None),
    ("two outputs", mode(lambda m, x: m.a(x)), 1, None),
    ("differential equation", pinn, 2, None),
    ("mse", lambda: (mlp(5, 4, 2), draw(7, 5), draw(7, 2), "mse"), 2, None),
    ("mse of (N,)", lambda: (Net(lambda m, x: m.a(x)[:, 0], a=mlp(5, 4, 1)), draw(7, 5), draw(7), "mse"), 2, None),
    ("mse of images", lambda: (Net(lambda m, x: m.a(x), a=nn.Conv2d(1, 1, 3, padding=1)), draw(3, 1, 4, 4), draw(3, 1, 4, 4), "mse"), 2, None),
    ("cross-entropy module", loss(nn.CrossEntropyLoss()), 3, None),
    ("class weights", loss(nn.CrossEntropyLoss(weight=WEIGHT)), 3, None),
    ("ignored targets", loss(nn.CrossEntropyLoss(), PADDED), 3, None),
    ("class weights, ignored, smooth", loss(nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), PADDED), 3, None),
    ("soft labels", loss(nn.CrossEntropyLoss(), draw(7, 3).softmax(1)), 2, None),
    ("weights in a function", loss(lambda f, y: F.cross_entropy(f, y, WEIGHT)), 3, "batched"),
    ("binary cross-entropy", loss(nn.BCEWithLogitsLoss(), labels(7, 3, classes=2).double()), 2, None),
    ("Huber", loss(nn.HuberLoss(), draw(7, 3)), 2, None),
    ("absolute error", loss(nn.L1Loss(), draw(7, 3)), 1, None),
    ("mixes examples", loss(lambda f, y: F.cosine_similarity(f, f.mean(0, keepdim=True)).mean()), 1, None),
    ("mixes examples of batches", loss(lambda f, y: F.cosine_similarity(f, f.mean(0, keepdim=True)).mean()), 2, "batched"),
    ("sum over examples", loss(lambda f, y: F.cross_entropy(f, y, reduction="sum")), 1, "average over the examples"),
    ("nearly nothing left", lambda: (mlp(5, 4, 3), 1e-8 * draw(7, 5), labels(7), lambda f, y: 1e-12 * F.cross_entropy(f, y)), 1, None),
]  # fmt: skip


def build(make, dtype=torch.float64):
    """Model, inputs, targets, loss of a row; weights the same each time."""
    torch.manual_seed(11)
    model, x, y, *given = make()
    model = model.double()
    for i, p in enumerate(model.parameters()):
        p.data = draw(p.numel(), seed=100 + i).view_as(p) / math.sqrt(max(1, p.shape[-1] if p.ndim else 1))
    return copy.copy(model), x, y, *(given or ["cross_entropy"])
