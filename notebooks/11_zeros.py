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
# # How many zeros, exactly
#
# > **The paper's claim.** With more parameters, $M$, than examples, $N$, the first term of the Hessian has at least $M - N$ trivial eigenvalues at
# > zero ([Sagun et al. 2017](../book/references.md), Section 2.2, below Equation 5).
#
# The paper gives a lower bound. Later work asks for the number itself, and for some networks it is a theorem. This chapter counts the zeros of $H = G + R$ and of
# both terms, compares the counts with these theorems and with published numbers, and looks for the reasons for the zeros of small networks like those of Chapters 1 to 4. An
# eigenvalue counts as zero if its magnitude is at most $10^{-12}$ of the largest; the rank is the number of the others. $C$ is the number of classes; [all symbols](../book/notation.md).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
widths: list = []  # units m of both hidden layers, for the ranks; []: by scale
examples: int = 0  # training examples N, for the parts of G; 0: by scale
iterations: int = 0  # steps of gradient descent, for the parts of G; 0: by scale
seed: int = 0  # of the data and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
from functools import cache  # noqa: I001

import numpy as np
import torch
from hesslib import EmpiricalRisk, spectrum
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import integer, integers, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run
from hesslib.experiments.data import blobs
from hesslib.experiments.flatness import shrunk_digits, structural_zeros
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train
from hesslib.experiments.zeros import PUBLISHED, account, at_minimum, chapter_network, digits_of_rank, linear_ranks, parts_at  # fmt: skip
from hesslib.experiments.zeros import spacing_ratios, true_against_rest, unweighted, without_bias, zeros_of  # fmt: skip

p = resolve(
    globals(),
    widths=integers(1, 60, smoke=[4], quick=[4, 8, 12], paper=[4, 8, 12, 16]),
    examples=integer(20, 2000, smoke=40, quick=200, paper=300),
    iterations=integer(30, smoke=60, quick=3000, paper=3000),
    seed=integer(0),
    seeds=integer(1, smoke=3, quick=5, paper=5),
)
this_run(p)

# %% [markdown]
# ## The rank of a deep linear network
#
# A network of linear layers without biases and without activations computes a product of matrices, but its loss is not convex in them, and neither
# $G$ nor $R$ vanishes. For it [Singh, Bachmann and Hofmann (2021)](../book/references.md) prove the ranks for almost all weights. Let the
# inputs have rank $r$, the $L - 1$ hidden layers the widths $m_i$, and let $K = C - 1$ outputs count, as cross-entropy ignores a common shift. With
# $s = \min(r, K)$ and $q = \min(s, m_1, m_2, \dots)$
#
# $$
# \begin{aligned}
# \operatorname{rank} G &= q\,(r + K - q), \\ \operatorname{rank} R &= q\,\Big(2 \sum_i m_i + 2s - Lq\Big), \\
# \operatorname{rank} H &= \operatorname{rank} G + \operatorname{rank} R - q\,(2s - q) .
# \end{aligned}
# $$
#
# The number of examples does not occur, except through $r$. Their released code stores 27 ranks, for networks 64-$m$-$m$-10 on 100 digits of 8 by 8 pixels with $r = 41$.
# Our digits of that size have another rank, so we make all pixels black but the brightest 41.


# %%
def ranks(activation, width, pixels, seed):
    """Ranks of H, G and R of a network 64-m-m-10 on 100 digits, and the formulas."""
    x, y = digits_of_rank(100, seed, pixels)
    model = without_bias([64, width, width, 10], activation, seed)
    risk = EmpiricalRisk(model, x, y)
    formula = linear_ranks([width] * 2, int(torch.linalg.matrix_rank(x)), 9)
    found = {"parameters": risk.num_parameters}
    operators = (risk.hessian(), risk.ggn(), risk.residual())
    for name, op in zip("HGR", operators):
        size = np.sort(np.abs(spectrum(op, progress=False).eigenvalues))[::-1]
        found[f"rank_{name}"] = len(size) - zeros_of(size)
        found[f"formula_{name}"] = formula[name]
        found[f"carried_{name}"] = size[: formula[name]].sum() / size.sum()
    return found


# %%
here = {w: ranks("linear", w, 41, p.seed) for w in p.widths}
grid = [{"activation": "linear", "width": m, "pixels": 41, "seed": 1}
        for m in PUBLISHED["m"]]  # fmt: skip
linear = Store().sweep("linear_rank", ranks, grid, run=p.scale == "paper")
exact = lambda r: all(r[f"rank_{k}"] == r[f"formula_{k}"] for k in "HGR")
theirs = {k: dict(zip(PUBLISHED["m"], PUBLISHED[k])) for k in "HGR"}
as_published = [r[f"rank_{k}"] == theirs[k][q["width"]] for k in "HGR"
                for q, r in zip(linear.parameters, linear.results)]  # fmt: skip


