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
# # Clusters make outliers: logistic regression
#
# > **The paper's claims.** The Hessian of logistic regression on one Gaussian blob follows the Marchenko-Pastur law. With more than one class there is one large outlier:
# > 454.4, 819.5 and 92.7 at a ratio $\alpha = M/N$ of parameters to examples of 1, 2 and 0.02 ([Sagun et al. 2017](../book/references.md), Appendix B, Examples 1 and 2,
# > Figure 10).
#
# Here the population covariance, the mean of $x x^\top$ over infinitely many examples, is known exactly. So the laws of [Chapter 7](07_random_matrix.ipynb) say where each
# outlier should be. A *blob* is a cluster of normal points around a centre.
#
# With one output $f = \langle w, x\rangle$ the second term of the Hessian is zero, and $H = G = \frac1N \sum_n c_n x_n x_n^\top$. Here $c_n = p_n(1-p_n)$ for the
# probability $p_n$ of a class; near $w = 0$ all $c_n$ are 1/4. For blobs, $x = \mu_k + \xi$ with centre $\mu_k$ and standard normal $\xi$, so that
#
# $$
# \mathbb{E}\, x x^\top = I + \sum_k \pi_k\, \mu_k \mu_k^\top
# $$
#
# with $\pi_k$ the share of blob $k$. **The centres are the spikes.** Three cases:
#
# * One blob, not centred: a spike $1 + \|\mu\|^2$. Figure 10 (left) has no outlier, so its blob must be centred.
# * Two equal blobs, not centred: two spikes, from the sum and the difference of the centres.
# * Two equal blobs, centred: **one** spike, $1 + \|\Delta\|^2/4$ with $\Delta = \mu_1 - \mu_2$. With $\bar c$ the mean of the $c_n$ the Hessian's outlier is
#
# $$
# \lambda = \bar c\; \psi\Big(1 + \frac{\|\Delta\|^2}{4}\Big) \approx \bar c\, \Big(1 + \alpha + \frac{\|\Delta\|^2}{4}\Big) .
# $$
#
# With centres uniform in $[-10, 10]^d$, scikit-learn's default, the mean of $\|\Delta\|^2$ is $\frac{200}{3} d$, so that $\lambda$ is about $\frac{25}{6}d$, with a
# relative standard deviation of $1.18/\sqrt d$ from the draw of the centres.

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
weight: float = 0.01  # every weight of the logistic model
seed: int = 0  # of the blobs on this page
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
# fmt: off
import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers, top_eigenpairs
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import integer, real, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, say, this_run, written
from hesslib.experiments.data import blobs
from hesslib.experiments.levels import passages
from hesslib.experiments.models import fully_connected
from hesslib.experiments.terms import class_means
from hesslib.theory import (
    DeformedMarchenkoPastur,
    MarchenkoPastur,
    distance,
    spike_location,
)
from scipy.special import expit
from sklearn.datasets import make_blobs

# %% tags=["hide-input"]
p = resolve(
    globals(),
    weight=real(0, 1),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)
this_run(p)


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


# %% [markdown]
# ## Figure 10 again
#
# `predicted` extends this to any number of blobs. It places an outlier at $\bar c\,\psi(1 + s/\bar c)$ for each eigenvalue $s$ of the small matrix
# $\sqrt{\pi_k c_k \pi_l c_l}\,\langle \mu_k, \mu_l\rangle$, with $c_k$ taken at the centre of blob $k$. The paper does not give the sizes behind Figure 10. We read them off its numbers, with $\lambda =
# \frac{25}{6} d$, which gives $d = 109$, 197 and 22; rounded, $d = $ 100, 200 and 20, and so $N = $ 100, 100 and 1,000.

# %%
PAPER = {1.0: (100, 100, 454.4), 2.0: (100, 200, 819.5), 0.02: (1000, 20, 92.7)}
ten = {}
for a, (n, d, _) in PAPER.items():
    for k in (1, 2):
        x, means = prepared(n, d, k, p.seed, "centred")
        c = expit(p.weight * x.sum(1)) * expit(-p.weight * x.sum(1))
        law = MarchenkoPastur(a, c.mean())
        ten[a, k] = logistic(x, p.weight), predicted(means, a, p.weight), law

