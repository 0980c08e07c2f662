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
# # Real Hessians and their population
#
# > **The paper's claims.** In a network the gradients are correlated, so that the population covariance $\Sigma$ is not the identity. The spectrum of $\Sigma$ can be
# > precisely mapped to the one of $G$; extensions to correlated data appear to be unavailable ([Sagun et al. 2017](../book/references.md), Appendix B).
#
# $G$, the first term of the Hessian ([Chapter 2](02_ggn.ipynb)), is an average over the $N$ examples at hand, so it is a *sample covariance*. The
# *population covariance* $\Sigma$ is the same average over infinitely many examples. Random-matrix theory says how the eigenvalues of a sample covariance differ from those
# of its population. [Chapter 7](07_random_matrix.ipynb) has the theory for $\Sigma = I$ and for spikes. Here we ask three questions about a trained network. Does the bulk
# of $G$ follow the Marchenko-Pastur law, which belongs to $\Sigma = I$? Does the law that belongs to its own $\Sigma$ explain it? When does that law apply?

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
examples: int = 0  # training digits; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
seed: int = 0  # of the digits, the network and the simulations
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import integer, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run

# %% tags=["hide-input"]
from hesslib.experiments.covariance import (
    LAWS,
    best_fit,
    columns,
    effective,
    explained,
    law_distance,
    mixture,
    moment,
    normal_sample,
    pairs_of,
    predicted,
    simulated,
)
from hesslib.experiments.critical import critical_points, index_law
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train
from hesslib.theory import (
    DeformedMarchenkoPastur,
    MarchenkoPastur,
    distance,
    spiked_wishart,
)
from scipy.linalg import eigvalsh_tridiagonal

# %% tags=["hide-input"]
p = resolve(
    globals(),
    examples=integer(20, 1500, smoke=40, quick=800, paper=800),
    iterations=integer(1, smoke=20, quick=3000, paper=3000),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)
this_run(p)

# %% [markdown]
# ## Any population covariance
#
# The theory for correlated data is older than the paper. [Silverstein 1995, Bai and Yao 2012](../book/references.md) give the bulk and the places of outliers,
# [Lee and Schnelli 2016, Knowles and Yin 2017](../book/references.md) the fluctuations. The tool is a function of a complex number $z$, the *Stieltjes transform*
# $m(z) = \frac1N \sum_i \frac{1}{\lambda_i - z}$. The $\lambda_i$ are the eigenvalues of the $N \times N$ matrix $\frac1N X^\top \Sigma X$, with independent entries of variance one in the $M \times N$ matrix $X$; it has the
# same nonzero eigenvalues as $G = \frac1N \Sigma^{1/2} X X^\top \Sigma^{1/2}$. The transform holds the whole spectrum: its imaginary part just above the real axis, divided by $\pi$, is the density of the eigenvalues. For large
# $M$ and $N$ it solves Silverstein's equation,
#
# $$
# z = -\frac1m + \alpha\, \Big\langle \frac{t}{1 + t m} \Big\rangle_t ,
# $$
#
# where the brackets are the mean over the eigenvalues $t$ of $\Sigma$, whatever these are, and $\alpha = M/N$.
#
# **The case $t = 1$ by hand.** Multiplying by $m(1+m)$ gives a quadratic,
#
# $$
# z m^2 + (z + 1 - \alpha)\, m + 1 = 0 .
# $$
#
# Its discriminant $(z + 1 - \alpha)^2 - 4z$ is $(z - \lambda_+)(z - \lambda_-)$ with $\lambda_\pm = (1 \pm \sqrt\alpha)^2$, negative between these two and nowhere else.
# There $\operatorname{Im} m = \sqrt{(\lambda_+ - z)(z - \lambda_-)}\,/\,2z$. The $M$ eigenvalues of $G$ are the $\lambda_i$ and zeros, so their density is
# $\operatorname{Im} m / (\pi\alpha)$: the Marchenko-Pastur law.
#
# In general the equation is solved numerically (`DeformedMarchenkoPastur`). Outside the bulk $m$ is real. With $\ell = -1/m$ the right-hand side becomes
# $\psi(\ell) = \ell + \alpha\, \ell\, \langle t/(\ell - t) \rangle_t$, which maps an eigenvalue of the population to one of the sample. Where $\psi' > 0$, an
# eigenvalue $\ell$ of $\Sigma$ gives an outlier of $G$ at $\psi(\ell)$. The edges of the bulk lie where $\psi' = 0$.
#
# Below, half of 100 population eigenvalues are 1, half are 6, and one more is 30.