# %% tags=["hide-input"]
def draw_ranks(ax):
    """The formulas as lines, the published ranks as crosses, ours as dots."""
    m = np.arange(1, 41)
    law = [linear_ranks([w, w], 41, 9) for w in m]
    for k in "HGR":
        color = figures.COLORS[k]
        ax.plot(m, [v[k] for v in law], color=color, lw=1)
        ax.plot(PUBLISHED["m"], PUBLISHED[k], "x", ms=8, color=color, label=f"{k}, published")  # fmt: skip
        found = {q["width"]: r[f"rank_{k}"] for q, r in zip(linear.parameters, linear.results)}  # fmt: skip
        found |= {w: r[f"rank_{k}"] for w, r in here.items()}
        ax.plot(*zip(*sorted(found.items())), "o", color=color, label=f"{k}, ours")


# %% tags=["hide-input"]
ax = figures.panel("", "units $m$ of each hidden layer", "rank")
draw_ranks(ax)
ax.legend(fontsize=8, ncols=2)
figures.figure(
    "fig_ranks", ax,
    caption="Rank of $H$, $G$ and $R$ of deep linear networks 64-$m$-$m$-10 on 100 digits whose inputs have rank 41, under cross-entropy: the formulas "
    "(lines), the ranks stored with the released code of Singh et al. (crosses), and ours in float64 (dots).",
    alt=f"Rank against width for H, G and R: lines of the formulas, 27 published crosses, and our dots for {len(here)} widths of this run and stored ones.",
)  # fmt: skip
say(
    """Of the {count} ranks of this run {agree} equal the formulas. For $m = 4$, with $M = {m4}$, the formulas leave {z4} zeros of $H$ and {g4} of
    $G$. The paper's $M - N$ is {sagun}, more than either, so as a lower bound it fails here: an example gives $G$ a rank of $C - 1$, not of one.

    Of the {stored} ranks of the stored runs (nine widths) {published} equal the published ones.""",
    agree=sum(r[f"rank_{k}"] == r[f"formula_{k}"] for r in here.values() for k in "HGR"), count=3 * len(here), stored=len(as_published) or None,
    published=sum(as_published), m4=312, z4=312 - PUBLISHED["H"][0], g4=312 - PUBLISHED["G"][0], sagun=212,
)  # fmt: skip

# %% [markdown]
# ## ReLU and tanh
#
# For networks with activations the formula is no theorem. The authors report that it remains 'faithful as an estimate of the numerical Hessian rank'
# for rectified and hyperbolic tangent networks (their abstract). The next figure shows the rank found, divided by that of the formula.

# %%
WIDTHS = range(4, 25, 4)
grid = [{"activation": a, "width": m, "pixels": 41, "seed": s} for m in WIDTHS
        for a in ("relu", "tanh") for s in range(1, p.seeds + 1)]  # fmt: skip
bent = Store().sweep("activation_rank", ranks, grid, run=p.scale == "paper")
smooth = [(m, r) for m in WIDTHS
          for r in bent.where(activation="tanh", width=m).results]  # fmt: skip


# %% tags=["hide-input"]
def over(activation, key, width, name="rank"):
    """Rank over the formula's, or another number, in the stored runs."""
    part = bent.where(activation=activation, width=width).results
    scale = lambda r: r[f"formula_{key}"] if name == "rank" else 1
    return Estimate([r[f"{name}_{key}"] / scale(r) for r in part], "`activation_rank`")  # fmt: skip


def draw_bent(ax, key):
    """Rank over the formula's against width, for each activation."""
    for color, activation in zip(figures.SERIES[3:], ("relu", "tanh")):
        curves = [over(activation, key, m).values for m in WIDTHS]
        if bent and len({len(c) for c in curves}) == 1:
            figures.band(ax, WIDTHS, np.transpose(curves), color, activation.replace("relu", "ReLU"), marker="o")  # fmt: skip
    ax.axhline(1, color=figures.INK, lw=0.8)
    ax.set_yscale("log")


# %% tags=["hide-input"]
panels = []
for key in "HGR":
    panels.append(figures.panel(f"${key}$", "units $m$", "rank / formula", figures.THIRD))  # fmt: skip
    draw_bent(panels[-1], key)
if bent:
    panels[0].legend()
figures.figure(
    "fig_bent", *panels,
    caption="Rank of $H$, $G$ and $R$ of ReLU and tanh networks 64-$m$-$m$-10, over the formula for linear ones, at the random start: median and range over the stored runs.",
    alt=f"Rank over the formula's against width for H, G and R, for ReLU and tanh at the start, over {len(bent)} stored runs; one is the formula.",
)  # fmt: skip


# %% tags=["hide-input"]
say(
    """**Stored runs at the start.** For $H$ the rank is {relu4:.2f} of the formula with ReLU and {tanh4:.2f} with tanh at $m = 4$, and {relu24:.2f} and {tanh24:.2f}
    at $m = 24$: it is no upper bound there. ReLU units that are inactive on many examples lower the rank of narrow networks. With tanh $H$ has the rank $M - 24m$ in
    {full} of {of_all} runs: all zeros come from the 23 black pixels and the shift of the softmax, and hidden layers add none. The rank of $R$ is {tanhR:.2f} times the
    formula's with tanh at $m = 24$, since the second derivative of tanh gives each example a term of its own.

    The eigenvalues beyond the formula are small but not zero. If the formula gives rank $r$, the $r$ largest carry {carried_relu:.2f} % (ReLU) and
    {carried_tanh:.2f} % (tanh) of the sum of the magnitudes of $H$ at $m = 24$. But the sizes show no drop at the formula's rank, so this does not make it an estimate of the rank.""",
    relu4=over("relu", "H", 4), tanh4=over("tanh", "H", 4), relu24=over("relu", "H", 24), tanh24=over("tanh", "H", 24), tanhR=over("tanh", "R", 24), of_all=len(smooth) or None,
    full=sum(r["rank_H"] == r["parameters"] - 24 * m for m, r in smooth),
    carried_relu=Estimate(100 * over("relu", "H", 24, name="carried").values, "`activation_rank`"),
    carried_tanh=Estimate(100 * over("tanh", "H", 24, name="carried").values, "`activation_rank`"),
)  # fmt: skip