# %% tags=["hide-input"]
panels = []
for k, title in ((1, "one blob"), (2, "two blobs")):
    ax = figures.panel(title, "rank from the largest", "eigenvalue")
    for color, a in zip(figures.SERIES, PAPER):
        values, outliers, law = ten[a, k]
        figures.ranked(ax, values, color=color, label=f"M/N = {a:g}")
        bulk = values[values > 0][: len(values) - (k - 1)]
        rank = np.arange(len(bulk)) + 0.5
        line = law.ppf(1 - rank / len(values))
        ax.plot(rank + 0.5 + (k - 1), line, "-", color=color, lw=0.8)
        if k == 2:
            ax.plot(1, outliers[-1], "_", color=color, ms=14)
    ax.legend()
    panels.append(ax)
figures.figure(
    "fig_ten",
    *panels,
    caption=f"Figure 10 again: the Hessian of logistic regression on centred blobs, all weights {p.weight:g}. Lines are quantiles of the Marchenko-Pastur law of variance $\\bar c$, bars the outliers "
    "predicted from the centres.",
    alt="Eigenvalues of the Hessian of logistic regression by rank on logarithmic axes for three ratios of parameters to examples, with "
    "Marchenko-Pastur quantiles as lines; left one blob, right two blobs, where bars mark the predicted outliers.",
)

# %% tags=["hide-input"]
top = [ten[a, 2][0][-1] for a in PAPER]
guess = [ten[a, 2][1][-1] for a in PAPER]
far = [distance(ten[a, 1][0], ten[a, 1][2]) for a in PAPER]
raw = prepared(100, 100, 1, p.seed, "raw")
share, saturated = 4 * min(law.variance for _, _, law in ten.values()), ""
if share < 0.5:  # the c of one of the samples are small
    saturated = f" With weights of {p.weight:g} many logits are saturated: in one of the samples the mean of $4c_n$, which is 1 at weights of zero, falls to {written(share)}. "
    saturated += "There a few points carry the Hessian, and neither the law nor the prediction applies: both need nearly constant $c_n$."
say(
    """**Reading.** With one centred blob the spectrum is {far:.3f} from its Marchenko-Pastur law at most (Kolmogorov-Smirnov distance). With two, the largest eigenvalues are {one:.0f}, {two:.0f} and
    {three:.0f} (paper: 454.4, 819.5, 92.7) for this one draw of the centres; over draws the relative standard deviation is about $1.18/\\sqrt d$ with small weights: {spread_1:.0f}, {spread_2:.0f} and {spread_3:.0f} %. The centres alone predict {guess_one:.0f}, {guess_two:.0f} and {guess_three:.0f}. A blob that is not centred has an outlier
    of its own: {raw:.3g} at $\\alpha = 1$, predicted {guess_raw:.3g}.{saturated}""",
    saturated=saturated,
    far=max(far),
    **dict(zip(["one", "two", "three"], top)),
    **dict(zip(["guess_one", "guess_two", "guess_three"], guess)),
    **{f"spread_{i}": 118 / np.sqrt(d) for i, (_, d, _) in enumerate(PAPER.values(), 1)},
    raw=logistic(raw[0], p.weight)[-1],
    guess_raw=predicted(raw[1], 1.0, p.weight)[-1],
)

# %% [markdown]
# ## How far apart must two clusters be?
#
# An outlier needs a spike beyond the threshold, $\|\Delta\|^2/4 > \sqrt\alpha$. So two centred blobs are seen in the Hessian only if their distance is above
# $2\alpha^{1/4}$ standard deviations: the more parameters for each example, the farther apart they must be. Move the sliders.


# %%
def parted(distance, alpha, seed=p.seed):
    """Two blobs of 100 examples at a distance: spectrum, law, predicted outlier."""
    x = np.random.default_rng(seed).standard_normal((200, round(200 * alpha)))
    x[:, 0] += distance / 2 * np.repeat([1, -1], 100)
    values, place = logistic(x, 0), spike_location(1 + distance**2 / 4, alpha) / 4
    ax = figures.panel("", "eigenvalue", "density", xlim=(0, 3.5), ylim=(0, 5))
    figures.density(ax, values, MarchenkoPastur(alpha, 0.25))
    ax.axvline(place, color=figures.COLORS["H"], ls=":")
    needed = 2 * alpha**0.25
    side = "above" if distance > needed else "not above"
    sentence = (
        f"Distance {distance:g}, {side} the {needed:.2f} needed "
        f"at M/N = {alpha:g}: "
    )
    return sentence + f"largest {values[-1]:.2f}, by theory {place:.2f}.", ax


