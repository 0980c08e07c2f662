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
# (tour)=
# # The paper in a minute
#
# A neural network is trained by walking downhill on its loss, a function of its $M$ parameters. How that function bends at a
# point is told by the $M \times M$ matrix of its second derivatives, the Hessian: each of its eigenvalues
# is the curvature along one direction. In 2017 five authors computed such matrices whole {cite:p}`sagun2017` and found
# nearly all directions flat: a great bulk of eigenvalues at zero, and a few outliers far away.
#
# Here is that picture, forming while a small network learns {glue:text}`N` handwritten digits. It has one hidden layer of
# {glue:text}`h` units, so $M = $ {glue:text}`M:,`.

# %% [markdown]
# ```{glue:figure} fig_tour
# :name: fig-tour
# All eigenvalues of the Hessian at one moment of training, and the largest ones over the whole of it. Move the slider from the random
# start to the end with the mouse or the arrow keys; in Jupyter another seed or width trains another network. The axis on the left is a *signed
# logarithm*: logarithmic on either side of zero, so that small eigenvalues of both signs can be seen, and linear within $\pm 10^{-6}$.
# ```
#
# **Reading.** At the random start the landscape bends down as well as up: the lowest eigenvalue has
# {glue:text}`low_start:.2f` times the magnitude of the largest. As the digits are learnt the negative side nearly vanishes, to
# {glue:text}`low_end:.4f`. The largest eigenvalues first grow, from {glue:text}`top_start:.1f` to {glue:text}`top_peak:.1f`, and then shrink
# together, to {glue:text}`top_end:.1f`, as every digit comes to be fitted. Few stay large and nearly all near zero: at the end {glue:text}`outliers` lie above a
# tenth of the largest, and {glue:text}`flat:.1f` % are smaller than a thousandth of it.
#
# From such pictures the authors drew conclusions about networks in general. Each chapter of this book takes one of them
# and computes what decides it:
#
# ```{chapter-claims}
# ```
#
# What became known after the paper is in {ref}`after`, and {doc}`the ledger <../book/claims>` says of each claim whether it holds.
# What the symbols mean is collected under {doc}`../book/notation`, the terms in the {doc}`../book/glossary`.
#
# ## Parameters
#
# ```bash
# papermill notebooks/00_tour.ipynb out.ipynb -p hidden 20 -p seed 1
# ```

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
hidden: int = 8  # units of the hidden layer
examples: int = 60  # training examples N
iterations: int = 0  # steps of gradient descent; 0: by scale
seed: int = 0  # of the digits and of the random start

# %%
from hesslib.book.parameters import integer, resolve

p = resolve(
    globals(),
    hidden=integer(2, 200),
    examples=integer(10, 500),
    iterations=integer(10, 100_000, smoke=20, quick=1000, paper=1000),
    seed=integer(0),
)

# %% tags=["hide-input"]
from functools import cache

import numpy as np
from hesslib import EmpiricalRisk, spectrum
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
from hesslib.experiments.data import mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train

# %% [markdown]
# ## Train, and find every eigenvalue at a dozen moments

# %%
spaced = np.geomspace(1, p.iterations, 12).astype(int)
moments = [0, *np.unique(spaced).tolist()]


@cache
def learnt(hidden, seed):
    """All eigenvalues at each moment of one training run."""
    data = mnist(p.examples, seed=seed)
    model = fully_connected([784, hidden, 10], seed=seed)
    options = {"step_size": 0.1, "iterations": p.iterations, "record": moments}
    history = train(model, data.inputs, data.targets, progress=False, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    found = [risk.at(w).hessian() for w in history.parameters]
    along = [spectrum(op, progress=False).eigenvalues for op in found]
    return along, history.losses


# %% tags=["remove-output", "hide-input"]
def moment(iteration, hidden=p.hidden, seed=p.seed):
    """The spectrum at one moment, and where it stands in the whole."""
    along, losses = learnt(hidden, seed)
    at = moments.index(iteration)
    values, floor = along[at], 1e-6
    ranked = figures.panel("every eigenvalue", "rank", "eigenvalue")
    curve = figures.signed_log(values, floor)
    rank = np.arange(1, len(values) + 1)
    ranked.plot(*figures.thin(rank, curve, 200), color=figures.COLORS["H"])
    ranked.set_ylim(figures.signed_log(np.array([-3.0, 3.0]), floor))
    figures.signed_log_axis(ranked, floor, -3, 3)
    figures.thousands(ranked)
    when = np.maximum(moments, 0.5)
    over = figures.panel(
        "the twenty largest", "iteration (0 drawn at 0.5)", "eigenvalue"
    )
    over.set(xscale="log", yscale="log", ylim=(1e-3, 30))
    over.plot(
        when,
        np.array([v[::-1][:20] for v in along]).clip(1e-3),
        color=figures.COLORS["H"],
        lw=0.8,
    )
    over.axvline(when[at], color=figures.COLORS["theory"], ls=":")
    few = int((values > 0.1 * values[-1]).sum())
    sentence = f"Iteration {iteration:,}, loss {losses[at]:.3f}: the lowest of {len(values):,} eigenvalues is "
    sentence += f"{values[0]:.2g}, the largest {values[-1]:.2f}; {few} are above a tenth of the largest."
    return sentence, ranked, over


explore(
    moment,
    {"iteration": moments},
    name="fig_tour",
    alt="Left, all eigenvalues of the Hessian in ascending order on a signed logarithmic axis, at one moment of training. "
    "Right, the twenty largest against iterations on logarithmic axes, with a dotted line at that moment.",
    start={"iteration": moments[-1]},
    live={
        "hidden": range(p.hidden, p.hidden + 40, 4),
        "seed": range(p.seed, p.seed + 10),
    },
    labels={"hidden": "hidden units"},
)

# %% tags=["remove-cell"]
along, losses = learnt(p.hidden, p.seed)
first, last = along[0], along[-1]
figures.number(
    M=len(last),
    N=p.examples,
    h=p.hidden,
    top_start=first[-1],
    top_peak=max(v[-1] for v in along),
    top_end=last[-1],
    low_start=-first[0] / first[-1],
    low_end=-last[0] / last[-1],
    outliers=int((last > 0.1 * last[-1]).sum()),
    flat=100 * float((np.abs(last) < 1e-3 * last[-1]).mean()),
)

# %% tags=["nbval-check-output", "hide-input"]
print("the loss has fallen:", "pass" if losses[-1] < losses[0] else "FAIL")
smaller = -last[0] / last[-1] < -first[0] / first[-1]
print("negative curvature has faded:", "pass" if smaller else "does not hold")

# %% [markdown]
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
