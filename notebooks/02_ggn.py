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
# # Two terms of the Hessian
#
# > **The paper's claims.** The Hessian is the sum of a covariance of gradients and a term that can be ignored as training progresses. With more
# > parameters, $M$, than examples, $N$, the first term is degenerate: it has at least $M - N$ eigenvalues at zero. Only the second term can make
# > eigenvalues negative, and these are small ([Sagun et al. 2017](../book/references.md), Section 2.2, Equations 2 to 5, and Section 3.4).
#
# Let a network have one real output $f(w, x)$, and let $\ell$ be a convex loss of it. By the chain rule one example has the Hessian $\ell''(f)\,
# \nabla f \nabla f^\top + \ell'(f)\, \nabla^2 f$, and the mean over examples is (the paper's Equation 4)
#
# $$
# H \;=\; \underbrace{\frac1N \sum_n \ell''(f_n)\, \nabla f_n \nabla f_n^\top}_{G}
#    \;+\; \underbrace{\frac1N \sum_n \ell'(f_n)\, \nabla^2 f_n}_{R} .
# $$
#
# $G$ is a sum of $N$ matrices of rank one with non-negative weights: it has no negative eigenvalue and a rank of at most $N$. $R$ can have eigenvalues of
# both signs. A classifier has $C$ outputs, and then the formula can be read in two ways. Both are exact, but they assign different parts of $H$ to $R$, so
# statements about $R$ depend on the choice.
#
# | reading | $G$ | rank of $G$ at most | $R$ | when all examples are fitted |
# |---|---|---|---|---|
# | **logits**: all outputs before the softmax | $\frac1N \sum_n J_n^\top A_n J_n$, the Gauss-Newton matrix | $N(C-1)$ | $\frac1N \sum_n \sum_c d_{nc} \nabla^2 f_c(x_n)$ | $d_n \to 0$: $R$ fades |
# | **probability**: one output, $p_y$ of the label (the paper's Equation 5) | $\frac1N \sum_n g_n g_n^\top$, the empirical Fisher matrix | $N$ | $\frac1N \sum_n \frac{-1}{p_y} \nabla^2 p_y$ | $g_n \to 0$: $G$ fades |
#
# Here $J_n$ is the Jacobian of the logits, $p_n$ the vector of probabilities, $y_n$ the one-hot label, $A_n = \operatorname{diag}(p_n) - p_n p_n^\top$ the Hessian and $d_n = p_n - y_n$
# the gradient of the loss in the logits (the *slopes*), and $g_n$ the gradient of the example's loss. ([All symbols](../book/notation.md).)

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
hidden: list = []  # units of each hidden layer; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
step_size: float = 0.1  # constant step of gradient descent
seed: int = 0  # of the digits and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
from functools import cache  # noqa: I001

import numpy as np
import torch
from hesslib import EmpiricalRisk, spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import ParameterError, integer, integers, real, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run, written
from hesslib.curvature.certificates import CertificateError
from hesslib.experiments.data import mnist
from hesslib.experiments.flatness import shrunk_digits, structural_zeros
from hesslib.experiments.models import fully_connected
from hesslib.experiments.terms import curvature_of_outputs, output_slopes, summand_norms  # fmt: skip
from hesslib.experiments.training import DivergenceError, train

p = resolve(
    globals(),
    hidden=integers(1, smoke=[3], quick=[4, 8], paper=[6, 12]),
    examples=integer(10, 4990, smoke=30, quick=200, paper=1000),
    iterations=integer(2, smoke=40, quick=2000, paper=5000),
    step_size=real(1e-6, 100),
    seed=integer(0),
    seeds=integer(1, smoke=1, quick=5, paper=5),
)
this_run(p)

# %% [markdown]
# ## What the two matrices look like
#
# We begin with a network small enough to draw: digits of 7 by 7 pixels and six hidden units. The parameters fall into groups: the weights into each unit
# with its bias, the weights out of each unit, and the last biases. The picture shows the norm of each block of $H$, $G$ and $R$ after training.

# %%
first, last_moment = min(p.iterations, 5), min(p.iterations, 2000)
moments = np.geomspace(first, last_moment, 8).astype(int)
moments = [0, *np.unique(moments).tolist()]


@cache
def shrunk(width, seed):
    """A small network trained on 50 small digits; its risk and parameters by moment."""
    x, y = shrunk_digits(50, seed)
    model = fully_connected([49, width, 10], seed=seed)
    options = {"step_size": 0.2, "iterations": last_moment, "record": moments}
    history = train(model, x, y, progress=False, **options)
    return EmpiricalRisk(model, x, y), history


