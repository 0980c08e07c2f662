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
# ```{margin} Notation
# $k$ clusters, as many classes; $N$ examples; eigenvalues $\lambda_1 \ge \lambda_2 \ge \dots$ by rank. Outliers are counted by a rule:
# the largest gap, the largest ratio, or a cutoff. {doc}`All symbols <../book/notation>`.
# ```
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
# tolerance, and what 'covariance 10' scales: we read it as clusters with a standard deviation of 10. We take $N = 1000$ and find the others from the mean eigenvalues that the
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
tolerance: float = 1e-3  # stop at this norm of the (batch) gradient
seed: int = 0  # of the clusters and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %%
from hesslib.book.parameters import choice, integer, integers, real, resolve

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
from hesslib import EmpiricalRisk, count_outliers, spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.explore import explore
from hesslib.book.provenance import made_here
from hesslib.book.store import Store
from hesslib.experiments.data import blobs
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import accuracy, train

# %% [markdown]
# ## Train and look
#
# Three rules count the outliers among $\lambda_1 \ge \lambda_2 \ge \dots$. The *gap* rule takes the $i$ that maximises $\lambda_i - \lambda_{i+1}$, the *ratio*
# rule the one that maximises $\lambda_i / \lambda_{i+1}$, and the *elbow* rule the place where the curve of the logarithms by rank is furthest from the
# straight line between its ends.


# %%
def trained(*, classes, activation, batch_size, tolerance, seed, **clusters):
    """Train one network by the recipe; returns the risk at the end, its history, the data."""
    data = blobs(classes=classes, dimension=100, seed=seed, **clusters)
    sizes = [100, 30, 30, classes]
    model = fully_connected(sizes, activation=activation, scale=0.1, seed=seed)
    options = {"step_size": 0.1, "iterations": 40_000, "batch_size": batch_size}
    options |= {"gradient_tolerance": tolerance, "progress": False}
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
        "end": [
            history.iterations[-1],
            history.losses[-1],
            history.gradient_norms[-1],
        ],
        "accuracy": accuracy(risk.model, data.test_inputs, data.test_targets),
    }


# %%
names = ("activation", "cluster_std", "batch_size", "tolerance", "examples", "seed")
setting = {name: getattr(p, name) for name in names}
here = {k: clusters(classes=k, **setting) for k in p.classes}
for k, r in here.items():
    rules = ("gap", "ratio", "elbow")
    counts = ", ".join(f"{rule} {count_outliers(r['top'], rule)}" for rule in rules)
    print(f"k = {k:>2}: {r['end'][0]:>6,.0f} iterations", end=", ")
    print(f"mean eigenvalue {r['moments'][0]:.2e}; outliers by {counts}")

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


# %%
def row_setting(block, k, seed):
    """The setting of one row of Table 1."""
    batch_size, tolerance, std = RECIPE[block]
    row = {"classes": k, "activation": block[1], "cluster_std": std, "seed": seed}
    return row | {
        "batch_size": batch_size,
        "tolerance": tolerance,
        "examples": 1000,
    }


# %%
table_rows = [(b, k) for b, v in paper_table.items() for k in CLASSES[: len(v[0])]]
grid = [row_setting(b, k, seed) for b, k in table_rows for seed in range(p.seeds)]
run = p.scale == "paper"
runs = Store().sweep("clusters", clusters, grid, run=run, jobs=2)
print(runs.label)


def block_runs(block, k):
    """The stored runs of one row."""
    row = row_setting(block, k, 0)
    row.pop("seed")
    return runs.where(**row).results


# %% [markdown]
# ### Figure 2


# %% tags=["remove-output", "hide-input"]
def draw(ax, groups):
    """Leading eigenvalues of each k in descending order, median and range."""
    for color, (k, results) in zip(figures.SERIES, groups.items()):
        top = np.array([r["top"][:70] for r in results]).clip(1e-7)
        rank = np.arange(1, top.shape[1] + 1)
        ax.plot(
            rank,
            np.median(top, 0),
            ".-",
            ms=3,
            lw=0.8,
            color=color,
            label=f"k = {k}",
        )
        # short of the legend
        ax.axvline(k + 0.5, 0.45, color=color, lw=0.8, ls=":")
        if len(top) > 1:
            ax.fill_between(
                rank, top.min(0), top.max(0), color=color, alpha=0.15, lw=0
            )
    ax.legend(loc="lower left")
    ax.set_ylim(bottom=1e-5)