# %%
@cache
def magnitudes(activation, width, pixels, seed):
    """Eigenvalues of H at the start, and the formula's rank."""
    x, y = digits_of_rank(100, seed, pixels)
    risk = EmpiricalRisk(
        without_bias([64, width, width, 10], activation, seed), x, y
    )
    values = spectrum(risk.hessian(), progress=False).eigenvalues
    r = int(torch.linalg.matrix_rank(x))
    return values, linear_ranks([width] * 2, r, 9)["H"]


# %%
def rank_moved(activation, width, pixels=41, seed=p.seed):
    """The spectrum of H with the rank that the formula gives."""
    values, formula = magnitudes(activation, width, pixels, seed)
    ax = figures.panel("")
    figures.ranked(ax, values, floor=1e-20, points=120)
    ax.axvline(formula + 0.5, color=figures.COLORS["theory"], ls="--", lw=1)
    rank = len(values) - zeros_of(values)
    sentence = f"{activation}, m = {width}: {rank:,} of {len(values):,} not zero; "
    return sentence + f"the formula for linear networks gives {formula:,}.", ax


# %% tags=["hide-input"]
explore(
    rank_moved, {"activation": ["linear", "relu", "tanh"], "width": [4, 8]}, name="fig_explore_rank",
    caption="Magnitudes of the eigenvalues of $H$ at a random start, and the formula's rank (dashed). Rings: negative. About 120 points are drawn, those above $10^{-20}$. In Jupyter you can also choose other widths, the number of pixels and the seed.",
    alt="Magnitudes of the eigenvalues of H against rank on logarithmic axes, with a dashed line at the rank that the formula gives.",
    start={"activation": "relu", "width": 8},
    live={"width": [2, 4, 6, 8, 10, 12, 16], "pixels": [10, 20, 30, 41, 64], "seed": range(p.seed, p.seed + 10)},
)  # fmt: skip

# %% [markdown]
# ## At a global minimum
#
# The cleanest theorem about zeros concerns squared error. Where the loss is zero every slope is zero, so $R = 0$ and $H = G = \frac{2}{NC} \sum_n J_n^\top J_n$.
# The set of such points has dimension $M - NC$ for almost all targets ([Cooper 2018](../book/references.md)), and $H$ has $M - NC$ zeros there. With one
# output this is the paper's $M - N$, with an equals sign. We train tanh networks 49-20-$C$ to zero loss by damped Gauss-Newton steps, on three kinds
# of targets: one real number, ten numbers drawn at random, and the one-hot vector of the class.

# %%
KINDS = {"one": "one output", "random": "ten outputs, any targets",
         "one-hot": "ten outputs, one-hot"}  # fmt: skip
counts, few = [10, 20, 30, 40], [10, 30]
near = {(k, n): at_minimum(k, n, p.seed) for k in KINDS for n in few}
grid = [{"targets": k, "examples": n, "seed": s}
        for k in KINDS for n in counts for s in range(p.seeds)]  # fmt: skip
minima = Store().sweep("nullity", at_minimum, grid, run=p.scale == "paper")


# %%
def predicted(kind, n, m, hidden=20):
    """Zeros by the theorem, and with those that one-hot targets can add."""
    outputs = 1 if kind == "one" else 10
    extra = max(0, n - hidden - 1) if kind == "one-hot" else 0
    return m - n * outputs, m - n * outputs + extra


stops = list(zip(minima.parameters, minima.results))
met = [r["zeros"][1] in predicted(q["targets"], q["examples"], r["parameters"])
       for q, r in stops if r["loss"] < 1e-24]  # fmt: skip
fell, reached = (sum(r["loss"] < 1e-24 for r in of)
                 for of in (minima.results, near.values()))  # fmt: skip
wide = [(r["parameters"] - 10 * q["examples"], r["zeros"][1]) for q, r in stops
        if q["targets"] == "one-hot" and q["examples"] > 21]  # fmt: skip
hit = sum(r["zeros"][1] in predicted(*k, r["parameters"]) for k, r in near.items())

# %% tags=["hide-input"]
ax = figures.panel("", "examples $N$", "zeros of $H$")
for color, (kind, name) in zip(figures.SERIES, KINDS.items()):
    m = near[kind, counts[0]]["parameters"]
    ax.plot(counts, [predicted(kind, n, m)[1] for n in counts], color=color, lw=1, label=name)  # fmt: skip
    found = [(q["examples"], r["zeros"]) for q, r in zip(minima.parameters, minima.results) if q["targets"] == kind]  # fmt: skip
    found += [(n, r["zeros"]) for (k, n), r in near.items() if k == kind]
    ax.plot([n for n, _ in found], [v[1] for _, v in found], "o", color=color)
    ax.plot([n for n, _ in found], [v[0] for _, v in found], "x", color=figures.INK)
