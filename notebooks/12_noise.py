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
# # What the step and the batch do to the largest eigenvalue
#
# > **The paper's observation.** The large batch ends where the eigenvalues are larger (Section 3.3, Figure 4), and the step size has something to do
# > with it. [Sagun et al. 2017](../book/references.md)
#
# [Chapter 5](05_algorithm.ipynb) finds the same and [Chapter 10](10_after.ipynb#the-edge-of-stability) shows what holds the largest eigenvalue under gradient
# descent: it settles at $2/\eta$, with $\eta$ the step. This chapter asks what holds it under batches and under Adam, what the
# leading eigenvectors do for training, and whether differences of gradients are good enough to measure all this. All claims are from later
# literature. $g_B$ and $H_B$ are gradient and Hessian of the loss of one batch of $B$ examples; [all symbols](../book/notation.md).

# %% tags=["parameters", "hide-input"]
scale: str = "quick"  # smoke, quick or paper
step: float = 0.0  # of gradient descent and SGD; 0: by scale
batches: list = []  # sizes of the batches; []: by scale
examples: int = 0  # training examples N; 0: by scale
iterations: int = 0  # steps of SGD; 0: by scale
seed: int = 0  # of the data, of the random start and of the batches
seeds: int = 0  # stored runs to read (at paper scale, to make); 0: by scale

# %% tags=["hide-input"]
from hesslib.book.parameters import ParameterError, integer, integers, real, resolve
from hesslib.book.text import Estimate, check, foot, say, this_run

p = resolve(
    globals(),
    step=real(1e-3, 100, smoke=4.0, quick=4.0, paper=4.0),
    batches=integers(2, smoke=[8, 64], quick=[8, 32, 256], paper=[8, 32, 512]),
    examples=integer(50, 4990, smoke=64, quick=256, paper=512),
    iterations=integer(50, smoke=50, quick=1000, paper=4000),
    seed=integer(0),
    seeds=integer(1, smoke=5, quick=5, paper=5),
)
for b in p.batches:
    if b > p.examples:
        raise ParameterError(
            f"batches = {p.batches}: at most examples = {p.examples}"
        )
this_run(p)

# %% tags=["hide-input"]
from functools import cache

import numpy as np
import torch
from hesslib.book import figures
from hesslib.book.claims import verdicts
from hesslib.book.explore import explore
from hesslib.book.store import Store
from hesslib.experiments.noise import (
    adam_edge,
    batch_sharpness,
    batches_of_pictures,
    difference_products,
    differences,
    small_risk,
    stochastic_edge,
    subspaces,
)

# %% [markdown]
# ## The edge under noise
#
# A step along the gradient of a batch changes the loss of that batch by about $-\eta\,\|g_B\|^2 + \frac{\eta^2}{2}\, g_B^\top H_B\, g_B$. On average over
# batches this is a fall only if the *batch sharpness*
#
# $$S_B = \frac{\mathbb E\; g_B^\top H_B\, g_B}{\mathbb E\; \|g_B\|^2}$$
#
# is below $2/\eta$. [Andreyev and Beneventano (2024)](../book/references.md) find that under SGD $S_B$, and not the largest eigenvalue of $H$, rises to $2/\eta$ and stays
# there. With $B = N$ it is the curvature along the whole gradient, which never exceeds the largest eigenvalue. We train the tanh network of Chapter 10 (49-30-30-10, squared error) with batches that are reshuffled each
# epoch, and follow two quantities: the *sharpness* (the largest eigenvalue of $H$) and $S_B$, averaged over 100 batches.


# %%
def attempted(loss, step, batch, **options):
    """A run of SGD, or one sentence if it diverges."""
    found = stochastic_edge(loss, step, batch, **options)
    if not np.isfinite(found["losses"][-1]):
        why = f"SGD with batches of {batch} diverges"
        raise ParameterError(f"step = {step}: {why}; give less")
    return found


moments = {"smoke": 5, "quick": 12, "paper": 25}[p.scale]  # at which to look
setting = {"examples": p.examples, "iterations": p.iterations, "seed": p.seed,
    "moments": moments}  # fmt: skip
here = {b: attempted("mse", p.step, b, **setting) for b in p.batches}

