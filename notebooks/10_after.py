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
# # What came after
#
# > **The paper's open questions.** Why are there about as many outliers as classes (Section 3.1)? What has the step size to do
# > with the size of the large eigenvalues (Section 3.3)? Are other solutions connected too, up to the symmetries of the network
# > (Section 4.1)? Does the second term of the Hessian contribute symmetrically (Section 3.4)?
# > [Sagun et al. 2017](../book/references.md)
#
# Later work has answered the first three of these questions. This chapter shows some of the answers with the tools of the book, each on a
# network that trains in seconds, and lists the others at its end. $J_n$ is the Jacobian of the outputs at example $n$, $p_n$ the probabilities,
# $e_c$ the one-hot vector of class $c$, $C$ the number of classes, $\eta$ the step; [all symbols](../book/notation.md).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
steps: list = []  # step sizes of gradient descent; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
seed: int = 0  # of the data and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
from hesslib.book.parameters import ParameterError, integer, reals, resolve
from hesslib.book.text import Estimate, check, foot, say, this_run

p = resolve(
    globals(),
    steps=reals(1e-3, 100, smoke=[2.0], quick=[2.0, 4.0], paper=[2.0, 4.0, 6.0]),
    examples=integer(50, 4990, smoke=60, quick=300, paper=500),
    iterations=integer(20, smoke=40, quick=1500, paper=3000),
    seed=integer(0),
    seeds=integer(1, smoke=5, quick=5, paper=5),
)
this_run(p)

# %% tags=["hide-input"]
from functools import cache

import numpy as np
import torch
from hesslib import EmpiricalRisk, spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.store import Store
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.landscape import (
    align,
    along_line,
    barrier,
    loss_and_accuracy,
)
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parameters_to_vector

# %% [markdown]
# ## The edge of stability
#
# Under gradient descent with step $\eta$ the largest eigenvalue rises until it reaches $2/\eta$ and then stays near it (Cohen et al. 2021).
# On a quadratic loss with curvature $\lambda$ along some direction, a step multiplies the distance to the minimum by
# $1 - \eta\lambda$, which shrinks it only if $\lambda < 2/\eta$. We train a small tanh network on digits shrunk to 7 by 7 pixels, with squared
# error on one-hot targets and gradient descent on all examples. At some moments we compute the *sharpness*, the largest eigenvalue of
# the Hessian, and the share of the squared gradient norm in the span of its ten leading eigenvectors.


# %%
def small_digits(examples, seed):
    """Digits of 7 x 7 pixels, centred, of deviation one; and their labels."""
    data = mnist(examples, seed=seed)
    x = torch.nn.functional.avg_pool2d(data.inputs.view(-1, 1, 28, 28), 4).flatten(
        1
    )
    return (x - x.mean(0)) / x.std(), data.targets


def sharpness(model, inputs, targets):
    """Largest eigenvalue, and the share of the gradient in the ten leading ones."""
    risk = EmpiricalRisk(model, inputs, targets, loss="mse")
    pairs, g = top_eigenpairs(risk.hessian(), 10), risk.gradient().numpy()
    return max(pairs.eigenvalues), np.sum((pairs.eigenvectors.T @ g) ** 2) / (g @ g)