# %%
def two_kinds(N, seed):
    """A sample of a population of ones, sixes and one 30, and its law."""
    population = np.append(np.repeat([1.0, 6.0], 50), 30.0)
    law = DeformedMarchenkoPastur([1.0, 6.0], 100 / N)
    return normal_sample(population, N, np.random.default_rng(seed)), law


# %%
def drawn(N, seed=p.seed):
    """The sample and the law for one number of examples."""
    values, law = two_kinds(N, seed)
    ax = figures.panel("", "eigenvalue", "density", xlim=(0, 45), ylim=(0, 0.75))
    figures.density(ax, values, law, 45, name="Silverstein")
    place = law.location(30.0)
    pieces = ["one piece", "two pieces"][len(law.edges) - 1]
    ax.axvline(place, color=figures.COLORS["H"], ls=":")
    sentence = f"N = {N}: the bulk has {pieces}; the largest eigenvalue is "
    return sentence + f"{values[-1]:.1f}, by theory {place:.1f}.", ax


# %% tags=["hide-input"]
explore(
    drawn,
    {"N": [50, 100, 400, 1600]},
    name="fig_two_kinds",
    alt="Histogram of the eigenvalues of a sample whose population has two kinds of directions, with the density by Silverstein's equation and the predicted place of an outlier.",
    caption="One sample of a population with two kinds of directions, and its law. The dotted line is the place of the outlier by $\\psi$. With more examples the bulk parts in two; its peak near zero is cut off at $N = 100$ and $N = 1{,}600$.",
    start={"N": 400},
    live={
        "N": [50, 75, 100, 200, 400, 800, 1600],
        "seed": range(p.seed, p.seed + 10),
    },
)

# %% [markdown]
# ## The first term of a network
#
# The network is the small one of [Chapter 2](02_ggn.ipynb): digits of $7 \times 7$ pixels, eight hidden units, $M = 490$. Write $J_n$ for the $C \times M$ Jacobian of
# its outputs at example $n$, and $A_n = \operatorname{diag}(p_n) - p_n p_n^\top$ for the Hessian of the loss in the outputs. With $U_n = J_n^\top A_n^{1/2}$ the first
# term is
#
# $$
# G = \frac1N \sum_n U_n U_n^\top .
# $$
#
# Softmax ignores a constant added to all outputs, so $U_n$ has rank $C - 1$: each example contributes $C - 1$ columns. If all these columns were independent, the theory
# would apply with $N(C-1)$ in the place of $N$. If the columns of one example were all alike, it would apply with $N$. We try both.
#
# $\Sigma$ needs infinitely many digits. We estimate it from digits that were not used for training. As many of these as there are in the training set are put aside as a
# *fresh* sample, and all others estimate $\Sigma$. At the random start the training set is a fresh sample too. At the end it is not, because the weights depend on it.


# %%
def problem(kind, examples, seed):
    """Inputs and labels, training examples first, and the network."""
    if kind == "digits":
        data = mnist(examples, seed=seed)
        images = torch.cat([data.inputs, data.test_inputs]).view(-1, 1, 28, 28)
        x = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
        model = fully_connected([49, 8, 10], seed=seed)
    else:
        data = blobs(2500, 5, seed=seed)
        x = torch.cat([data.inputs, data.test_inputs])
        model = fully_connected([100, 10, 5], scale=0.1, seed=seed)
    return x, torch.cat([data.targets, data.test_targets]), model


# %%
def network(kind, examples, iterations, seed):
    """Train; returns the history, and risks of training, fresh and other examples."""
    (x, y, model), n = problem(kind, examples, seed), examples
    options = {"step_size": 0.2, "iterations": iterations, "record": [0]}
    history = train(model, x[:n], y[:n], progress=False, **options)
    parts = slice(0, n), slice(n, 2 * n), slice(2 * n, None)
    return history, [EmpiricalRisk(model, x[i], y[i]) for i in parts]


# %%
history, risks = network("digits", p.examples, p.iterations, p.seed)
both = [moment([r.at(w) for r in risks]) for w in history.parameters]
m, n, c = both[0][1]["sizes"]
NAMES = [
    "Marchenko-Pastur, N",
    "Marchenko-Pastur, N(C − 1)",
    "nearest Marchenko-Pastur",
]
NAMES = dict(zip(LAWS, [*NAMES, "law of Σ, N", "law of Σ, N(C − 1)"]))

