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
# (size)=
# # The number of parameters
#
# :::{admonition} The paper's claims
# :class: important
# With the data fixed, a wider network has the same large eigenvalues: neither their number nor their size
# changes, only the bulk at zero grows (Section 3.2, Figure 3). And the *share* of negative eigenvalues stays the
# same, so that ranked in per cent they fall on one curve (Section 3.4, Figure 5) {cite:p}`sagun2017`.
# :::
#
# ```{margin} Notation
# $N$ examples, $M$ parameters, $C$ classes, $h$ hidden units with activation $\phi$; $H = G + R$ as in {ref}`ggn`.
# {doc}`All symbols <../book/notation>`.
# ```
#
# One hidden layer with the activation ReLU on 1,000 MNIST digits, with 10, 30, 50 or 70 units: from 7,960 to 55,660
# parameters. The largest Hessian would take 23 GiB to store. It need not be stored: its rank is at most
# $N(C-1) + 2(C-1)h$ for $N$ examples, $C$ classes and $h$ hidden units, here 10,260, and a matrix of that
# order has the same nonzero eigenvalues. `spectrum` finds this route by itself. So what follows is the *complete*
# spectrum of each network. The runs on this page use fewer digits; the paper's size is read from stored runs.
#
# ## Parameters
#
# ```bash
# papermill notebooks/04_size.ipynb out.ipynb -p widths "[10, 30]" -p seed 1
# ```

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
widths: list = []  # numbers of hidden units; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
step_size: float = 0.1  # constant step of gradient descent
seed: int = 0  # of the digits and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.book.parameters import integer, integers, real, resolve

p = resolve(
    globals(),
    widths=integers(
        1, smoke=[2, 4], quick=[10, 30, 50, 70], paper=[10, 30, 50, 70]
    ),
    examples=integer(10, 4990, smoke=40, quick=250, paper=1000),
    iterations=integer(1, smoke=40, quick=2000, paper=5000),
    step_size=real(1e-6, 100),
    seed=integer(0),
    seeds=integer(1, smoke=1, quick=5, paper=5),
)

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk, spectrum
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
from hesslib.book.store import Store
from hesslib.experiments.data import mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import accuracy, train

# %% [markdown]
# ## Train each width, find every eigenvalue
#
# The same digits, step size and number of iterations for every width. Of the eigenvalues we keep those that are
# not zero; the number of zeros follows from $M$.


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
here = {w: sized(w, seed=p.seed, **setting) for w in p.widths}
for w, r in here.items():
    values = r["eigenvalues"]
    print(
        f"{w:>3} units, M = {r['parameters']:>6,}: loss {r['loss']:.4f}", end=", "
    )
    print(f"largest {values[-1]:.3f}, {(values < -1e-12).sum()} below -1e-12")

# %% [markdown]
# ## At the paper's size, over seeds

# %%
paper_setting = {"examples": 1000, "iterations": 5000, "step_size": 0.1}
asked, asked_widths = (
    (setting, p.widths) if p.scale == "paper" else (paper_setting, [10, 30, 50, 70])
)
grid = [
    {"width": w, "seed": s, **asked} for s in range(p.seeds) for w in asked_widths
]
runs = Store().sweep("width", sized, grid, run=p.scale == "paper")
print(runs.label)
shown = {w: runs.where(width=w) for w in asked_widths}


# %% tags=["remove-output", "hide-input"]
def draw_edge(ax, results):
    """The 120 largest eigenvalues in ascending order, one curve for each width."""
    for color, (w, group) in zip(figures.SERIES, results.items()):
        top = np.array([r["eigenvalues"][-120:] for r in group])
        rank = np.arange(121 - top.shape[1], 121)
        ax.plot(rank, np.median(top, 0), color=color, label=f"{w} units")
        if len(top) > 1:
            ax.fill_between(
                rank, top.min(0), top.max(0), color=color, alpha=0.15, lw=0
            )
    ax.legend(loc="upper left")


labels = {"xlabel": "rank among the 120 largest", "ylabel": "eigenvalue"}
quick_edge = figures.panel(f"here, N = {p.examples:,}, seed {p.seed}", **labels)
draw_edge(quick_edge, {w: [r] for w, r in here.items()})
stored_edge = figures.panel(
    f"stored, {asked['examples']:,} digits, {p.seeds} seeds", **labels
)
if runs:
    draw_edge(stored_edge, {w: g.results for w, g in shown.items() if len(g)})