ax.legend(fontsize=8)
figures.figure(
    "fig_nullity", ax,
    caption="Zeros of $H$ of tanh networks 49-20-1 ($M = 1{,}021$) and 49-20-10 ($M = 1{,}210$) under squared error: at global minima (dots), as predicted (lines; for one-hot targets the larger of two), and at the random "
    "start (crosses, almost alike for the three kinds: 20 for each direction orthogonal to all inputs, whose number depends on the digits drawn, and sometimes one or two more). This run and stored runs.",
    alt=f"Zeros of H against the number of examples, dots on the predicted lines for one output, ten outputs and one-hot targets; this run and {len(minima)} stored ones.",
)  # fmt: skip

# %% tags=["hide-input"]
say(
    """In this run {reached} of {tried} networks reach a loss below $10^{-24}$, and {hit} of {tried} have exactly a predicted number of zeros.

    Of {stored} stored runs {fell} reach such a loss, and {met} of these have exactly a predicted number. Of those with one-hot targets and more
    than 21 examples {flat} of {wide} have $N - 21$ zeros more than $M - NC$, as explained below. The smallest eigenvalue that is not zero is at least
    {last:.0e} of the largest there.""",
    reached=reached, tried=len(near), hit=hit, stored=len(minima) or None, fell=fell, met=sum(met),
    wide=len(wide) or None, flat=sum(zeros > least for least, zeros in wide),
    last=Estimate([min(r["last"] for r in minima.results if r["loss"] < 1e-24)] if fell else [], "`nullity`"),
)  # fmt: skip

# %% [markdown]
# One-hot targets are not in general position: their entries sum to one. The outputs can sum to one on all examples in two ways. Either the activations of all $N$
# examples lie in one hyperplane, and $H$ has $M - NC$ zeros. Or the output weights sum to zero over the classes. Then the sum of the outputs depends
# only on the 20 output weights and the bias of each class, so its gradients on the $N$ examples span 21 dimensions and not $N$. For $N > 21$ the matrix $H$ has $N - 21$ more zeros (the line for
# one-hot targets). At a random start $R$ is not zero, and the zeros of
# $H$ are fewer (crosses): for each of the 20 units, the directions of its weights and bias that are orthogonal to all inputs.
#
# ## Which zeros have a reason
#
# Cross-entropy has no such minimum, and ReLU units add zeros of their own. The directions along which the outputs, up to a common shift, do not move to
# first order are the zeros of $G$. We know seven reasons for them (`account`).
#
# * **Black**: an input is zero on all examples. **Pairs**: an input is zero on every example on which the unit, and some path from it to the outputs, is active.
#   **Dependent**: the inputs on those examples are linearly dependent ([Chapter 1](01_spectrum.ipynb#which-zeros-are-accounted-for)).
# * **Scaling**: multiply a ReLU unit's weights in by a number, divide its weights out by it, and no output changes. One zero for each active unit.
# * **Undone**: other changes of a unit that a change of the next layer's weights cancels on all examples. For example, two units active on the same examples are
#   mixed, or a unit active on all examples is shifted by its bias.
# * **Shifts** of all outputs, which the softmax ignores: one for each independent input of the last layer.
# * **Examples**: $N$ examples give $G$ a rank of at most $N(C-1)$. Here we count the zeros that only this bound guarantees.
#
# The directions are independent, so their number is a lower bound on the number of zeros of $G$. Fitted examples weigh so little in $G$ that they fall below $10^{-12}$. We therefore also count the zeros of $\sum_n J_n^\top P J_n$, where $P$ removes the common shift and all examples weigh alike (`unweighted`).


# %%
def accounted(network, seed):
    """Zeros of G and H at start and end: all, with a reason, of equal weights."""
    x, y, sizes, step, iterations = chapter_network(network, seed)
    model = fully_connected(sizes, seed=seed)
    options = {"step_size": step, "iterations": iterations, "record": [0]}
    history = train(model, x, y, progress=False, **options)
    count = lambda op: zeros_of(spectrum(op, progress=False).eigenvalues)
    found = {"reasons": [], "reasons_H": [], "counts": [], "counts_H": []}
    for w in history.parameters:
        at = EmpiricalRisk(model, x, y).at(w)
        plain = unweighted(at)
        found["reasons"].append(list(account(at).values()))
        found["reasons_H"].append(list(structural_zeros(at).values()))
        found["counts"].append([count(at.ggn()), count(plain.ggn())])
        found["counts_H"].append([count(at.hessian()), count(plain.hessian())])
    return found | {"losses": history.losses, "parameters": at.num_parameters}


# %%
NETWORKS = {"spectrum": "784-4-8-10", "pages": "49-6-10", "under": "49-8-10",
            "clusters": "100-6-12-5", "size": "784-3-10"}  # fmt: skip
