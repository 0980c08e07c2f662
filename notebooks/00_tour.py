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
# # The paper in a minute
#
# A neural network is trained by walking downhill on its loss, a function of its $M$ parameters. How that function bends at a
# point is told by the $M \times M$ matrix of its second derivatives, the Hessian: each of its eigenvalues
# is the curvature along one direction. In 2017 five authors computed such matrices whole
# ([Sagun et al. 2017](../book/references.md)) and found nearly all directions flat: a great bulk of eigenvalues at
# zero, and a few outliers far away.

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
hidden: int = 8  # units of the hidden layer
examples: int = 60  # training examples N
iterations: int = 0  # steps of gradient descent; 0: by scale
seed: int = 0  # of the digits and of the random start

# %% tags=["hide-input"]
from functools import cache

import numpy as np
from hesslib import EmpiricalRisk, spectrum
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.parameters import integer, resolve
from hesslib.book.text import check, foot, say, this_run
from hesslib.experiments.data import mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train

p = resolve(
    globals(),
    hidden=integer(2, 200),
    examples=integer(10, 500),
    iterations=integer(10, 100_000, smoke=20, quick=1000, paper=1000),
    seed=integer(0),
)
this_run(p)

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


# %% tags=["hide-input"]
def moment(iteration, hidden=p.hidden, seed=p.seed):
    """The spectrum at one moment."""
    along, losses = learnt(hidden, seed)
    values = along[moments.index(iteration)]
    ax = figures.panel("", xlim=(0.8, 2 * len(values)), ylim=(1e-12, 30))
    figures.ranked(ax, values, label="eigenvalues")
    sentence = f"Iteration {iteration:,}: the lowest of {len(values):,} eigenvalues is {values[0]:.2g}, the largest {values[-1]:.2f}."
    return sentence, ax


explore(
    moment,
    {"iteration": moments},
    name="fig_tour",
    alt="Magnitudes of the eigenvalues of the Hessian against their rank on logarithmic axes.",
    caption="All eigenvalues of the Hessian at one moment of training, $\\lambda_i$ against rank.",
    live={
        "hidden": range(p.hidden, p.hidden + 40, 4),
        "seed": range(p.seed, p.seed + 10),
    },
    labels={"hidden": "hidden units"},
)

# %% tags=["hide-input"]
along, losses = learnt(p.hidden, p.seed)
first, last = along[0], along[-1]
say(
    """The network has one hidden layer of {h} units, so $M = {M}$. At the random start the lowest eigenvalue
    has {low_start:.2f} times the magnitude of the largest, at the end {low_end:.4f} times.""",
    h=p.hidden,
    M=len(last),
    low_start=-first[0] / first[-1],
    low_end=-last[0] / last[-1],
)

# %% tags=["nbval-check-output"]
check("the loss has fallen", losses[-1] < losses[0])

# %% tags=["hide-input"]
foot(p)