figures.show(
    "fig_edge",
    "The 120 largest eigenvalues in ascending order, one curve for each hidden width. Left for the "
    "run on this page, right for the stored runs as median and range. The curves rise from "
    "near zero to the largest eigenvalue in the last ten ranks and nearly lie on each other.",
    quick_edge,
    stored_edge,
)

# %% [markdown]
# ```{glue:figure} fig_edge
# :name: fig-edge
# The right edge of the spectrum for growing width (the paper's Figure 3). {glue:text}`label`.
# ```
#
# **Reading.** The claim is that the curves coincide. In shape they nearly do, in height less so: at the paper's size the largest eigenvalue is
# {glue:text}`tops`, the tenth largest {glue:text}`tenths` (means over seeds, widths in ascending order), and the
# number of eigenvalues above a tenth of the largest {glue:text}`tenth_counts`. While $M$ grows by a factor
# {glue:text}`growth:.1f`, the largest eigenvalue changes by a factor {glue:text}`top_factor:.2f` (greatest over smallest of each seed,
# mean over seeds). {glue:text}`edge_verdict` (A factor below 1.25 would count as the same size.)


# %% tags=["remove-cell"]
def per_width(statistic):
    """Means over seeds of a statistic of the stored runs, one for each width."""
    return np.array(
        [
            np.mean([statistic(r) for r in g.results])
            for g in shown.values()
            if len(g)
        ]
    )


def listed(values, form):
    """Numbers as a list in words."""
    return ", ".join(format(v, form) for v in values) if len(values) else "not run"


tops = per_width(lambda r: r["eigenvalues"][-1])
tenths = per_width(lambda r: r["eigenvalues"][-10])
counts = per_width(lambda r: (r["eigenvalues"] > 0.1 * r["eigenvalues"][-1]).sum())
sizes = per_width(lambda r: r["parameters"])
steady = "Number and size of the outliers hardly depend on the width."
moving = (
    "The number of outliers is steady, their size is not: it moves with the width."
)


def spread_over_widths(seed):
    """Largest eigenvalue of one seed, greatest over smallest over the widths."""
    found = [r["eigenvalues"][-1] for r in runs.where(seed=seed).results]
    return max(found) / min(found)


factor = (
    np.mean([spread_over_widths(s) for s in range(p.seeds)]) if runs else np.nan
)
figures.number(
    label=runs.label,
    tops=listed(tops, ".2f"),
    tenths=listed(tenths, ".2f"),
    tenth_counts=listed(counts, ".1f"),
    growth=sizes[-1] / sizes[0] if len(sizes) else float("nan"),
    top_factor=factor,
    edge_verdict="" if not len(tops) else steady if factor < 1.25 else moving,
)

# %% [markdown]
# ## Negative eigenvalues
#
# Now the other end. The paper ranks the negative eigenvalues in per cent of $M$ and sees the curves of all widths
# end at the same place.


# %% tags=["remove-output", "hide-input"]
def draw_negatives(ax, results):
    """Negative eigenvalues against rank in per cent, one curve for each width."""
    for color, (w, group) in zip(figures.SERIES, results.items()):
        for i, r in enumerate(group):
            low = r["eigenvalues"][r["eigenvalues"] < -1e-12]
            percent = 100 * np.arange(1, len(low) + 1) / r["parameters"]
            name = f"{w} units" if i == 0 else None
            ax.plot(
                *figures.thin(percent, -low, 150),
                color=color, lw=1, alpha=0.8, label=name,
            )  # fmt: skip
    for line in ax.legend().get_lines():
        line.set(linewidth=1.5, alpha=1)


labels = {
    "xlabel": "rank in % of M",
    "ylabel": "minus the eigenvalue",
    "yscale": "log",
}
quick_low = figures.panel(f"here, N = {p.examples:,}, seed {p.seed}", **labels)
draw_negatives(quick_low, {w: [r] for w, r in here.items()})
stored_low = figures.panel(
    f"stored, {asked['examples']:,} digits, {p.seeds} seeds", **labels
)
if runs:
    draw_negatives(stored_low, {w: g.results for w, g in shown.items() if len(g)})
