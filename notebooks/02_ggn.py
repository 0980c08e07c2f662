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
# (ggn)=
# # Two terms of the Hessian
#
# :::{admonition} The paper's claims
# :class: important
# The Hessian is the sum of a covariance of gradients and a term that can be ignored as training progresses. With more
# parameters, $M$, than examples, $N$, the first term is degenerate: it has at least $M - N$ eigenvalues at zero. The second term
# alone can make eigenvalues negative, and they are small {cite:p}`sagun2017` (Section 2.2, Equations 2 to 5, and Section 3.4).
# :::
#
# ```{margin} Notation
# $N$ examples, $M$ parameters, $C$ classes; outputs $f(w, x_n)$ with Jacobian $J_n$; $d_n$ and $A_n$ are gradient and Hessian of example
# $n$'s loss in the outputs; $p_n$ are the probabilities. {doc}`All symbols <../book/notation>`.
# ```
#
# ## The decomposition
#
# Let a network have one real output $f(w, x)$, and let $\ell$ be a convex loss of it. By the chain rule (Equations 2 and
# 3 of the paper) one example has gradient $\ell'(f) \nabla f$ and Hessian
# $\ell''(f)\, \nabla f \nabla f^\top + \ell'(f)\, \nabla^2 f$, so that (Equation 4)
#
# $$
# H \;=\; \underbrace{\frac1N \sum_n \ell''(f_n)\, \nabla f_n \nabla f_n^\top}_{G}
#    \;+\; \underbrace{\frac1N \sum_n \ell'(f_n)\, \nabla^2 f_n}_{R} .
# $$
#
# $G$ is a sum of $N$ matrices of rank one, each with a non-negative weight: it is positive semidefinite, of rank at
# most $N$. That leaves at least $M - N$ zeros. $R$ can have eigenvalues of both signs.
#
# With $C$ classes a network has $C$ outputs. The formula can then be read in two ways.
#
# * **Probability.** The paper takes as its one output the probability $p_y$ that the network gives to the label, and
#   $\ell(p) = -\log p$. Then $\ell''(p) \nabla p \nabla p^\top = g_n g_n^\top$ with $g_n$ the gradient of the example's
#   loss: $G$ is the second moment of the gradients, called the empirical Fisher matrix. Rank at most $N$.
# * **Logits.** Take all outputs before the softmax, and the loss as a convex function of them. Then $G = \frac1N \sum_n
#   J_n^\top A_n J_n$, the generalised Gauss-Newton matrix, with $J_n$ the $C \times M$ Jacobian and $A_n =
#   \operatorname{diag}(p_n) - p_n p_n^\top$ of rank $C - 1$. Rank at most $N(C-1)$.
#
# Both are exact: $H = G + R$ either way. They are different splits of the same matrix, and which of them one has in mind
# decides what can be said of $R$.
#
# ## Parameters
#
# ```bash
# papermill notebooks/02_ggn.ipynb out.ipynb -p examples 100 -p seed 1
# ```

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
hidden: list = []  # units of each hidden layer; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
step_size: float = 0.1  # constant step of gradient descent
seed: int = 0  # of the digits and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.book.parameters import integer, integers, real, resolve

p = resolve(
    globals(),
    hidden=integers(1, smoke=[3], quick=[6, 12], paper=[6, 12]),
    examples=integer(10, 4990, smoke=30, quick=200, paper=1000),
    iterations=integer(2, smoke=40, quick=3000, paper=5000),
    step_size=real(1e-6, 100),
    seed=integer(0),
    seeds=integer(1, smoke=1, quick=5, paper=5),
)

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk, spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
from hesslib.book.store import Store
from hesslib.experiments.data import mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.terms import (
    curvature_of_outputs,
    output_slopes,
    summand_norms,
)
from hesslib.experiments.training import train

# %% [markdown]
# ## Train, and take the terms apart along the way
#
# The network is that of {ref}`spectrum`, on fewer digits here, on 1,000 in the stored runs. Printed are spectral norms; `G` and `R` are those of the logits,
# `G_p` and `R_p` those of the probability.


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


