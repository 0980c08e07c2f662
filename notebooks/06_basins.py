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
# > **The paper's claims.** Train with a large batch, then go on with a small one from where that ended. The loss jumps at the switch. Later the small batch reaches a slightly
# > better test accuracy, as if it had left for another basin. Yet the straight line between the two ends has no barrier, so both lie in one basin. The jump is noise in the
# > directions of the large eigenvalues. ([Sagun et al. 2017](../book/references.md), Section 4.1, Figures 8 and 9)
#
# The paper trains a bare AlexNet (no momentum, no dropout, no normalisation) on all of CIFAR-10: Part I with batches of 1,000, Part II with batches of 32, at the same constant step. One run of that takes
# hours, and what was run is kept with this book. It has an arm that the paper lacks: a **control**, which goes on from the end of Part I with batches of 1,000. Without it nobody can tell the switch from
# mere time. The page itself runs the same at small size, on **MNIST digits instead of CIFAR-10**, with a narrower network of the same form. $t$ is the position on the line
# $(1-t)\,w_\mathrm{I} + t\,w_\mathrm{II}$ between two ends ([notation](../book/notation.md)).

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
    large_batch=integer(1, smoke=100, quick=256, paper=1000),
    small_batch=integer(1, smoke=20, quick=20, paper=32),
    step_size=real(1e-6, 100, smoke=0.05, quick=0.09, paper=0.01),
    iterations=integer(1, smoke=10, quick=600, paper=25000),
    every=integer(1, smoke=5, quick=40, paper=100),
    precision=choice("float32", "bfloat16", smoke="float32", quick="float32", paper="bfloat16"),
    seed=integer(0),
)
if not p.small_batch < p.large_batch:
    raise ParameterError(f"small_batch = {p.small_batch}, large_batch = {p.large_batch}: give the smaller first")
if p.dataset == "digits" and p.large_batch > 1000:
    raise ParameterError(f"large_batch = {p.large_batch}: give at most 1000 digits")
this_run(p)

# %% tags=["hide-input"]
from functools import cache, partial

import numpy as np
import torch
from hesslib import EmpiricalRisk, count_outliers, ggn_spectrum, top_eigenpairs
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.paths import ROOT
from hesslib.book.store import Store
from hesslib.experiments import basins
from hesslib.experiments.basins import images, on_line, risk_over, stage, tail
from hesslib.experiments.landscape import loss_and_accuracy, on_plane, pass_between, rise_factor
from hesslib.experiments.models import alexnet
from torch.nn.utils import parameters_to_vector

# %% [markdown]
# ## Part I, the switch, and a control
#
# Each stage takes the same number of steps. The small batches and the control start at the end of Part I and see the examples in the same random order. Losses are over the first 5,000 training images
# (or all, if there are fewer) and all test images, recorded every 100 steps on CIFAR-10 and `every` so many on this page; each time is one *record*. On CIFAR-10 a third arm has batches of 32 and a step so small that step over batch size is
# that of Part I: if the jump is noise, it should be smaller there. Four seeds are planned; what is said of CIFAR-10 is of those that are stored, and their number stands with it.

