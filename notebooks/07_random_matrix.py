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
# # Random matrices: what a sample makes of its population
#
# > **The paper's claims.** The first term $G$ of the Hessian is a sample covariance matrix of gradients. If they are $g = Tx$, a fixed matrix times independent entries,
# > its spectrum has zeros, a bulk of the shape of the Marchenko-Pastur law, and an outlier for each eigenvalue of the population covariance that is large or small enough
# > to leave the bulk ([Sagun et al. 2017](../book/references.md), Appendix B, Theorems 1 and 2).
#
# $G = \frac1N \sum_n g_n g_n^\top$ is a mean over $N$ examples. With infinitely many examples it would be its expectation $\Sigma$, the **population covariance**. With
# $M$ parameters and $N$ examples of the same order the eigenvalues of $G$ are far from those of $\Sigma$, however large both numbers are. Random-matrix theory says how far,
# and in which way. Its words: the **bulk** is the interval that most nonzero eigenvalues of $G$ fill, its ends are the **edges**; a **spike** is an eigenvalue of $\Sigma$ that
# differs from the others, and an **outlier** is a nonzero eigenvalue of $G$ outside it. This chapter simulates the theory where $\Sigma$ is known.
# [Chapter 8](08_examples.ipynb) applies it to logistic regression, [Chapter 9](09_population.ipynb) to trained networks and to any $\Sigma$.
#
# Throughout, $\alpha = M/N$, and $X$ is an $M \times N$ matrix of independent entries of mean zero and variance one, so that $G = \frac1N \Sigma^{1/2} X X^\top
# \Sigma^{1/2}$ ([all symbols](../book/notation.md)).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
ratio: float = 0.5  # M / N of the samples drawn on this page
ell: float = 3.0  # population eigenvalue of the spike that is shown
examples: int = 0  # N of the samples drawn on this page; 0: by scale
draws: int = 0  # samples for each spike of the transition; 0: by scale
seed: int = 0  # of every draw
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
import numpy as np
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import ParameterError, integer, real, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, say, this_run, written
from hesslib.theory import (
    MarchenkoPastur,
    TracyWidom,
    distance,
    edge_scale,
    spike_deviation,
    spike_location,
    spike_overlap,
    spiked_wishart,
)
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal
from scipy.stats import kstest, norm

# %% tags=["hide-input"]
p = resolve(
    globals(),
    ratio=real(0.01, 20),
    ell=real(1e-3, 1e3),
    examples=integer(40, 2000, smoke=60, quick=400, paper=400),
    draws=integer(2, 1000, smoke=4, quick=50, paper=50),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)
if p.ratio * p.examples < 2:
    raise ParameterError(
        f"ratio = {p.ratio:g} leaves {p.ratio * p.examples:.2g} parameters for "
        f"{p.examples} examples: give at least {2 / p.examples:g}"
    )
this_run(p)

# %% [markdown]
# ## The bulk: Marchenko and Pastur
#
# Let $\Sigma = I$: all population eigenvalues are one. Those of $G$ spread over the interval from $\lambda_- = (1-\sqrt\alpha)^2$ to $\lambda_+ = (1+\sqrt\alpha)^2$ with
# the density
#
# $$
# \rho(\lambda) = \frac{\sqrt{(\lambda_+ - \lambda)(\lambda - \lambda_-)}}{2\pi\alpha\lambda} ,
# $$
#
# and if $M > N$ a share $1 - 1/\alpha$ of them is zero. The ratio alone decides how far they spread. We measure agreement by the Kolmogorov-Smirnov distance: the largest
# difference between the share of eigenvalues below $x$ in the sample and in the law. It runs over all $x$ above $10^{-6}$ of the largest eigenvalue, so exact zeros enter
# it as a share only.


# %%
def sample_spectrum(population, examples, seed):
    """Ascending eigenvalues of G for normal data and a diagonal Sigma."""
    x = np.random.default_rng(seed).standard_normal((len(population), examples))
    x *= np.sqrt(population)[:, None]
    values = np.linalg.eigvalsh(x @ x.T / examples)
    return np.where(values < 1e-12 * values[-1], 0, values)


