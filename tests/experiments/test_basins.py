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


def test_the_rise_after_the_switch_splits_into_the_leading_part_and_the_rest():
    start = parameters_to_vector(alexnet(1, seed=0).parameters()).detach().numpy()
    found = basins.first_steps(
        start, dataset="digits", width=1, step=0.05, batch=20, steps=4, leading=3, examples=100, seed=0, order=0
    )
    assert found["rise"][0] == found["quadratic"][0] == 0 and len(found["rise"]) == len(found["iterations"])
    assert (found["share"] >= 0).all() and (found["share"] <= 1.0001).all() and len(found["eigenvalues"]) == 3
    # for so small a displacement the second order is all there is, and the two parts do not mix
    parts = found["quadratic"] + found["rest"]
    assert np.allclose(parts[1:], found["rise"][1:], atol=0.05 * np.abs(found["rise"]).max() + 1e-6)


def test_what_both_parts_end_at_is_a_mean_of_records_and_nothing_where_nothing_was_run():
    records = {f"train_loss_{part}": np.full(200, float(part)) for part in (1, 2)}
    records |= {f"test_accuracy_{part}": np.r_[np.zeros(150), np.full(50, 0.5 + 0.01 * part)] for part in (1, 2)}
    found = basins.ends_of(records)
    assert abs(found["gain"] - 1) < 1e-9 and found["ratio"] == 2 and found["jump"] == 2 and found["scatter_2"] < 1e-9
    assert set(basins.ends_of(None)) == set(found) and not any(basins.ends_of(None).values())
    t = np.linspace(-1, 2, 31).round(2)
    line = basins.line_numbers({"positions": t, "train_loss": 1 + (abs(t - 0.5) < 0.2)})
    assert line["times"] == 2 and line["barrier"] == 1