# %%
small, small_history = shrunk(6, p.seed)
operators = {"H": small.hessian(), "G": small.ggn(), "R": small.residual()}
matrices = {name: op.to_dense().numpy() for name, op in operators.items()}


# %%
outer = 300 + np.arange(60).reshape(10, 6).T
into = [np.append(np.arange(49) + 49 * j, 6 * 49 + j) for j in range(6)]
groups = [*into, *outer, np.arange(360, 370)]


def block_norms(matrix):
    """Frobenius norm of each block of a matrix."""
    block = lambda i, j: np.linalg.norm(matrix[np.ix_(groups[i], groups[j])])
    return np.array([[block(i, j) for j in range(13)] for i in range(13)])


# %% tags=["hide-input"]
norms = {name: block_norms(matrix) for name, matrix in matrices.items()}
unit, panels = max(v.max() for v in norms.values()), []
for name, v in norms.items():
    ax = figures.panel(f"${name}$", size=figures.THIRD)
    shown = 1 + np.log10(np.maximum(v / unit, 1e-4)) / 4
    figures.tinted(ax, shown, [figures.COLORS["H"]] * 169, extent=(0, 13, 13, 0))
    ax.set(xticks=[3, 9, 12.5], yticks=[3, 9, 12.5], aspect="equal")
    ax.set_xticklabels(["into units", "out of units", "b"])
    ax.set_yticklabels(["into", "out", "b"])
    panels.append(ax)
active = int((norms["G"].diagonal()[:6] > 0).sum())
figures.figure(
    "fig_blocks", *panels,
    caption=f"$H = G + R$ in blocks, for 49 pixels, 6 hidden units and 10 classes after {last_moment:,} iterations: logarithm of each block's norm, from no colour "
    f"(a ten-thousandth of the largest or less) to full colour in five steps. Groups: weights into each of the six units ({active} of them active), out of each, and the last biases (b).",
    alt="Three maps of 13 by 13 blocks. H and G have entries in all blocks where units are active; R has them only where the weights into a unit meet the "
    "weights out of the same unit.",
)  # fmt: skip

# %% tags=["hide-input"]
off = np.ones((13, 13), bool)
off[np.arange(6), np.arange(6, 12)] = off[np.arange(6, 12), np.arange(6)] = False
rest = np.linalg.norm(norms["R"][off]) / np.linalg.norm(norms["R"])
say(
    """$G$ couples the units with each other. $R$ consists of one block for each active unit, where the weights into it meet the weights out of it: all other blocks
    {rest}. The reason is that a ReLU unit's output is linear in the weights on either side of it, so the second derivative of
    the logits vanishes everywhere else. Each block of $R$ comes with its transpose and no block on the diagonal, and so the eigenvalues of $R$ come in pairs
    $\\pm\\lambda$ ([Chapter 4](04_size.ipynb) uses this).""",
    rest=f"together have {written(rest, '.2g')} of its norm" if rest else "are exactly zero",
)  # fmt: skip

# %% [markdown]
# The next figure moves through the training of this network. In Jupyter every release of a slider computes the spectra anew; another seed or width also
# trains anew.


# %%
def split_sentence(iteration, reading, found):
    """What the moment shows, in a sentence."""
    ratio, h = size(found["R"]) / size(found["G"]), found["H"]
    norms = f"the norm of R is {ratio:.2g} times that of G"
    ends = f"the lowest eigenvalue of H is {h[0]:.2g}, the largest {h[-1]:.2f}"
    return f"Iteration {iteration:,}, {reading}: {norms}; {ends}."


# %%
def draw_split(found):
    """The three spectra against rank, on a signed logarithmic axis."""
    ax = figures.panel("", "rank in % of M", "eigenvalue")
    for key, values in found.items():
        curve = figures.signed_log(values, 1e-6)
        x = np.linspace(0, 100, len(values))
        ax.plot(
            *figures.thin(x, curve, 120),
            color=figures.COLORS[key],
            label=key,
            lw=1.3,
        )
    ax.set_ylim(figures.signed_log(np.array([-30.0, 30.0]), 1e-6))
    figures.signed_log_axis(ax, 1e-6, -30, 30)
    ax.legend(loc="upper left")
    return ax


# %%
def size(values):
    """Spectral norm, from the eigenvalues."""
    return max(abs(values[0]), abs(values[-1]))


