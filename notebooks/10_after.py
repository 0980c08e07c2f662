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
# (after)=
# # What came after
#
# :::{admonition} The paper's open questions
# :class: important
# Why are there about as many outliers as classes? How large do the large eigenvalues become, and what has the step size to do
# with it? Are other solutions connected too, 'modulo internal symmetries' {cite:p}`sagun2017` (Sections 1, 3.1 and 4.1)?
# :::
#
# The years since 2017 have answered much of this. The list below is short and names one or two sources for each
# answer. Some of them are then shown with the tools of this book.
#
# ```{margin} Notation
# $J_n$ the Jacobian of the outputs at example $n$, $p_n$ the probabilities, $e_c$ the one-hot vector of class $c$, $C$ classes, $\eta$ the step.
# {doc}`All symbols <../book/notation>`.
# ```
#
# * **Which outliers there are.** {cite:t}`papyan2019` took the Gauss-Newton matrix apart by classes: $C$ outliers belong to the
#   classes, and behind them a group belongs to ordered pairs of classes; together they are at most $C(C-1)$. {cite:t}`papyan2020` finds the same
#   pattern in gradients, features and weights. Shown {ref}`below <after-classes>`.
# * **The spectra of large networks.** {cite:t}`ghorbani2019` computed densities by Lanczos quadrature for networks with millions of
#   parameters: bulk and outliers are there too, and batch normalisation removes the largest outliers.
# * **The gradient lies among the outliers.** {cite:t}`gurari2018`: after a short while most of the gradient lies in the span of the
#   $C$ leading eigenvectors of the Hessian. How much of it, and for which steps, is
#   {ref}`below <after-edge>`.
# * **How large the largest eigenvalue becomes.** {cite:t}`cohen2021`: under gradient descent with step $\eta$ it rises
#   until it reaches $2/\eta$, where gradient descent on a quadratic loss would start to diverge, and then stays there, while
#   the loss goes on falling, though not at every step. So its size says as much of the algorithm as of the data. Shown
#   {ref}`below <after-edge>`.
# * **Paths between solutions.** {cite:t}`garipov2018` and {cite:t}`draxler2018` joined independently trained networks by curved paths
#   along which the loss hardly rises.
# * **When the straight line suffices.** {cite:t}`frankle2020`: copies of one network that see different noise from some early moment
#   of training on end in solutions without a barrier between them. The paper's experiment, which starts
#   Part II at the end of Part I, is a case of it.
# * **Modulo symmetries.** {cite:t}`ainsworth2023` permute the hidden units of one network to match those of another; for wide
#   networks the barrier on the straight line between independently trained ones then nearly vanishes. Shown
#   {ref}`below <after-symmetries>`.
#
# ## Parameters
#
# ```bash
# papermill notebooks/08_after.ipynb out.ipynb -p steps "[1.0]" -p seed 1
# ```

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
steps: list = []  # step sizes of gradient descent; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
seed: int = 0  # of the data and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.book.parameters import integer, reals, resolve

p = resolve(
    globals(),
    steps=reals(1e-3, 100, smoke=[2.0], quick=[2.0, 4.0], paper=[2.0, 4.0, 6.0]),
    examples=integer(50, 4990, smoke=60, quick=300, paper=500),
    iterations=integer(20, smoke=40, quick=1500, paper=3000),
    seed=integer(0),
    seeds=integer(1, smoke=1, quick=5, paper=5),
)

# %% tags=["hide-input"]
from functools import cache

import numpy as np
import torch
from hesslib import EmpiricalRisk, top_eigenpairs
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
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
# (after-edge)=
# ## The edge of stability
#
# On a quadratic loss with curvature $\lambda$ along some direction, a step of $\eta$ multiplies the distance to the minimum by
# $1 - \eta\lambda$: it shrinks only if $\lambda < 2/\eta$. A small tanh network on digits shrunk to 7 by 7 pixels, squared error
# on one-hot targets, gradient descent on all examples. At some moments we compute the **sharpness**, the largest eigenvalue of
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