# %%
bulks = {}
for a in (0.5, 2.0):
    values = sample_spectrum(np.ones(round(a * p.examples)), p.examples, p.seed)
    bulks[a] = values, MarchenkoPastur(a)


# %% tags=["hide-input"]
panels = []
for a, (values, law) in bulks.items():
    title = f"M/N = {a}, {100 * (values == 0).mean():.0f} % zeros"
    panels.append(figures.panel(title, "eigenvalue", "density"))
    figures.density(panels[-1], values, law)
figures.figure(
    "fig_sample", *panels,
    caption=f"Eigenvalues of $\\frac1N XX^\\top$ for {p.examples:,} examples, and the Marchenko-Pastur density. All population eigenvalues are one. Zeros are not drawn; what is drawn covers the rest of the area.",
    alt="Histograms of the eigenvalues of sample covariance matrices of white normal data with the Marchenko-Pastur "
    "densities, left with half as many parameters as examples, right with twice as many.",
)  # fmt: skip

# %% tags=["hide-input"]
(half, law), (wide, other) = bulks[0.5], bulks[2.0]
found = {"low": half[0], "high": half[-1]} | dict(zip(["left", "right"], law.edges))
found |= {"half": distance(half, law), "two": distance(wide, other)}
say(
    """**Reading.** All population eigenvalues are one, and those of the samples lie between {low:.3f} and {high:.2f} at $\\alpha = 1/2$ (law: {left:.3f} and
    {right:.2f}). The distances from the law are {half:.4f} and {two:.4f}. As many independent draws from the law would be
    about $0.87/\\sqrt M$ away, {independent:.3f} at $\\alpha = 1/2$. The eigenvalues of a random matrix are not independent: two seldom lie close together, and they keep much closer to their law. So the fit to an
    actual spectrum can be tested sharply.""",
    independent=0.87 / np.sqrt(0.5 * p.examples),
    **found,
)

# %% [markdown]
# ## The edge
#
# Where exactly is the largest eigenvalue? We draw many samples at two sizes. A shortcut makes this cheap. A normal $X$ keeps its distribution under rotations and
# reflections. So a Householder reflection can turn its first row into $(r, 0, \dots, 0)$, where $r$ is the length of a normal vector (its distribution is called *chi*).
# Another one, from the other side, does the same to the first column below, and so on. Two diagonals of independent chi variables are left. `spiked_wishart` draws these
# directly, in time $N$ instead of $N^3$. The distribution of the eigenvalues is the same.


# %%
def top_pair(ell, ratio, examples, seed):
    """Largest eigenvalue of a sample with one spike, and its overlap with it."""
    matrix = spiked_wishart(ell, round(ratio * examples), examples, seed)
    last = len(matrix[0]) - 1
    chosen = {"select": "i", "select_range": (last, last)}
    value, vector = eigh_tridiagonal(*matrix, **chosen)
    return value[0], vector[0, 0] ** 2


def own_seed(*words):
    """One seed from several numbers; other numbers give independent draws."""
    whole = [round(1000 * w) for w in words]
    return int(np.random.SeedSequence(whole).generate_state(1, np.uint64)[0])


# %%
EDGE_SIZES = (50, 500)
edges = {n: [] for n in EDGE_SIZES}
for n in EDGE_SIZES:
    for k in range(20 * p.draws):
        value, _ = top_pair(1.0, 1.0, n, own_seed(1, 1, n, p.seed, k))
        edges[n].append(value)

# %% tags=["hide-input"]
tw, x = TracyWidom(1), np.linspace(-5, 4, 200)
raw = figures.panel("largest eigenvalue", "eigenvalue", "density")
scaled = figures.panel(
    "in units of the edge", "(largest − centre) / width", "density"
)
for color, n in zip(figures.SERIES[:2], EDGE_SIZES):
    style = {"color": color, "alpha": 0.5, "density": True, "label": f"M = N = {n}"}
    centre, width = edge_scale(n, n)
    raw.hist(edges[n], 30, **style)
    scaled.hist((np.array(edges[n]) - centre) / width, 30, **style)
raw.axvline(4, color=figures.COLORS["start"], ls=":")
scaled.plot(x, tw.pdf(x), color=figures.COLORS["theory"], label="Tracy-Widom")
for ax in (raw, scaled):
    ax.legend()