def split(iteration, reading, seed=p.seed, width=6):
    """The spectra of H, G and R of the small network at one moment, in one reading."""
    risk, history = shrunk(width, seed)
    at = risk.at(history.parameters[moments.index(iteration)])
    both = {"R": at.residual(reading), "G": at.ggn(reading), "H": at.hessian()}
    found = {k: spectrum(op, progress=False).eigenvalues for k, op in both.items()}
    return split_sentence(iteration, reading, found), draw_split(found)


# %% tags=["hide-input"]
explore(
    split,
    {"iteration": [*moments[:-1:2], last_moment], "reading": ["logits", "probability"]},
    name="fig_explore_terms",
    caption="$H = G + R$ along training, for a network of a few hundred parameters and 50 examples, in either reading. The axis is linear within $\\pm 10^{-6}$.",
    alt="Eigenvalues of H, G and R of a small network in ascending order on a signed logarithmic axis, at one moment of training.",
    live={"seed": range(p.seed, p.seed + 10), "width": range(6, 25, 2)},
)  # fmt: skip

# %% [markdown]
# ## The terms along training
#
# Now a network as in [Chapter 1](01_spectrum.ipynb), smaller and on fewer digits here, of its size and on 1,000 digits in the stored runs. We compute the spectra of $H$ and of both terms in
# both readings at the start and at the end, and the norms of the terms in between (`_p` marks the probability reading).


# %%
def trained(hidden, examples, iterations, step_size, seed):
    """Train once; returns the risk and the record of a few moments."""
    data = mnist(examples, seed=seed)
    model = fully_connected([data.dimension, *hidden, data.classes], seed=seed)
    moments = np.unique(np.geomspace(10, iterations, 5).astype(int)).tolist()
    options = {
        "step_size": step_size,
        "iterations": iterations,
        "record": [0, *moments],
    }
    history = train(model, data.inputs, data.targets, **options)
    return EmpiricalRisk(model, data.inputs, data.targets), history


# %%
def terms(risk):
    """The spectra of H and of both terms in both readings, at one moment."""
    operators = {"H": risk.hessian()}
    for reading, mark in (("logits", ""), ("probability", "_p")):
        operators["G" + mark] = risk.ggn(reading)
        operators["R" + mark] = risk.residual(reading)
    return {name: spectrum(op).eigenvalues for name, op in operators.items()}


# %%
def ratios_at(here):
    """The norm of R over that of G, in the logits and in the probability reading."""
    norm = lambda op: abs(
        top_eigenpairs(op, 1, "LM", progress=False).eigenvalues[0]
    )
    both = ("logits", "probability")
    return [norm(here.residual(one)) / norm(here.ggn(one)) for one in both]


# %%
names = ("hidden", "examples", "iterations", "step_size")
setting = {name: getattr(p, name) for name in names}
try:
    risk, history = trained(**setting, seed=p.seed)
    along = [terms(risk.at(history.parameters[i])) for i in (0, -1)]
except (CertificateError, DivergenceError) as error:
    raise ParameterError(
        f"step_size = {p.step_size} is too large: {error}"
    ) from None
if not all(size(s["R"]) > 1e-15 * size(s["G"]) for s in along):
    given = f"hidden = {p.hidden}, step_size = {p.step_size}"
    raise ParameterError(f"{given}: R is zero; give more units or a smaller step")

# %%
start, end = along
m, n, c = risk.num_parameters, risk.num_examples, risk.num_outputs
fitted = learnt(history.losses[-1], c)
ratio, ratio_p = np.array([ratios_at(risk.at(w)) for w in history.parameters]).T
print(f"M = {m:,}, N = {n:,}, C = {c}, loss at the end {history.losses[-1]:.4f}")

# %% tags=["hide-input"]
drawn = []
for i, name in ((0, "start"), (-1, "end")):
    title = f"{name}, iteration {history.iterations[i]:,}"
    ax = figures.panel(title, size=figures.THIRD)
    style = {"floor": 1e-10, "points": 120}
    for key in "RGH":
        figures.ranked(ax, along[i][key], figures.COLORS[key], f"${key}$", **style)
    ax.legend(loc="lower left", fontsize=8)
    drawn.append(ax)