figures.show(
    "fig_low",
    "Magnitude of the negative eigenvalues against their rank in per cent of the number of parameters, on "
    "a logarithmic axis, one curve for each width, left for this page's run and right for all stored "
    "seeds. All curves fall off and end at the same percentage, a little above one per cent.",
    quick_low,
    stored_low,
)

# %% [markdown]
# ```{glue:figure} fig_low
# :name: fig-low
# Negative eigenvalues by rank in per cent of $M$ (the paper's Figure 5, drawn by magnitude on a logarithmic axis);
# those below $-10^{-12}$ are shown.
# ```
#
# **Reading.** At the paper's size the numbers of eigenvalues below $-10^{-12}$ are {glue:text}`negatives`, over
# seeds and widths; in per cent of $M$ {glue:text}`negative_shares`. That is no coincidence of curves, it is a
# formula: at most $C - 1 = 9$ for each hidden unit, {glue:text}`nine`, and {glue:text}`reached` of {glue:text}`all_runs` runs reach it; the
# others miss it by {glue:text}`missed` at most.
#
# So the curves end at the same place. Are they one curve? In units of the lowest eigenvalue the widths differ by a factor of {glue:text}`shape_half:.1f` half-way
# along the ranks and of {glue:text}`shape_far:.1f` at nine tenths of them (greatest over smallest of each seed, mean over seeds); from
# {glue:text}`second_width` units on by {glue:text}`wide_half:.1f` and {glue:text}`wide_far:.1f`. The narrowest network falls below the others.

