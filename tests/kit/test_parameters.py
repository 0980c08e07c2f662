import pytest

from hesslib.book.parameters import ParameterError, choice, integer, integers, real, resolve

RANGES = {
    "data": choice("mnist", "blobs"),
    "hidden": integers(1, smoke=[2], quick=[6, 12], paper=[6, 12]),
    "seed": integer(0),
    "iterations": integer(1, smoke=3, quick=5, paper=7),
    "step_size": real(1e-6, 100),
}
GOOD = {"scale": "quick", "data": "mnist", "hidden": [], "seed": 0, "iterations": 0, "step_size": 0.1}


def test_presets_fill_what_is_left_open():
    p = resolve(GOOD, **RANGES)
    assert (p.hidden, p.iterations, p.seed, p.step_size) == ([6, 12], 5, 0, 0.1)
    assert resolve({**GOOD, "scale": "paper", "hidden": [3]}, **RANGES).hidden == [3]
    assert resolve({**GOOD, "scale": "smoke"}, **RANGES).iterations == 3


def test_lists_may_come_as_text_and_whole_numbers_as_steps():
    p = resolve({**GOOD, "hidden": "[8, 8]", "step_size": 1}, **RANGES)
    assert p.hidden == [8, 8] and p.step_size == 1.0 and isinstance(p.step_size, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "huge"}, "scale = 'huge' is not valid: give one of 'smoke', 'quick', 'paper'"),
        ({"data": "cifar"}, "data = 'cifar'.*'mnist', 'blobs'"),
        ({"hidden": [0]}, "hidden = 0 is not valid: give a whole number >= 1"),
        ({"hidden": "8"}, "hidden = 8 is not valid: give a list of at least one"),
        ({"hidden": "eight"}, "hidden = 'eight'"),
        ({"hidden": [8.5]}, "hidden = 8.5"),
        ({"seed": -1}, "seed = -1 is not valid: give a whole number >= 0"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"seed": True}, "seed = True"),
        ({"seed": "3"}, "seed = '3'"),
        ({"iterations": -5}, "iterations = -5"),
        ({"step_size": 0}, "step_size = 0.0 is not valid: give a number >= 1e-06 and <= 100"),
        ({"step_size": float("nan")}, "step_size = nan"),
        ({"step_size": None}, "step_size = None"),
    ],
)
def test_wrong_values_name_the_parameter_and_what_is_valid(change, message):
    with pytest.raises(ParameterError, match=message):
        resolve({**GOOD, **change}, **RANGES)


def test_an_injected_name_that_is_not_declared_is_refused():
    history = {"In": ["", "seed: int = 0", "# Parameters\nseed = 4\nsede = 5\n"], "sede": 5}
    with pytest.raises(ParameterError, match=r"sede = 5 is not a parameter.*did you mean 'seed'.*scale, data, hidden"):
        resolve({**GOOD, **history}, **RANGES)


def test_variables_of_the_notebook_itself_are_no_concern():
    assert resolve({**GOOD, "In": ["x = 1", "# Parameters\nseed = 0"], "other": 3}, **RANGES).seed == 0


def test_a_missing_parameters_cell_is_named():
    with pytest.raises(ParameterError, match="seed: not set"):
        resolve({k: v for k, v in GOOD.items() if k != "seed"}, **RANGES)


def test_jupyter_shows_the_message_alone():
    assert ParameterError("seed = -1")._render_traceback_() == ["ParameterError: seed = -1"]


@pytest.mark.parametrize(("variable", "scale", "expected"), [(None, "quick", 1), ("2", "quick", 2), (None, "paper", 2)])
def test_a_chapter_computes_on_one_thread_unless_told(monkeypatch, variable, scale, expected):
    import torch

    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    try:
        torch.set_num_threads(2)
        resolve({"scale": scale})
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
