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
# Later work has gone far with the first three of these questions. This chapter shows some of the answers with the tools of the book, each on a
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
# fmt: off
# isort: off
from hesslib.book.parameters import ParameterError, integer, reals, resolve
from hesslib.book.text import Estimate, check, foot, say, this_run, written

p = resolve(
    globals(),
    steps=reals(1e-3, 100, smoke=[2.0], quick=[2.0, 4.0], paper=[2.0, 4.0, 6.0]),
    examples=integer(50, 4990, smoke=60, quick=300, paper=500),
    iterations=integer(20, smoke=20, quick=1500, paper=3000),
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
from hesslib.curvature.certificates import CertificateError
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.landscape import align, along_line, barrier, loss_and_accuracy
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parameters_to_vector

# %% [markdown]
# ## The edge of stability
#
# Under gradient descent with step $\eta$ the largest eigenvalue rises until it reaches $2/\eta$ and then stays near it ([Cohen et al. 2021](../book/references.md)); where it
# starts above, it falls to it.
# On a quadratic loss with curvature $\lambda$ along some direction, a step multiplies the distance to the minimum by
# $1 - \eta\lambda$, which shrinks it only if $\lambda < 2/\eta$. We train a small tanh network on digits shrunk to 7 by 7 pixels, with squared
# error on one-hot targets and gradient descent on all examples. At some moments we compute the *sharpness*, the largest eigenvalue of
# the Hessian, and the share of the squared gradient norm in the span of its ten leading eigenvectors.


# %%
def small_digits(examples, seed):
    """Digits of 7 x 7 pixels, centred, of deviation one; and their labels."""
    data = mnist(examples, seed=seed)
    x = torch.nn.functional.avg_pool2d(data.inputs.view(-1, 1, 28, 28), 4).flatten(1)
    return (x - x.mean(0)) / x.std(), data.targets


def sharpness(model, inputs, targets):
    """Largest eigenvalue, and the share of the gradient in the ten leading ones."""
    risk = EmpiricalRisk(model, inputs, targets, loss="mse")
    pairs, g = top_eigenpairs(risk.hessian(), 10), risk.gradient().numpy()
    return max(pairs.eigenvalues), np.sum((pairs.eigenvectors.T @ g) ** 2) / (g @ g)


# %%
def descend(step, examples, iterations, seed):
    """Gradient descent on the squared error: losses, sharpness and share."""
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
def followed(step, examples, iterations, seed):
    """The same, with the sharpness alone: this page's runs do not need the share."""
    (inputs, labels), losses, found = small_digits(examples, seed), [], []
    targets = torch.eye(10, dtype=inputs.dtype)[labels]
    model = fully_connected([49, 30, 30, 10], activation="tanh", seed=seed)
    weights, options = list(model.parameters()), {"tolerance": 1e-3}
    for i in range(iterations + 1):
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        losses.append(loss.item())
        if i % max(1, iterations // 25) == 0:
            risk = EmpiricalRisk(model, inputs, targets, loss="mse")
            top = top_eigenpairs(risk.hessian(), 1, **options).eigenvalues[0]
            found.append([i, top])
        for w, g in zip(weights, torch.autograd.grad(loss, weights)):
            w.data -= step * g
    when, largest = np.array(found).T
    return {"losses": losses, "moments": when, "sharpness": largest}


def attempted(step, **options):
    """A run of gradient descent, or one sentence if it diverges."""
    try:
        found = followed(step, **options)
    except (ValueError, CertificateError):  # weights too large for any curvature
        found = {"losses": [np.nan]}
    if not np.max(found["losses"]) < 1e6 * found["losses"][0]:
        why = f"gradient descent with a step of {step:g} diverges"
        raise ParameterError(f"steps = {p.steps}: {why}; give less")
    return found


# %%
setting = {"examples": p.examples, "iterations": p.iterations}
here = {step: attempted(step, seed=p.seed, **setting) for step in p.steps}
paper = p.scale == "paper"
asked = setting if paper else {"examples": 500, "iterations": 3000}
asked_steps = p.steps if paper else [2.0, 4.0, 6.0]
grid = [{"step": t, "seed": s, **asked}
        for t in asked_steps for s in range(p.seeds)]  # fmt: skip
edge = Store().sweep("edge", descend, grid, run=paper, jobs=2)

# %%
COLOR = dict(zip(sorted({*p.steps, *asked_steps}), figures.SERIES * 9))


def draw_sharpness(ax):
    """Sharpness in units of 2 / step: lines for this run, bands for stored runs."""
    for step, r in here.items():
        curve, name = r["sharpness"] * step / 2, f"step {step:g}, this run"
        ax.plot(r["moments"], curve, color=COLOR[step], label=name)
    for part in (edge.where(step=t) for t in asked_steps):
        if len(part):
            step = part.parameters[0]["step"]
            when, curves = part.results[0]["moments"], part.values("sharpness")
            name = "" if step in here else f"step {step:g}, stored"
            figures.band(ax, when, curves * step / 2, COLOR[step], name, ls=":")
    ax.axhline(1, color=figures.INK, lw=1, ls="--")
    ax.legend(loc="lower right", fontsize=8)


# %% tags=["hide-input"]
hover = figures.panel("sharpness", "iteration", "sharpness, in units of 2 / step", ylim=(0, 1.8))
draw_sharpness(hover)
falling = figures.panel("loss", "iteration", "squared error", yscale="log")
for t, r in here.items():
    curve = figures.thin(np.arange(len(r["losses"])), np.array(r["losses"]), 1500)
    falling.plot(*curve, color=COLOR[t], lw=0.8, label=f"step {t:g}")
falling.legend()
figures.figure(
    "fig_edge_of_stability", hover, falling,
    caption=r"Sharpness along gradient descent in units of $2/\eta$ (dashed: 1), and the loss. Lines: this run. Dotted, with the range over "
    "seeds: stored runs with steps of " + ", ".join(f"{t:g}" for t in asked_steps) + ".",
    alt=f"Left, the largest eigenvalue in units of two over the step against iterations, for steps of {', '.join(f'{t:g}' for t in p.steps)} "
    "in this run and a band for each step of the stored runs, with a line at 1. Right, the loss of this run.",
)


# %%
def rising(losses):
    """Share of the steps of the second half in which the loss rises, in per cent."""
    return 100 * np.mean(np.diff(losses[len(losses) // 2 :]) > 0)


def told(t, r):
    """What this run did, in a sentence."""
    first, last = (r["sharpness"][i] * t / 2 for i in (0, -1))
    where = "near" if 0.9 < last < 1.2 else "below" if last < 1 else "above"
    losses = f"the loss from {written(r['losses'][0])} to {written(r['losses'][-1])}"
    head = f"With a step of {t:g} the sharpness goes from {written(first)} to "
    return head + rf"{written(last)} times $2/\eta$, {where} the edge, and {losses}."


# %% tags=["hide-input"]
say("**This run.** {ran}", ran=" ".join(told(*item) for item in here.items()))


# %%
def late(key, t, scale=1.0):
    """Mean over the second half of each stored run with a step."""
    halves = [r[key][len(r[key]) // 2 :] for r in edge.where(step=t).results]
    return Estimate([scale * np.mean(h) for h in halves], edge.label)


# %%
rows = []
for t in asked_steps:
    rises = Estimate([rising(r["losses"]) for r in edge.where(step=t).results])
    cells = [f"{late('sharpness', t, t / 2):.3f}", f"{late('sharpness', t):.3f}"]
    rows.append([f"{t:g}", *cells, f"{rises:.0f}", f"{late('share', t, 100):.0f}"])
head = ["step, stored runs", r"sharpness in units of $2/\eta$", "sharpness"]
head += ["steps in which the loss rises, %", "gradient in ten leading directions, %"]
figures.table(head, rows)

# %% [markdown]
# The table gives means over the second half of training, with the standard deviation over seeds. Where the sharpness stays at $2/\eta$, its
# size is set by the step: other networks that reach the edge at the same step would have the same largest eigenvalue, and a smaller step
# ends at a sharper point. A direction drawn at random would have 0.4 % of its squared norm in ten of the 2,740 directions (the last column;
# [Gur-Ari et al. 2018](../book/references.md)); the gradient has most of it there at the smaller steps, and much less at the largest.
#
# Below, a step of your own, on 60 digits; in Jupyter the network is trained anew when the slider is released.


# %% tags=["hide-input"]
@cache
def descended(step, seed):
    """A short run of gradient descent."""
    return followed(step, 60, 400 if p.scale != "smoke" else 4, seed)


def step_moved(step, seed=p.seed):
    """Sharpness along one run, with 2 over the step."""
    r, bound = descended(step, seed), 2 / step
    ax = figures.panel("", "iteration", "largest eigenvalue", ylim=(0, 5))
    ax.plot(r["moments"], r["sharpness"], color=figures.SERIES[5], label="sharpness")
    ax.axhline(bound, color=figures.INK, ls="--", lw=1, label="2 / step")
    ax.legend()
    last = np.mean(r["sharpness"][-3:])
    sentence = f"Step {step:g}: at the end the largest eigenvalue is {last:.2f}, and 2 over the step {bound:.2f}"
    if max(r["sharpness"]) < 0.95 * bound:
        sentence += ", which is not reached in these iterations"
    return f"{sentence}.", ax


# %% tags=["hide-input"]
explore(
    step_moved, {"step": [0.5, 1.0, 2.0, 3.0, 5.0]}, name="fig_explore_edge",
    alt="The largest eigenvalue of the Hessian along gradient descent, with a dashed line at 2 over the step.",
    caption="Sharpness along a short run of gradient descent on 60 digits.",
    start={"step": 2.0},
    live={"step": [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0], "seed": range(p.seed, p.seed + 10)},
)

# %% [markdown]
# ## Classes, and pairs of classes
#
# [Papyan (2019)](../book/references.md) split the Gauss-Newton matrix $G = \frac1N\sum_n J_n^\top(\operatorname{diag}(p_n) - p_n p_n^\top)J_n$ by classes. Let $g_{nc} = J_n^\top (p_n - e_c)$ be the gradient that example $n$ would have if its
# label were $c$. Since $\sum_c p_{nc} (p_n - e_c)(p_n - e_c)^\top$ is $\operatorname{diag}(p_n) - p_n p_n^\top$, the Gauss-Newton matrix is a
# weighted second moment of these $NC$ vectors,
#
# $$G = \frac1N \sum_n \sum_c p_{nc}\, g_{nc} g_{nc}^\top ,$$
#
# and can be split as in an analysis of variance. The $g_{nc}$ of all examples of true class $c'$ form one *cell* $(c', c)$. For each class
# $c'$ we average every cell with $c \ne c'$: these $C - 1$ means belong to the *pairs*, and their mean to the *class*. Examples are weighted
# by $p_{nc}$, cells by the sum of their weights. $G_{\text{class}}$ is the second moment of the class means, $G_{\text{pair}}$ that of the
# differences between pair and class means, and $G_{\text{within}}$ that of the differences between the gradients and their cell's mean:
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
grid = [{"data": d, "examples": 500, "seed": s}
        for d in split for s in range(p.seeds)]  # fmt: skip
pairs = Store().sweep("classes", classified, grid, run=paper)


# %%
def draw_parts(ax, found):
    """Leading eigenvalues of G, of class and pair together, and of what is left."""
    for key, color in (("G", "H"), ("both", "G"), ("within", "R")):
        top = np.array([r[key] for r in found])
        seen = np.median(top, 0) > 1e-6 * np.median(top[:, 0])
        rank, color = np.arange(1, top.shape[1] + 1)[seen], figures.COLORS[color]
        label = "class and pair" if key == "both" else key
        figures.band(ax, rank, top[:, seen].clip(1e-12), color, label)
    for n in (c := int(found[0]["classes"]), c * (c - 1)):
        ax.axvline(n + 0.5, 0.4, color=figures.INK, lw=0.8, ls=":")
    ax.legend(loc="lower left")


# %% tags=["hide-input"]
drawn = []
for name in split:
    results = pairs.where(data=name).results
    title = f"{name}, {'stored' if results else 'this run'}"
    drawn.append(figures.panel(title, "rank from the largest", "eigenvalue", xscale="log", yscale="log"))
    draw_parts(drawn[-1], results or [split[name]])
figures.figure(
    "fig_classes", *drawn,
    caption="The leading eigenvalues of $G$ and of its parts at the end of training. Dotted: after ranks $C$ and $C(C-1)$, for 5 clusters and 10 digits.",
    alt="Leading eigenvalues of G, of its class and pair parts together, and of what lies within cells, by rank on logarithmic axes, "
    "left for clusters and right for digits.",
)

# %%
above = lambda r: int((r["G"] > r["within"][0]).sum())
drop = lambda i: lambda r: r["G"][r["classes"] - i - 1] / r["G"][r["classes"] - i]
least = lambda r: r["class"][r["classes"] - 1] / r["class"][r["classes"] - 2]
match = lambda r: np.mean((r["class"] / r["G"])[: r["classes"]])
measures = {"drop": drop(0), "before": drop(1), "least": least, "match": match}
measures |= {"class": lambda r: r["shares"][0], "pair": lambda r: r["shares"][1]}
measures |= {"within": lambda r: r["shares"][3], "above": above}
found = {}
for name, measure in measures.items():
    for d in split:
        each = [measure(r) for r in pairs.where(data=d).results]
        found[f"{d}_{name}"] = Estimate(each, pairs.label)
        found[f"{d}_{name}_here"] = measure(split[d])

# %% tags=["hide-input"]
text = r"""**This run.** The classes carry {clusters_class_here:.2f} of the trace of $G$ on clusters and {digits_class_here:.2f} on digits, the pairs
    {clusters_pair_here:.2f} and {digits_pair_here:.2f}, what is left within cells {clusters_within_here:.2f} and {digits_within_here:.2f}.

    **Stored runs on clusters.** The classes carry {clusters_class:.2f} of the trace, the pairs {clusters_pair:.2f}, the rest {clusters_within:.2f}.
    The first $C = 5$ eigenvalues of $G_{\text{class}}$ are on average {clusters_match:.2f} times those of $G$. The fifth is {clusters_least:.2f} of
    the fourth, and behind it $G$ falls by a factor {clusters_drop:.1f}: here the outliers number $C$ and not $C - 1$. In all {clusters_above:.1f}
    eigenvalues of $G$ lie above the part within cells; class and pair can give at most $C(C-1) = 20$.

    **Stored runs on digits.** The shares are {digits_class:.2f}, {digits_pair:.2f} and {digits_within:.2f}. The tenth eigenvalue of
    $G_{\text{class}}$ is only {digits_least:.2f} of the ninth: the class part has $C - 1$ large eigenvalues. Behind the ninth $G$ falls by a factor
    {digits_before:.2f}, and behind the tenth by {digits_drop:.2f}: pairs and single examples weigh more than the classes here, so no gap is left. ([Chapter 9](09_population.ipynb) has one, at a loss near 0.3.)"""
say(text, **{k: v for k, v in found.items() if "{" + k + ":" in text})

# %% [markdown]
# ## The two sides of the second term
#
# The paper reads small negative eigenvalues of $H$ as a sign that $R = H - G$ is small, 'unless the second term contributes to the spectrum in an
# asymmetrical way' (Section 3.4). With one hidden layer $R$ is exactly symmetric about zero ([Chapter 4](04_size.ipynb)). These networks have
# two. Nothing forces symmetry there, but the trace of $R$ is still zero, since a ReLU network is linear in each single weight: both sides have the same sum, and may spread it differently.


# %%
def residual_sides(data, examples, seed):
    """All eigenvalues of R at the end of training, ascending."""
    risk = prepared(data, examples, seed)
    return {"eigenvalues": spectrum(risk.residual()).eigenvalues, "loss": risk.loss()}


# %%
few = [*split][: 1 if p.scale == "smoke" else 2]
sides_here = {d: residual_sides(d, p.examples, p.seed) for d in few}
sides = Store().sweep("residual_sides", residual_sides, grid, run=paper)


# %%
def draw_sides(ax, found):
    """Positive eigenvalues as dots, negative ones as rings, for each kind of data."""
    for color, (name, values) in zip(figures.SERIES[3:], found.items()):
        figures.ranked(ax, values, color, name, floor=1e-6)
    ax.legend(fontsize=8)


first = sides.where(seed=0)
stored = zip(first.parameters, first.results)
stored = {q["data"]: r["eigenvalues"] for q, r in stored}
current = {d: r["eigenvalues"] for d, r in sides_here.items()}
top = {d: [r["eigenvalues"] for r in sides.where(data=d).results] for d in split}
ratio = {d: Estimate([-v[-1] / v[0] for v in top[d]], sides.label) for d in split}

# %% tags=["hide-input"]
figures.figure(
    "fig_sides", *figures.here_and_stored(draw_sides, current, stored, stored_title="stored, seed 0"),
    caption="Eigenvalues of $R$ by magnitude; negative ones as rings. On a symmetric spectrum dots and rings come in pairs.",
    alt="Magnitudes of the eigenvalues of R against rank on logarithmic axes, on clusters and on digits, in this run and in a stored run.",
)
say(
    """**Stored runs.** The largest eigenvalue of $R$ is {clusters:.2f} times the magnitude of the lowest on clusters, and {digits:.2f} times on
    digits.""",
    **ratio,
)

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
grid = [{"width": w, "examples": 1000, "seed": s}
        for w in widths for s in range(p.seeds)]  # fmt: skip
bases = Store().sweep("rebasin", rebased, grid, run=paper)


# %%
def draw_barriers(line, by_width):
    """The line of this run, and the barriers of the stored runs, one curve a seed."""
    for i, (key, label) in enumerate((("before", "plain"), ("after", "matched"))):
        color = figures.SERIES[i]
        line.plot(near["positions"], near["line"][i], "o-", color=color, label=label)
        for s in range(p.seeds):
            part = bases.where(seed=s)
            x = [q["width"] for q in part.parameters]
            y = [max(float(r[key]), 1e-4) for r in part.results]
            by_width.plot(x, y, "o-", lw=0.8, color=color)
    line.legend()


# %% tags=["hide-input"]
panels = [figures.panel(f"this run, 64 units, seed {p.seed}", "position on the line", "training loss"),
          figures.panel("stored", "hidden units", "barrier", xscale="log", yscale="log")]  # fmt: skip
draw_barriers(*panels)
panels[1].set_xticks(widths, [str(w) for w in widths])
panels[1].set_xticks([], minor=True)
figures.figure(
    "fig_rebasin", *panels,
    caption="First: the line between two networks trained from different starts, before and after their hidden units are matched. Second: the height of the barrier "
    "against the number of hidden units, one line a seed.",
    alt="Left, training loss on the straight line between two networks, as trained and with units matched, in this run. Right, the "
    "height of the barrier against the number of hidden units, for each stored seed.",
)

# %%
found = {"here_before": near["before"], "here_after": near["after"]}
for w in widths:
    for key in ("before", "after"):
        each = [r[key] for r in bases.where(width=w).results]
        found[f"{key}_{w}"] = Estimate(each, bases.label)
left = [100 * r["after"] / r["before"] for r in bases.results]
found["left"] = Estimate(left, bases.label).mean

# %% tags=["hide-input"]
say(
    """**This run.** The barrier is {here_before:.3f}, with the units matched {here_after:.3f}.

    **Stored runs.** For 16, 64 and 256 units it is {before_16:.2f}, {before_64:.2f} and {before_256:.2f} as trained, and {after_16:.2f},
    {after_64:.2f} and {after_256:.2f} with the units matched. On average {left:.0f} % of it is left.""",
    **found,
)

# %% [markdown]
# ## How long the steps of a batch are
#
# A small batch takes longer steps than a large one from the same point. With $\bar g$ the mean of the examples' gradients $g_n$, and batches of
# $B$ drawn without replacement,
#
# $$\mathbb{E}\,\|g_B\|^2 = \|\bar g\|^2 + \frac{N - B}{B\,(N - 1)} \Big(\frac1N \sum_n \|g_n\|^2 - \|\bar g\|^2\Big) ,$$
#
# and the second term, the noise, is the larger the smaller the batch. The paper expects matching norms, since gradients of batches
# are unbiased (Section 4.1). A network is trained on 1,000 digits by gradient descent; the table evaluates the formula at three moments
# of the stored runs. [Chapter 5](05_algorithm.ipynb#how-long-the-steps-are) measures norms along runs with either batch.


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

# %%
rows = []
for i, t in enumerate((0, 150, 1500)):
    norms = [r["norms"][i] for r in lengths.results]  # whole set, 10, 512
    mean = [format(Estimate(n[j] for n in norms), ".2g") for j in (0, 2, 1)]
    ratio = Estimate(n[1] / n[2] for n in norms)
    signal = Estimate(100 * n[0] ** 2 / n[1] ** 2 for n in norms)
    rows.append([f"{t:,}", *mean, f"{ratio:.2f}", f"{signal:.1f}"])
head = ["iteration", "whole set", "batch of 512", "batch of 10", "10 over 512"]
figures.table([*head, "signal of 10, %"], rows)

# %% [markdown]
# The first three columns of numbers are root mean squares of the norms over stored runs. *Signal* is the share of the squared norm of a batch's gradient that belongs to
# the whole gradient. The noise of successive steps partly cancels, so longer steps do not carry the weights as much farther.

# %% [markdown]
# ## More of what came after
#
# * **The spectra of large networks.** [Ghorbani et al. (2019)](../book/references.md) computed densities by Lanczos quadrature for networks with
#   millions of parameters: bulk and outliers are there too, and batch normalisation removes the largest outliers.
#   [Chapter 13](13_today.ipynb) computes every eigenvalue of small residual networks and transformers.
# * **Classes.** [Papyan, Han and Donoho (2020)](../book/references.md) find the pattern of classes in gradients, features and weights.
# * **Paths between solutions.** [Garipov et al. (2018) and Draxler et al. (2018)](../book/references.md) joined independently trained networks by
#   curved paths along which the loss hardly rises.
# * **When the straight line suffices.** [Frankle et al. (2020)](../book/references.md): copies of one network that see different noise from some
#   early moment of training on end in solutions without a barrier between them. The paper's experiment, which starts Part II at
#   the end of Part I, is a case of it ([Chapter 6](06_basins.ipynb)).

# %% [markdown]
# ## Checks

# %%
data, network = blobs(60, 3, 8, seed=0), fully_connected([8, 5, 3], seed=0)
options = {"step_size": 0.1, "iterations": 50, "progress": False}
train(network, data.inputs, data.targets, **options)
risk = EmpiricalRisk(network, data.inputs, data.targets)
found = by_class(risk)
size, whole = float(found["G"].abs().max()), risk.ggn().to_dense()
error = float((found["G"] - whole).abs().max()) / size
lowest = min(float(torch.linalg.eigvalsh(part)[0]) for part in found.values()) / size
kinds = ("class", "pair", "own")
ranks = [int(torch.linalg.matrix_rank(found[k], rtol=1e-9)) for k in kinds]
at_edge = [v for t in asked_steps for v in late("sharpness", t, t / 2).values]

# %% tags=["nbval-check-output"]
check("the split adds up to G, to 1e-12", error, below=1e-12)
check("every part is positive semidefinite, to 1e-12", lowest, above=-1e-12)
check("ranks within C, C (C - 2), C", all(r <= 3 for r in ranks))
if p.scale == "quick":
    held = len(at_edge) and all(0.9 < v < 1.2 for v in at_edge)
    check("stored runs stay within 0.9 to 1.2 of the edge", held)

# %% [markdown]
# ## Limits
#
# * The sharpness is shown for squared error, where it stays at the edge for long. With cross-entropy it leaves the edge again once the
#   examples are fitted ([Chapter 1](01_spectrum.ipynb)).
# * $H$ is not $G$. At the end of training the two have the same outliers ([Chapter 2](02_ggn.ipynb)).
# * The networks are small, up to 15,370 parameters, and fully connected.
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