shown_here = ["pages"] if p.scale == "smoke" else ["pages", "under"]
today = {k: accounted(k, p.seed) for k in shown_here}
grid = [{"network": k, "seed": s} for k in NETWORKS for s in range(1, p.seeds + 1)]
accounts = Store().sweep("account", accounted, grid, run=p.scale == "paper")
REASONS = ["black", "pairs", "dependent", "scaling", "undone", "shifts", "examples"]
by_name = {n: accounts.where(network=k).results for k, n in NETWORKS.items()}
named = [(f"{n}, stored", r) for n, r in by_name.items() if r]
named += [(f"{NETWORKS[k]}, this run", [r]) for k, r in today.items()]
shades = [*figures.SERIES, figures.GREYS[0]]


# %%
def draw_account(ax, moment):
    """Reasons as stacked bars in per cent of M; the count as a line across each."""
    for row, (_, results) in enumerate(named):
        part = lambda r: 100 * np.asarray(r["reasons"])[moment] / r["parameters"]
        shares, left = np.mean([part(r) for r in results], 0), 0.0
        for color, share in zip(shades, shares):
            ax.barh(row, share, left=left, color=color, height=0.6, lw=0)
            left += share
        count = lambda r: 100 * np.asarray(r["counts"])[moment, 1] / r["parameters"]
        at = np.mean([count(r) for r in results])
        ax.plot([at, at], [row - 0.42, row + 0.42], color=figures.INK, lw=1.5)
    ax.set_yticks(range(len(named)), [n for n, _ in named], fontsize=8)
    ax.set_xlim(0, 100)
    ax.invert_yaxis()


# %% tags=["hide-input"]
panels = [figures.panel(n, "zeros of $G$, % of $M$", "") for n in ("start", "end")]
for i, ax in enumerate(panels):
    draw_account(ax, i)
for i, (color, name) in enumerate(zip(shades, REASONS)):
    panels[i > 3].bar(0, 0, color=color, label=name)
for ax in panels:  # half of the names below each
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2), ncol=2)
figures.figure(
    "fig_account", *panels,
    caption="Zeros of $G$ by reason (bars; means over the runs) and as counted with equal weights (upright lines at the ends; the names below the panels hold for both), in small networks like those of Chapters 1 to 4.",
    alt=f"Stacked bars of the zeros of G by seven reasons in per cent of all parameters, for {len(named)} sets of networks, with the counted zeros as lines at their ends.",
)  # fmt: skip


# %%
def differences(runs, key):
    """Counted less explained zeros, and what fitting adds, at start and end."""
    counts = (np.asarray(r[f"counts{key}"]) for r in runs)
    rows = list(zip(counts, (np.sum(r[f"reasons{key}"], 1) for r in runs)))
    return np.array([[c[i, 1] - e[i] for c, e in rows for i in (0, 1)],
                     [c[i, 0] - c[i, 1] for c, e in rows for i in (0, 1)]])  # fmt: skip


# %% tags=["hide-input"]
def cells(runs, i):
    """Means over runs: each reason of G, then sum, equal weights and count of G and of H."""
    part = lambda r, key: [np.sum(r[f"reasons{key}"], 1)[i], *np.asarray(r[f"counts{key}"])[i, ::-1]]  # fmt: skip
    rows = [
        [*np.asarray(r["reasons"])[i], *part(r, ""), *part(r, "_H")] for r in runs
    ]
    return [f"{v:,.1f}".removesuffix(".0") for v in np.mean(rows, 0)]


rows = [[name, moment, *cells(runs, i)] for name, runs in named for i, moment in enumerate(("start", "end"))]  # fmt: skip
head = ["network", "", *REASONS, "$G$: sum", "with equal weights", "in $G$ itself"]
figures.table([*head, "$H$: sum", "with equal weights", "in $H$ itself"], rows, fold="The same as numbers")  # fmt: skip

# %% tags=["hide-input"]
left, left_H = differences(today.values(), ""), differences(today.values(), "_H")
hit_of = lambda names: [differences(accounts.where(network=k).results, "")[0] for k in names]  # fmt: skip
tally = lambda v: (sum((one == 0).sum() for one in v), sum(len(one) for one in v))
single, double = tally(hit_of(["pages", "under", "size"])), tally(hit_of(["spectrum", "clusters"]))  # fmt: skip
kept, kept_H = differences(accounts.results, ""), differences(accounts.results, "_H")  # fmt: skip
least_most = lambda e: f"{e.low:.1f} to {e.high:.1f}" if e else e
total = lambda key: Estimate([np.sum(r[f"reasons{key}"]) / np.asarray(r[f"counts{key}"])[:, 1].sum() * 100 for r in accounts.results], "`account`")  # fmt: skip
say(
    """**This run.** The sum of the reasons misses {worst} of $G$ in any network. Fitted examples add at most {faded} to the count
    at $10^{-12}$.

    **Stored runs.** With one hidden layer the sum equals the count with equal weights in {one} of {one_all} cases (networks, seeds, start and end). With two it does so in {two} of
    {two_all}, and up to {most} zeros are missing: changes of several units at once that the next layers undo and that no single unit explains. Over all
    networks the reasons explain {total} % of the zeros (least and most of the runs, start and end together). The number of examples explains {by_examples} beyond the others: the rank that these leave is below $N(C-1)$. Fitting adds up to {extra:,} zeros at the end.

    For $H$ only the reasons that hold at second order count: black pixels, pairs, dependent inputs of the first layer, and shifts (`structural_zeros`). They explain
    {total_H} % of its zeros in the stored runs (least and most, likewise), and fitting adds up to {extra_H:,}. Scaling does not count: it moves the weights along a bent curve of equal loss. Along
    the tangent of that curve $H$ is zero only if the gradient in the unit's weights is zero.""",
    by_examples=sum(int(np.asarray(r["reasons"])[:, -1].sum()) for r in accounts.results) or "none",
    worst=f"at most {left[0].max():.0f} zeros" if left[0].max() else "no zero", faded=int(left[1].max()), one=int(single[0]), one_all=single[1] or None,
    two=int(double[0]), two_all=double[1] or None, most=int(kept[0].max()) if kept.size else None, total=least_most(total("")), extra=int(kept[1].max()) if kept.size else None, total_H=least_most(total("_H")),
    extra_H=int(kept_H[1].max()) if kept.size else None,
)  # fmt: skip

