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
# # The number of parameters
#
# > **The paper's claims.** With the data fixed, a wider network has the same large eigenvalues, in number and in size; only the bulk at
# > zero grows. The *share* of negative eigenvalues stays the same, so that ranked in per cent they fall on one curve
# > ([Sagun et al. 2017](../book/references.md), Sections 3.2 and 3.4, Figures 3 and 5).
#
# The networks have one hidden layer of $h$ ReLU units and learn MNIST digits: $N$ examples in $C = 10$ classes, $M$ parameters, Hessian
# $H = G + R$ as in [Chapter 2](02_ggn.ipynb). With 1,000 digits and 70 units $M$ is 55,660, and $H$ would take 23 GiB. It need
# not be stored: its rank is at most $N(C-1) + 2(C-1)h$, and a matrix of that order has the same nonzero eigenvalues, as $AA^\top$ and $A^\top A$ have.
# `spectrum` takes this route by itself, so what follows are *complete* spectra. The letters are listed under
# [notation](../book/notation.md).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
widths: list = []  # numbers of hidden units; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
step_size: float = 0.1  # constant step of gradient descent
seed: int = 0  # of the digits and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
# fmt: off
from functools import cache
from itertools import product

import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers, spectrum, top_eigenpairs
from hesslib.book import figures, parameters
from hesslib.book.claims import stored, verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import integer, integers, real, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run, written
from hesslib.experiments.data import mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import DivergenceError, accuracy, train

# %% tags=["hide-input"]
p = resolve(
    globals(),
    widths=integers(1, smoke=[2, 4], quick=[10, 30, 50], paper=[10, 30, 50, 70]),
    examples=integer(10, 4990, smoke=40, quick=200, paper=1000),
    iterations=integer(1, smoke=40, quick=1000, paper=5000),
    step_size=real(1e-6, 100),
    seed=integer(0),
    seeds=integer(1, smoke=1, quick=5, paper=5),
)
this_run(p)

# %% [markdown]
# ## Train each width, find every eigenvalue
#
# All widths get the same digits, the same step size and the same number of iterations. Of the eigenvalues we keep those that are not
# zero; the number of zeros follows from $M$.