labels = {
    "xlabel": "rank from the largest",
    "ylabel": "eigenvalue",
    "yscale": "log",
    "xscale": "log",
}
quick_panel = figures.panel(f"here, seed {p.seed}", **labels)
draw(quick_panel, {k: [r] for k, r in here.items()})
stored_panel = figures.panel(f"stored, SGD, ReLU, {p.seeds} seeds", **labels)
sgd = {k: block_runs(("SGD", "relu", 1), k) for k in CLASSES}
draw(stored_panel, {k: found for k, found in sgd.items() if found})
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
# Leading eigenvalues for $k$ clusters (the paper's Figure 2). Dotted: after rank $k$. Right, median and range over seeds. {glue:text}`label`.
# ```
#
# **Reading.** There is a drop at rank $k$ or just before it: between the ranks $k-2$ and $k+2$ the median curve falls most after rank
# {glue:text}`dropped`, for $k = 2, 5, 10, 20, 50$. The axis shows ratios. In differences it is another matter: for few clusters that drop is the largest in
# differences too, for many it competes with the step from the first eigenvalue to the second. So what a rule counts depends on which
# drop it looks for. (The curve for $k = 2$ has another sharp drop, far out. Below we look at such a drop for tanh: there it counts units, not
# clusters.)

# %% tags=["remove-cell"]
dropped = []
for k, results in sgd.items():
    curve = np.median([r["top"] for r in results], 0) if results else np.ones(120)
    near = np.arange(max(1, k - 2), k + 3)
    dropped.append(str(near[np.argmax(curve[near - 1] / curve[near])]))
figures.number(dropped=", ".join(dropped) if runs else "not run")

# %% [markdown]
# ### Table 1, row by row
#
# Rows are named by algorithm (GD takes all examples in a step, SGD a batch), activation and covariance. Our values are means or medians over seeds, with the
# range in brackets. Counts by the **gap** rule, the **ratio** rule, and the paper's **cutoff**, whose value it gives for each row but those with tanh
# (N/A). The paper's gap and ratio counts are converted: less one, and less two. Why is said below the table. A range as wide as
# [1, 49] means that two drops are about equally large and the seed decides which one wins: such a row counts nothing reliably,
# and agreement with it is worth little.


# %% tags=["hide-input"]
def span(values):
    """Median with range."""
    if not len(values):
        return "not run"
    low, mid, high = min(values), np.median(values), max(values)
    return f"{mid:g}" if low == high else f"{mid:g} [{low:g}, {high:g}]"


lines, deviation, factors, inside = [], {}, [], {"gap": [], "ratio": []}
for block, (means, gaps, ratios, heuristics, cutoffs) in paper_table.items():
    for i, mean in enumerate(means):
        found = block_runs(block, CLASSES[i])
        ours = np.mean([r["moments"][0] for r in found]) if found else np.nan
        std = np.mean([r["moments"][1] for r in found]) if found else np.nan
        cells = [
            " ".join(map(str, block)),
            CLASSES[i],
            f"{mean:.2e}",
            f"{ours:.2e}",
            f"{ours / mean - 1:+.0%}",
            f"{std:.1e}",
        ]
        if found:
            deviation[block, CLASSES[i]] = ours / mean - 1
            factors.append(std / ours)
        for rule, theirs in (("gap", gaps[i] - 1), ("ratio", ratios[i] - 2)):
            counts = [count_outliers(r["top"], rule) for r in found]
            cells.append(f"{theirs} / {span(counts)}")
            inside[rule] += [min(counts) <= theirs <= max(counts)] if counts else []
        counts = [
            count_outliers(r["top"], "threshold", cutoffs[i])
            for r in found
            if cutoffs[i]
        ]
        lines.append(
            [*cells, f"{heuristics[i]} / {span(counts)}" if cutoffs[i] else "N/A"]
        )
