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
# (data)=
# # The data, and the number of outliers
#
# :::{admonition} The paper's claim
# :class: important
# The number of large eigenvalues is a property of the data: trained on $k$ Gaussian clusters, a network's Hessian has $k$
# eigenvalues above a visible gap, 'exactly the number of classes' {cite:p}`sagun2017` (Section 3.1, Figure 2, and Table 1 of
# Appendix A).
# :::
#
# A network with 100 inputs, two hidden layers of 30 units and $k$ outputs is trained to tell $k$ Gaussian clusters apart, for $k$ in
# 2, 5, 10, 20, 50. The paper's Table 1 counts the outliers of 19 such networks by three rules. Here are all 19 rows again, over
# seeds, and then the question behind the table: is it $k$, or $k - 1$, and for which rule?
#
# ## The recipe
#
# The paper says little about how its networks were trained, but the authors' released code fixes part of it: the centres
# of the clusters are uniform in $[-10, 10]^{100}$, the data are standardised feature by feature, weights and biases
# start from $0.1\,\mathcal N(0, 1)$, the step is 0.1, batches are taken in their stored order, and training stops when the norm
# of the (batch) gradient falls to a tolerance. What remains open is the number of examples, the batch size, the
# tolerance, and what 'covariance 10' scales. We take $N = 1000$ and find the others from the mean eigenvalues that the
# table gives, below.
#
# ## Parameters
#
# ```bash
# papermill notebooks/03_data.ipynb out.ipynb -p classes "[2, 5]" -p cluster_std 3.0
# ```

# %% tags=["parameters"]
scale: str = "quick"  # smoke, quick or paper
classes: list = []  # numbers of clusters k to train on here; []: by scale
examples: int = 0  # training examples N; 0: by scale
activation: str = "relu"  # relu or tanh
cluster_std: float = 1.0  # standard deviation of each cluster before standardising
batch_size: int = 0  # examples a step; 0: all (gradient descent)
tolerance: float = 1e-3  # stop when the norm of the (batch) gradient is at most this
seed: int = 0  # of the clusters and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.notebook.parameters import choice, integer, integers, real, resolve

p = resolve(
    globals(),
    classes=integers(2, 50, smoke=[2, 3], quick=[2, 5, 10], paper=[2, 5, 10]),
    examples=integer(50, 100_000, smoke=60, quick=1000, paper=1000),
    activation=choice("relu", "tanh"),
    cluster_std=real(1e-3, 1e3),
    batch_size=integer(0),
    tolerance=real(1e-6, 1.0),
    seed=integer(0),
    seeds=integer(1, smoke=1, quick=5, paper=5),
)

# %% tags=["hide-input"]
import numpy as np

from hesslib import EmpiricalRisk, count_outliers, spectrum
from hesslib.experiments.data import blobs
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import accuracy, train
from hesslib.notebook import figures
from hesslib.notebook.store import Store

# %% [markdown]
# ## Train and look

# %%
def trained(classes, activation, cluster_std, batch_size, tolerance, seed, examples, separation=0.0):
    """Train one network by the recipe; returns the risk at the end, its history, and the data."""
    data = blobs(examples, classes, 100, cluster_std, seed, separation=separation)
    sizes = [100, 30, 30, classes]
    model = fully_connected(sizes, activation=activation, scale=0.1, seed=seed)
    options = {"step_size": 0.1, "iterations": 40_000, "batch_size": batch_size}
    options["gradient_tolerance"] = tolerance
    history = train(model, data.inputs, data.targets, **options)
    return EmpiricalRisk(model, data.inputs, data.targets), history, data


# %%
def clusters(**setting):
    """Spectrum and end of training of one network."""
    risk, history, data = trained(**setting)
    values = spectrum(risk.hessian()).eigenvalues
    return {
        "top": values[::-1][:120],
        "bottom": values[:20],
        "moments": [values.mean(), values.std(), len(values)],
        "end": [history.iterations[-1], history.losses[-1], history.gradient_norms[-1]],
        "accuracy": accuracy(risk.model, data.test_inputs, data.test_targets),
    }


names = ("activation", "cluster_std", "batch_size", "tolerance", "examples", "seed")
setting = {name: getattr(p, name) for name in names}
here = {k: clusters(classes=k, **setting) for k in p.classes}
for k, r in here.items():
    counts = {rule: count_outliers(r["top"], rule) for rule in ("gap", "ratio", "elbow")}
    print(f"k = {k:>2}: {r['end'][0]:>6,.0f} iterations, mean eigenvalue {r['moments'][0]:.2e}, {counts}")

# %% [markdown]
# ## The nineteen rows of Table 1
#
# The paper's values, and our recipe for each block of rows.

# %%
CLASSES = [2, 5, 10, 20, 50]
paper_table = {  # (algorithm, activation, covariance): mean, gap, ratio, heuristic, cutoff for each k
    ("GD", "tanh", 1): (
        [1.19e-05, 2.52e-05, 3.75e-05, 5.37e-05],
        [2, 2, 2, 3], [3, 17, 4, 4], [None] * 4, [None] * 4),
    ("GD", "relu", 1): (
        [7.13e-06, 1.55e-05, 3.04e-05, 5.65e-05, 1.16e-04],
        [3, 6, 11, 4, 50], [4, 7, 12, 21, 51], [2, 5, 10, 21, 49], [0.003] * 5),
    ("SGD", "relu", 1): (
        [8.96e-06, 1.62e-05, 2.97e-05, 4.53e-05, 6.78e-05],
        [3, 6, 2, 2, 50], [4, 7, 14, 3, 51], [2, 7, 15, 21, 49], [0.002] * 5),
    ("SGD", "relu", 10): (
        [9.49e-05, 1.68e-04, 1.92e-04, 3.10e-04, 1.67e-04],
        [2, 5, 2, 20, 50], [4, 6, 11, 21, 51], [2, 5, 9, 19, 49], [0.015] * 4 + [0.005]),
}  # fmt: skip

