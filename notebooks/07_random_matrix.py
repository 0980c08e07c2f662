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
# (random-matrix)=
# # Random-matrix theory of the first term
#
# :::{admonition} The paper's claims
# :class: important
# Where the gradients of the examples are $g = Tx$, a fixed matrix times independent entries, the spectrum of the first term $G$ is that of
# a sample covariance matrix: zeros, a bulk with the shape of the Marchenko-Pastur law, and an outlier for each eigenvalue of the population
# covariance that is large enough to leave the bulk (Theorems 1 and 2). Logistic regression on one blob has no outlier, on two blobs it has a
# large one: 454.4, 819.5 and 92.7 at a ratio $\alpha = M/N$ of parameters to examples of 1, 2 and 0.02 (Examples 1 and 2, Figure 10) {cite:p}`sagun2017` (Appendix B).
# :::
#
# ```{margin} Notation
# $\alpha = M/N$; $g_n$ the gradient of example $n$; $\Sigma$ the population covariance, $T = \Sigma^{1/2}$; $\ell$ a spike (not the loss);
# $\psi(\ell)$ its place in the sample; $c = 1 + \sqrt\alpha$ the threshold. {doc}`All symbols <../book/notation>`.
# ```
#
# The first term of the Hessian, $G = \frac1N \sum_n g_n g_n^\top$ (in {ref}`ggn` the probability reading; the Gauss-Newton matrix has the same form), is an average over a *sample* of $N$ examples. Its expectation $\Sigma$, the
# **population covariance**, is what infinitely many examples would give. With $M$ parameters and $N$ examples of the same
# order the two are far apart however large both are: eigenvalues spread, and their spread is a law. This chapter states the laws,
# simulates every statement of the paper's two theorems, derives the three numbers of Figure 10, and then asks how much of
# the spectrum of a trained network the theory explains.
#
# Throughout, $\alpha = M/N$, and $X$ is an $M \times N$ matrix of independent entries of mean zero and variance one, so that
# $G = \frac1N \Sigma^{1/2} X X^\top \Sigma^{1/2}$.
#
# ## Parameters
#
# ```bash
# papermill notebooks/07_random_matrix.ipynb out.ipynb -p ratio 2.0 -p ell 6.0 -p seed 1
# ```

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
ratio: float = 0.5  # M / N of the samples drawn on this page
ell: float = 3.0  # population eigenvalue of the spike that is shown
examples: int = 0  # N of the samples drawn on this page; 0: by scale
draws: int = 0  # samples for each spike of the transition; 0: by scale
digits: int = 0  # training digits of the network; 0: by scale
iterations: int = 0  # steps of gradient descent of the network; 0: by scale
seed: int = 0  # of every draw and of the network
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.book.parameters import integer, real, resolve

