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
# # Today's networks
#
# > **The paper's claim.** The Hessian has a bulk of eigenvalues near zero and about as many outliers as there are classes (Sections 1.2 and 3.1).
# > It is the sum of two terms, $H = G + R$, and after training the second is small (Sections 2.2 and 3.4). The ends of large and small batches lie in
# > one basin (Section 4.1). ([Sagun et al. 2017](../book/references.md))
#
# The paper's networks are fully connected or plain convolutions, trained by stochastic gradient descent. This chapter puts its questions to small relatives of the
# networks of today: a residual network on digits, with batch normalisation (*normalised*) and without (*residual*), a vision transformer on digits (*vision*), and
# a transformer that predicts the next character of a text (*language*). In the stored runs each is trained by SGD with momentum and by AdamW. They have fewer than 2,000 parameters, so
# that every eigenvalue of $H$ can be computed, and about 5,000 where $G$ is enough. Two sections test findings of later literature on blocks of the
# Hessian. $N$ is the number of targets, $C$ of classes, $M$ of parameters; [all symbols](../book/notation.md).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
optimizer: str = "AdamW"  # SGD or AdamW
width: int = 0  # of the transformers, even; the residual networks have three quarters as many channels; 0: by scale
examples: int = 0  # digits; the language model takes a quarter as many pieces of 16 characters; 0: by scale
iterations: int = 0  # steps of training; 0: by scale
classes: list = []  # numbers of classes on Gaussian inputs; []: by scale
seed: int = 0  # of the data, the random start and the order
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
from hesslib.book.parameters import (
    ParameterError,
    choice,
    integer,
    integers,
    resolve,
)
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run

p = resolve(
    globals(),
    optimizer=choice("SGD", "AdamW"),
    width=integer(4, 30, smoke=4, quick=6, paper=8),
    examples=integer(20, 200, smoke=20, quick=40, paper=40),
    iterations=integer(10, 5000, smoke=20, quick=200, paper=300),
    classes=integers(
        2, 500, smoke=[2, 5, 10], quick=[2, 5, 10, 50], paper=[2, 5, 10, 50]
    ),
    seed=integer(0),
    seeds=integer(1, smoke=5, quick=5, paper=5),
)
if p.width % 2:
    raise ParameterError(
        f"width = {p.width}: two heads share it, give an even number"
    )
this_run(p)

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers, ggn_spectrum
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.numbers import written
from hesslib.book.store import Store
from hesslib.experiments.models import fully_connected
from hesslib.experiments.today import (  # fmt: skip
    NETWORKS,
    by_class,
    class_blocks,
    data_of,
    densities,
    gauss_newton,
    joined,
    larger,
    network_of,
    spectra,
    zen,
)

# %% [markdown]
# ## The networks
#
# Digits are cut to their middle 24 by 24 pixels and shrunk to 12 by 12. The residual network takes patches of 3 by 3 pixels, adds two blocks of two 3-by-3
# convolutions with ReLU, and averages over the places. The vision transformer takes nine patches of 4 by 4 pixels. Both transformers have two blocks, each with attention
# by two heads and two layers with GELU, normalised before each half (`hesslib/experiments/today.py` has their code). The language model reads 16 characters and
# predicts the next one at each place. Its text is the Zen of Python, which comes with Python itself as the module `this`: 823 small letters and spaces.
# A step of training takes half of the examples; SGD has a momentum of 0.9 and a step of 0.03, AdamW a step of 0.01. A network has
# *learnt* when its loss is below a tenth of that of a guess, $\ln C$.
#
# Batch normalisation mixes the examples of a batch. In all Hessians of this chapter its mean and variance are fixed at those of all examples, as they are when a
# trained network is used.


