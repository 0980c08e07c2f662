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
# # One basin or two
#
# > **The paper's claims.** Train with a large batch, then go on with a small one from where that ended. The loss jumps at the
# > switch. Later the small batch reaches a slightly better test accuracy, as if it had left for another basin. Yet the
# > straight line between the two ends has no barrier, so both lie in one basin. The jump is noise in the directions of
# > the large eigenvalues. ([Sagun et al. 2017](../book/references.md), Section 4.1, Figures 8 and 9)
#
# The paper trains a bare AlexNet (no momentum, no dropout, no normalisation) on all of CIFAR-10: Part I with batches of
# 1,000, Part II with batches of 32, at the same constant step. That run takes hours, and its record is kept with this book.
# This page runs it at small size, on **MNIST digits instead of CIFAR-10** with a narrower network of the same form. $t$ is the position on the line $(1-t)\,w_\mathrm{I} + t\,w_\mathrm{II}$ between the ends of Part I and Part II
# ([notation](../book/notation.md)).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
dataset: str = ""  # digits or cifar10; empty: by scale
width: int = 0  # filters of the first convolution; 0: by scale
large_batch: int = 0  # examples in a batch of Part I; 0: by scale
small_batch: int = 0  # examples in a batch of Part II; 0: by scale
step_size: float = 0.0  # constant step of both parts; 0: by scale
iterations: int = 0  # steps of each part; 0: by scale
every: int = 0  # steps between two records; 0: by scale
precision: str = ""  # of products in training: float32 or bfloat16; empty: by scale
seed: int = 0  # of the digits, the random start and the order of the batches

# %% tags=["hide-input"]
# fmt: off
# isort: off
from hesslib.book.parameters import ParameterError, choice, integer, real, resolve
from hesslib.book.text import Estimate, check, foot, learnt, say, this_run, written

p = resolve(
    globals(),
    dataset=choice("digits", "cifar10", smoke="digits", quick="digits", paper="cifar10"),
    width=integer(1, smoke=2, quick=8, paper=64),
    large_batch=integer(1, smoke=100, quick=250, paper=1000),
    small_batch=integer(1, smoke=20, quick=20, paper=32),
    step_size=real(1e-6, 100, smoke=0.05, quick=0.05, paper=0.01),
    iterations=integer(1, smoke=10, quick=1000, paper=25000),
    every=integer(1, smoke=5, quick=50, paper=100),
    precision=choice("float32", "bfloat16", smoke="float32", quick="float32", paper="bfloat16"),
    seed=integer(0),
)
if not p.small_batch < p.large_batch:
    given = f"small_batch = {p.small_batch}, large_batch = {p.large_batch}"
    raise ParameterError(f"{given}: give the smaller first")
if p.dataset == "digits" and p.large_batch > 1000:
    raise ParameterError(f"large_batch = {p.large_batch}: give at most 1000 digits")
this_run(p)

# %% tags=["hide-input"]
from functools import cache

import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers, ggn_spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.paths import ROOT
from hesslib.book.store import Store
from hesslib.experiments import basins
from hesslib.experiments.basins import ends, images, line, local, measure, run_part, stage
from hesslib.experiments.data import mnist
from hesslib.experiments.landscape import barrier, loss_and_accuracy, on_plane, pass_between
from hesslib.experiments.models import MixedPrecision, alexnet
from hesslib.experiments.training import DivergenceError
from scipy.stats import spearmanr
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

# %% [markdown]
# ## Part I and Part II
#
# The first 5,000 training images stand for the training loss on the way, and all test images for the test loss. Part II is
# recorded more often just after the switch.

# %%
def two_parts(**setting):
    """Part I with large batches, Part II from its end with small ones."""
    data, found = images(setting["dataset"], setting["seed"]), {"diverged": -1}
    model = alexnet(setting["width"], seed=setting["seed"])
    model = model.to(data.inputs.device)
    half = setting["precision"] == "bfloat16"
    trained = MixedPrecision(model) if half else model
    for part in (1, 2):
        options = options_for(setting, part, measure(model, data))
        found |= run_part(trained, model, data, part, options)
    found["seconds"] = found["seconds_1"] + found["seconds_2"]
    return found