# %% tags=["remove-cell"]
below = lambda r: int((r["eigenvalues"] < -1e-12).sum())
spans = []
for g in shown.values():
    found = sorted({below(r) for r in g.results})
    spans += (
        [f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"]
        if found
        else []
    )


def shape_spread(at, widths):
    """How far the curves of some widths are apart at a share of their ranks: a mean over seeds."""
    if len(runs) < len(grid) or len(widths) < 2:
        return np.nan
    found = []
    for seed in range(p.seeds):
        values = [
            runs.where(seed=seed, width=w).results[0]["eigenvalues"] for w in widths
        ]
        scaled = [np.quantile(v[v < -1e-12] / v[0], 1 - at) for v in values]
        found.append(max(scaled) / min(scaled))
    return np.mean(found)


gaps = [9 * w - below(r) for w, g in shown.items() for r in g.results]
figures.number(
    negatives=", ".join(spans) or "not run",
    negative_shares=listed(
        per_width(lambda r: 100 * below(r) / r["parameters"]), ".2f"
    ),
    nine=listed([9 * w for w in asked_widths], "d"),
    reached=sum(missing == 0 for missing in gaps),
    missed=max(gaps, default=0),
    shape_half=shape_spread(0.5, asked_widths),
    shape_far=shape_spread(0.9, asked_widths),
    wide_half=shape_spread(0.5, asked_widths[1:]),
    wide_far=shape_spread(0.9, asked_widths[1:]),
    second_width=asked_widths[min(1, len(asked_widths) - 1)],
    all_runs=len(gaps),
)

# %% [markdown]
# ### Why at most nine for each unit
#
# Write $H = G + R$ as in {ref}`ggn`, in the logits reading, with $G = \frac1N \sum_n J_n^\top A_n J_n$ positive
# semidefinite and $R = \frac1N \sum_n \sum_c d_{nc} \nabla^2 f_c(x_n)$, where $d_n = p_n - y_n$ is the
# derivative of the loss of example $n$ in its outputs.
#
# **1.** Adding a positive semidefinite matrix does not raise the number of negative eigenvalues: since $v^\top G v \ge 0$, each can only rise. So $H$ has at
# most as many as $R$.
#
# **2.** With $h$ hidden units in one layer and $D$ inputs, $f_c(x) = b_c + \sum_{j=1}^h v_{cj}\, \phi(w_j^\top \tilde x)$, where $\tilde x$ is $x$ with a 1
# appended. For ReLU $\phi'' = 0$, so the only second derivatives are those in one $w_j$ and one $v_{cj}$ of the *same*
# unit: $\partial^2 f_c / \partial w_j \partial v_{cj} = \phi'(w_j^\top \tilde x)\, \tilde x$. Hence $R$ is made of
# one block for each hidden unit,
#
# $$
# \begin{pmatrix} 0 & E_j \\ E_j^\top & 0 \end{pmatrix}, \qquad
# E_j = \frac1N \sum_n \phi'(w_j^\top \tilde x_n)\, \tilde x_n d_n^\top \in \mathbb{R}^{(D+1) \times C}.
# $$
#
# Its eigenvalues are plus and minus the singular values of $E_j$: as many negative ones as $E_j$ has rank.
#
# **3.** The entries of $d_n = p_n - y_n$ sum to zero, so $E_j$ maps the vector of ones to zero and has rank at most
# $C - 1$. Therefore
#
# $$
# \#\{\lambda(H) < 0\} \;\le\; \#\{\lambda(R) < 0\} = \sum_j \operatorname{rank} E_j \;\le\; (C-1)\,h .
# $$
#
# The share of $M = h(D + 1 + C) + C$ is about $(C-1)/(D+1+C)$, here {glue:text}`share:.2f` %, whatever the width. The
# argument bounds the number from above. That it is reached is an observation; dead units, and examples
# fitted so exactly that $d_n$ vanishes, keep it below.
#
# ### The bound tried
#
# Numbers of classes, widths, seeds and moments of training varied on few digits, where everything takes a moment; then
# three networks outside its conditions.


# %%
def small(
    classes, width, seed, iterations, *, depth=1, loss="cross_entropy", **options
):
    """The risk of a small network on few digits."""
    data = mnist(200, seed=seed)
    keep = data.targets < classes
    x, y = data.inputs[keep], data.targets[keep]
    sizes = [784, *[width] * depth, classes]
    model = fully_connected(sizes, seed=seed, **options)
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
from itertools import product

trials = {"smoke": 1, "quick": 2, "paper": 5}[p.scale]
space = product((2, 4, 10), (3, 6), (0, 100, 1000), range(trials))
tried = np.array([(k, w, t, *negatives(k, w, s, t)) for k, w, t, s in space])
of_h, of_r, bound = tried[:, 3:].T
print(f"{len(tried)} networks: bound respected by {(of_r <= bound).sum()}")
print(f"R has as many negatives as the bound says: {(of_r == bound).mean():.0%}")
print(f"H has as many negatives as R: {(of_h == of_r).mean():.0%}")

# %%
cases = {
    "tanh": {"activation": "tanh"},
    "two hidden layers": {"depth": 2},
    "squared error": {"loss": "mse"},
}
outside = {name: negatives(4, 6, 0, 100, **case) for name, case in cases.items()}
for name, (h, r, b) in outside.items():
    print(f"{name:<18} H {h:>4}, R {r:>4}, (C - 1) h = {b}")


# %% tags=["remove-output", "hide-input"]
def other(r):
    """Bulk that is not zero: between 1e-12 and 1e-3 of the largest, in magnitude, or negative."""
    v, top = r["eigenvalues"], r["eigenvalues"][-1]
    return int(((v <= 1e-3 * top) & (np.abs(v) > 1e-12 * top)).sum())


def zero(r):
    """Eigenvalues within 1e-12 of the largest."""
    v, top = r["eigenvalues"], r["eigenvalues"][-1]
    return int(r["parameters"] - (np.abs(v) > 1e-12 * top).sum())


bounds = figures.panel("", "(C - 1) h", "eigenvalues below zero")
bounds.plot(
    [0, bound.max()],
    [0, bound.max()],
    color=figures.COLORS["theory"],
    label="bound",
    lw=1,
)
jitter = np.random.default_rng(0).uniform(-0.5, 0.5, len(bound))
bounds.plot(
    bound + jitter, of_r, "o", color=figures.COLORS["R"], alpha=0.6, label="R"
)
bounds.plot(
    bound + jitter, of_h, ".", color=figures.COLORS["H"], alpha=0.8, label="H"
)
bounds.legend()
bulk = figures.panel("", "M", "number of eigenvalues", yscale="log")
figures.thousands(bulk)
for color, (name, test) in zip(
    figures.SERIES,
    {
        "zero": zero,
        "other bulk": other,
        "above 0.001 of the largest": lambda r: (
            r["eigenvalues"] > 1e-3 * r["eigenvalues"][-1]
        ).sum(),
        "above 0.1 of the largest": lambda r: (
            r["eigenvalues"] > 0.1 * r["eigenvalues"][-1]
        ).sum(),
    }.items(),
):
    source = per_width(test) if runs else np.array([test(r) for r in here.values()])
    m = sizes if runs else [r["parameters"] for r in here.values()]
    bulk.plot(m, source, "o-", color=color, label=name)
bulk.set_ylim(1, 3e7)
bulk.legend(loc="upper left")
figures.show(
    "fig_bound",
    "Left, numbers of negative eigenvalues of R and of H against the bound of C minus 1 for each hidden unit; "
    "points lie on the diagonal or below. Right, numbers of zero, other bulk and large eigenvalues against "
    "the number of parameters: the zeros grow, the large ones do not.",
    bounds,
    bulk,
)

# %% tags=["remove-cell"]
figures.number(
    share=100 * 9 / (784 + 1 + 10),
    zero_growth=per_width(zero)[-1] / per_width(zero)[0] if runs else float("inf"),
    bulk_growth=per_width(other)[-1] / per_width(other)[0]
    if runs
    else float("inf"),
    networks=len(tried),
    exact_r=100 * (of_r == bound).mean(),
    equal=100 * (of_h == of_r).mean(),
    equal_start=100 * (of_h == of_r)[tried[:, 2] == 0].mean(),
    equal_later=100 * (of_h == of_r)[tried[:, 2] > 0].mean(),
    respected=bool((of_r <= bound).all() and (of_h <= of_r).all()),
    tanh_h=outside["tanh"][0],
    deep_h=outside["two hidden layers"][0],
    deep_r=outside["two hidden layers"][1],
    mse_r=outside["squared error"][1],
    outside_bound=outside["tanh"][2],
    tanh_r=outside["tanh"][1],
)

# %% [markdown]
# ```{glue:figure} fig_bound
# :name: fig-bound
# Left: negative eigenvalues of $R$ and $H$ in {glue:text}`networks` small networks against the bound $(C-1)h$ (points are shifted sideways by up to half a
# unit so that they can be told apart). Right: how the
# parts of the spectrum grow with $M$, at the paper's size.
# ```
#
# **Reading.** In {glue:text}`exact_r:.0f` % of the small networks $R$ has exactly the number of negative eigenvalues that
# the bound allows, and in {glue:text}`equal:.0f` % $H$ has exactly as many as $R$ ({glue:text}`equal_start:.0f` % at the random start, {glue:text}`equal_later:.0f` % later). Outside the conditions the bound does
# not hold: with tanh ($\phi'' \ne 0$) $R$ has {glue:text}`tanh_r` negative eigenvalues and with two hidden
# layers {glue:text}`deep_r`, where $(C-1)h = $ {glue:text}`outside_bound`. With squared error the entries of $d_n$ need
# not sum to zero, and each unit may have $C$ instead of $C-1$: there are {glue:text}`mse_r`.
#
# So the paper's observation that the *ratio* of negatives does not change with the width is explained, and not by
# flatness: it counts hidden units and classes. The bulk grows by a factor {glue:text}`zero_growth:.0f` in its zeros and
# {glue:text}`bulk_growth:.2f` in the rest, while $M$ grows by {glue:text}`growth:.1f`: nearly all that a wider network adds is zero.

# %% [markdown]
# ### Wider and wider
#
# Sixty digits and 300 iterations, small enough to be trained anew whenever a slider is released.

# %%
from functools import cache

digits = cache(lambda seed: mnist(60, seed=seed))


@cache
def widened(width, seed):
    """All eigenvalues of a network of one width, trained on sixty digits."""
    data = digits(seed)
    model = fully_connected([784, width, 10], seed=seed)
    options = {"step_size": 0.1, "iterations": 300, "progress": False}
    train(model, data.inputs, data.targets, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    return spectrum(risk.hessian(), progress=False).eigenvalues


# %% tags=["remove-output", "hide-input"]
def turned(width, seed=p.seed):
    """The largest eigenvalues and the negative ones of one width, with the bound."""
    values = widened(width, seed)
    largest = figures.panel(
        "largest",
        "rank from the largest",
        "eigenvalue",
        xlim=(0, 31),
        yscale="log",
        ylim=(1e-2, 10),
    )
    largest.plot(
        np.arange(1, 31), values[::-1][:30], ".-", color=figures.COLORS["H"], lw=0.8
    )
    low = -values[values < -1e-12 * values[-1]]
    negative = figures.panel(
        "negative", "rank in % of M", "minus the eigenvalue", yscale="log"
    )
    negative.set(xlim=(0, 1.4), ylim=(1e-8, 1))
    share = 100 / len(values)
    negative.plot(
        *figures.thin(share * np.arange(1, len(low) + 1), low, 100),
        color=figures.COLORS["H"],
    )
    negative.axvline(
        9 * width * share, color=figures.COLORS["theory"], ls=":", lw=1.5
    )
    zeros = int((np.abs(values) <= 1e-12 * values[-1]).sum())
    sentence = f"{width} hidden units, M = {len(values):,}: the largest eigenvalue is {values[-1]:.2f}, "
    sentence += (
        f"{len(low)} of at most {9 * width} are negative, {zeros:,} are zero."
    )
    return sentence, largest, negative


shown_widths = [2, 5, 10, 15, 20, 30, 40, 50, 70]
if p.scale == "smoke":
    shown_widths = [2, 4]
explore(
    turned,
    {"width": shown_widths},
    name="fig_explore_width",
    start={"width": shown_widths[len(shown_widths) // 2]},
    alt="Left, the thirty largest eigenvalues by rank. Right, magnitudes of the negative ones by rank in per cent of "
    "M, with a dotted line at the bound.",
    live={"width": range(2, 101), "seed": range(p.seed, p.seed + 10)},
    labels={"width": "hidden units"},
)

# %% [markdown]
# ```{glue:figure} fig_explore_width
# :name: fig-explore-width
# Right and left edge of the spectrum for one width after the other, on sixty digits. Dotted: the bound $(C-1)h$ in per cent of $M$.
# ```
#
# **Reading.** Past the narrowest networks the picture hardly moves: from
# {glue:text}`from_width` units on the largest eigenvalue stays between {glue:text}`widths_low:.2f` and {glue:text}`widths_high:.2f`, and the share of
# negative ones between {glue:text}`shares_low:.2f` and {glue:text}`shares_high:.2f` % of $M$. What grows is the number of zeros in the sentence above
# the figure.

# %% tags=["remove-cell"]
settled = [w for w in shown_widths if w >= 10] or shown_widths
past = [widened(w, p.seed) for w in settled]
below_zero = [100 * (v < -1e-12 * v[-1]).mean() for v in past]
figures.number(
    from_width=settled[0],
    widths_low=min(v[-1] for v in past),
    widths_high=max(v[-1] for v in past),
    shares_low=min(below_zero),
    shares_high=max(below_zero),
)

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
print(
    "negatives of R within the bound, of H within those of R:",
    "pass" if (of_r <= bound).all() and (of_h <= of_r).all() else "FAIL",
)
data = mnist(60, seed=0)
risk = EmpiricalRisk(
    fully_connected([784, 4, 10], seed=0), data.inputs, data.targets
)
few, all_ = (spectrum(risk.hessian(), method) for method in ("gram", "dense"))
distance = np.abs(few.eigenvalues - all_.eigenvalues).max() / all_.eigenvalues[-1]
print(
    "small matrix against the whole one, below 1e-13:",
    "pass" if distance < 1e-13 else f"FAIL ({distance:.1e})",
)
worst = max(few.certificates.values())
print(
    "certificates below 1e-10:", "pass" if worst < 1e-10 else f"FAIL ({worst:.1e})"
)

# %% [markdown]
# ## Limits
#
# * The paper names neither step size nor number of iterations for this experiment. We use a step of 0.1 and 5,000
#   iterations; {numref}`fig-edge` compares widths at the same number of iterations, as the paper does, and not
#   at the same loss.
# * 'Negative' means below $-10^{-12}$ at the paper's size, where the largest eigenvalue is of order one and rounding
#   errors are of order $10^{-16}$.
# * The bound needs one hidden layer, a piecewise linear activation, and cross-entropy.
#
# ## Try it
#
# ::::{admonition} Exercise: two classes
# :class: tip
# With $C$ classes each hidden unit brings at most $C-1$ negative eigenvalues. How many has a network of 6 hidden units
# that tells two classes apart? Call `negatives(2, 6, seed=0, iterations=100)`.
#
# :::{dropdown} Answer
# At most 6, one for each hidden unit. The call returns the negatives of $H$, those of $R$, and the bound: 5, 5 and 6.
# :::
# ::::
#
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