# %% [markdown]
# We compare the bulk, without its $C$ largest eigenvalues, by the Kolmogorov-Smirnov distance ([Chapter 7](07_random_matrix.ipynb)) with three Marchenko-Pastur laws: those for $N$ and for $N(C-1)$ columns with the variance of the bulk, and the
# nearest one of all, whose ratio and variance are fitted. The law of $\Sigma$ has no parameter to fit.

# %% tags=["hide-input"]
panels = []
for name, (spectra, _) in zip(("start", "end"), both):
    ax = figures.panel(name, "rank from the largest", "eigenvalue")
    top = spectra["g"][-1]
    figures.ranked(
        ax, spectra["g"], color=figures.COLORS["G"], label="G", floor=1e-6
    )
    lines = {"best MP": "start", "Sigma, N": "theory", "Sigma, N(C - 1)": "R"}
    for key, color in lines.items():
        dashes = "--" if key == "Sigma, N" else "-"
        style = {"color": figures.COLORS[color], "label": NAMES[key], "ls": dashes}
        above = c if key == "best MP" else 0
        figures.law_ranks(ax, spectra["laws"][key][0], m, top, above, **style)
    ax.axvline(c - 0.5, 0.45, 1, color=figures.INK, ls=":", lw=1)
    ax.legend(loc="lower left")
    panels.append(ax)
figures.figure(
    "fig_real",
    *panels,
    caption=f"$G$ of the network on {n:,} digits, the nearest Marchenko-Pastur law (for the bulk alone) and two laws of $\\Sigma$. The dotted line is after rank $C - 1$.",
    alt="Eigenvalues of the first term by rank on logarithmic axes, at the start and at the end of training, with the nearest Marchenko-Pastur law "
    "and two laws computed from the population covariance.",
)

# %%
found = both[0][1]["distance"], both[1][1]["distance"]
rows = []
for j, law in enumerate(LAWS):
    numbers = [f"{f[i][j]:.3f}" for f in found for i in (0, 1)]
    rows.append([NAMES[law], *numbers])
head = ["distance from", "start, training", "start, fresh"]
figures.table([*head, "end, training", "end, fresh"], rows)

# %% tags=["hide-input"]
loss, (start, end) = history.losses[-1], found
word = (
    "the digits are learnt"
    if learnt(loss, c)
    else "above a tenth of that of a guess: not all digits are learnt"
)
numbers = {"loss": loss, "word": word, "mp_start": start[0][2], "mp_end": end[0][2]}
numbers |= {"law_start": start[0][4], "law_end": end[0][4], "law_fresh": end[1][4]}
say(
    """**Reading.** At the start the bulk has a distance of {mp_start:.3f} from the nearest Marchenko-Pastur law, and the whole spectrum has a distance of {law_start:.3f} from the law of $\\Sigma$ with $N(C-1)$ columns. After {steps}, at a training loss of {loss:.3g}
    ({word}), these distances are {mp_end:.3f} and {law_end:.3f} for the training digits. For fresh digits the second one is {law_fresh:.3f}. With $N$ columns the distances on training digits are {n_start:.3f} and {n_end:.3f}. On the logarithmic axes of the figure a law of $\\Sigma$ and the spectrum look alike; the distance is between cumulative shares. The verdicts on the law use $N(C-1)$ columns, and a separate one compares the two choices.""",
    steps=f"{p.iterations:,} steps" if p.iterations > 1 else "one step", **numbers, n_start=start[0][3], n_end=end[0][3],
)  # fmt: skip

# %% [markdown]
# ## How large a distance is chance?
#
# No sample follows its law exactly, and our $\Sigma$ is an estimate from a few thousand digits. How large a distance do these two errors alone explain? We simulate it with
# normal columns whose covariance is exactly the estimated $\Sigma$. One set, of the size of the held-out digits, gives an estimate of $\Sigma$. Another, of the size of the
# training set, gives a sample. The distance between this sample and the law of this estimate is called the **null**: if the law is right, the distance of the digits is about
# as large. The same simulation says how far each leading eigenvalue of a sample may lie from that of its population.