when = np.maximum(history.iterations, 1)
ratios = figures.panel("norm of $R$ / norm of $G$", "iteration", "ratio", figures.THIRD, xscale="log", yscale="log")  # fmt: skip
ratios.plot(when, ratio, "o-", color=figures.COLORS["R"], label="logits")
ratios.plot(when, ratio_p, "s--", color=figures.COLORS["theory"], label="probability")  # fmt: skip
ratios.legend()
figures.figure(
    "fig_three", *drawn, ratios,
    caption="Magnitudes of the eigenvalues of $H$ and of its two terms (logits) against rank, negative ones as rings, at the start and at the end. "
    "Third panel: the ratio of the terms along training in both readings; the random start is drawn at 1.",
    alt="Magnitudes of the eigenvalues of H, G and R against rank on logarithmic axes at the start and at the end of training, and the ratio of the norms of R "
    f"and G against iterations: from {ratio[0]:.2g} to {ratio[-1]:.2g} with the logits, from {ratio_p[0]:.2g} to {ratio_p[-1]:.2g} with the probability.",
)  # fmt: skip

# %% tags=["hide-input"]
fit = f"The examples are {'fitted' if fitted else 'not fitted'} at the end (loss {history.losses[-1]:.2g}; a guess gives {np.log(c):.2f})."
say(
    """{fit} In the logits reading the norm of $R$ is {ratio_start:.2f} times that of $G$ at the start and {ratio_end:.3g} times at the end. In the
    probability reading it is {ratio_p_start:.2f} times at the start and {ratio_p_end:.3g} times at the end. The more an example is fitted, the more
    the readings differ: the slope $-1/p_y$ of $-\\log p_y$ stays near $-1$, while the gradient $g_n$ vanishes, so that $R$ must supply nearly all of $H$.

    $G$ has no negative eigenvalue, so the negative ones of $H$ come entirely from $R$: at the end {negatives_h} eigenvalues of $H$ lie below $-10^{-10}$, and
    {negatives_r} of $R$. The lowest of $H$ is {lowest:.2g}, the largest {largest:.2f}.""",
    fit=fit, ratio_start=ratio[0], ratio_end=ratio[-1], ratio_p_start=ratio_p[0], ratio_p_end=ratio_p[-1],
    negatives_h=int((end["H"] < -1e-10).sum()), negatives_r=int((end["R"] < -1e-10).sum()), lowest=end["H"][0], largest=end["H"][-1],
)  # fmt: skip

# %% [markdown]
# ## How many zeros
#
# We compare the rank bounds with the zeros that are found. An eigenvalue counts as zero if its magnitude is below $10^{-12}$ of the largest. The same count is
# made for a smaller network on more examples: digits of 7 by 7 pixels, eight hidden units.


# %%
def zeros(values):
    """Eigenvalues below 1e-12 of the largest in magnitude."""
    return int((np.abs(values) <= 1e-12 * np.abs(values).max()).sum())


def small_network(examples, iterations, seed):
    """Fewer parameters than examples: 7 x 7 pixels, 8 hidden units, M = 490."""
    x, y = shrunk_digits(examples, seed)
    model = fully_connected([49, 8, 10], seed=seed)
    train(model, x, y, step_size=0.2, iterations=iterations)
    return EmpiricalRisk(model, x, y)


# %%
under_risk = small_network(min(4 * p.examples, 4990), p.iterations, p.seed)
under = terms(under_risk)
promised = lambda r: {
    "G_p": max(r.num_parameters - r.num_examples, 0),
    "G": max(r.num_parameters - r.num_examples * (c - 1), 0),
}
explained = sum(structural_zeros(risk).values())

# %% tags=["hide-input"]
rows, kept = [], []
for r, s in ((risk, end), (under_risk, under)):
    bound = promised(r)
    kept += [zeros(s[key]) >= b for key, b in bound.items()]
    for key, name in (("G_p", "$G$, probability"), ("G", "$G$, logits"), ("H", "$H$")):  # fmt: skip
        rows.append([f"{r.num_parameters:,}", f"{r.num_examples:,}", name, f"{bound[key]:,}" if key in bound else "none", f"{zeros(s[key]):,}"])  # fmt: skip
figures.table(
    ["M", "N", "matrix", "zeros at least, by the rank", "zeros found"], rows
)

# %% tags=["hide-input"]
say(
    """By its rank $G$ has at least $M - N$, here {promised_gp:,} zeros, in the probability reading ({zeros_gp:,} are found), and at least $M - N(C-1)$, here {promised_g:,}, with the
    logits ({zeros_g:,} are found). The second matrix is the one that $H$ comes close to when the examples are fitted; its bound is lower by $N(C-2)$.

    The rank counts only examples and classes. The structure of the network explains zeros of $H$ itself ([Chapter 1](01_spectrum.ipynb#which-zeros-are-accounted-for)): black
    pixels, inactive units, dependent inputs and the softmax account for {explained:,} of the {zeros_h:,} zeros found here. [Chapter 11](11_zeros.ipynb) counts the zeros exactly.""",
    promised_gp=promised(risk)["G_p"], zeros_gp=zeros(end["G_p"]), promised_g=promised(risk)["G"], zeros_g=zeros(end["G"]),
    explained=explained, zeros_h=zeros(end["H"]),
)  # fmt: skip