figures.figure(
    "fig_largest", raw, scaled,
    caption=f"The largest eigenvalue without a spike, {20 * p.draws:,} samples of each size, $\\alpha = 1$. First, the dotted line is the end of the bulk, 4. Second, the same "
    "samples less the centre $(\\sqrt{N - 1/2} + \\sqrt{M - 1/2})^2 / N$, close to the end of the bulk, in units of the width of the edge, which is of order $N^{-2/3}$; the curve is the Tracy-Widom density.",
    alt="Two histograms of the largest eigenvalue: at the larger size it is narrower and nearer to 4. In units of the "
    "edge both lie on each other and follow one skew density.",
)  # fmt: skip

# %% tags=["hide-input"]
small, large = (np.array(edges[n]) for n in EDGE_SIZES)
found = {"mean_small": small.mean(), "mean_large": large.mean()}
found |= {"factor": small.std() / large.std(), "tw_mean": tw.mean, "tw_sd": tw.std}
say(
    """**Reading.** The largest eigenvalue is below 4 on average ({mean_small:.2f} and {mean_large:.2f} at the two sizes), and its standard deviation is {factor:.1f} times smaller at
    the tenfold size: it falls as $N^{-2/3}$ (ten to the power 2/3 is 4.6), faster than the $N^{-1/2}$ of a mean. On this scale both histograms have one
    shape, skew to the right. It is the **Tracy-Widom law**, of mean {tw_mean:.2f} and standard deviation {tw_sd:.2f} in these units.""",
    **found,
)

# %% [markdown]
# ## Theorem 1: one spike
#
# Now let one population eigenvalue, the spike, be $\ell > 1$ and the others one. There is a transition at $c = 1 + \sqrt\alpha$, found by Baik, Ben Arous and Péché:
#
# * $\ell < c$: the largest sample eigenvalue stays at the edge $(1+\sqrt\alpha)^2$ and fluctuates by the Tracy-Widom law, whatever $\ell$ is.
# * $\ell > c$: it leaves the bulk and lies at $\psi(\ell) = \ell\left(1 + \frac{\alpha}{\ell - 1}\right)$. It fluctuates by a normal law of variance $2\ell^2 \psi'(\ell)/N$,
#   where $\psi'(\ell) = 1 - \alpha/(\ell-1)^2$. Its eigenvector has squared cosine $\ell\psi'(\ell)/\psi(\ell)$ with that of the population (below: their overlap), which
#   is less than one even for infinite $M$ and $N$.
#
# The paper states the location and the kind of fluctuations, but neither the variance nor the eigenvector. It asks for $\alpha \ge 1$, probably since the theorem it cites is for
# complex data with a ratio that it defines differently and takes to be at least one. For real data the statements hold for each $\alpha$ ([Paul 2007, Baik and Silverstein 2006, Bloemendal and
# Virág 2013](../book/references.md)).


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
def spiked_draws(ratio, sizes, distances, draws, seed):
    """Largest eigenvalues and overlaps (sizes, spikes, draws), all independent."""
    ells = 1 + np.array(distances) * np.sqrt(ratio)
    numbers = range(seed * draws, (seed + 1) * draws)
    one = lambda n, l, k: top_pair(l, ratio, n, own_seed(ratio, l, n, k))
    found = np.array(
        [[[one(n, l, k) for k in numbers] for l in ells] for n in sizes]
    )
    largest, overlap = np.moveaxis(found, -1, 0)
    return {"largest": largest, "overlap": overlap, **expected(ells, ratio, sizes)}


# %%
near = [0.0, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0]  # in units of sqrt(alpha)
here = spiked_draws(p.ratio, [p.examples], near, p.draws, p.seed)
rows = []
for j, l in enumerate(here["ells"]):
    top, shared = here["largest"][0, j], here["overlap"][0, j]
    error = top.std(ddof=1) / np.sqrt(p.draws)
    row = [f"{top.mean():.3f} ± {error:.3f}", f"{here['location'][j]:.3f}"]
    row += [f"{shared.mean():.3f}", f"{here['overlap_limit'][j]:.3f}"]
    rows.append([f"{l:.3f}", *row])