head = [
    "row",
    "k",
    "mean, paper",
    "mean, ours",
    "off by",
    "true std",
    "gap: paper / ours",
    "ratio: paper / ours",
]
figures.table(
    [*head, "cutoff: paper / ours"], lines if deviation else [["not run"] * 9]
)

# %% tags=["remove-cell"]
clean = [(b, k) for b, k in deviation if b[0] == "GD"]
worst = lambda keys: (
    100 * max((abs(deviation[key]) for key in keys), default=float("nan"))
)
figures.number(
    label=runs.label,
    worst_gd=worst(clean),
    worst_sgd=worst(
        [key for key in deviation if key[0][0] == "SGD" and key[0][2] == 1]
    ),
    worst_wide=worst([key for key in deviation if key[0][2] == 10]),
    factor_low=min(factors, default=0.0),
    factor_high=max(factors, default=0.0),
    inside_gap=sum(inside["gap"]),
    inside_ratio=sum(inside["ratio"]),
    number_of_rows=len(inside["gap"]),
)

# %% [markdown]
# **Reading.** The means of the gradient descent rows are recovered to {glue:text}`worst_gd:.0f` % at worst, those of stochastic gradient
# descent with covariance 1 to {glue:text}`worst_sgd:.0f` %. With covariance 10 the distance reaches {glue:text}`worst_wide:.0f` %: no
# single tolerance and batch size gives all five rows, and the paper itself cuts its row for $k = 50$ at another
# threshold than the other four.
#
# Three oddities of the paper's table are worth knowing.
#
# * Its column of standard deviations repeats the means. The true ones are {glue:text}`factor_low:.0f` to
#   {glue:text}`factor_high:.0f` times the mean, as they must be for a spectrum of a few outliers.
# * Its gap counts are never below 2 and its ratio counts never below 3. Where the drop is clear, they exceed the number of
#   eigenvalues above it by exactly one and two, so they are positions counted from another origin. Read that way, the paper's gap
#   count lies within the range of our seeds in {glue:text}`inside_gap` of {glue:text}`number_of_rows` rows, its ratio count in
#   {glue:text}`inside_ratio`.
# * By the gap rule the step from the first eigenvalue to the second often wins, in the paper's rows as in ours: the rule
#   then finds one outlier.

# %% [markdown]
# ### How sharply the means pin the recipe down
#
# The mean eigenvalue is the trace over $M$, and the trace shrinks as the examples are fitted: it is nearly proportional to the
# tolerance. So the table's means determine the tolerance well.


# %%
def sensitivity(block, k, tolerance, batch_size, seed):
    """Mean eigenvalue of one row under another tolerance and batch size."""
    row = row_setting(tuple(block), k, seed) | {
        "tolerance": tolerance,
        "batch_size": batch_size,
    }
    risk, history, _ = trained(**row)
    trace = float(risk.hessian().to_dense(progress=False).trace())
    return {
        "mean": trace / risk.num_parameters,
        "iterations": history.iterations[-1],
    }


# %%
tried = [(("GD", "relu", 1), 0, t) for t in (5e-4, 1e-3, 2e-3)]
tried += [
    (("SGD", "relu", 1), b, t) for b in (20, 50, 100) for t in (5e-4, 1e-3, 2e-3)
]
tried += [
    (("SGD", "relu", 10), b, t) for b in (50, 100) for t in (1e-3, 2e-3, 3e-3, 5e-3)
]
wide = [
    {"block": list(b), "k": k, "tolerance": t, "batch_size": size, "seed": seed}
    for b, size, t in tried for k in (2, 10, 50) for seed in range(min(2, p.seeds))
]  # fmt: skip
scan = Store().sweep("recipe", sensitivity, wide, run=run, jobs=2)
print(scan.label)

# %% tags=["hide-input"]
lines = []
for block, size, tolerance in tried:
    cells = []
    for k in (2, 10, 50):
        part = scan.where(
            block=list(block), batch_size=size, tolerance=tolerance, k=k
        )
        reference = paper_table[block][0][CLASSES.index(k)]
        cells.append(
            f"{part.values('mean').mean() / reference:.2f}"
            if len(part)
            else "not run"
        )
    lines.append(
        [" ".join(map(str, block)), size or "all", f"{tolerance:g}", *cells]
    )