# %%
def options_for(setting, part, measure):
    """What train is told about a part."""
    iterations, soon = setting["iterations"], [1, 2, 5, 10, 20, 50]
    options = {"iterations": iterations, "measure": measure, "seed": setting["seed"]}
    options |= {"record": {*range(0, iterations, setting["every"])}}
    options["record"] |= {*(soon if part == 2 else [])}
    options |= {"step_size": setting["step"]}
    options["batch_size"] = setting["large" if part == 1 else "small"]
    if setting["dataset"] == "cifar10":
        options["checkpoint"] = checkpoint(setting, part)
    return options

# %% tags=["end"]
def checkpoint(setting, part):
    """The file that keeps the state of one part of a run of hours."""
    text = "-".join(str(setting[k]) for k in sorted(setting))
    return ROOT / "_build" / "checkpoints" / f"basins-{text}-part{part}.npz"

def kept(what, setting):
    """The file that keeps the state of a stage of hours; none for digits."""
    text = "-".join(str(setting[k]) for k in sorted(setting))
    file = ROOT / "_build" / "checkpoints" / f"basins-{what}-{text}.npz"
    return file if setting["dataset"] == "cifar10" else None

# %%
setting = {"dataset": p.dataset, "width": p.width, "step": p.step_size}
setting |= {"large": p.large_batch, "small": p.small_batch, "every": p.every}
setting |= {"iterations": p.iterations, "precision": p.precision, "seed": p.seed}
cifar = {"dataset": "cifar10", "width": 64, "large": 1000, "small": 32}
cifar |= {"iterations": 25000, "every": 100, "precision": "bfloat16"}
do = p.scale == "paper"
asked = setting if do else {**cifar, "step": 0.01, "seed": 0}
run = Store().sweep("basins", two_parts, [asked], run=do)
paper = run.results[0] if run else None

# %%
lost = "step_size = {}: Part {} diverged; give less".format
try:
    here = paper if do else two_parts(**setting)
except DivergenceError as error:
    raise ParameterError(lost(p.step_size, "I")) from error
if here["diverged"] >= 0:
    raise ParameterError(lost(p.step_size, "II"))
here = {k: np.asarray(v) for k, v in here.items()}
titles = {"here_title": f"this run, {p.dataset}", "stored_title": "CIFAR-10, stored"}
COLOR = {"train": figures.SERIES[0], "test": figures.SERIES[1]}

# %% tags=["end"]
def four_panels(x, curves, marks, here, stored):
    """Loss above, accuracy below; this run beside the stored one, dotted marks."""
    panels = []
    for what, scale in (("loss", "log"), ("accuracy", "linear")):

        def draw(ax, result, what=what):
            for data, color in COLOR.items():
                ax.plot(*curves(result, f"{data}_{what}"), color=color, label=data)
            for mark in marks(result):
                ax.axvline(mark, color=figures.INK, lw=0.8, ls=":", label="_mark")
            ax.legend()

        labels = {"xlabel": x, "ylabel": what, "yscale": scale, **titles}
        panels += figures.here_and_stored(draw, here, stored, **labels)
    return panels

# %% tags=["hide-input"]
switch = lambda r: [r["iterations_1"][-1]]
panels = four_panels("iteration", basins.together, switch, here, paper)
figures.figure(
    "fig_parts", *panels,
    caption="Large batches, then small ones (the paper's Figure 8), with the loss on a logarithmic axis. The dotted line is the switch.",
    alt="Four panels: loss above, accuracy below; left this run, right the stored run on CIFAR-10; each with a curve for "
    "training and one for test data and a dotted line at the switch of batch size.",
)

# %% tags=["hide-input"]
mine, theirs = basins.ends_of(here), basins.ends_of(paper)
level = "a higher loss than" if (theirs["ratio"] or 2) > 1.25 else "about the same loss as"
say(
    """**Reading.** On CIFAR-10 the training loss jumps to {highest:.2f} within the first records after the switch, {jump:.0f} times its last value in Part I. This is
    one run, without a control that goes on with the large batch.

    Over the last 50 records of each part the mean test accuracy is {test_1:.2f} % in Part I and {test_2:.2f} % in Part II, a difference of {gain:+.2f} points.
    Between records of Part II it varies by {scatter_2:.2f} points, so the last record alone ({last_1:.2f} % and {last_2:.2f} %) decides nothing. The mean training
    loss of Part II is {ratio:.2f} times that of Part I: Part II ends at {level} Part I.""",
    level=level, **{k: v for k, v in theirs.items() if k not in ("loss_1", "loss_2", "scatter_1")},
)
fitted = "has learnt" if learnt(mine["loss_1"], 10) else "has not learnt"
say(
    """On this run Part I {fitted}: its last records have a mean loss of {loss_1:.3g}. After the switch the loss reaches {highest:.3g}, and Part II ends at
    {loss_2:.3g}, with a change of the test accuracy of {gain:+.1f} points.""",
    fitted=fitted, **{k: mine[k] for k in ("loss_1", "highest", "loss_2", "gain")},
)