# %%
def plugin(examples, iterations, seed):
    """Digits, start and end: training and fresh examples against held-out ones."""
    history, risks = network("digits", examples, iterations, seed)
    moments = []
    for i, w in enumerate((history.parameters[0], history.parameters[-1])):
        spectra = [pairs_of(r.at(w).ggn())[0] for r in risks]
        c, heldout = risks[0].num_outputs, risks[2].num_examples
        rng = np.random.default_rng([seed, i])
        moments.append(explained(spectra, examples, c, heldout, rng))
        count = effective(risks[1].at(w))
        far = law_distance(spectra[1], spectra[2], count * (c - 1))
        moments[-1] |= {"effective": count, "distance_effective": far}
    return {k: np.array([m[k] for m in moments]) for k in moments[0]}


# %%
def leading(spectra, draws, rng):
    """Leading eigenvalues of samples and of the population, last, and their null."""
    held, count = risks[2].num_examples, c * (c - 1)
    population, columns_ = spectra["population"], p.examples * (c - 1)
    top = [spectra[k][::-1][:count] for k in ("g", "fresh", "population")]
    options = population, columns_, held * (c - 1), count, draws
    logs = np.log(simulated(*options, laws=0, rng=rng)[1])
    psi, slope = predicted(population, columns_, count)
    null = {"centre_many": logs.mean(0), "spread_many": logs.std(0, ddof=1)}
    return {"top": np.array(top), "psi": psi, "slope": slope, **null}


# %%
draws, here = 5 if p.scale == "smoke" else 20, []
for i, (spectra, _) in enumerate(both):
    with np.errstate(all="ignore"):  # fewer than C (C - 1) columns leave zeros
        here.append(leading(spectra, draws, np.random.default_rng([p.seed, i])))


# %%
def deviations(found, sample):
    """Leading eigenvalues over the population's, in deviations from their null."""
    logs = np.log(found["top"][..., sample, :] / found["top"][..., -1, :])
    return (logs - found["centre_many"]) / found["spread_many"]


# %%
def draw_leading(ax, found):
    """Leading sample eigenvalues over those of the population, and their null."""
    top, centre, wide = found["top"], found["centre_many"], 2 * found["spread_many"]
    rank = np.arange(1, len(centre) + 1)
    theory = {"color": figures.COLORS["theory"]}
    ends = np.exp(centre - wide), np.exp(centre + wide)
    ax.fill_between(rank, *ends, alpha=0.25, lw=0, label="normal columns", **theory)
    place = np.where(found["slope"] > 0.3, found["psi"], np.nan) / top[-1]
    ax.plot(rank, place, "_", label="ψ", ms=9, mew=1.8, color=figures.INK, zorder=5)
    ax.plot(rank, top[1] / top[-1], "o", color=figures.COLORS["G"], label="G")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.6 * (high - low))  # room for the legend
    ax.legend(loc="upper left")


# %% tags=["hide-input"]
panels = []
for name, found in zip(("start", "end"), here):
    panels.append(
        figures.panel(name, "rank from the largest", "eigenvalue, G over Σ")
    )
    panels[-1].set(xscale="log")
    draw_leading(panels[-1], found)
figures.figure(
    "fig_leading",
    *panels,
    caption="The $C(C-1)$ leading eigenvalues of $G$ over those of the estimated $\\Sigma$, one by one, for fresh digits. Bands: normal columns of that $\\Sigma$, two standard deviations. Bars: $\\psi$ with all other population eigenvalues, where an eigenvalue is well separated ($\\psi' > 0.3$).",
    alt="Ratios of leading sample eigenvalues to population eigenvalues against rank, at the start and at the end of training, with a band of what normal columns would give.",
)

# %%
grid = [
    {"examples": 800, "iterations": 3000, "seed": s} for s in range(min(5, p.seeds))
]
plugged = Store().sweep("plugin", plugin, grid, run=p.scale == "paper")


# %%
def over_null(runs, i, sample, count="many"):
    """Distance from the law over its null, one for each run."""
    far = lambda r: r[f"distance_{count}"][i, sample] / r[f"null_{count}"][i].mean()
    return Estimate(map(far, runs.results), runs.name)


def nearer(runs, i, sample):
    """Distance from the law with N (C - 1) columns over that with N."""
    far = lambda r: r["distance_many"][i, sample] / r["distance_few"][i, sample]
    return Estimate(map(far, runs.results), runs.name)


# %%
def rms(runs, i, sample):
    """Root mean square deviation of the leading eigenvalues, one for each run."""
    keys = ("top", "centre_many", "spread_many")
    found = ({k: r[k][i] for k in keys} for r in runs.results)
    far = [np.sqrt((deviations(f, sample) ** 2).mean()) for f in found]
    return Estimate(far, runs.name)