# %%
paper, runs = p.scale == "paper", range(1, p.seeds + 1)
BATCHES, STEP = [8, 16, 32, 64, 128, 512], 4.0  # of the stored runs
asked = {"loss": "mse", "step": STEP, "examples": 512, "iterations": 4000}
grid = [{**asked, "batch": b, "seed": s} for b in BATCHES for s in runs]
edge = Store().sweep("stochastic_edge", stochastic_edge, grid, run=paper, jobs=2)

# %% tags=["hide-input"]
COLOR = dict(zip(BATCHES, figures.SERIES))
OTHERS = sorted({*p.batches, p.examples, min(16, p.examples)} - set(BATCHES))
COLOR |= dict(zip(OTHERS, figures.GREYS * 9))
SHOWN = [8, 32, 512]


# %%
def draw_edge(ax, found):
    """Sharpness (lines) and batch sharpness (dashed) in units of 2 / step."""
    t, runs_of = found
    for b, results in runs_of.items():
        for key, style in ("sharpness", "-"), ("batch_sharpness", "--"):
            curves = [r[key] * t / 2 for r in results]
            name = f"B = {b}" if style == "-" else ""
            when = results[0]["moments"]
            figures.band(ax, when, curves, COLOR[b], name, ls=style, lw=1.2)
    ax.axhline(1, color=figures.INK, lw=1, ls=":")
    place = "lower right" if t == STEP else "upper right"
    ax.legend(loc=place, fontsize=8)


# %%
def by_batch(sweep, sizes):
    """The results of a sweep by batch, those that are there and stayed finite."""
    found = {b: sweep.where(batch=b).results for b in sizes}
    ended = lambda results: [r for r in results if np.isfinite(r["losses"][-1])]
    return {b: ended(r) for b, r in found.items() if ended(r)}


# %% tags=["hide-input"]
stored = by_batch(edge, SHOWN)
figures.figure(
    "fig_stochastic_edge",
    *figures.here_and_stored(
        draw_edge, (p.step, {b: [r] for b, r in here.items()}), stored and (STEP, stored),
        xlabel="iteration", ylabel="in units of 2 / step", ylim=(0, 1.6),
    ),
    caption=r"The largest eigenvalue of $H$ (lines) and the batch sharpness $S_B$ (dashed) along SGD, in units of $2/\eta$, for this run and for "
    "stored runs on 512 digits: median and range over seeds.",
    alt=f"Largest eigenvalue and batch sharpness in units of two over the step against iterations, left for batches of {p.batches} in this "
    "run, right for stored runs with batches of 8, 32 and 512, with a line at 1.",
)  # fmt: skip