# %% [markdown]
# ### How large may the step be?
#
# The paper keeps one constant step for both parts and does not say which. We repeat the run with a step of 0.1, and then Part II alone from the same
# point, in float32, in five orders of the batches and with a smaller step.

# %%
def continued(step_2, order, iterations_2, **setting):
    """Part II from the end of a stored Part I, with another step or order."""
    data = images(setting["dataset"], setting["seed"])
    model = alexnet(setting["width"], seed=0).to(data.inputs.device)
    weights = Store().load("basins", setting)[0]["weights_1"]
    vector_to_parameters(torch.as_tensor(weights).to(data.inputs), model.parameters())
    options = {"step_size": step_2, "batch_size": setting["small"], "seed": order}
    options |= {"iterations": iterations_2, "measure": measure(model, data)}
    options["record"] = range(0, iterations_2, 500)
    found = {"diverged": -1} | run_part(model, model, data, 2, options)
    return {k: v for k, v in found.items() if k != "weights_2"}

# %%
large_step = {**cifar, "step": 0.1, "seed": 0}
big = Store().sweep("basins", two_parts, [large_step], run=do)
again = [(0.1, order) for order in range(5)] + [(0.025, 0)]
more = [{"step_2": s, "order": o, "iterations_2": 5000} for s, o in again]
orders = [{**large_step, **one} for one in more]
tried = Store().sweep("basins_steps", continued, orders, run=do)
thrown = lambda step: [int(r["diverged"]) for r in tried.where(step_2=step).results]

# %% tags=["hide-input"]
lost = thrown(0.1) if tried else []
where = ", ".join(f"{e:,}" for e in lost if e >= 0)
say(
    """With a step of 0.1 Part I reaches a training loss of {end:.2g}. From its end, Part II diverges at iteration {diverged:,}.

    In float32 it diverges in {count} of {orders} orders within 5,000 iterations (at {where}); with a step of 0.025 it does {small} in the {smalls} tried. A step that
    is stable for large batches can be unstable for small ones. The main run therefore has a step of 0.01.""",
    end=big.results[0]["train_loss_1"][-1] if big else None, diverged=int(big.results[0]["diverged"]) if big else None,
    count=sum(e >= 0 for e in lost) if tried else None, orders=len(lost), where=where,
    small="so" if max(thrown(0.025), default=-1) >= 0 else "not", smalls="one" if len(thrown(0.025)) == 1 else len(thrown(0.025)) or None,
)

# %% [markdown]
# ### What the switch does, and what time does
#
# The run above cannot separate the switch from mere time. Part I is therefore to be continued in three arms of 25,000 steps each: batches of 32, as in the
# paper; batches of 1,000, the control; and batches of 32 with a step so small that step over batch size is that of Part I. The bounds were
# [registered](../book/claims.md) before any of these runs was made.

# %%
def large_batches(**setting):
    """Part I: large batches from a random start."""
    file = kept("large", setting)
    options = {"order": setting["seed"], "average": 50, "checkpoint": file}
    return stage(None, **options, **setting)

def arm(arm_step, arm_batch, **setting):
    """As many steps more from the end of Part I, with another step or batch."""
    start = Store().run("basins_large", large_batches, setting)[0]["weights"]
    there = {**setting, "step": arm_step, "batch": arm_batch}
    options = {"order": 1000 + setting["seed"], "average": 50}
    options["checkpoint"] = kept(f"arm-{arm_step}-{arm_batch}", setting)
    return stage(start, **options, **there)

# %%
first = {k: cifar[k] for k in ("dataset", "width", "iterations", "every")}
first |= {"batch": 1000, "precision": "bfloat16"}
part_one = [{**first, "step": 0.01, "seed": seed} for seed in range(4)]
part_one += [{**first, "step": step, "seed": 0} for step in (0.005, 0.025)]
switched = lambda s: [(s, 32), (s, 1000), (round(s * 32 / 1000, 8), 32)]
arms = [
    {**one, "arm_step": step, "arm_batch": batch}
    for one in part_one for step, batch in switched(one["step"])
]
long = do and asked == {**cifar, "step": 0.01, "seed": 0}
# one seed to its end, then the next: an arm computes the Part I it starts from
arm_runs = Store().sweep("basins_arms", arm, arms, run=long)
large_runs = Store().sweep("basins_large", large_batches, part_one, run=long)