# %% tags=["hide-input"]
off = [np.sqrt((deviations(f, 1) ** 2).mean()) for f in here]
tails = [(f["top"][1] / f["top"][-1])[-10:].mean() for f in here]
numbers = {"off_start": off[0], "off_end": off[1], "tail_start": tails[0], "tail_end": tails[1]}  # fmt: skip
numbers |= {"start": over_null(plugged, 0, 0), "end": over_null(plugged, 1, 1)}
numbers |= {"start_few": over_null(plugged, 0, 0, "few"), "end_few": over_null(plugged, 1, 1, "few")}  # fmt: skip
numbers |= {"z_start": rms(plugged, 0, 0)}
say(
    """**Reading.** On this page the $C(C-1)$ leading eigenvalues of fresh digits deviate from those of the null by {off_start:.1f} standard deviations at the start and by {off_end:.1f} at the end (root mean square), where normal columns would give about 1. The last ten of them are {tail_start:.2f} and {tail_end:.2f} times those of $\\Sigma$ (means).

    In the stored runs ({n} digits) the distance from the law of $\\Sigma$ with $N(C-1)$ columns is {start:.1f} times its null at the start, and {end:.1f} times at the end for fresh digits. With $N$ columns it is {start_few:.1f} and {end_few:.1f} times its own null, which is larger. The distance from the law with $N(C-1)$ columns over that from the law with $N$ is {nearer_start:.2f} at the start and {nearer_end:.2f} at the end. The leading eigenvalues deviate by {z_start:.1f} and
    {z_end:.1f} standard deviations.""",
    n=800, z_end=rms(plugged, 1, 1), nearer_start=nearer(plugged, 0, 0), nearer_end=nearer(plugged, 1, 1), **numbers,
)  # fmt: skip

# %% [markdown]
# ## When does the theory apply?
#
# Fresh digits are scarce, so their $\Sigma$ stays uncertain. From a Gaussian mixture we can draw as many examples as we like, and compute $\Sigma$ from 100,000 of them.
# The network is 20-8-5 ($M = 213$), the mixture has five classes whose centres are four standard deviations apart, and $N$ is 100, 400 or 1,600. Three things can break the
# theory: the columns are not normal; the $C - 1$ columns of one example depend on each other; some examples weigh much more than others. To separate the second from the
# rest we also take **one column from each example**, of $N(C-1)$ examples. These columns are independent and keep their lengths.


# %%
SIZES = (100, 400, 1600)
grid = [{"examples": k, "seed": s} for k in SIZES for s in range(min(5, p.seeds))]
mixed = Store().sweep("mixture", mixture, grid, run=p.scale == "paper")

# %%
kinds = {"start": (0, 1), "end": (1, 1), "end, one column of each example": (1, 2)}
by_size = [mixed.where(examples=k) for k in SIZES]
few = min(map(len, by_size))
far = {
    k: [over_null(r, *at).values[:few] for r in by_size] for k, at in kinds.items()
}
share = {
    name: [r.values("effective")[:few, i] / k for k, r in zip(SIZES, by_size)]
    for i, name in enumerate(("start", "end") if few else ())
}

# %% tags=["hide-input"]
ALT = """Left, the distance from the law of the population over its null against N, at the start,
at the end, and for one column of each example; right, the share of examples that carry G."""
both_axes = {"xscale": "log", "yscale": "log"}
law = figures.panel(
    "distance from the law of Σ", "N", "distance / null", **both_axes
)
weight = figures.panel(
    "weight of the examples", "N", "effective number over N", **both_axes
)
for ax, curves in ((law, far), (weight, share)) if few else ():
    for color, (name, runs) in zip(figures.SERIES, curves.items()):
        figures.band(ax, SIZES, np.array(runs).T, color, name, marker="o")
    low, high = ax.get_ylim()
    ax.set_ylim(low * (low / high) ** 0.5, high)  # room for the legend
    ax.legend(loc="lower left")
figures.figure(
    "fig_when",
    law,
    weight,
    caption="Stored runs of the mixture, fresh examples, median and range over seeds. First, 1 is what normal columns of the same $\\Sigma$ give. Second, the number of examples that carry $G$, over $N$: the squared sum of their weights $\\|U_n\\|^2$ over the sum of squares.",
    alt=ALT if few else "Two empty panels, since the stored runs are missing.",
)