head = ["spike", "largest eigenvalue ± standard error", "limit", "overlap", "limit"]
figures.table(head, rows)


# %%
def spiked_spectrum(ell, alpha, N, seed):
    """All M eigenvalues of one sample with one spike, ascending."""
    size = max(2, round(alpha * N))
    values = eigvalsh_tridiagonal(*spiked_wishart(ell, size, N, seed))[-size:]
    values = np.where(values > 1e-12 * values[-1], values, 0)
    return np.append(np.zeros(size - len(values)), values)


# %%
def transition(alpha, ell, N, seed, size=None):
    """One sample beside theory, as two panels: its spectrum, and its path over ell."""
    values, law = spiked_spectrum(ell, alpha, N, seed), MarchenkoPastur(alpha)
    spectrum = figures.panel(f"one sample, N = {N}", "eigenvalue", "density", size)
    figures.density(spectrum, values, law, min(30, 5 + min(len(values), N) // 10))
    spectrum.plot(values[-1:], [0], "o", color=figures.COLORS["H"], clip_on=False)
    path = figures.panel(f"α = {alpha:g}", "spike ℓ", "largest eigenvalue", size)
    ells = np.linspace(1, max(1.2 * ell, 1 + 3 * alpha**0.5), 15)
    tops = [top_pair(l, alpha, N, seed)[0] for l in ells]
    path.plot(ells, tops, "o", color=figures.COLORS["G"])
    path.plot(ells, spike_location(ells, alpha), color=figures.COLORS["theory"])
    for ax, at in ((spectrum, spike_location(ell, alpha)), (path, ell)):
        ax.axvline(at, color=figures.COLORS["H"], ls=":")
    return [spectrum, path]


# %% tags=["hide-input"]
mean, spread = here["overlap"][0].mean(-1), here["overlap"][0].std(-1, ddof=1)
fine = np.linspace(1, here["ells"][-1], 300)
shared = figures.panel("eigenvectors", "spike ℓ", "squared cosine", figures.THIRD)
error = {"yerr": 2 * spread / np.sqrt(p.draws), "label": f"{p.draws} samples"}
shared.errorbar(here["ells"], mean, fmt="o", color=figures.COLORS["G"], **error)
theory = {"color": figures.COLORS["theory"], "label": "theory"}
shared.plot(fine, spike_overlap(fine, p.ratio), **theory)
shared.legend()
figures.figure(
    "fig_transition",
    *transition(p.ratio, p.ell, p.examples, p.seed, figures.THIRD),
    shared,
    caption=f"The transition at $c = {1 + p.ratio**0.5:.3f}$, for $\\alpha = {p.ratio:g}$ and $N = {p.examples}$. First two panels: one sample, whose random numbers stay the same while the spike "
    f"moves; the dot on the axis is its largest eigenvalue (in the second panel dots, with theory as a curve), the dotted line marks $\\ell = {p.ell:g}$ and its place by theory. Third panel: means and two standard errors.",
    alt="First, the eigenvalues of one sample with one spike, the Marchenko-Pastur density and the predicted place of the largest. "
    "Second, the largest eigenvalue against the spike: flat up to the threshold, then rising. Third, the squared cosine of the eigenvectors, small below the threshold.",
)

# %% tags=["hide-input"]
level, far = here["largest"][0].mean(-1), here["location"]
found = {"n": p.examples, "low": level[1], "edge": far[1]}
found |= {"top": level[-1], "psi": far[-1]}
found |= {"corner": mean[3], "cosine": mean[-1], "limit": here["overlap_limit"][-1]}
say(
    """**Reading.** Half-way to the threshold the largest eigenvalue is {low:.2f} on average, and the edge is at {edge:.2f}. With a spike four times as far from 1 as the threshold it is {top:.2f} ($\\psi$: {psi:.2f}), and the squared cosine is
    {cosine:.2f} (limit: {limit:.2f}). A finite $N$ rounds the corner off: with {n} examples the squared cosine at the threshold itself is {corner:.2g} on average, where the limit is 0.""",
    **found,
)

# %% [markdown]
# Now move the ratio $\alpha = M/N$, the spike $\ell$, and $N$. In Jupyter a new sample is drawn when a slider is released. Just above the threshold ($\ell = 1.6$ at
# $\alpha = 1/4$, $\ell = 2.25$ at $\alpha = 1$) the largest eigenvalue hardly leaves the bulk, and its eigenvector says little of the spike's direction.


# %% tags=["hide-input"]
def spike_moved(alpha, ell, N, seed=p.seed):
    """Sample and theory at one place, in fixed axes."""
    spectrum, path = transition(alpha, ell, N, seed)
    spectrum.set(xlim=(0, 10), ylim=(0, 1.2), title="eigenvalues of one sample")
    path.set(xlim=(0.9, 6.2), ylim=(0, 10), title="largest eigenvalue and spike")
    value, overlap = top_pair(ell, alpha, N, seed)
    above = "above" if ell > 1 + alpha**0.5 else "not above"
    sentence = f"α = {alpha:g}, N = {N}: ℓ = {ell:g} is {above} the threshold of {1 + alpha**0.5:.2f}. "
    sentence += f"The largest eigenvalue is {value:.2f}, by theory {spike_location(ell, alpha):.2f}; "
    sentence += f"the squared cosine {overlap:.2f}, by theory {spike_overlap(ell, alpha):.2f}."
    return sentence, spectrum, path


# %% tags=["hide-input"]
frames = {
    "alpha": [0.25, 1.0, 2.0],
    "ell": [1.6, 2.25, 3.0],
    "N": [100, 800],
}
if p.scale == "smoke":
    frames = {"alpha": [0.5, 1.0], "ell": [1.5, 3.0], "N": [50, 100]}
ells = sorted({*frames["ell"], 1.2, 1.4, 1.5, 1.8, 2.0, 2.5, 3.5, 4.0, 5.0})
explore(
    spike_moved,
    frames,
    name="fig_explore_spike",
    alt="Left, histogram of the eigenvalues of one sample with the Marchenko-Pastur density and the predicted place of the "
    "largest; right, its largest eigenvalue against the spike, with theory.",
    caption="One sample with one spike. First, the dot on the axis is its largest eigenvalue, the dotted line its place by theory; second, its largest eigenvalue as the spike moves, with theory (curve) and the chosen spike (dotted).",
    start={"alpha": 1.0, "ell": 3.0, "N": frames["N"][1]},
    live={
        "alpha": [0.1, 0.25, 0.5, 1.0, 2.0, 4.0],
        "ell": ells,
        "N": [50, 100, 200, 400, 800],
        "seed": range(p.seed, p.seed + 10),
    },
    labels={"alpha": "ratio α", "ell": "spike ℓ"},
)

# %% [markdown]
# ### Every statement of Theorem 1, tested
#
# The stored runs hold 400 samples (50 for each of eight seeds) of each combination of three ratios, seven spikes and four sizes up to $N = 6{,}400$, each with random numbers of its own. We take
# all samples of one combination together, and measure their distance from the law. It is divided by the distance that as many draws from the law itself
# exceed once in a thousand times: a number above one says that the law does not hold there. A row of the table covers the three ratios: mean, deviation and distance are those of the ratio that is
# farthest from the law, and the share above 99 % is the mean over the ratios.

# %%
SIZES, DISTANCES = [100, 400, 1600, 6400], [0.0, 0.5, 0.8, 1.0, 1.5, 2.0, 4.0]
RATIOS = (0.5, 1.0, 2.0)
many = {"sizes": SIZES, "distances": DISTANCES, "draws": 50}
grid = [
    {"ratio": a, **many, "seed": s} for a in RATIOS for s in range(min(8, p.seeds))
]
stored = Store().sweep("spikes", spiked_draws, grid, run=p.scale == "paper")


# %%
def apart(draws, law):
    """Distance of draws from a law; 1 is what one set in a thousand exceeds."""
    return kstest(draws, law.cdf).statistic * np.sqrt(len(draws)) / 1.95


def standardised(ratio, size, spike):
    """All samples of a cell in units of their law: Tracy-Widom up to c, then normal."""
    runs = stored.where(ratio=ratio)
    drawn, theory = runs.values("largest")[:, size, spike].ravel(), runs.results[0]
    if DISTANCES[spike] <= 1:
        return (drawn - theory["edge_centre"][size]) / theory["edge_width"][size]
    return (drawn - theory["location"][spike]) / theory["deviation"][size, spike]


# %%
def cell(size, t):
    """A row of the table: mean, deviation and distance, farthest of the ratios."""
    law = tw if t <= 1 else norm
    z = [standardised(a, size, DISTANCES.index(t)) for a in RATIOS]
    centre, width = (tw.mean, tw.std) if t <= 1 else (0, 1)
    mean = max((v.mean() - centre for v in z), key=abs)
    spread = max((v.std(ddof=1) / width for v in z), key=lambda s: abs(s - 1))
    beyond = np.mean([(v > law.ppf(0.99)).mean() for v in z])
    far = max(apart(v, law) for v in z)
    name = "Tracy\u2011Widom" if t <= 1 else "normal"
    numbers = written(mean, "+.2f"), f"{spread:.3f}", f"{far:.2f}"
    return [f"{SIZES[size]:,}", name, *numbers, f"{100 * beyond:.1f} %"]


# %% tags=["hide-input"]
full = all(len(stored.where(ratio=a)) > 0 for a in RATIOS)
head = [r"$(\ell-1)/\sqrt\alpha$", "N", "law", "mean, less the law's"]
head += ["deviation / the law's", "distance (limit: 1)", "above its 99 % point"]
if full:
    shown = [(t, i) for t in DISTANCES for i in (0, -1)]
    figures.table(head, [[f"{t:g}", *cell(i, t)] for t, i in shown])

# %% tags=["hide-input"]
ALT = """Left, histogram of the standardised largest eigenvalue and the normal density;
right, distances from the limit against N on logarithmic axes."""
spiked = figures.panel("spike at 1 + 2√α", "(largest − ψ) / deviation", "density")
rates = figures.panel("distance from the limit", "N", "root mean square")
rates.set(xscale="log", yscale="log")
fall = {}  # powers of N
if full:
    z = standardised(1.0, -1, DISTANCES.index(2.0))
    style = {"density": True, "color": figures.COLORS["G"], "alpha": 0.5}
    spiked.hist(z, 30, label="samples", **style)
    spiked.plot(x, norm.pdf(x), color=figures.COLORS["theory"], label="normal law")
    runs = stored.where(ratio=1.0)
    for color, t in zip(figures.SERIES, (0.0, 0.8, 1.0, 2.0)):
        j = DISTANCES.index(t)
        off = runs.values("largest")[:, :, j] - runs.results[0]["location"][j]
        off = np.sqrt((off**2).mean((0, 2)))
        fall[t] = np.polyfit(np.log(SIZES), np.log(off), 1)[0]
        name = f"spike at 1 + {t:g}√α".replace(" 1√", " √") if t else "no spike"
        rates.plot(SIZES, off, "o-", color=color, label=name)
    spiked.legend()
    rates.legend()
figures.figure(
    "fig_fluctuations", spiked, rates,
    caption="Stored runs, $\\alpha = 1$. First, the largest eigenvalue at $N = 6{,}400$ with a spike far beyond the threshold. Second, the root mean square distance of the largest eigenvalue from its limit.",
    alt=ALT if full else "Two empty panels, since the stored runs are missing.",
)  # fmt: skip


# %%
def measured(measure):
    """A measure of each of the three ratios."""
    return Estimate([measure(a) for a in RATIOS] if full else [], stored.name)


def excess(a):
    """Mean of the largest eigenvalue, 0.8 of the way to c, less that of Tracy-Widom."""
    at = DISTANCES.index(0.8)
    return [standardised(a, i, at).mean() - tw.mean for i in range(len(SIZES))]


def share(t, i):
    """Percentage of samples above the 99 % point of Tracy-Widom."""
    at, limit = DISTANCES.index(t), tw.ppf(0.99)
    return measured(lambda a: 100 * (standardised(a, i, at) > limit).mean())


# %% tags=["hide-input"]
slope = lambda a: np.polyfit(np.log(SIZES), np.log(np.abs(excess(a))), 1)[0]
found = {"off_small": measured(lambda a: excess(a)[0]), "off_large": measured(lambda a: excess(a)[-1]), "rate": measured(slope)}  # fmt: skip
exponential = np.random.default_rng(0).exponential(size=400) - 1  # as in a cell
found |= {"exponential": apart(exponential, norm)}
found |= {"none": share(0.0, -1), "close": share(0.8, -1), "at": share(1.0, -1), "small": share(0.8, 0)}  # fmt: skip
found |= {f"fall_{i}": fall.get(t) for i, t in enumerate((0.0, 0.8, 1.0, 2.0))}
say(
    """**Reading.** Without a spike and far beyond the threshold the stored samples follow their laws at $N = 6{,}400$. The theorem does not say how large $N$ must be. With a spike at 0.8 of the way to the
    threshold the mean is off by {off_small:.2f} widths at $N = 100$ and by {off_large:.2f} at $N = 6{,}400$; the excess falls as $N$ to the power {rate:.2f} (mean and standard deviation over the three ratios). As many draws
    from an exponential law, standardised in the same way, have a distance of {exponential:.1f} on the scale of the table.

    The second panel of the figure shows the distance from the limit itself. It falls as $N$ to the power {fall_0:.2f} without a spike, {fall_1:.2f} and {fall_2:.2f} with one below and at the threshold, and {fall_3:.2f} beyond it; the theorem has $-2/3$ up to the threshold and $-1/2$ beyond it. A sample can be near its limit and not yet follow its law, since the
    width of the law shrinks as fast.

    This matters for counting where $N$ is small. An eigenvalue above the 99 % point of the Tracy-Widom law is usually taken for an outlier. At $N = 100$ that happens in {small:.1f} % of the samples with a spike
    at 0.8 of the way, which is below the threshold. At $N = 6{,}400$ it happens in {close:.1f} % of them, in {none:.1f} % of those without a spike, and in {at:.1f} % with one at the threshold, where neither law holds.""",
    **found,
)

# %% [markdown]
# ## Theorem 2: several spikes, on both sides
#
# Now let $\Sigma - I$ have a few nonzero eigenvalues of any size. The same $\psi$ maps a population eigenvalue to its sample eigenvalue on either side of the bulk, wherever
# $\psi'(\ell) > 0$, that is $|\ell - 1| > \sqrt\alpha$. On the *left* this means $\ell < 1 - \sqrt\alpha$, and such an $\ell$ exists for $\alpha < 1$ only. With more
# parameters than examples a small population eigenvalue gives no outlier. The theorem as the paper words it, 'all eigenvalues of $\Sigma$ that are close to zero produce
# small outlier eigenvalues', needs this condition.
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
rows = []
for j, l in enumerate(one["ells"]):
    spread = one["deviation"][0][j]
    places = [f"{one['sample'][j]:.3f}", f"{one['location'][j]:.3f}"]
    places += [f"{spread:.2f}" if spread else "none"]
    cosines = [f"{one['overlap'][j]:.3f}", f"{one['overlap_limit'][j]:.3f}"]
    rows.append([f"{l:g}", *places, *cosines])
head = ["spike", "sample eigenvalue", "theory", "its deviation"]
figures.table([*head, "overlap", "theory"], rows)

# %%
grid = [
    {"ratio": a, "examples": 800, "spikes": l, "entries": e, "seed": s}
    for (a, l) in SPIKES.items()
    for e in ("normal", "signs")
    for s in range(p.seeds)
]
second = Store().sweep("theorem2", theorem2, grid, run=p.scale == "paper")


# %% tags=["hide-input"]
def over_runs(key, ratio):
    """A stored quantity over seeds and both kinds of entries, one entry of it each."""
    runs = second.where(ratio=ratio)
    return (
        [Estimate(v, second.name) for v in runs.values(key).T]
        if runs
        else [None] * 6
    )


found = {"n": p.examples} | dict(zip(["left", "right"], map(int, one["outliers"])))
(few, also), (many, _) = (over_runs("outliers", a)[:2] for a in SPIKES)
cosines = over_runs("overlap", 0.25)
found |= dict(zip(["eight", "four", "_", "tenth", "fifth"], cosines))
del found["_"]
say(
    """**Reading.** The sample on this page, with $\\alpha = 1/4$ and {n} examples, has {left} outliers to the left and {right} to the right; theory expects two and two, since four of
    the six spikes are beyond the thresholds 1/2 and 3/2. In the stored runs ($N = 800$) the mean numbers are {few:.3g} and {also:.3g}. With $\\alpha = 2$ small population eigenvalues (0.02, 0.1, 0.5) leave
    {many:.3g} outliers on the left.

    The theorem calls the eigenvectors of outliers 'close to the corresponding ones of $\\Sigma$'. The squared cosine for $\\ell = 8$ is {eight:.3f}, for 4 it is {four:.3f}, and for the left
    spikes 0.1 and 0.2 it is {tenth:.3f} and {fifth:.3f} (stored runs, $\\alpha = 1/4$). The limits are {limits}, so a larger $N$ brings none of them to one.""",
    limits=", ".join(f"{one['overlap_limit'][j]:.3f}" for j in (0, 1, 3, 4)),
    few=few and few.mean,
    also=also and also.mean,
    many=many and many.mean,
    **found,
)

# %% [markdown]
# ## Checks
#
# Theorems are checks of the code here, not claims: if one fails, the code is wrong.

# %% tags=["nbval-check-output"]
published = {0: 0.83190806620295, -1: 0.58378989551972, -2: 0.27432019790921}
worst = max(abs(tw.cdf(s) - v) for s, v in published.items())
check("Tracy-Widom law at published values, to 1e-10", worst, below=1e-10)
check("an exponential law fails the test", apart(exponential, norm), above=1)

# %% tags=["nbval-check-output"]
if full:
    cells = lambda t: [standardised(a, -1, DISTANCES.index(t)) for a in RATIOS]
    far = max(apart(z, tw) for z in cells(0.0))
    check("stored, no spike: Tracy-Widom", far, below=1)
    far = max(apart(z, norm) for t in (2.0, 4.0) for z in cells(t))
    check("stored, spikes at 1 + 2√α and 1 + 4√α: the normal law", far, below=1)
    runs = [stored.where(ratio=a) for a in RATIOS]
    limit = [r.results[0]["overlap_limit"][4:] for r in runs]
    cosines = [r.values("overlap")[:, -1, 4:].mean((0, 2)) for r in runs]
    far = np.abs(np.subtract(cosines, limit)).max()
    check("stored, beyond c: overlap, to 0.01", far, below=0.01)

# %% tags=["nbval-check-output"]
if len(second) == len(grid):
    zeros = [max(0, round(800 * (q["ratio"] - 1))) for q in second.parameters]
    check("stored: M − N zeros", (second.values("zeros") == zeros).all())
    far = second.values("bulk_distance").max()
    check("stored, several spikes: bulk, to 0.05", far, below=0.05)

# %% [markdown]
# ## Limits
#
# * The paper defines $\Sigma := \mathbb{E}(G) = \frac1N T X X^\top T^\top = TT^\top$. The middle expression is $G$, not its expectation. The two differ at any size: with
#   $\Sigma = I$ and $\alpha = 1$ the norm of $G - \Sigma$ is 3 in the limit.
# * 'Without loss of generality' the examples have independent entries of mean zero. Clusters do not, and their means are what makes outliers ([Chapter
#   8](08_examples.ipynb)).
# * Samples are real. For complex data the Tracy-Widom law is that of $\beta = 2$, which `TracyWidom` has too.
# * A few hundred samples cannot tell the Tracy-Widom law from a normal law of its mean and variance.
#
# ## Try it
#
# **Exercise: how many examples to see a spike.** A direction has population variance $\ell = 1.5$, all others one, and $M = 400$. How many examples are needed for its
# sample eigenvalue to leave the bulk? Call `top_pair(1.5, 400 / N, N, seed=0)` below and above that $N$: it returns the largest eigenvalue and the overlap.
#
# <details><summary>Answer</summary>
#
# $\ell > 1 + \sqrt{M/N}$ means $N > M/(\ell - 1)^2 = 1600$. Just above, the overlap is still near zero: `spike_overlap(1.5, 400 / 2000)` is 0.14. For an overlap of one
# half it takes more than 4,000.
#
# </details>
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("07_random_matrix")

# %% tags=["hide-input"]
foot(p, stored, second)