# %% tags=["hide-input"]
explore(
    parted,
    {"distance": [0.0, 1.0, 2.0, 3.0, 4.0, 6.0], "alpha": [0.25, 1.0]},
    name="fig_parted",
    alt="Histogram of the eigenvalues of the logistic Hessian of two blobs, with the Marchenko-Pastur density and the predicted place of the largest.",
    caption="The Hessian of logistic regression on two centred blobs, weights zero. The dotted line is where theory expects the largest eigenvalue.",
    start={"distance": 4.0, "alpha": 0.25},
    live={"alpha": [0.1, 0.25, 0.5, 1.0, 2.0], "seed": range(p.seed, p.seed + 10)},
    labels={"alpha": "ratio α", "distance": "distance of the centres"},
)

# %% [markdown]
# ## What Figure 10 does not tell
#
# We chose three sizes to fit three numbers, and any formula with a free size for each number can do that. So we ask which other choices fit as well.
#
# * *The unit.* The caption speaks of a tanh unit. The [authors' released code](https://github.com/leventsagun/hessian-for-basicDL) (commit 7df3b66) has two units:
#   `sigmoid_exp`, the logistic function $\sigma(s)$, which its logistic regression uses, and `sigmoid_tanh`, $\frac12(1 + \tanh s) = \sigma(2s)$. The 2 becomes a factor
#   4 in the Hessian: $\bar c$ is 1 instead of 1/4, and a quarter of the size gives the same outlier.
# * *The preparation.* That code standardises its data feature by feature. Ours can be raw, centred, or standardised.


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