# %% [markdown]
# ## Can the second term be ignored?
#
# Two measures. **Eigenvalues**: by Weyl's inequality no eigenvalue of $H$ is further from that of $G$ with the same rank than the norm of $R$. **Eigenvectors**: the
# *overlap* of two spaces of $k$ dimensions is the mean squared cosine between them, 1 if they are the same and about $k / M$ if they are drawn at random. We take the
# spaces of the $C$ leading eigenvectors of $H$ and of $G$.


# %%
def overlap(risk, k):
    """Mean squared cosine between the spans of k leading eigenvectors of H and G."""
    v, u = (
        top_eigenpairs(op, k).eigenvectors for op in (risk.hessian(), risk.ggn())
    )
    return np.linalg.norm(v.T @ u) ** 2 / k


shared = [overlap(risk.at(history.parameters[i]), c) for i in (0, -1)]
weyl = np.array([size(s["R"]) for s in along])
moved = np.array([np.abs(s["H"] - s["G"]).max() for s in along])

# %% [markdown]
# The paper argues otherwise. Near a minimum the *average* of $\ell'$ is close to zero, although its single values are not. If $\ell'(f_n)$ and $\nabla^2 f_n$ are
# **not correlated** over the examples, $R$, the mean of their product, is close to the product of their means, and so to zero. The argument has two premises, and we measure both.
#
# * *Not correlated.* The product of the means is $\bar R = \sum_c \bar d_c\, \frac1N \sum_n \nabla^2 f_c(x_n)$ with $\bar d$ the mean slope. Without correlation $R - \bar R$
#   would be as small as if the slopes $d_n$ were dealt out to the examples at random. So we compare $\|R - \bar R\|$ with $\|R_\pi - \bar R\|$, where $R_\pi$ has them dealt out.
# * *Cancelling.* The norm of the mean slope over the mean norm of the slopes, $\|\bar d\| / \overline{\|d_n\|}$, says how far the slopes cancel; and $\|R\|$ over the mean
#   norm of its summands $R_n = \sum_c d_{nc} \nabla^2 f_c(x_n)$ how far these do.


# %%
def slopes_at(here, seed):
    """What R is made of at one moment: norms, slopes, the noise of the gradients."""
    d = output_slopes(here)
    deal = torch.randperm(len(d), generator=torch.Generator().manual_seed(seed))
    mean = curvature_of_outputs(here, d.mean(0).expand_as(d))
    r, dealt = (curvature_of_outputs(here, slopes) for slopes in (d, d[deal]))
    norms = [a.norm().item() for a in (r, mean, r - mean, dealt - mean)]
    norms += [summand_norms(here, d).mean().item()]
    norms += [d.mean(0).norm().item(), d.norm(dim=1).mean().item()]
    h, g = (
        top_eigenpairs(op, 10) for op in (here.hessian(), here.ggn("probability"))
    )
    shared = np.linalg.norm(h.eigenvectors.T @ g.eigenvectors) ** 2 / 10
    return [*norms, shared, g.eigenvalues[0], h.eigenvalues[0]]


# %%
NAMES = (
    "residual averaged difference shuffled summand "
    "mean_slope slope overlap noise_top top"
)


def correlated(**setting):
    """What R is made of at each moment of one run."""
    risk, history = trained(**setting)
    rows = [slopes_at(risk.at(w), setting["seed"]) for w in history.parameters]
    found = dict(zip(NAMES.split(), np.array(rows).T))
    return found | {"losses": history.losses, "moments": history.iterations}