# %% [markdown]
# ### Where the jump goes
#
# The paper's explanation is that the point fluctuates along the leading eigenvectors. To test it, `first_steps` follows the displacement $d$ from the switch.
# It compares the rise of the loss with $g \cdot d_\parallel + \frac12 d_\parallel \cdot H d_\parallel$, where $d_\parallel$ is the part of $d$ in the
# leading eigenvectors at the switch, and with the rise at $d - d_\parallel$ alone. Here it starts at the end of this page's Part I.

# %%
steps, count = (3, 2) if p.scale == "smoke" else (20, 10)
same = {"dataset": p.dataset, "width": p.width, "step": p.step_size, "seed": p.seed}
same |= {"batch": p.small_batch, "order": p.seed, "examples": 300}
moved = basins.first_steps(here["weights_1"], steps=steps, leading=count, **same)
rises = {"whole displacement": "rise", "quadratic form, leading part": "quadratic"}
rises |= {"without the leading part": "rest"}

# %% tags=["hide-input"]
ax = figures.panel("", "steps after the switch", "rise of the training loss")
for (label, key), color in zip(rises.items(), figures.SERIES):
    ax.plot(moved["iterations"], moved[key], ".-", color=color, label=label)
ax.set_yscale("symlog", linthresh=0.01)
ax.legend()
figures.figure(
    "fig_first", ax, caption="The first steps after the switch on this run: the rise of the loss, what the quadratic form in "
    "the leading eigenvectors gives for it, and the rise at the displacement without its part in them.",
    alt="Three curves against the number of steps after the switch: the rise of the training loss, the value of the quadratic form "
    "in the leading eigenvectors, and the rise without the leading part of the displacement.",
)
share = float(np.median(moved["quadratic"][1:] / moved["rise"][1:]))
say(
    """**Reading.** On this run, the quadratic form in the {leading} leading eigenvectors gives {share:.2g} times the rise of the loss (median over {steps} steps). One
    run decides nothing; the question is registered for CIFAR-10.""",
    leading=count, share=share, steps=steps,
)

# %% [markdown]
# ## The straight line
#
# We evaluate the whole training and test set on the line from one length before the end of Part I ($t=-1$) to one length beyond
# the end of Part II ($t=2$). The *barrier* is how far the training loss rises between the ends above the higher of the two.

# %%
def stored_line(positions, **setting):
    """The line between the ends of a stored run."""
    return line(setting, Store().load("basins", setting)[0], positions)

# %%
positions = [round(t, 2) for t in np.linspace(-1, 2, 31)]
line_here = line(setting, here, positions[:: 5 if p.scale == "smoke" else 1])
line_grid = [{**asked, "positions": positions}]
line_run = Store().sweep("basins_line", stored_line, line_grid, run=do)
line_paper = line_run.results[0] if line_run else None

# %% tags=["hide-input"]
def wall(n):
    """What the line shows, in words."""
    if not n["barrier"]:
        return "the loss nowhere between them is higher than at the higher end: no barrier"
    return f"the barrier is {written(n['barrier'])}: the highest loss between them is {n['times']:.3g} times that of the higher end"

on_line = lambda r, key: (r["positions"], r[key])
panels = four_panels("position t", on_line, lambda r: (0, 1), line_here, line_paper)
numbers, mine = basins.line_numbers(line_paper), basins.line_numbers(line_here)
figures.figure(
    "fig_line", *panels,
    caption="Loss and accuracy on the line through the ends of Part I ($t=0$) and Part II ($t=1$) (the paper's Figure 9).",
    alt="Four panels: loss above on a logarithmic axis, accuracy below, against position on the line; left this run, right "
    "the stored run on CIFAR-10. Dotted lines mark the end of Part I at 0 and of Part II at 1.",
)
say(
    """**Reading.** On CIFAR-10 the ends have losses of {start:.4f} and {end:.4f} over all training images, and {wall}. This is one run, between two single iterates.""",
    wall=wall(numbers), start=numbers["start"], end=numbers["end"],
)
say(
    """On this run the ends have losses of {start:.3g} and {end:.3g}, and {wall}.""",
    wall=wall(mine), start=mine["start"], end=mine["end"],
)

# %% [markdown]
# ### The plane through both parts
#
# The line is one way among many. The random start and the two ends span a plane, on which a way around a barrier may exist. The loss is that of 300 training
# images of this page's run.

