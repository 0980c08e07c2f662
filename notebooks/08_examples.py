# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Examples 1 and 2, and Figure 10

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
weight: float = 0.01  # every weight of the models
seed: int = 0  # of the blobs on this page
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk
from hesslib.book import figures
from hesslib.book.parameters import integer, real, resolve
from hesslib.book.store import Store
from hesslib.theory import (
    DeformedMarchenkoPastur,
    MarchenkoPastur,
    distance,
    spike_location,
)
from scipy.special import expit
from sklearn.datasets import make_blobs

p = resolve(
    globals(),
    weight=real(0, 1),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)


# %%
def prepared(examples, dimension, centers, seed, preparation):
    """Blobs and their centres: raw, centred, or standardised feature by feature."""
    x, _, means = make_blobs(
        examples,
        dimension,
        centers=centers,
        random_state=seed,
        return_centers=True,
    )
    if preparation != "raw":
        x, means = x - x.mean(0), means - means.mean(0)
    return x / x.std(0) if preparation == "standardised" else x, means


# %%
def logistic(x, weight=0.01):
    """Ascending eigenvalues of the logistic Hessian, all weights alike."""
    c = expit(weight * x.sum(1)) * expit(-weight * x.sum(1))
    values = np.linalg.eigvalsh((x * c[:, None]).T @ x / len(x))
    return np.where(values < 1e-12 * values[-1], 0, values)


def predicted(means, ratio, weight=0.01):
    """Ascending outliers of the Hessian from the centres, one for each blob."""
    c = expit(weight * means.sum(1)) * expit(-weight * means.sum(1))
    gram = np.sqrt(np.outer(c, c)) * (means @ means.T) / len(means)
    strength = np.linalg.eigvalsh(gram).clip(0)
    return c.mean() * spike_location(1 + strength / c.mean(), ratio)


# %%
PAPER = {1.0: (100, 100, 454.4), 2.0: (100, 200, 819.5), 0.02: (1000, 20, 92.7)}


# %%
def two_blobs(draws, seed):
    """Outliers of two blobs (sizes, preparations, draws): found and predicted."""
    found = np.zeros((len(PAPER), 3, draws, 3))
    for i, (a, (n, d, _)) in enumerate(PAPER.items()):
        for j, how in enumerate(("raw", "centred", "standardised")):
            for k in range(draws):
                x, means = prepared(n, d, 2, seed * draws + k, how)
                largest = predicted(means, a)[-1]
                found[i, j, k] = *logistic(x)[-2:], largest
    keys = ("second", "largest", "predicted")
    return {key: found[..., i] for i, key in enumerate(keys)}


# %%
grid = [{"draws": 10, "seed": s} for s in range(p.seeds)]
pairs = Store().sweep("two_blobs", two_blobs, grid, run=p.scale == "paper")
print(pairs.label)


# %%
UNITS = {
    "sigmoid": (1, 1),
    "tanh": (4, 2),
}  # sizes divided by; slope a of sigma(a s)


def two_units(draws, seed):
    """Outliers of two centred blobs (units, sizes, draws), draws independent."""
    found = np.zeros((len(UNITS), len(PAPER), draws))
    for i, (part, slope) in enumerate(UNITS.values()):
        for j, (n, d, _) in enumerate(PAPER.values()):
            for k in range(draws):
                own = seed_of([part, n, d, seed * draws + k])
                x, _ = prepared(n // part, d // part, 2, own, "centred")
                found[i, j, k] = slope**2 * logistic(x, 0.01 * slope)[-1]
    return {"largest": found}


def seed_of(words):
    """One seed from several numbers; other numbers give independent draws."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


# %%
grid = [{"draws": 200, "seed": s} for s in range(10)]
units = Store().sweep("two_units", two_units, grid, run=p.scale == "paper")


# %%
def one_blob(ratio, examples, seed):
    """One centred blob, and white normal data: distances from Marchenko-Pastur."""
    size, own = (
        round(ratio * examples),
        seed_of([round(100 * ratio), examples, seed]),
    )
    x, _ = prepared(examples, size, 1, own, "centred")
    c = expit(0.01 * x.sum(1)) * expit(-0.01 * x.sum(1))
    left = examples - 1  # centring uses up one example
    law = MarchenkoPastur(size / left, c.mean() * left / examples)
    white = np.random.default_rng(own).standard_normal((examples, size))
    null = distance(logistic(white, 0), MarchenkoPastur(ratio, 0.25))
    return {"blob": distance(logistic(x), law), "white": null}


# %%
grid = [
    {"ratio": a, "examples": n, "seed": s}
    for a in (0.5, 1.0, 2.0)
    for n in (100, 200, 400)
    for s in range(p.seeds)
]
single = Store().sweep("one_blob", one_blob, grid, run=p.scale == "paper")


# %%
def softmax(classes, examples, dimension, seed):
    """The risk of softmax regression on centred blobs, all weights 0.01; inputs."""
    x, _ = prepared(examples, dimension, classes, seed, "centred")
    y = np.random.default_rng(seed).integers(classes, size=examples)
    model = torch.nn.Linear(dimension, classes, bias=False).double()
    torch.nn.init.constant_(model.weight, 0.01)
    return EmpiricalRisk(model, torch.as_tensor(x), torch.as_tensor(y)), x


# %%
def softmax_counts(classes, seed):
    """Outliers of the softmax Hessian, and its distance from a Kronecker product."""
    risk, x = softmax(classes, 300, 60, seed)
    found = np.linalg.eigvalsh(risk.hessian().to_dense().numpy())
    factor = np.linalg.eigvalsh(x.T @ x / len(x)) / classes
    apart = abs(found[60:] - np.repeat(factor, classes - 1)).max() / found[-1]
    edge = MarchenkoPastur(60 / 300, 1 / classes).edges[1]
    return {
        "outliers": (found > 2 * edge).sum(),
        "apart": apart,
        "top": found[::-1][:30],
    }


# %%
grid = [{"classes": c, "seed": s} for c in (2, 3, 5) for s in range(p.seeds)]
counts = Store().sweep(
    "softmax_counts", softmax_counts, grid, run=p.scale == "paper"
)
