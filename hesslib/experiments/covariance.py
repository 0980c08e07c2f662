"""First terms of Hessians as sample covariance matrices: their columns, the laws of their spectra, and the null.

G = 1/N sum U_n' U_n, where the rows of U_n (C, M) are the columns of a sample covariance matrix; of each example's C
only C - 1 are independent, since softmax ignores a constant added to all outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize

from ..curvature.outliers import count_outliers
from ..curvature.risk import EmpiricalRisk
from ..theory import DeformedMarchenkoPastur, MarchenkoPastur, TracyWidom, distance, edge_scale
from .models import fully_connected
from .training import train


def pairs_of(op):
    """Ascending eigenvalues, rounding errors set to zero, and eigenvectors."""
    values, vectors = np.linalg.eigh(op.to_dense().numpy())
    return np.where(abs(values) < 1e-12 * values[-1], 0, values), vectors


def best_fit(values):
    """The Marchenko-Pastur law, over ratio and variance, nearest to eigenvalues."""
    law = lambda q: MarchenkoPastur(*np.exp(q.clip(-30, 10)))
    far = lambda q: distance(values, law(q))
    # the distance has local minima, so the search starts from several ratios
    starts = [[np.log(a), np.log(values.mean())] for a in (0.1, 0.5, 1.0, 2.0, 10.0)]
    options = {"method": "Nelder-Mead", "options": {"maxiter": 300}}
    return law(min((minimize(far, q, **options) for q in starts), key=lambda r: r.fun).x)


LAWS = ("MP, N", "MP, N(C - 1)", "best MP", "Sigma, N", "Sigma, N(C - 1)")


def laws_for(values, population, n, c):
    """Each law with the 99 % Tracy-Widom quantile of its edge."""
    m, bulk, beyond = len(values), values[:-c], TracyWidom(1).ppf(0.99)
    fits = [MarchenkoPastur(m / k, bulk.mean()) for k in (n, n * (c - 1))]
    found = []
    for law in (*fits, best_fit(bulk)):
        centre, width = edge_scale(m, max(2, m / law.ratio), law.variance)
        found.append((law, centre + beyond * width))
    for k in (n, n * (c - 1)):
        law = DeformedMarchenkoPastur(population, m / k)
        found.append((law, law.edges[-1, 1] + beyond * law.edge_width(k)))
    return dict(zip(LAWS, found))


def columns(risk):
    """All U_n (N, C, M), as rows, by automatic differentiation."""
    x, _ = risk.batches[0]
    output = lambda w, one: risk.outputs(w, one[None])[0]
    jacobian = torch.func.vmap(torch.func.jacrev(output), (None, 0))(risk.parameters, x)
    jacobian = torch.cat([j.flatten(2) for j in jacobian.values()], 2)
    prob = risk.outputs(risk.parameters, x).softmax(1)
    a = torch.diag_embed(prob) - prob[:, :, None] * prob[:, None]
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT
    return (root @ jacobian).detach()


def within(risk):
    """Ascending eigenvalues of G after the mean of U_n over each class is removed."""
    u, (_, y) = columns(risk), risk.batches[0]
    for k in y.unique():
        u[y == k] -= u[y == k].mean(0)
    rows = u.flatten(0, 1)
    return torch.linalg.eigvalsh(rows.T @ rows / len(u)).numpy()


def moment(risks):
    """What theory explains at one moment: the spectra, the laws, and measures of their agreement."""
    training = risks[0]
    (g, u), (f, _), (s, v) = (pairs_of(r.ggn()) for r in risks)
    h, n, c = (
        pairs_of(training.hessian())[0],
        training.num_examples,
        training.num_outputs,
    )
    laws, rest = laws_for(g, s, n, c), within(training)
    measures = {
        "distance": [[distance(w[:-c] if "MP" in k else w, law) for k, (law, _) in laws.items()] for w in (g, f)],
        "beyond": [[(w > edge).sum() for _, edge in laws.values()] for w in (g, f, s, h, rest)],
        "top": [w[::-1][: 2 * c] for w in (g, f, s, h, rest)],
        "fit": [laws["best MP"][0].ratio, laws["best MP"][0].variance],
        "eigenvectors": np.linalg.norm(u[:, 1 - c :].T @ v[:, 1 - c :]) ** 2 / (c - 1),
        "negative": (h < 0).sum(),
        "ratio_rule": count_outliers(g, "ratio"),
        "sizes": [len(g), n, c],
    }
    return {"g": g, "fresh": f, "population": s, "laws": laws}, measures


def normal_factor(m, n, rng):
    """A such that A A' is distributed as X X' / n, for a normal X of m rows."""
    if n < m:
        return rng.standard_normal((m, n)) / np.sqrt(n)
    lower = np.tril(rng.standard_normal((m, m)), -1)
    lower[np.arange(m), np.arange(m)] = np.sqrt(rng.chisquare(n - np.arange(m)))
    return lower / np.sqrt(n)


def normal_sample(population, columns, rng):
    """Ascending eigenvalues of G for that many independent normal columns."""
    root = normal_factor(len(population), columns, rng)
    root *= np.sqrt(population)[:, None]
    values = np.linalg.eigvalsh(root @ root.T)
    return np.where(values < 1e-12 * values[-1], 0, values)


def predicted(population, columns, leading):
    """Psi and psi' at the leading population eigenvalues, descending."""
    t = population[::-1]
    gaps = t[:leading, None] - t
    gaps[np.arange(leading), np.arange(leading)] = np.inf
    part = t / gaps
    place = t[:leading] * (1 + part.sum(1) / columns)
    return place, 1 - (part**2).sum(1) / columns


