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
# # The Hessian of a neural network, in a minute
#
# The Hessian is the matrix of second derivatives of the loss: it tells how the loss bends around the weights. Press *play* and watch
# it while a small network learns: each moment of training shows the whole matrix, its eigenvalues and what the network decides.

# %% tags=["parameters", "hide-input", "end"]
scale: str = "quick"  # smoke, quick or paper
hidden: int = 20  # units of the hidden layer
examples: int = 60  # training examples N
iterations: int = 0  # steps of gradient descent; 0: by scale
seed: int = 0  # of the points and of the random start

# %% tags=["hide-input", "end"]
from functools import cache

import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.parameters import integer, resolve
from hesslib.book.store import published_labels, published_result
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run
from hesslib.experiments.landscape import rise_factor
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train

p = resolve(
    globals(),
    hidden=integer(2, 100),
    examples=integer(6, 500),
    iterations=integer(10, 100_000, smoke=100, quick=3000, paper=3000),
    seed=integer(0),
)
this_run(p)


# %% tags=["end"]
def spiral(examples, seed, classes=3):
    """Points in the plane on three arms of a spiral, and the arm of each."""
    rng = np.random.default_rng(seed)
    arm = np.arange(examples) % classes
    radius = 0.25 + rng.random(examples)
    angle = 2 * np.pi * arm / classes + 2.2 * radius
    angle += 0.12 * rng.standard_normal(examples)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.tensor(points), torch.tensor(arm)


# %% tags=["end"]
moments = np.unique(np.geomspace(1, p.iterations, 15).astype(int)).tolist()
moments = [0, *moments]


@cache
def trained(hidden, seed):
    """One training run: the risk, the weights at each moment, the losses."""
    inputs, targets = spiral(p.examples, seed)
    model = fully_connected([2, hidden, 3], seed=seed)
    options = {"step_size": 0.5, "iterations": p.iterations, "record": moments}
    history = train(model, inputs, targets, progress=False, **options)
    risk = EmpiricalRisk(model, inputs, targets)
    return risk, history.parameters, history.losses


# %% tags=["end"]
def at(step, hidden=p.hidden, seed=p.seed):
    """The network's weights, its Hessian, all eigenvalues and the loss at a moment."""
    risk, parameters, losses = trained(hidden, seed)
    index = moments.index(step)
    matrix = risk.at(parameters[index]).hessian().to_dense().numpy()
    values = np.linalg.eigvalsh(matrix)
    return parameters[index], matrix, values, losses[index]


# %% tags=["end"]
def decide(weights, points, hidden):
    """The probability of each arm at points of the plane."""
    model = fully_connected([2, hidden, 3], seed=0)
    torch.nn.utils.vector_to_parameters(
        torch.as_tensor(weights), model.parameters()
    )
    with torch.no_grad():
        return model(torch.as_tensor(points)).softmax(1).numpy()