p = resolve(
    globals(),
    ratio=real(0.01, 20),
    ell=real(1e-3, 1e3),
    examples=integer(20, 4000, smoke=60, quick=400, paper=400),
    draws=integer(2, 1000, smoke=4, quick=50, paper=50),
    digits=integer(20, 1500, smoke=40, quick=800, paper=800),
    iterations=integer(1, smoke=20, quick=3000, paper=3000),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
from hesslib.book.store import Store
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train
from hesslib.theory import (
    DeformedMarchenkoPastur,
    MarchenkoPastur,
    TracyWidom,
    edge_scale,
    spike_deviation,
    spike_location,
    spike_overlap,
    spiked_wishart,
)
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import kstest, norm
from sklearn.datasets import make_blobs

# %% [markdown]
# ## The bulk: Marchenko and Pastur
#
# Let $\Sigma = I$: all population eigenvalues are one. Those of $G$ fill the interval from $(1-\sqrt\alpha)^2$ to
# $(1+\sqrt\alpha)^2$ with the density
#
# $$
# \rho(\lambda) = \frac{\sqrt{(\lambda_+ - \lambda)(\lambda - \lambda_-)}}{2\pi\alpha\lambda}, \qquad
# \lambda_\pm = (1 \pm \sqrt\alpha)^2 ,
# $$
#
# and if $M > N$ a share $1 - 1/\alpha$ of them is zero {cite:p}`marchenko1967`. So the ratio alone decides how far a sample eigenvalue
# is from the truth. The measure of agreement throughout this chapter is the Kolmogorov-Smirnov distance: the largest difference
# between the share of eigenvalues below $x$ that is found and the one that is predicted, over all $x$
# above $10^{-6}$ of the largest eigenvalue.


# %%
def sample_spectrum(population, examples, seed):
    """Ascending eigenvalues of G for normal data and a diagonal Sigma."""
    x = np.random.default_rng(seed).standard_normal((len(population), examples))
    x *= np.sqrt(population)[:, None]
    values = np.linalg.eigvalsh(x @ x.T / examples)
    return np.where(values < 1e-12 * values[-1], 0, values)


def distance(values, law):
    """Kolmogorov-Smirnov distance of ascending eigenvalues from a law."""
    share = (np.arange(len(values)) + 0.5) / len(values)
    return np.abs(law.cdf(values) - share)[values > 1e-6 * values[-1]].max()


# %%
bulks = {}
for a in (0.5, 2.0):
    law = MarchenkoPastur(a)
    values = sample_spectrum(np.ones(round(a * p.examples)), p.examples, p.seed)
    bulks[a] = values, law
    print(f"alpha = {a}: distance {distance(values, law):.4f}", end="; zeros ")
    print(f"{(values == 0).mean():.3f} (law {law.atom:.3f})", end="; ends ")
    print(f"{values[values > 0][0]:.3f}, {values[-1]:.3f}", end=" (law ")
    print("{:.3f}, {:.3f})".format(*law.edges))


# %% tags=["remove-output", "hide-input"]
def draw_bulk(ax, values, law, bins=30):
    """Histogram of the eigenvalues that are not zero, as a density over all of them, and the law's density."""
    kept = values[values > 0]
    ends = [min(kept[0], law.edges[0]), max(kept[-1], law.edges[1])]
    ax.hist(
        kept,
        bins,
        ends,
        weights=np.full(len(kept), bins / (ends[1] - ends[0]) / len(values)),
        color=figures.COLORS["G"],
        alpha=0.5,
        label="sample",
    )
    x = np.linspace(*law.edges, 100)
    ax.plot(x, law.pdf(x), color=figures.COLORS["theory"], label="Marchenko-Pastur")


panels = []
for a, (values, law) in bulks.items():
    ax = figures.panel(
        f"M/N = {a}, {(values == 0).mean():.0%} zeros", "eigenvalue", "density"
    )
    draw_bulk(ax, values, law)
    ax.legend()
    panels.append(ax)
figures.show(
    "fig_bulk",
    "Histograms of the eigenvalues of sample covariance matrices of normal data, left with half as many parameters "
    "as examples, right with twice as many, where half of the eigenvalues are zero. The Marchenko-Pastur "
    "densities follow them from edge to edge.",
    *panels,
)

# %% [markdown]
# ```{glue:figure} fig_bulk
# :name: fig-bulk
# Eigenvalues of $\frac1N XX^\top$ for $N = $ {glue:text}`N:,` and the Marchenko-Pastur density. All population eigenvalues are one.
# ```
#
# **Reading.** The distances are {glue:text}`ks_half:.4f` and {glue:text}`ks_two:.4f`. For independent numbers one would expect about
# $0.87/\sqrt M$ ({glue:text}`independent:.3f` at $\alpha = 1/2$): eigenvalues repel each other and keep much closer to their law. So a
# fit of this law to an actual spectrum can be tested sharply.

# %% tags=["remove-cell"]
figures.number(
    N=p.examples,
    ks_half=distance(*bulks[0.5]),
    ks_two=distance(*bulks[2.0]),
    independent=0.87 / np.sqrt(0.5 * p.examples),
)

# %% [markdown]
# ## Theorem 1: one spike
#
# Now let one population eigenvalue, the spike, be $\ell > 1$ and the others one. Baik, Ben Arous and Péché found a transition at
# $c = 1 + \sqrt\alpha$ {cite:p}`baik2005`:
#
# * $\ell < c$: the largest sample eigenvalue stays at the edge $(1+\sqrt\alpha)^2$ and fluctuates on the scale $N^{-2/3}$ by the
#   Tracy-Widom law {cite:p}`tracy1996`, whatever $\ell$ is. Nothing of the spike is seen.
# * $\ell > c$: it leaves the bulk for $\psi(\ell) = \ell\left(1 + \frac{\alpha}{\ell - 1}\right)$ and fluctuates on the scale $N^{-1/2}$ by a normal law of
#   variance $2\ell^2 \psi'(\ell)/N$, where $\psi'(\ell) = 1 - \alpha/(\ell-1)^2$ {cite:p}`paul2007,bai2008`. Its eigenvector
#   has squared cosine $\ell\psi'(\ell)/\psi(\ell)$ with that of the population, in the tables called their overlap: not one, even for infinite $M$ and $N$.
#
# The paper states the theorem for $\alpha \ge 1$ and for the location only. It holds for every $\alpha$, so we try 0.5, 1 and 2.
#
# A normal $X$ can be rotated into a matrix of two diagonals of independent chi variables (lengths of normal vectors) that leaves the spike's direction alone
# {cite:p}`bloemendal2013`. So `spiked_wishart` draws from exactly the same distribution in time $N$ instead of
# $N^3$, and thousands of samples with $N = $ 6,400 are cheap.


# %%
def top_pair(ell, ratio, examples, seed):
    """Largest eigenvalue of a sample with one spike, and its overlap with it."""
    matrix = spiked_wishart(ell, round(ratio * examples), examples, seed)
    last = len(matrix[0]) - 1
    chosen = {"select": "i", "select_range": (last, last)}
    value, vector = eigh_tridiagonal(*matrix, **chosen)
    return value[0], vector[0, 0] ** 2


def sampled(ells, ratio, sizes, draws, seed):
    """Largest eigenvalues and overlaps (sizes, spikes, draws)."""
    numbers = range(seed * draws, (seed + 1) * draws)
    of = lambda n, l: [top_pair(l, ratio, n, k) for k in numbers]
    found = np.array([[of(n, l) for l in ells] for n in sizes])
    return found[..., 0], found[..., 1]


# %%
def expected(ells, ratio, sizes):
    """What theory says: limits, deviations of outliers (0: none), edge by size."""
    edge = np.array([edge_scale(round(ratio * n), n) for n in sizes])
    spread = [np.nan_to_num(spike_deviation(ells, ratio, n)) for n in sizes]
    return {
        "ells": ells,
        "location": spike_location(ells, ratio),
        "overlap_limit": spike_overlap(ells, ratio),
        "deviation": spread,
        "edge_centre": edge[:, 0],
        "edge_width": edge[:, 1],
    }


# %%
def theorem1(ratio, sizes, distances, draws, seed):
    """Samples with spikes 1 + distance * sqrt(ratio), and what theory says."""
    ells = 1 + np.array(distances) * np.sqrt(ratio)
    largest, overlap = sampled(ells, ratio, sizes, draws, seed)
    theory = expected(ells, ratio, sizes)
    return {"largest": largest, "overlap": overlap, **theory}


# %%
near = [0.0, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0]  # in units of sqrt(alpha)
here = theorem1(p.ratio, [p.examples], near, p.draws, p.seed)
print("    ell  largest, mean and error     theory    overlap     theory")
for j, l in enumerate(here["ells"]):
    top, shared = here["largest"][0, j], here["overlap"][0, j]
    print(f"{l:>7.3f}{top.mean():>10.4f} ± {top.std() / p.draws**0.5:.4f}", end="")
    print(f"{here['location'][j]:>18.4f}{shared.mean():>11.4f}", end="")
    print(f"{here['overlap_limit'][j]:>11.4f}")

# %% [markdown]
# The next function draws one sample for any $\alpha$, $\ell$ and $N$: its spectrum beside the law, and how its largest eigenvalue
# moves while $\ell$ passes through the transition with everything else held fixed.


# %% tags=["hide-input"]
def transition(alpha, ell, N, seed):
    """One sample beside theory, as two panels: its spectrum, and its path over ell."""
    law, size = MarchenkoPastur(alpha), max(2, round(alpha * N))
    values = eigvalsh_tridiagonal(*spiked_wishart(ell, size, N, seed))[-size:]
    values = np.where(values > 1e-12 * values[-1], values, 0)
    values = np.append(np.zeros(size - len(values)), values)  # M - N of them
    spectrum = figures.panel(f"one sample, N = {N}", "eigenvalue", "density")
    draw_bulk(spectrum, values, law, bins=min(30, 5 + min(size, N) // 10))
    spectrum.plot(values[-1:], [0], "o", color=figures.COLORS["H"], clip_on=False)
    spectrum.axvline(spike_location(ell, alpha), color=figures.COLORS["H"], ls=":")
    ells = np.linspace(1, max(1.2 * ell, 1 + 3 * alpha**0.5), 15)
    top = [top_pair(l, alpha, N, seed) for l in ells]
    path = figures.panel(
        f"alpha = {alpha:g}, ell = {ell:g}", "ell", "largest eigenvalue"
    )
    theory = {"color": figures.COLORS["theory"], "label": "theory"}
    path.plot(ells, [t for t, _ in top], "o", label="sample")
    path.plot(ells, spike_location(ells, alpha), **theory)
    path.axvline(ell, color=figures.COLORS["H"], ls=":")
    path.legend()
    return [spectrum, path]


# %% tags=["remove-output", "hide-input"]
def with_error(ax, x, draws, **style):
    """Means with two standard errors."""
    ax.errorbar(
        x,
        draws.mean(-1),
        2 * draws.std(-1) / np.sqrt(draws.shape[-1]),
        fmt="o",
        **style,
    )


fine = np.linspace(1, here["ells"][-1], 300)
overlaps = figures.panel("overlap of eigenvectors", "ell", "squared cosine")
with_error(
    overlaps,
    here["ells"],
    here["overlap"][0],
    color=figures.COLORS["G"],
    label=f"{p.draws} samples",
)
overlaps.plot(
    fine,
    spike_overlap(fine, p.ratio),
    color=figures.COLORS["theory"],
    label="theory",
)
overlaps.legend()
figures.show(
    "fig_transition",
    "First panel, the eigenvalues of one sample with one spike, with the Marchenko-Pastur density and the predicted place "
    "of the outlier. Second, the largest eigenvalue of that sample against the spike: flat up to the threshold, "
    "then rising along the theory. Third, the overlap of eigenvectors, near zero below the threshold.",
    *transition(p.ratio, p.ell, p.examples, p.seed),
    overlaps,
)

# %% [markdown]
# ```{glue:figure} fig_transition
# :name: fig-transition
# The transition at $c = $ {glue:text}`threshold:.3f`. First two panels: one sample; the dot on the axis is its largest eigenvalue, the dotted line marks
# the chosen $\ell$ and its place by theory. Third panel: means and two standard errors over {glue:text}`draws` samples.
# ```
#
# **Reading.** Up to the threshold the largest eigenvalue does not know of the spike; beyond it both eigenvalue and eigenvector
# follow the formulas, in the limit. Around the threshold a finite $N$ rounds the corner off. How fast does that go away?

# %% [markdown]
# Now move all three numbers: the ratio $\alpha = M/N$, the spike $\ell$, and $N$. In Jupyter a new sample is drawn when a slider is released.


# %% tags=["remove-output", "hide-input"]
def spike_moved(alpha, ell, N, seed=p.seed):
    """Sample and theory at one place, in fixed axes."""
    spectrum, path = transition(alpha, ell, N, seed)
    spectrum.set(xlim=(0, 10), ylim=(0, 1.2), title="eigenvalues of one sample")
    path.set(xlim=(0.9, 6.2), ylim=(0, 10), title="largest eigenvalue against ell")
    value, overlap = top_pair(ell, alpha, N, seed)
    above = "above" if ell > 1 + alpha**0.5 else "not above"
    sentence = f"alpha = {alpha:g}, N = {N}: ell = {ell:g} is {above} the threshold of {1 + alpha**0.5:.2f}. The largest eigenvalue is "
    sentence += f"{value:.2f}, by theory {spike_location(ell, alpha):.2f}; the squared cosine {overlap:.2f}, by theory {spike_overlap(ell, alpha):.2f}."
    return sentence, spectrum, path


ratios, spikes, sizes = [0.25, 1.0, 2.0], [1.2, 1.6, 2.25, 3.0, 4.0], [100, 800]
if p.scale == "smoke":
    ratios, spikes, sizes = [0.5, 1.0], [1.5, 3.0], [50, 100]
explore(
    spike_moved,
    {"alpha": ratios, "ell": spikes, "N": sizes},
    name="fig_explore_spike",
    alt="Left, histogram of the eigenvalues of one sample with the Marchenko-Pastur density and the predicted place of the "
    "outlier; right, its largest eigenvalue against the spike, with theory.",
    start={"alpha": ratios[1], "ell": spikes[-2], "N": sizes[1]},
    live={
        "alpha": [0.1, 0.25, 0.5, 1.0, 2.0, 4.0],
        "ell": [1.2, 1.4, 1.5, 1.6, 1.8, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 5.0],
        "N": [50, 100, 200, 400, 800],
        "seed": range(p.seed, p.seed + 10),
    },
    labels={"alpha": "ratio alpha", "ell": "spike ell"},
)

# %% [markdown]
# ```{glue:figure} fig_explore_spike
# :name: fig-explore-spike
# One sample with one spike. Left, the dot on the axis is its largest eigenvalue and the dotted line where theory expects it; right, the dotted line
# is the chosen spike.
# ```
#
# **Reading.** Cross the threshold. Just above it ($\ell = 1.6$ at $\alpha = 1/4$, $\ell = 2.25$ at $\alpha = 1$) the largest eigenvalue hardly leaves
# the bulk, and the squared cosine in the sentence says how little its eigenvector tells of the spike's direction. At the smaller $N$ it may
# be far from its limit.
#
# ### Fluctuations and rates
#
# 50 samples for each of 20 seeds, four sizes up to $N = $ 6,400, three ratios, read from the store.

# %%
SIZES, DISTANCES = [100, 400, 1600, 6400], [0.0, 0.5, 0.8, 1.0, 1.5, 2.0, 4.0]
many = {"sizes": SIZES, "distances": DISTANCES, "draws": 50}
grid = [
    {"ratio": a, **many, "seed": s} for a in (0.5, 1.0, 2.0) for s in range(p.seeds)
]
first = Store().sweep("theorem1", theorem1, grid, run=p.scale == "paper")
print(first.label)

# %% tags=["remove-cell"]
tw = TracyWidom(1)


def pooled(key, ratio):
    """Stored draws of one ratio over all seeds (sizes, spikes, draws)."""
    return np.concatenate(list(first.where(ratio=ratio).values(key)), -1)


def standardised(ratio, size, spike):
    """Draws of one cell in units of the law they should follow: Tracy-Widom below the threshold, normal above."""
    theory = first.where(ratio=ratio).results[0]
    drawn = pooled("largest", ratio)[size, spike]
    if DISTANCES[spike] <= 1:
        return (drawn - theory["edge_centre"][size]) / theory["edge_width"][size]
    return (drawn - theory["location"][spike]) / theory["deviation"][size, spike]


def exponent(values):
    """Power of N by which a quantity falls over the four sizes: slope and its standard error by least squares."""
    x = np.log(SIZES)
    (slope, _), cover = np.polyfit(x, np.log(values), 1, cov=True)
    return slope, np.sqrt(cover[0, 0])


# %% tags=["remove-output", "hide-input"]
edge_panel = figures.panel("no spike", "(largest - centre) / width", "density")
spike_panel = figures.panel(
    "spike at 1 + 2 sqrt(alpha)", "(largest - psi) / deviation", "density"
)
rates = figures.panel(
    "distance from the limit", "N", "root mean square", xscale="log", yscale="log"
)
if first:
    x = np.linspace(-5, 4, 200)
    z = standardised(1.0, -1, 0)
    edge_panel.hist(
        z, 30, density=True, color=figures.COLORS["G"], alpha=0.5, label="samples"
    )
    edge_panel.plot(
        x, tw.pdf(x), color=figures.COLORS["theory"], label="Tracy-Widom"
    )
    edge_panel.plot(
        x, norm.pdf(x, tw.mean, tw.std), ":", color=figures.COLORS["start"],
        label="normal of equal mean and variance",
    )  # fmt: skip
    edge_panel.set_ylim(0, 0.45)
    z = standardised(1.0, -1, DISTANCES.index(2.0))
    spike_panel.hist(
        z, 30, density=True, color=figures.COLORS["G"], alpha=0.5, label="samples"
    )
    spike_panel.plot(x, norm.pdf(x), color=figures.COLORS["theory"], label="normal")
    spike_panel.set_ylim(0, 0.55)
    for color, t in zip(figures.SERIES, (0.0, 0.8, 1.0, 2.0)):
        j = DISTANCES.index(t)
        drawn = pooled("largest", 1.0)[:, j]
        limit = first.where(ratio=1.0).results[0]["location"][j]
        off = np.sqrt(((drawn - limit) ** 2).mean(-1))
        rates.plot(
            SIZES, off, "o-", color=color, label=f"spike at 1 + {t:g} sqrt(alpha)"
        )
    edge_panel.legend(fontsize=8)
    spike_panel.legend(fontsize=8)
    rates.legend(fontsize=8)
figures.show(
    "fig_fluctuations",
    "First panel, histogram of the standardised largest eigenvalue without a spike and the Tracy-Widom density, which it "
    "follows; the normal density is visibly different. Second, the same with a large spike, following the normal "
    "density. Third, root mean square distance from the limit against N, straight lines on logarithmic axes.",
    edge_panel,
    spike_panel,
    rates,
)

# %% [markdown]
# ```{glue:figure} fig_fluctuations
# :name: fig-fluctuations
# Fluctuations of the largest eigenvalue at $\alpha = 1$, $N = $ 6,400, and the rate at which the limit is approached (root mean square
# distance; the spike's distance from one is given in units of $\sqrt\alpha$, so that the threshold is at 1). {glue:text}`first_label`.
# ```
#
# Every statement, tested at $N = $ 6,400 over the three ratios; the table shows the worst of them. The edge has a *centre*, near
# $(1+\sqrt\alpha)^2$, and a *width*, of the order of $N^{-2/3}$, in units of which the Tracy-Widom law holds. A Kolmogorov-Smirnov distance may be
# what {glue:text}`first_draws:,` draws from the law itself exceed once in a thousand times, plus what a finite $N$ is allowed.

# %% tags=["hide-input"]
verdicts = []


def check(statement, measured, tolerance, form=".3f"):
    """Note a measured deviation and the tolerance it must not exceed."""
    passed = bool(measured <= tolerance)
    verdicts.append((statement, measured, tolerance, passed))
    answer = "pass" if passed else "FAIL"
    return [statement, format(measured, form), format(tolerance, form), answer]


def one_spike(ratios):
    """Theorem 1, statement by statement: the worst over the ratios."""
    count = pooled("largest", ratios[0]).shape[-1]
    chance, at = 1.95 / np.sqrt(count), DISTANCES.index
    z = lambda t: [standardised(a, -1, at(t)) for a in ratios]
    ks = lambda t, law: max(kstest(v, law.cdf).statistic for v in z(t))
    limit = lambda key, t: [
        first.where(ratio=a).results[0][key][at(t)] for a in ratios
    ]
    shared = lambda t: [
        abs(pooled("overlap", a)[-1, at(t)].mean() - o)
        for a, o in zip(ratios, limit("overlap_limit", t))
    ]
    slow = SIZES[-1] ** (-1 / 3)
    power = lambda f: [exponent(f(a))[0] for a in ratios]
    bias = lambda a: (
        first.where(ratio=a).results[0]["location"][0]
        - pooled("largest", a)[:, 0].mean(-1)
    )
    spread = lambda t: lambda a: pooled("largest", a)[:, at(t)].std(-1)
    above = (1.5, 2.0, 4.0)
    return [
        check("no spike: distance from Tracy-Widom", ks(0.0, tw), chance),
        check(
            "half-way to c: distance from Tracy-Widom", ks(0.5, tw), chance + slow
        ),
        check(
            "0.8 of the way to c: mean distance from the edge, in edge widths",
            max(abs(v.mean()) for v in z(0.8)),
            4.0,
        ),
        check(
            "up to half-way: overlap of eigenvectors",
            max(shared(0.0) + shared(0.5)),
            0.01,
        ),
        check(
            "beyond c: mean distance from psi, in deviations",
            max(abs(v.mean()) for t in above for v in z(t)),
            0.1 + 4 / np.sqrt(count),
        ),
        check(
            "beyond c: standard deviation, relative error",
            max(abs(v.std() - 1) for t in above for v in z(t)),
            0.05 + 4 / np.sqrt(2 * count),
        ),
        check(
            "beyond c: distance from the normal law",
            max(ks(t, norm) for t in above),
            chance + 0.05,
        ),
        check(
            "beyond c: overlap of eigenvectors, error",
            max(s for t in above for s in shared(t)),
            0.01,
        ),
        check(
            "no spike: power of N of the mean distance, from -2/3",
            max(abs(v + 2 / 3) for v in power(bias)),
            0.05,
        ),
        check(
            "no spike: power of N of the deviation, from -2/3",
            max(abs(v + 2 / 3) for v in power(spread(0.0))),
            0.05,
        ),
        check(
            "beyond c: power of N of the deviation, from -1/2",
            max(abs(v + 1 / 2) for t in (2.0, 4.0) for v in power(spread(t))),
            0.05,
        ),
    ]


head = ["Theorem 1, worst of three ratios", "found", "tolerance", ""]
figures.table(
    head, one_spike((0.5, 1.0, 2.0)) if first else [["not run", "", "", ""]]
)

# %% tags=["remove-cell"]
ratios = (0.5, 1.0, 2.0)
mid = {
    t: [
        kstest(standardised(1.0, i, DISTANCES.index(t)), tw.cdf).statistic
        for i in (0, -1)
    ]
    if first
    else ["not run"] * 2
    for t in (0.5, 0.8)
}
figures.number(
    threshold=1 + p.ratio**0.5,
    draws=p.draws,
    first_label=first.label,
    first_draws=50 * len(first.where(ratio=1.0)),
    tw_half="{:.3f} to {:.3f}".format(*mid[0.5]) if first else "not run",
    tw_close="{:.3f} to {:.3f}".format(*mid[0.8]) if first else "not run",
    rate_close="{:.2f} ± {:.2f}".format(
        *exponent(
            np.abs([standardised(1.0, i, 2).mean() - tw.mean for i in range(4)])
        )
    )
    if first
    else "not run",
    critical=f"{standardised(1.0, -1, 3).mean():.2f} ± {standardised(1.0, -1, 3).std() / np.sqrt(50 * len(first.where(ratio=1.0))):.2f}"
    if first
    else "not run",
    tw_mean=tw.mean,
)

# %% [markdown]
# **Reading.** Both regimes are as stated. What a limit theorem does not say is when it sets in. Half-way to the threshold the
# distance from the Tracy-Widom law falls from $N = 100$ to 6,400 as {glue:text}`tw_half`. At 0.8 of the way it falls as {glue:text}`tw_close` only: the
# excess of the mean, in widths, falls as $N$ to the power {glue:text}`rate_close`.
#
# At the threshold itself a third law holds. There the mean is {glue:text}`critical` widths from the centre, and that of Tracy-Widom
# {glue:text}`tw_mean:.2f`: a spike at the threshold pushes the largest eigenvalue outwards by more than a width. So an
# eigenvalue counted as an outlier by the Tracy-Widom quantile may belong to a spike *below* the threshold.

# %% [markdown]
# ## Theorem 2: several spikes, on both sides
#
# Let $\Sigma - I$ have a few eigenvalues of any size {cite:p}`bloemendal2016`. The same $\psi$ maps a population eigenvalue to its sample
# eigenvalue on either side, wherever $\psi'(\ell) > 0$, that is $|\ell - 1| > \sqrt\alpha$. To the *left*, that is $\ell < 1 -
# \sqrt\alpha$, and there is such an $\ell$ only for $\alpha < 1$: with more parameters than examples a small population eigenvalue gives no
# outlier at all. The theorem as the paper words it, 'all eigenvalues of $\Sigma$ that are close to zero produce small
# outlier eigenvalues', needs this condition.
#
# Here $X$ is a full matrix, of normal entries or of random signs, and the spikes lie along random directions.


# %%
def spiked_sample(ratio, examples, spikes, entries, seed):
    """Eigenpairs of G for spikes along random directions, and the directions."""
    rng, m = np.random.default_rng(seed), round(ratio * examples)
    draw = {
        "normal": rng.standard_normal,
        "signs": lambda n: rng.choice([-1.0, 1.0], n),
    }
    x = draw[entries]((m, examples))
    u = np.linalg.qr(rng.standard_normal((m, len(spikes))))[0]
    x += (u * (np.sqrt(spikes) - 1)) @ (u.T @ x)
    values, vectors = np.linalg.eigh(x @ x.T / examples)
    return np.where(values < 1e-12 * values[-1], 0, values), vectors, u


# %%
def counted(values, m, n):
    """Eigenvalues beyond the 99 % Tracy-Widom quantile of each edge: left, right."""
    beyond = TracyWidom(1).ppf(0.99)
    (low, narrow), (high, wide) = (
        edge_scale(m, n, side=s) for s in ("left", "right")
    )
    left = (values > 0) & (values < low - beyond * narrow)
    return left.sum(), (values > high + beyond * wide).sum()


# %%
def theorem2(ratio, examples, spikes, entries, seed):
    """One sample, with spikes above one, descending, then those below, ascending."""
    values, vectors, u = spiked_sample(ratio, examples, spikes, entries, seed)
    zeros, ells = int((values == 0).sum()), np.array(spikes)
    right = np.arange((ells > 1).sum())
    place = np.r_[len(values) - 1 - right, zeros + np.arange((ells < 1).sum())]
    bulk = np.delete(values, place[spike_overlap(ells, ratio) > 0])
    found = {
        "sample": values[place],
        "overlap": (u * vectors[:, place]).sum(0) ** 2,
    }
    found |= {"zeros": zeros, "outliers": counted(values, len(values), examples)}
    found |= {"bulk_distance": distance(bulk, MarchenkoPastur(ratio))}
    return found | expected(ells, ratio, [examples])


# %%
SPIKES = {
    0.25: [8.0, 4.0, 1.2, 0.1, 0.2, 0.8],
    2.0: [12.0, 6.0, 1.5, 0.02, 0.1, 0.5],
}
one = theorem2(0.25, p.examples, SPIKES[0.25], "normal", p.seed)
print("ell     sample    theory    overlap   theory")
for j, l in enumerate(one["ells"]):
    print(f"{l:<6g}{one['sample'][j]:>8.3f}{one['location'][j]:>10.3f}", end="")
    print(f"{one['overlap'][j]:>11.3f}{one['overlap_limit'][j]:>9.3f}")
print("outliers left and right:", *one["outliers"])

# %%
grid = [
    {"ratio": a, "examples": 800, "spikes": l, "entries": e, "seed": s}
    for (a, l) in SPIKES.items()
    for e in ("normal", "signs")
    for s in range(p.seeds)
]
second = Store().sweep("theorem2", theorem2, grid, run=p.scale == "paper")
print(second.label)

# %% tags=["hide-input"]
LEFT_RIGHT = {0.25: (2, 2), 2.0: (0, 2)}  # outliers that theory predicts


def several_spikes(groups):
    """Theorem 2, statement by statement: the worst over ratios and entries."""
    worst = {key: [] for key in ("zeros", "bulk", "count", "place", "sd", "vector")}
    for (a, _), runs in groups.items():
        theory, n = runs.results[0], len(runs)
        out = theory["overlap_limit"] > 0
        z = (runs.values("sample") - theory["location"])[:, out]
        z = z / theory["deviation"][0, out]
        wrong = (runs.values("outliers") != LEFT_RIGHT[a]).mean(0)
        shared = runs.values("overlap").mean(0) - theory["overlap_limit"]
        worst["zeros"].append(
            abs(runs.values("zeros") - max(0, round(800 * a) - 800)).max()
        )
        worst["bulk"].append(runs.values("bulk_distance").max() * 800 * min(1, a))
        worst["count"].append(wrong.max())
        worst["place"].append(abs(z.mean(0)).max())
        worst["sd"].append(abs(z.std(0, ddof=min(1, n - 1)) - 1).max())
        worst["vector"].append(abs(shared[out]).max())
    return [
        check("zeros beside M - N", max(worst["zeros"]), 0, ".0f"),
        check(
            "bulk: distance from Marchenko-Pastur, in eigenvalues, any run",
            max(worst["bulk"]),
            10,
            ".1f",
        ),
        check(
            "left and right outliers: share of runs with another number",
            max(worst["count"]),
            0.1,
        ),
        check(
            "outliers: mean distance from psi, in deviations",
            max(worst["place"]),
            0.3 + 4 / np.sqrt(n),
        ),
        check(
            "outliers: standard deviation, relative error",
            max(worst["sd"]),
            0.1 + 4 / np.sqrt(2 * n),
        ),
        check(
            "outliers: overlap of eigenvectors, error of the mean",
            max(worst["vector"]),
            0.02,
        ),
    ]


groups = {
    (a, e): second.where(ratio=a, entries=e)
    for a in SPIKES
    for e in ("normal", "signs")
}
groups = {k: g for k, g in groups.items() if len(g)}
head = ["Theorem 2, worst over ratios and entries", "found", "tolerance", ""]
figures.table(head, several_spikes(groups) if groups else [["not run", "", "", ""]])

# %% [markdown]
# **Reading.** Of the six spikes with $\alpha = 1/4$ four are beyond the thresholds 1/2 and 3/2 and give two outliers on each side. With $\alpha = 2$
# the same kind of small population eigenvalues (0.02, 0.1, 0.5) gives {glue:text}`left_two`: in {glue:text}`left_runs` runs the mean number of
# left outliers is {glue:text}`left_mean:.3f`. That eigenvectors of outliers are 'close to the corresponding ones of $\Sigma$' is a
# matter of degree: the squared cosines for $\ell = 8$ and 4 are {glue:text}`cosines`, and for left spikes of 0.1 and 0.2 {glue:text}`left_cosines`.
#
# ### Any population covariance
#
# The theorem needs all but a few population eigenvalues to be equal. The paper says that extensions to correlated data appear to be
# unavailable. For the bulk and the place of outliers they are older than the paper: with any distribution of population eigenvalues $t$, the
# Stieltjes transform $m(z)$ of the spectrum of $\frac1N X^\top \Sigma X$, which has the same nonzero eigenvalues, solves Silverstein's
# equation {cite:p}`silverstein1995`
#
# $$
# z = -\frac1m + \alpha\, \Big\langle \frac{t}{1 + t m} \Big\rangle_t ,
# $$
#
# where the brackets are the mean over the population eigenvalues. Outside the bulk, with $\ell = -1/m$, the right-hand side is the map
#
# $$
# \psi(\ell) = \ell + \alpha\, \ell\, \Big\langle \frac{t}{\ell - t} \Big\rangle_t .
# $$ (eq-psi)
#
# Where $\psi' > 0$, a population eigenvalue $\ell$ has a sample eigenvalue $\psi(\ell)$ outside the bulk {cite:p}`bai2012`; where $\psi'$ vanishes are the edges.
# `DeformedMarchenkoPastur` computes all of it. As an example half of the population eigenvalues are 1, half are 6, and one is 30.

# %%
base, spiked = np.repeat([1.0, 6.0], p.examples // 8), 30.0
two = DeformedMarchenkoPastur([1.0, 6.0], len(base) / p.examples)
values = sample_spectrum(np.append(base, spiked), p.examples, p.seed)
print("parts of the bulk:", two.edges.round(3).tolist())
print(f"largest {values[-1]:.3f}, psi(30) = {two.location(spiked):.3f}")
print(f"distance of the bulk from its law {distance(values[:-1], two):.4f}", end="")
plain = MarchenkoPastur(two.ratio, base.mean())
print(f", from Marchenko-Pastur {distance(values[:-1], plain):.4f}")

# %% tags=["remove-output", "hide-input"]
image = figures.panel("alpha = 1/4", "population eigenvalue", "sample eigenvalue")
image.set(xscale="log", yscale="log", xlim=(0.03, 15), ylim=(0.03, 15))
low, high = MarchenkoPastur(0.25).edges
image.axhspan(low, high, color=figures.COLORS["start"], alpha=0.2, lw=0)
fine = np.geomspace(0.03, 15, 400)
image.plot(fine, fine, ":", color=figures.COLORS["start"], label="no change")
image.plot(
    fine, spike_location(fine, 0.25), color=figures.COLORS["theory"], label="theory"
)
image.plot(
    one["ells"], one["sample"], "o", color=figures.COLORS["G"], label="sample"
)
image.legend()
mixed = figures.panel("two kinds of directions, a spike", "eigenvalue", "density")
mixed.hist(
    values,
    60,
    weights=np.full(len(values), 1 / len(values) * 60 / np.ptp(values)),
    color=figures.COLORS["G"],
    alpha=0.5,
    label="sample",
)
x = np.linspace(0.01, two.edges[-1, 1] * 1.02, 400)
mixed.plot(x, two.pdf(x), color=figures.COLORS["theory"], label="Silverstein")
mixed.axvline(two.location(spiked), color=figures.COLORS["H"], ls=":")
mixed.legend()
figures.show(
    "fig_map",
    "Left, sample eigenvalues against population eigenvalues on logarithmic axes: spikes on either side of the grey "
    "bulk lie near the theoretical curve, those within the thresholds at its edges. Right, a bulk of two parts for a "
    "population of two kinds, with the density by the Silverstein equation and one outlier near its predicted place.",
    image,
    mixed,
)

# %% [markdown]
# ```{glue:figure} fig_map
# :name: fig-map
# From population to sample: spikes on both sides of a bulk of ones (left, the bulk is grey), and a bulk of correlated data with
# an outlier whose place {eq}`eq-psi` predicts (right, dotted).
# ```
#
# **Reading.** Left, large population eigenvalues are seen too large, small ones too small, and those within the thresholds not at all. These are single
# samples, which scatter: for the largest spike, {glue:text}`one_ell:g`, theory expects {glue:text}`one_theory:.2f` with a deviation of
# {glue:text}`one_spread:.2f`, and the sample has {glue:text}`one_sample:.2f`. Right, the same map carries two kinds of directions into two
# parts of the bulk.

# %% tags=["remove-cell"]
quarter = groups.get((0.25, "normal"))
big = groups.get((2.0, "normal"))
if big:
    lefts = np.concatenate(
        [groups[2.0, e].values("outliers")[:, 0] for e in ("normal", "signs")]
    )
    left_two = (
        "none" if lefts.mean() < 0.05 else "some, against what the condition says"
    )
cosines = quarter.values("overlap").mean(0) if quarter else None
figures.number(
    one_ell=one["ells"][0],
    one_theory=one["location"][0],
    one_spread=one["deviation"][0][0],
    one_sample=one["sample"][0],
    left_two=left_two if big else "not run",
    left_runs=len(lefts) if big else "not run",
    left_mean=lefts.mean() if big else float("inf"),
    cosines="{:.3f} and {:.3f}".format(*cosines[:2]) if quarter else "not run",
    left_cosines="{:.3f} and {:.3f}".format(*cosines[3:5])
    if quarter
    else "not run",
)

# %% [markdown]
# ## Examples 1 and 2: logistic regression
#
# With one output $f = \langle w, x\rangle$ the second term of the Hessian is zero and $H = G = \frac1N \sum_n c_n x_n x_n^\top$, where $c_n = p_n(1-p_n)$ for
# the probability $p_n$ of a class. Near $w = 0$ all $c_n$ are 1/4. For blobs, $x = \mu_k + \xi$ with centre $\mu_k$ and standard
# normal $\xi$, so
#
# $$
# \mathbb{E}\, x x^\top = I + \sum_k \pi_k\, \mu_k \mu_k^\top
# $$
#
# with $\pi_k$ the share of blob $k$: the centres *are* the spikes. The nonzero eigenvalues of the sum are those of the small matrix
# $\sqrt{\pi_k \pi_l}\, \langle \mu_k, \mu_l\rangle$. Three cases:
#
# * One blob, not centred: a spike $1 + \|\mu\|^2$. So Figure 10 (left), which has no outlier, must show a blob centred at the origin.
# * Two equal blobs, not centred: two spikes. With $s = \mu_1 + \mu_2$ and $\Delta = \mu_1 - \mu_2$ the sum is $\frac14(ss^\top + \Delta\Delta^\top)$.
# * Two equal blobs, centred: $s = 0$, and there is **one** spike, $1 + \|\Delta\|^2/4$, from the distance of the centres alone. The Hessian's outlier is
#
# $$
# \begin{aligned}
# \lambda &= \bar c\; \psi\Big(1 + \frac{\|\Delta\|^2}{4}\Big) \\
# &\approx \bar c\, \Big(1 + \alpha + \frac{\|\Delta\|^2}{4}\Big), \quad \bar c \approx \frac14 .
# \end{aligned}
# $$ (eq-blobs)
#
# With centres uniform in $[-10, 10]^d$, scikit-learn's default, $\mathbb{E}\|\Delta\|^2 = \frac{200}{3} d$, so that $\lambda$ is about $\frac{25}{6}d$, with a relative
# standard deviation of $1.18/\sqrt d$ for the luck of the centres. If $c$ depends on the blob, it goes into the small matrix as
# $\sqrt{\pi_k c_k \pi_l c_l}\,\langle \mu_k, \mu_l\rangle$, with $c_k$ taken at the centre; that is what `predicted` does.


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
ten = {}
for a, (n, d, _) in PAPER.items():
    for k in (1, 2):
        x, means = prepared(n, d, k, p.seed, "centred")
        ten[a, k] = logistic(x), predicted(means, a)
    print(f"alpha {a:<5g} outlier {ten[a, 2][0][-1]:7.2f}", end=", ")
    print(f"predicted {ten[a, 2][1][-1]:7.2f}", end="; one blob: distance ")
    print(f"{distance(ten[a, 1][0], MarchenkoPastur(a, 0.25)):.3f} from the law")

# %% tags=["remove-output", "hide-input"]
panels = []
for k, title in ((1, "one blob"), (2, "two blobs")):
    ax = figures.panel(title, "rank from the smallest, share of M", "eigenvalue")
    for color, a in zip(figures.SERIES, PAPER):
        values, outliers = ten[a, k]
        share = (np.arange(len(values)) + 0.5) / len(values)
        kept = values > 0
        ax.plot(share[kept], values[kept], ".", color=color, label=f"M/N = {a:g}")
        q = np.linspace(0.002, 0.998, 200)
        law = MarchenkoPastur(a, 0.25).ppf(q)
        ax.plot(q[law > 0], law[law > 0], "-", color=color, lw=0.8)
        if k == 2:
            ax.plot(1, outliers[-1], "_", color=color, ms=12)
    ax.set(yscale="log", ylim=(2e-5, 3e3))
    ax.legend()
    panels.append(ax)
figures.show(
    "fig_ten",
    "Eigenvalues of the Hessian of logistic regression by rank, three ratios of parameters to examples, on a "
    "logarithmic axis, with the Marchenko-Pastur quantiles as lines. Left with one blob all eigenvalues lie on the "
    "lines; right with two blobs the same, but for one outlier each, two to three decades above.",
    *panels,
)

# %% [markdown]
# ```{glue:figure} fig_ten
# :name: fig-ten
# The paper's Figure 10: logistic regression on centred blobs at $\alpha = 1$, 2 and 0.02. Lines are Marchenko-Pastur quantiles with variance 1/4, bars the
# predicted outliers.
# ```
#
# The paper does not give its sizes or its preparation of the data. With $N = 100, 100$, 1,000 and $d = M = \alpha N$, over many draws of the centres:


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

# %% tags=["hide-input"]
rows, blob_errors, blob_ranks = [], [], {}
for i, (a, (_, d, value)) in enumerate(PAPER.items() if pairs else ()):
    law = 25 / 6 * d
    for j, how in enumerate(("raw", "centred", "standardised")):
        top, twin, guess = (
            np.concatenate(list(pairs.values(key)[:, i, j]))
            for key in ("largest", "second", "predicted")
        )
        error = abs(guess / top - 1)
        blob_ranks[a, how] = (top < value).mean()
        if how != "standardised":
            blob_errors.append(error.max())
        rows.append(
            [
                f"{a:g}",
                value if how == "raw" else "",
                f"{law:.1f} ± {1.18 / d**0.5 * law:.1f}"
                if how == "centred"
                else "",
                how,
                f"{np.median(top):.1f} ({top.min():.1f} to {top.max():.1f})",
                f"{np.median(twin):.1f}",
                f"{error.max():.1%}" if how != "standardised" else "",
                f"{blob_ranks[a, how]:.0%}",
            ]
        )
head = ["alpha", "paper", "25 d / 6", "data", "largest: median (range)", "second"]
head += ["worst error of the prediction", "draws below the paper's value"]
figures.table(head, rows or [["not run"] + [""] * 7])

# %% tags=["remove-cell"]
paper_inside = {
    how: all(0 < r < 1 for (_, h), r in blob_ranks.items() if h == how)
    for how in ("raw", "centred", "standardised")
}
one_raw = logistic(prepared(100, 100, 1, p.seed, "raw")[0])[-1]
figures.number(
    blobs_label=pairs.label,
    blobs_error=100 * max(blob_errors) if pairs else float("inf"),
    blobs_verdict="not run"
    if not pairs
    else "The paper's three numbers lie within the ranges of these draws for data that is: "
    + (", ".join(how for how, yes in paper_inside.items() if yes) or "none")
    + ".",
    one_raw=one_raw,
)

# %% [markdown]
# **Reading.** {glue:text}`blobs_verdict` So neither preparation can be ruled out by the numbers; but one blob that is not centred has an outlier too
# ({glue:text}`one_raw:.0f` at $\alpha = 1$ here), and two blobs that are not centred have two, of comparable size, where the paper shows none and one. Centred
# data agrees with everything the paper says, standardised data, as in the authors' released code, with none of the three
# numbers. From the centres of each draw the largest eigenvalue is predicted to {glue:text}`blobs_error:.1f` % in the worst of all draws
# ({glue:text}`blobs_label`).
#
# ### When the weights are not small
#
# Example 1 calls $c(w, x)$ a positive constant. It is constant only near $w = 0$. For larger weights the $c_n$ differ from example to example, and
# $\frac1N \sum_n c_n x_n x_n^\top$ has another law: its nonzero eigenvalues are those of the $N \times N$ matrix $\frac1N C^{1/2} X^\top X C^{1/2}$, a sample covariance again, with
# the roles of examples and parameters exchanged and the $c_n$ as population.

# %%
n, d = 1000, 500
x = np.random.default_rng(p.seed).standard_normal((n, d))
for spread in (0.1, 2.0, 8.0):  # standard deviation of <w, x>
    w = spread / np.sqrt(d)
    c = expit(w * x.sum(1)) * expit(-w * x.sum(1))
    values = logistic(x, w)
    constant = MarchenkoPastur(d / n, c.mean())
    weighted = DeformedMarchenkoPastur(c * d / n, n / d)
    apart = distance(np.append(np.zeros(n - d), values), weighted) * n / d
    print(f"spread {spread:>4}: distance from Marchenko-Pastur", end=" ")
    print(f"{distance(values, constant):.3f}, from the weighted law {apart:.3f}")

# %% tags=["remove-cell"]
figures.number(weighted=apart, constant=distance(values, constant), spread=spread)

# %% [markdown]
# ### Softmax
#
# With $C$ classes and a softmax the outputs are $C$ linear functions of $x$, $M = Cd$, and $H = \frac1N \sum_n A_n \otimes x_n x_n^\top$. When all weights are equal, so are all
# probabilities, $A_n = \frac1C (I - \frac1C \mathbf{1}\mathbf{1}^\top)$ for every example, and the Hessian is a Kronecker product: each eigenvalue of $\frac1{CN}\sum_n x_n x_n^\top$ appears $C - 1$ times,
# beside $d$ zeros. Centred data of $C$ blobs has $C - 1$ spikes, so there are $(C-1)^2$ outliers.


# %%
def softmax(classes, examples, dimension, seed):
    """The risk of softmax regression on centred blobs, all weights 0.01; inputs."""
    x, _ = prepared(examples, dimension, classes, seed, "centred")
    y = np.random.default_rng(seed).integers(classes, size=examples)
    model = torch.nn.Linear(dimension, classes, bias=False).double()
    torch.nn.init.constant_(model.weight, 0.01)
    return EmpiricalRisk(model, torch.as_tensor(x), torch.as_tensor(y)), x


# %%
kronecker, outlier_counts = {}, {}
for k in (2, 3, 5):
    risk, x = softmax(k, 300, 60, p.seed)
    found = np.linalg.eigvalsh(risk.hessian().to_dense().numpy())
    factor = np.linalg.eigvalsh(x.T @ x / len(x)) / k
    kronecker[k] = abs(found[60:] - np.repeat(factor, k - 1)).max() / found[-1]
    outlier_counts[k] = int(
        (found > 2 * MarchenkoPastur(0.2, 1 / k).edges[1]).sum()
    )
    split = [op.to_dense().norm() for op in (risk.residual(), risk.residual("probability"), risk.hessian())]  # fmt: skip
    print(
        f"C = {k}: {outlier_counts[k]} outliers", end="; norm of R over that of H"
    )
    print(
        f" {split[0] / split[2]:.1e} (logits), {split[1] / split[2]:.2f} (probability)"
    )

# %% [markdown]
# **Reading.** Example 2 takes the probability $f = p_y$ as the one output and speaks of one large outlier. In that reading the second term is not zero for more
# than two classes (last column: {glue:text}`softmax_r:.2f` of the norm of $H$ with five), while with the logits as outputs it is, exactly. And one outlier is the
# number for two classes: for 3 and 5 there are {glue:text}`softmax_outliers`. With two classes the Hessian's eigenvalues are $\frac12\lambda(\frac1N\sum xx^\top)$ and $M = 2d$, so that
# the largest is again about $\frac{25}{6}M$: the paper's numbers do not tell which of the two it computed.

# %% tags=["remove-cell"]
figures.number(
    softmax_r=float(split[1] / split[2]),
    softmax_outliers=f"{outlier_counts[3]} and {outlier_counts[5]}",
)

# %% [markdown]
# ## Real Hessians
#
# Now a trained network, the small one of {ref}`ggn`: digits of $7 \times 7$ pixels, eight hidden units, $M = 490$. Its first term is
# $G = \frac1N \sum_n U_n U_n^\top$, where $U_n = J_n^\top A_n^{1/2}$ has rank $C - 1$. If the columns of all $U_n$ were independent, theory would apply with
# $N(C-1)$ examples in place of $N$; if those of one example always came together, with $N$.
#
# What is $\Sigma$ here? At given weights, the same matrix over infinitely many digits. We take the digits that were not used for
# training: as many as in the training set are a *fresh* sample, and all the others estimate $\Sigma$. At the random start the training set is
# itself a fresh sample; at the end it is not, since the weights depend on it.


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
def pairs_of(op):
    """Ascending eigenvalues, rounding errors set to zero, and eigenvectors."""
    values, vectors = np.linalg.eigh(op.to_dense().numpy())
    return np.where(abs(values) < 1e-12 * values[-1], 0, values), vectors


# %%
def best_fit(values):
    """The Marchenko-Pastur law, over ratio and variance, nearest to eigenvalues."""
    law = lambda q: MarchenkoPastur(*np.exp(q.clip(-30, 10)))
    far = lambda q: distance(values, law(q))
    # the distance has local minima, so the search starts from several ratios
    starts = [
        [np.log(a), np.log(values.mean())] for a in (0.1, 0.5, 1.0, 2.0, 10.0)
    ]
    options = {"method": "Nelder-Mead", "options": {"maxiter": 300}}
    return law(
        min((minimize(far, q, **options) for q in starts), key=lambda r: r.fun).x
    )


# %%
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


# %% [markdown]
# Marchenko-Pastur gets every chance: the $C$ largest eigenvalues are left out (one more than the class structure accounts for), the variance is that of the rest, with $N$ and with
# $N(C-1)$ examples; and a third fit may choose ratio and variance freely so as to come as near as possible. Of the class structure
# we take what is known before any spectrum is computed: the mean of $U_n$ over the examples of each class. Without these means, what
# remains of the outliers?


# %%
def columns(risk):
    """All U_n (N, C, M), as rows, by automatic differentiation."""
    x, _ = risk.batches[0]
    output = lambda w, one: risk.outputs(w, one[None])[0]
    jacobian = torch.func.vmap(torch.func.jacrev(output), (None, 0))(
        risk.parameters, x
    )
    jacobian = torch.cat([j.flatten(2) for j in jacobian.values()], 2)
    prob = risk.outputs(risk.parameters, x).softmax(1)
    a = torch.diag_embed(prob) - prob[:, :, None] * prob[:, None]
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT
    return (root @ jacobian).detach()


# %%
def within(risk):
    """Ascending eigenvalues of G after the mean of U_n over each class is removed."""
    u, (_, y) = columns(risk), risk.batches[0]
    for k in y.unique():
        u[y == k] -= u[y == k].mean(0)
    rows = u.flatten(0, 1)
    return torch.linalg.eigvalsh(rows.T @ rows / len(u)).numpy()


# %% tags=["hide-input"]
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
        "distance": [
            [
                distance(w[:-c] if "MP" in k else w, law)
                for k, (law, _) in laws.items()
            ]
            for w in (g, f)
        ],
        "beyond": [
            [(w > edge).sum() for _, edge in laws.values()]
            for w in (g, f, s, h, rest)
        ],
        "top": [w[::-1][: 2 * c] for w in (g, f, s, h, rest)],
        "fit": [laws["best MP"][0].ratio, laws["best MP"][0].variance],
        "eigenvectors": np.linalg.norm(u[:, 1 - c :].T @ v[:, 1 - c :]) ** 2
        / (c - 1),
        "negative": (h < 0).sum(),
        "ratio_rule": count_outliers(g, "ratio"),
        "sizes": [len(g), n, c],
    }
    return {"g": g, "fresh": f, "population": s, "laws": laws}, measures


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
history, risks = network("digits", p.digits, p.iterations, p.seed)
both = [moment([r.at(w) for r in risks]) for w in history.parameters]
m, n, c = both[0][1]["sizes"]
print(f"M = {m}, N = {n}, N(C - 1) = {n * (c - 1):,}; loss", end=" ")
print(" to ".join(f"{v:.3f}" for v in (history.losses[0], history.losses[-1])))
print("distance from   " + "".join(f"{k:>17}" for k in LAWS))
for name, (_, found) in zip(("start", "end"), both):
    for label, row in zip(("training", "fresh"), found["distance"]):
        print(f"{name:<6}{label:<10}" + "".join(f"{v:>17.3f}" for v in row))

# %% tags=["remove-output", "hide-input"]
panels = []
for name, (w, _) in zip(("start", "end"), both):
    ax = figures.panel(name, "rank from the largest", "eigenvalue")
    ax.set(xscale="log", yscale="log")
    x = np.geomspace(w["g"][-1] * 1e-6, w["g"][-1] * 1.5, 300)
    lines = {"best MP": "start", "Sigma, N": "theory", "Sigma, N(C - 1)": "R"}
    names = {"best MP": "best Marchenko-Pastur"}
    for key, color in lines.items():
        rank = m * (1 - w["laws"][key][0].cdf(x)) + (c if key == "best MP" else 0)
        seen = (rank > 0.3) & (np.diff(rank, prepend=np.inf) != 0)
        ax.plot(
            rank[seen],
            x[seen],
            color=figures.COLORS[color],
            lw=1.2,
            label=names.get(key, key),
        )
    ranks = np.arange(1, m + 1)
    top = w["g"][::-1]
    ax.plot(
        ranks[top > x[0]],
        top[top > x[0]],
        ".",
        ms=2.5,
        color=figures.COLORS["G"],
        label="G, training",
    )
    ax.axvline(c - 0.5, 0.5, color=figures.COLORS["start"], ls=":", lw=0.8)
    ax.legend(loc="lower left", fontsize=8)
    panels.append(ax)
figures.show(
    "fig_real",
    "Eigenvalues of the first term of a small network by rank on logarithmic axes, left at the start, right at the "
    "end of training. The best Marchenko-Pastur law is a nearly flat line that misses both ends; the laws computed from "
    "the population covariance run along the eigenvalues over six decades.",
    *panels,
)

# %% [markdown]
# ```{glue:figure} fig_real
# :name: fig-real
# $G$ of a network on digits and three laws for it. The dotted line is after rank $C - 1$.
# ```
#
# Over seeds, with a second network: the blobs of {ref}`data` with five classes, one hidden layer of ten units, $M = $ 1,065 and $N = 500$.

# %%
grid = [
    {"kind": kind, "examples": n_, "iterations": 3000, "seed": s}
    for kind, n_ in (("digits", 800), ("blobs", 500))
    for s in range((p.seeds + 1) // 2)
]
nets = Store().sweep("population", networks, grid, run=p.scale == "paper")
print(nets.label)


# %% tags=["hide-input"]
def spread(values, form=".3f"):
    """Mean and standard deviation over seeds."""
    if len(values) < 2:
        return format(values.mean(), form)
    deviation = format(values.std(ddof=1), form)
    if not float(deviation):
        return format(values.mean(), form)
    return f"{values.mean():{form}} ± {deviation}"


rows = []
kinds = {
    k: nets.where(kind=k) for k in ("digits", "blobs") if len(nets.where(kind=k))
}
for kind, runs in kinds.items():
    for i, name in enumerate(("start", "end")):
        far, beyond = runs.values("distance")[:, i], runs.values("beyond")[:, i]
        for j, label in enumerate(LAWS):
            rows.append(
                [
                    f"{kind}, {name}" if j == 0 else "",
                    label,
                    spread(far[:, 0, j]),
                    spread(far[:, 1, j]),
                    spread(beyond[:, 0, j], ".1f"),
                    spread(beyond[:, 3, j], ".1f"),
                    spread(beyond[:, 2, j], ".1f"),
                ]
            )
head = ["network", "law", "distance: training", "distance: fresh"]
head += [f"beyond its edge: {k}" for k in ("G", "H", "Sigma")]
figures.table(head, rows or [["not run"] + [""] * 6])

# %% tags=["hide-input"]
rows = []
for kind, runs in kinds.items():
    for i, name in enumerate(("start", "end")):
        top, k = runs.values("top")[:, i], int(runs.values("sizes")[0, 0, 2])
        first_, rest = top[:, 0, : k - 1].sum(1), top[:, 4, : k - 1].sum(1)
        rows.append(
            [
                f"{kind}, {name}",
                k - 1,
                spread(runs.values("ratio_rule")[:, i], ".1f"),
                spread(top[:, 0, k - 2] / top[:, 0, k - 1], ".2f"),
                spread(rest / first_, ".2f"),
                spread((top[:, 0, : k - 1] / top[:, 2, : k - 1]).mean(1), ".2f"),
                spread(runs.values("eigenvectors")[:, i], ".2f"),
                spread(runs.values("negative")[:, i], ".1f"),
            ]
        )
head = ["network", "C\u00a0-\u00a01", "outliers of G by the largest ratio"]
head += [
    "eigenvalue C\u00a0-\u00a01 over eigenvalue C",
    "share left without class means",
]
head += ["G over Sigma, C - 1 largest", "overlap of their eigenvectors"]
head += ["eigenvalues of H below zero"]
figures.table(head, rows or [["not run"] + [""] * 7])


# %% tags=["remove-cell"]
def in_words(kind, i):
    """Measures of the stored networks of a kind, at start (0) or end (1), as text."""
    runs = nets.where(kind=kind)
    far, beyond = runs.values("distance")[:, i], runs.values("beyond")[:, i]
    top, k = runs.values("top")[:, i], int(runs.values("sizes")[0, 0, 2])
    without = top[:, 4, : k - 1].sum(1) / top[:, 0, : k - 1].sum(1)
    return {
        "best": spread(far[:, 0, 2]),
        "mp_low": f"{far[:, 0, :2].min(1).mean():.2f}",
        "sigma_n": spread(far[:, 0, 3]),
        "sigma_nc": spread(far[:, 0, 4]),
        "fresh_n": spread(far[:, 1, 3]),
        "fresh_nc": spread(far[:, 1, 4]),
        "count": spread(beyond[:, 0, 0], ".0f"),
        "count_nc": spread(beyond[:, 0, 1], ".0f"),
        "count_pop": spread(beyond[:, 2, 0], ".0f"),
        "count_sigma": spread(beyond[:, 0, 3], ".1f"),
        "without": spread(without, ".2f"),
        "null": f"{runs.values('null').max():.3f}",
    }


NAMES = "best mp_low sigma_n sigma_nc fresh_n fresh_nc count count_nc count_pop"
NAMES = [*NAMES.split(), "count_sigma", "without", "null"]
words = {}
for kind in ("digits", "blobs"):
    for i, name in enumerate(("start", "end")):
        found = (
            in_words(kind, i) if kind in kinds else dict.fromkeys(NAMES, "not run")
        )
        words |= {f"{kind}_{name}_{k}": v for k, v in found.items()}
figures.number(nets_label=nets.label, **words)

# %% [markdown]
# **Reading.** Stored values are means and standard deviations over seeds ({glue:text}`nets_label`).
#
# *The law fails.* With the actual sizes the distance of the bulk from Marchenko-Pastur is {glue:text}`digits_start_mp_low` (digits, start) and
# {glue:text}`digits_end_mp_low` (end), and the best of all Marchenko-Pastur laws is still {glue:text}`digits_start_best` and {glue:text}`digits_end_best` away. Fitted in the same
# way, normal data of this size is never more than {glue:text}`digits_start_null` away. So the hypothesis that the bulk is Marchenko-Pastur is rejected, for
# the blobs too ({glue:text}`blobs_start_best` and {glue:text}`blobs_end_best` against {glue:text}`blobs_start_null`).
#
# *So do its outliers.* Beyond its Tracy-Widom edge lie {glue:text}`digits_end_count` eigenvalues ({glue:text}`digits_end_count_nc` with $N(C-1)$) where the class structure has
# $C - 1 = 9$. They are not noise, and not outliers in the sense of Theorem 2 either: $\Sigma$ itself has {glue:text}`digits_end_count_pop` eigenvalues
# there. It is not the identity with a few spikes; it falls over many decades. On the digits there is one gap, behind rank $C - 1$. On these blobs there is
# none: the count by the largest ratio is far from $C - 1$ and scatters over seeds (second table).
#
# *The population covariance explains the digits.* The law that the Silverstein equation makes of the held-out $\Sigma$ is fitted to nothing; the one
# choice is whether $N$ or $N(C-1)$ is the number of examples. For the digits its distance is {glue:text}`digits_start_sigma_n` and
# {glue:text}`digits_start_sigma_nc` at the start, {glue:text}`digits_end_sigma_n` and {glue:text}`digits_end_sigma_nc` at the end: far nearer than the best
# Marchenko-Pastur law with either. Beyond *its* edge lie {glue:text}`digits_end_count_sigma` eigenvalues of $G$ on average at the end: the outliers
# are those of $\Sigma$. For the blobs it is {glue:text}`blobs_start_sigma_n` and {glue:text}`blobs_start_sigma_nc` at the start, {glue:text}`blobs_end_sigma_n` and
# {glue:text}`blobs_end_sigma_nc` at the end: with $N$ it fails, with $N(C-1)$ it is near at the start, and at the end hardly nearer than the fitted law.
#
# *And it has limits.* Columns of $U_n$ are neither independent within an example nor of independent entries, and a few badly fitted examples outweigh
# the others at the end; which count of examples fits better, $N$ or $N(C-1)$, depends on network and moment (first table). At the end the training examples are fitted better than held-out
# ones, so that their $G$ is smaller (second table) for a reason no theory of independent data contains.
#
# *Class structure.* At the start the class means account for the outliers: without them {glue:text}`digits_start_without` of the sum of the $C - 1$ largest is left. At the end it
# is {glue:text}`digits_end_without` for the digits: there the spread *within* classes has large eigenvalues of its own.

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
published = {0: 0.83190806620295, -1: 0.58378989551972, -2: 0.27432019790921}
worst = max(abs(tw.cdf(s) - v) for s, v in published.items())
print(
    "Tracy-Widom law at published values, to 1e-10:",
    "pass" if worst < 1e-10 else f"FAIL ({worst:.1e})",
)
worst = max(kronecker.values())
print(
    "softmax Hessian is the Kronecker product, to 1e-12:",
    "pass" if worst < 1e-12 else f"FAIL ({worst:.1e})",
)
counts = [outlier_counts[k] == (k - 1) ** 2 for k in outlier_counts]
print("softmax outliers are (C - 1)^2:", "pass" if all(counts) else "FAIL")
training = risks[0].at(history.parameters[-1])
rows = columns(training).flatten(0, 1)
error = abs(rows.T @ rows / training.num_examples - training.ggn().to_dense())
error = float(error.max() / both[1][0]["g"][-1])
print(
    "G from its columns, to 1e-12:",
    "pass" if error < 1e-12 else f"FAIL ({error:.1e})",
)
failed = [f"{s}: {v:.3g} > {t:.3g}" for s, v, t, passed in verdicts if not passed]
print("statements of Theorems 1 and 2:", failed or "pass")

# %% tags=["remove-cell"]
identity = sample_spectrum(np.ones(p.examples), p.examples, p.seed)
figures.number(
    exchange=identity[-1] - 1,
    failed=len(failed),
    statements=len(verdicts),
)

# %% [markdown]
# ## Limits
#
# Where the paper's Appendix B must be read with care; each number is computed on this page.
#
# * It defines $\Sigma := \mathbb{E}(G) = \frac1N T X X^\top T^\top = TT^\top$. The middle expression is $G$, not its expectation. The two differ at any size: with
#   $\Sigma = I$ and $\alpha = 1$, $\|G - \Sigma\| = $ {glue:text}`exchange:.2f` here and 3 in the limit.
# * Theorem 1 is stated for $\alpha \ge 1$. It holds below as well (all checks include $\alpha = 1/2$).
# * Theorem 2's left outliers exist only for $\alpha < 1$: {glue:text}`left_mean:.3f` on average for $\alpha = 2$ in {glue:text}`left_runs` runs.
# * 'Without loss of generality' the examples have independent entries of mean zero: blobs do not, and the mean is what makes the outlier.
# * In Example 1 $c(w, x)$ depends on $x$. With logits of standard deviation {glue:text}`spread` the distance from Marchenko-Pastur is {glue:text}`constant:.3f`, from the weighted
#   law {glue:text}`weighted:.3f`.
# * In Example 2 the output $f$ is a probability, for which the second term is not zero beyond two classes; with logits it is. The number of outliers is $(C-1)^2$ where
#   all weights are equal.
# * The caption of Figure 10 names a tanh unit; the text has a logistic one, and that is what we took.
#
# And of this page:
#
# * {glue:text}`statements` statements are checked, of which {glue:text}`failed` fail. Tolerances are what chance allows once in a thousand times plus a stated allowance for
#   finite $N$; that allowance is our choice.
# * Samples are real. For complex data the Tracy-Widom law is that of $\beta = 2$, which `TracyWidom` has too.
# * $\Sigma$ of the networks is estimated from a few thousand held-out examples, so its own smallest eigenvalues are uncertain; distances look at
#   eigenvalues above $10^{-6}$ of the largest.
# * The fluctuations of outliers in {numref}`fig-fluctuations` are for normal entries. For a spike along a coordinate axis other entries have another variance; `spike_deviation` takes
#   their excess kurtosis.
#
# ## Try it
#
# ::::{admonition} Exercise: how many examples to see a spike
# :class: tip
# A direction has population variance $\ell = 1.5$, all others one, and $M = 400$. How many examples are needed for its sample eigenvalue to leave
# the bulk? Call `top_pair(1.5, 400 / N, N, seed=0)` below and above that $N$: it
# returns the largest eigenvalue and the overlap.
#
# :::{dropdown} Answer
# $\ell > 1 + \sqrt{M/N}$ means $N > M/(\ell - 1)^2 = 1600$. Just above, the overlap is still near zero: `spike_overlap(1.5, 400 / 2000)` is 0.14. For an overlap of one
# half it takes more than 4,000.
# :::
# ::::
#
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
