"""Small relatives of today's networks, and what is measured on them, on cases whose answer is known."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hesslib import EmpiricalRisk, blocks, ggn_spectrum, spectrum
from hesslib.experiments.today import (
    NETWORKS,
    Places,
    by_class,
    class_blocks,
    data_of,
    densities,
    gauss_newton,
    joined,
    network_of,
    patches,
    settle,
    spectra,
    unlikeness,
    zen,
)


def test_the_text_is_the_one_that_was_used():
    assert len(zen()) == 823 and len(set(zen())) == 25
    assert hashlib.sha256(zen().encode()).hexdigest()[:12] == "1239c3f3261a"


def test_a_convolution_as_a_matrix_is_the_convolution():
    layer, x = Places(3), torch.randn(5, 3, 4, 4)
    assert torch.allclose(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1), atol=1e-6)


def test_patches_hold_the_pixels_of_their_place():
    x = torch.arange(144.0).view(1, 1, 12, 12)
    assert torch.equal(patches(x, 4)[0, 5].view(4, 4), x[0, 0, 4:8, 8:12])


def test_a_character_does_not_see_those_after_it():
    x, _, c = data_of("language", 3, 0)
    model, changed = network_of("language", 4, c, 0), x.clone()
    changed[:, 9:] = 0
    with torch.no_grad():
        before, after = model(x), model(changed)
    assert torch.equal(before[:, :9], after[:, :9]) and not torch.equal(before[:, 9:], after[:, 9:])


def test_targets_are_the_next_characters():
    x, y, _ = data_of("language", 5, 1)
    assert x.shape == y.shape == (5, 16) and torch.equal(x[:, 1:], y[:, :-1])


def test_settled_normalisation_has_the_statistics_of_all_examples():
    x, _, _ = data_of("normalised", 30, 0)
    model = network_of("normalised", 3, 10, 0)
    with torch.no_grad():
        batch = model(x)
        settled = settle(model, x)(x)
    assert not model.training
    assert torch.allclose(batch, settled, rtol=0.05, atol=0.05)  # the variance is that of a sample in one of the two
    with torch.no_grad():
        assert torch.equal(settle(model, x)(x), settled)


@pytest.mark.parametrize("network", NETWORKS)
def test_g_and_r_are_the_two_parts(network):
    x, y, c = data_of(network, 10, 0)
    model = settle(network_of(network, 2, c, 0), x)
    risk = EmpiricalRisk(model, x, y)
    g, h = gauss_newton(risk), risk.hessian().to_dense(progress=False)
    exact = ggn_spectrum(risk.ggn(), progress=False).eigenvalues
    assert np.allclose(torch.linalg.eigvalsh(g), exact, atol=1e-10 * exact[-1])
    v = torch.randn(len(h), dtype=h.dtype)
    assert torch.allclose(risk.residual() @ v, (h - g) @ v, atol=1e-10 * float((h @ v).norm()))


def test_a_run_holds_what_the_library_says():
    found = spectra("vision", "start", 2, 10, 1, 0)
    x, y, c = data_of("vision", 10, 0)
    op = EmpiricalRisk(network_of("vision", 2, c, 0).eval(), x, y).hessian()
    assert np.allclose(found["eigenvalues"], spectrum(op, progress=False).eigenvalues, atol=1e-6)
    parts = blocks(op, "parameter", progress=False)
    of_blocks = np.split(found["block_eigenvalues"], np.cumsum(found["sizes"])[:-1])
    for name, values in zip(found["blocks"], of_blocks, strict=True):
        assert np.allclose(values, parts.eigenvalues[name], atol=1e-6)


def test_the_density_is_that_of_the_exact_spectrum_within_its_errors():
    setting = {"network": "vision", "after": "SGD", "width": 4, "examples": 20, "iterations": 20, "seed": 0}
    values, found = spectra(**setting)["eigenvalues"], densities(**setting)
    assert found["parameters"] == len(values)
    assert np.allclose([found["lowest"], found["largest"]], values[[0, -1]], rtol=1e-4)
    top = values[-1]
    for key, truth in (("bulk", np.abs(values) < top / 1000), ("negatives", values < -top / 1000)):
        share, error = found[key]
        assert abs(share - truth.mean()) < 3 * error + 1e-6 and error < 0.2, key
    width, grid = found["largest"] / 100, found["grid"] * found["largest"]
    exact = np.exp(-(((grid[:, None] - values) / width) ** 2) / 2).mean(1) / np.sqrt(2 * np.pi) * 100
    density, error = found["density"]
    assert (np.abs(density - exact) < 5 * error + 0.02 * exact.max()).all()


def test_unlikeness_is_zero_for_equal_spectra_and_one_for_spectra_apart():
    assert unlikeness([np.array([1.0, 0.1, 0.0])] * 3) == 0
    assert unlikeness([np.array([1.0, 0.9]), np.array([1e-3, 2e-3])]) == pytest.approx(1)
    assert unlikeness([np.array([1.0]), np.array([-1.0])]) == pytest.approx(1)  # signs count
    assert unlikeness([np.array([1.0, 1e-9]), np.array([1.0, -1e-12])]) == 0  # below the floor they do not


def test_blocks_of_classes_agree_with_the_dense_hessian():
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(3, 4, bias=False).double()
    h = EmpiricalRisk(model, x, torch.arange(40) % 4).hessian().to_dense()
    norms = h.view(4, 3, 4, 3).square().sum((1, 3)).sqrt()
    expected = (norms.sum() - norms.trace()) / 12 / (norms.trace() / 4)
    assert by_class(x, model(x).detach().softmax(1)) == pytest.approx(float(expected), rel=1e-10)
    even = torch.full((40, 9), 1 / 9, dtype=torch.float64)
    assert by_class(x, even) == pytest.approx(1 / 8, rel=1e-10)


def test_blocks_off_the_diagonal_fade_with_the_classes():
    few, many = (class_blocks(c, 4, 5, 50, 0) for c in (2, 60))
    assert all(many[k] < few[k] / 2 for k in ("linear", "output", "hidden"))


def test_a_line_begins_and_ends_at_its_networks():
    found = joined("normalised", "SGD", 2, 20, 5, 0)
    assert np.shape(found["losses"]) == (2, 21) and found["losses"][0][0] == found["losses"][1][0]
    expected = [max(row) - max(row[0], row[-1]) for row in found["losses"]]
    assert np.allclose(found["barriers"], expected) and np.isfinite(expected).all()


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="residual, normalised, vision, language"):
        network_of("recurrent", 4, 10, 0)