# %%
def descend(step, examples, iterations, seed):
    """Gradient descent on the squared error: losses; at moments, sharpness and share."""
    (inputs, labels), losses, found = small_digits(examples, seed), [], []
    targets = torch.eye(10, dtype=inputs.dtype)[labels]
    model = fully_connected([49, 30, 30, 10], activation="tanh", seed=seed)
    for i in range(iterations + 1):
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        losses.append(loss.item())
        if i % max(1, iterations // 40) == 0:
            found.append([i, *sharpness(model, inputs, targets)])
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for w, g in zip(model.parameters(), gradient):
                w -= step * g
    names = ("moments", "sharpness", "share")
    return {"losses": losses, **dict(zip(names, np.array(found).T))}


# %% tags=["hide-input"]
def attempted(step, **options):
    """A run of gradient descent, or one sentence if it leaves the finite numbers."""
    try:
        found = descend(step, **options)
    except ValueError:
        found = {"losses": [np.nan]}
    if not np.isfinite(found["losses"]).all():
        raise ParameterError(
            f"steps = {p.steps}: gradient descent with a step of {step:g} leaves the finite numbers; give less"
        )
    return found


# %%
setting = {"examples": p.examples, "iterations": p.iterations}
here = {step: attempted(step, seed=p.seed, **setting) for step in p.steps}
paper = p.scale == "paper"
asked = setting if paper else {"examples": 500, "iterations": 3000}
asked_steps = p.steps if paper else [2.0, 4.0, 6.0]
grid = [
    {"step": t, "seed": s, **asked} for t in asked_steps for s in range(p.seeds)
]
edge = Store().sweep("edge", descend, grid, run=paper, jobs=2)

# %% tags=["hide-input"]
labels = {"xlabel": "iteration", "ylabel": "sharpness, in units of 2 / step"}
hover = figures.panel("sharpness", **labels)
falling = figures.panel("loss", "iteration", "squared error", yscale="log")
every = sorted({*p.steps, *asked_steps})
COLOR = dict(zip(every, figures.SERIES * len(every)))
for step, r in here.items():
    name = f"step {step:g}, this run"
    hover.plot(
        r["moments"], r["sharpness"] * step / 2, color=COLOR[step], label=name
    )
    losses = figures.thin(np.arange(len(r["losses"])), np.array(r["losses"]), 1500)
    falling.plot(*losses, color=COLOR[step], lw=0.8, label=f"step {step:g}")
for step in asked_steps:
    part = edge.where(step=step)
    if len(part):
        curves, name = (
            part.values("sharpness") * step / 2,
            f"step {step:g}, {len(part)} stored",
        )
        figures.band(
            hover,
            part.results[0]["moments"],
            curves,
            COLOR[step],
            name,
            lw=0.6,
            ls=":",
        )
hover.axhline(1, color=figures.INK, lw=1, ls="--")
hover.set_ylim(0, 1.8)
hover.legend(loc="lower right", fontsize=8)
falling.legend()
figures.figure(
    "fig_edge_of_stability",
    hover,
    falling,
    caption="Sharpness along gradient descent in units of $2/\\eta$ (dashed: 1), and the loss. Lines: this run. Dotted, with the range "
    "over seeds: stored runs.",
    alt=f"Left, the largest eigenvalue in units of two over the step against iterations, for steps of {', '.join(f'{s:g}' for s in p.steps)} "
    "in this run and a band for each step of the stored runs, with a line at 1. Right, the loss of this run.",
)  # fmt: skip


# %%
def late(key, step, scale=1.0):
    """Mean over the second half of each stored run with a step."""
    part = edge.where(step=step).results
    halves = [r[key][len(r[key]) // 2 :] for r in part]
    return Estimate([scale * np.mean(h) for h in halves], edge.label)


def rising(losses):
    """Share of the steps of the second half in which the loss rises, in per cent."""
    return 100 * np.mean(np.diff(losses[len(losses) // 2 :]) > 0)


# %% tags=["hide-input"]
def told(step, r):
    """What this run did, in a sentence."""
    last = r["sharpness"][-1] * step / 2
    where = (
        "near the edge"
        if 0.9 < last < 1.2
        else "below the edge"
        if last < 1
        else "above the edge"
    )
    return (
        f"With a step of {step:g} the sharpness goes from {r['sharpness'][0] * step / 2:.2f} to {last:.2f} times $2/\\eta$, {where}, "
        f"and the loss from {r['losses'][0]:.4f} to {r['losses'][-1]:.4f}; it rises in {rising(np.array(r['losses'])):.0f} % of the steps "
        "of the second half."
    )


say(
    "**This run.** {sentences}",
    sentences=" ".join(told(*item) for item in here.items()),
)
rows = []
for step in asked_steps:
    hovering, raw, inside = (
        late("sharpness", step, step / 2),
        late("sharpness", step),
        late("share", step, 100),
    )
    loss_rises = Estimate(
        [rising(r["losses"]) for r in edge.where(step=step).results]
    )
    rows.append(
        [
            f"{step:g}",
            f"{hovering:.3f}",
            f"{raw:.3f}",
            f"{loss_rises:.0f}",
            f"{inside:.0f}",
        ]
    )
figures.table(
    ["step, stored runs", "sharpness in units of $2/\\eta$", "sharpness", "steps in which the loss rises, %",
     "gradient in ten leading directions, %"], rows,
)  # fmt: skip

# %% [markdown]
# The table gives means over the second half of training, with the standard deviation over seeds. Where the sharpness stays at $2/\eta$, its
# size is set by the step and not by the data: networks compared at the same step size are alike in their largest eigenvalue for
# this reason alone, and a smaller step ends at a sharper point. A direction drawn at random would have 0.4 % of its squared norm in ten of
# the 2,740 directions (the last column; Gur-Ari et al. 2018).
#
# A step of your own, on 60 digits; in Jupyter the network is trained anew when the slider is released.


# %% tags=["hide-input"]
@cache
def descended(step, seed):
    """A short run of gradient descent."""
    length = 400 if p.scale != "smoke" else 20
    return descend(step, 60, length, seed)


def step_moved(step, seed=p.seed):
    """Sharpness along one run, with 2 over the step."""
    r, bound = descended(step, seed), 2 / step
    ax = figures.panel("", "iteration", "largest eigenvalue", ylim=(0, 5))
    ax.plot(r["moments"], r["sharpness"], color=figures.INK, label="sharpness")
    ax.axhline(bound, color=figures.INK, ls="--", lw=1, label="2 / step")
    ax.legend()
    last = np.mean(r["sharpness"][-5:])
    sentence = f"Step {step:g}: at the end the largest eigenvalue is {last:.2f}, and 2 over the step {bound:.2f}"
    unreached = max(r["sharpness"]) < 0.95 * bound
    return sentence + (
        ", which is not reached in these iterations." if unreached else "."
    ), ax


explore(
    step_moved,
    {"step": [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0]},
    name="fig_explore_edge",
    alt="The largest eigenvalue of the Hessian along gradient descent, with a dashed line at 2 over the step.",
    caption="Sharpness along a short run of gradient descent on 60 digits.",
    start={"step": 2.0},
    live={"step": [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0], "seed": range(p.seed, p.seed + 10)},
)  # fmt: skip

# %% [markdown]
# ## Classes, and pairs of classes
#
# Papyan (2019) split the Gauss-Newton matrix by classes. Let $g_{nc} = J_n^\top (p_n - e_c)$ be the gradient that example $n$ would have if its
# label were $c$. Since $\sum_c p_{nc} (p_n - e_c)(p_n - e_c)^\top = \operatorname{diag}(p_n) - p_n p_n^\top$, the Gauss-Newton matrix is a
# weighted second moment of these $NC$ vectors,
#
# $$
# G = \frac1N \sum_n \sum_c p_{nc}\, g_{nc} g_{nc}^\top ,
# $$
#
# and can be split as in an analysis of variance. The $g_{nc}$ of all examples of true class $c'$ form one *cell* $(c', c)$. For each class
# $c'$ take the mean of each cell with $c \ne c'$, one for each *pair*, and the mean of these $C - 1$ means, one for the *class*; examples
# are weighted by $p_{nc}$ and cells by the sum of their weights. The class means make $G_{\text{class}}$, what the pair means
# differ from them by makes $G_{\text{pair}}$, and what the gradients differ from their cell's mean by makes $G_{\text{within}}$:
#
# $$
# G = \underbrace{G_{\text{class}}}_{\text{rank} \,\le\, C} + \underbrace{G_{\text{pair}}}_{\text{rank} \,\le\, C(C-2)} +
#     \underbrace{G_{\text{own}}}_{\text{rank} \,\le\, C} + G_{\text{within}} ,
# $$
#
# where $G_{\text{own}}$ comes from the cells $c = c'$. Class and pair together have rank at most $C(C-1)$.


# %%
def label_gradients(risk):
    """Weights p_nc / N (N, C) and gradients g_nc (N, C, M)."""
    x, _ = risk.batches[0]
    one = lambda w, xi: functional_call(risk.model, w, (xi[None],))[0]
    jacobian = vmap(jacrev(one), (None, 0))(risk.parameters, x)
    jacobian = torch.cat([j.flatten(2) for j in jacobian.values()], 2)
    p_n = risk.outputs(risk.parameters, x).softmax(1)
    return p_n / len(x), p_n[:, None] @ jacobian - jacobian


# %%
def by_class(risk):
    """The four parts of G, by name."""
    weight, g = label_gradients(risk)
    y, (_, c, m) = risk.batches[0][1], g.shape
    second = lambda w, v: (v * w[:, None]).T @ v
    cells = torch.stack([weight[y == k].sum(0) for k in range(c)])  # (class, label)
    sums = [torch.einsum("nl,nlm->lm", weight[y == k], g[y == k]) for k in range(c)]
    means = torch.stack(sums) / cells[..., None]
    other = ~torch.eye(c, dtype=torch.bool)
    of_class = (cells * other).sum(1)
    center = ((cells * other)[..., None] * means).sum(1) / of_class[:, None]
    parts = {"class": second(of_class, center)}
    parts["pair"] = second(cells[other], (means - center[:, None])[other])
    parts["own"] = second(cells[~other], means[~other])
    whole = second(weight.flatten(), g.reshape(-1, m))
    return parts | {"within": whole - sum(parts.values()), "G": whole}


# %%
def prepared(data, examples, seed):
    """A trained network: on digits, 49-20-20-10, or on five clusters, 30-20-20-5."""
    if data == "digits":
        (x, y), sizes, step = small_digits(examples, seed), [49, 20, 20, 10], 0.5
    else:
        found = blobs(examples, 5, 30, seed=seed)
        x, y, sizes, step = found.inputs, found.targets, [30, 20, 20, 5], 0.1
    model = fully_connected(sizes, seed=seed)
    train(model, x, y, step_size=step, iterations=1500, progress=False)
    return EmpiricalRisk(model, x, y)


def classified(data, examples, seed):
    """Leading eigenvalues and shares of the trace of the parts of G."""
    risk = prepared(data, examples, seed)
    parts = by_class(risk)
    parts["both"] = parts["class"] + parts["pair"]
    trace = lambda k: float(parts[k].trace() / parts["G"].trace())
    largest = lambda k: torch.linalg.eigvalsh(parts[k]).flip(0)[:120].numpy()
    found = {k: largest(k) for k in ("G", "class", "both", "within")}
    found["shares"] = [trace(k) for k in ("class", "pair", "own", "within")]
    return found | {"classes": risk.num_outputs}


# %%
split = {d: classified(d, p.examples, p.seed) for d in ("clusters", "digits")}
grid = [
    {"data": d, "examples": 500, "seed": s} for d in split for s in range(p.seeds)
]
pairs = Store().sweep("classes", classified, grid, run=paper)

# %% tags=["hide-input"]
STYLES = {
    "G": ("H", "-", "G"),
    "both": ("G", "--", "class and pair"),
    "within": ("R", "-", "within"),
}


def draw_parts(ax, found):
    """Leading eigenvalues of G and of its parts, with the range over runs."""
    c = int(found[0]["classes"])
    for key, (color, line, label) in STYLES.items():
        top = np.array([r[key] for r in found])
        seen = np.median(top, 0) > 1e-6 * np.median(top[:, 0])
        rank = np.arange(1, top.shape[1] + 1)[seen]
        figures.band(
            ax,
            rank,
            top[:, seen].clip(1e-12),
            figures.COLORS[color],
            label,
            ls=line,
        )
    for n in (c, c * (c - 1)):
        ax.axvline(n + 0.5, 0.4, color=figures.INK, lw=0.8, ls=":")
    ax.legend(loc="lower left")


drawn = []
for name in split:
    found = pairs.where(data=name).results or [split[name]]
    title = f"{name}, C = {int(found[0]['classes'])}, {'stored' if pairs.where(data=name).results else 'this run'}"
    axes = {"xscale": "log", "yscale": "log"}
    drawn.append(
        figures.panel(title, "rank from the largest", "eigenvalue", **axes)
    )
    draw_parts(drawn[-1], found)
figures.figure(
    "fig_classes",
    *drawn,
    caption="The leading eigenvalues of $G$ and of its parts at the end of training. Dotted: after ranks $C$ and $C(C-1)$.",
    alt="Leading eigenvalues of G, of its class and pair parts together, and of what lies within cells, by rank on logarithmic axes, "
    "left for clusters and right for digits.",
)  # fmt: skip


# %%
def stored(data, statistic):
    """A statistic of the stored runs on clusters or digits."""
    return Estimate(
        [statistic(r) for r in pairs.where(data=data).results], pairs.label
    )


above = lambda r: int((r["G"] > r["within"][0]).sum())
step = lambda r: r["G"][int(r["classes"]) - 1] / r["G"][int(r["classes"])]
before = lambda r: r["G"][int(r["classes"]) - 2] / r["G"][int(r["classes"]) - 1]
match = lambda r: np.mean((r["class"] / r["G"])[: int(r["classes"])])
least = lambda r: (
    r["class"][int(r["classes"]) - 1] / r["class"][int(r["classes"]) - 2]
)

# %% tags=["hide-input"]
part = {
    d: dict(zip(("class", "pair", "own", "within"), r["shares"]))
    for d, r in split.items()
}
say(
    """**This run.** The classes carry {cc:.2f} of the trace of $G$ on clusters and {dc:.2f} on digits, the pairs {cp:.2f} and {dp:.2f},
    what is left within cells {cw:.2f} and {dw:.2f}. Above every eigenvalue of the part within cells lie {ca} and {da} eigenvalues of $G$.

    **Stored runs on clusters.** The classes carry {s_class:.2f} of the trace, the pairs {s_pair:.2f}, the rest {s_within:.2f}. The first
    $C = 5$ eigenvalues of $G_{\\text{class}}$ are on average {s_match:.2f} times those of $G$; behind them $G$ falls by a factor {s_step:.1f}. The
    smallest of the five is {s_least:.2f} of the one before, so all $C$ count and the outliers number $C$. In all {s_above:.1f} eigenvalues
    of $G$ lie above the part within cells; class and pair can give at most $C(C-1) = 20$.

    **Stored runs on digits.** The shares are {d_class:.2f}, {d_pair:.2f} and {d_within:.2f}. The tenth eigenvalue of
    $G_{\\text{class}}$ is only {d_least:.2f} of the ninth: the class part has $C - 1$ large eigenvalues. Behind the ninth $G$ falls by a factor
    {d_before:.2f}, and behind the tenth by {d_step:.2f}, since here pairs and single examples weigh as much as the classes.""",
    cc=part["clusters"]["class"], dc=part["digits"]["class"], cp=part["clusters"]["pair"], dp=part["digits"]["pair"],
    cw=part["clusters"]["within"], dw=part["digits"]["within"], ca=above(split["clusters"]), da=above(split["digits"]),
    s_class=stored("clusters", lambda r: r["shares"][0]), s_pair=stored("clusters", lambda r: r["shares"][1]),
    s_within=stored("clusters", lambda r: r["shares"][3]), s_match=stored("clusters", match), s_step=stored("clusters", step),
    s_least=stored("clusters", least), s_above=stored("clusters", above),
    d_class=stored("digits", lambda r: r["shares"][0]), d_pair=stored("digits", lambda r: r["shares"][1]),
    d_within=stored("digits", lambda r: r["shares"][3]), d_least=stored("digits", least),
    d_before=stored("digits", before), d_step=stored("digits", step),
)  # fmt: skip

# %% [markdown]
# ## The two sides of the second term
#
# The paper reads small negative eigenvalues of $H$ as a sign that $R = H - G$ is small, 'unless the second term contributes to the spectrum in an
# asymmetrical way' (Section 3.4). With one hidden layer $R$ is exactly symmetric about zero ([Chapter 4](04_size.ipynb)). These networks have
# two, where nothing forces it; we compute the whole spectrum of $R$.


# %%
def residual_sides(data, examples, seed):
    """All eigenvalues of R at the end of training, ascending."""
    risk = prepared(data, examples, seed)
    return {
        "eigenvalues": spectrum(risk.residual()).eigenvalues,
        "loss": risk.loss(),
    }


# %%
sides_here = {d: residual_sides(d, p.examples, p.seed) for d in split}
sides = Store().sweep("residual_sides", residual_sides, grid, run=paper)


# %% tags=["hide-input"]
def draw_sides(ax, found):
    """Positive eigenvalues as dots and negative ones as rings, for each kind of data."""
    for i, (name, values) in enumerate(found.items()):
        figures.ranked(ax, values, figures.SERIES[3 + i], name, floor=1e-6)
    ax.legend(fontsize=8)


first = sides.where(seed=0)
panels = figures.here_and_stored(
    draw_sides,
    {d: r["eigenvalues"] for d, r in sides_here.items()},
    {q["data"]: r["eigenvalues"] for q, r in zip(first.parameters, first.results)},
    stored_title="stored, seed 0",
)
figures.figure(
    "fig_sides",
    *panels,
    caption="Eigenvalues of $R$ by magnitude; negative ones as rings. On a symmetric spectrum dots and rings alternate.",
    alt="Magnitudes of the eigenvalues of R against rank on logarithmic axes, on clusters and on digits, in this run and in a stored run.",
)  # fmt: skip
ratio = {
    d: Estimate(
        [
            -r["eigenvalues"][-1] / r["eigenvalues"][0]
            for r in sides.where(data=d).results
        ],
        sides.label,
    )
    for d in split
}
say(
    """**Stored runs.** The largest eigenvalue of $R$ is {clusters:.2f} times the magnitude of the lowest on clusters, and {digits:.2f} times on
    digits.""",
    **ratio,
)  # fmt: skip

# %% [markdown]
# ## Modulo symmetries
#
# Two networks trained apart may have a barrier between them only because their hidden units stand in different orders (Section 4.1). The
# paper avoids the question and goes on from one solution. Ainsworth et al. (2023) reorder the units of one network to lie as near as possible
# to those of the other, and look at the straight line again. The *barrier* is how far the training loss rises on the line above the higher of
# its ends. Here: one hidden layer, cross-entropy, two random starts.


# %%
def rebased(width, examples, seed):
    """Loss on the line between two networks, as trained and with units matched."""
    x, y = small_digits(examples, seed)
    nets = [fully_connected([49, width, 10], seed=s) for s in (seed, seed + 100)]
    for model in nets:
        train(model, x, y, step_size=0.3, iterations=400, progress=False)
    t = [i / 10 for i in range(11)]
    point = lambda model: parameters_to_vector(model.parameters()).detach()
    look = lambda model: loss_and_accuracy(model, x, y)[0]
    line = lambda other: along_line(nets[0], point(nets[0]), point(other), t, look)
    before, after = line(nets[1]), line(align(nets[1], nets[0]))
    found = {"before": barrier(t, before), "after": barrier(t, after)}
    return {**found, "positions": t, "line": [before, after]}


# %%
near = rebased(64, p.examples, p.seed)
widths = [16, 64, 256]
grid = [
    {"width": w, "examples": 1000, "seed": s}
    for w in widths
    for s in range(p.seeds)
]
bases = Store().sweep("rebasin", rebased, grid, run=paper)

# %% tags=["hide-input"]
shape = figures.panel(
    f"this run, 64 units, seed {p.seed}", "position on the line", "training loss"
)
by_width = figures.panel(
    "stored", "hidden units", "barrier", xscale="log", yscale="log"
)
for i, (key, label) in enumerate(
    (("before", "as trained"), ("after", "units matched"))
):
    shape.plot(
        near["positions"],
        near["line"][i],
        "o-",
        color=figures.SERIES[i],
        label=label,
    )
    for s in range(p.seeds):
        part = bases.where(seed=s)
        if len(part):
            x, y = (
                [q["width"] for q in part.parameters],
                part.values(key).clip(1e-4),
            )
            by_width.plot(
                x,
                y,
                "o-",
                lw=0.8,
                color=figures.SERIES[i],
                label=None if s else label,
            )
by_width.set_xticks(widths, [str(w) for w in widths])
by_width.set_xticks([], minor=True)
for ax in (shape, by_width):
    ax.legend()
figures.figure(
    "fig_rebasin",
    shape,
    by_width,
    caption="The line between two networks trained from different starts, before and after their hidden units are matched.",
    alt="Left, training loss on the straight line between two networks, as trained and with units matched, in this run. Right, the "
    "height of the barrier against the number of hidden units, for each stored seed.",
)  # fmt: skip

# %% tags=["hide-input"]
heights = {f"{key}_{w}": Estimate(bases.where(width=w).values(key) if len(bases.where(width=w)) else [], bases.label)
           for key in ("before", "after") for w in widths}  # fmt: skip
left = bases.values("after") / bases.values("before") if len(bases) else []
say(
    """**This run.** The barrier is {here_before:.3f}, with the units matched {here_after:.3f}.

    **Stored runs.** For 16, 64 and 256 units it is {before_16:.2f}, {before_64:.2f} and {before_256:.2f} as trained, and {after_16:.2f},
    {after_64:.2f} and {after_256:.2f} with the units matched. On average {left:.0f} % of it is left.""",
    here_before=near["before"],
    here_after=near["after"],
    left=Estimate(100 * np.array(left), bases.label),
    **heights,
)  # fmt: skip

# %% [markdown]
# ## How long the steps of a batch are
#
# A small batch takes longer steps than a large one from the same point. With $\bar g$ the mean of the examples' gradients $g_n$, and batches of
# $B$ drawn without replacement,
#
# $$
# \mathbb{E}\,\|g_B\|^2 = \|\bar g\|^2 + \frac{N - B}{B\,(N - 1)} \Big(\frac1N \sum_n \|g_n\|^2 - \|\bar g\|^2\Big) ,
# $$
#
# and the second term, the noise, is the larger the smaller the batch. The paper expects matching norms, since gradients of batches
# are unbiased (Section 4.1). A network is trained on 1,000 digits by gradient descent; the table evaluates the formula at three moments
# of this one run. [Chapter 5](05_algorithm.ipynb#how-long-the-steps-are) measures norms along runs with either batch.


# %%
def step_lengths(batches, examples, iterations, seed):
    """Norm of the whole gradient, root mean square for batches, along training."""
    x, y = small_digits(examples, seed)
    model = fully_connected([49, 20, 20, 10], seed=seed)
    options = {"step_size": 0.5, "iterations": iterations, "progress": False}
    history = train(model, x, y, record=[0, iterations // 10], **options)
    risk, found = EmpiricalRisk(model, x, y), []
    for w in history.parameters:
        each = label_gradients(risk.at(w))[1][torch.arange(len(x)), y]
        mean, square = each.mean(0).norm() ** 2, (each**2).sum(1).mean()
        share = [(len(x) - b) / (b * (len(x) - 1)) for b in batches]
        lengths = [mean, *(mean + s * (square - mean) for s in share)]
        found.append([float(v) ** 0.5 for v in lengths])
    return {"norms": found, "iterations": history.iterations}


# %%
trial = {"batches": [10, 512], "examples": 1000, "iterations": 1500}
grid = [{**trial, "seed": s} for s in range(p.seeds)]
lengths = Store().sweep("step_norms", step_lengths, grid, run=paper)

# %% tags=["hide-input"]
rows = []
for i, t in enumerate((0, 150, 1500)):
    norms = [r["norms"][i] for r in lengths.results]
    mean = [Estimate(n[j] for n in norms) for j in (0, 2, 1)]
    ratio = Estimate(n[1] / n[2] for n in norms)
    signal = Estimate(100 * n[0] ** 2 / n[1] ** 2 for n in norms)
    rows.append(
        [
            f"{t:,}",
            *(f"{v.mean:.2g}" if v else "not run" for v in mean),
            f"{ratio:.2f}",
            f"{signal:.1f}",
        ]
    )
figures.table(
    [
        "iteration",
        "whole set",
        "batch of 512",
        "batch of 10",
        "10 over 512",
        "signal of 10, %",
    ],
    rows,
)

# %% [markdown]
# The numbers of the table are root mean squares of stored runs. *Signal* is the share of the squared norm of a batch's gradient that belongs to
# the whole gradient. Steps of noise cancel in part, so a longer step is not a longer way.

# %% [markdown]
# ## More of what came after
#
# * **The spectra of large networks.** [Ghorbani et al. (2019)](../book/references.md) computed densities by Lanczos quadrature for networks with
#   millions of parameters: bulk and outliers are there too, and batch normalisation removes the largest outliers.
# * **Classes.** [Papyan, Han and Donoho (2020)](../book/references.md) find the pattern of classes in gradients, features and weights.
# * **Paths between solutions.** [Garipov et al. (2018) and Draxler et al. (2018)](../book/references.md) joined independently trained networks by
#   curved paths along which the loss hardly rises.
# * **When the straight line suffices.** [Frankle et al. (2020)](../book/references.md): copies of one network that see different noise from some
#   early moment of training on end in solutions without a barrier between them. The paper's experiment, which starts Part II at
#   the end of Part I, is a case of it ([Chapter 6](06_basins.ipynb)).

# %% [markdown]
# ## Checks

# %% tags=["hide-input"]
data = blobs(60, 3, 8, seed=0)
network = fully_connected([8, 5, 3], seed=0)
train(
    network, data.inputs, data.targets, step_size=0.1, iterations=50, progress=False
)
risk = EmpiricalRisk(network, data.inputs, data.targets)
found = by_class(risk)
error = float(
    (found["G"] - risk.ggn().to_dense()).abs().max() / found["G"].abs().max()
)
lowest = min(
    float(torch.linalg.eigvalsh(a)[0] / found["G"].trace()) for a in found.values()
)
ranks = [
    int(torch.linalg.matrix_rank(found[k], rtol=1e-9))
    for k in ("class", "pair", "own")
]
at_edge = [late("sharpness", t, t / 2) for t in asked_steps]

# %% tags=["nbval-check-output"]
check("the split adds up to G, to 1e-12", error, below=1e-12)
check("every part is positive semidefinite, to 1e-12", lowest, above=-1e-12)
check("ranks within C, C (C - 2), C", all(r <= 3 for r in ranks))
if p.scale == "quick":
    stayed = [0.9 < v < 1.2 for e in at_edge for v in e.values]
    check("stored runs stay within 0.9 to 1.2 of the edge", stayed and all(stayed))

# %% [markdown]
# ## Limits
#
# * The sharpness is shown for squared error, where it stays at the edge for long. With cross-entropy it leaves the edge again once the
#   examples are fitted ([Chapter 1](01_spectrum.ipynb)).
# * $H$ is not $G$. At the end of training the two have the same outliers ([Chapter 2](02_ggn.ipynb)).
# * The networks are small, up to 17,000 parameters, and fully connected.
#
# ## Try it
#
# **Exercise: half the step.** Predict the sharpness at the end for a step of 1.0, then run with `-p steps "[1.0]"`.
#
# <details><summary>Answer</summary>
#
# About $2/\eta = 2$, twice that of a step of 2.0, if training is long enough to get there; the sentence under the first figure, in units of
# $2/\eta$, says about 1.
#
# </details>
#
# Another run: `papermill notebooks/10_after.ipynb out.ipynb -p steps "[1.0]" -p seed 1`

# %% [markdown]
# ## Verdicts

# %% tags=["hide-input"]
verdicts("10_after")

# %% tags=["hide-input"]
foot(p, edge, pairs, sides, bases, lengths)