# %%
setting = {"examples": p.examples, "iterations": p.iterations}
here = {step: descend(step, seed=p.seed, **setting) for step in p.steps}
for step, r in here.items():
    start, end = r["sharpness"][0] * step / 2, r["sharpness"][-1] * step / 2
    rises = np.mean(np.diff(r["losses"]) > 0)
    print(
        f"step {step}: sharpness {start:.2f} of 2/step at first, {end:.2f} at last"
    )
    print(
        f"  loss {r['losses'][0]:.4f} to {r['losses'][-1]:.4f}, rising {rises:.0%}"
    )

# %%
paper_setting = {"examples": 500, "iterations": 3000}
asked = setting if p.scale == "paper" else paper_setting
asked_steps = p.steps if p.scale == "paper" else [2.0, 4.0, 6.0]
grid = [
    {"step": t, "seed": s, **asked} for t in asked_steps for s in range(p.seeds)
]
edge = Store().sweep("edge", descend, grid, run=p.scale == "paper", jobs=2)
print(edge.label)

# %% tags=["remove-output", "hide-input"]
labels = {"xlabel": "iteration", "ylabel": "sharpness, in units of 2 / step"}
hover = figures.panel("sharpness", **labels)
falling = figures.panel("loss", "iteration", "squared error", yscale="log")
for color, (step, r) in zip(figures.SERIES, here.items()):
    hover.plot(
        r["moments"],
        r["sharpness"] * step / 2,
        color=color,
        label=f"step {step:g}, seed {p.seed}",
    )
    falling.plot(*figures.thin(np.arange(len(r["losses"])), np.array(r["losses"]), 1500), color=color, lw=0.8,
                 label=f"step {step:g}")  # fmt: skip
for color, step in zip(figures.SERIES, asked_steps):
    part = edge.where(step=step)
    if len(part):
        curves = part.values("sharpness") * step / 2
        hover.fill_between(part.results[0]["moments"], curves.min(0), curves.max(0), color=color, alpha=0.45, lw=0,
                           label=f"step {step:g}, {len(part)} stored seeds")  # fmt: skip
hover.axhline(1, color=figures.COLORS["theory"], lw=1, ls="--")
hover.set_ylim(0, 1.8)
hover.legend(loc="lower right", fontsize=8)
falling.legend()
figures.show(
    "fig_edge_of_stability",
    "Left, the largest eigenvalue of the Hessian in units of two over the step, against iterations: for every step it goes "
    "to a value a little above one and stays there. Right, the loss, which falls on the whole but not at every step.",
    hover,
    falling,
)