# %%
def sized(width, examples, iterations, step_size, seed):
    """Train one width; returns the spectrum at the end with loss and accuracies."""
    data = mnist(examples, seed=seed)
    model = fully_connected([data.dimension, width, data.classes], seed=seed)
    options = {"step_size": step_size, "iterations": iterations}
    history = train(model, data.inputs, data.targets, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    values = spectrum(risk.hessian()).eigenvalues
    return {
        "eigenvalues": values[values != 0],
        "parameters": len(values),
        "loss": history.losses[-1],
        "test_accuracy": accuracy(model, data.test_inputs, data.test_targets),
    }


# %%
setting = {k: getattr(p, k) for k in ("examples", "iterations", "step_size")}
try:
    here = {w: sized(w, seed=p.seed, **setting) for w in p.widths}
except DivergenceError as error:
    raise parameters.ParameterError(
        f"step_size = {p.step_size} is too large: {error}") from None
above = lambda r, share: int((r["eigenvalues"] > share * r["eigenvalues"][-1]).sum())
below = lambda r: int((r["eigenvalues"] < -1e-12).sum())
ended = {w: learnt(r["loss"], 10) for w, r in here.items()}
lines = [
    [w, f"{r['parameters']:,}", written(r["loss"], ".2g"), "yes" if ended[w] else "no",
     written(r["eigenvalues"][-1], ".3g"), above(r, 0.1), below(r), 9 * w]
    for w, r in here.items()
]
head = ["$h$", "$M$", "training loss", "learnt", "largest", "above a tenth of it"]
figures.table([*head, "below $-10^{-12}$", "$(C-1)h$"], lines)

# %% [markdown]
# The runs of this page use fewer digits than the paper. Its own size, 1,000 digits and 5,000 iterations, is read from stored runs over
# several seeds.

# %%
paper_setting = {"examples": 1000, "iterations": 5000, "step_size": 0.1}
own = p.scale == "paper"
asked, asked_widths = (setting, p.widths) if own else (paper_setting, [10, 30, 50, 70])
grid = [{"width": w, "seed": s, **asked} for s in range(p.seeds) for w in asked_widths]
runs = Store().sweep("width", sized, grid, run=own)
shown = {w: runs.where(width=w).results for w in asked_widths}
full = len(runs) == len(grid) and len(asked_widths) > 1  # every width for each seed


def by_seed(statistic):
    """A statistic of the stored runs: (seeds, widths)."""
    runs_of = lambda s: [runs.where(seed=s, width=w).results[0] for w in asked_widths]
    return np.array([[statistic(r) for r in runs_of(s)] for s in range(p.seeds)])


# %% tags=["hide-input"]
COLORS = [*figures.SERIES[4:], "#2a9d8f", "#d1495b", *figures.GREYS] * 20
color_of = dict(zip([*asked_widths, *(w for w in p.widths if w not in asked_widths)], COLORS))


def draw_edge(ax, groups):
    """The 120 largest eigenvalues by rank, one colour for each width."""
    for w, found in groups.items():
        top = np.array([r["eigenvalues"][::-1][:120] for r in found])
        if len(found) == 1:
            figures.ranked(ax, top[0], color_of[w], f"{w} units")
        else:
            figures.band(ax, np.arange(1, 121), top, color_of[w], f"{w} units", marker=".", lw=0.8)
    ax.legend(loc="lower left")


titles = f"this run, N = {p.examples:,}, seed {p.seed}", f"stored, {asked['examples']:,} digits, seeds 0 to {p.seeds - 1}"
labels = {"xlabel": "rank from the largest", "ylabel": "eigenvalue", "xscale": "log", "yscale": "log"}
own_runs, kept = {w: [r] for w, r in here.items()}, {w: found for w, found in shown.items() if found}
named, rings = ", ".join(map(str, p.widths)), "; rings: negative" if any(r["eigenvalues"][-120:].min() < 0 for r in here.values()) else ""
figures.figure(
    "fig_edge", *figures.here_and_stored(draw_edge, own_runs, kept, *titles, **labels),
    caption=f"The largest eigenvalues, at most 120, for growing width (the paper's Figure 3{rings}), for the stored runs median and range over seeds.",
    alt=f"The 120 largest eigenvalues by rank on logarithmic axes, one colour for each number of hidden units: left {named} units in "
    "this run, right the stored runs as median and range.",
)

# %% tags=["hide-input"]
if dead := [w for w in here if not ended[w]]:
    say(
        "**This run.** With {widths} hidden {unit} the network has not learnt: its loss is above a tenth of that of a guess. Its spectrum "
        "says nothing about the claims.", widths=", ".join(map(str, dead)), unit="unit" if dead == [1] else "units",
    )
if sum(ended.values()) > 1:
    tops = [here[w]["eigenvalues"][-1] for w in here if ended[w]]
    few, *_, most = sorted(above(here[w], 0.1) for w in here if ended[w])
    say(
        "**This run.** The largest eigenvalue differs by a factor of {factor:.2f} between the widths. In each network {counts} eigenvalues exceed a tenth of it.",
        factor=max(tops) / min(tops), counts=f"{few} to {most}" if few < most else few,
    )

# %% [markdown]
# ### Equal iterations, and per unit of loss
#
# After the same number of iterations a wider network has fitted the digits better, and perhaps its eigenvalues are smaller for that reason. So we also divide the largest by the loss.

# %%
top = by_seed(lambda r: r["eigenvalues"][-1]) if full else None
loss = by_seed(lambda r: r["loss"]) if full else None


def change(values):
    """Factor by which a fitted power changes over the widths, for each seed."""
    x = np.log(asked_widths)
    slopes = np.polyfit(x, np.log(values).T, 1)[0] if full else np.array([])
    named = {"of": "the experiment `width`"}
    return Estimate(np.exp(slopes * (x[-1] - x[0])), **named), Estimate(slopes, **named)


raw, per_loss = change(top), change(top / loss if full else None)
grown = by_seed(lambda r: r["parameters"])[0] if full else [1, np.nan]


# %% tags=["hide-input"]
drawn = []
for title, y in (("after equal iterations", "largest eigenvalue"), ("per unit of training loss", "largest eigenvalue / loss")):
    ax = figures.panel(title, "hidden units", y, xscale="log", yscale="log")
    if full:
        for row in top if "iterations" in title else top / loss:
            ax.plot(asked_widths, row / row[0], "o-", color=figures.COLORS["H"], lw=1.2)
    ax.axhspan(0.8, 1.25, color=figures.COLORS["theory"], alpha=0.12, lw=0)
    ax.set(ylim=(0.5, 2), xticks=asked_widths, xticklabels=asked_widths, ylabel=f"{y}, first = 1")
    ax.set(yticks=[0.5, 0.8, 1, 1.25, 2], yticklabels=["0.5", "0.8", "1", "1.25", "2"])
    ax.minorticks_off()
    drawn.append(ax)
figures.figure(
    "fig_size", *drawn,
    caption="The largest eigenvalue against the width, over that of the smallest width, after equal iterations and per unit of loss; one line for each seed "
    "of the stored runs. Shaded: what counts as the same size, a factor of 1.25.",
    alt="Two panels of the largest eigenvalue against the number of hidden units on logarithmic axes, one line a seed, with a band of a "
    "factor 1.25 around one; left as it is, right divided by the training loss.",
)

# %% tags=["hide-input"]
mean = lambda f: ", ".join(written(v, ".3g") for v in by_seed(f).mean(0)) if full else None
say(
    r"""**Stored runs.** While $M$ grows by a factor of {growth:.1f}, the number of eigenvalues above a tenth of the largest stays at {counts} (mean for
    each width). The largest eigenvalue falls after equal iterations, to {raw:.2f} of its value at the smallest width (a power {slope:.3f} of the
    width; standard deviations over seeds). Per unit of loss it hardly changes: {per_loss:.2f}, a power {flat:.3f}.

    So divided by the loss the size is the same within a factor of 1.25, and after equal iterations it falls slowly, perhaps because the wider networks have
    fitted the digits better.""" if full and 0.8 < per_loss[0].mean < 1.25 and raw[0].mean < 0.95 else
    r"""**Stored runs.** While $M$ grows by a factor of {growth:.1f}, the number of eigenvalues above a tenth of the largest is {counts} (mean for each
    width). From the smallest to the largest width the largest eigenvalue changes by a factor of {raw:.2f} (a power {slope:.3f} of the width), and per unit
    of loss by {per_loss:.2f} (a power {flat:.3f}).""",
    growth=grown[-1] / grown[0], counts=mean(lambda r: above(r, 0.1)), raw=raw[0], slope=raw[1], per_loss=per_loss[0], flat=per_loss[1],
)

# %% [markdown]
# ## Do the outliers on digits number $C - 1$?
#
# [Chapter 3](03_data.ipynb) finds $k - 1$ outliers for $k$ clusters that are not far apart. What of real data? We follow networks of
# this page through training and look at the ratio of neighbours behind rank $C - 1 = 9$, and behind rank $C$ for comparison.


# %%
def followed(width, moments=4, most=20):
    """Training losses and leading eigenvalues along one run."""
    data = mnist(p.examples, seed=p.seed)
    model = fully_connected([data.dimension, width, data.classes], seed=p.seed)
    at = np.unique(
        np.geomspace(min(10, p.iterations), p.iterations, moments).astype(int))
    options = {"iterations": p.iterations, "record": at.tolist(), "progress": False}
    way = train(model, data.inputs, data.targets, step_size=p.step_size, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    leading = lambda w: top_eigenpairs(risk.at(w).hessian(), most, progress=False)
    return (np.array(way.losses),
            np.array([leading(w).eigenvalues for w in way.parameters]))


# %%
ways = {w: followed(w) for w in dict.fromkeys(p.widths[:2])}
digits = {name: [] for name in (
    "one hidden layer, Ch. 4", "two, narrow, Ch. 1", "convolutional, Ch. 5",
    "small images, Ch. 9")}
wide, narrow, convolutional, small_images = digits.values()
wide += [(r["loss"], r["eigenvalues"][::-1][:20]) for _, r, _ in stored("width")]
for q, r, _ in stored("spectrum"):
    if q["data"] == "mnist":
        narrow += [(r["losses"][i], r["eigenvalues"][i][::-1][:20]) for i in (0, -1)]
for q, r, _ in stored("population"):
    if q["kind"] == "digits":
        small_images += [(r["losses"][i], r["top"][i, 3]) for i in (0, -1)]
for q, r, _ in stored("converged"):
    if q["exact_at"] < 0:  # the others store one spectrum of a smaller network
        convolutional += [(loss, v) for loss, v in zip(r["loss"], r["top"])
                          if len(v) > 10 and np.isfinite([loss, *v]).all()]

# %% tags=["hide-input"]
drawn = []
marks = dict(zip(digits, ("o", "s", "^", "v")))
shades = dict(zip(digits, (figures.COLORS["H"], figures.GREYS[0], figures.COLORS["theory"], figures.COLORS["R"])))
for rank in (9, 10):
    ax = figures.panel(f"behind rank {rank}", "training loss", "ratio of neighbours", xscale="log")
    for name, found in digits.items():
        x, y = zip(*((loss, v[rank - 1] / v[rank]) for loss, v in found)) if found else ((), ())
        ax.plot(x, y, marks[name], color=shades[name], ms=4, alpha=0.7, label=name)
    for w, (losses, tops) in ways.items():
        ax.plot(losses, tops[:, rank - 1] / tops[:, rank], "-", color=color_of[w], label=f"this run, {w} units")
    ax.set(ylim=(0.9, 5), xlim=(4, 4e-4))
    drawn.append(ax)
drawn[1].legend(loc="upper left", fontsize=8)
figures.figure(
    "fig_nine", *drawn,
    caption=r"Ratios $\lambda_9/\lambda_{10}$ (behind rank 9) and $\lambda_{10}/\lambda_{11}$ (behind rank 10) of the Hessian on digits, against the training loss, "
    "which falls from left to right. Points: stored networks of four chapters. Lines: networks of this page along their training.",
    alt="Two panels of the ratio of neighbouring eigenvalues against the training loss, behind rank 9 and behind rank 10, for stored networks "
    "on digits as points and for networks of this run as lines.",
)

# %% tags=["hide-input"]
width, (losses, tops) = list(ways.items())[-1]
alive = tops[:, 9] > 1e-10 * tops[:, 0]  # else the tenth is zero up to rounding, and the ratio says nothing
losses, tops = losses[alive], tops[alive]
ratio = tops[:, 8] / tops[:, 9]
if len(ratio) > 1:
    say(
        r"""**This run.** Along the training with {width} hidden {unit} the largest ratio of neighbours is behind rank 9 at {nine} of {moments} moments. The ratio
        behind rank 9 is largest, {peak:.1f}, at a training loss of {at:.2g}; at the last of them, at a loss of {end:.2g}, it is {last:.1f}.""",
        width=width, unit="unit" if width == 1 else "units", nine=sum(count_outliers(v, "ratio") == 9 for v in tops) or "none", moments=len(tops), peak=float(ratio.max()),
        at=float(losses[ratio.argmax()]), end=float(losses[-1]), last=float(ratio[-1]),
    )
elif not len(ratio):
    say("**This run.** The tenth eigenvalue is zero up to rounding at every moment of this training, so no ratio of neighbours is defined there.")

# %%
late = {
    name: [(loss, v) for loss, v in digits[long] if loss < 1]
    for name, long in zip(("wide", "narrow", "conv", "small"), digits)
}
nine, facts = {}, {}
for name, found in late.items():
    hits = [100 * (count_outliers(v, "ratio") == 9) for _, v in found]
    nine[name] = Estimate(hits).mean
    for rank in (9, 10):
        ratios = [v[rank - 1] / v[rank] for _, v in found]
        facts[f"{name}{rank}"] = Estimate(ratios).median
    losses = Estimate(loss for loss, _ in found)
    facts |= {f"{name}_low": losses.low, f"{name}_high": losses.high}

# %% tags=["hide-input"]
nines = lambda low, high: [count_outliers(v, "ratio") == 9 for loss, v in digits["convolutional, Ch. 5"] if low < loss < high]
words = lambda hits: f"{sum(hits)} of {len(hits)}" if len(hits) else None
say(
    r"""**Stored networks.** By the ratio rule exactly $C - 1 = 9$ outliers are counted in {small:.0f} % of the networks on small images (training loss
    {small_low:.2g} to {small_high:.2g}), in {wide:.0f} % of those with one hidden layer ({wide_low:.2g} to {wide_high:.2g}), in {narrow:.0f} % of the narrow ones of
    Chapter 1 ({narrow_low:.2g} to {narrow_high:.2g}) and in {conv:.0f} % of the convolutional ones ({conv_low:.2g} to {conv_high:.2g}). By chance the largest ratio would fall behind one given rank of the first 19 in 5 %. The median
    ratio behind rank 9 is {small9:.2f}, {wide9:.2f}, {narrow9:.2f} and {conv9:.2f}; behind rank 10 it is {small10:.2f}, {wide10:.2f}, {narrow10:.2f} and {conv10:.2f}.

    So in {mostly} of the {of} families the largest ratio mostly stands behind rank 9 = $C - 1$, and in {others} it mostly does not. $C$ is 10 in all of
    them; Chapters 3 and 8 vary the number of clusters. The gap is wide while the digits are being learnt. In the convolutional networks nine are counted in {early} at a loss of 0.1 and in {late} at 0.001 (all runs and batches together; the verdicts take means over runs): there the
    gap closes as the loss falls. In Chapter 1 the second hidden layer may matter too.""",
    mostly=sum(share > 50 for share in nine.values()), of=len(nine), others=sum(share <= 50 for share in nine.values()),
    **nine, **facts, early=words(nines(0.04, 0.2)), late=words(nines(0, 0.002)),
)

# %% [markdown]
# ## Negative eigenvalues
#
# Now the other end of the spectrum. The paper ranks the negative eigenvalues in per cent of $M$ and sees the curves of all widths end at
# the same place.


# %% tags=["hide-input"]
def draw_negatives(ax, groups):
    """Negative eigenvalues against rank in per cent, one colour for each width."""
    for w, found in groups.items():
        for i, r in enumerate(found):
            low = -r["eigenvalues"][r["eigenvalues"] < -1e-12]
            percent = 100 * np.arange(1, len(low) + 1) / r["parameters"]
            ax.plot(*figures.thin(percent, low, 150), color=color_of[w], lw=1, alpha=0.8, label="_" if i else f"{w} units")
    ax.legend()


labels = {"xlabel": "rank in % of M", "ylabel": "minus the eigenvalue", "yscale": "log"}
figures.figure(
    "fig_low", *figures.here_and_stored(draw_negatives, own_runs, kept, *titles, **labels),
    caption="Negative eigenvalues by rank in per cent of $M$ (the paper's Figure 5, by magnitude on a logarithmic axis), down to $-10^{-12}$.",
    alt=f"Magnitude of the negative eigenvalues against their rank in per cent of the number of parameters on a logarithmic axis: left for {named} "
    "units in this run, right for all stored runs.",
)

# %%
missing = [9 * w - below(r) for w, found in shown.items() for r in found]


def spreads(at, widths, axis=1):
    """Largest over smallest curve at a share of the ranks, over widths or seeds."""
    curve = lambda v: np.quantile(v[v < -1e-12] / v[0], 1 - at)
    kept = [i for i, w in enumerate(asked_widths) if w in widths]
    values = by_seed(lambda r: curve(r["eigenvalues"]))[:, kept] if full else None
    ratios = values.max(axis) / values.min(axis) if full and kept else ()
    return Estimate(ratios, of="the experiment `width`")


# %% tags=["hide-input"]
over_seeds = [spreads(at, asked_widths, 0).mean for at in (0.5, 0.9)]
say(
    r"""**Stored runs.** The mean number of eigenvalues below $-10^{-12}$ is {negatives} for {widths} hidden units, in per cent of $M$ {shares}. A
    formula, shown below, bounds it: at most $C - 1 = 9$ for each unit. Of {of} networks {reached} reach the bound{missed}.

    The curves end at the same place, but they are not one curve. In units of the lowest eigenvalue they differ by a factor of {half:.1f} half-way along the ranks
    and of {far:.1f} at nine tenths of the way (largest over smallest width of each seed, mean and standard deviation over seeds). Without the narrowest network it is
    {half_wide:.1f} and {far_wide:.1f}. {scatter}""",
    scatter=f"Networks of one width differ by {over_seeds[0]:.1f} and {over_seeds[1]:.1f} over the seeds, so from 30 units on, the widths differ {'no more' if spreads(0.9, asked_widths[1:]).mean <= over_seeds[1] else 'more'} than the seeds do." if p.seeds > 1 else "",
    negatives=mean(below), shares=mean(lambda r: 100 * below(r) / r["parameters"]), widths=", ".join(map(str, asked_widths)),
    of=len(missing) or None, reached=missing.count(0), missed=f"; the others miss it by at most {max(missing)}" if any(missing) else "", half=spreads(0.5, asked_widths), far=spreads(0.9, asked_widths),
    half_wide=spreads(0.5, asked_widths[1:]), far_wide=spreads(0.9, asked_widths[1:]),
)

# %% [markdown]
# ### Seven times as wide as the paper
#
# At 500 units $H$ has 397,510 eigenvalues, and $H$ itself would take 1.15 TiB. All that are not zero come from a matrix of order $N(C-1) + 2(C-1)h = 18{,}000$.

# %%
far_grid = [
    {"width": w, "seed": s, **paper_setting} for w in (200, 500) for s in range(3)
]
far = Store().sweep("width_far", sized, far_grid, run=own)
beyond = {w: r for w in (200, 500) if (r := far.where(width=w).results)}
color_of |= dict(zip((200, 500), figures.SERIES[::2]))
compared = {w: kept[w] for w in list(kept)[-1:]} | beyond

# %%
if beyond:
    edges = figures.panel("largest", "rank from the largest", "eigenvalue")
    edges.set(xscale="log", yscale="log")
    draw_edge(edges, compared)
    lows = figures.panel("negative", **labels)
    draw_negatives(lows, compared)
    figures.figure(
        "fig_far", edges, lows,
        caption="Wider networks: the largest eigenvalues, at most 120 (median and "
        "range over seeds), and the negative ones by rank in per cent of $M$.",
        alt=f"The largest and the negative eigenvalues for {list(compared)} units.",
    )

# %% tags=["hide-input"]
far_of = lambda w, value: Estimate([value(r) for r in beyond.get(w, ())], of="the experiment `width_far`")
nines = lambda w: far_of(w, lambda r: count_outliers(r["eigenvalues"], "ratio"))
say(
    """**Stored runs.** With 200 hidden units $H$ has {m200:,} eigenvalues, {low200:,.0f} of them negative where the bound $(C-1)h$ is 1,800; the ratio rule counts
    {nine200:.1f} outliers.

    With 500 hidden units it has {m500:,} eigenvalues, {low500:,.0f} of them negative where the bound is 4,500; the ratio rule counts {nine500:.1f} outliers.""",
    m200=200 * 795 + 10, m500=500 * 795 + 10, low200=far_of(200, below), low500=far_of(500, below), nine200=nines(200), nine500=nines(500),
)  # fmt: skip

# %% [markdown]
# ### Why at most nine for each unit
#
# Write $H = G + R$ in the logits reading, with $G = \frac1N \sum_n J_n^\top A_n J_n$ positive semidefinite and $R = \frac1N \sum_n
# \sum_c d_{nc} \nabla^2 f_c(x_n)$, where $d_n = p_n - y_n$ is the derivative of the loss of example $n$ in its outputs.
#
# **1.** Adding a positive semidefinite matrix does not raise the number of negative eigenvalues, since no eigenvalue can fall. So $H$ has
# at most as many as $R$.
#
# **2.** With $h$ hidden units in one layer and $D$ inputs, $f_c(x) = b_c + \sum_{j=1}^h v_{cj}\, \phi(w_j^\top \tilde x)$, where
# $\tilde x$ is $x$ with a 1 appended. For ReLU $\phi'' = 0$, so the only second derivatives are those in one $w_j$ and one $v_{cj}$ of
# the *same* unit: $\partial^2 f_c / \partial w_j \partial v_{cj} = \phi'(w_j^\top \tilde x)\, \tilde x$. Hence $R$ consists of one
# block for each hidden unit,
#
# $$
# \begin{pmatrix} 0 & E_j \\ E_j^\top & 0 \end{pmatrix}, \qquad
# E_j = \frac1N \sum_n \phi'(w_j^\top \tilde x_n)\, \tilde x_n d_n^\top \in \mathbb{R}^{(D+1) \times C}.
# $$
#
# Its eigenvalues are plus and minus the singular values of $E_j$: as many negative ones as $E_j$ has rank. So the spectrum of $R$ is symmetric about
# zero, which the paper assumes when it concludes from small negative eigenvalues that the second term is small.
#
# **3.** The entries of $d_n = p_n - y_n$ sum to zero, so $E_j$ maps the vector of ones to zero and has rank at most $C - 1$. Therefore
#
# $$
# \begin{aligned} \#\{\lambda(H) < 0\} &\le \#\{\lambda(R) < 0\} \\ &= \sum_j \operatorname{rank} E_j \le (C-1)\,h . \end{aligned}
# $$
#
# The share of $M = h(D + 1 + C) + C$ is about $(C-1)/(D+1+C)$, on these digits 1.13 %, whatever the width. The argument bounds the
# number from above. That it is nearly reached is an observation: dead units, and examples fitted so exactly that $d_n$ vanishes, keep it below.
#
# ### The bound tried
#
# We vary the number of classes, the width and the moment of training on few digits, at paper scale also the seed. Three other networks do not meet the
# conditions of the argument (one hidden layer, a piecewise linear activation, cross-entropy).


# %%
@cache
def few_digits(seed):
    return mnist(200, seed=seed)


def small(
    classes, width, seed, iterations, *, depth=1, loss="cross_entropy", **options
):
    """The risk of a small network on few digits."""
    data = few_digits(seed)
    keep = data.targets < classes
    x, y = data.inputs[keep][:80], data.targets[keep][:80]
    model = fully_connected([784, *[width] * depth, classes], seed=seed, **options)
    train(model, x, y, step_size=0.1, iterations=iterations, progress=False)
    y = torch.eye(classes).double()[y] if loss == "mse" else y
    return EmpiricalRisk(model, x, y, loss)


# %%
def negatives(classes, width, seed, iterations, **options):
    """Eigenvalues below -1e-12 of the largest magnitude: of H, of R; and the bound."""
    risk = small(classes, width, seed, iterations, **options)
    both = [spectrum(op).eigenvalues for op in (risk.hessian(), risk.residual())]
    counts = [int((v < -1e-12 * abs(v).max()).sum()) for v in both]
    return *counts, (classes - 1) * width


# %%
of_scale = {"smoke": (0, 100), "quick": (0, 300), "paper": (0, 100, 1000)}
several, trials = ((2, 4, 10), 5) if p.scale == "paper" else ((2, 10), 1)
space = product(several, (3, 6), of_scale[p.scale], range(trials))
tried = np.array([(k, w, t, *negatives(k, w, s, t)) for k, w, t, s in space])
of_h, of_r, bound = tried[:, 3:].T
cases = {"tanh": {"activation": "tanh"}, "two hidden layers": {"depth": 2}}
cases["squared error"] = {"loss": "mse"}
outside = {name: negatives(4, 3, 0, 100, **case) for name, case in cases.items()}
head = ["outside the conditions", "negative in $H$", "in $R$", "$(C-1)h$"]
figures.table(head, [[name, *found] for name, found in outside.items()])


# %%
def parts(r):
    """Numbers of eigenvalues: zero, bulk, above 0.001 and 0.1 of the largest."""
    v, top = r["eigenvalues"], r["eigenvalues"][-1]
    some = int((np.abs(v) > 1e-12 * top).sum())
    large = above(r, 1e-3)
    return r["parameters"] - some, some - large, large, above(r, 0.1)


counts = by_seed(parts).mean(0) if full else np.array([parts(r) for r in here.values()])
m = grown if full else [r["parameters"] for r in here.values()]

# %% tags=["hide-input"]
left = figures.panel("", "(C − 1) h", "eigenvalues below zero")
left.plot([0, bound.max()], [0, bound.max()], color=figures.COLORS["theory"], label="bound", lw=1)
jitter = np.random.default_rng(0).uniform(-0.5, 0.5, len(bound))
left.plot(bound + jitter, of_r, "o", mfc="none", ms=8, color=figures.COLORS["R"], label="R")
left.plot(bound + jitter, of_h, "o", ms=4, color=figures.COLORS["H"], label="H")
left.legend()
bulk = figures.panel("", "parameters M", "number of eigenvalues", yscale="log", ylim=(1, 3e7))
figures.thousands(bulk)
for name, style, y in zip(("zero", "other bulk", "above 0.001 of the largest", "above 0.1 of the largest"), ("-", "--", "-.", ":"), counts.T):
    bulk.plot(m, y, "o" + style, color=figures.INK, label=name)
bulk.legend(loc="upper left")
figures.figure(
    "fig_bound", left, bulk,
    caption=f"First: negative eigenvalues of $R$ and $H$ in {len(tried)} small networks against the bound $(C-1)h$, shifted sideways by up to half a unit. Second: how "
    f"the parts of the spectrum grow with $M$, in {'the stored runs' if full else 'this run'}.",
    alt="Left, numbers of negative eigenvalues of R and of H against the bound of C minus 1 for each hidden unit, with the line of equality. Right, numbers of "
    "zero, other bulk and large eigenvalues against the number of parameters on a logarithmic axis.",
)

# %% tags=["hide-input"]
say(
    r"""**Reading.** $R$ has exactly as many negative eigenvalues as the bound allows in {exact} of the {small} small networks, and $H$ exactly as many as $R$ in
    {equal}: in {start} of {first} at the random start, in {later} of {trained} later. Outside the conditions the bound does not apply. With tanh, $\phi'' \ne 0$. With two hidden
    layers a second derivative mixes units. With squared error the entries of $d_n$ need not sum to zero, and a unit may have $C$ instead of $C - 1$.""",
    exact=int((of_r == bound).sum()), small=len(tried), equal=int((of_h == of_r).sum()), start=int((of_h == of_r)[tried[:, 2] == 0].sum()), first=int((tried[:, 2] == 0).sum()),
    later=int((of_h == of_r)[tried[:, 2] > 0].sum()), trained=int((tried[:, 2] > 0).sum()),
)
say(
    """**Stored runs.** The share of negative eigenvalues is the same for all widths, since each hidden unit adds about $C - 1$ of them and a fixed number of
    parameters. While $M$ grows by a factor of {growth:.1f}, the number of zeros grows by a factor of {zeros:.1f} and the rest of the bulk by one of {rest:.2f}. Of the
    eigenvalues that the widest network adds to those of the narrowest, {added:.1f} % are zero.""",
    growth=grown[-1] / grown[0], zeros=counts[-1, 0] / counts[0, 0] if full else None, rest=counts[-1, 1] / counts[0, 1] if full else None,
    added=100 * (counts[-1, 0] - counts[0, 0]) / (grown[-1] - grown[0]) if full else None,
)

# %% [markdown]
# ## Wider and wider
#
# Sixty digits and 300 iterations: in Jupyter the network is trained anew when a slider is released.

# %%
sixty = cache(lambda seed: mnist(60, seed=seed))


@cache
def widened(width, seed):
    """All eigenvalues of a network of one width, trained on sixty digits."""
    data = sixty(seed)
    model = fully_connected([784, width, 10], seed=seed)
    options = {"step_size": 0.1, "iterations": 300, "progress": False}
    train(model, data.inputs, data.targets, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    return spectrum(risk.hessian(), progress=False).eigenvalues


# %% tags=["hide-input"]
def turned(width, seed=p.seed):
    """All eigenvalues by rank, and the negative ones in per cent, with the bound."""
    values = widened(width, seed)
    ranks = figures.panel("all", ylim=(1e-9, 20), xlim=(0.8, 2e4))
    figures.ranked(ranks, values, floor=1e-9)
    low, share = -values[values < -1e-12 * values[-1]], 100 / len(values)
    negative = figures.panel("negative", "rank in % of M", "minus the eigenvalue", yscale="log", xlim=(0, 1.4), ylim=(1e-8, 1))
    negative.plot(*figures.thin(share * np.arange(1, len(low) + 1), low, 100), color=figures.COLORS["H"])
    negative.axvline(9 * width * share, color=figures.COLORS["theory"], ls=":", lw=1.5)
    zeros = int((np.abs(values) <= 1e-12 * values[-1]).sum())
    sentence = f"{width} hidden units, M = {len(values):,}: the largest eigenvalue is {values[-1]:.2f}, "
    return sentence + f"{len(low)} of at most {9 * width} are negative, {zeros:,} are zero.", ranks, negative


shown_widths = [2, 5, 10, 20, 70] if p.scale != "smoke" else [2, 4]
explore(
    turned, {"width": shown_widths}, name="fig_explore_width", start={"width": shown_widths[len(shown_widths) // 2]},
    caption="All eigenvalues by rank (negative ones as rings), and the negative ones in per cent of $M$, for one width after the other. Dotted: the bound $(C-1)h$.",
    alt="Left, magnitudes of all eigenvalues by rank on logarithmic axes, negative ones as rings. Right, the negative ones by rank in per cent of M, with a "
    "dotted line at the bound.",
    live={"width": range(2, 101), "seed": range(p.seed, p.seed + 10)}, labels={"width": "hidden units"},
)

# %%
settled = [w for w in shown_widths if w >= 10] or shown_widths
past = [widened(w, p.seed) for w in settled]
negative_shares = [100 * (v < -1e-12 * v[-1]).mean() for v in past]

# %% tags=["hide-input"]
say(
    """**Reading.** From {first} units on, the largest eigenvalue lies between {least:.2f} and {largest:.2f}, and the share of negative ones between {few:.2f} and {many:.2f} %. The
    number of zeros grows with the width.""",
    first=settled[0], least=min(v[-1] for v in past), largest=max(v[-1] for v in past), few=min(negative_shares), many=max(negative_shares),
)

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output"]
data = mnist(60, seed=0)
model = fully_connected([784, 4, 10], seed=0)
risk = EmpiricalRisk(model, data.inputs, data.targets)
few, every = (spectrum(risk.hessian(), method) for method in ("gram", "dense"))
distance = np.abs(few.eigenvalues - every.eigenvalues).max() / every.eigenvalues[-1]
second = spectrum(risk.residual(), progress=False).eigenvalues
lopsided = np.abs(second + second[::-1]).max() / second[-1]
check("negatives of R within the bound", (of_r <= bound).all())
check("negatives of H within those of R", (of_h <= of_r).all())
check("spectrum of R symmetric about zero, to 1e-12", lopsided, below=1e-12)
check("small matrix against the whole one, to 1e-13", distance, below=1e-13)
check("certificates below 1e-10", max(few.certificates.values()), below=1e-10)

# %% [markdown]
# ## Limits
#
# * The paper gives neither step size nor number of iterations for this experiment. We use a step of 0.1 and 5,000 iterations.
# * 'Negative' means below $-10^{-12}$ at the paper's size, where the largest eigenvalue is of order one and rounding errors are of order
#   $10^{-16}$.
# * The bound needs one hidden layer, a piecewise linear activation, and cross-entropy.
# * The networks in the figure of the ratio behind rank 9 differ in architecture and data size, not in the loss alone. In the narrow networks of Chapter 1, fitted to a
#   loss of 0.001 to 0.003, the ratio rule finds 9 in few cases.
#
# ## Try it
#
# **Exercise: two classes.** With $C$ classes each hidden unit adds at most $C-1$ negative eigenvalues. How many has a network of 6 hidden
# units that tells two classes apart? Call `negatives(2, 6, seed=0, iterations=100)`.
#
# <details><summary>Answer</summary>
#
# At most 6, one for each hidden unit. The call returns the negatives of $H$, those of $R$, and the bound: 5, 5 and 6.
#
# </details>
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("04_size")
foot(p, runs, far)