# %% tags=["hide-input"]
large = mixed.where(examples=1600)
each = lambda measure: Estimate(map(measure, large.results), mixed.name)
numbers = {"many": each(lambda r: r["effective"][0])}
numbers |= {"few": each(lambda r: r["effective"][1])}
numbers |= {"losses": each(lambda r: r["losses"][1])}
numbers |= {"start": over_null(large, 0, 1)}
numbers |= {"nearer_start": nearer(large, 0, 1), "nearer_end": nearer(large, 1, 1)}
numbers |= {"end": over_null(large, 1, 1), "one": over_null(large, 1, 2)}
numbers |= {
    "adapted": each(lambda r: r["distance_effective"][1] / r["null_many"][1].mean())
}
say(
    """**Reading.** In the stored runs with $N = 1{,}600$ the distance from the law of $\\Sigma$ is {start:.2f} times its null at the random start, and {end:.0f} times after 3,000 steps (loss {losses:.2f}). The law with $N$ columns is the farther one at the start (the distance with $N(C-1)$ is {nearer_start:.2f} times that with $N$), and the nearer one at the end ({nearer_end:.2f}).

    Two reasons were tried. With one column from each example, which takes away the dependence within it, the distance is {one:.0f} times the null at the end. The other is the weight of the examples. $A_n$ vanishes for an example that is fitted with confidence. In effect {many:,.0f} of 1,600 fresh examples contribute to $G$ at the start, and {few:.0f} at the end: those that are fitted badly. With this number in the place of $N$ the distance is {adapted:.0f} times the null. Each leaves most of the distance, so neither is the main reason by itself. The law is off at the start already.""",
    **numbers,
)

# %% [markdown]
# ## Outliers and classes
#
# Are the outliers due to the classes? We compute the mean of $U_n$ over the examples of each class, subtract it, and look at what remains of the outliers. The stored runs also
# hold a second network, on five Gaussian clusters in 100 dimensions with one hidden layer of ten units ($M = 1{,}065$, $N = 500$).


# %%
def networks(kind, examples, iterations, seed):
    """The measures of one network, start and end."""
    history, risks = network(kind, examples, iterations, seed)
    moments = [
        moment([r.at(w) for r in risks])[1]
        for w in (history.parameters[0], history.parameters[-1])
    ]
    m, n, c = moments[0]["sizes"]
    null = eigvalsh_tridiagonal(*spiked_wishart(1.0, m, n, seed))[-m:]
    null = np.append(np.zeros(m - len(null)), null)
    null = np.where(null < 1e-12 * null[-1], 0, null)[:-c]
    return {k: np.array([d[k] for d in moments]) for k in moments[0]} | {
        "null": distance(null, best_fit(null)),
        "losses": [history.losses[0], history.losses[-1]],
    }


