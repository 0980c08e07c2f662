"""The answers of the exercises, tried: each outcome that an answer states is computed here."""

import ast
import re

import nbformat
import numpy as np
import pytest

from hesslib import spectrum, top_eigenpairs
from hesslib.book import claims, runner
from hesslib.experiments.landscape import barrier

pytestmark = pytest.mark.slow

ANSWERS = {}


def answers(title):
    """Marks the test of the exercise of that title."""

    def mark(test):
        ANSWERS[title] = test
        return test

    return mark


def definitions(stem):
    """The imports and functions of a notebook, without running the rest."""
    cells = runner.read(runner.NOTEBOOKS / f"{stem}.py").cells
    kept = []
    for cell in (c for c in cells if c.cell_type == "code"):
        body = ast.parse(cell.source).body
        kept += [n for n in body if isinstance(n, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    kept = [n for n in kept if not (isinstance(n, ast.FunctionDef) and "p." in ast.unparse(n.args))]
    space = {}
    exec(compile(ast.Module(kept, []), stem, "exec"), space)
    return space


def said_number(stem, name):
    """A number of the executed notebook."""
    node = nbformat.read(runner.NOTEBOOKS / f"{stem}.ipynb", as_version=4)
    outputs = [o for c in node.cells for o in c.get("outputs", [])]
    said = [o.get("metadata", {}).get("hesslib", {}).get("numbers", {}) for o in outputs]
    return next(numbers[name] for numbers in said if name in numbers)


def test_every_exercise_has_a_test():
    titles = []
    for source in runner.sources([]):
        text = "\n".join(c.source for c in runner.read(source).cells if c.cell_type == "markdown")
        found = re.findall(r"(?:\{admonition\} |\*\*)(Exercise: [^*\n]+?)\.?(?:\*\*|\n)", text)
        answers = text.count(":::{dropdown} Answer") + text.count("<summary>Answer")
        assert len(found) == answers, source.stem
        titles += found
    assert sorted(titles) == sorted(ANSWERS)


@answers("Exercise: clusters instead of digits")
def test_clusters_have_few_or_no_exact_zeros_where_digits_have_thousands():
    trained = definitions("01_spectrum")["trained"]
    _, risk, _, _ = trained("blobs", [6, 12], 1000, 5000, 0.1, 0)
    zeros = int((np.abs(spectrum(risk.hessian()).eigenvalues) < 1e-12).sum())
    assert said_number("01_spectrum", "end_zeros") > 1000
    assert zeros < 0.05 * risk.num_parameters == 0.05 * 820


@pytest.mark.parametrize("seed", range(3))
def test_after_thirty_iterations_the_second_term_has_grown_and_the_first_has_grown_more(seed):
    trained = definitions("02_ggn")["trained"]
    risk, history = trained([6, 12], 200, 30, 0.1, seed)
    norm = lambda op: np.abs(top_eigenpairs(op, 1, "LM").eigenvalues).max()
    start, end = (
        (norm(r.residual()), norm(r.ggn())) for r in (risk.at(history.parameters[0]), risk.at(history.parameters[-1]))
    )
    assert end[0] > start[0], "R is not larger"
    assert end[0] / end[1] < start[0] / start[1], "the ratio has not fallen"


ANSWERS["Exercise: stop early"] = test_after_thirty_iterations_the_second_term_has_grown_and_the_first_has_grown_more


@answers("Exercise: clusters that touch")
def test_where_clusters_touch_the_drop_at_rank_k_is_gone():
    clusters = definitions("03_data")["clusters"]
    setting = {"classes": 5, "activation": "relu", "batch_size": 0, "tolerance": 1e-3, "examples": 1000, "seed": 0}
    drops, before = {}, {}
    for std in (1.0, 30.0):
        top = clusters(cluster_std=std, **setting)["top"]
        drops[std], before[std] = top[4] / top[5], top[3] / top[4]
    assert drops[1.0] > 1.5 > 1.25 > drops[30.0], drops
    assert drops[30.0] < before[30.0] < drops[1.0], before


@answers("Exercise: two classes")
def test_two_classes_allow_one_negative_eigenvalue_for_each_unit():
    of_h, of_r, bound = definitions("04_size")["negatives"](2, 6, seed=0, iterations=100)
    assert (of_h, of_r, bound) == (5, 5, 6)


@answers("Exercise: one batch in between")
def test_the_largest_eigenvalue_grows_with_the_batch_on_average():
    ends = {}
    for b in (10, 512):
        where = {"batch": b, "step_size": 0.1, "exact_at": -1}
        found = [r["top"][4, 0] for q, r, _ in claims.stored("converged") if where.items() <= q.items()]
        ends[b] = np.mean([v for v in found if np.isfinite(v)])
    assert ends[10] < ends[512], ends


@answers("Exercise: a smaller step")
def test_with_the_smaller_step_part_one_is_unfinished_and_nothing_rises_on_the_line():
    runs = [r for q, r, _ in claims.stored("basins_digits") if q["step"] == 0.02]
    assert len(runs) == 5 and min(r["loss_large"] for r in runs) > 0.023
    assert max(barrier(r["positions"], r["line_weights"]) for r in runs) < 0.023


@answers("Exercise: how many examples to see a spike")
def test_a_spike_of_one_and_a_half_needs_1600_examples_and_many_more_to_be_told():
    from hesslib.theory import spike_location, spike_overlap

    edge = lambda n: (1 + (400 / n) ** 0.5) ** 2
    assert spike_location(1.5, 400 / 1700) > edge(1700) and spike_overlap(1.5, 400 / 1500) == 0
    assert round(float(spike_overlap(1.5, 400 / 2000)), 2) == 0.14
    assert spike_overlap(1.5, 400 / 4000) < 0.5 + 1e-12
    top_pair = definitions("07_random_matrix")["top_pair"]
    overlap = {n: np.mean([top_pair(1.5, 400 / n, n, seed)[1] for seed in range(20)]) for n in (800, 8000)}
    assert overlap[800] < 0.2 and overlap[8000] > 0.5


@answers("Exercise: a blob away from the origin")
def test_a_blob_away_from_the_origin_has_the_predicted_outlier():
    space = definitions("08_examples")
    x, means = space["prepared"](100, 100, 1, 0, "raw")
    top, guess = space["logistic"](x)[-1], space["predicted"](means, 1.0)[-1]
    assert abs(guess / top - 1) < 0.05
    assert guess < 0.25 * (1 + (means**2).sum())  # c at the centre is less than a quarter


@answers("Exercise: theory on fewer steps")
def test_after_thirty_steps_most_examples_still_carry_the_first_term():
    space, share = definitions("09_population"), {}
    for steps in (30, 3000):
        history, risks = space["network"]("digits", 800, steps, 0)
        share[steps] = space["effective"](risks[1].at(history.parameters[-1])) / 800
    assert share[30] > 0.9 and share[3000] < 0.5


@answers("Exercise: half the step")
def test_half_the_step_ends_at_twice_the_sharpness():
    descend = definitions("10_after")["descend"]
    for step in (1.0, 2.0):
        found = descend(step, 300, 1500, 0)
        assert 0.75 < found["sharpness"][-1] * step / 2 < 1.25, step


@answers("Exercise: another rank")
def test_another_rank_gives_the_rank_of_the_answer():
    found = definitions("11_zeros")["ranks"]("linear", 8, 20, 0)
    assert [found[f"rank_{k}"] for k in "GRH"] == [168, 208, 296] and found["parameters"] == 656


@answers("Exercise: the edge of Adam with less smoothing")
def test_with_less_smoothing_the_edge_of_adam_is_at_six_over_the_step():
    adam_edge = definitions("12_noise")["adam_edge"]
    found = adam_edge(0.01, examples=128, iterations=1000, seed=0, beta_1=0.5)
    assert 0.75 < found["preconditioned"][-1] * 0.01 / 6 < 1.25


@answers("Exercise: twenty classes")
def test_twenty_classes_give_about_a_nineteenth():
    found = definitions("13_today")["class_blocks"](20, 8, 20, 500, 0)
    assert abs(19 * found["linear"] - 1) < 0.15