# %%
def seed_of(words):
    """One seed from several numbers; other numbers give independent draws."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


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


# %%
grid = [{"draws": 200, "seed": s} for s in range(min(5, p.seeds))]
units = Store().sweep("two_units", two_units, grid, run=p.scale == "paper")

# %% tags=["hide-input"]
sets = {}
if units:
    drawn = np.concatenate([r["largest"] for r in units.results], -1)
    sets["sigmoid, centred"], sets["tanh, quarter of the sizes"] = drawn
if pairs:
    drawn = np.concatenate([r["largest"] for r in pairs.results], -1)
    sets["sigmoid, raw"], sets["sigmoid, standardised"] = drawn[:, 0], drawn[:, 2]
paper = np.array([value for _, _, value in PAPER.values()])
ax = figures.panel("", "largest eigenvalue over the paper's", "", xscale="log")
for i, drawn in enumerate(sets.values()):
    low, middle, high = np.quantile(
        drawn / paper[:, None], [0.025, 0.5, 0.975], axis=1
    )
    for j, (color, a) in enumerate(zip(figures.SERIES, PAPER)):
        y, label = -i - 0.2 * j, f"M/N = {a:g}" if i == 0 else None
        ax.plot([low[j], high[j]], [y, y], "-", color=color, lw=3, alpha=0.5)
        ax.plot(middle[j], y, "o", color=color, label=label)
ax.axvline(1, color=figures.COLORS["start"], ls=":")
ax.set_yticks([-i - 0.2 for i in range(len(sets))], list(sets))
if sets:
    ax.legend()
figures.figure(
    "fig_choices",
    ax,
    caption="Stored runs: the largest eigenvalue of two blobs over the paper's number, median and central 95 % over draws of the centres.",
    alt="For each choice of unit and preparation three bars: the range of the largest eigenvalue over draws of the centres, relative to the paper's number."
    if sets
    else "An empty panel, since the stored runs are missing.",
)

# %% tags=["hide-input"]
inside = lambda name: [100 * (v < c).mean() for v, c in zip(sets[name], paper)]
shares, error = [Estimate([], units.name)] * 6, Estimate([], pairs.name)
if units:
    shares = inside("sigmoid, centred") + inside("tanh, quarter of the sizes")
if pairs:
    found, guess = pairs.values("largest"), pairs.values("predicted")
    error = 100 * np.abs(guess[:, :, :2] / found[:, :, :2] - 1).max()
out = units and not all(2.5 < v < 97.5 for v in shares)
wide = 4 * logistic(prepared(600, 600, 2, p.seed, "standardised")[0], 0.02)[-1]
say(
    """**Reading.** The stored draws {word}. With the sigmoid unit and 100, 100 and 1,000 examples, {s1:.0f}, {s2:.0f} and {s3:.0f} % of the draws of the centres lie below the paper's three numbers. With the tanh
    unit and a quarter of these sizes it is {t1:.0f}, {t2:.0f} and {t3:.0f} %. One formula explains all three numbers with either choice.

    Standardised blobs of these sizes have far smaller outliers. But six times as many dimensions make up for it with the tanh unit: {wide:.0f} for 600 examples in 600 dimensions (paper: 454.4). Centred blobs are the simplest choice that agrees with
    both panels of the figure, which show no outlier for one blob and one for two: not centred, one blob has one outlier, and two have two.

    From the centres of each draw, raw or centred, the largest eigenvalue is predicted to {error:.1f} % in the worst of all stored draws.""",
    word="rule out one of the two units" if out else "do not tell the units apart",
    wide=wide,
    error=error,
    **dict(zip(["s1", "s2", "s3", "t1", "t2", "t3"], shares)),
)

# %% [markdown]
# ## One blob, at several sizes
#
# Example 1 says that one blob gives the Marchenko-Pastur law. We compare its distance from the law with that of white data of the same size ($\Sigma = I$, normal), for which
# the law is exact but for the finite size. After centring the examples sum to zero, so only $N - 1$ are independent.


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
    for s in range(min(6, p.seeds))
]
single = Store().sweep("one_blob", one_blob, grid, run=p.scale == "paper")

# %% tags=["hide-input"]
factors = [Estimate([], single.name)] * 3
if len(single) == len(grid):
    logs = np.log(single.values("blob") / single.values("white"))
    sizes = np.array([q["examples"] for q in single.parameters])
    factors = [np.exp(logs[sizes == n].mean()) for n in (100, 200, 400)]
say(
    """**Reading.** In the stored runs, with all weights 0.01, the distance of one blob from the law is {first:.2f}, {second:.2f} and {third:.2f} times that of white data, for 100, 200 and 400 examples
    (geometric means over three ratios). So one blob is about as close to the law as white data.""",
    **dict(zip(["first", "second", "third"], factors)),
)

# %% [markdown]
# ### When the weights are not small
#
# Example 1 calls $c(w, x)$ a positive constant. It is constant only near $w = 0$. For larger weights the $c_n$ differ from example to example, and the bulk of $\frac1N
# \sum_n c_n x_n x_n^\top$ has another law. Its nonzero eigenvalues are those of the $N \times N$ matrix $\frac1N \Gamma^{1/2} X^\top X \Gamma^{1/2}$ with $\Gamma = \operatorname{diag}(c_n)$: a sample covariance again,
# with examples and parameters exchanged and the $c_n$ as population. (This is a statement on the bulk. The $c_n$ depend on $\langle w, x_n\rangle$, which can make an
# outlier along $w$.)

# %%
n, d, rows = 1000, 500, []
x = np.random.default_rng(p.seed).standard_normal((n, d))
for spread in (0.1, 2.0, 8.0):  # standard deviation of <w, x>
    w = spread / np.sqrt(d)
    c = expit(w * x.sum(1)) * expit(-w * x.sum(1))
    values = logistic(x, w)
    constant = distance(values, MarchenkoPastur(d / n, c.mean()))
    weighted = DeformedMarchenkoPastur(c * d / n, n / d)
    apart = distance(np.append(np.zeros(n - d), values), weighted) * n / d
    rows.append([f"{spread:g}", f"{constant:.3f}", f"{apart:.3f}"])
head = [
    "deviation of the logits",
    "distance from Marchenko-Pastur",
    "from the weighted law",
]
figures.table(head, rows)

# %% tags=["hide-input"]
say(
    """**Reading.** The weighted law is that of a sample covariance whose population has the eigenvalues $c_n$ ([Chapter 9](09_population.ipynb)). Where the logits have a deviation of {spread:g} the spectrum
    is {apart:.3f} from it and {constant:.2f} from the Marchenko-Pastur law.""",
    spread=spread, apart=apart, constant=constant,
)

# %% [markdown]
# ## More classes: softmax
#
# With $C$ classes and a softmax the outputs are $C$ linear functions of $x$, $M = Cd$, and $H = \frac1N \sum_n A_n \otimes x_n x_n^\top$. The Kronecker product $\otimes$
# has a copy of $x_n x_n^\top$ for each entry of $A_n$, times this entry. When all weights are equal, so are all probabilities, and $A_n = \frac1C (I - \frac1C \mathbf{1}\mathbf{1}^\top)$ for every example. The Hessian is then a Kronecker product: each eigenvalue of
# $\frac1{CN}\sum_n x_n x_n^\top$ appears $C - 1$ times, beside $d$ zeros. Centred data of $C$ blobs has $C - 1$ spikes, so there are $(C-1)^2$ outliers.


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
run = p.scale == "paper"
grid = [{"classes": c, "seed": s} for c in (2, 3, 5) for s in range(min(5, p.seeds))]
counts = Store().sweep("softmax_counts", softmax_counts, grid, run=run)
here = {c: softmax_counts(c, p.seed) for c in (2, 3, 5)}
norms = {}
for c in here:
    risk, _ = softmax(c, 300, 60, p.seed)
    terms = risk.residual(), risk.residual("probability"), risk.hessian()
    norms[c] = [float(op.to_dense().norm()) for op in terms]

# %% tags=["hide-input"]
rows = []
for c, found in here.items():
    many = [int(r["outliers"]) for r in counts.where(classes=c).results]
    over = (f"{min(many)} to {max(many)}" if min(many) < max(many) else f"{many[0]} in each") if many else "not run"
    logits, probability, whole = norms[c]
    shares = written(logits / whole, ".0e"), f"{probability / whole:.2f}"
    rows.append([c, (c - 1) ** 2, int(found["outliers"]), over, *shares])
head = ["C", "$(C-1)^2$", "outliers here", "over the stored runs"]
head += [rf"$\Vert R\Vert / \Vert H\Vert$, {f}" for f in ("logits", "probability")]
figures.table(head, rows)
say(
    """**Reading.** Outliers are the eigenvalues above twice the edge of the bulk. There is one with two classes, and on this page there are {three} with three and {five} with five.

    Example 2 takes the probability $f = p_y$ as the one output. In that reading the second term is not zero for more than two classes (last column), while with the logits as outputs it is zero.
    With two classes the Hessian's largest eigenvalue is again about $\\frac{25}{6}M$ ($M = 2d$), so the paper's numbers do not tell whether it computed logistic or softmax regression.""",
    three=int(here[3]["outliers"]),
    five=int(here[5]["outliers"]),
)

# %% [markdown]
# ## In a network: how many outliers
#
# The outputs of a network are not linear in its weights, and its probabilities differ from example to example. How many outliers then? A
# network 100-30-30-$k$ learns $k$ clusters at equal distances, measured in standard deviations of a cluster. We stop where the training loss
# has fallen to 0.3, 0.1 and 0.01 of that of a guess, $\ln k$, and count by the ratio rule ([Chapter 3](03_data.ipynb)) in $H$, in $G$ and in
# the second term $R = H - G$.
#
# The classes give a prediction. Let $J_n$ be the Jacobian of the outputs, $e_l$ the one-hot vector of label $l$, and $g_{nl} = J_n^\top (p_n - e_l)$ be the gradient that example $n$ would have if its label were $l$; then
# $G = \frac1N \sum_n \sum_l p_{nl}\, g_{nl} g_{nl}^\top$ ([Chapter 10](10_after.ipynb)). Now replace each $g_{nl}$ by its mean over the examples
# of the same class, weighted by $p_{nl}$. The result has rank at most $k^2$, and its eigenvalues are those of a Gram matrix of these $k^2$
# means. We count in them by the same rule.


# %%
LEVELS = (0.3, 0.1, 0.01)  # training losses, in units of that of a guess


def leading_of(risk):
    """The 60 largest eigenvalues of H, G and R, and of what the class means make."""
    both = {"H": risk.hessian(), "G": risk.ggn(), "R": risk.residual()}
    top = lambda op: top_eigenpairs(op, 60, progress=False).eigenvalues
    means = class_means(risk)
    values = torch.linalg.eigvalsh(means @ means.T).flip(0)[:60]
    return {k: top(op) for k, op in both.items()} | {"means": values.numpy()}


# %%
def mapped(classes, separation, seed, examples=1000, hidden=30):
    """Leading eigenvalues of a network at the three losses."""
    data = blobs(examples, classes, 100, seed=seed, separation=separation)
    model = fully_connected([100, hidden, hidden, classes], scale=0.1, seed=seed)
    options = {"step_size": 0.1, "batch_size": examples, "seed": seed}
    options |= {"levels": [share * np.log(classes) for share in LEVELS]}
    options |= {"iterations": 0, "limit": 40_000}
    stops, found = passages(model, data.inputs, data.targets, **options), []
    for stop, _, _ in stops:
        if 1 <= stop <= len(LEVELS):
            found.append(leading_of(EmpiricalRisk(model, data.inputs, data.targets)))
    names = ("H", "G", "R", "means")
    return {name: np.array([one[name] for one in found]) for name in names}


# %%
DISTANCES, CLASSES = [4.0, 8.0, 16.0, 32.0, 64.0], [2, 3, 5, 10, 20]
grid = [{"classes": k, "separation": s, "seed": i}
        for i in range(1, 6) for k in CLASSES for s in DISTANCES]
outliers = Store().sweep("outlier_map", mapped, grid, run=run, jobs=2)
small = (60, 8) if p.scale == "smoke" else (200, 20)
mine = mapped(3, 8.0, p.seed, *small)


# %%
def counted(r, level):
    """Outliers of H, G and R at a loss, and those that the class means predict."""
    tops = [r[key][level] for key in ("H", "G", "R", "means")]
    return [count_outliers(top, "ratio") for top in tops]


def counts_of(level, **where):
    """The counts of the stored runs that have reached a loss (runs, 4)."""
    found = outliers.where(**where).results
    reached = [counted(r, level) for r in found if len(r["G"]) > level]
    return np.array(reached).reshape(-1, 4)


# %% tags=["hide-input"]
drawn = []
for i, share in enumerate(LEVELS):
    axes = {"xscale": "log", "size": figures.THIRD}
    ax = figures.panel(f"at {share:g} of the loss of a guess", "distance, in deviations", "outliers of G, less k", **axes)
    for shift, (k, color) in enumerate(zip(CLASSES, [*figures.SERIES, figures.GREYS[0]])) if outliers else ():
        many = [counts_of(i, classes=k, separation=s) for s in DISTANCES]
        ours, theirs = np.transpose([np.median(m[:, (1, 3)], 0) - k if len(m) else (np.nan, np.nan) for m in many])
        ax.plot(DISTANCES, ours + 0.1 * (shift - 2), ".-", lw=1, color=color, label=f"k = {k}")
        ax.plot(DISTANCES, theirs + 0.1 * (shift - 2), "o", ms=8, mfc="none", color=color)
    ax.set_yscale("symlog", linthresh=3)
    ax.set(xticks=DISTANCES, xticklabels=[f"{s:g}" for s in DISTANCES], ylim=(-15, 30))
    ax.set(yticks=(marks := [-10, -5, -2, -1, 0, 1, 2, 5, 15]), yticklabels=[f"{v:g}".replace("-", "−") for v in marks])
    ax.minorticks_off()
    drawn.append(ax)
if outliers:
    drawn[1].legend(ncol=2, loc="lower left")
figures.figure(
    "fig_map", *drawn,
    caption="Outliers of $G$ by the ratio rule less the number of clusters, against the distance of the centres in standard deviations of a cluster, at three training losses: medians over stored "
    "runs, shifted by up to 0.2 so that equal ones can be told apart; the axis is logarithmic beyond 3. Rings: as many as the class means predict.",
    alt="Three panels, for three training losses: the number of outliers of G less k against the distance of the centres from 4 to 64, one line for each number of clusters, and rings for the prediction.",
)

# %% tags=["hide-input"]
medians = lambda m: ", ".join(f"{v:g}" for v in np.median(m, 0)) if len(m) else "not run"
rows = [[k, f"{s:g}", *(medians(counts_of(i, classes=k, separation=s)) for i in range(3))] for k in CLASSES for s in DISTANCES]
names = [f"loss {share:g} of a guess" for share in LEVELS]
figures.table(["$k$", "distance", *names], rows, fold="Table: median numbers of outliers of H, of G, of R, and as predicted by the class means")

# %% tags=["hide-input"]
every = np.concatenate([counts_of(i, classes=k) - k for i in range(3) for k in CLASSES])  # each count, less k
threes, foretold = np.concatenate([counts_of(i, classes=3)[:, [1, 3]] for i in range(3)]).T
pairs_of = np.concatenate([[(k, n) for n in counts_of(i, classes=k)[:, 1]] for i in range(3) for k in CLASSES]) if outliers else np.zeros((0, 2))
odd = [(k, n) for k, n in pairs_of if n not in (k, k - 1)]
kinds = {"other": odd, "first": [n for k, n in odd if n == 1], "early": [n for k, n in odd if 1 < n < k - 1], "late": [n for k, n in odd if n > k and (k, n) not in ((3, 6), (5, 20))]}
told = {key: len(found) if outliers else None for key, found in kinds.items()}
share_of = lambda hits: Estimate([100 * np.mean(hits)] if len(every) else [], outliers.name)
some = range(len(mine["G"]))  # the losses that this run has reached
ends, at = (" and ".join(", ".join(map(str, v)).rsplit(", ", 1)) for v in ([counted(mine, i)[1] for i in some], [LEVELS[i] for i in some]))
twenty = sum((k, n) == (5, 20) for k, n in pairs_of) if len(pairs_of) else None
say(
    """**This run** is of a smaller network ({units} units in each hidden layer, {points} examples). With three clusters at a distance of 8 the ratio rule counts {ends}.

    **Stored runs.** $G$ has $k$ outliers in {full:.0f} % and $k - 1$ in {less:.0f} % of all networks and losses. In {same:.0f} % of them the class means predict its number to within one. $H$
    has as many outliers as $G$, within one, in {both:.0f} %.

    Of the {other} other counts of $G$ many are $k(k-1)$, the number of classes times wrong labels ([Chapter 10](10_after.ipynb)): six with three clusters, in {six} of {threes} counts, all at a distance of 8 and more, and twenty
    with five clusters in {twenty}. The class means do not foretell the six: in {means_in} of these {six} their own largest gap is after rank 3. Of the rest, {first} stop after the first eigenvalue, {early} at another gap before $k - 1$,
    and {late} at a later one.""",
    **told, twenty=twenty, six=int((threes == 6).sum()) if len(threes) else None, threes=len(threes) or None,
    means_in=int((foretold[threes == 6] == 3).sum()) if len(threes) else None, points=small[0], units=small[1], ends=f"{ends} outliers of $G$, at {at} of the loss of a guess" if ends else "nothing, since this run has not reached 0.3 of the loss of a guess", full=share_of(every[:, 1] == 0), less=share_of(every[:, 1] == -1),
    same=share_of(abs(every[:, 1] - every[:, 3]) <= 1), both=share_of(abs(every[:, 0] - every[:, 1]) <= 1),
)

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output"]
apart = max(found["apart"] for found in here.values())
check("softmax Hessian is the Kronecker product, to 1e-12", apart, below=1e-12)
exact = all(found["outliers"] == (c - 1) ** 2 for c, found in here.items())
check("softmax outliers on this page are (C − 1)²", exact)
if pairs:
    check("stored: outliers predicted from the centres, to 5 %", error, below=5)

# %% [markdown]
# ## Limits
#
# * The sizes of Figure 10 were chosen from the numbers that they then explain. What is judged below is only that other choices explain them too.
# * With larger weights the softmax probabilities differ between examples, and the Hessian is no longer one Kronecker product.
# * The runs with clusters at equal distances have five seeds, one architecture and one start. $R$ has no gap of its own in many runs, and its count then means nothing.
# * A blob has independent entries around its centre. Real clusters do not ([Chapter 9](09_population.ipynb)).
#
# ## Try it
#
# **Exercise: a blob away from the origin.** `x, means = prepared(100, 100, 1, 0, "raw")` is one blob that is not centred. How large is the outlier of `logistic(x)`, and
# which two numbers make it?
#
# <details><summary>Answer</summary>
#
# `predicted(means, 1.0)[-1]` gives it to a few per cent. The spike is $1 + \|\mu\|^2$, about $1 + \frac{100}{3} d$, and the factor $c$ is taken at the centre, where it
# is less than 1/4 since $\langle w, \mu\rangle$ is not small.
#
# </details>
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("08_examples")

# %% tags=["hide-input"]
foot(p, pairs, units, single, counts, outliers)