figures.table(["row", "batch", "tolerance", "k = 2", "k = 10", "k = 50"], lines)

# %% [markdown]
# **Reading.** The table shows our mean divided by the paper's; 1 is a hit. The mean goes like the tolerance to the power
# {glue:text}`power:.2f`, so the table pins the tolerance down well: the one that would hit the paper's mean exactly, by
# interpolation, is for $k = 2, 10, 50$ with gradient descent {glue:text}`hit_gd`, with batches of 50 and covariance 1
# {glue:text}`hit_sgd`, and in batches of 100 and covariance 10 {glue:text}`hit_wide`. The two with covariance 1 agree on $10^{-3}$, for which the
# batch size is pinned down by $k = 50$ only. For covariance 10 we take batches of 100 and a tolerance of $3 \cdot 10^{-3}$; batches of 50 would do as
# well, as the table shows. There the rows do not agree with each other: no single tolerance among those tried makes
# them, and a row that is off by a quarter is off by as much in its tolerance. Either the authors stopped these
# runs by another rule, or (as their cutoff suggests) the row for $k = 50$ was trained on longer.


# %% tags=["remove-cell"]
def hit(block, size):
    """The tolerance at which the mean is the paper's, for k = 2, 10, 50; and the power of the dependence."""
    found, powers = [], []
    for k in (2, 10, 50):
        part = scan.where(block=list(block), batch_size=size, k=k)
        if not len(part):
            return "not run", float("nan")
        x = np.log([q["tolerance"] for q in part.parameters])
        y = np.log(part.values("mean") / paper_table[block][0][CLASSES.index(k)])
        power, offset = np.polyfit(x, y, 1)
        found.append(f"{np.exp(-offset / power):.1e}")
        powers.append(power)
    return ", ".join(found), float(np.mean(powers))


hits_gd, power = hit(("GD", "relu", 1), 0)
figures.number(power=power, hit_gd=hits_gd, hit_sgd=hit(("SGD", "relu", 1), 50)[0])
figures.number(hit_wide=hit(("SGD", "relu", 10), 100)[0])

# %% [markdown]
# ## Is it k, or k - 1?
#
# How far apart the clusters lie is left to chance by the recipe, and more clusters lie closer. So the same count again with all
# centres at the same distance from each other, in units of the clusters' standard deviation: how many eigenvalues does each
# rule count?

# %%
separations = [4.0, 8.0, 16.0, 32.0]
apart = [
    {"classes": k, "activation": a, "cluster_std": 1.0, "batch_size": 0, "tolerance": 1e-3, "seed": seed,
     "examples": 1000, "separation": s}
    for a in ("relu", "tanh") for k in (2, 5, 10) for s in separations for seed in range(p.seeds)
]  # fmt: skip
separated = Store().sweep("separation", clusters, apart, run=run, jobs=2)
print(separated.label)

# %% tags=["hide-input"]
lines = []
for a in ("relu", "tanh"):
    for k in (2, 5, 10):
        for s in separations:
            part = separated.where(activation=a, classes=k, separation=s).results
            cells = []
            for rule in ("gap", "ratio", "elbow"):
                found = [count_outliers(r["top"], rule) for r in part]
                hits = f"{span(found)}; k: {found.count(k)}, k - 1: {found.count(k - 1)} of {len(found)}"
                cells.append(hits if found else "not run")
            lines.append([a, k, f"{s:g}", *cells])
figures.table(["activation", "k", "distance", "gap", "ratio", "elbow"], lines)

# %% [markdown]
# Each cell: median count with range, and in how many runs it was exactly $k$ and exactly $k - 1$. The elbow rule
# nearly always counts more than either: it finds where the whole tail bends, not where the outliers end.


# %% tags=["remove-cell"]
def hits(activation, rule, offset, distances=(16.0, 32.0)):
    """Share in per cent of well separated runs in which a rule counts k + offset."""
    found = [
        count_outliers(r["top"], rule) == q["classes"] + offset
        for q, r in zip(separated.parameters, separated.results, strict=True)
        if q["activation"] == activation and q["separation"] in distances
    ]
    return 100 * np.mean(found) if found else float("nan")