# %% tags=["end"]
def coarse(matrix, most=150):
    """At most so many rows: of each square of entries the one largest in magnitude."""
    side = -(-len(matrix) // most)
    rows = np.pad(matrix, (0, -len(matrix) % side))
    n = len(rows) // side
    squares = rows.reshape(n, side, n, side).swapaxes(1, 2).reshape(n, n, -1)
    largest = np.abs(squares).argmax(-1)[..., None]
    return np.take_along_axis(squares, largest, -1)[..., 0]


# %% tags=["end"]
def draw_matrix(matrix):
    """The entries of the Hessian as dots of colour."""
    xlabel = "blue: positive, orange: negative"
    ax = figures.panel("the Hessian", xlabel, size=figures.THIRD)
    figures.matrix(ax, coarse(matrix))
    return ax


def draw_values(values):
    """The eigenvalues by rank."""
    ax = figures.panel("its eigenvalues", size=figures.THIRD, ylim=(1e-9, 10))
    figures.ranked(ax, values, label="eigenvalue", floor=0, points=60)
    ax.set_xlim(0.7, 2 * len(values))
    ax.legend(loc="lower left")
    return ax


# %% tags=["hide-input", "end"]
def draw_decision(weights, hidden, inputs, targets):
    """What the network decides over the plane, and the training points."""
    xlabel = "points: training examples"
    ax = figures.panel("the decision", xlabel, size=figures.THIRD)
    grid = np.linspace(-1.5, 1.5, 61)
    plane = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    likely = decide(weights, plane, hidden).reshape(61, 61, 3)
    arms = np.array(figures.SERIES[2:5])
    strength, colors = 0.9 * (likely.max(-1) - 1 / 3), arms[likely.argmax(-1)]
    box = (-1.5, 1.5, -1.5, 1.5)
    figures.tinted(ax, strength, colors, extent=box, origin="lower")
    for arm, color in enumerate(arms):
        xy = inputs[targets == arm].T
        ax.plot(*xy, "o", color=color, mec=figures.INK, mew=0.5, label=f"arm {arm}")
    ax.set(xticks=[], yticks=[])
    return ax


# %% tags=["end"]
def moment(step, hidden=p.hidden, seed=p.seed):
    """Matrix, eigenvalues and decision at one moment of training."""
    weights, matrix, values, loss = at(step, hidden, seed)
    inputs, targets = spiral(p.examples, seed)
    found = decide(weights, inputs, hidden).argmax(1)
    right = int((found == targets.numpy()).sum())
    large = int((values > 0.1 * values[-1]).sum())
    sentence = (
        f"Step {step:,}, loss {loss:.3f}: {right} of {p.examples} points are right. "
        f"Of {len(values)} eigenvalues {large} "
        f"are above a tenth of the largest, and the lowest is {values[0]:.2g}."
    )
    decision = draw_decision(weights, hidden, inputs.numpy(), targets.numpy())
    return sentence, draw_matrix(matrix), draw_values(values), decision


# %% tags=["hide-input"]
shown = "all entries" if 6 * p.hidden + 3 <= 150 else "the largest entries"
explore(
    moment,
    {"step": moments},
    name="fig_tour",
    alt="Left, the Hessian as a square of blue and orange dots. In the middle, the magnitudes of its eigenvalues against "
    "rank on logarithmic axes, negative ones as rings. Right, the plane coloured by the network's decision, with "
    "the training points of three arms of a spiral.",
    caption=f"A network with {p.hidden} hidden units learns to tell the three arms of a spiral apart. First {shown} of "
    "its Hessian, the stronger the colour the larger; then magnitudes of its eigenvalues against rank (about 60, those above $10^{-9}$), with rings for negative ones; then "
    "the most likely arm at each point, the more certain the stronger the colour. In Jupyter the sliders train other networks.",
    live={
        "hidden": range(p.hidden, p.hidden + 40, 8),
        "seed": range(p.seed, p.seed + 10),
    },
    labels={"hidden": "hidden units"},
)

# %% tags=["hide-input"]
_, _, first, loss_first = at(0)
_, _, last, loss_last = at(moments[-1])
large = [int((v > 0.1 * v[-1]).sum()) for v in (first, last)]
say(
    """The network has $M = {M}$ weights and {N} examples. At the random start {start} eigenvalues are above a tenth of the
    largest, and {end} after {steps:,} steps. The lowest eigenvalue goes from {low_start:.2g} to {low_end:.2g}. {word}""",
    M=len(last),
    N=p.examples,
    steps=p.iterations,
    start=large[0],
    end=large[1],
    low_start=first[0],
    low_end=last[0],
    word="At the end the loss bends in a few directions only, and along all others it is nearly flat."
    if learnt(loss_last, 3)
    else "The network has not learnt yet: its loss is above a tenth of that of a guess.",
)

# %% [markdown]
# In 2017 Levent Sagun, Utku Evci, Uğur Güney, Yann Dauphin and Léon Bottou computed such matrices whole and drew conclusions for networks
# in general ([Sagun et al. 2017](../book/references.md)). This book makes their experiments again, computes what decides each
# claim, and says [which claims hold](../book/claims.md).
#
# ## Five findings


# %% tags=["end"]
def stored(name, key, **where):
    """One quantity of the published runs of an experiment, with these parameters."""
    fits = lambda q: all(q[k] == v for k, v in where.items())
    chosen = [one for one in published_labels(name) if fits(one["parameters"])]
    return [published_result(label)[key] for label in chosen]


# %% tags=["end"]
ends = [v[1] for v in stored("spectrum", "eigenvalues")]
flat = Estimate([100 * (np.abs(v) < 1e-3 * v[-1]).mean() for v in ends])
descent = {"activation": "relu", "batch_size": 0, "cluster_std": 1.0}
clusters = {k: stored("clusters", "top", classes=k, **descent) for k in (5, 10, 20)}
widths = {h: stored("width", "eigenvalues", width=h) for h in (10, 30, 50, 70)}

# %% tags=["end"]
few = [
    Estimate([(v > 0.1 * v[-1]).sum() for v in runs]) for runs in widths.values()
]
negative = [(v < -1e-10).sum() / h for h, runs in widths.items() for v in runs]
weights = [m for h in widths for m in stored("width", "parameters", width=h)]


# %% tags=["end"]
def times(losses, positions):
    """The highest losses between two ends over those of the higher ends."""
    lines = zip(positions, losses, strict=True)
    return Estimate(rise_factor(t, v) for t, v in lines)


cifar = {"start": "large", "end": "small", "what": "weights"}
line = [stored("basins_arms_line", k, **cifar) for k in ("train_loss", "positions")]
hill = times(*line)
wall = "is nowhere higher than at the higher end"
if hill.high > 1:
    wall = f"reaches {hill.high:.2f} times that of the higher end"

# %% tags=["end"]
risk, along, _ = trained(p.hidden, p.seed)
ratio = [
    np.linalg.norm(risk.at(w).residual().to_dense())
    / np.linalg.norm(risk.at(w).ggn().to_dense())
    for w in along
]

# %% tags=["hide-input"]
say(
    """1. **Most directions are flat.** After training on 1,000 digits {flat:.1f} % of the eigenvalues are smaller than a
    thousandth of the largest ([Chapter 1](01_spectrum.ipynb)).

    2. **The Hessian is a sum of two matrices,** of which one is made of the gradients of the network's outputs and the other of their curvature. On
    the spiral the norm of the second is {before:.2f} times that of the first at the start, and {after:.3f} times at the end
    ([Chapter 2](02_ggn.ipynb)).

    3. **The data determine how many eigenvalues are large.** With $k$ clusters the eigenvalue of rank $k$ is {drop_5:.1f} times as large as
    the next one for $k = 5$, {drop_10:.1f} times for $k = 10$ and {drop_20:.2f} times for $k = 20$, where the drop after rank $k - 1$ is
    larger ({before_20:.2f}; [Chapter 3](03_data.ipynb)).

    4. **More weights add small eigenvalues only.** From {least:,} to {most:,} weights the count above a tenth of
    the largest goes from {narrow:.1f} to {wide:.1f} ([Chapter 4](04_size.ipynb)).

    5. **Large and small batches can end in one valley.** On CIFAR-10 ({lines} stored), on the straight line between the two ends, the
    training loss {hill} ([Chapters 5](05_algorithm.ipynb) [and 6](06_basins.ipynb)). (± is the standard deviation over stored runs.)""",
    **{"flat": flat, "before": ratio[0], "after": ratio[-1]},
    **{
        f"drop_{k}": Estimate(v[k - 1] / v[k] for v in clusters[k])
        for k in clusters
    },
    before_20=Estimate(v[18] / v[19] for v in clusters[20]),
    lines=f"{len(hill)} run{'s' * (len(hill) != 1)}" if hill else None,
    least=min(weights, default=None),
    most=max(weights, default=None),
    narrow=few[0],
    wide=few[-1],
    hill=wall if hill else hill,
)

# %% tags=["end"]
third = {"size": figures.THIRD}
ranks = {"xlim": (0.7, 1e5), "ylim": (1e-9, 10)}
flatness = figures.panel("1  flat", **third, **ranks)
for v in ends[:1]:
    figures.ranked(flatness, v)
names = "step (0 at 0.5)", "norm of second / first"
fading = figures.panel("2  a sum", *names, **third)
fading.loglog(np.maximum(moments, 0.5), ratio, "o-", color=figures.COLORS["R"])
wide = figures.panel("4  width", **third, **ranks)
for h, color in ((10, figures.SERIES[1]), (70, figures.SERIES[0])):
    for v in widths[h][:1]:
        figures.ranked(wide, v, color=color, label=f"{h} units")
entries = list(zip(*wide.get_legend_handles_labels()))
_ = wide.legend(*zip(*[e for e in entries if "neg" not in e[1]]), loc="lower left")

# %% tags=["end"]
leading = figures.panel("3  clusters", "rank", "eigenvalue / largest", **third)
for (k, runs), color in zip(clusters.items(), figures.SERIES):
    for v in runs[:1]:
        rank = 1 + np.arange(len(v))
        leading.loglog(rank, v / v[0], "o", label=f"k = {k}", color=color)
    leading.axvline(k + 0.5, 0.4, 1, color=color, ls=":")
valley = figures.panel("5  one valley", "position on the line", "loss", **third)
for i, (v, t) in enumerate(zip(*line, strict=True)):
    ends_at = np.isin(t, (0, 1))
    valley.semilogy(t, v, color=figures.COLORS["H"])
    name = "_ends" if i else "ends"
    valley.plot(t[ends_at], v[ends_at], "o", color=figures.COLORS["G"], label=name)

# %% tags=["hide-input"]
counted = figures.panel("new: nine a unit", "hidden units", "negative eigenvalues", **third)  # fmt: skip
for h, runs in widths.items():
    counts = [(v < -1e-10).sum() for v in runs]
    counted.plot([h] * len(runs), counts, "o", color=figures.COLORS["H"])
counted.plot(
    [0, 75], [0, 675], ":", color=figures.COLORS["theory"], label="9 a unit"
)
for ax in (leading, valley, counted):
    ax.legend()
panels = flatness, fading, leading, wide, valley, counted
figures.figure(
    "fig_findings",
    *panels,
    caption="The five findings and a new one. 1: the eigenvalues of a network with 5,000 weights after training (rings: negative). 2: the norm of the "
    "second matrix over that of the first, on the spiral. 3: the largest eigenvalues for three numbers of clusters $k$; dotted: "
    "after rank $k$. 4: the eigenvalues of two widths (rings: negative). 5: the training loss on the line from the large batch's end (0) to the "
    "small batch's (1), on CIFAR-10. New: negative eigenvalues for networks of four widths, and nine for each unit.",
    alt="Six small panels: ranked eigenvalues, a falling ratio of norms, drops of the largest eigenvalues after the number of "
    "clusters, ranked eigenvalues of two widths, a loss without a barrier on a line, and points on a line of slope nine.",
)

# %% [markdown]
# ## What the paper did not know

# %% tags=["end"]
of = lambda name: [
    (one["parameters"], published_result(one)) for one in published_labels(name)
]
exact = [
    r["zeros"][1] == r["parameters"] - q["examples"] * r["outputs"]
    for q, r in of("nullity")
    if q["targets"] != "one-hot"
]
late = lambda b: np.array([v[13:].mean() for v in stored(
    "stochastic_edge", "sharpness", loss="mse", step=4.0, batch=b)])  # fmt: skip
higher = late(512) / late(8)

# %% tags=["end"]
few_large = [
    count_outliers(r["ggn"][-2 * int(r["classes"]) :], "ratio")
    for q, r in of("today_spectra")
    if q["after"] != "start" and q["network"] != "language"
]
on_digits = ("line_weights", "positions")
ridge = times(*(stored("basins_digits", k, step=0.05) for k in on_digits))

# %% tags=["hide-input"]
say(
    """* **The negative eigenvalues can be counted.** With ten classes a network with one hidden layer of ReLU units has {per:.2f} of
    them for each hidden unit ([Chapter 4](04_size.ipynb)).

    * **Large and small batches can end in two valleys, too.** On digits, with a step at which the large batches fit them, the loss between the
    two ends reaches {low:.0f} to {high:.0f} times that of the higher end, in {above} of {seeds} runs ([Chapter 6](06_basins.ipynb)).

    * **Whether $k$ or $k - 1$ eigenvalues are large** depends on how far apart the clusters are ([Chapter 3](03_data.ipynb)).

    * **The zeros can be counted, too.** Trained to zero squared error on targets in general position (drawn at random, say), {met} of {tried} networks have
    $M - NC$ of them exactly ($M$ weights, $N$ examples, $C$ outputs; [Chapter 11](11_zeros.ipynb)).

    * **With small batches the largest eigenvalue stays low.** With all 512 digits in each batch it lies, in the second half of training,
    {higher:.2f} times as high as with batches of 8 ([Chapter 12](12_noise.ipynb)).

    * **Small residual networks and transformers have fewer outliers than classes.** Trained on digits, all {networks} networks have {fewest} to
    {most} outliers for 10 classes, counted among the twenty largest ([Chapter 13](13_today.ipynb)).""",
    per=Estimate(negative),
    met=sum(exact),
    tried=len(exact) or None,
    higher=Estimate(higher),
    networks=len(few_large) or None,
    fewest=min(few_large, default=None),
    most=max(few_large, default=None),
    low=ridge.low,
    high=ridge.high,
    seeds=len(ridge) or None,
    above=int((ridge.values > 1.25).sum()),
)

# %% tags=["nbval-check-output", "end"]
check("the loss has fallen", loss_last < loss_first)
check("the network has learnt", learnt(loss_last, 3), otherwise="no")
gap = np.abs(np.trace(at(moments[-1])[1]) - last.sum()) / np.abs(last).sum()
check("the eigenvalues add up to the trace within 1e-12", gap, below=1e-12)

# %% [markdown]
# ## Go on
#
# Read [the preface](../book/preface.md) on how to use this book, or begin with [Chapter 1](01_spectrum.ipynb). Symbols are under
# [notation](../book/notation.md), terms in the [glossary](../book/glossary.md). To run this page with other
# [parameters](../book/parameters.md):
#
# ```bash
# papermill notebooks/00_tour.ipynb out.ipynb -p hidden 40 -p seed 1
# ```

# %% tags=["hide-input"]
foot(p)
