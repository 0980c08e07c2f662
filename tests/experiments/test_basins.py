"""Stages of training, small."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from hesslib.experiments import basins
from hesslib.experiments.basins import MEASURES, images, stage
from hesslib.experiments.landscape import loss_and_accuracy
from hesslib.experiments.models import alexnet

SMALL = {"dataset": "digits", "width": 2, "step": 0.02, "batch": 100, "iterations": 12, "every": 4, "seed": 1}
SMALL |= {"precision": "float32", "order": 5}


def losses(weights):
    model, data = alexnet(2, seed=1), images("digits", 1)
    vector_to_parameters(torch.as_tensor(weights).float(), model.parameters())
    return loss_and_accuracy(model, data.inputs, data.targets)[0]


def test_a_stage_records_what_it_says_and_goes_on_from_where_it_is_told():
    first = stage(None, **SMALL)
    assert first["iterations"].tolist() == [0, 4, 8, 12] and first["diverged"] == -1
    assert all(first[name].shape == (4,) for name in MEASURES) and first["weights"].dtype == np.float16
    assert losses(first["weights"]) == pytest.approx(first["train_loss"][-1], abs=1e-3)
    again = stage(first["weights"], **SMALL | {"step": 0.01, "batch": 10, "average": 3})
    assert again["train_loss"][0] == pytest.approx(losses(first["weights"]), rel=1e-6)
    assert again["weights_mean"].shape == again["weights"].shape
    assert not np.array_equal(again["weights_mean"], again["weights"])


def test_a_stopped_stage_ends_as_if_never_stopped(tmp_path, monkeypatch):
    options = SMALL | {"average": 2, "precision": "bfloat16"}
    whole, calls = stage(None, **options), []
    import hesslib.experiments.basins as module

    original = module.loss_and_accuracy
    monkeypatch.setattr(
        module, "loss_and_accuracy", lambda *a: calls.append(1) or (1 / 0 if len(calls) == 5 else original(*a))
    )
    with pytest.raises(ZeroDivisionError):
        stage(None, **options, checkpoint=tmp_path / "c.npz")
    resumed = stage(None, **options, checkpoint=tmp_path / "c.npz")
    assert whole.keys() == resumed.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name])


def test_a_stage_that_diverges_says_where():
    found = stage(None, **SMALL | {"step": 1e6})
    assert 0 < found["diverged"] < 12 and "weights" not in found


SAME = {"dataset": "digits", "width": 1, "seed": 0}


def start():
    return parameters_to_vector(alexnet(1, seed=0).parameters()).detach().numpy()


def test_the_rise_after_the_switch_splits_into_the_leading_part_and_the_rest():
    arms = [(0.05, 20), (0.05, 200)]
    found = basins.first_steps(start(), **SAME, arms=arms, steps=4, leading=3, examples=100, order=0)
    assert found["rise"].shape == (2, 5) and found["iterations"].tolist() == [0, 1, 2, 3, 4]
    assert (found["rise"][:, 0] == 0).all() and (found["quadratic"][:, 0] == 0).all()
    assert (found["along"][:, 0] == 0).all() and len(found["eigenvalues"]) == 3
    # for so small a displacement the second order is all there is, and the two parts do not mix
    parts = found["quadratic"] + found["rest"]
    assert np.allclose(parts, found["rise"], atol=0.05 * np.abs(found["rise"]).max() + 1e-6)
    one = stage(start(), **SAME, step=0.05, batch=20, iterations=4, every=4, precision="float32", order=0)
    loss = lambda w: basins.risk_over(w, **SAME, examples=100).loss()
    assert found["loss"] == pytest.approx(loss(start()), rel=1e-6)
    moved = np.linalg.norm(one["weights"].astype(float) - start())
    assert np.hypot(found["along"][0, -1], found["across"][0, -1]) == pytest.approx(moved, rel=0.05)  # half precision
    assert found["rise"][0, -1] == pytest.approx(loss(one["weights"]) - loss(start()), abs=2e-4)  # half precision


def test_the_line_has_at_its_ends_what_the_stages_record():
    first = stage(None, **SMALL)
    second = stage(first["weights"], **SMALL | {"batch": 10})
    same = {k: SMALL[k] for k in ("dataset", "width", "seed")}
    found = basins.on_line(first["weights"], second["weights"], [-1, 0, 0.5, 1], **same)
    assert found["positions"].tolist() == [-1, 0, 0.5, 1]
    assert found["train_loss"][1] == pytest.approx(second["train_loss"][0], rel=1e-6)
    assert found["test_loss"][3] == pytest.approx(second["test_loss"][-1], abs=1e-3)  # half precision


def test_curvature_agrees_with_the_whole_spectrum_and_the_noise_with_its_covariance():
    found = basins.curvature(start(), **SAME, examples=60, leading=3, probes=40, steps=60, batch=1, picks=60)
    risk = basins.risk_over(start(), **SAME, examples=60)
    values = np.linalg.eigvalsh(risk.hessian().to_dense())[::-1]
    np.testing.assert_allclose(found["eigenvalues"], values[:3], rtol=1e-2)
    assert found["converged"] and found["negative"] <= 0 <= found["absolute"]
    for name, true in (
        ("trace", values.sum()),
        ("negative", values[values < 0].sum()),
        ("absolute", abs(values).sum()),
    ):
        assert abs(found[name] - true) < 5 * found[f"{name}_error"] + 0.02 * abs(values).sum(), name
    # batches of one: the mean of the squared noise is the trace of the gradient's covariance
    each = [basins.EmpiricalRisk(risk.model, *one).at(risk.vector).gradient() for one in singles(60)]
    noise = torch.stack(each) - risk.gradient()
    assert found["noise"].mean() == pytest.approx(float((noise**2).sum(1).mean()), rel=0.5)
    assert (found["noise_inside"].sum(1) <= found["noise"] * 1.001).all()


def singles(count):
    data = images("digits", 0)
    return [(data.inputs[i : i + 1], data.targets[i : i + 1]) for i in range(count)]


def test_the_ends_of_stages_are_means_over_the_last_fifth_of_the_records():
    records = lambda loss, accuracy: {"train_loss": np.r_[np.full(200, 9.0), np.full(50, loss)],
                                      "test_accuracy": np.r_[np.zeros(200), np.full(50, accuracy)]}  # fmt: skip
    stages = {"large": records(1, 0.5), "small": records(2, 0.6), "control": records(0.5, 0.57)}
    found = basins.ends_of(stages)
    assert found["large_loss"] == 1 and found["level"] == 2 and found["small_jump"] == 9
    assert found["small_scatter"] < 1e-9
    assert found["gain"] == pytest.approx(3) and found["since"] == pytest.approx(10)