def far_apart(k):
    """Of the ReLU runs at the two largest distances: how many count k by the ratio rule."""
    part = separated.where(activation="relu", classes=k)
    found = [
        count_outliers(r["top"], "ratio") == k
        for q, r in zip(part.parameters, part.results, strict=True)
        if q["separation"] >= 16
    ]
    return f"{sum(found)} of {len(found)}"


many = [
    (k, count_outliers(r["top"], "ratio"))
    for b, k in table_rows
    if b[1] == "relu" and k >= 20
    for r in block_runs(b, k)
]
figures.number(
    far_2=far_apart(2), far_5=far_apart(5), far_10=far_apart(10),
    many_k=sum(n == k for k, n in many), many_k1=sum(n == k - 1 for k, n in many), many_of=len(many),
)  # fmt: skip
figures.number(
    separated_label=separated.label,
    relu_k=hits("relu", "ratio", 0), relu_k1=hits("relu", "ratio", -1),
    tanh_k=hits("tanh", "ratio", 0), tanh_k1=hits("tanh", "ratio", -1),
    gap_k=hits("relu", "gap", 0), gap_k1=hits("relu", "gap", -1),
    near_k=hits("relu", "ratio", 0, (4.0,)), near_k1=hits("relu", "ratio", -1, (4.0,)),
)  # fmt: skip

# %% [markdown]
# **Reading.** For clusters at least 16 standard deviations apart the ratio rule counts $k$ in {glue:text}`relu_k:.0f` % and $k-1$ in
# {glue:text}`relu_k1:.0f` % of the ReLU networks, for tanh in {glue:text}`tanh_k:.0f` % and {glue:text}`tanh_k1:.0f` %. By the gap rule it is
# {glue:text}`gap_k:.0f` % and {glue:text}`gap_k1:.0f` %. At a distance of 4 the ratio rule finds, for ReLU, $k$ in {glue:text}`near_k:.0f` % and
# $k-1$ in {glue:text}`near_k1:.0f` %. The remaining runs gave other counts. ({glue:text}`separated_label`.)
#
# So it is both. Clusters that are near give $k-1$ outliers, also at 8 standard deviations where they do not touch any more: the network's outputs are only determined up to a common
# constant, so that $k$ classes span $k-1$ directions. Clusters far apart give $k$: examples of one class then share one
# gradient of their own, whatever the others do. How far is far enough depends on $k$: at the two largest distances the ratio rule counts
# $k$ for ReLU in {glue:text}`far_2` runs with two clusters, in {glue:text}`far_5` with five, in {glue:text}`far_10` with ten; and of
# the {glue:text}`many_of` ReLU runs of Table 1 with 20 or 50 clusters, whose distances are left to chance, {glue:text}`many_k` count $k$ and
# {glue:text}`many_k1` count $k-1$. So 'exactly the number of classes' holds for ReLU, the ratio rule, and few clusters well apart; the more
# clusters, the further apart they must be.
#
# With tanh the first eigenvalue is by far the largest, and after it the curve falls off with no drop at $k$: the counts scatter, as they do in the
# paper's rows. Yet with two clusters at distance 32 there is a sharp drop, far out, after rank {glue:text}`far_drop` in the stored runs.
# What does it count?
#
# ### A drop that counts units
#
# Two clusters, tanh, and other numbers of hidden units. Where is the largest ratio of neighbours past the first eigenvalue, in $H$
# and in its second term $R$ (see {ref}`ggn`)?


# %%
def drop(operator):
    """The rank before the largest ratio of neighbours, past the first eigenvalue."""
    values = spectrum(operator, progress=False).eigenvalues[::-1]
    return 1 + count_outliers(values[1:100], "ratio")


# %%
units = {"smoke": [[4]]}.get(p.scale, [[15], [10, 10], [10, 20]])
drops = []
for hidden in units:
    two = {"classes": 2, "separation": 32.0, "examples": p.examples}
    data = blobs(dimension=100, cluster_std=1.0, seed=p.seed, **two)
    model = fully_connected(
        [100, *hidden, 2], activation="tanh", scale=0.1, seed=p.seed
    )
    stop = {"iterations": 40_000, "gradient_tolerance": 1e-3, "progress": False}
    train(model, data.inputs, data.targets, step_size=0.1, **stop)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    drops.append([sum(hidden), drop(risk.residual()), drop(risk.hessian())])
    print(f"hidden layers {hidden}: after {drops[-1][1]} in R, {drops[-1][2]} in H")