# %%
data, model, end_1, end_2 = ends(setting, here)
begin = parameters_to_vector(alexnet(p.width, seed=p.seed).parameters()).detach()
few, side = (data.inputs[:300], data.targets[:300]), 5 if p.scale == "smoke" else 15
loss_here = lambda network: loss_and_accuracy(network, *few)[0]
try:
    plane = on_plane(model, [begin.to(end_1), end_1, end_2], loss_here, side)
except ValueError as error:  # no plane
    slow = f"step_size = {p.step_size:g}: the weights hardly move in these iterations"
    raise ParameterError(f"{slow}; give more") from error
over = pass_between(plane, 1, 2)

# %% tags=["hide-input"]
ax = figures.panel("", "distance towards the end of Part I", "distance across")
figures.contours(ax, *(plane[k] for k in ("x", "y", "values")))
for (a, b), name in zip(plane["points"], ("start", "end of Part I", "end of Part II")):
    ax.plot([a], [b], "o", ms=6, color=figures.COLORS["theory"], label=name)
    ax.annotate(name, (a, b), (5, 6), textcoords="offset points", fontsize=9)
ax.set_aspect("equal")
at = [float(plane["values"][np.argmin(abs(plane["y"] - b)), np.argmin(abs(plane["x"] - a))]) for a, b in plane["points"]]
lengths = np.linalg.norm(np.diff(plane["points"], axis=0), axis=1)
figures.figure(
    "fig_plane", ax,
    caption="The training loss of this run on the plane through the random start and the ends of both parts; distances are lengths in weight space.",
    alt=f"Contours of the loss on a plane with three points: the start, at a loss of {at[0]:.2g}, and the ends of Part I and Part II, at {at[1]:.2g} and {at[2]:.2g}.",
)
higher = max(at[1:])
say(
    """**Reading.** Part I moved the weights by {first:.3g}, Part II by {second:.3g} more. On this plane one gets from the one end to the other without a loss above {over:.3g}, where the
    higher end has {higher:.3g}. {word}.""",
    first=lengths[0], second=lengths[1], over=over, higher=higher,
    word="At least one end has not learnt, so this says nothing about basins" if not learnt(higher, 10) else
    "Seen on this plane, both ends lie in one valley" if over <= 1.25 * higher else "Seen on this plane, a ridge parts the ends",
)

# %% [markdown]
# ### Over seeds and steps
#
# The stored runs (batches of 500 and 20, 1,200 steps) have five seeds at each of three steps. Part I fits the digits (a loss of at most a hundredth of that of a guess, 0.023) only at a step of
# 0.05. At 0.02 and 0.03 the line to Part II goes downhill, and such a line has no barrier by definition, so the claims are judged at 0.05.

# %%
def weighed(**setting):
    """Jump after the switch, what Part II gains, and the barrier, for one run."""
    result = {k: np.asarray(v) for k, v in two_parts(**setting).items()}
    walk = line(setting, result, positions)
    loss, after = walk["train_loss"], result["train_loss_2"]
    found = {"end_1": result["train_loss_1"][-1], "end_2": after[-1]}
    found |= {"highest": after[1:].max(), "beyond_1": loss[5], "beyond_2": loss[25]}
    right = [result[f"test_accuracy_{part}"][-1] for part in (1, 2)]
    return found | {"gain": right[1] - right[0], "barrier": barrier(positions, loss)}

# %%
digits = {"dataset": "digits", "width": 8, "large": 500, "small": 20}
digits |= {"iterations": 1200, "every": 25, "precision": "float32"}
steps_run = (0.02, 0.03, 0.05)
several = [{**digits, "step": s, "seed": i} for s in steps_run for i in range(5)]
seeds_run = Store().sweep("basins_digits", weighed, several, run=do, jobs=2)

def over_seeds(step, key, factor=1):
    """A quantity of the stored runs at a step, one number a seed."""
    part = seeds_run.where(step=step)
    values = factor * part.values(key) if part else []
    return Estimate(values, of="basins_digits")

# %%
rows = []
for step in steps_run if seeds_run else ():
    e = {k: over_seeds(step, k) for k in ("end_1", "highest", "end_2", "barrier")}
    losses = [f"{e[k].low:.3g} to {e[k].high:.3g}" for k in e]
    gain = over_seeds(step, "gain", 100)
    rows.append([step, *losses, f"{gain:.1f}"])