# %%
grid = [
    {"kind": kind, "examples": n_, "iterations": 3000, "seed": s}
    for kind, n_ in (("digits", 800), ("blobs", 500))
    for s in range((p.seeds + 1) // 2)
]
nets = Store().sweep("population", networks, grid, run=p.scale == "paper")


# %%
def class_structure(runs, i):
    """What the outliers of stored networks are, at the start (0) or the end (1)."""
    top, k = runs.values("top")[:, i], int(runs.values("sizes")[0, 0, 2])
    rule = Estimate(runs.values("ratio_rule")[:, i])
    gap = Estimate(top[:, 0, k - 2] / top[:, 0, k - 1])
    left = Estimate(top[:, 4, : k - 1].sum(1) / top[:, 0, : k - 1].sum(1))
    kept = Estimate(runs.values("eigenvectors")[:, i])
    counts = [f"{v:.0f}" for v in sorted({rule.low, rule.high})]
    return [k - 1, " to ".join(counts), f"{gap:.2f}", f"{left:.2f}", f"{kept:.2f}"]


rows = []
for kind in ("digits", "blobs"):
    for i, name in enumerate(("start", "end") if nets.where(kind=kind) else ()):
        rows.append([f"{kind}, {name}", *class_structure(nets.where(kind=kind), i)])

# %% tags=["hide-input"]
head = ["stored networks", "$C - 1$", "outliers of G (least to most)"]
head += [r"$\lambda_{C-1} / \lambda_C$", "share left without class means"]
if rows:
    figures.table([*head, "overlap of eigenvectors with Σ's"], rows)


# %%
digits = nets.where(kind="digits")


def of_digits(measure):
    """A measure (run, moment) of the stored networks on digits, at start and end."""
    return [
        Estimate([measure(r, i) for r in digits.results], nets.name) for i in (0, 1)
    ]


share = of_digits(lambda r, i: 100.0 * (r["ratio_rule"][i] == 9))
left = of_digits(lambda r, i: r["top"][i, 4, :9].sum() / r["top"][i, 0, :9].sum())
law = of_digits(lambda r, i: r["distance"][i, 0, 2] / r["null"])
ranks = np.array([r["ratio_rule"][1] for r in nets.where(kind="blobs").results])

# %% tags=["hide-input"]
say(
    """**Reading.** On the digits the largest ratio between successive eigenvalues of $G$ is after rank $C - 1$ in {share_start:.0f} % of the stored runs at the start and in {share_end:.0f} % at the end. Without the class means, a share of {left_start:.2f} of the sum of the $C - 1$
    largest eigenvalues is left at the start, so the means account for most of the outliers. At the end it is {left_end:.2f}: the variation *within* classes then has large eigenvalues too. On the blobs, with $C = 5$, at the end the largest ratio follows rank 5 in {five} of {blobs} runs and a rank from 17 to 23 in {twenty}: $C$, or a rank near $C(C-1)$ ([Chapter 10](10_after.ipynb) says why).

    The distance of the bulk from the nearest Marchenko-Pastur law is {mp_start:.0f} times that of white data ($\\Sigma = I$) at the start, and {mp_end:.0f} times at the end. $\\Sigma$ is not the identity with a few spikes: its eigenvalues fall over many decades.""",
    share_start=share[0].mean,
    share_end=share[1].mean,
    **{"five": int((ranks == 5).sum()), "blobs": len(ranks) or None},
    twenty=int((abs(ranks - 20) <= 3).sum()),
    **dict(zip(["left_start", "left_end", "mp_start", "mp_end"], left + law)),
)

# %% [markdown]
# ## Index against energy
#
# [Pennington and Bahri (2017)](../book/references.md) model the first term of the Hessian as a Wishart matrix (a sample covariance of independent normal entries) and the second as a Wigner matrix (symmetric, independent entries) whose size grows with the
# *energy* $\varepsilon$, half the mean squared error. At critical points the model predicts the *index*, the share of negative eigenvalues: where it is small it grows
# as $(\varepsilon - \varepsilon_c)^{3/2}$. They also report that minima lie at about $\frac12(1 - \varphi)^2$, with $\varphi$ the number of parameters over that of targets.
# Their network is used here: tanh, no biases, 16 inputs, 16 hidden units and 16 outputs, so that $M = 512$, with normal inputs and targets.
#
# To find critical points we stop gradient descent at some step, then lower the norm of the gradient by Levenberg-Marquardt steps (damped Gauss-Newton steps). Such searches often end where only
# the *norm* is stationary ([Frye et al. 2021](../book/references.md)), so the size of the gradient is kept. This run has 8 units in place of 16.

# %%
counts = {"smoke": (5, 10), "quick": (12, 40), "paper": (12, 40)}[p.scale]
found = critical_points(0.25, 8, *counts, p.seed)
grid = [
    {"ratio": r, "width": 16, "starts": 24, "iterations": 80, "seed": s}
    for r in (0.25, 0.5)
    for s in range(1, 1 + (p.seeds + 3) // 4)
]
kept = Store().sweep("critical", critical_points, grid, run=p.scale == "paper")


# %%
def draw_index(ax, sets):
    """Index against energy for each ratio, and the law with a free exponent."""
    for color, (ratio, runs) in zip(figures.SERIES[1:], sets.items()):
        both = [(r["energy"], r["index"]) for r in runs]
        energy, index = np.concatenate(both, 1)
        ax.plot(energy, index, ".", color=color, label=f"φ = {ratio}")
        ax.axvline((1 - ratio) ** 2 / 2, color=color, ls=":", lw=1)
        factor, edge, exponent = index_law(energy, index)
        e = np.linspace(energy.min(), energy.max(), 100)
        ax.plot(e, factor * np.maximum(e - edge, 0) ** exponent, color=color, lw=1)
    ax.legend()


of_ratio = {r: kept.where(ratio=r).results for r in (0.25, 0.5)}
stored_sets = of_ratio if all(of_ratio.values()) else None

# %% tags=["hide-input"]
figures.figure(
    "fig_index", *figures.here_and_stored(draw_index, {0.25: [found]}, stored_sets, "this run, 8 units", "stored runs, 16 units", xlabel="energy", ylabel="share of negative eigenvalues"),
    caption="Share of negative eigenvalues against energy where a search for critical points ended. Lines: fits with a free exponent. Dotted: $\\frac12(1 - \\varphi)^2$.",
    alt="Two panels, this run and the stored runs: dots of the share of negative eigenvalues against energy, rising from near zero, with a fitted curve through them and a dotted vertical line at the reported energy of minima.",
)  # fmt: skip
law = lambda i, r: Estimate((x["laws"][i, 2] for x in of_ratio[r]), kept.name)
low = lambda r: Estimate((x["energy"].min() for x in of_ratio[r]), kept.name)
steep = lambda r: Estimate(
    (np.median(x["gradient"]) for x in of_ratio[r]), kept.name
)
ends = np.concatenate([r["gradient"] for r in kept.results]) if kept.results else []
say(
    """**Reading.** Fitted to all points of a stored run, the exponent is {all_25:.2f} for $\\varphi = 1/4$ and {all_50:.2f} for $1/2$; the prediction is 1.5. Fitted to the points whose index is at most a tenth, for
    which the prediction is made, it is {few_25:.2f} and {few_50:.2f}. The lowest energies are {low_25:.3f} and {low_50:.3f}, where $\\frac12(1 - \\varphi)^2$ is 0.281 and 0.125.

    The lowest energies {lie} the reported value. The prediction is for critical points, and few searches reach one: {true} of the {ends} have brought the norm of the gradient below $10^{-10}$. The median norm where they end is {g_25:.1e} and {g_50:.1e}.""",
    all_25=law(0, 0.25), all_50=law(0, 0.5), few_25=law(1, 0.25), few_50=law(1, 0.5), low_25=low(0.25), low_50=low(0.5), lie="lie below" if all(low(r).high < (1 - r) ** 2 / 2 for r in of_ratio) else "do not all lie below",
    true=int(np.sum(np.asarray(ends) < 1e-10)), ends=len(ends) or None, g_25=steep(0.25), g_50=steep(0.5),
)  # fmt: skip

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output"]
x = np.linspace(0.01, 4, 300)
by_hand = DeformedMarchenkoPastur([1.0], 0.5).pdf(x) - MarchenkoPastur(0.5).pdf(x)
error = abs(by_hand).max()
check("Silverstein's law at t = 1 is Marchenko-Pastur, to 1e-8", error, below=1e-8)
training = risks[0].at(history.parameters[-1])
rows = columns(training).flatten(0, 1)
error = abs(rows.T @ rows / n - training.ggn().to_dense()).max()
check(
    "G from its columns, to 1e-12", float(error / both[1][0]["g"][-1]), below=1e-12
)

# %% tags=["nbval-check-output"]
white, mixture_of_two = np.ones(200), np.repeat([1.0, 6.0], 100)
sample = lambda t: normal_sample(t, 400, np.random.default_rng(0))
near = distance(sample(white), MarchenkoPastur(0.5))
far = distance(sample(mixture_of_two), MarchenkoPastur(0.5, 3.5))
check("normal columns of a white population pass the test", near, below=0.03)
check("those of a population of two kinds fail it", far, above=0.03)

# %% [markdown]
# ## Limits
#
# * $\Sigma$ of the digits is estimated from a few thousand held-out ones. The null includes this error, computed for normal columns.
# * Sample covariances whose columns differ in weight follow other laws (separable covariances), which need the weights as a second population. We show the effect of the
#   weights and do not solve that equation.
# * 'The end' of stored runs is after 3,000 steps. At that point none of the stored networks on digits has a loss below a tenth of that of a guess (0.23).
# * Distances are taken over eigenvalues above $10^{-6}$ of the largest.
# * At the end training examples are fitted better than fresh ones, and so their $G$ is smaller. A theory of independent data does not cover this.
#
# ## Try it
#
# **Exercise: theory on fewer steps.** Run the chapter with `iterations` of 30. Is the law of $\Sigma$ nearer to $G$ at the end than with 3,000 steps? Why?
#
# <details><summary>Answer</summary>
#
# It is. After 30 steps hardly any digit is fitted, so all examples still contribute to $G$: `effective(risks[1].at(history.parameters[-1]))` is above nine tenths of the
# number of examples, where after 3,000 steps it is below a half.
#
# </details>
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("09_population")

# %% tags=["hide-input"]
foot(p, plugged, mixed, nets, kept)