# %% tags=["remove-cell"]
tail = separated.where(activation="tanh", classes=2, separation=32.0).results
tail = [1 + count_outliers(r["top"][1:], "ratio") for r in tail]
figures.number(
    far_drop=span(tail),
    drop_r=sum(r == n for n, r, _ in drops),
    drop_h=sum(h == n + 2 for n, _, h in drops),
    drop_of=len(drops),
)

# %% [markdown]
# **Reading.** In {glue:text}`drop_r` of {glue:text}`drop_of` networks the drop of $R$ comes after as many eigenvalues as there are hidden units, and in
# {glue:text}`drop_h` that of $H$ two later: the units' eigenvalues and two outliers from $G$. With 60 hidden units that makes 62. This
# drop does not count classes. It comes from the second term, which has one large positive eigenvalue for each unit here; in {ref}`size` the
# same term has up to $C-1$ negative ones for each unit. A rule that looks for the largest drop cannot know which of the two it has found.

# %%
def complete(**setting):
    """Every eigenvalue of H and of G, the leading ones of R, and the end of training."""
    risk, history, data = trained(**setting)
    every = lambda operator: spectrum(operator, progress=False).eigenvalues
    leading = top_eigenpairs(risk.residual(), 100, progress=False).eigenvalues
    found = {"H": every(risk.hessian()), "G": every(risk.ggn()), "R": leading}
    right = accuracy(risk.model, data.test_inputs, data.test_targets)
    end = [history.iterations[-1], history.losses[-1], history.gradient_norms[-1]]
    return {n: v.astype(np.float32) for n, v in found.items()} | {
        "end": end,
        "accuracy": right,
    }


# %%
each = [
    {"classes": k, "separation": s, "seed": seed, "activation": "relu", "cluster_std": 1.0,
     "batch_size": 0, "tolerance": 1e-3, "examples": 1000}
    for seed in (1, 2, 3) for k in CLASSES for s in (32.0, 4.0)
]  # fmt: skip
whole = Store().sweep("bulk", complete, each, run=run, jobs=2)
print(whole.label)

# %% [markdown]
# ### Clusters of your own
#
# The same question on a small network, 20 inputs and two hidden layers of 30 units, trained on 200 points for 3,000 iterations or until the
# gradient's norm is 0.002. In Jupyter it is trained anew whenever a slider is released, which takes a second or two.

# %%
from functools import cache

CURVE = 24  # eigenvalues shown


@cache
def small_clusters(k, distance, seed):
    """Eigenvalues of a small network trained on k clusters at a distance."""
    points = {"examples": 200, "classes": k, "dimension": 20}
    data = blobs(**points, separation=float(distance), seed=seed)
    model = fully_connected([20, 30, 30, k], scale=0.1, seed=seed)
    options = {"step_size": 0.1, "iterations": 3000, "gradient_tolerance": 2e-3}
    train(model, data.inputs, data.targets, progress=False, **options)
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    values = spectrum(risk.hessian(), progress=False).eigenvalues[::-1]
    return values, accuracy(model, data.test_inputs, data.test_targets)


# %% tags=["remove-output", "hide-input"]
def clusters_moved(k, distance, seed=p.seed):
    """Leading eigenvalues by rank, and what two rules count."""
    values, right = small_clusters(k, distance, seed)
    ax = figures.panel(
        "", "rank from the largest", "share of the largest", yscale="log"
    )
    ranks = np.arange(1, CURVE + 1)
    ax.plot(
        ranks, values[:CURVE] / values[0], ".-", color=figures.COLORS["H"], lw=0.8
    )
    ax.axvline(k + 0.5, color=figures.COLORS["theory"], lw=1, ls=":")
    ax.set(xlim=(0.5, CURVE + 0.5), ylim=(2e-3, 1.3))
    gap, ratio = (count_outliers(values[:CURVE], rule) for rule in ("gap", "ratio"))
    sentence = f"{k} clusters at a distance of {distance:g}: the gap rule counts {gap}, the ratio rule {ratio}; "
    sentence += f"the network classifies {right:.0%} of new points correctly."
    return sentence, ax