# %% [markdown]
# ## A third reading of Equation 5
#
# [Chapter 2](02_ggn.ipynb) has two readings of the paper's $G$. With the logits it stands for $H$ once examples are fitted, but has rank $N(C-1)$; with the probability
# it has rank $N$, but fades. [Korbit and Zanon (2026)](../book/references.md) write cross-entropy as a function of one number for each example, the *margin* of the true
# class against the rest, $z_y - \log \sum_{c \ne y} e^{z_c}$. Its loss $\log(1 + e^{-\text{margin}})$ is convex, and the paper's first term with the margin as the
# one output is a Gauss-Newton matrix. With $q_c = p_c / (1 - p_y)$ for $c \ne y$ and $q_y = 0$ the Gauss-Newton matrix of the logits splits exactly,
#
# $$
# \begin{aligned} \operatorname{diag}(p) - pp^\top &= \underbrace{p_y (1 - p_y)\,(e_y - q)(e_y - q)^\top}_{\text{true class against the rest}} \\
#   &+ \underbrace{(1 - p_y)\,\big(\operatorname{diag}(q) - qq^\top\big)}_{\text{within the rest}} , \end{aligned}
# $$
#
# into $G = G_{\text{true}} + G_{\text{rest}}$, both without negative eigenvalues. $G_{\text{true}}$ has rank at most $N$: *in this reading the paper's
# $M - N$ is right*, and the matrix does not fade before $G$ does. For $C = 2$ it is all of $G$. The question is how much it misses for more classes.


# %%
def small_network(data, activation, examples, seed):
    """Inputs, labels and network: digits, 49-15-15-10, or five clusters, 30-15-15-5."""
    if data == "digits":
        x, y = shrunk_digits(examples, seed)
        x, sizes, step = (x - x.mean(0)) / x.std(), [49, 15, 15, 10], 0.2
    else:
        found = blobs(examples, 5, 30, seed=seed)
        x, y, sizes, step = found.inputs, found.targets, [30, 15, 15, 5], 0.1
    return x, y, fully_connected(sizes, activation=activation, seed=seed), step