head = ["step", "end of Part I", "highest after", "end of Part II", "barrier"]
figures.table([*head, "test accuracy, points"], rows or [["not run", *[""] * 5]])

# %% tags=["hide-input"]
barriers, gains = over_seeds(0.05, "barrier"), over_seeds(0.05, "gain", 100)
rise = Estimate(over_seeds(0.05, "end_2").values / over_seeds(0.05, "end_1").values)
above = int((barriers.values > 0.023).sum())
say(
    """**Reading.** At the step of 0.05, where Part I has fitted the digits, {above} of {seeds} stored runs have a barrier above 0.023. The barriers are
    {low:.2f} to {high:.2f}, where a guess has a loss of 2.30. The test accuracy changes by {gain:.1f} points.

    So the paper's conclusion, one basin, {carries} to digits. On CIFAR-10 the one stored run shows {wall}, and its Part II ends at {ratio:.1f} times the training
    loss of Part I, against {least:.2g} to {most:.2g} times on digits. The two data sets differ in size, network width, number of steps and noise; these runs do not tell which of these
    decides.

    Runs in float32 are chaotic: after thousands of steps another processor gives other numbers for the same seed. Single runs, that of this page included, may
    therefore differ from the stored ones; shares over seeds are what can be compared.""",
    seeds=len(barriers), above=above, low=barriers.low, high=barriers.high, gain=gains, ratio=theirs["ratio"], least=rise.low, most=rise.high,
    carries="does not carry over" if above > len(barriers) / 2 else "carries over",
    wall="no barrier" if (numbers["times"] or 2) <= 1.25 else "a barrier",
)

# %% [markdown]
# ## Curvature at the ends and in between
#
# We compute the largest eigenvalues of the Hessian by Lanczos iteration at five places on the line. The paper explains the jump by the noise of a small batch,
# which is its gradient minus that of the whole set. So we also measure how much of this noise lies in the span of the leading eigenvectors.

# %%
@cache
def leading(t, k, examples):
    """The k largest eigenvalues at position t of this page's line, over some images."""
    risk = EmpiricalRisk(model, data.inputs[:examples], data.targets[:examples])
    there = risk.at((1 - t) * end_1 + t * end_2).hessian()
    return top_eigenpairs(there, k, tolerance=1e-2, progress=False).eigenvalues

# %%
def stored_local(t, k, examples, **setting):
    """Curvature on the line between the ends of a stored run."""
    return local(setting, Store().load("basins", setting)[0], t, k, examples)

# %%
places, k, some = [0.0, 0.25, 0.5, 0.75, 1.0], 10, 50 if p.scale == "smoke" else 100
near_here = [{"eigenvalues": leading(t, k, some)} for t in places]
grid = [{**asked, "t": t, "k": k, "examples": 2000} for t in places]
near_runs = Store().sweep("basins_curvature", stored_local, grid, run=do)
more = [{**asked, "t": t, "k": k, "examples": 10000} for t in (0.0, 1.0)]
more += [{**asked, "t": t, "k": 1, "examples": 50000} for t in places]
more_runs = Store().sweep("basins_curvature", stored_local, more, run=do)

# %% tags=["hide-input"]
def draw_local(ax, found):
    """The largest eigenvalues at each place."""
    values = np.array([r["eigenvalues"] for r in found])
    for i, series in enumerate(values.T.clip(1e-6)):
        label = "_one" if i else f"{k} largest"
        ax.plot(places, series, "o-", color=figures.COLORS["H"], label=label)
    ax.set_yscale("log")

near = near_runs.results if len(near_runs) == len(places) else None
panels = figures.here_and_stored(draw_local, near_here, near, xlabel="position t", ylabel="eigenvalue", **titles)
whole = [r["eigenvalues"][0] for r in more_runs.where(examples=50000).results]
if len(whole) == len(places):
    panels[1].plot(places, whole, "s--", color=figures.COLORS["theory"], label="largest, all images")
figures.figure(
    "fig_local", *panels,
    caption=f"The ten largest eigenvalues of the Hessian on the line, on this run over {some} training images, on CIFAR-10 over 2,000. Dashed: the largest over all 50,000.",
    alt="Two panels, left this run, right the stored run on CIFAR-10: the ten largest eigenvalues on a logarithmic axis at "
    "five positions from the end of Part I at 0 to the end of Part II at 1.",
)