numbers_of_clusters = [2, 3, 5, 8, 12] if p.scale != "smoke" else [2, 3]
distances = [2, 4, 8, 16, 32] if p.scale != "smoke" else [4, 16]
explore(
    clusters_moved,
    {"k": numbers_of_clusters, "distance": distances},
    name="fig_explore_clusters",
    alt="Leading eigenvalues by rank on a logarithmic axis, as shares of the largest, with a dotted line after rank k.",
    start={"k": numbers_of_clusters[1], "distance": distances[1]},
    live={
        "k": range(2, 17),
        "distance": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64],
        "seed": range(p.seed, p.seed + 10),
    },
    labels={
        "k": "clusters k",
        "distance": "distance of the centres (in standard deviations)",
    },
)

# %% [markdown]
# ```{glue:figure} fig_explore_clusters
# :name: fig-explore-clusters
# Leading eigenvalues of a small network for any number of clusters and any distance between their centres. Dotted: after rank $k$.
# ```
#
# **Reading.** Move the distance with the number of clusters fixed. Where the clusters overlap the drop, if there is one, is at rank $k - 1$; as they part, one
# forms at rank $k$. At the two largest distances the ratio rule counts $k$ in {glue:text}`moved_k` of {glue:text}`moved_of` frames, and the gap
# rule, for which the step after the first eigenvalue is often larger, in {glue:text}`moved_gap`. At the two smallest distances it is $k-1$ in
# {glue:text}`moved_k1` of {glue:text}`moved_of` frames by the ratio rule; with two clusters, though, one is also what the rule answers where there is no drop. One seed proves nothing; the table above counts over several.


# %% tags=["remove-cell"]
def counted(rule, offset, at):
    """In how many frames a rule counts k + offset."""
    found = [
        (k, small_clusters(k, d, p.seed)[0])
        for k in numbers_of_clusters
        for d in at
    ]
    return sum(count_outliers(v[:CURVE], rule) == k + offset for k, v in found)


far, near = distances[-2:], distances[:2]
figures.number(
    moved_k=counted("ratio", 0, far), moved_gap=counted("gap", 0, far), moved_k1=counted("ratio", -1, near),
    moved_of=len(far) * len(numbers_of_clusters),
)  # fmt: skip

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
risk, history, _ = trained(classes=p.classes[0], **setting)
s = spectrum(risk.hessian(), progress=False)
worst_certificate = max(s.certificates.values())
print(
    "certificates below 1e-10:",
    "pass" if worst_certificate < 1e-10 else f"FAIL ({worst_certificate:.1e})",
)
same = np.allclose(s.eigenvalues[::-1][:120], here[p.classes[0]]["top"], rtol=1e-9)
print("the same setting gives the same spectrum:", "pass" if same else "FAIL")
within = all(abs(deviation[key]) < 0.15 for key in clean) and len(clean) == 9
stated = p.scale != "quick" or within
print(
    "gradient descent rows within 15 % of the paper's means:",
    "pass" if stated else "FAIL",
)

# %% [markdown]
# ## Limits
#
# * $N = 1000$, the seeds and the split of the points are ours; the recipe is inferred from the released code and from the means.
# * With mini-batches training stops at the first batch whose gradient is small, which can be a lucky one; the full gradient's norm is
#   kept with each stored run beside it.
#
# ## Try it
#
# ::::{admonition} Exercise: clusters that touch
# :class: tip
# Predict what happens to the drop at rank $k$ if the clusters overlap, then run with `-p cluster_std 30.0` and compare {numref}`fig-gap`.
#
# :::{dropdown} Answer
# The drop at rank $k$ goes: clusters that are near leave a smaller one at rank $k - 1$, as the slider above shows for small distances.
# :::
# ::::
#
# ## Provenance

# %% tags=["hide-input"]
print(made_here())
print(f"scale {p.scale}, seed {p.seed}")