# %%
def three_stages(step, large, small, **setting):
    """Part I with large batches; from its end two arms, small ones and large again."""
    seed, records = setting["seed"], setting["iterations"] // setting["every"]
    run = partial(stage, step=step, average=max(1, records // 5), **setting)
    found = {"large": run(None, batch=large, order=seed)}
    for name, batch in (("small", small), ("control", large)):
        if found["large"]["diverged"] < 0:
            found[name] = run(found["large"]["weights"], batch=batch, order=1000 + seed)
    return found

# %% tags=["end"]
def kept(what, setting):
    """The file that keeps the state of a stage of hours; none for digits."""
    text = "-".join(str(setting[k]) for k in sorted(setting))
    file = ROOT / "_build" / "checkpoints" / f"basins-{what}-{text}.npz"
    return file if setting["dataset"] == "cifar10" else None

def only(setting, *names):
    """Some of the parameters."""
    return {k: setting[k] for k in names}

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
first = {"dataset": "cifar10", "width": 64, "iterations": 25000, "every": 100}
first |= {"batch": 1000, "precision": "bfloat16"}
part_one = [{**first, "step": 0.01, "seed": seed} for seed in range(4)]
part_one += [{**first, "step": step, "seed": 0} for step in (0.005, 0.025)]
few = lambda s: (round(s * 32 / 1000, 8), 32)  # step over batch size as in Part I
arms_at = lambda s: {"small": (s, 32), "control": (s, 1000), "scaled": few(s)}
arms = [
    {**one, "arm_step": step, "arm_batch": batch}
    for one in part_one for step, batch in arms_at(one["step"]).values()
]
# one seed to its end, then the next: an arm computes the Part I it starts from
run = p.scale == "paper"
arm_runs = Store().sweep("basins_arms", arm, arms, run=run)
large_runs = Store().sweep("basins_large", large_batches, part_one, run=run)

# %%
def stages_of(**one):
    """The stored stages of one Part I, by name."""
    found = {"large": large_runs.where(**one)}
    for name, (step, batch) in arms_at(one["step"]).items():
        found[name] = arm_runs.where(**one, arm_step=step, arm_batch=batch)
    return {name: runs.results[0] for name, runs in found.items() if runs}

stored = [stages_of(step=0.01, seed=seed) for seed in range(4)]
whole = [found for found in stored if "small" in found]

# %%
setting = {"dataset": p.dataset, "width": p.width, "iterations": p.iterations}
setting |= {"every": p.every, "precision": p.precision, "seed": p.seed}
here = run and stages_of(step=p.step_size, **setting)  # one of those above?
here = here or three_stages(p.step_size, p.large_batch, p.small_batch, **setting)
if max(r["diverged"] for r in here.values()) >= 0:
    raise ParameterError(f"step_size = {p.step_size}: training diverged; give less")

# %% tags=["end"]
titles = {"here_title": f"this run, {p.dataset}", "stored_title": "CIFAR-10, stored"}
NAMES = {"large": "Part I", "small": "small batches", "control": "control"}
NAMES |= {"scaled": "small batches, small step"}
COLOR = dict(zip(NAMES, [figures.GREYS[0], *figures.SERIES]))

def timed(runs):
    """Each stage's name, label, iterations from the start of Part I, and records."""
    for i, found in enumerate(runs):
        for name, r in found.items():
            before = 0 if name == "large" else found["large"]["iterations"][-1]
            yield name, f"_{name}" if i else NAMES[name], before + r["iterations"], r

# %% tags=["end"]
def draw_losses(ax, runs):
    """Training (solid) and test loss (dashed) of every stage."""
    for name, label, time, r in timed(runs):
        ax.plot(time, r["train_loss"], color=COLOR[name], lw=1, label=label)
        style = {"color": COLOR[name], "lw": 1, "label": f"_{label}, test"}
        ax.plot(time, r["test_loss"], "--", **style)
    switch = runs[0]["large"]["iterations"][-1]
    ax.axvline(switch, color=figures.INK, lw=0.8, ls=":", label="_switch")
    ax.legend(loc="lower left", fontsize=7)

def draw_accuracy(ax, runs):
    """Means of the test accuracy over ten records, over a quarter of a short run."""
    for name, label, time, r in timed(runs):
        size = min(10, max(1, len(time) // 4))
        means = np.convolve(100 * r["test_accuracy"], np.ones(size) / size, "valid")
        ax.plot(time[size - 1 :], means, color=COLOR[name], label=label)

# %% tags=["hide-input"]
figures.figure(
    "fig_parts", *figures.here_and_stored(draw_losses, [here], whole, xlabel="iteration", ylabel="loss", yscale="log", **titles),
    *figures.here_and_stored(draw_accuracy, [here], whole, xlabel="iteration", ylabel="test accuracy, %, running mean", **titles),
    caption="Large batches, then small ones (the paper's Figure 8), and a control that goes on with large ones. First, the loss on training (solid) and test data (dashed) of this run and the stored ones; the dotted line is the switch. Then the test accuracy, means over ten records (over a quarter of them in a short run).",
    alt="Four panels: loss above on a logarithmic axis, running means of the test accuracy below; left this run, right the stored runs on CIFAR-10; a curve for Part I and, after the switch, one for each arm.",
)

# %% tags=["hide-input"]
mine, count = basins.ends_of(here), len(whole)
numbers = [basins.ends_of(found) for found in whole]  # means over the last records
over = lambda key: Estimate([one.get(key) for one in numbers], of="basins_arms")
form = {"loss": ".2g", "test": ".2f", "scatter": ".2f"}
rows = [[NAMES[k], *(written(over(f"{k}_{what}"), spec) for what, spec in form.items())] for k in NAMES if over(f"{k}_loss")]
figures.table(["CIFAR-10, last 50 records", "training loss", "test accuracy, %", "its deviation between records"], rows or [["not run", "", "", ""]])
say(
    """**Reading.** On CIFAR-10 ({count} of 4 planned seeds stored with small batches, {controls} with the control) the last records of Part I have a mean training loss of {before:.2g}. The first record after the switch, 100 steps later, is {highest:.2f}, and in between
    the loss is higher still, as the next section shows. The highest of 20 records of the control is {calm:.2g} times the mean of Part I, so {word}.

    Over the last 50 records the test accuracy of the small batches is {gain:+.2f} points from that of the control, and {since:+.2f} points from that of Part I, where records of the small batches scatter by {scatter:.2f}. The paper has
    about one point more than the end of Part I. The training loss of the small arm ends at {level:.2g} times that of Part I and the control at {time:.2g} times.""",
    count=count or None, controls=len(over("gain")), before=over("large_loss"), highest=Estimate([r["small"]["train_loss"][1] for r in whole], of="basins_arms"), calm=over("control_jump"),
    word="time alone makes no jump" if over("control_jump").mean < 2 else "time alone makes a jump too", gain=over("gain"), since=over("since"), scatter=over("small_scatter"), level=over("level"), time=Estimate([one["control_loss"] / one["large_loss"] for one in numbers if "gain" in one], of="basins_arms"),
)
say(
    """On this run Part I {fitted}: its last records have a mean loss of {large_loss:.3g}. Of the first records after the switch (at most 20) the highest is {small_highest:.3g}. The small batches end at {small_loss:.3g} and the control at
    {control_loss:.3g}; their test accuracies are {small_test:.1f} % and {control_test:.1f} %, after {large_test:.1f} % in Part I.""",
    fitted="has learnt" if learnt(mine["large_loss"], 10) else "has not learnt", **{k: mine[k] for k in ("large_loss", "small_highest", "small_loss", "control_loss", "small_test", "control_test", "large_test")},
)

# %% [markdown]
# ## Where the jump goes
#
# The paper's explanation is that the point fluctuates along the leading eigenvectors. To test it, `first_steps` follows the displacement $d$ from the switch. It compares the rise of the loss with
# $g \cdot d_\parallel + \frac12 d_\parallel \cdot H d_\parallel$, where $d_\parallel$ is the part of $d$ in the leading eigenvectors at the switch, and with the rise at $d - d_\parallel$ alone.

# %%
def early(**setting):
    """The first steps of the three arms from the end of a stored Part I."""
    own = only(setting, "arms", "steps", "leading", "examples")
    one = {k: v for k, v in setting.items() if k not in own}
    start = Store().run("basins_large", large_batches, one)[0]["weights"]
    where = only(setting, "dataset", "width", "seed")
    return basins.first_steps(start, order=1000 + one["seed"], **own, **where)

# %%
followed = {"steps": 200, "leading": 50, "examples": 5000}
followed["arms"] = [list(one) for one in arms_at(0.01).values()]
grid = [{**one, **followed} for one in part_one[:4]]
early_runs = Store().sweep("basins_early", early, grid, run=run)
same = {"dataset": p.dataset, "width": p.width, "seed": p.seed}
steps, leading = (3, 2) if p.scale == "smoke" else (20, 10)
moved = basins.first_steps(
    here["large"]["weights"], **same, arms=[(p.step_size, p.small_batch)], steps=steps,
    leading=leading, examples=300, order=1000 + p.seed,
)

# %% tags=["end"]
PARTS = {"rise": "whole displacement", "quadratic": "quadratic form, leading part"}
PARTS |= {"rest": "without the leading part"}

def draw_rises(ax, runs):
    """The small arm's first steps, and the rise of the other arms if stored."""
    for i, found in enumerate(runs):
        colors = zip(PARTS, figures.SERIES)
        rows = [(PARTS[k], found[k][0], color, "-") for k, color in colors]
        others = zip(("control", "scaled"), found["rise"][1:])
        rows += [(NAMES[name], row, COLOR[name], ":") for name, row in others]
        for label, row, color, ls in rows:
            label = f"_{label}" if i else label
            ax.plot(found["iterations"], row, ls, color=color, label=label)
    ax.set_yscale("symlog", linthresh=0.01)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.08))

# %% tags=["hide-input"]
def draw_lengths(ax, runs):
    for i, (found, part) in enumerate((found, part) for part in ("along", "across") for found in runs):
        color = figures.SERIES[0 if part == "along" else 2]
        ax.plot(found["iterations"], found[part][0], color=color, label=f"_{i}" if found is not runs[0] else part)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()

figures.figure(
    "fig_first", *figures.here_and_stored(draw_rises, [moved], early_runs.results, xlabel="steps after the switch", ylabel="rise of the training loss", **titles),
    *figures.here_and_stored(draw_lengths, [moved], early_runs.results, xlabel="steps after the switch", ylabel="length of the displacement", **titles),
    caption=f"The first steps after the switch: the rise of the loss with small batches, what the quadratic form in the leading eigenvectors ({leading} on this run, 50 on CIFAR-10) gives for it, and the rise at the displacement without its part in them. Dotted: the whole rise of the other arms. The last two panels: the displacement's length along these eigenvectors and across them.",
    alt="Four panels, left this run, right the stored runs on CIFAR-10, against the number of steps after the switch. Above: the rise of the training loss, the value of the quadratic form in the leading eigenvectors, and the rise without the leading part of the displacement. Below: two lengths.",
)

# %%
def parts_of(found, first=1, last=200):
    """Medians over steps: quadratic form and rest over rise; leading share, in %."""
    names = (*PARTS, "along", "across")
    taken = (found[k][0][first : last + 1] for k in names)
    rise, quadratic, rest, along, across = taken
    share = 100 / (1 + (across / along) ** 2)
    return [np.median(v) for v in (quadratic / rise, rest / rise, share)]

def peak_of(found):
    """The step at which the loss is highest, that loss, and the parts there."""
    at = int(np.argmax(found["rise"][0]))
    return [at, found["loss"] + found["rise"][0][at], *parts_of(found, at, at)]

# %% tags=["hide-input"]
on_early = lambda of: (Estimate(v, of="basins_early") for v in np.array([of(r) for r in early_runs.results]).T) if early_runs else [Estimate(of="basins_early")] * 5
(at, peak, top, rest_top, _), (soon, rest_soon, *_), (quadratic, rest, inside, *_) = map(on_early, (peak_of, partial(parts_of, last=10), parts_of))
say(
    """**Reading.** On CIFAR-10 the loss is {before:.2g} at the switch and highest at step {at:.0f}, with {peak:.0f}. There the quadratic form in the 50 leading eigenvectors gives {top:.2g} times the rise, and the displacement without its
    leading part {rest_top:.2g} of it. Over the first ten steps, most of them before the highest, they give {soon:.2g} and {rest_soon:.2g} times the rise (medians).

    Over 200 steps they give {quadratic:.2g} and {rest:.2g} times the rise. Most of these steps come after the jump, where the network has lost much of what it had learnt (the mean loss over the second hundred steps is {after:.2g}, that of a guess
    2.3). The leading part then holds {inside:.1f} % of the squared length of the displacement, and the Hessian at the switch {word}.""",
    before=Estimate([r["loss"] for r in early_runs.results], of="basins_early"), at=at, peak=peak, top=top, rest_top=rest_top, soon=soon, rest_soon=rest_soon, quadratic=quadratic, rest=rest,
    after=Estimate([r["loss"] + r["rise"][0][101:].mean() for r in early_runs.results], of="basins_early"), inside=inside, word="still describes the loss" if 0.5 <= quadratic.mean <= 2 else "no longer describes the loss",
)
say(
    """On this run the quadratic form in the {leading} leading eigenvectors gives {share:.2g} times the change of the loss (median over {steps} steps); the displacement without its leading part gives {rest:.2g} times that change.""",
    leading=leading, share=parts_of(moved)[0], rest=parts_of(moved)[1], steps=steps,
)

# %% [markdown]
# ## The straight line
#
# We evaluate training and test images on the line from one length before the end of Part I ($t=-1$) to one length beyond the end of the small arm ($t=2$). We give the highest training loss between the
# ends divided by that of the higher end; 1 means that there is no barrier. A single iterate says little, so the same is done between the means of the weights over the last 50 records (here the last fifth, at least one).

# %%
def end_of(name, what, **setting):
    """The last weights of a stored stage (weights) or their mean (weights_mean)."""
    if name == "large":
        return Store().run("basins_large", large_batches, setting)[0][what]
    step, batch = arms_at(setting["step"])[name]
    there = {**setting, "arm_step": step, "arm_batch": batch}
    return Store().run("basins_arms", arm, there)[0][what]

def stored_line(start, end, what, **setting):
    """101 places between two ends, and some beyond them."""
    between = np.linspace(0, 1, 101).round(2)
    places = [-1, -0.75, -0.5, -0.25, *between, 1.25, 1.5, 1.75, 2]
    ends = (end_of(name, what, **setting) for name in (start, end))
    return on_line(*ends, places, **only(setting, "dataset", "width", "seed"))

# %%
pairs = [("large", "small"), ("large", "control"), ("small", "control")]
line_grid = [
    {**one, "start": a, "end": b, "what": w}
    for one in part_one[:4] for a, b in pairs for w in ("weights", "weights_mean")
]
line_runs = Store().sweep("basins_arms_line", stored_line, line_grid, run=run)
positions = np.linspace(-1, 2, 7 if p.scale == "smoke" else 31).round(2).tolist()
lines_here = {
    w: on_line(here["large"][w], here["small"][w], positions, **same)
    for w in ("weights", "weights_mean")
}
line_here = lines_here["weights"]

# %% tags=["end"]
def draw_lines(ax, runs):
    """Training loss from Part I to the small arm, a band over seeds."""
    labels = {"weights": "last weights", "weights_mean": "means of weights"}
    for (what, label), color in zip(labels.items(), figures.SERIES):
        if runs.get(what):
            losses = [r["train_loss"] for r in runs[what]]
            figures.band(ax, runs[what][0]["positions"], losses, color, label)
    ax.legend()

# %% tags=["hide-input"]
on_small = line_runs.where(start="large", end="small")
lines_stored = {what: on_small.where(what=what).results for what in lines_here}
labels = {"xlabel": "position t", "ylabel": "training loss", "yscale": "log", **titles}
figures.figure(
    "fig_line", *figures.here_and_stored(draw_lines, {k: [v] for k, v in lines_here.items()}, lines_stored if on_small else None, **labels),
    caption="Training loss on the line from Part I ($t=0$) to the end of the small arm ($t=1$) (the paper's Figure 9), between the last weights and between means of the last weights.",
    alt="Two panels, left this run, right the stored runs on CIFAR-10: the training loss on a logarithmic axis against position on the line, for single ends and for means of weights.",
)

# %% tags=["hide-input"]
height = lambda r, key="train_loss": rise_factor(r["positions"], r[key])
single, averaged = (Estimate(map(height, r), of="basins_arms_line") for r in lines_stored.values())
times_of = lambda e: "just" if e.high == 1 else f"{e:.3g} times" if e else e
end_at = lambda t, what="weights_mean", key="train_loss", factor=1: Estimate([factor * r[key][r["positions"] == t][0] for r in lines_stored[what]], of="basins_arms_line")
say(
    """**Reading.** On CIFAR-10 ({count} stored {lines}) the highest training loss between the last weights is {single} that of the higher end, and between the means of weights {averaged} that. {word}
    The ends do not lie equally high: between the last weights the loss goes from {loss_0:.2g} to {loss_1:.2g}, between the means from {mean_0:.2g} to {mean_1:.2g}. A line that rises or falls all the way has no barrier by definition, so
    this says less than two ends of one height would. At the means the test accuracy is {test_0:.1f} % for Part I and {test_1:.1f} % for the small batches.""",
    word="No ridge parts the ends." if max(single.high, averaged.high) <= 1.25 else "A ridge parts them in some runs.", count=len(single) or None, lines="line" if len(single) == 1 else "lines", single=times_of(single), averaged=times_of(averaged), loss_0=end_at(0, "weights"), loss_1=end_at(1, "weights"),
    mean_0=end_at(0), mean_1=end_at(1), test_0=end_at(0, key="test_accuracy", factor=100), test_1=end_at(1, key="test_accuracy", factor=100),
)
between = {pair: [line_runs.where(start=pair[0], end=pair[1], what=w).results for w in lines_here] for pair in pairs}
figures.table(["CIFAR-10, highest loss on the line over that of its higher end", "last weights", "means of weights"], [[f"{NAMES[a]} to {NAMES[b]}", *(written(Estimate(map(height, r), of="basins_arms_line"), ".3g") for r in found)] for (a, b), found in between.items()])
say("""Between the means of weights of the two arms, which both started at the end of Part I, the highest loss is {arms} that of the higher end. On all these lines the loss stays at or below {top:.2g}.""", arms=times_of(Estimate(map(height, between[pairs[2]][1]), of="basins_arms_line")), top=max((r["train_loss"][(r["positions"] >= 0) & (r["positions"] <= 1)].max() for r in between[pairs[2]][1]), default=None))
mine_at = {"single": height(line_here), "averaged": height(lines_here["weights_mean"])}
say("""On this run the highest loss between the last weights is {single:.3g} times that of the higher end, and between the means {averaged:.3g} times.""", **mine_at)

# %% [markdown]
# ### The plane through both parts
#
# The line is one way among many. The random start and the two ends span a plane, on which a way around a barrier may exist. The loss is that of 300 training images of this run.

# %%
data, model = images(p.dataset, p.seed), alexnet(p.width, seed=p.seed)
as_here = lambda name: torch.as_tensor(here[name]["weights"]).to(data.inputs)
model, end_1, end_2 = model.to(data.inputs.device), as_here("large"), as_here("small")
corners = [parameters_to_vector(model.parameters()).detach(), end_1, end_2]
some, side = (data.inputs[:300], data.targets[:300]), 5 if p.scale == "smoke" else 15
try:
    plane = on_plane(model, corners, lambda m: loss_and_accuracy(m, *some)[0], side)
except ValueError as error:  # no plane
    slow = f"step_size = {p.step_size:g}: the weights hardly move in these iterations"
    raise ParameterError(f"{slow}; give more") from error
over_pass = pass_between(plane, 1, 2)

# %% tags=["hide-input"]
ax = figures.panel("", "distance towards the end of Part I", "distance across")
figures.contours(ax, *(plane[k] for k in ("x", "y", "values")))
for (a, b), name, mark in zip(plane["points"], ("start", "end of Part I", "end of small batches"), "os^"):
    ax.plot([a], [b], mark, ms=8, ls="", color=figures.COLORS["theory"], mec="white", zorder=9, label=name)
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncol=3)
ax.set_aspect("equal")
at = [float(plane["values"][np.argmin(abs(plane["y"] - b)), np.argmin(abs(plane["x"] - a))]) for a, b in plane["points"]]
figures.figure(
    "fig_plane", ax,
    caption="The training loss of this run on the plane through the random start, the end of Part I and the end of the small arm; distances are lengths in weight space.",
    alt=f"Contours of the loss on a plane with three points: the start, at a loss of {at[0]:.2g}, and the ends of Part I and of the small arm, at {at[1]:.2g} and {at[2]:.2g}.",
)
higher = max(at[1:])
say(
    """**Reading.** Over the {side} by {side} points of this plane one gets from the one end to the other without a loss above {over:.3g}, where the higher end has {higher:.3g}. {word}.""",
    over=over_pass, higher=higher, side=side,
    word=f"Seen on this plane, {'both ends lie in one valley' if over_pass <= 1.25 * higher else 'a ridge parts the ends'}" if learnt(higher, 10) else "At least one end has not learnt, so this says nothing about basins",
)

# %% [markdown]
# ### Over seeds and steps
#
# The stored runs on digits (batches of 500 and 20, 1,200 steps a stage; longer than the run of this page, which is none of them) have five seeds at each of three steps, and the control. A line that
# falls all the way has no barrier by definition, so the claims are judged at the step at which Part I fits the digits (a loss of at most a hundredth of that of a guess, 0.023).

# %%
def weighed(**setting):
    """What the ends have, the jump, and the line to the small arm."""
    where = only(setting, "dataset", "width", "seed")
    found = three_stages(**setting)
    out = {f"loss_{k}": tail(r, "train_loss").mean() for k, r in found.items()}
    out |= {f"test_{k}": tail(r, "test_accuracy").mean() for k, r in found.items()}
    highest = lambda name: found[name]["train_loss"][1:].max()
    out |= {f"highest_{name}": highest(name) for name in ("small", "control")}
    for what in ("weights", "weights_mean"):
        ends = (found[k][what] for k in ("large", "small"))
        walk = on_line(*ends, np.linspace(-1, 2, 61).round(2).tolist(), **where)
        out |= {f"line_{what}": walk["train_loss"], "positions": walk["positions"]}
    return out

# %%
digits = {"dataset": "digits", "width": 8, "large": 500, "small": 20}
digits |= {"iterations": 1200, "every": 25, "precision": "float32"}
steps_run = (0.02, 0.03, 0.05)
several = [{**digits, "step": s, "seed": i} for s in steps_run for i in range(5)]
seeds_run = Store().sweep("basins_digits", weighed, several, run=run, jobs=2)

def over_seeds(step, of):
    """A quantity of the stored runs at a step, one number a seed."""
    return Estimate(map(of, seeds_run.where(step=step).results), of="basins_digits")

# %% tags=["hide-input"]
shown = {"end of Part I": lambda r: r["loss_large"], "highest after": lambda r: r["highest_small"], "end of small batches": lambda r: r["loss_small"],
         "end of control": lambda r: r["loss_control"], "highest between ends, times the higher end": lambda r: height(r, "line_weights"), "between means": lambda r: height(r, "line_weights_mean")}
gained = lambda r: 100 * (r["test_small"] - r["test_control"])
span = lambda e: f"{e.low:.3g} to {e.high:.3g}"
rows = [[step, *(span(over_seeds(step, of)) for of in shown.values()), written(over_seeds(step, gained), ".1f")] for step in steps_run if seeds_run.where(step=step)]
figures.table(["step", *shown, "test accuracy against the control, points"], rows or [["not run", *[""] * (len(shown) + 1)]])

# %% tags=["hide-input"]
fits = [s for s in steps_run if over_seeds(s, shown["end of Part I"]).high <= 0.023]
at_step = max(fits, default=0.05)
walls, gains = over_seeds(at_step, shown["highest between ends, times the higher end"]), over_seeds(at_step, gained)
say(
    """**Reading.** At a step of {step:g}, {fitted}, the highest loss between the ends is more than 1.25 times that of the higher end in {above} of {seeds} stored runs; over seeds it is {low:.3g} to {high:.3g} times. The test accuracy of
    the small batches less that of the control is {gain:.1f} points.

    So the paper's conclusion, one basin, {carries} to digits. The two differ in data, network width, batch sizes, step and number of steps; these runs do not tell which of these decides.""",
    step=at_step, fitted=f"where Part I has {'' if fits else 'not '}fitted the digits in every run", seeds=len(walls) or None, above=int((walls.values > 1.25).sum()), low=walls.low, high=walls.high, gain=gains,
    carries=walls and ("does not carry over" if (walls.values > 1.25).sum() > len(walls) / 2 else "carries over"),
)

# %% [markdown]
# ## Curvature at the ends
#
# At the means of the weights of each stage we compute, over the first 5,000 training images, the 20 largest eigenvalues of the Hessian by Lanczos iteration, and the sum of all (trace) and of the negative
# ones by Lanczos quadrature of the rest, with three random vectors; the error is the standard error over these. Gradient noise is the gradient of a random batch of 32 minus the full one, for 100 batches.
# Ten classes would give 9 outliers, since softmax ignores a number added to all outputs.

# %%
def end_curvature(name, **setting):
    """The Hessian at the mean of the last weights."""
    own = only(setting, "examples", "leading", "probes", "steps", "picks")
    one = {k: v for k, v in setting.items() if k not in own}
    there = only(setting, "dataset", "width", "seed")
    weights = end_of(name, "weights_mean", **one)
    return basins.curvature(weights, batch=32, **own, **there)

# %%
how = {"examples": 5000, "leading": 20, "probes": 3, "steps": 20, "picks": 100}
stages = ("large", "small", "control")
grid = [{**one, "name": name, **how} for one in part_one[:4] for name in stages]
near_runs = Store().sweep("basins_arms_curvature", end_curvature, grid, run=run)

# %% tags=["hide-input"]
ax = figures.panel("CIFAR-10, stored", "rank from the largest", "eigenvalue of $H$", yscale="log")
for i, (q, r) in enumerate(zip(near_runs.parameters, near_runs.results)):
    label = NAMES[q["name"]] if q["seed"] == near_runs.parameters[0]["seed"] else f"_{i}"
    ax.plot(np.arange(1, 21), r["eigenvalues"], ".-", color=COLOR[q["name"]], lw=0.8, label=label)
if near_runs:
    ax.legend()
    ax.set_xticks([1, 5, 10, 15, 20])
    figures.figure(
        "fig_local", ax, caption=f"The 20 largest eigenvalues of the Hessian over 5,000 training images, at the means of weights on CIFAR-10: {', '.join(NAMES[k] for k in stages if near_runs.where(name=k))}.",
        alt=f"The 20 largest eigenvalues on a logarithmic axis against rank, one curve for each stored end on CIFAR-10; {len(near_runs)} in all.",
    )

# %%
def noise_of(r):
    """Share of the noise in ten eigenvectors, of ten eigenvalues in the trace; %."""
    share = r["noise_inside"][:, :10].sum() / r["noise"].sum()
    return 100 * share, 100 * r["eigenvalues"][:10].sum() / r["trace"]

# %% tags=["hide-input"]
at_end = {name: near_runs.where(name=name).results for name in stages}
est = lambda name, of: Estimate(map(of, at_end[name]), of="basins_arms_curvature")
columns = {
    "largest": (lambda r: r["eigenvalues"].max(), ".3g"), "trace": (lambda r: r["trace"], ",.0f"), "error of the trace": (lambda r: r["trace_error"], ".0f"),
    "outliers (ratio rule)": (lambda r: count_outliers(r["eigenvalues"], "ratio"), ".0f"),
    "negative eigenvalues, % of the sum of magnitudes": (lambda r: -100 * r["negative"] / r["absolute"], ".1f"),
    "noise in the ten leading eigenvectors, %": (lambda r: noise_of(r)[0], ".0f"), "ten leading eigenvalues, % of trace": (lambda r: noise_of(r)[1], ".0f"),
}
ends = [name for name in at_end if at_end[name]]
rows = [[word, *(f"{est(name, of):{form}}" for name in ends)] for word, (of, form) in columns.items()]
words = {"small": "After the small batches", "control": "After the control"}
figures.table(["CIFAR-10, means of weights", *(NAMES[name] for name in ends)], rows if ends else [["not run"]])
say(
    """**Reading.** The largest eigenvalue is {large:.3g} at the end of Part I, the trace {trace:,.0f}.{others} The ratio rule counts {outliers:.1f} outliers at the end of Part I, where ten classes would give 9.

    If the noise had the shape of the Hessian, its share in the ten leading eigenvectors would be that of the ten eigenvalues in the trace: at the end of Part I it is {share:.0f} %, against {null:.0f} %.""",
    outliers=est("large", columns["outliers (ratio rule)"][0]), large=est("large", columns["largest"][0]), trace=est("large", columns["trace"][0]), others="".join(f" {word} they are {est(name, columns['largest'][0]):.3g} and {est(name, columns['trace'][0]):.0f}." for name, word in words.items() if at_end[name]), share=est("large", lambda r: noise_of(r)[0]), null=est("large", lambda r: noise_of(r)[1]),
)

# %% [markdown]
# ### Every eigenvalue of G
#
# $G$, the part of $H$ that is left when the examples are fitted ([Chapter 2](02_ggn.ipynb)), has rank at most $N(C-1)$. All of its 2,472,266 eigenvalues over the first 1,000
# training images therefore follow from a matrix of order 9,000.

# %%
def end_spectrum(name, examples, **setting):
    """Every eigenvalue of G at the mean of a stage's weights but those zero by rank."""
    data = images(setting["dataset"], setting["seed"])
    model = alexnet(setting["width"], seed=0, dtype=torch.float64)
    x, y = data.inputs[:examples].cpu().double(), data.targets[:examples].cpu()
    weights = torch.as_tensor(end_of(name, "weights_mean", **setting)).double()
    risk = EmpiricalRisk(model, x, y).at(weights)
    s, rank = ggn_spectrum(risk.ggn()), examples * (data.classes - 1)
    found = {"parameters": len(s.eigenvalues), "loss": risk.loss()}
    found |= {"eigenvalues": s.eigenvalues[-rank:], "seconds": s.seconds}
    return found | {f"error_{k}": v for k, v in s.certificates.items()}

# %%
both_ends = [{**part_one[0], "name": name, "examples": 1000} for name in stages[:2]]
spectra = Store().sweep("basins_spectra", end_spectrum, both_ends, run=run)
counts = [count_outliers(r["eigenvalues"], "ratio") for r in spectra.results]
beyond = lambda v: (v > 1e-12 * v[-1]).sum()
zeros = [int(r["parameters"] - beyond(r["eigenvalues"])) for r in spectra.results]

# %% tags=["hide-input"]
if spectra:
    ax = figures.panel("every eigenvalue of G")
    for r, q in zip(spectra.results, spectra.parameters):
        figures.ranked(ax, r["eigenvalues"], COLOR[q["name"]], NAMES[q["name"]])
    ax.legend()
    figures.figure(
        "fig_complete", ax, caption="All eigenvalues of $G$ that are not zero by its rank, at the means of weights of a stored run on CIFAR-10, against rank.",
        alt="Magnitudes of the eigenvalues of G against rank from the largest, both axes logarithmic, at the end of Part I and of the small arm of a stored run on CIFAR-10.",
    )
sizes = [int(r["parameters"]) for r in spectra.results]
one_of = lambda values, i: values[i] if len(spectra) == 2 else Estimate(of="basins_spectra")
say(
    """**Reading.** By the ratio rule {outliers_1} eigenvalues of $G$ are outliers at the end of Part I and {outliers_2} at the end of the small arm, where ten classes would give 9. Of {M:,} eigenvalues {zeros_1:,} and {zeros_2:,} are
    zero (below $10^{-12}$ of the largest); the rank alone makes {least:,} of them zero.""",
    outliers_1=one_of(counts, 0), outliers_2=one_of(counts, 1), zeros_1=one_of(zeros, 0), zeros_2=one_of(zeros, 1), M=one_of(sizes, 0), least=one_of([m - 9000 for m in sizes], 0),
)

# %% [markdown]
# ### Walk the line
#
# Choose a position on the line of this run. In Jupyter the five largest eigenvalues are computed where the slider is released, on the first 50 images.

# %%
@cache
def leading_at(t):
    """The five largest eigenvalues at position t of this run's line, 50 images."""
    there = risk_over((1 - t) * end_1 + t * end_2, examples=50, **same).hessian()
    return top_eigenpairs(there, 5, tolerance=1e-2, progress=False).eigenvalues

# %% tags=["hide-input"]
def walked(t):
    """The line with a mark at t: loss, accuracy, and the largest eigenvalues there."""
    curves = {"training loss": ("train_loss", "log"), "test accuracy": ("test_accuracy", "linear")}
    left, middle = (figures.panel("", "position t", name, figures.THIRD, yscale=scale) for name, (_, scale) in curves.items())
    right = figures.panel("", "rank from the largest", "eigenvalue", figures.THIRD, ylim=LIMITS, yscale="log")
    for ax, (key, _) in zip((left, middle), curves.values()):
        ax.plot(line_here["positions"], line_here[key], color=COLOR["small"])
        ax.plot([t], [np.interp(t, line_here["positions"], line_here[key])], "o", ms=8, color=figures.COLORS["theory"])
    values = leading_at(t)
    right.plot(range(1, 6), np.where(values < LIMITS[0], np.nan, values), ".-", color=figures.COLORS["H"])  # below the axis: not drawn
    loss, right_share = (np.interp(t, line_here["positions"], line_here[k]) for k in ("train_loss", "test_accuracy"))
    return f"At t = {t:.2f} the training loss is {loss:.3g}, the test accuracy {100 * right_share:.1f} %, the largest eigenvalue {values[0]:.3g}.", left, middle, right

sizes = (3, 5) if p.scale == "smoke" else (7, 31)
stops, fine = ([round(float(t), 2) for t in np.linspace(-1, 2, n)] for n in sizes)
tops_here = [max(leading_at(t)[0], 1e-6) for t in stops]
LIMITS = min(tops_here) / 100, 2 * max(tops_here)

# %% tags=["hide-input"]
explore(
    walked, {"t": stops}, name="fig_explore_line", start={"t": stops[len(stops) // 3]}, live={"t": fine}, labels={"t": "position t"},
    alt="Training loss and test accuracy on the line, each with a mark at the position chosen, and the five largest eigenvalues there.",
    caption="Loss and test accuracy on the line of this page's run, and leading eigenvalues over 50 training images. Eigenvalues below the axis are not drawn.",
)

# %% [markdown]
# ## Checks

# %% tags=["nbval-check-output", "hide-input"]
end = line_here["positions"].tolist().index(1.0)
drift = abs(line_here["test_accuracy"][end] - here["small"]["test_accuracy"][-1])
check("half precision changes the test accuracy at the end by less than 0.002", drift, below=0.002)
errors = [float(r[name]) for r in spectra.results for name in r if name.startswith("error_")]
if errors:
    check("certificates of the complete spectra", max(errors), below=1e-6)

# %% [markdown]
# ## Limits
#
# * All stages of a run on CIFAR-10 take about three hours of one core that multiplies in bfloat16, and what is measured at their ends one more. Four seeds at this step and one each at 0.005 and 0.025 are registered; the foot of the page says how many were run.
# * The paper names neither its step nor its variant of AlexNet. We take the common one for 32 x 32 images (2,472,266 parameters) and a step of 0.01. No augmentation; each colour channel is standardised.
# * Training on CIFAR-10 multiplies in bfloat16 and sums in float32; losses, lines and leading eigenvalues are in float32, the complete spectra of $G$ (over 1,000 images) in float64. The stored ends are rounded to half precision, and the arms start from the rounded end.
# * Runs in float32 are chaotic: after thousands of steps another processor gives other numbers for the same seed. Single runs, that of this page included, may differ from the stored ones; shares over seeds can be compared.
#
# ## Try it
#
# **Exercise: a smaller step.** Run with `-p step_size 0.02`. Part I ends at a higher loss. What becomes of the barrier, and why does that say little?
#
# <details><summary>Answer</summary>
#
# With a step of 0.02 Part I is unfinished after 1,000 steps, and the loss falls along the line to the end of the small batches. A line that falls all the way has no barrier by definition. Two solutions can be compared only where both ends are fitted.
#
# </details>
#
# ## Verdicts

# %% tags=["hide-input"]
verdicts("06_basins")
foot(p, large_runs, arm_runs, early_runs, line_runs, near_runs, spectra, seeds_run)