# %%
paper_setting = {"hidden": [6, 12], "examples": 1000}
paper_setting |= {"iterations": 5000, "step_size": 0.1}
run = p.scale == "paper"
grid = [{**(setting if run else paper_setting), "seed": s} for s in range(p.seeds)]
slope_runs = Store().sweep("correlation", correlated, grid, run=run)
last = len(history.iterations) - 1
here = sorted({0, (last + 1) // 2, last})
rows = [slopes_at(risk.at(history.parameters[i]), p.seed) for i in here]
made = dict(zip(NAMES.split(), np.array(rows).T))
made["moments"] = [history.iterations[i] for i in here]


# %% tags=["hide-input"]
def draw_slopes(ax, runs):
    """Correlation and cancelling along training."""
    quotients = (("difference", "shuffled", "H"), ("mean_slope", "slope", "theory"), ("residual", "summand", "R"))  # fmt: skip
    words = ("correlation", "mean slope / slopes", "$R$ / its summands")
    for (a, b, key), word in zip(quotients, words):
        curves = [r[a] / r[b] for r in runs]
        figures.band(ax, np.maximum(runs[0]["moments"], 1), curves, figures.COLORS[key], word, marker="o")  # fmt: skip
    ax.axhline(1, color=figures.INK, ls=":", lw=1)
    ax.legend(fontsize=8)


log = {"xlabel": "iteration", "xscale": "log", "yscale": "log"}
panels = figures.here_and_stored(draw_slopes, [made], slope_runs.results, stored_title=f"{len(slope_runs)} stored runs", ylabel="ratio", **log)  # fmt: skip
figures.figure(
    "fig_ignore", *panels,
    caption="The premises of the paper's argument along training, in this run and over the stored ones (median and range). Correlation: $\\|R - \\bar R\\| / \\|R_\\pi - \\bar R\\|$, "
    "1 without correlation (dotted). Cancelling: $\\|\\bar d\\| / \\overline{\\|d_n\\|}$, and $\\|R\\|$ over the mean norm of its summands. The random start is drawn at 1.",
    alt="Three ratios against iterations on logarithmic axes, in this run and over stored runs: the correlation of slopes and second derivatives, the mean slope over "
    f"the slopes, and R over its summands. In this run the first ends at {made['difference'][-1] / made['shuffled'][-1]:.2g}.",
)  # fmt: skip

# %%
of = lambda a, b, i: made[a][i] / made[b][i]
stored = lambda a, b, i: Estimate(
    [r[a][i] / r[b][i] for r in slope_runs.results], of="`correlation`"
)
falls = lambda a: Estimate(
    [r[a][0] / r[a][-1] for r in slope_runs.results], of="`correlation`"
)
extra = Estimate(
    falls("residual").values / falls("summand").values, of="`correlation`"
)
moves = "rises" if made["slope"][-1] > made["slope"][0] else "falls"

# %% tags=["hide-input"]
between = lambda e, form=".2g": f"{written(e.low, form)} to {written(e.high, form)}" if len(e) > 1 else written(e, form)  # fmt: skip
names = (
    "correlation",
    "mean slope / mean norm of the slopes",
    "$\\bar R$ / $R$, norms",
)
names += "$R$ / mean norm of its summands", "$R_\\pi - \\bar R$ / the same"
ratios = ("difference", "shuffled"), ("mean_slope", "slope"), ("averaged", "residual"), ("residual", "summand"), ("shuffled", "summand")  # fmt: skip
rows = [[n, *(between(stored(*both, i)) for i in (0, -1))] for n, both in zip(names, ratios)]  # fmt: skip
figures.table([f"stored runs: {len(slope_runs)}; range", "start", "end"], rows)

# %% tags=["hide-input"]
say(
    """**This run.** At the end the $i$-th eigenvalue of $H$ differs from the $i$-th of $G$ by at most {moved:.3g}; Weyl's bound is {weyl:.3g}, the largest eigenvalue {top:.3g}. The leading
    eigenspaces overlap to {shared_end:.3f}, at the start to {shared_start:.3f}. The mean norm of the slopes {moves} from {slope_start:.3f} to {slope_end:.3g}.
    The mean slope has {cancel_start:.1f} % of it at the start and {cancel_end:.1f} % at the end, $R$ has {r_start:.1f} % and {r_end:.1f} % of the mean norm of its
    summands. $\\|R - \\bar R\\|$ is {deal_start:.1f} times what random dealing gives at the start, and {deal_end:.1f} times at the end.

    **Stored runs.** With 1,000 digits the correlation $\\|R - \\bar R\\| / \\|R_\\pi - \\bar R\\|$ is {s_start:.2f} at the start and {s_end:.2f} at the end, where 1 is what slopes dealt out at random give. So the slopes are correlated with the second derivatives
    at the start, and at the end $R$ is a little nearer to the product of the means than by chance. How far the slopes cancel at the end depends on the seed. From start to end the slopes fall by a factor of {slope_fall}, the
    summands by {summand_fall}, and $R$ by {r_fall}: most of what makes $R$ small is that each example is fitted, and cancelling adds a factor of {extra}.""",
    moved=moved[-1], weyl=weyl[-1], top=end["H"][-1], shared_end=shared[-1], shared_start=shared[0], moves=moves, slope_start=made["slope"][0],
    slope_end=made["slope"][-1], cancel_start=100 * of("mean_slope", "slope", 0), cancel_end=100 * of("mean_slope", "slope", -1),
    r_start=100 * of("residual", "summand", 0), r_end=100 * of("residual", "summand", -1), deal_start=of("difference", "shuffled", 0),
    deal_end=of("difference", "shuffled", -1), s_start=stored("difference", "shuffled", 0), s_end=stored("difference", "shuffled", -1),
    slope_fall=between(falls("slope"), ",.0f"), summand_fall=between(falls("summand"), ",.0f"), r_fall=between(falls("residual"), ",.0f"), extra=between(extra, ".1f"),
)  # fmt: skip

# %% [markdown]
# ## The noise of the gradients
#
# In the probability reading $G$ is the second moment of the gradients $g_n$; less $\bar g \bar g^\top$ it is their covariance, the noise of stochastic gradient descent with one example
# at a time. We compare its spectrum at the end with those of $H$ and of the Gauss-Newton matrix.

# %% tags=["hide-input"]
leading = figures.panel("at the end of training")
lines = {"H": ("$H$", "H"), "G": ("$G$, logits", "G"), "G_p": ("second moment of the gradients", "theory")}  # fmt: skip
for key, (name, color) in lines.items():
    figures.ranked(leading, end[key][end[key] > 0], figures.COLORS[color], name, floor=1e-10, points=120)  # fmt: skip
leading.legend(loc="lower left")
figures.figure(
    "fig_covariance", leading,
    caption="Positive eigenvalues of the Hessian, of the Gauss-Newton matrix and of the gradients' second moment at the end of training, against rank. The mean gradient contributes "
    f"{100 * float(risk.gradient().norm() ** 2) / end['G_p'].sum():.1f} % to the trace of the last.",
    alt="Positive eigenvalues of H, of the Gauss-Newton matrix and of the second moment of the gradients at the end of training, against rank on logarithmic axes. The last "
    f"has a largest eigenvalue of {end['G_p'][-1]:.2g}, H one of {end['H'][-1]:.2g}.",
)  # fmt: skip

# %% tags=["hide-input"]
say(
    """In this run the 10 leading directions of the noise and of $H$ overlap to {overlap:.2f} at the end, and the largest eigenvalue of the second moment is {scale:.2g} times that of $H$. In the
    stored runs the overlap is {s_start:.2f} at the start and {s_end:.2f} at the end, and the ratio of the largest eigenvalues {s_scale:.1e} at the end. The scales differ because the gradient of a
    fitted example is of the order of $1 - p_y$ and its square of the order of $(1 - p_y)^2$, while $A_n$, and with it the Gauss-Newton matrix, is of the order of $1 - p_y$.""",
    overlap=made["overlap"][-1], scale=made["noise_top"][-1] / made["top"][-1],
    s_start=Estimate([r["overlap"][0] for r in slope_runs.results], of="`correlation`"),
    s_end=Estimate([r["overlap"][-1] for r in slope_runs.results], of="`correlation`"), s_scale=stored("noise_top", "top", -1),
)  # fmt: skip

# %% [markdown]
# ## At the paper's size, over seeds


# %% tags=["hide-input"]
def output_gradients(risk):
    """The vectors d_n, (N, C)."""
    x, y = risk.batches[0]
    with torch.no_grad():
        return risk.criterion.terms(risk.outputs(risk.parameters, x), y)[0]


def without_correlation(risk):
    """Frobenius norms of R and of what it would be without correlation, and the mean norm of d."""
    x, y = risk.batches[0]
    d = output_gradients(risk)
    linear = EmpiricalRisk(risk.model, x, y, lambda f, _: (f @ d.mean(0)).mean())
    norms = [
        op.to_dense().norm().item()
        for op in (risk.residual(), linear.at(risk.vector).hessian())
    ]
    return *norms, d.norm(dim=1).mean().item()


# %%
def decomposed(**setting):
    """Norms, zeros, distances and overlap at the start and at the end of one run."""
    risk, history = trained(**setting)
    found = []
    for w in (history.parameters[0], history.parameters[-1]):
        here, s = risk.at(w), terms(risk.at(w))
        r, r0, _ = without_correlation(here)
        found.append([
            size(s["R"]) / size(s["G"]), size(s["R_p"]) / size(s["G_p"]),
            np.abs(s["H"] - s["G"]).max() / size(s["R"]), overlap(here, 10), r0 / r,
            zeros(s["G_p"]), zeros(s["G"]), zeros(s["H"]), -s["H"][0] / s["H"][-1],
        ])  # fmt: skip
    return {"measures": found, "losses": [history.losses[0], history.losses[-1]]}


# %%
runs = Store().sweep("terms", decomposed, grid, run=run)
measured = [
    "norm of $R$ / norm of $G$, logits", "norm of $R$ / norm of $G$, probability",
    "largest distance of $H$ to $G$ / norm of $R$",
    "overlap of the 10 leading eigenvectors of $H$ and $G$",
    "norm of $\\bar R$ / norm of $R$",
    "zeros of $G$, probability", "zeros of $G$, logits", "zeros of $H$",
    "lowest / largest eigenvalue of $H$, magnitudes",
]  # fmt: skip
measures = runs.values("measures") if runs else np.zeros((0, 2, 9))
forms = [".3g"] * 5 + [",.0f"] * 3 + [".2g"]
cells = [[Estimate(v) for v in both.T] for both in np.moveaxis(measures, 2, 0)]
rows = [[name, *(written(v, form) for v in both)]
        for name, form, both in zip(measured, forms, cells)]  # fmt: skip
head = f"{grid[0]['examples']:,} digits; runs: {len(runs)}"
figures.table([head, "start", "end"], rows)

# %% tags=["hide-input"]
change = measures[:, 1, :2] / measures[:, 0, :2]
estimate = lambda v: Estimate(v, of="`terms`")
say(
    """In the stored runs the ratio of $R$ to $G$ falls by a factor of {falls:.0f} with the logits and rises by one of {rises:.0f} in the probability reading. With the logits the rank promises no zeros at this
    size, since $N(C-1) > M$, and {zeros_g:,.0f} are found, for the reasons of Chapter 1. In the probability reading the bound $M - N$ is met.

    'Ignore the second term' is therefore right for the large eigenvalues with the logits at the end of training. It is wrong for the scalar output of the paper's Equation 5, and for the small eigenvalues
    a small norm of $R$ says nothing: those below zero come from $R$ alone.""",
    falls=estimate(1 / change[:, 0]), rises=estimate(change[:, 1]), zeros_g=estimate(measures[:, 1, 6]),
)  # fmt: skip

# %% [markdown]
# ## Verdicts

# %% tags=["hide-input"]
verdicts("02_ggn")

# %% [markdown]
# ## Checks

# %%
dense = [op.to_dense() for op in (risk.hessian(), risk.ggn(), risk.residual())]
error = (dense[1] + dense[2] - dense[0]).abs().max() / dense[0].abs().max()
lowest = min(min(s["G"][0] / s["G"][-1], s["G_p"][0] / s["G_p"][-1]) for s in along)
x, y = risk.batches[0]
single = (
    EmpiricalRisk(risk.model, x[:1], y[:1]).at(risk.vector).residual().to_dense()
)
summand = summand_norms(risk, output_slopes(risk))[0]

# %% tags=["nbval-check-output"]
within = (moved <= weyl * (1 + 1e-10) + 1e-14).all()
check("distance of eigenvalues within Weyl's bound", within)
check("zeros at least as many as promised", all(kept))
check("G + R = H, each formed on its own, to 1e-12", float(error), below=1e-12)
check("G positive semidefinite to 1e-12", -lowest, below=1e-12)
gap = float((single.norm() - summand).abs() / (single.norm() + 1e-30))
check("one summand of R by another route, to 1e-10", gap, below=1e-10)

# %% [markdown]
# ## Limits
#
# * ReLU has no second derivative at its kink; $\nabla^2 f$ is what automatic differentiation gives, the curvature between the kinks.
# * The overlap compares spaces of $C$ or 10 dimensions. Where the eigenvalues around the last rank are close, their eigenvectors mix, and the overlap is lower for this reason alone.
# * Norms are spectral norms in the ratios of $R$ to $G$ and Frobenius norms in the section on correlation.
#
# ## Try it
#
# **Exercise: stop early.** The second term fades because the examples are fitted. Predict the ratio of $R$ to $G$ at the end if training stops after 30 iterations; then run
# `papermill notebooks/02_ggn.ipynb out.ipynb -p iterations 30`.
#
# <details><summary>Answer</summary>
#
# $R$ is then larger than at the start, since the weights have grown and the examples are not yet fitted. The ratio is lower all the same, because $G$ has grown more. Only when the examples
# are fitted does $R$ itself become small.
#
# </details>

# %% tags=["hide-input"]
foot(p, runs, slope_runs)