# %%
RECIPE = {  # batch size, tolerance of the batch gradient's norm, standard deviation of the clusters
    ("GD", "tanh", 1): (0, 1e-3, 1.0),
    ("GD", "relu", 1): (0, 1e-3, 1.0),
    ("SGD", "relu", 1): (50, 1e-3, 1.0),
    ("SGD", "relu", 10): (100, 3e-3, 10.0),
}


def row_setting(block, k, seed):
    """The setting of one row of Table 1."""
    batch_size, tolerance, std = RECIPE[block]
    row = {"classes": k, "activation": block[1], "cluster_std": std, "seed": seed}
    return row | {"batch_size": batch_size, "tolerance": tolerance, "examples": 1000}


rows = [(block, k) for block, values in paper_table.items() for k in CLASSES[: len(values[0])]]
grid = [row_setting(block, k, seed) for block, k in rows for seed in range(p.seeds)]
run = p.scale == "paper"
runs = Store().sweep("03_data", clusters, grid, run=run)
print(runs.label)

# %% [markdown]
# ### Figure 2

# %% tags=["remove-output", "hide-input"]
def draw(ax, groups):
    """Leading eigenvalues of each k in descending order, median and range."""
    for color, (k, results) in zip(figures.SERIES, groups.items()):
        top = np.array([r["top"][:70] for r in results]).clip(1e-7)
        rank = np.arange(1, top.shape[1] + 1)
        ax.plot(rank, np.median(top, 0), ".-", ms=3, lw=0.8, color=color, label=f"k = {k}")
        ax.axvline(k + 0.5, color=color, lw=0.8, ls=":")
        if len(top) > 1:
            ax.fill_between(rank, top.min(0), top.max(0), color=color, alpha=0.15, lw=0)
    ax.legend(loc="upper right")
    ax.set_ylim(bottom=1e-5)


labels = {"xlabel": "rank from the largest", "ylabel": "eigenvalue", "yscale": "log", "xscale": "log"}
quick_panel = figures.panel(f"here, seed {p.seed}", **labels)
draw(quick_panel, {k: [r] for k, r in here.items()})
stored_panel = figures.panel(f"stored, SGD, ReLU, {p.seeds} seeds", **labels)
sgd = {k: runs.where(**{n: v for n, v in row_setting(("SGD", "relu", 1), k, 0).items() if n != "seed"}) for k in CLASSES}
draw(stored_panel, {k: g.results for k, g in sgd.items() if len(g)})
figures.show(
    "fig_gap",
    "Leading eigenvalues by rank on logarithmic axes for each number of clusters, left for the runs on "
    "this page, right for stored stochastic gradient descent runs as median and range. A dotted line "
    "marks rank k; most curves drop just after it.",
    quick_panel,
    stored_panel,
)

# %% [markdown]
# ```{glue:figure} fig_gap
# :name: fig-gap
# Leading eigenvalues for $k$ clusters (the paper's Figure 2). Dotted: rank $k$. {glue:text}`label`.
# ```
#
# **Reading.** There is a drop near rank $k$ for every $k$. Its size differs: for few clusters it is the largest drop of the
# curve, for many it competes with the step from the first eigenvalue to the second. So what a rule counts depends on which
# drop it looks for.

# %% [markdown]
# ### Table 1, row by row
#
# Ours are means over seeds; in brackets the smallest and the largest. Counts by the **gap** rule ($i$ that maximises $\lambda_i -
# \lambda_{i+1}$), the **ratio** rule ($\lambda_i / \lambda_{i+1}$), and the paper's **cutoff**, whose value it gives for each row.

# %% tags=["hide-input"]
def block_runs(block, k):
    """The stored runs of one row."""
    row = row_setting(block, k, 0)
    row.pop("seed")
    return runs.where(**row).results


def span(values, form="d"):
    """Median with range."""
    if not len(values):
        return "not run"
    low, mid, high = min(values), np.median(values), max(values)
    return f"{mid:.3g}" if low == high else f"{mid:.3g} [{low:{form}}, {high:{form}}]"


lines, deviation = [], {}
for block, (means, gaps, ratios, heuristics, cutoffs) in paper_table.items():
    for i, mean in enumerate(means):
        k, found = CLASSES[i], block_runs(block, CLASSES[i])
        ours = [r["moments"][0] for r in found]
        std = [r["moments"][1] for r in found]
        if found:
            deviation[block, k] = np.mean(ours) / mean - 1
        count = lambda rule, cut=None, found=found: [count_outliers(r["top"], rule, cut) for r in found]
        heuristic = span(count("threshold", cutoffs[i])) if cutoffs[i] else ""
        lines.append([
            " ".join(map(str, block)), k, f"{mean:.2e}", f"{np.mean(ours):.2e}" if found else "not run",
            f"{deviation[block, k]:+.0%}" if found else "", f"{np.mean(std):.1e}" if found else "",
            f"{gaps[i]} / {span(count('gap'))}", f"{ratios[i]} / {span(count('ratio'))}",
            f"{heuristics[i]} / {heuristic}" if cutoffs[i] else "N/A",
        ])  # fmt: skip
head = ["row", "k", "mean, paper", "mean, ours", "off by", "true std", "gap: paper / ours", "ratio: paper / ours"]
figures.table([*head, "cutoff: paper / ours"], lines)