# %%
def sizes(network, width, examples, iterations):
    """The sizes that a network takes."""
    channels = max(2, width * 3 // 4)
    return {
        "network": network,
        "width": channels if network in ("residual", "normalised") else width,
        "examples": examples // 4 if network == "language" else examples,
        "iterations": iterations,
    }


# %%
MOMENTS = ("start", "SGD", "AdamW")
kinds = NETWORKS if p.scale != "smoke" else ("normalised", "vision")
ours = {n: sizes(n, p.width, p.examples, p.iterations) for n in kinds}
here = {
    (n, after): spectra(after=after, seed=p.seed, **ours[n])
    for n in ours
    for after in ("start", p.optimizer)
}
paper = p.scale == "paper"
standard = {n: sizes(n, 8, 40, 300) for n in NETWORKS}
runs = [(n, a, s) for s in range(p.seeds) for n in NETWORKS for a in MOMENTS]
grid = [{**standard[n], "after": a, "seed": s} for n, a, s in runs]
stored = Store().sweep("today_spectra", spectra, grid, run=paper, jobs=2)

# %% tags=["hide-input"]
has_learnt = lambda r: learnt(float(r["loss"]), int(r["classes"]))
rows = []
for n in ours:
    start, end = (here[n, a] for a in ("start", p.optimizer))
    m = len(start["eigenvalues"])
    numbers = [f"{m:,}", f"{start['targets']}", f"{start['classes']}"]
    ended = "yes" if has_learnt(end) else "no"
    rows.append([n, *numbers, f"{start['loss']:.3f}", f"{end['loss']:.4f}", f"{100 * end['accuracy']:.0f}", ended])  # fmt: skip
head = ["this run", "$M$", "$N$", "$C$", "start loss", "end loss"]
figures.table([*head, "correct, %", "learnt"], rows)

# %% [markdown]
# ## Bulk and outliers
#
# The figures show the magnitudes of all eigenvalues of $H$ in falling order, before and after training; rings are negative ones. The line stands at rank $C$.

# %%
COLOR = {
    "start": figures.COLORS["start"],
    "SGD": figures.GREYS[1],
    "AdamW": figures.COLORS["end"],
}


def draw_spectra(found, network):
    """A panel: all eigenvalues of H at each moment, ranked by magnitude."""
    ax = figures.panel(network, ylim=(1e-8, 300))
    for after in (a for a in MOMENTS if (network, a) in found):
        r = found[network, after]
        figures.ranked(ax, r["eigenvalues"], COLOR[after], after, 1e-8, points=120)
        ax.axvline(r["classes"], color=figures.INK, lw=0.7)
    ax.legend(loc="lower left")
    return ax


# %%
def of_seed(seed):
    """The stored runs of a seed by network and moment."""
    part = stored.where(seed=seed)
    return {
        (q["network"], q["after"]): r for q, r in zip(part.parameters, part.results)
    }


# %% tags=["hide-input"]
figures.figure(
    "fig_today", *[draw_spectra(here, n) for n in ours],
    caption=f"All eigenvalues of $H$ by magnitude, at the start and after training by {p.optimizer}; this run. Rings are negative, about 120 points are drawn of each spectrum, and the line stands at rank $C$.",
    alt=f"A panel for each network, {', '.join(ours)}: magnitudes of the eigenvalues of H against rank on logarithmic axes, at the start and after {p.optimizer}, with a line at rank C.",
)  # fmt: skip
if of_seed(0):
    orders = sorted(len(r["eigenvalues"]) for r in of_seed(0).values())
    figures.figure(
        "fig_today_stored", *[draw_spectra(of_seed(0), n) for n in NETWORKS],
        caption=f"The same for stored runs with {orders[0]:,} to {orders[-1]:,} parameters and 40 digits, or 160 characters; seed 0.",
        alt=f"Four panels, for {', '.join(NETWORKS)}: magnitudes of the eigenvalues of H against rank on logarithmic axes, at {', '.join(a for a in MOMENTS if ('vision', a) in of_seed(0))}.",
    )  # fmt: skip


# %%
def counted(r, key):
    """Outliers by the ratio rule among the largest 2C eigenvalues."""
    largest = np.asarray(r[key], dtype=float)[-2 * int(r["classes"]) :]
    return count_outliers(largest, "ratio")


def measured(r):
    """Outliers of H and G, bulk in per cent, negatives, and the second term."""
    values = np.asarray(r["eigenvalues"], dtype=float)
    outliers = [counted(r, key) for key in ("eigenvalues", "ggn")]
    bulk = 100 * np.mean(np.abs(values) < 1e-3 * values[-1])
    return [*outliers, bulk, -values[0] / values[-1], r["norms"][2] / r["norms"][1]]


# %%
rows = []
for n in NETWORKS:
    for after in MOMENTS:
        part = stored.where(network=n, after=after).results
        each = np.array([[r["loss"], *measured(r)] for r in part]).reshape(-1, 6).T
        classes_of = f" ({part[0]['classes']})" if part else ""
        forms = (".0f", ".0f", ".0f", ".1g", ".2g")
        cells = [written(Estimate(v), form) for v, form in zip(each[1:], forms)]
        cells.insert(0, written(Estimate(each[0]).mean, ".2g"))
        rows.append([n + classes_of, after, *cells])

# %% tags=["hide-input"]
head = ["stored runs ($C$)", "after", "loss", "outliers of $H$", "of $G$", "bulk, %"]  # fmt: skip
figures.table([*head, "lowest / largest", r"$\Vert R\Vert / \Vert G\Vert$"], rows)

# %% [markdown]
# Means over seeds, with standard deviations. Outliers are counted by the ratio rule ([Chapter 3](03_data.ipynb)) among the largest $2C$ eigenvalues; the bulk is what lies below a thousandth of the largest eigenvalue. We look
# only among the largest $2C$, since among all eigenvalues the largest ratio of neighbours can lie where they pass through zero.


# %%
def close(results, key):
    """In how many runs the outliers number the classes, within one."""
    return sum(abs(counted(r, key) - r["classes"]) <= 1 for r in results)


told = {}
for after in MOMENTS:
    part = stored.where(after=after).results
    for key, letter in (("eigenvalues", "H"), ("ggn", "G")):
        told[f"{letter}_{after}"] = f"{close(part, key)} of {len(part)}"
fitted = [r for a in MOMENTS[1:] for r in stored.where(after=a).results]
good = [r for r in fitted if has_learnt(r)]
told["learnt"] = len(good)
told["ends"] = len(fitted) or None
bulks = [measured(r)[2] for r in good] or [np.nan]
told["bulks"] = f"{min(bulks):.0f} to {max(bulks):.0f}" if good else None

# %% tags=["hide-input"]
say(
    """**Stored runs.** At the start the number of outliers of $G$ is within one of the number of classes in {G_start} networks, and that of $H$ in
    {H_start}. After SGD it is so for $G$ in {G_SGD} and for $H$ in {H_SGD}, after AdamW in {G_AdamW} and {H_AdamW}. {learnt} of the {ends} trained networks have learnt. Their bulk,
    counted exactly, is {bulks} % of the eigenvalues.""",
    **told,
)  # fmt: skip

# %% [markdown]
# ### More parameters: all of $G$
#
# $G$ has at most $N(C - 1)$ eigenvalues other than zero, so all of them come from a matrix of that order, however large the network is. The stored runs of such networks see 60 digits or 128 characters; the table gives their numbers of parameters.
# A gap behind the classes is a factor well above one between the eigenvalues at ranks $C - 1$ or $C$ and the next.

# %%
WIDE = {
    "residual": (12, 60),
    "normalised": (12, 60),
    "vision": (16, 60),
    "language": (16, 8),
}
wide = {n: {"network": n, "width": w, "examples": e} for n, (w, e) in WIDE.items()}
runs = [(n, a, s) for s in range(p.seeds) for n in NETWORKS for a in MOMENTS[::2]]
grid = [{**wide[n], "iterations": 300, "after": a, "seed": s} for n, a, s in runs]
big = Store().sweep("today_larger", larger, grid, run=paper, jobs=2)


# %%
def drop(r, at):
    """The factor by which the eigenvalues of G fall behind rank ``at``."""
    return r["ggn"][-at] / r["ggn"][-at - 1]


# %%
rows, behind = [], {}
for n in NETWORKS:
    for after in MOMENTS[::2]:
        part = big.where(network=n, after=after).results
        c = int(part[0]["classes"]) if part else 0
        count = Estimate(count_outliers(r["ggn"], "ratio") for r in part)
        falls = [Estimate(drop(r, at) for r in part) for at in (c - 1, c)]
        behind[n, after] = falls[0]
        m = f"{part[0]['parameters']:,}" if part else ""
        numbers = [f"{count:.0f}", *(f"{f:.2f}" for f in falls)]
        loss = Estimate(r["loss"] for r in part)
        loss = f"{loss.low:.2g} to {loss.high:.2g}" if loss else "not run"
        rows.append([n, after, m, loss, c or "", *numbers])

# %% tags=["hide-input"]
head = ["stored runs", "after", "$M$", "loss", "$C$", "outliers of $G$"]
if len(big):
    figures.table([*head, "fall behind $C - 1$", "fall behind $C$"], rows)
    rest = [behind[k].mean for k in behind if k not in (("residual", "start"), ("vision", "start"))]  # fmt: skip
    say(
        "**Stored runs.** Behind rank $C - 1$ the eigenvalues of the residual network without normalisation fall by a factor {first:.1f} at the start. In the vision transformer at the start it is {vision:.2f}; after training, and in the other networks, the mean factor is at most {rest:.2f}.",
        first=behind["residual", "start"], vision=behind["vision", "start"],
        rest=max(rest),
    )  # fmt: skip
else:
    say("None of these runs is stored yet; `python -m hesslib run 13 --scale paper` makes them and lists them here.")  # fmt: skip

# %% [markdown]
# All of $H$ would take minutes for each of these networks. Its density comes from Lanczos quadrature with six random directions and 160 steps,
# so it has a statistical error.

# %%
dense = Store().sweep("today_density", densities, grid, run=paper, jobs=2)
axes = {"xlabel": "eigenvalue / largest", "yscale": "log", "ylim": (1e-4, 1e2)}
curves = [figures.panel(n, ylabel="density", **axes) for n in NETWORKS]
for q, r in zip(dense.parameters, dense.results):
    ax, color = curves[NETWORKS.index(q["network"])], COLOR[q["after"]]
    if q["seed"] == 0:
        (y, error), low = r["density"], 1e-6  # what is drawn of zero
        band = np.maximum(y - 2 * error, low), y + 2 * error
        ax.fill_between(r["grid"], *band, color=color, alpha=0.3, lw=0)
        ax.plot(r["grid"], np.maximum(y, low), color=color, lw=1, label=q["after"])
        ax.legend()

# %% tags=["hide-input"]
span = Estimate([measured(r)[2] for r in stored.where(after="AdamW").results if has_learnt(r)], stored.name)  # fmt: skip
unsure = lambda **at: max((100 * r["bulk"][1] for r in dense.where(**at).results), default=None)  # fmt: skip
if len(dense):
    figures.figure(
        "fig_density_today", *curves,
        caption="Density of the eigenvalues of $H$, each smoothed over a hundredth of the largest, at the start and after AdamW; stored runs, seed 0. Bands: two standard errors. The shares in the text are of the quadrature itself, without this smoothing.",
        alt="Four panels, one for each network: the density of the eigenvalues over the largest on a logarithmic axis, a peak at zero and small bumps to its right, at the start and after training.",
    )  # fmt: skip
say(
    """**Stored runs.** After AdamW {residual:.1f} % (residual), {normalised:.1f} % (normalised), {vision:.1f} % (vision) and {language:.1f} % (language) of the eigenvalues of $H$ lie within a thousandth of
    the largest. The error of the quadrature in one run is up to {error:.1f} percentage points. At the start 160 steps do not resolve this share: the error is up to {before:.0f}
    points. For the verdict only runs count that have learnt and whose error is at most 2.5 points: after AdamW {sure} of {all}. Where fewer than three of a network are left, its verdict is *premise not met*. The smaller networks above, whose bulk is
    exact, have {exact} % after AdamW, below 90 % in {low} of {of}.""",
    **{n: Estimate([100 * r["bulk"][0] for r in dense.where(network=n, after="AdamW").results], dense.name) for n in NETWORKS},
    sure=sum(bool(r["bulk"][1] <= 0.025) for r in dense.where(after="AdamW").results), all=len(dense.where(after="AdamW")) or None, error=unsure(after="AdamW"), before=unsure(after="start"), exact=f"{span.low:.0f} to {span.high:.0f}" if span else span, low=int((span.values < 90).sum()), of=len(span) or None,
)  # fmt: skip

# %% [markdown]
# ## Layer by layer
#
# [Zhang et al. (2024)](../book/references.md) take the blocks of the Hessian that belong to one matrix of weights. They report that the spectra of these blocks differ far more within a transformer than within a
# convolutional network, and see in this a reason why transformers need Adam: SGD has one step for all of them. Here the blocks are exact. The figure shows
# each block's eigenvalues by magnitude at the start, against rank divided by the size of the block. Two blocks are compared by the Jensen-Shannon distance (0: the same,
# 1: nothing in common) between histograms of their eigenvalues, with two bins for each power of ten and each sign; the table has the mean over all pairs of blocks.

# %%
KIND = {"query": 3, "key": 3, "value": 2, "mix": 2, "embed": 4, "stem": 4, "out": 5}
NAME = {3: "query, key", 2: "value, projection", 4: "first", 5: "last", 0: "others"}


# %%
def draw_blocks(found, network):
    """A panel: the spectrum of each block, a line a block, coloured by its kind."""
    ax = figures.panel(network, "share of the ranks", "magnitude")
    ax.set(yscale="log", ylim=(1e-9, 10))
    r, seen = found[network, "start"], set()
    parts = np.split(r["block_eigenvalues"], np.cumsum(r["sizes"])[:-1])
    for name, values in zip(r["blocks"], parts):
        kind = next((k for part, k in KIND.items() if part in str(name)), 0)
        size = np.sort(np.abs(values))[::-1]
        x = np.arange(1, len(size) + 1) / len(size)
        x, y = figures.thin(x, np.maximum(size, 1e-12), 60)
        label = None if kind in seen else NAME[kind]
        ax.plot(x, y, color=figures.SERIES[kind], lw=1, label=label)
        seen.add(kind)
    ax.legend(fontsize=8, loc="lower left")
    return ax


# %% tags=["hide-input"]
shown, names = (of_seed(0), NETWORKS) if of_seed(0) else (here, ours)
figures.figure(
    "fig_blocks_today", *[draw_blocks(shown, n) for n in names],
    caption="Spectra of the blocks of $H$ at the start, one line for each matrix of weights; " + ("stored runs, seed 0." if of_seed(0) else "this run."),
    alt=f"A panel for each network, {', '.join(names)}: magnitude of each block's eigenvalues against the share of its ranks on a logarithmic axis, coloured by the kind of layer.",
)  # fmt: skip


# %%
def unlike(results):
    """Mean distance of the blocks' spectra; share of the squared norm."""
    shares = [(r["inner_norm"] / r["norms"][0]) ** 2 for r in results]
    return Estimate(r["unlikeness"] for r in results), Estimate(shares)


# %%
rows, apart = [], {}
for n in NETWORKS:
    part = [unlike(stored.where(network=n, after=a).results) for a in MOMENTS]
    apart[n] = Estimate(part[0][0].values, stored.label)
    current = [
        here[n, a]["unlikeness"] if n in ours else None
        for a in ("start", p.optimizer)
    ]
    cells = [f"{u:.2f}" for u, _ in part] + [
        f"{part[0][1]:.2f}",
        f"{part[2][1]:.2f}",
    ]
    rows.append([n, *("" if v is None else f"{v:.2f}" for v in current), *cells])

# %% tags=["hide-input"]
head = ["", "this run: start", f"this run: after {p.optimizer}", "stored: start"]
head += ["stored: after SGD", "stored: after AdamW", "share in blocks: start"]
figures.table([*head, "share: after AdamW"], rows)
changed = apart["vision"].mean, apart["language"].mean
against = lambda other: "less" if min(changed) > other.mean else "more" if max(changed) < other.mean else "partly less, partly more"  # fmt: skip
say(
    """**Stored runs.** At the start the blocks are {residual:.2f} apart in the residual network, {normalised:.2f} with batch normalisation, {vision:.2f} in the vision
    transformer and {language:.2f} in the language model. {word}""",
    **apart,
    word=f"The transformers' blocks are {against(apart['residual'])} alike than those of the residual network, and {against(apart['normalised'])} alike than those of the one with batch normalisation. In Zhang et al. they are less alike than in convolutional networks.",
)  # fmt: skip

# %% [markdown]
# Zhang et al. estimate the densities for networks of millions of parameters by other means, so the order can be compared, not the numbers. The last columns give
# the share of the squared Frobenius norm of $H$ that lies within the blocks.
#
# ## More classes, more diagonal
#
# [Dong et al. (2025)](../book/references.md) find that the Hessian comes near to a block-diagonal matrix as the number of classes grows, already at the random start. For a linear network with softmax the
# block of the weights into outputs $c$ and $d$ is $\frac1N \sum_n (\delta_{cd}\, p_{nc} - p_{nc} p_{nd})\, x_n x_n^\top$. With all $p_{nc} = 1/C$ the blocks off the diagonal are
# exactly $1/(C - 1)$ times those on it in norm. With a hidden layer we compute the same ratio for the blocks of the weights into single hidden units.

# %%
trial = {"hidden": 8, "dimension": 20, "examples": 500}
counts = [2, 5, 10, 20, 50, 100, 200, 500]
now = {c: class_blocks(classes=c, seed=p.seed, **trial) for c in p.classes}
grid = [{"classes": c, "seed": s, **trial} for s in range(p.seeds) for c in counts]
grown = Store().sweep("today_classes", class_blocks, grid, run=paper)

# %%
growth = figures.panel("", "classes", "norm, off / on the diagonal")
kinds_of = ("linear", "output", "hidden")
for color, kind in zip(figures.SERIES[1:], kinds_of):
    dots = [now[c][kind] for c in now]
    growth.plot(list(now), dots, "o", color=color, label=f"{kind}, this run")
    if len(grown) == len(grid):
        each = [grown.where(seed=s).results for s in range(p.seeds)]
        curves = [[float(r[kind]) for r in one] for one in each]
        figures.band(growth, counts, curves, color, f"{kind}, stored")

# %% tags=["hide-input"]
even = [1 / (c - 1) for c in counts]
growth.plot(counts, even, "--", color=figures.INK, lw=1, label="1 / (C − 1)")
growth.set(xscale="log", yscale="log")
growth.legend(fontsize=8)
figures.figure(
    "fig_classes_today", growth,
    caption="Mean norm of the blocks off the diagonal over that on it, against the number of classes: outputs of a linear network and of one with a hidden layer (the two nearly coincide), and hidden units; bands: range over seeds.",
    alt="Three falling curves against the number of classes on logarithmic axes, for outputs of a linear network, outputs of a network with one hidden layer, and its hidden units, with the line 1 over C minus 1.",
)  # fmt: skip
ratio = lambda c, kind: Estimate([r[kind] for r in grown.where(classes=c).results], grown.label)  # fmt: skip
say(
    """**Stored runs.** From 10 to 500 classes the ratio falls from {out_10:.3g} to {out_500:.2g} between outputs, and from {hid_10:.3f} to {hid_500:.3f} between hidden units.""",
    out_10=ratio(10, "output"), out_500=ratio(500, "output"), hid_10=ratio(10, "hidden"), hid_500=ratio(500, "hidden"),
)  # fmt: skip

# %% [markdown]
# Below, the Hessian in the weights of six hidden units with six inputs each, a smaller network with other numbers; in Jupyter it is computed anew when the slider is released.


# %% tags=["hide-input"]
def pattern(classes, seed=p.seed):
    """The Hessian of a hidden layer as a picture, and the ratio of its blocks."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=draw, dtype=torch.float64)
    y = torch.randint(classes, (200,), generator=draw)
    model = fully_connected([6, 6, classes], seed=seed)
    risk = EmpiricalRisk(model, x, y, parameters=["0.weight"])
    h = risk.hessian().product(torch.eye(36, dtype=torch.float64))
    norms = h.view(6, 6, 6, 6).square().sum((1, 3)).sqrt()
    same = float(norms.trace() / 6)
    other = float((norms.sum() - norms.trace()) / 30)
    ax = figures.panel("", "weights", "weights", size=(4.0, 4.0))
    figures.matrix(ax, h, 2)
    sizes = figures.panel("", "block", "norm", size=(4.0, 4.0), yscale="log")
    apart = norms[~torch.eye(6, dtype=torch.bool)]
    kinds = (norms.diagonal(), "of a unit", 2), (apart, "between two", 3)
    for values, name, color in kinds:
        ordered, color = values.sort(descending=True).values, figures.SERIES[color]
        ranks = range(1, len(ordered) + 1)
        sizes.plot(ranks, ordered, "o", ms=4, color=color, label=name)
    sizes.legend()
    return f"{classes} classes: the blocks between two units have {other / same:.3f} of the norm of those of one unit.", ax, sizes  # fmt: skip


# %% tags=["hide-input"]
explore(
    pattern, {"classes": [2, 3, 5, 10, 20, 50, 100, 200]}, name="fig_explore_classes",
    alt="The entries of the Hessian of a hidden layer as a grid of 36 by 36 points, six blocks on the diagonal; beside it the norms of all blocks.",
    caption="Entries of the Hessian in the weights of a hidden layer, blue positive and orange negative, on a logarithmic scale of two decades. Second, the norms of its blocks in falling order, on the diagonal and off it.",
    start={"classes": 10},
    live={"classes": [2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500], "seed": range(p.seed, p.seed + 10)},
)  # fmt: skip

# %% [markdown]
# ## Large and small batches on a line
#
# We first train with all examples in each batch, then go on from there with batches of a fifth of them. A third run starts from the same random weights as the first, and has small batches from the beginning.
# The loss is computed on the straight line from the end of the large batches to the end of either small one. On the way batch normalisation takes the mean and variance of all examples
# anew at each point; otherwise the barrier would also measure outdated normalisation statistics. The barrier is how far the loss rises on the line above the higher of its ends, in per cent of
# the loss of a guess, $\ln C$.

# %%
steps = max(10, p.iterations // 2)
lines = {
    n: joined(optimizer=p.optimizer, seed=p.seed, **ours[n] | {"iterations": steps})
    for n in ours
}
runs = [(n, o, s) for s in range(p.seeds) for n in NETWORKS for o in MOMENTS[1:]]
grid = [
    {**standard[n], "iterations": 200, "optimizer": o, "seed": s}
    for n, o, s in runs
]
walks = Store().sweep("today_line", joined, grid, run=paper, jobs=2)


# %%
def draw_lines(ax, found):
    """Loss on the line to the batch that follows (full) or is apart."""
    for n in found:
        color = figures.SERIES[2 + NETWORKS.index(n)]
        t, losses = found[n]["positions"], found[n]["losses"]
        ax.plot(t, losses[0], color=color, label=n)
        ax.plot(t, losses[1], color=color, ls=":")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.4)  # room for the legend
    ax.legend(fontsize=8, loc="upper left", ncol=2)


first = walks.where(seed=0, optimizer=p.optimizer)
kept = {q["network"]: r for q, r in zip(first.parameters, first.results)}

# %% tags=["hide-input"]
figures.figure(
    "fig_line_today", *figures.here_and_stored(draw_lines, lines, kept if len(kept) == 4 else None, stored_title="stored, seed 0", xlabel="position on the line", ylabel="training loss", yscale="log"),
    caption=f"Training loss on the line from the end of large batches (0) to that of small ones (1), trained by {p.optimizer}. Full: the small batch goes on from there; dotted: both from one start.",
    alt=f"Training loss against the position on a straight line for {', '.join(ours)} in this run, and for all in a stored one; full lines to the network that went on, dotted lines to the one trained apart.",
)  # fmt: skip

# %%
rows = []
for n in NETWORKS:
    for o in MOMENTS[1:]:
        part = walks.where(network=n, optimizer=o).results
        ends = [
            Estimate(r["losses"][i][j] for r in part) for i, j in ((0, 0), (0, -1))
        ]
        over = [
            Estimate(100 * r["barriers"][i] / np.log(r["classes"]) for r in part)
            for i in (0, 1)
        ]
        losses = (f"{e.low:.2g} to {e.high:.2g}" if e else "not run" for e in ends)
        rows.append([n, o, *(written(e, ".2g") for e in over), *losses])

# %% tags=["hide-input"]
head = ["stored runs", "optimiser", r"barrier, % of $\ln C$", "from one start, %"]
figures.table([*head, "loss, large batch", "loss, small after it"], rows)


# %%
def over_all(optimizer, i):
    """Barriers of all networks on line i, in %, of runs whose ends have learnt."""
    part = walks.where(optimizer=optimizer).results
    part = [r for r in part if learnt(float(r["losses"][0, 0]), int(r["classes"]))]
    share = (100 * r["barriers"][i] / np.log(r["classes"]) for r in part)
    return Estimate(share, walks.name)


# %% tags=["hide-input"]
four = {f"{o.lower()}_{w}": over_all(o, i) for o in MOMENTS[1:] for i, w in enumerate(("next", "apart"))}  # fmt: skip
say(
    """**Stored runs.** Where the small batches go on from the end of the large ones, the barrier after AdamW is {a_low:.0f} to {a_high:.0f} %, after SGD {s_low:.0f} to {s_high:.0f} %. Where both start from
    the same random weights it is {ap_low:.0f} to {ap_high:.0f} % with AdamW, and {sp_low:.0f} to {sp_high:.0f} % with SGD. These are the runs in which the large batches have learnt, {adamw} of {each} with
    AdamW and {sgd} of {each} with SGD; from an end that has not learnt the loss mostly falls along the line, so a barrier says little.""",
    **{f"{key}_{end}": getattr(four[name], end) for key, name in (("a", "adamw_next"), ("s", "sgd_next"), ("ap", "adamw_apart"), ("sp", "sgd_apart")) for end in ("low", "high")},
    adamw=len(four["adamw_next"]) or None, sgd=len(four["sgd_next"]) or None, each=len(walks) // 2 or None,
)  # fmt: skip

# %% [markdown]
# ## Checks

# %%
x, y, c = data_of("language", 4, 0)
small = network_of("language", 4, c, 0).eval()
risk = EmpiricalRisk(small, x, y)
g, h = gauss_newton(risk), risk.hessian().to_dense(progress=False)
exact = torch.linalg.eigvalsh(g).numpy()
other = ggn_spectrum(risk.ggn(), progress=False).eigenvalues
error = np.abs(exact - other).max() / exact[-1]
v = torch.ones(len(h), dtype=h.dtype)
rest = float((risk.residual() @ v - (h - g) @ v).norm() / (h @ v).norm())
later = x.clone()
later[:, 9:] = 0
with torch.no_grad():
    seen = float((small(later)[:, :9] - small(x)[:, :9]).abs().max())
even = torch.full((50, 7), 1 / 7, dtype=torch.float64)
share = by_class(torch.randn(50, 4, dtype=torch.float64), even) * 6

# %% tags=["nbval-check-output"]
check(
    "G as a matrix has the eigenvalues of ggn_spectrum, to 1e-9", error, below=1e-9
)
check("H - G is R as an operator of its own, to 1e-9", rest, below=1e-9)
check(
    "a character's outputs do not depend on later ones, to 1e-12", seen, below=1e-12
)
check(
    "equal probabilities: blocks off the diagonal 1 / (C - 1), to 1e-9",
    abs(share - 1),
    below=1e-9,
)
check(
    "the text has 823 characters, 25 of them different",
    (len(zen()), len(set(zen()))) == (823, 25),
)

# %% [markdown]
# ## Limits
#
# * The networks are a thousandth or less of what is in use, and the stored ones that have learnt know their few examples by heart. Whether counts of outliers carry over to large networks cannot be seen here.
# * Five seeds for each optimiser. The last lines of the page say how many runs are stored.
# * One step size for each optimiser, constant, and no schedule. Weight decay is that of AdamW, 0.01; the curvature is that of the loss without it.
# * The text is short: some characters occur once or twice, and are hardly classes.
# * With ReLU the Hessian of the residual networks exists almost everywhere, but kinks count for nothing in it ([Chapter 2](02_ggn.ipynb)).
#
# ## Try it
#
# **Exercise: twenty classes.** Predict the ratio of the blocks between outputs of a linear network to those of one output for 20 classes, then run with `-p classes "[20]"`.
#
# <details><summary>Answer</summary>
#
# About $1/19 = 0.053$. The probabilities at the random start are not equal, so the ratio is off by a few per cent.
#
# </details>
#
# Another run: `papermill notebooks/13_today.ipynb out.ipynb -p optimizer SGD -p seed 1`

# %% [markdown]
# ## Verdicts

# %% tags=["hide-input"]
verdicts("13_today")

# %% tags=["hide-input"]
foot(p, stored, big, dense, grown, walks)