# %% tags=["remove-cell"]
def at_end(key, form, scale):
    """Mean over the last half of each stored run, scaled by step, one text for each step."""
    texts = []
    for step in asked_steps:
        part = edge.where(step=step)
        if len(part):
            late = part.values(key)[:, part.values(key).shape[1] // 2 :].mean(1)
            late = late * scale(step)
            deviation = format(late.std(ddof=1), form) if len(late) > 1 else "0"
            texts.append(
                f"{late.mean():{form}} ± {deviation}"
                if float(deviation)
                else f"{late.mean():{form}}"
            )
    return ", ".join(texts) or "not run"


rising = [
    100 * np.mean(np.diff(r["losses"][len(r["losses"]) // 2 :]) > 0)
    for r in edge.results
]
reached = bool(len(edge)) and all(
    0.9 < np.mean(r["sharpness"][len(r["sharpness"]) // 2 :]) * q["step"] / 2 < 1.2
    for q, r in zip(edge.parameters, edge.results)
)
figures.number(
    edge_label=edge.label,
    hovering=at_end("sharpness", ".3f", lambda step: step / 2),
    raw=at_end("sharpness", ".3f", lambda step: 1),
    shares=at_end("share", ".0f", lambda step: 100),
    rising=f"{np.mean(rising):.0f}" if rising else "not run",
    steps_listed=", ".join(f"{s:g}" for s in asked_steps),
    edge_verdict="not run" if not len(edge) else "The sharpness ends at the edge of stability in every run."
    if reached else "The sharpness does not end at the edge of stability in every run.",
    chance=100 * 10 / 2740,
)  # fmt: skip

# %% [markdown]
# ```{glue:figure} fig_edge_of_stability
# :name: fig-edge-of-stability
# Sharpness along gradient descent, in units of $2/\eta$, and the loss. Lines: runs on this page. Bands: {glue:text}`edge_label`.
# ```
#
# **Reading.** In the second half of training the sharpness is, for steps of {glue:text}`steps_listed`, {glue:text}`hovering` times
# $2/\eta$ (mean and standard deviation over stored seeds). In absolute terms it is {glue:text}`raw`: the larger the step, the flatter the point.
# {glue:text}`edge_verdict` The loss rises in {glue:text}`rising` % of the steps of that half, and is far lower at the end than at the start. So
# when networks are compared 'at the same step size', what is alike in their largest eigenvalues may come from the step and not from the
# data; and gradient descent with a smaller step ends at a sharper point.
#
# Of the squared gradient norm {glue:text}`shares` % lies in the span of the ten leading eigenvectors, ten of 2,740 directions, for these steps; a
# direction drawn at random would have {glue:text}`chance:.1f` % there. So the gradient lies among the outliers, the less so the larger the step.

# %% [markdown]
# A step of your own, on 60 digits. In Jupyter the small network is trained anew when the slider is released.


# %% tags=["remove-output", "hide-input"]
@cache
def descended(step, seed):
    """A short run of gradient descent."""
    length = 400 if p.scale != "smoke" else 20
    return descend(step, 60, length, seed)


def step_moved(step, seed=p.seed):
    """Sharpness along one run, with 2 over the step."""
    r, bound = descended(step, seed), 2 / step
    ax = figures.panel("", "iteration", "largest eigenvalue", ylim=(0, 5))
    ax.plot(
        r["moments"], r["sharpness"], color=figures.COLORS["H"], label="sharpness"
    )
    ax.axhline(bound, color=figures.COLORS["theory"], ls="--", label="2 / step")
    ax.legend()
    late = np.mean(r["sharpness"][-5:])
    sentence = f"Step {step:g}: at the end the largest eigenvalue is {late:.2f}, and 2 over the step {bound:.2f}"
    unreached = max(r["sharpness"]) < 0.95 * bound
    return sentence + (
        ", which is not reached in these iterations." if unreached else "."
    ), ax


explore(
    step_moved,
    {"step": [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0]},
    name="fig_explore_edge",
    alt="The largest eigenvalue of the Hessian along gradient descent, with a dashed line at 2 over the step.",
    start={"step": 2.0},
    live={
        "step": [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0],
        "seed": range(p.seed, p.seed + 10),
    },
)

# %% [markdown]
# ```{glue:figure} fig_explore_edge
# :name: fig-explore-edge
# Sharpness along 400 steps of gradient descent on 60 digits, for some step sizes (in Jupyter, more of them).
# ```
#
# **Reading.** For a small step the dashed line is out of reach in 400 steps. For larger ones the sharpness climbs to the line, or starts above and falls
# to it, and then stays near.

# %% [markdown]
# (after-classes)=
# ## Classes, and pairs of classes
#
# Let $g_{nc} = J_n^\top (p_n - e_c)$ be the gradient that example $n$ would have if its label were $c$. Since
#
# $$
# \sum_c p_{nc} (p_n - e_c)(p_n - e_c)^\top = \operatorname{diag}(p_n) - p_n p_n^\top,
# $$
#
# the Gauss-Newton matrix is a weighted second moment of
# these $NC$ vectors,
#
# $$
# G = \frac1N \sum_n \sum_c p_{nc}\, g_{nc} g_{nc}^\top .
# $$
#
# So it can be split as in an analysis of variance. All $g_{nc}$ with examples of true class $c'$ form one **cell** $(c', c)$. For each class $c'$ take
# the weighted mean of each cell with $c \ne c'$, one for each *pair*, and the mean of these $C - 1$ means, one for the *class*. The class means make
# $G_{\text{class}}$, what the pair means differ from them by makes $G_{\text{pair}}$, and what the gradients differ from their cell's mean by $G_{\text{within}}$:
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


# %%
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
for name, r in split.items():
    parts = ", ".join(
        f"{k} {s:.3f}"
        for k, s in zip(("class", "pair", "own", "within"), r["shares"])
    )
    print(f"{name}: shares of the trace of G: {parts}")
    print(f"  eigenvalues of G above all within: {(r['G'] > r['within'][0]).sum()}")

# %%
runs = [
    {"data": d, "examples": 500, "seed": s} for d in split for s in range(p.seeds)
]
pairs = Store().sweep("classes", classified, runs, run=p.scale == "paper")
print(pairs.label)

# %% tags=["remove-output", "hide-input"]
drawn = []
for name in split:
    found = pairs.where(data=name).results or [split[name]]
    c = int(found[0]["classes"])
    ax = figures.panel(
        f"{name}, C = {c}",
        "rank from the largest",
        "eigenvalue",
        xscale="log",
        yscale="log",
    )
    first = np.arange(1, 121)
    styles = {
        "G": ("H", "-", "G"),
        "both": ("G", "--", "class and pair"),
        "within": ("R", "-", "within"),
    }
    for key, (color, line, label) in styles.items():
        top = np.array([r[key] for r in found]).clip(1e-9)
        rank = first[: top.shape[1]]
        middle = np.median(top, 0)
        seen = middle > 1e-6 * middle[0]
        ax.plot(
            rank[seen], middle[seen], line, color=figures.COLORS[color], label=label
        )
        if len(top) > 1:
            ax.fill_between(
                rank[seen],
                top.min(0)[seen],
                top.max(0)[seen],
                color=figures.COLORS[color],
                alpha=0.2,
                lw=0,
            )
    for n in (c, c * (c - 1)):
        ax.axvline(n + 0.5, 0.4, color=figures.INK, lw=0.8, ls=":")
    ax.legend(loc="lower left")
    drawn.append(ax)
figures.show(
    "fig_classes",
    "Leading eigenvalues of G, of its class and pair parts together, and of what lies within cells, by rank on logarithmic "
    "axes, left for clusters and right for digits. For clusters class and pair lie on G up to about C (C - 1) and the "
    "rest is far below; for digits the rest is nearer.",
    *drawn,
)


# %% tags=["remove-cell"]
def over_seeds(data, statistic, form):
    """Mean and standard deviation of a statistic of the stored runs."""
    found = np.array([statistic(r) for r in pairs.where(data=data).results])
    if not len(found):
        return "not run"
    return (
        f"{found.mean():{form}} ± {found.std(ddof=1):{form}}"
        if len(found) > 1
        else f"{found[0]:{form}}"
    )


above = lambda r: int((r["G"] > r["within"][0]).sum())
values = {"classes_label": pairs.label}
for name in split:
    values |= {
        f"{name}_class": over_seeds(name, lambda r: r["shares"][0], ".2f"),
        f"{name}_pair": over_seeds(name, lambda r: r["shares"][1], ".2f"),
        f"{name}_within": over_seeds(name, lambda r: r["shares"][3], ".2f"),
        f"{name}_above": over_seeds(name, above, ".1f"),
        f"{name}_step": over_seeds(
            name,
            lambda r: r["G"][int(r["classes"]) - 1] / r["G"][int(r["classes"])],
            ".2f",
        ),
        f"{name}_match": over_seeds(
            name,
            lambda r: np.mean((r["class"] / r["G"])[: int(r["classes"])]),
            ".2f",
        ),
    }
figures.number(**values)

# %% [markdown]
# ```{glue:figure} fig_classes
# :name: fig-classes
# The leading eigenvalues of $G$ and of its parts, at the end of training. Dotted: after ranks $C$ and $C(C-1)$. {glue:text}`classes_label`.
# ```
#
# **Reading.** On clusters the classes carry {glue:text}`clusters_class` of the trace of $G$, the pairs {glue:text}`clusters_pair`, and what is left within cells
# {glue:text}`clusters_within`. The first $C = 5$ eigenvalues of $G_{\text{class}}$ are {glue:text}`clusters_match` times those of $G$ on average; after them comes a
# step in $G$ by a factor {glue:text}`clusters_step`. In all {glue:text}`clusters_above` eigenvalues of $G$ lie above every eigenvalue of the part
# within cells, where $C(C-1) = 20$ is the most that class and pair could give. This is why 'exactly $k$' is right for the first
# group, and why counts with a lower threshold find more.
#
# On digits the picture is less clean: {glue:text}`digits_class`, {glue:text}`digits_pair` and {glue:text}`digits_within` of the trace, and
# {glue:text}`digits_above` eigenvalues of $G$ above all of those of the part within cells; one for each class would be 10. There is hardly a step at rank
# $C$ (a factor {glue:text}`digits_step`), since the pairs weigh as much as the classes and the examples of a digit differ from each other.

# %% [markdown]
# (after-symmetries)=
# ## Modulo symmetries
#
# Exchange two hidden units together with their weights: the function is the same, the point in weight space another. The
# paper warns that two networks trained apart may 'present a barrier only because of such symmetries', and sidesteps the question by going on
# from one solution. Since then it can be asked directly: reorder the units of one network to lie as near as possible to those of the other
# {cite:p}`ainsworth2023`, and look at the line again. *Barrier* is how far the training loss rises on it above the higher of its ends. One
# hidden layer, cross-entropy, two random starts.


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
print(f"here, 64 units: barrier {near['before']:.3f}, matched {near['after']:.3f}")
widths = [16, 64, 256]
matched = [
    {"width": w, "examples": 1000, "seed": s}
    for w in widths
    for s in range(p.seeds)
]
bases = Store().sweep("rebasin", rebased, matched, run=p.scale == "paper")
print(bases.label)

# %% tags=["remove-output", "hide-input"]
shape = figures.panel(
    f"here, 64 units, seed {p.seed}", "position on the line", "training loss"
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
    for seed in range(p.seeds):
        part = bases.where(seed=seed)
        if len(part):
            by_width.plot([q["width"] for q in part.parameters], part.values(key).clip(1e-4), "o-", lw=0.8,
                          color=figures.SERIES[i], label=label if seed == 0 else None)  # fmt: skip
by_width.set_xticks([16, 64, 256], ["16", "64", "256"])
by_width.set_xticks([], minor=True)
shape.legend()
by_width.legend()
figures.show(
    "fig_rebasin",
    "Left, training loss on the straight line between two networks, with a hump in the middle that is much lower once the "
    "hidden units are matched. Right, the height of the hump against the number of hidden units for each stored "
    "seed: lower for wider networks, and several times lower with matched units.",
    shape,
    by_width,
)


# %% tags=["remove-cell"]
def heights(key):
    """Mean barrier of each width over the stored seeds."""
    found = [
        bases.where(width=w).values(key).mean()
        for w in widths
        if len(bases.where(width=w))
    ]
    return ", ".join(f"{v:.2f}" for v in found) or "not run"


left = bases.values("after") / bases.values("before") if bases else None
figures.number(
    rebasin_label=bases.label,
    before_heights=heights("before"),
    after_heights=heights("after"),
    left=f"{100 * left.mean():.0f}" if bases else "not run",
)

# %% [markdown]
# ```{glue:figure} fig_rebasin
# :name: fig-rebasin
# The line between two networks trained from different starts, before and after their hidden units are matched. {glue:text}`rebasin_label`.
# ```
#
# **Reading.** For 16, 64 and 256 hidden units the barrier is {glue:text}`before_heights` as trained and {glue:text}`after_heights` with units matched
# (means over stored seeds): {glue:text}`left` % of it is left. So most of the barrier is due to the order of the units, as the paper suspected,
# but not all of it at these widths.

# %% [markdown]
# (after-norms)=
# ## How long the steps of a batch are
#
# For a fair comparison of batch sizes the paper takes the same step size and the same number of iterations: gradients of batches
# are unbiased, and 'hence it is reasonable to expect that the norms of the large batch methods match to the ones of the small
# batch' (Section 4.1). That does not follow. With $\bar g$ the mean of the examples' gradients $g_n$, and batches of $B$ drawn without
# replacement,
#
# $$
# \mathbb{E}\,\|g_B\|^2 = \|\bar g\|^2 + \frac{N - B}{B\,(N - 1)} \Big(\frac1N \sum_n \|g_n\|^2 - \|\bar g\|^2\Big) ,
# $$
#
# so a small batch takes longer steps, the more so the closer $\bar g$ is to zero. A network is trained on 1,000 digits by gradient descent; how long
# would a step be at three moments of this one run if it were taken with the batches of the paper?


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
lengths = Store().sweep(
    "step_norms",
    step_lengths,
    [{**trial, "seed": s} for s in range(p.seeds)],
    run=p.scale == "paper",
)
print(lengths.label)

# %% tags=["hide-input"]
rows = []
for i, t in enumerate((0, 150, 1500)):
    cells = ["not run"] * 4
    if lengths:
        norms = lengths.values("norms")[:, i]
        ratio = norms[:, 1] / norms[:, 2]
        cells = [f"{v:.2g}" for v in norms.mean(0)] + [
            f"{ratio.mean():.2f} ± {ratio.std(ddof=1):.2f}"
        ]
    rows.append([f"{t:,}", *cells])
figures.table(["iteration", "whole set", "batch of 512", "batch of 10", "10 over 512"],
              [[r[0], r[1], r[3], r[2], r[4]] for r in rows])  # fmt: skip

# %% tags=["remove-cell"]
ratios = (
    lengths.values("norms")[:, :, 1] / lengths.values("norms")[:, :, 2]
    if lengths
    else None
)
figures.number(
    norms_first=f"{ratios[:, 0].mean():.1f}" if lengths else "not run",
    norms_last=f"{ratios[:, -1].mean():.1f}" if lengths else "not run",
)

# %% [markdown]
# **Reading.** At the random start the steps of the two batches differ by a factor {glue:text}`norms_first`, at the end by {glue:text}`norms_last`
# (means over stored seeds). So from the same point the small batch takes the longer step. How far it gets in the same number of iterations is not
# measured here, since steps of noise cancel in part; but two batches compared at the same step size differ in this too, and not only in the place where
# they end.

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
data = blobs(60, 3, 8, seed=0)
small = fully_connected([8, 5, 3], seed=0)
train(
    small, data.inputs, data.targets, step_size=0.1, iterations=50, progress=False
)
risk = EmpiricalRisk(small, data.inputs, data.targets)
found = by_class(risk)
error = float(
    (found["G"] - risk.ggn().to_dense()).abs().max() / found["G"].abs().max()
)
print(
    "the split adds up to G to 1e-12:",
    "pass" if error < 1e-12 else f"FAIL ({error:.1e})",
)
lowest = min(
    float(torch.linalg.eigvalsh(a)[0] / found["G"].trace()) for a in found.values()
)
print(
    "every part positive semidefinite to 1e-12:",
    "pass" if lowest > -1e-12 else f"FAIL ({lowest:.1e})",
)
ranks = [
    int(torch.linalg.matrix_rank(found[k], rtol=1e-9))
    for k in ("class", "pair", "own")
]
print(
    "ranks within C, C (C - 2), C:",
    "pass" if all(r <= b for r, b in zip(ranks, (3, 3, 3))) else f"FAIL {ranks}",
)
stated = p.scale != "quick" or reached
print("stored runs within 0.9 to 1.2 of the edge:", "pass" if stated else "FAIL")

# %% [markdown]
# ## Limits
#
# * The sharpness is shown for squared error, where it stays at the edge for long. With cross-entropy it leaves the edge again once the
#   examples are fitted, as {ref}`spectrum` shows: there the largest eigenvalue peaks and then falls.
# * $H$ is not $G$. At the end of training the two have the same outliers ({ref}`ggn`).
# * The list names results, not all who contributed to them.
#
# ## Try it
#
# ::::{admonition} Exercise: half the step
# :class: tip
# Predict the sharpness at the end for a step of 1.0, then run with `-p steps "[1.0]"`.
#
# :::{dropdown} Answer
# About $2/\eta = 2$, twice that of a step of 2.0, if training is long enough to get there; the printed line, in units of $2/\eta$, is about 1.
# :::
# ::::
#
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