def simulated(population, columns, heldout, leading, draws, laws, rng):
    """The null: distances from the law (laws,), leading sample over population (draws,)."""
    far, ratios = [], []
    for k in range(draws):
        estimate = population
        if heldout:  # the population is an estimate too
            estimate = normal_sample(population, heldout, rng)
        values = normal_sample(population, columns, rng)
        ratios.append(values[::-1][:leading] / estimate[::-1][:leading])
        if k < laws:
            law = DeformedMarchenkoPastur(estimate, len(estimate) / columns)
            far.append(distance(values, law))
    return np.array(far), np.array(ratios)


def explained(spectra, n, c, heldout, rng, draws=30, laws=3):
    """Spectra of samples against the law of the population, which comes last."""
    population, leading = spectra[-1], c * (c - 1)
    found = {"top": np.array([w[::-1][:leading] for w in spectra])}
    for name, columns in (("few", n), ("many", n * (c - 1))):
        law = DeformedMarchenkoPastur(population, len(population) / columns)
        found[f"distance_{name}"] = [distance(w, law) for w in spectra[:-1]]
        held = heldout * columns // n
        far, ratios = simulated(population, columns, held, leading, draws, laws, rng)
        found[f"null_{name}"], logs = far, np.log(ratios)
        found[f"centre_{name}"], found[f"spread_{name}"] = (
            logs.mean(0),
            logs.std(0, ddof=1),
        )
    found["psi"], found["slope"] = predicted(population, n * (c - 1), leading)
    return found


def effective(risk):
    """Number of examples that carry G: (sum of weights)^2 / sum of their squares."""
    weights = columns(risk).square().sum((1, 2)).numpy()
    return weights.sum() ** 2 / (weights**2).sum()


def law_distance(values, population, count):
    """Distance of eigenvalues from the law of a population with that many columns."""
    return distance(values, DeformedMarchenkoPastur(population, len(values) / count))


def one_column(risk, rng):
    """One of the C - 1 columns of each example, scaled so that G keeps its mean."""
    u = columns(risk)
    n, c, _ = u.shape
    basis = np.linalg.svd(np.ones((1, c)))[2][1:]  # orthogonal to the ones, which U_n maps to 0
    chosen = torch.as_tensor(basis[rng.integers(c - 1, size=n)])
    rows = np.sqrt(c - 1) * torch.einsum("nc,ncm->nm", chosen, u).numpy()
    return np.linalg.eigvalsh(rows.T @ rows / n)


def mixture_sample(examples, seed, stream, classes=5, dimension=20, separation=4.0):
    """Examples of a Gaussian mixture; each stream of a seed is independent."""
    centres = np.random.default_rng([seed, 0]).standard_normal((classes, dimension))
    centres *= separation / np.sqrt(2 * dimension)
    rng = np.random.default_rng([seed, 1 + stream])
    y = rng.integers(classes, size=examples)
    x = centres[y] + rng.standard_normal((examples, dimension))
    return torch.as_tensor(x), torch.as_tensor(y)


def mean_first_term(risk, seed, examples, chunk=10_000):
    """Ascending eigenvalues of G over many fresh examples."""
    parts = (mixture_sample(chunk, seed, 10 + k) for k in range(examples // chunk))
    dense = [risk(part).ggn().to_dense().numpy() for part in parts]
    values = np.linalg.eigvalsh(np.mean(dense, 0))
    return np.where(values < 1e-12 * values[-1], 0, values)


def mixture(examples, seed, population=100_000, iterations=3000):
    """A mixture of five classes, start and end: the population is known."""
    classes, model = 5, fully_connected([20, 8, 5], seed=seed)
    training, fresh = (mixture_sample(examples, seed, i) for i in (0, 1))
    many = mixture_sample(examples * (classes - 1), seed, 2)
    options = {"step_size": 0.2, "iterations": iterations, "record": [0]}
    history = train(model, *training, progress=False, **options)
    moments = []
    for i, w in enumerate((history.parameters[0], history.parameters[-1])):
        risk = lambda data, w=w: EmpiricalRisk(model, *data).at(w)
        sigma = mean_first_term(risk, seed, population)
        rng = np.random.default_rng([seed, 1000 + i])
        spectra = [pairs_of(risk(data).ggn())[0] for data in (training, fresh)]
        spectra += [one_column(risk(many), rng), sigma]
        moments.append(explained(spectra, examples, classes, 0, rng))
        count = effective(risk(fresh))
        far = law_distance(spectra[1], sigma, count * (classes - 1))
        moments[-1] |= {"effective": count, "distance_effective": far}
    found = {k: np.array([m[k] for m in moments]) for k in moments[0]}
    return found | {"losses": [history.losses[0], history.losses[-1]]}