# %% tags=["hide-input"]
held = [100 * np.mean(r["noise_share"]) for r in more_runs.where(examples=10000).results]
both = held if len(held) == 2 else [None, None]
top = whole if len(whole) == len(places) else [None] * len(places)
say(
    """**Reading.** On CIFAR-10, over all training images, the largest eigenvalue is {first:.3g} at the end of Part I and {last:.3g} at the end of Part II. The ten
    leading eigenvectors hold {held_1:.0f} % of the noise of a batch of 32 at the one end and {held_2:.0f} % at the other (10,000 images). If the noise had the shape
    of the Hessian, their share would be that of the ten eigenvalues in the trace; this comparison is [registered](../book/claims.md) for the runs with a control
    arm.""",
    first=top[0], last=top[-1], held_1=both[0], held_2=both[1],
)

# %% [markdown]
# ### Every eigenvalue of G
#
# $G$, the part of $H$ that is left when the examples are fitted ([Chapter 2](02_ggn.ipynb)), has rank at most $N(C-1)$. All of its 2,472,266 eigenvalues over
# the first 1,000 training images therefore follow from a matrix of order 9,000. We compute them at both ends of the stored run.

# %%
def end_spectrum(part, examples, **setting):
    """Every eigenvalue of G at an end of a stored run that is not zero by its rank."""
    data, model, *both = ends(setting, Store().load("basins", setting)[0])
    x, y = data.inputs[:examples].cpu().double(), data.targets[:examples].cpu()
    risk = EmpiricalRisk(model.cpu().double(), x, y).at(both[part - 1].cpu())
    s, rank = ggn_spectrum(risk.ggn()), examples * (data.classes - 1)
    found = {"parameters": len(s.eigenvalues), "loss": risk.loss()}
    found |= {"eigenvalues": s.eigenvalues[-rank:], "seconds": s.seconds}
    return found | {f"error_{k}": v for k, v in s.certificates.items()}

# %%
both_ends = [{**asked, "part": part, "examples": 1000} for part in (1, 2)]
spectra = Store().sweep("basins_spectra", end_spectrum, both_ends, run=do)
counts = [count_outliers(r["eigenvalues"], "ratio") for r in spectra.results]
beyond = lambda v: int((v > 1e-12 * v[-1]).sum())
there = [beyond(r["eigenvalues"]) for r in spectra.results]
zeros = [int(r["parameters"]) - n for r, n in zip(spectra.results, there)]

# %% tags=["hide-input"]
if spectra:
    ax = figures.panel("every eigenvalue of G")
    for r, q in zip(spectra.results, spectra.parameters):
        figures.ranked(ax, r["eigenvalues"], figures.SERIES[q["part"] + 1], f"end of Part {'I' * q['part']}")
    ax.legend()
    figures.figure(
        "fig_complete", ax, caption="All eigenvalues of $G$ that are not zero by its rank, at both ends of the stored run on CIFAR-10, against rank.",
        alt="Magnitudes of the eigenvalues of G against rank from the largest, both axes logarithmic, at the ends of Part I and Part II "
        "of the stored run on CIFAR-10.",
    )
one = lambda values, i: values[i] if len(spectra) == 2 else Estimate(of="basins_spectra")
say(
    """**Reading.** By the ratio rule {outliers_1} eigenvalues of $G$ are outliers at the end of Part I and {outliers_2} at the end of Part II, where ten classes would
    give 9. Of {M:,} eigenvalues {zeros_1:,} and {zeros_2:,} are zero (below $10^{-12}$ of the largest); the rank alone makes {least:,} of them zero.""",
    outliers_1=one(counts, 0), outliers_2=one(counts, 1), zeros_1=one(zeros, 0), zeros_2=one(zeros, 1),
    M=one([int(r["parameters"]) for r in spectra.results], 0),
    least=one([int(r["parameters"]) - 9000 for r in spectra.results], 0),
)

# %% [markdown]
# ### Walk the line
#
# Choose a position on the line. In Jupyter the five largest eigenvalues are computed where the slider is released, on the first 50 training images.

# %% tags=["hide-input"]
def walked(t):
    """The line with a mark at t, and the largest eigenvalues there."""
    one = {"xlabel": "position t", "ylabel": "training loss", "xlim": (-1.05, 2.05)}
    two = {"xlabel": "rank from the largest", "ylabel": "eigenvalue", "ylim": LIMITS}
    left, right = (figures.panel("", **axes, yscale="log") for axes in (one, two))
    loss, values = np.asarray(line_here["train_loss"]), leading(t, 5, WALK)
    now = np.exp(np.interp(t, line_here["positions"], np.log(loss)))
    left.plot(line_here["positions"], loss, color=COLOR["train"])
    left.plot([t], [now], "o", ms=8, color=figures.COLORS["theory"])
    shown = np.where(values < LIMITS[0], np.nan, values)  # below the axis: not drawn
    right.plot(range(1, 6), shown, ".-", color=figures.COLORS["H"])
    sentence = f"At t = {t:.2f} the training loss is {now:.3g}; the largest eigenvalue, on {WALK} images, is {values[0]:.3g}."
    return sentence, left, right