# %%
def readings(data, activation, examples, iterations, seed):
    """G, its parts and H at three moments: traces, norms, spectra, spacings."""
    x, y, model, step = small_network(data, activation, examples, seed)
    record = [0, iterations // 10]
    options = {"step_size": step, "iterations": iterations, "record": record}
    history = train(model, x, y, progress=False, **options)
    risk = EmpiricalRisk(model, x, y)
    rows = [parts_at(risk.at(w)) for w in history.parameters]
    found = {k: np.array([row[k] for row in rows]) for k in rows[0]}
    return found | {"losses": history.losses, "iterations": history.iterations}


# %%
now = readings("digits", "relu", p.examples, p.iterations, p.seed)
three = [("digits", "relu"), ("digits", "tanh"), ("clusters", "relu")]
grid = [{"data": d, "activation": a, "examples": 300, "iterations": 3000, "seed": s}
        for (d, a), n in zip(three, (2 * p.seeds, 1, p.seeds))
        for s in range(1, n + 1)]  # fmt: skip
read = Store().sweep("readings", readings, grid, run=p.scale == "paper")
relu, tanh, clusters = (read.where(data=d, activation=a).results for d, a in three)


# %%
def draw_parts(ax, runs):
    """Leading eigenvalues of G and of its two parts at the end of training."""
    names = {"G": ("G", "all of G"), "true": ("end", "true class against the rest"),
             "rest": ("theory", "within the rest")}  # fmt: skip
    for k, (color, label) in names.items():
        top = np.array([r[f"top_{k}"][-1] for r in runs])
        top = top / np.array([r["norm_G"][-1] for r in runs])[:, None]
        rank = np.arange(1, top.shape[1] + 1)
        seen = np.median(top, 0) > 1e-8
        color = figures.COLORS[color]
        figures.band(ax, rank[seen], top[:, seen].clip(1e-9), color, label)
    ax.legend(fontsize=8, loc="lower left")


# %% tags=["hide-input"]
shares = figures.panel("true class against the rest", "iteration", "share of the trace of $G$", xscale="log", ylim=(0, 1))  # fmt: skip
for color, name, runs in ((figures.SERIES[2], "digits, stored", relu), (figures.SERIES[3], "clusters, stored", clusters)):  # fmt: skip
    if runs:
        figures.band(shares, np.maximum(runs[0]["iterations"], 1), [r["share"] for r in runs], color, name, marker="o")  # fmt: skip
shares.plot(np.maximum(now["iterations"], 1), now["share"], "x--", color=figures.INK, label="digits, this run")  # fmt: skip
shares.legend(fontsize=8)
axes = {"xlabel": "rank from the largest", "ylabel": "eigenvalue / largest of $G$", "xscale": "log", "yscale": "log"}  # fmt: skip
spectra = figures.here_and_stored(draw_parts, [now], relu, "digits, this run, end", "digits, stored, end", **axes)  # fmt: skip
figures.figure(
    "fig_reading", shares, *spectra,
    caption="The two parts of $G$. First panel: the share of the trace along training (iteration 0 is drawn at 1, since the axis is logarithmic). The others: leading eigenvalues at the end. Of stored runs median and range.",
    alt=f"Share of the trace of G that the true class against the rest carries along training, {now['share'][0]:.2f} to {now['share'][-1]:.2f} in this run; and leading "
    "eigenvalues of G and of both parts at the end on logarithmic axes.",
)  # fmt: skip


# %% tags=["hide-input"]
found, kinds = {}, {
    "start": lambda r: r["share"][0], "end": lambda r: r["share"][-1],
    "missed": lambda r: r["norm_left"][-1] / r["norm_true"][-1], "usual": lambda r: r["norm_R"][-1] / r["norm_G"][-1],
}  # fmt: skip
for name, measure in kinds.items():
    for of, runs in (("d", relu), ("c", clusters)):
        found[f"{of}_{name}"] = Estimate(map(measure, runs), "`readings`")
say(
    """**This run.** $G_{\\text{true}}$ carries {here_start:.2f} of the trace of $G$ at the start and {here_end:.2f} at the end (the network has {fit}).

    **Stored runs.** On digits the share is {d_start:.3f} at the start, near the $1/(C-1)$ of equal probabilities, and {d_end:.2f} at the end. On five clusters it is {c_start:.3f}
    and {c_end:.2f}.

    What this reading leaves to the second term, $H - G_{\\text{true}}$, has {d_missed:.3f} of the norm of $G_{\\text{true}}$ on digits and {c_missed:.3f} on clusters.
    With the logits it is {d_usual:.3f} and {c_usual:.3f}. The paper's bound is right in this reading; the price is a second term that is larger at the end.""",
    here_start=now["share"][0], here_end=now["share"][-1], fit="learnt" if learnt(now["losses"][-1], 10) else "not learnt", **found,
)  # fmt: skip

# %% [markdown]
# ## Between the zeros: the spacings of the rest
#
# How are the eigenvalues that are *not* zero placed? In a random symmetric matrix with Gaussian entries (the *Gaussian orthogonal ensemble*, GOE) neighbouring eigenvalues are
# seldom close together. Independent random numbers (called *Poisson*) often are. Take the spacings $s_i$ between neighbours and the mean of $\min(s_i, s_{i+1}) / \max(s_i, s_{i+1})$, which needs no knowledge of the
# density: it is 0.5307 for GOE and $2 \ln 2 - 1 = 0.3863$ for Poisson ([Atas et al. 2013](../book/references.md)). [Baskerville, Granziol and Keating
# (2021)](../book/references.md) find agreement with GOE in Hessians of networks, computed in single precision over batches of 64 examples and *unfolded*: rescaled so that the mean spacing is the same everywhere. We take
# the whole training set, double precision and the ratio. The ten largest on either side and everything below $10^{-10}$ of the largest are left out.

# %%
GOE, POISSON = 0.5307, 2 * np.log(2) - 1
draw = np.random.default_rng(p.seed)
gaussian = [draw.standard_normal((300, 300)) for _ in range(10)]
spectra_of = (np.linalg.eigvalsh(a + a.T) for a in gaussian)
null = Estimate(spacing_ratios(values).mean() for values in spectra_of)
ratios = lambda runs, k, i: [r[f"spacing_{k}"][i] for r in runs]
spacing = lambda *which: Estimate(ratios(*which), "`readings`")
cases = [("digits, ReLU", relu), ("digits, tanh, one run", tanh)]
cases += [("clusters, ReLU", clusters)]

# %% tags=["hide-input"]
ax = figures.panel("", "", "mean ratio of neighbouring spacings")
for i, (name, runs) in enumerate([*cases, ("this run", [now])]):
    for j, (k, moment) in enumerate((k, m) for k in "GH" for m in (0, -1)):
        e = spacing(runs, k, moment)
        if e:
            low, high = e.interval if e.count > 1 else (e.mean, e.mean)
            style = {"color": figures.COLORS[k], "marker": "os"[j % 2], "ms": 6, "capsize": 3 * (e.count > 1), "markerfacecolor": "none" if moment == 0 else figures.COLORS[k]}  # fmt: skip
            label = f"${k}$, {'start' if moment == 0 else 'end'}" if name == "this run" else None  # fmt: skip
            ax.errorbar(i + 0.15 * (j - 1.5), e.mean, [[e.mean - low], [high - e.mean]], label=label, ls="", **style)  # fmt: skip
for value, name in ((GOE, "GOE"), (POISSON, "Poisson")):
    ax.axhline(value, color=figures.COLORS["theory"], ls="--", lw=1)
    ax.text(0.36, value + 0.003, name, fontsize=8)
ax.set_xticks(range(4), [*(n for n, _ in cases), "this run"], fontsize=8)
ax.set(xlim=(-0.5, 3.5), ylim=(0.36, 0.6))
ax.legend(loc="center left", ncol=2)
figures.figure(
    "fig_spacings", ax,
    caption="Mean ratio of neighbouring spacings in the nonzero bulk of $G$ and $H$ at the start (open) and at the end of training, with 95 % intervals over the stored "
    "runs, against the values of a Gaussian random matrix (GOE) and of independent numbers (Poisson).",
    alt="Mean ratio of neighbouring spacings of G and H at start and end for three kinds of network and for this run, with lines at 0.5307 and 0.3863.",
)  # fmt: skip

# %% tags=["hide-input"]
say(
    """**This run.** $H$ has {h_start:.3f} at the start and {h_end:.3f} at the end, each from about {number:,} eigenvalues; one such mean scatters by about {error:.3f}. Ten Gaussian
    matrices of order 300 have {null:.3f} (mean and standard deviation of one).

    **Stored runs.** On digits with ReLU $H$ has {r_start:.3f} at the start and {r_end:.3f} at the end, and $G$ has {g_start:.3f} and {g_end:.3f}. On clusters the four are {k_start:.3f}, {k_end:.3f}, {kg_start:.3f} and {kg_end:.3f}. Independent numbers (Poisson) have {poisson:.3f},
    a Gaussian random matrix has {goe:.3f}.""",
    poisson=POISSON, goe=GOE,
    k_start=spacing(clusters, "H", 0), k_end=spacing(clusters, "H", -1), kg_start=spacing(clusters, "G", 0), kg_end=spacing(clusters, "G", -1),
    h_start=now["spacing_H"][0], h_end=now["spacing_H"][-1], number=int(now["number_H"][-1]), error=0.25 / np.sqrt(max(1, now["number_H"][-1])), null=null,
    r_start=spacing(relu, "H", 0), r_end=spacing(relu, "H", -1), g_start=spacing(relu, "G", 0), g_end=spacing(relu, "G", -1),
)  # fmt: skip

# %% [markdown]
# ## Checks

# %%
data, two = blobs(60, 2, 8, seed=0), fully_connected([8, 5, 2], seed=0)
x, y, model, _ = small_network("digits", "relu", 20, p.seed)
risks = EmpiricalRisk(two, data.inputs, data.targets), EmpiricalRisk(model, x, y)
(own_2, rest_2), (own, rest) = map(true_against_rest, risks)
scale = float(own_2.abs().max())
whole = risks[1].ggn().to_dense()
error = float((own + rest - whole).abs().max() / whole.abs().max())
rank = len(own) - zeros_of(torch.linalg.eigvalsh(own).numpy())
independent = spacing_ratios(np.sort(draw.random(20_000))).mean()
fewer = min(left[0].min(), left_H[0].min()) >= 0

# %% tags=["nbval-check-output"]
check("ranks of linear networks equal the formulas", all(map(exact, here.values())))
check("no more zeros explained than found", fewer)
alone = float(rest_2.abs().max()) / scale
check("with two classes nothing is within the rest, to 1e-12", alone, below=1e-12)
check("the two parts add up to G, to 1e-12", error, below=1e-12)
check("the first part has rank N at most", rank <= 20)
far = abs(independent - POISSON)
check("independent numbers have a mean ratio of 0.386, to 0.01", far, below=0.01)
if p.scale == "quick":
    check("every stored minimum has a predicted number of zeros", all(met))
    check("all stored ranks equal the published ones", all(as_published))

# %% [markdown]
# ## Limits
#
# * 'Zero' means below $10^{-12}$ of the largest eigenvalue in double precision. In trained ReLU networks eigenvalues that belong to fitted examples lie on both sides of this bound.
# * Our digits of 8 by 8 pixels are not those of the published ranks; the formula depends on the data through the rank of the inputs alone.
# * The ranks are of networks without biases, the account of zeros is of fully connected ReLU networks with them. The networks of the last two sections have
#   up to 1,150 parameters. The ReLU and tanh ranks are taken at the random start.
#
# ## Try it
#
# **Exercise: another rank.** Of a linear network 64-8-8-10 under cross-entropy on inputs of rank 20, predict the rank of $H$ from the formulas, then move the sliders
# of the exploration in Jupyter (linear, width 8, 20 pixels).
#
# <details><summary>Answer</summary>
#
# $K = 9$, $s = 9$, $q = 8$: rank $G = 8\,(20 + 9 - 8) = 168$, rank $R = 8\,(32 + 18 - 24) = 208$, and rank $H = 168 + 208 - 8\,(18 - 8) = 296$, of 656 parameters.
#
# </details>
#
# Another run: `papermill notebooks/11_zeros.ipynb out.ipynb -p widths "[6, 10]" -p seed 1`
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("11_zeros")
foot(p, linear, bent, minima, accounts, read)