# %%
def late(results, key, factor=1.0, of=""):
    """Mean over the second half of each run."""
    return Estimate(
        [factor * np.mean(r[key][len(r[key]) // 2 :]) for r in results], of
    )


def told(b, r):
    """Where a run is in its second half, in a sentence."""
    top, own = (
        late([r], k, p.step / 2).mean for k in ("sharpness", "batch_sharpness")
    )
    return f"Batch {b}: largest eigenvalue {top:.2f}, batch sharpness {own:.2f}."


# %% tags=["hide-input"]
say(r"**This run**, mean over the second half, in units of $2/\eta$. {ran}", ran=" ".join(told(*item) for item in here.items()))  # fmt: skip

# %%
rows, tops = [], {}
for b, results in by_batch(edge, BATCHES).items():
    tops[b] = late(results, "sharpness", STEP / 2, edge.label)
    cells = [f"{tops[b]:.2f}", f"{late(results, 'batch_sharpness', STEP / 2):.2f}"]
    end = Estimate([1000 * r["losses"][-1] for r in results])
    rows.append([str(b), *cells, f"{end:.1f}", str(len(results))])
head = ["batch, stored runs", r"largest eigenvalue, $2/\eta$",
    r"batch sharpness, $2/\eta$"]  # fmt: skip
figures.table([*head, "loss at the end, thousandths", "runs"], rows)

# %% [markdown]
# The table has means over the second half of training, with the standard deviation over seeds. The gradient of a small batch points where the curvature
# of that very batch is large. So with batches of 8 and 16 it is at or near the edge while the largest eigenvalue of the whole loss stays well below, lower
# with 8. From batches of 32 on that eigenvalue hardly depends on the batch, and is nearly equal to the batch sharpness. Runs with batches of 8 also end at a higher loss.
#
# [Liao et al. (2026)](../book/references.md) derive that the gap between the largest eigenvalue and its value under gradient descent is proportional to the variance of the
# gradients, thus to $1/B$, and fit a slope to their own measurements.


# %%
def gaps(seed, sizes=(8, 16, 32, 64)):
    """What one seed's sharpness lacks of that with all examples, by batch."""
    found = by_batch(edge.where(seed=seed), [*sizes, 512])
    if len(found) <= len(sizes):
        return None
    top = [late(found[b], "sharpness", STEP / 2).mean for b in (*sizes, 512)]
    return np.maximum(top[-1] - np.array(top[:-1]), 1e-4)


lacking = {s: g for s in runs if (g := gaps(s)) is not None}
logs = np.log([8, 16, 32, 64])
slopes = [np.polyfit(logs, np.log(g), 1)[0] for g in lacking.values()]
slope = Estimate(slopes, edge.label)

# %% tags=["hide-input"]
levels = figures.panel(
    "", "batch", "in units of 2 / step", xscale="log", ylim=(0, 1.2)
)
falls = figures.panel("", "batch", "gap, in units of 2 / step", xscale="log", yscale="log")  # fmt: skip
for key, name, color in (
    ("sharpness", "largest eigenvalue", figures.COLORS["H"]),
    ("batch_sharpness", "batch sharpness", figures.COLORS["G"]),
):
    found = [
        (b, late(r, key, STEP / 2)) for b, r in by_batch(edge, BATCHES).items()
    ]
    if found:
        levels.errorbar(*zip(*[(b, e.mean) for b, e in found]), [e.sd for _, e in found], fmt="o-", color=color, label=name)  # fmt: skip
        levels.legend(loc="lower right")
for g in lacking.values():
    falls.plot([8, 16, 32, 64], g, "o-", lw=0.8, color=figures.COLORS["H"])
for ax, ticks in ((levels, BATCHES), (falls, BATCHES[:4])):
    ax.set_xticks(ticks, [str(b) for b in ticks])
    ax.set_xticks([], minor=True)
figures.figure(
    "fig_noise_gap", levels, falls,
    caption=r"Stored runs. First: largest eigenvalue and batch sharpness in the second half of training by batch, mean and standard deviation. Second: "
    "how far the largest eigenvalue is below that with all examples, one line a seed.",
    alt="Left, largest eigenvalue and batch sharpness in units of two over the step against the batch. Right, the gap of the largest eigenvalue "
    "against the batch on logarithmic axes.",
)  # fmt: skip

# %% tags=["hide-input"]
say(
    """**Stored runs.** On logarithmic axes the gap falls with the batch with a slope of {slope:.2f}, between batches of 8 and 64. The theory says −1; Liao et
    al. (2026) measured −1.27 (R² = 0.98) on networks and data of their own. The gaps of large batches are small differences, and their errors weigh in the slope: in {floored} of {seeds} seeds the gap at 64 is not positive and is set to 0.0001, which makes the slope steeper. The median slope is {median:.2f}.""",
    slope=slope, seeds=len(slopes) or None, floored=sum(g[-1] <= 1e-4 for g in lacking.values()), median=np.median(slopes) if slopes else None,
)  # fmt: skip

# %% [markdown]
# Below, a batch of your own, on 64 digits; in Jupyter the network is trained anew when the slider is released.


# %% tags=["hide-input"]
@cache
def short(batch, step, seed):
    """A short run of SGD."""
    length = 25 if p.scale == "smoke" else 400
    looked = {"moments": 5 if p.scale == "smoke" else 10, "draws": 50}
    return stochastic_edge("mse", step, batch, examples=64, iterations=length, seed=seed, **looked)  # fmt: skip


def batch_moved(batch, step=2.0, seed=p.seed):
    """Sharpness along one run, of all examples and of batches."""
    r = short(batch, step, seed)
    ax = figures.panel("", "iteration", "in units of 2 / step", ylim=(0, 1.6))
    for key, style in (("sharpness", "-"), ("batch_sharpness", "--")):
        name = {"sharpness": "largest eigenvalue"}.get(key, "batch sharpness")
        color = figures.COLORS["H" if style == "-" else "G"]
        ax.plot(r["moments"], r[key] * step / 2, style, color=color, label=name)
    ax.axhline(1, color=figures.INK, lw=1, ls=":")
    ax.legend(loc="lower right")
    if not np.isfinite(r["losses"][-1]):
        return f"Batches of {batch}, step {step:g}: the run diverges.", ax  # fmt: skip
    top, own = (
        np.mean(r[k][-5:]) * step / 2 for k in ("sharpness", "batch_sharpness")
    )
    short_of = "" if own > 0.95 else ", below the edge within these iterations"
    return f"Batches of {batch}, step {step:g}: over the last five moments the largest eigenvalue is {top:.2f} and the batch sharpness {own:.2f}{short_of}.", ax  # fmt: skip


# %% tags=["hide-input"]
explore(
    batch_moved, {"batch": [4, 8, 16, 32, 64]}, name="fig_explore_noise",
    alt="Largest eigenvalue and batch sharpness along SGD, in units of two over the step, with a line at 1.",
    caption="Sharpness of all examples and of batches along a short run of SGD on 64 digits.",
    start={"batch": 8},
    live={"batch": [2, 4, 8, 16, 32, 64], "step": [0.5, 1.0, 2.0, 3.0, 4.0], "seed": range(p.seed, p.seed + 10)},
)  # fmt: skip

# %% [markdown]
# ## Cross-entropy, and the small batch of Chapter 5
#
# With cross-entropy the curvature falls once the examples are fitted, since $G$ is weighted by $p(1-p)$. On few examples this comes early, and the edge
# does not hold (Liao et al. 2026 report the same of a small convolutional network). The same network, a step of 0.5:

# %%
asked = {"loss": "cross_entropy", "step": 0.5, "examples": 512, "iterations": 1200}
grid = [{**asked, "batch": b, "seed": s} for b in (16, 512) for s in runs]
entropy = Store().sweep("stochastic_edge", stochastic_edge, grid, run=paper, jobs=2)
short_of = setting | {"iterations": min(p.iterations, 1200)}
small, whole = min(16, p.examples), p.examples
mine = {b: attempted("cross_entropy", 0.5, b, **short_of) for b in (small, whole)}

# %% tags=["hide-input"]
stored = by_batch(entropy, (16, 512))
figures.figure(
    "fig_entropy_edge",
    *figures.here_and_stored(
        draw_edge, (0.5, {b: [r] for b, r in mine.items()}), stored and (0.5, stored),
        xlabel="iteration", ylabel="in units of 2 / step", ylim=(0, 2.2),
    ),
    caption=r"With cross-entropy: largest eigenvalue (lines) and batch sharpness (dashed) in units of $2/\eta$.",
    alt=f"Largest eigenvalue and batch sharpness with cross-entropy against iterations, batches of {small} and all {whole} examples in this run and in stored runs.",
)  # fmt: skip

# %%
peak = {b: Estimate([np.max(r["sharpness"]) / 4 for r in v], entropy.label) for b, v
    in stored.items()}  # fmt: skip
last = lambda b, key: Estimate([r[key][-1] / 4 for r in stored.get(b, [])],
    entropy.label)  # fmt: skip
found = {"peak": peak.get(512), "end": last(512, "sharpness"),
    "own": last(16, "batch_sharpness")}  # fmt: skip
found["high"] = Estimate([np.max(r["batch_sharpness"]) / 4 for r
    in stored.get(16, [])], entropy.label)  # fmt: skip

# %% tags=["hide-input"]
say(
    r"""**Stored runs**, in units of $2/\eta$. With all examples the largest eigenvalue rises to {peak:.2f} and ends at {end:.2f}. With batches of 16 the batch
    sharpness comes up to {high:.2f} on the way and ends at {own:.2f}. So with all examples this step never meets the edge, and with small batches the batch sharpness comes to it on the way and falls with the
    loss. (With all examples the batch sharpness is the curvature along the gradient, here near zero: the gradient does not lie along the leading eigenvector.)""",
    **found,
)  # fmt: skip

# %% [markdown]
# [Chapter 5](05_algorithm.ipynb) trains a convolutional network with cross-entropy, a step of 0.1 and batches of 10 or 512. There the edge is at
# $2/\eta = 20$. We repeat its runs up to a training loss of 0.1 and measure the largest eigenvalue and the batch sharpness at this point.

# %%
asked = {"step_size": 0.1, "levels": [0.1], "examples": 1000, "limit": 900}
grid = [{**asked, "batch": 10, "seed": s} for s in runs]
grid += [{**asked, "batch": 512, "draws": 5, "seed": s} for s in runs]
pictures = Store().sweep("batches_of_pictures", batches_of_pictures, grid, run=paper,
    jobs=2)  # fmt: skip
rows, at = [], {}
for b in (10, 512):
    for key in ("sharpness", "batch_sharpness"):
        each = [r[key][0] / 20 for r in pictures.where(batch=b).results]
        each = [v for v in each if np.isfinite(v)]
        at[f"{key}_{b}"] = Estimate(each, pictures.label)
    cells = [f"{at[f'{k}_{b}']:.2f}" for k in ("sharpness", "batch_sharpness")]
    rows.append([str(b), *cells])
head = ["batch, stored runs", r"largest eigenvalue, $2/\eta$",
    r"batch sharpness, $2/\eta$"]  # fmt: skip
figures.table(head, rows)

# %%
ratio = at["sharpness_512"].mean / at["sharpness_10"].mean
curved = at["batch_sharpness_10"].mean / at["sharpness_10"].mean

# %% tags=["hide-input"]
say(
    r"""**Stored runs.** The steps of the small batch meet a curvature {curved:.1f} times the largest eigenvalue of the whole loss: its batch sharpness is {small:.2f} of the
    edge, where the largest eigenvalue is only {top:.2f} of it. So in {count} runs the steps of the small batch are at the edge of their own batches, while the curvature of the whole loss is
    far below $2/\eta$. That this is what limits its largest eigenvalue is not shown here.""",
    count=len(at["sharpness_10"]) or None, curved=curved, small=at["batch_sharpness_10"], top=at["sharpness_10"],
)  # fmt: skip
if at["sharpness_512"]:
    say(
        """At the same loss the largest eigenvalue of the large batch is {ratio:.1f} times as large, and its batch sharpness, from five batches, is {large:.2f} of the edge; it scatters too much to say whether it is at the edge.""",
        ratio=ratio, large=at["batch_sharpness_512"],
    )  # fmt: skip

# %% [markdown]
# ## What the leading directions do
#
# In Chapter 10 a large share of the gradient lies in the span of the leading eigenvectors. It does not follow that training happens there.
# [Song et al. (2025)](../book/references.md) go on from one point in three ways: with the whole step of SGD, with its part within the $C$ leading eigenvectors, and with the rest.
# They report that the first part does not reduce the loss further and that the rest trains as well as the whole. Here $C = 10$, batches of 32, a step of 1,
# squared error; the eigenvectors are computed anew every 20 steps.

# %%
counts = {"smoke": (20, 20), "quick": (300, 200), "paper": (500, 600)}
before, after = counts[p.scale]
way = {"step": 1.0, "batch": 32, "renew": 20, "count": 10}
mine = subspaces(**way, examples=p.examples, start=before, iterations=after,
    seed=p.seed)  # fmt: skip
asked = {**way, "examples": 512, "start": 500, "iterations": 600}
three = Store().sweep("subspaces", subspaces, [{**asked, "seed": s} for s in runs],
    run=paper)  # fmt: skip


# %% tags=["hide-input"]
def draw_ways(ax, results):
    """Loss along the three ways on."""
    names = {"plain": "whole step", "leading": "ten leading", "rest": "the rest"}
    for (key, name), color in zip(
        names.items(), (figures.INK, *figures.SERIES[1:])
    ):
        curves = np.array([r[key] for r in results])
        figures.band(ax, 20 * np.arange(curves.shape[1]), curves, color, name)
    ax.legend()


figures.figure(
    "fig_ways", *figures.here_and_stored(draw_ways, [mine], three.results, xlabel="step after the point", ylabel="squared error", yscale="log"),
    caption="The loss over all examples when SGD goes on with its whole step, within the ten leading eigenvectors of $H$, or with the rest.",
    alt="Loss against steps after a common point for three ways of going on: whole steps, steps within the ten leading eigenvectors, and steps outside of them.",
)  # fmt: skip


# %%
def fall(r, key):
    """Factor by which the loss has fallen at the end of a way."""
    return r[key][0] / np.mean(r[key][-5:])


found = {f"{k}": Estimate([fall(r, k) for r in three.results], three.label) for k
    in ("plain", "leading", "rest")}  # fmt: skip
found |= {f"here_{k}": fall(mine, k) for k in ("plain", "leading", "rest")}
found["share"] = Estimate([100 * r["share"][1] for r in three.results], three.label)
found["all"] = Estimate([100 * r["share"][0] for r in three.results], three.label)

# %% tags=["hide-input"]
say(
    """**This run.** The loss at the start over that at the end is {here_plain:.3f} with the whole step, {here_leading:.3f} within the leading directions and
    {here_rest:.3f} with the rest.

    **Stored runs.** The ten leading directions hold {share:.0f} % of the squared norm of the batches' gradients and {all:.0f} % of that of the whole gradient. In
    600 steps the loss at the start over that at the end is {plain:.2f} with the whole step, {leading:.3f} within the leading directions, and {rest:.2f} with the rest. Steps within the
    leading directions leave the loss where it was; steps outside of them lower it as much as whole steps.""",
    **found,
)  # fmt: skip

# %% [markdown]
# ## The edge of Adam
#
# Adam smooths gradients with $\beta_1 = 0.9$ and divides them by $P = \operatorname{diag}(\sqrt{\hat v} + 10^{-8})$, with $\hat v$ its running mean of squared gradients. The *preconditioned Hessian* is $P^{-1/2} H P^{-1/2}$. With $P$ fixed Adam is
# stable on a quadratic loss as long as its largest eigenvalue is below $(2 + 2\beta_1) / ((1 - \beta_1)\,\eta) = 38/\eta$. [Cohen et al. (2022)](../book/references.md) find that
# full-batch training settles there. Here: the same network, squared error, all examples.

# %%
turns = {"smoke": 50, "quick": 1000, "paper": 2500}[p.scale]
mine = {0.01: adam_edge(0.01, examples=p.examples, iterations=turns, seed=p.seed,
    moments=moments)}  # fmt: skip
grid = [{"step": t, "examples": 512, "iterations": 2500, "seed": s} for t
    in (0.003, 0.01) for s in runs]  # fmt: skip
adam = Store().sweep("adam_edge", adam_edge, grid, run=paper, jobs=2)


# %% tags=["hide-input"]
def draw_adam(ax, found):
    """Largest eigenvalue of the preconditioned Hessian, in units of 38 / step."""
    for t, results in found.items():
        color = figures.SERIES[0 if t == 0.003 else 1]
        curves = [r["preconditioned"] * t / 38 for r in results]
        figures.band(ax, results[0]["moments"], curves, color, f"step {t:g}")
    ax.axhline(1, color=figures.INK, lw=1, ls=":")
    ax.legend(loc="lower right")


steps_of = {t: adam.where(step=t).results for t in (0.003, 0.01)}
steps_of = {t: r for t, r in steps_of.items() if r}
figures.figure(
    "fig_adam", *figures.here_and_stored(draw_adam, {t: [r] for t, r in mine.items()}, steps_of, xlabel="iteration", ylabel="in units of 38 / step", ylim=(0, 1.6)),
    caption=r"The largest eigenvalue of $P^{-1/2} H P^{-1/2}$ along Adam, in units of $38/\eta$.",
    alt="Largest eigenvalue of the preconditioned Hessian in units of 38 over the step against iterations, for a step of 0.01 in this run and steps of 0.003 and 0.01 in stored runs.",
)  # fmt: skip

# %%
rows = []
for t, results in steps_of.items():
    seen = [late(results, "preconditioned", t / 38), late(results, "sharpness")]
    rows.append([f"{t:g}", *[f"{e:.2f}" for e in seen]])
figures.table(["step, stored runs", r"preconditioned, $38/\eta$",
    "largest eigenvalue of $H$"], rows)  # fmt: skip

# %% [markdown]
# The table has means over the second half. The largest eigenvalue of $H$ itself hardly depends on the step under Adam: it is $P$ that adapts, as Cohen
# et al. (2022) describe.
#
# ## Differences of gradients
#
# Some work on large models uses $Hv \approx (g(w + hv) - g(w - hv)) / 2h$, which needs no second derivative. How good is it? The network is small
# enough for the whole matrix (in the stored runs 49-8-8-10, 562 weights, 100 digits, 600 steps of gradient descent with a step of 4). We take differences along a random orthonormal basis
# and compare the matrix with the exact Hessian.

# %%
LENGTHS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]  # of the differences, h
asked = {"step": 4.0, "lengths": LENGTHS, "examples": 100, "hidden": 8}
size = {"hidden": 3 if p.scale == "smoke" else 8, "seed": p.seed}
size |= {"iterations": {"smoke": 20, "quick": 200, "paper": 600}[p.scale]}
mine = {a: differences(a, **asked | size) for a in ("tanh", "relu")}
grid = [{"activation": a, **asked, "iterations": 600, "seed": s} for a in mine for s
    in runs]  # fmt: skip
apart = Store().sweep("differences", differences, grid, run=paper, jobs=2)


# %% tags=["hide-input"]
def draw_errors(ax, results_of):
    """Error of the matrix against the length, by activation and precision."""
    for color, (name, results) in zip(
        (figures.SERIES[2], figures.SERIES[3]), results_of.items()
    ):
        for key, style in (("double", "-"), ("single", "--")):
            curves = [r[key][1:, 0] for r in results]
            words = {"double": "float64", "single": "float32"}[key]
            label = f"{name.replace('relu', 'ReLU')}, {words}"
            figures.band(ax, LENGTHS, curves, color, label, ls=style)
    ax.axhline(1, color=figures.INK, lw=1.2, ls=":")
    ax.legend(fontsize=7)


kinds = {a: apart.where(activation=a).results for a in mine}
kinds = {a: r for a, r in kinds.items() if r}
axes = {"xlabel": "length h of the difference", "ylabel": "relative error of the Hessian", "xscale": "log", "yscale": "log"}  # fmt: skip
figures.figure(
    "fig_differences", *figures.here_and_stored(draw_errors, {a: [r] for a, r in mine.items()}, kinds, **axes),
    caption="Error of the Hessian by differences of gradients, in the Frobenius norm over that of the exact one, against the length of the difference. "
    "Curves: median and range over seeds. Dotted: an error as large as the Hessian.",
    alt="Relative error of the Hessian by finite differences against the length of the difference on logarithmic axes, for tanh and ReLU in float64 and float32, in this run and in stored runs.",
)  # fmt: skip

# %%
spread = lambda v: f"{np.median(v):.2f} ({min(v):.2f} to {max(v):.2f})"
rows = []
for name, results in kinds.items():
    for i, h in ((0, "exact products"), (2, "0.00001"), (3, "0.0001"), (4, "0.001"),
        (5, "0.01")):  # fmt: skip
        top = [r["single"][i, 2] / r["exact"][-1] for r in results]
        low = [r["single"][i, 4] / r["exact"][0] for r in results]
        true = [np.mean(r["exact"] < -1e-4 * r["exact"][-1]) for r in results]
        share = [r["single"][i, 5] / t for r, t in zip(results, true)]
        rows.append(
            [name.replace("relu", "ReLU"), h, *map(spread, (top, low, share))]
        )
head = ["float32, stored runs", "h", "largest eigenvalue", "lowest eigenvalue"]
figures.table([*head, "share of negatives, over exact"], rows)

# %% [markdown]
# The table has each quantity by differences over the exact one in float64, median and range over seeds; a negative eigenvalue is one below −0.0001 of the
# largest. With tanh the error has two sources: rounding, which grows as $1/h$, and third derivatives, which grow as $h^2$. Between them is a wide range of good lengths; in float32
# it begins at a larger $h$.
#
# On ReLU the gradient jumps where a unit changes its state on an example. A difference of length $h$ crosses such a kink with a probability that is proportional to
# $h$, and then divides the jump by $2h$. So a shorter difference makes the errors rarer and each of them larger, and their mean over directions does not fall, until at a small enough $h$ none is crossed. At 0.00001 a stored run
# still crosses one, and in float32 rounding makes the share of negative eigenvalues too large there. The exact product leaves the kinks out. Both are correct answers to different questions ([Chapter 1](01_spectrum.ipynb) looks at curvature over finite distances); but
# the differences are not the products of one fixed matrix.


# %%
def followed(results, column):
    """Sharpness along the second half of gradient descent, in units of 2 / step."""
    return Estimate(
        [np.mean(r["late"][:, column]) * 2 for r in results], apart.label
    )


found = {f"{a}_{k}": followed(kinds.get(a, []), i) for a in mine for i, k
    in enumerate(("exact", "seen"))}  # fmt: skip
wild = [r["late"][:, 1] / r["late"][:, 0] for r in kinds.get("relu", [])]
found["most"] = float(np.max(wild)) if wild else None
found["least"] = float(np.min(wild)) if wild else None

# %% tags=["hide-input"]
say(
    r"""**Stored runs.** Along gradient descent Lanczos on differences of length 0.001 in float32 gives a mean sharpness of {tanh_seen:.2f} on tanh, in units of
    $2/\eta$, where exact products give {tanh_exact:.2f}. On ReLU it gives {relu_seen:.2f} against {relu_exact:.2f}; single moments lie between {least:.2f} and {most:.2f}
    times the exact value. By exact products ReLU is near the edge, like tanh. A sharpness well above $2/\eta$ on a ReLU network can thus be an artefact of the
    differences.""",
    **found,
)  # fmt: skip

# %% [markdown]
# ## Checks

# %%
risk = small_risk(60, 0, hidden=6)
g = risk.gradient()
plain = float(g @ (risk.hessian() @ g) / (g @ g))
own = abs(batch_sharpness(risk, 60, 1, 0) / plain - 1)
v = torch.nn.functional.normalize(torch.ones(1, risk.num_parameters).double())
product = (risk.hessian() @ v[0]).double()
error = float(
    (difference_products(risk, v, 1e-4)[0] - product).norm() / product.norm()
)
whole = [v for r in [by_batch(edge, [512])] for v
    in late(r.get(512, []), "sharpness", STEP / 2).values]  # fmt: skip

# %% tags=["nbval-check-output"]
check(
    "with all examples the batch sharpness is g'Hg / g'g, to 1e-10",
    own,
    below=1e-10,
)
check(
    "on tanh, differences agree with products in float64, to 1e-6",
    error,
    below=1e-6,
)
if p.scale == "quick":
    check("stored runs with all examples stay within 0.9 to 1.2 of the edge",
        len(whole) > 0 and all(0.9 < v < 1.2 for v in whole))  # fmt: skip

# %% [markdown]
# ## Limits
#
# * One small network and digits of 7 by 7 pixels, except for the runs of Chapter 5. The sources use larger networks and CIFAR-10.
# * Andreyev and Beneventano take the mean of the ratios over batches, here it is the ratio of the means. In a pilot run the two differed by 1 to 5 %.
# * Batches of 4 diverge at this step. At smaller steps small batches have not reached the edge within these iterations.
# * Differences were taken in steps of unit vectors; a program that scales $h$ by the size of the weights has other lengths at which it fails.
#
# ## Try it
#
# **Exercise: the edge of Adam with less smoothing.** Predict where the largest eigenvalue of the preconditioned Hessian settles for $\beta_1 = 0.5$, then run
# `adam_edge(0.01, examples=128, iterations=1000, seed=0, beta_1=0.5)`.
#
# <details><summary>Answer</summary>
#
# At $(2 + 2\beta_1) / ((1 - \beta_1)\,\eta) = 6/\eta$, that is 600 for a step of 0.01; `["preconditioned"]` comes to within a quarter of it.
#
# </details>
#
# Another run: `papermill notebooks/12_noise.ipynb out.ipynb -p step 2.0 -p batches "[8, 64]"`

# %% [markdown]
# ## Verdicts

# %% tags=["hide-input"]
verdicts("12_noise")

# %% tags=["hide-input"]
foot(p, edge, entropy, pictures, three, adam, apart)