WALK, sizes = 50, (3, 5) if p.scale == "smoke" else (7, 61)
stops, fine = ([round(float(t), 2) for t in np.linspace(-1, 2, n)] for n in sizes)
tops = [max(leading(t, 5, WALK)[0], 1e-6) for t in stops]
LIMITS = min(tops) / 100, 2 * max(tops)

# %% tags=["hide-input"]
explore(
    walked, {"t": stops}, name="fig_explore_line", start={"t": stops[len(stops) // 3]}, live={"t": fine}, labels={"t": "position t"},
    alt="Left, training loss on the line with a mark at the position chosen; right, the five largest eigenvalues there.",
    caption="Loss over all training images and leading eigenvalues over 50 of them, on the line of this page's run. Eigenvalues below the axis are not drawn.",
)
losses = np.exp(np.interp(stops, line_here["positions"], np.log(line_here["train_loss"])))
correlation = float(spearmanr(losses, tops).statistic)
say(
    """**Reading.** On this run the loss is lowest at $t$ = {low:g} of the positions shown, and the largest eigenvalue at $t$ = {flat:g}. Over all of them their ranks
    correlate with {correlation:.2f}, where 1 is the same order. {word}.""",
    low=stops[int(np.argmin(losses))], flat=stops[int(np.argmin(tops))],
    correlation=correlation, word=f"Higher loss {'goes' if correlation > 0.5 else 'does not go'} with higher curvature here",
)

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
end = line_here["positions"].index(1.0)
drift = abs(line_here["test_accuracy"][end] - here["test_accuracy_2"][-1])
check("half precision changes the test accuracy at the end by less than 0.002", drift, below=0.002)
small = mnist(10, seed=0)
net = alexnet(1, seed=0, dtype=torch.float64)
x = F.pad(small.inputs.view(-1, 1, 28, 28), [2, 2, 2, 2]).repeat(1, 3, 1, 1)
risk = EmpiricalRisk(net, x, small.targets)
matrix = risk.hessian() @ torch.eye(risk.num_parameters).double()
exact = np.linalg.eigvalsh(matrix.numpy())[-1]
lanczos = top_eigenpairs(risk.hessian(), 1).eigenvalues[0]
check("Lanczos against all eigenvalues of a small network", abs(lanczos / exact - 1), below=1e-8)
errors = [float(r[name]) for r in spectra.results for name in r if name.startswith("error_")]
if errors:
    check("certificates of the complete spectra", max(errors), below=1e-6)

# %% [markdown]
# ## Limits
#
# * CIFAR-10 is one run at one seed, as in the paper. Runs at four seeds with a control arm are registered and take about eleven hours a seed on a
#   processor like this; they have not been made.
# * The paper names neither its step nor its variant of AlexNet. We take the common one for 32 x 32 images (2,472,266 parameters)
#   and a step of 0.01. No augmentation; each colour channel is standardised.
# * Training on CIFAR-10 multiplies in bfloat16 and sums in float32; the line and the leading eigenvalues are in float32, the complete spectra
#   of $G$ (over 1,000 images) in float64. The stored ends are rounded to half precision.
# * Two networks trained apart may show a barrier only because their units stand in another order. Part I and Part II need no matching,
#   because the second starts where the first ends; the [last chapter](10_after.ipynb) has networks that do.
#
# ## Try it
#
# **Exercise: a smaller step.** Run with `-p step_size 0.02`. Part I ends at a higher loss. What becomes of the barrier, and why does that say little?
#
# <details><summary>Answer</summary>
#
# With a step of 0.02 Part I is unfinished after 1,000 steps, and the loss falls along the line to the end of Part II. A line that falls
# all the way has no barrier by definition. Two solutions can be compared only where both ends are fitted.
#
# </details>
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("06_basins")

# %% [markdown]
# ## Provenance

# %% tags=["hide-input"]
foot(p, run, line_run, near_runs, more_runs, seeds_run, big, tried, large_runs, arm_runs, spectra)