def size(values):
    """Spectral norm, from the eigenvalues."""
    return max(abs(values[0]), abs(values[-1]))


# %%
names = ("hidden", "examples", "iterations", "step_size")
setting = {name: getattr(p, name) for name in names}
risk, history = trained(**setting, seed=p.seed)
along = [terms(risk.at(w)) for w in history.parameters]
start, end = along[0], along[-1]
m, n, c = risk.num_parameters, risk.num_examples, risk.num_outputs
print(f"M = {m:,}, N = {n:,}, C = {c}")
print(f"M - N = {m - n:,}, M - N(C - 1) = {m - n * (c - 1):,}")
print("norms at  " + "".join(f"{k:>9}" for k in start))
for t, s in zip(history.iterations, along):
    print(f"{t:>8,}  " + "".join(f"{size(v):>9.3g}" for v in s.values()))

# %% tags=["remove-output", "hide-input"]
rank = np.arange(1, m + 1)
middle = along[len(along) // 2]
floor = 1e-7
drawn = []
moments = ((0, "start"), (len(along) // 2, "middle"), (len(along) - 1, "end"))
for i, name in moments:
    ax = figures.panel(
        f"{name}, iteration {history.iterations[i]:,}", "rank", "eigenvalue"
    )
    for key in ("R", "G", "H"):
        curve = figures.signed_log(along[i][key], floor)
        ax.plot(
            *figures.thin(rank, curve), color=figures.COLORS[key], label=key, lw=1.3
        )
    low = min(v[0] for s in along for v in (s["H"], s["R"]))
    figures.signed_log_axis(ax, floor, low, max(s["H"][-1] for s in along))
    figures.thousands(ax)
    ax.legend(loc="upper left")
    drawn.append(ax)
figures.show(
    "fig_three",
    "Spectra of H, G and R by rank on a signed logarithmic axis, at the start, in the middle and at the end "
    "of training. R is symmetric about zero. On the right H and G lie on each other at the "
    "end; on the left H follows R into the negative.",
    *drawn,
)

# %% tags=["remove-cell"]
weyl = np.array([size(s["R"]) for s in along])
moved = np.array([np.abs(s["H"] - s["G"]).max() for s in along])
weyl_p = np.array([size(s["R_p"]) for s in along])
ratio = np.array([size(s["R"]) / size(s["G"]) for s in along])
ratio_p = np.array([size(s["R_p"]) / size(s["G_p"]) for s in along])
figures.number(
    M=m, N=n, C=c,
    ratio_start=ratio[0], ratio_end=ratio[-1], ratio_p_start=ratio_p[0], ratio_p_end=ratio_p[-1],
    negatives_h=int((end["H"] < -1e-10).sum()), negatives_r=int((end["R"] < -1e-10).sum()),
    lowest=end["H"][0], largest=end["H"][-1], last=history.iterations[-1],
)  # fmt: skip

# %% [markdown]
# ```{glue:figure} fig_three
# :name: fig-three
# Eigenvalues of $H$ and of its two terms (logits), in ascending order, at three moments of training. The axis is linear within $\pm 10^{-7}$.
# ```
#
# **Reading.** At the start neither term is small: $R$ has {glue:text}`ratio_start:.2f` times the norm of $G$, and $H$
# takes after both. At the end the ratio is {glue:text}`ratio_end:.3f`. At the right end of the last panel the leading eigenvalues of $H$ follow those of $G$; at its left end $H$
# cannot, since $G$ has no negative eigenvalues, and follows $R$: {glue:text}`negatives_h` eigenvalues of $H$ lie below
# $-10^{-10}$, and {glue:text}`negatives_r` of $R$. The lowest is {glue:text}`lowest:.1e`, against {glue:text}`largest:.2f` for
# the largest. For *large* eigenvalues the second term can be ignored at the end; for the *sign* of the small ones it
# is all there is.

# %% [markdown]
# ### Moment by moment, on a small network
#
# To move through training without waiting, digits shrunk to 7 by 7 pixels and six hidden units: $M$ is a few hundred, and all three
# spectra take a moment. In Jupyter every release of a slider computes them anew; another seed or width also trains anew.

# %% tags=["hide-input"]
from functools import cache

pooled = lambda data: torch.nn.functional.avg_pool2d(
    data.inputs.view(-1, 1, 28, 28), 4
).flatten(1)
last_moment = min(p.iterations, 2000)
moments = [0, *np.unique(np.geomspace(5, last_moment, 11).astype(int)).tolist()]


@cache
def shrunk(width, seed):
    """A small network trained on 50 shrunk digits; its risk and parameters at the moments."""
    data = mnist(50, seed=seed)
    x, y = pooled(data), data.targets
    model = fully_connected([49, width, 10], seed=seed)
    options = {"step_size": 0.2, "iterations": last_moment, "record": moments}
    history = train(model, x, y, progress=False, **options)
    return EmpiricalRisk(model, x, y), history.parameters


# %% tags=["remove-output", "hide-input"]
def split(iteration, reading, seed=p.seed, width=6):
    """The spectra of H, G and R of the small network at one moment, in one reading."""
    risk, kept = shrunk(width, seed)
    at = risk.at(kept[moments.index(iteration)])
    operators = {"R": at.residual(reading), "G": at.ggn(reading), "H": at.hessian()}
    found = {
        k: spectrum(op, progress=False).eigenvalues for k, op in operators.items()
    }
    ax = figures.panel("", "rank", "eigenvalue")
    for key, values in found.items():
        curve = figures.signed_log(values, 1e-6)
        x = np.linspace(0, 100, len(values))
        ax.plot(
            *figures.thin(x, curve, 120),
            color=figures.COLORS[key],
            label=key,
            lw=1.3,
        )
    ax.set(
        xlabel="rank in % of M",
        ylim=figures.signed_log(np.array([-30.0, 30.0]), 1e-6),
    )
    figures.signed_log_axis(ax, 1e-6, -30, 30)
    ax.legend(loc="upper left")
    norms = {k: size(v) for k, v in found.items()}
    sentence = f"Iteration {iteration:,}, {reading}: the norm of R is {norms['R'] / norms['G']:.2g} times that of G; "
    low = found["H"][0]
    sentence += f"the lowest eigenvalue of H is {low:.2g}, the largest {found['H'][-1]:.2f}."
    return sentence, ax


explore(
    split,
    {"iteration": moments, "reading": ["logits", "probability"]},
    name="fig_explore_terms",
    alt="Eigenvalues of H, G and R of a small network in ascending order on a signed logarithmic axis, at one moment "
    "of training.",
    live={"seed": range(p.seed, p.seed + 10), "width": range(6, 25, 2)},
)

# %% [markdown]
# ```{glue:figure} fig_explore_terms
# :name: fig-explore-terms
# $H = G + R$ along training, for a network of a few hundred parameters and 50 examples, in either reading. The axis is linear within $\pm 10^{-6}$.
# ```
#
# **Reading.** With the logits the spectrum of $R$ draws in as the examples are fitted, and $H$ settles on $G$. Switch to the probability:
# now it is $G$ that shrinks, to a small part of $R$, and $H$ settles on $R$.

# %% [markdown]
# ## How many zeros
#
# What a rank bound promises, and what there is. An eigenvalue counts as zero if its magnitude is below $10^{-12}$ of the largest. The same
# count is made for a network with fewer parameters than examples: digits shrunk to 7 by 7 pixels, eight hidden units.


# %%
def zeros(values):
    """Eigenvalues below 1e-12 of the largest in magnitude."""
    return int((np.abs(values) <= 1e-12 * np.abs(values).max()).sum())


def small_network(examples, iterations, seed):
    """Fewer parameters than examples: 7 x 7 pixels, 8 hidden units, M = 490."""
    data = mnist(examples, seed=seed)
    x, y = pooled(data), data.targets
    model = fully_connected([49, 8, 10], seed=seed)
    train(model, x, y, step_size=0.2, iterations=iterations)
    return EmpiricalRisk(model, x, y)


# %%
under_risk = small_network(4 * p.examples, p.iterations, p.seed)
under = terms(under_risk)

# %% tags=["hide-input"]
rows = []
for label, r, s in (("M > N", risk, end), ("M < N", under_risk, under)):
    m_, n_ = r.num_parameters, r.num_examples
    promised = {"G_p": m_ - n_, "G": m_ - n_ * (c - 1)}
    for key, name in (("G_p", "G (probability)"), ("G", "G (logits)"), ("H", "H")):
        bound = max(promised.get(key, 0), 0)
        rows.append(
            [
                label,
                f"{m_:,}",
                f"{n_:,}",
                name,
                f"{bound:,}" if key != "H" else "none",
                f"{zeros(s[key]):,}",
            ]
        )
figures.table(["case", "M", "N", "matrix", "zeros promised", "zeros found"], rows)

# %% tags=["remove-cell"]
promise = bool(
    zeros(end["G_p"]) >= m - n
    and zeros(end["G"]) >= m - n * (c - 1)
    and zeros(under["G_p"]) >= under_risk.num_parameters - under_risk.num_examples
)
x, _ = risk.batches[0]
active = int(
    (x @ risk.parameters["0.weight"].T + risk.parameters["0.bias"] > 0).sum()
)
later = m - risk.parameters["0.weight"].numel() - risk.parameters["0.bias"].numel()
structural = min(active + later, n * (c - 1))
figures.number(
    zeros_h=zeros(end["H"]),
    zeros_gp=zeros(end["G_p"]),
    promised_gp=max(m - n, 0),
    dead=int(784 - mnist(p.examples, seed=p.seed).inputs.any(0).sum())
    * p.hidden[0],
    promised_g=max(m - n * (c - 1), 0),
    structural=structural,
    structural_zeros=max(m - structural, 0),
    zeros_g=zeros(end["G"]),
    zeros_under=zeros(under["G_p"]),
    under_m=under_risk.num_parameters,
    under_n=under_risk.num_examples,
)

# %% [markdown]
# **Reading.** Both promises are kept: $M - N = $ {glue:text}`promised_gp:,` in the probability reading
# ({glue:text}`zeros_gp:,` found), $M - N(C-1) = $ {glue:text}`promised_g:,` with the logits
# ({glue:text}`zeros_g:,` found). With $C$ classes the second is the one that applies to the matrix
# $H$ comes close to; as a statement on it, 'at least $M - N$ trivial eigenvalues' promises $N(C-2)$ too many.
#
# Why are there more zeros than promised? The bound knows only $N$ and $C$. But a weight into a hidden unit moves the outputs of an example only
# if the unit is active on it, and then in proportion to the pixel. So each *active pair* of unit and example adds one direction at most, and
# each weight of the later layers one more: the rank is at most their number, {glue:text}`structural:,`, which leaves
# {glue:text}`structural_zeros:,` zeros.
#
# $H$ itself has {glue:text}`zeros_h:,`; {glue:text}`dead:,` of them belong to pixels that are black in every digit. With $M < N$ ({glue:text}`under_m` parameters,
# {glue:text}`under_n:,` examples) nothing is promised, and the probability reading has {glue:text}`zeros_under` zeros.

# %% [markdown]
# ## Can the second term be ignored?
#
# Three measures along training. **The bound by Weyl's inequality**: no eigenvalue of $H$ is further from that of $G$ with the same rank than
# the norm of $R$; beside it the largest distance there is. **Norms**: $\|R\|/\|G\|$ in both readings. **Eigenspaces**: how much the span of the
# $C$ leading eigenvectors of $H$ and of $G$ have in common, from 0 (orthogonal) to 1 (the same).


# %%
def overlap(risk, k):
    """Squared cosine, on average, between the spans of the k leading eigenvectors of H and G."""
    v, u = (
        top_eigenpairs(op, k).eigenvectors for op in (risk.hessian(), risk.ggn())
    )
    return np.linalg.norm(v.T @ u) ** 2 / k


shared = np.array([overlap(risk.at(w), c) for w in history.parameters])

# %% [markdown]
# The paper's argument for ignoring $R$ is this: near a minimum the *average* of $\ell'$ is close to zero, and if
# $\ell'(f_n)$ and $\nabla^2 f_n$ are **not correlated** over the examples, $R = \operatorname{mean}(\ell' \nabla^2 f)$ is
# close to $\operatorname{mean}(\ell')\operatorname{mean}(\nabla^2 f)$, hence to zero. So we compute that product,
# $\bar R = \sum_c \bar d_c\, \frac1N \sum_n \nabla^2 f_c(x_n)$ with $\bar d$ the mean of $d_n = p_n - y_n$, which is what $R$ would be
# without correlation. It is the Hessian of a loss that is linear in the outputs.


# %% tags=["hide-input"]
def output_gradients(risk):
    """The vectors d_n, (N, C)."""
    x, y = risk.batches[0]
    with torch.no_grad():
        return risk.output_terms(risk.outputs(risk.parameters, x), y)[0]


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


residual, uncorrelated, misfit = np.array(
    [without_correlation(risk.at(w)) for w in history.parameters]
).T
mean_d = np.array(
    [output_gradients(risk.at(w)).mean(0).norm() for w in history.parameters]
)

# %% tags=["remove-output", "hide-input"]
when = np.maximum(history.iterations, 1)
sizes = figures.panel(
    "eigenvalues", "iteration", "spectral norm", xscale="log", yscale="log"
)
sizes.plot(
    when,
    [size(s["G"]) for s in along],
    "o-",
    color=figures.COLORS["G"],
    label="norm of G",
)
sizes.plot(
    when, weyl, "o-", color=figures.COLORS["R"], label="norm of R (Weyl's bound)"
)
sizes.plot(
    when,
    moved,
    "s--",
    color=figures.COLORS["H"],
    label="largest distance of H to G",
)
sizes.legend(fontsize=8)
shares = figures.panel(
    "overlap and ratios", "iteration", "share or ratio", xscale="log", yscale="log"
)
shares.plot(
    when,
    shared,
    "o-",
    color=figures.COLORS["H"],
    label="overlap of leading eigenspaces",
)
shares.plot(when, ratio, "o-", color=figures.COLORS["R"], label="R to G, logits")
shares.plot(
    when,
    ratio_p,
    "s--",
    color=figures.COLORS["theory"],
    label="R to G, probability",
)
shares.legend(fontsize=8, loc="lower left")
correlation = figures.panel(
    "correlation", "iteration", "norm", xscale="log", yscale="log"
)
correlation.plot(
    when, residual, "o-", color=figures.COLORS["R"], label="R (Frobenius)"
)
correlation.plot(
    when,
    uncorrelated,
    "s--",
    color=figures.COLORS["theory"],
    label="R without correlation",
)
correlation.plot(
    when,
    misfit,
    "o:",
    color=figures.COLORS["start"],
    label="mean of the norms of d",
)
correlation.plot(
    when, mean_d, "^:", color=figures.COLORS["end"], label="norm of the mean of d"
)
correlation.legend(fontsize=8)
figures.show(
    "fig_ignore",
    "Three panels against iterations. Norms of G and R and the largest distance between eigenvalues of H and G, "
    "which stays below the norm of R. Overlap of leading eigenspaces, rising towards one, and the ratio of R to "
    "G in both readings. Frobenius norm of R, of what it would be without correlation, the mean norm of the "
    "loss gradient d in the outputs, and the norm of its mean: after the first moments all four fall together.",
    sizes,
    shares,
    correlation,
)

# %% tags=["remove-cell"]
figures.number(
    weyl_end=weyl[-1],
    moved_end=moved[-1],
    shared_start=shared[0],
    shared_end=shared[-1],
    rest=100 * uncorrelated[-1] / residual[-1],
    rest_start=100 * uncorrelated[0] / residual[0],
    misfit_start=misfit[0],
    misfit_end=misfit[-1],
    mean_start=mean_d[0],
    mean_end=mean_d[-1],
    cancel_start=100 * mean_d[0] / misfit[0],
    cancel_end=100 * mean_d[-1] / misfit[-1],
    residual_fall=residual.max() / residual[-1],
    misfit_fall=misfit.max() / misfit[-1],
)

# %% [markdown]
# ```{glue:figure} fig_ignore
# :name: fig-ignore
# When the second term may be ignored. All quantities are computed at the marked moments, on all examples. The logarithmic axis has no zero:
# the random start is drawn at 1.
# ```
#
# **Reading.** At the end Weyl's bound is {glue:text}`weyl_end:.3g` and the largest distance {glue:text}`moved_end:.3g`. The leading
# eigenspaces overlap to {glue:text}`shared_end:.3f`, from {glue:text}`shared_start:.3f` at the start. So for the large eigenvalues the
# conclusion of the paper holds.
#
# Its argument is another matter. The mean of $d_n$ does become small: its norm falls from {glue:text}`mean_start:.3f` to {glue:text}`mean_end:.1e`. But so
# does each $d_n$: their mean norm falls from {glue:text}`misfit_start:.2f` to {glue:text}`misfit_end:.4f`. What the mean leaves uncancelled is much the same
# at both ends: {glue:text}`cancel_start:.0f` % of the mean norm at the start, {glue:text}`cancel_end:.0f` % at the end. The cancelling does not get better
# with training. Nor does
# the product of the means, as the paper has it, vanish before $R$ does: it has
# {glue:text}`rest_start:.0f` % of the Frobenius norm of $R$ at the start and {glue:text}`rest:.0f` % at the end (over seeds see the table below).
# So what fades is each term, not only their sum, since the examples are fitted one by one.
#
# In the probability reading the second term does not become small at all, it takes over: $\|R\|/\|G\|$ is {glue:text}`ratio_p_end:.0f` at the end,
# against {glue:text}`ratio_end:.3f` with the logits. For a fitted example $p_y \approx 1$, so $\ell' = -1/p_y \approx -1$ stays, and so does the
# curvature of the probability: $R$ must supply nearly all of $H$. 'Ignore the second term' is right for the
# logits and wrong for the scalar output of the paper's Equation 5.

# %% [markdown]
# ## The covariance of the gradients
#
# In the probability reading $G$ is the second moment of the gradients $g_n$; less $\bar g \bar g^\top$ it is their covariance, the noise of
# stochastic gradient descent with one example at a time. Its spectrum at the end, beside those of $H$ and of the Gauss-Newton matrix:

# %% tags=["remove-output", "hide-input"]
leading = figures.panel(
    "", "rank from the largest", "eigenvalue", xscale="log", yscale="log"
)
first = np.arange(1, min(m, 3 * n) + 1)
lines = {"H": ("H", "-"), "G": ("G", "--"), "G_p": ("theory", ":")}
names = {"H": "H", "G": "G (logits)", "G_p": "second moment of gradients"}
for key, (color, style) in lines.items():
    curve = end[key][::-1][: len(first)]
    leading.plot(
        first[curve > 1e-12],
        curve[curve > 1e-12],
        style,
        color=figures.COLORS[color],
        label=names[key],
    )
leading.legend(loc="lower left")
figures.show(
    "fig_covariance",
    "Leading eigenvalues of H, of the Gauss-Newton matrix and of the second moment of the gradients at the end of "
    "training, on logarithmic axes. H and G coincide for the outliers; the gradient covariance has the same form on "
    "a lower level and breaks off at rank N.",
    leading,
)

# %% tags=["remove-cell"]
v_h, v_f = (
    top_eigenpairs(op, c).eigenvectors
    for op in (risk.hessian(), risk.ggn("probability"))
)
figures.number(
    norm_g2=float(risk.gradient().norm() ** 2),
    fisher_top=end["G_p"][-1],
    fisher_trace=end["G_p"].sum(),
    h_top=end["H"][-1],
    fisher_overlap=np.linalg.norm(v_h.T @ v_f) ** 2 / c,
)

# %% [markdown]
# ```{glue:figure} fig_covariance
# :name: fig-covariance
# Leading eigenvalues of the Hessian and of the gradients' second moment at the end of training. The mean gradient contributes
# {glue:text}`norm_g2:.1e` to a trace of {glue:text}`fisher_trace:.1e`.
# ```
#
# **Reading.** The noise of the gradients has few large directions, and they are nearly those of $H$: the leading eigenspaces
# overlap to {glue:text}`fisher_overlap:.2f`. Its size is another: the largest eigenvalue is {glue:text}`fisher_top:.2e`, that of $H$ {glue:text}`h_top:.2e`. The
# probability of a fitted example is nearly one, its gradient is of the order of $1 - p$, and the second moment of the order of $(1-p)^2$,
# while the Gauss-Newton matrix is of the order of $1-p$.

# %% [markdown]
# ## At the paper's size, over seeds


# %%
def decomposed(**setting):
    """Norms, zeros, distances and overlap at the start and at the end of one run."""
    risk, history = trained(**setting)
    found = []
    for w in (history.parameters[0], history.parameters[-1]):
        here, s = risk.at(w), terms(risk.at(w))
        r, r0, _ = without_correlation(here)
        found.append([
            size(s["R"]) / size(s["G"]), size(s["R_p"]) / size(s["G_p"]), np.abs(s["H"] - s["G"]).max() / size(s["R"]),
            overlap(here, 10), r0 / r, zeros(s["G_p"]), zeros(s["G"]), zeros(s["H"]), -s["H"][0] / s["H"][-1],
        ])  # fmt: skip
    return {"measures": found, "losses": [history.losses[0], history.losses[-1]]}


# %%
paper_setting = {
    "hidden": [6, 12],
    "examples": 1000,
    "iterations": 5000,
    "step_size": 0.1,
}
asked = setting if p.scale == "paper" else paper_setting
grid = [{**asked, "seed": s} for s in range(p.seeds)]
runs = Store().sweep("terms", decomposed, grid, run=p.scale == "paper")
print(runs.label)


# %%
def correlated(**setting):
    """What R is made of at each moment: Frobenius norms, slopes, and how the noise of the gradients lies to H."""
    risk, history = trained(**setting)
    names = "residual averaged difference shuffled summand mean_slope slope overlap noise_top top"
    rows = []
    for w in history.parameters:
        here = risk.at(w)
        d = output_slopes(here)
        deal = torch.randperm(
            len(d), generator=torch.Generator().manual_seed(setting["seed"])
        )
        r, mean, dealt = (
            curvature_of_outputs(here, slopes)
            for slopes in (d, d.mean(0).expand_as(d), d[deal])
        )
        norms = [m.norm().item() for m in (r, mean, r - mean, dealt - mean)]
        norms += [summand_norms(here, d).mean().item()]
        norms += [d.mean(0).norm().item(), d.norm(dim=1).mean().item()]
        h, noise = (
            top_eigenpairs(op, 10)
            for op in (here.hessian(), here.ggn("probability"))
        )
        overlap_10 = np.linalg.norm(h.eigenvectors.T @ noise.eigenvectors) ** 2 / 10
        rows.append([*norms, overlap_10, noise.eigenvalues[0], h.eigenvalues[0]])
    found = dict(zip(names.split(), np.array(rows).T))
    return found | {"losses": history.losses, "iterations_at": history.iterations}


# %%
slope_runs = Store().sweep("correlation", correlated, grid, run=p.scale == "paper")

# %% tags=["hide-input"]
measured = [
    "R to G, logits",
    "R to G, probability",
    "distance of H to G in units of the norm of R",
]
measured += [
    "overlap of the 10 leading eigenvectors",
    "R without correlation, in units of the norm of R",
]
measured += [
    "zeros of G (probability)",
    "zeros of G (logits)",
    "zeros of H",
    "minus the lowest to the largest eigenvalue of H",
]


def mean_and_spread(values):
    """Mean and standard deviation to the digit that the latter allows."""
    if len(values) < 2:
        return "not run"
    mean, spread = values.mean(), values.std(ddof=1)
    digits = int(max(0, 1 - np.floor(np.log10(spread)))) if spread else 0
    return f"{mean:,.{digits}f} ± {spread:,.{digits}f}"


rows = []
for i, name in enumerate(measured):
    values = runs.values("measures")[:, :, i] if runs else np.zeros((0, 2))
    rows.append([name, *map(mean_and_spread, values.T)])
figures.table(
    [f"{asked['examples']:,} digits, {len(runs)} seeds", "start", "end"], rows
)

# %% [markdown]
# **Reading.** The table repeats the measures on {glue:text}`stored` (mean and standard deviation). From start to end the ratio of $R$ to $G$ falls
# by a factor of {glue:text}`falls` with the logits and rises by one of {glue:text}`rises` in the probability reading (least and most over the runs). Without correlation
# $R$ would be {glue:text}`rest_low:.2f` to {glue:text}`rest_high:.2f` times as large as it is at the end: in none of the runs is a vanishing mean
# of $d_n$ what makes it small. The logits promise no zeros here, since $N(C-1) > M$, and yet there are nearly two thousand, for the reason
# given above; the probability reading keeps its promise of $M - N$. The lowest eigenvalue (last line, without its sign) is of the order of
# the largest at the start and a thousandth of it or less at the end.

# %% tags=["remove-cell"]
share = runs.values("measures")[:, 1, 4] if runs else np.zeros(1)
both = runs.values("measures")[:, :, :2] if runs else np.ones((1, 2, 2))
fall, rise = both[:, 0, 0] / both[:, 1, 0], both[:, 1, 1] / both[:, 0, 1]
figures.number(
    stored=runs.label, rest_low=share.min(), rest_high=share.max(),
    falls=f"{fall.min():,.0f} to {fall.max():,.0f}", rises=f"{rise.min():,.0f} to {rise.max():,.0f}",
)  # fmt: skip

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
print(
    "distance of eigenvalues within Weyl's bound:",
    "pass" if (moved <= weyl * (1 + 1e-10)).all() else "FAIL",
)
print("zeros at least as many as promised:", "pass" if promise else "FAIL")
dense = {
    k: op.to_dense()
    for k, op in (("H", risk.hessian()), ("G", risk.ggn()), ("R", risk.residual()))
}
error = float(
    (dense["G"] + dense["R"] - dense["H"]).abs().max() / dense["H"].abs().max()
)
print(
    "G + R = H, each formed on its own, to 1e-12:",
    "pass" if error < 1e-12 else f"FAIL ({error:.1e})",
)
lowest = min(min(s["G"][0] / s["G"][-1], s["G_p"][0] / s["G_p"][-1]) for s in along)
print(
    "G positive semidefinite to 1e-12:",
    "pass" if lowest > -1e-12 else f"FAIL ({lowest:.1e})",
)

# %% [markdown]
# ## Limits
#
# * ReLU has no second derivative at its kink; $\nabla^2 f$ is what automatic differentiation gives, the curvature on either side of it.
# * The overlap compares spaces of $C$ dimensions; where the eigenvalues around rank $C$ are close, their eigenvectors
#   mix and the overlap is lower for no deeper reason.
# * Norms are spectral norms unless Frobenius is said.
#
# ## Try it
#
# ::::{admonition} Exercise: stop early
# :class: tip
# The second term fades because the examples are fitted. Predict the ratio of $R$ to $G$ at the end if training stops after 30
# iterations; then run with `-p iterations 30`.
#
# :::{dropdown} Answer
# $R$ is then larger than at the start, since the weights have grown and the examples are not yet fitted; the ratio is
# lower all the same, because $G$ has grown more. What makes $R$ itself small comes later, when the examples are fitted.
# :::
# ::::
#
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
