"""Wrong inputs over all notebooks and the public functions: one message with name, value and what is valid."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator

from hesslib import EmpiricalRisk, count_outliers, spectral_density, spectrum, top_eigenpairs
from hesslib.book import parameters, runner
from hesslib.book.parameters import ParameterError
from hesslib.book.store import Store
from hesslib.cli import main
from hesslib.curvature import dense, lanczos
from hesslib.curvature import spectrum as spectrum_module
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.landscape import along_line, barrier
from hesslib.experiments.models import alexnet, convolutional, fully_connected
from hesslib.experiments.training import DivergenceError, train
from hesslib.theory import MarchenkoPastur, TracyWidom, spike_location

# -- notebooks: the cell of parameters and the one that resolves them, with each parameter set wrongly -----------


def beginning(source):
    """What each parameter may be, and a function that runs the notebook's beginning with other values."""
    cells = [c for c in runner.read(source).cells if c.cell_type == "code"]
    at = next(i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    last = next(i for i, c in enumerate(cells) if "resolve(" in c.source)
    declare, resolve = cells[at].source, "\n".join(c.source for c in cells[at + 1 : last + 1])

    def run(**changes):
        namespace = {"In": ["", declare, "# Parameters\n" + "\n".join(f"{k} = {v!r}" for k, v in changes.items())]}
        exec(declare, namespace)
        exec(resolve, {**namespace, **changes})

    ranges, real = {}, parameters.resolve
    try:
        parameters.resolve = lambda namespace, **found: (ranges.update(found), real(namespace, **found))[1]
        run()
    finally:
        parameters.resolve = real
    return ranges, run


def wrong_values(name, allowed):
    """Values that a range must refuse, and the text that the message must show for each."""
    if allowed.choices:
        return [("absent", "'absent'"), (3, "3")]
    if allowed.many:
        good = allowed.low if allowed.low is not None else 1
        found = [([good, "x"], "'x'"), ([None], "None"), ("x", "'x'"), ({"a": 1}, "{'a': 1}")]
        found += [([allowed.low - 1], str(allowed.low - 1))] if allowed.low is not None else []
        return found + ([] if allowed.presets else [([], "[]")])
    found = [("many", "'many'"), (None, "None"), (True, "True"), ([1], "[1]"), (math.nan, "nan")]
    found += [(-math.inf, "-inf")] if allowed.type is float else [(2.5, "2.5")]
    low = None if allowed.low is None else -1 if allowed.presets else allowed.low - 1  # 0 stands for the preset
    found += [(low, str(low))] if low is not None else []
    found += [(allowed.high * 2 + 1, str(allowed.high * 2 + 1))] if allowed.high is not None else []
    return found


def in_notebooks():
    for source in runner.sources([]):
        ranges, run = beginning(source)
        yield pytest.param(run, "scale", "huge", "'huge'", "'smoke', 'quick', 'paper'", id=f"{source.stem}-scale")
        for name, allowed in ranges.items():
            for value, shown in wrong_values(name, allowed):
                yield pytest.param(run, name, value, shown, None, id=f"{source.stem}-{name}={value}")
        first = next(iter(ranges))
        yield pytest.param(run, first + "x", 1, "1", f"did you mean {first!r}?", id=f"{source.stem}-misspelt")


NOTEBOOKS = list(in_notebooks())


@pytest.mark.parametrize(("run", "name", "value", "shown", "valid"), NOTEBOOKS)
def test_notebook(run, name, value, shown, valid):
    with pytest.raises(ParameterError) as caught:
        run(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} = ") and shown in message and "\n" not in message
    assert valid in message if valid else " is not valid: give " in message


# -- functions -----------------------------------------------------------------------------------------------


def data(**options):
    return blobs(**{"examples": 20, "classes": 3, "dimension": 4, "seed": 0, **options})


def network(**options):
    return fully_connected([4, 5, 3], seed=0, **options)


def risk(**changes):
    d = data()
    given = {"model": network(), "inputs": d.inputs, "targets": d.targets, **changes}
    return EmpiricalRisk(**given)


def trained(**options):
    d = data()
    given = {"inputs": d.inputs, "targets": d.targets, "step_size": 0.1, "iterations": 5, "progress": False, **options}
    return train(network(), **given)


def with_nan(tensor):
    tensor = tensor.clone()
    tensor[1, 2] = math.nan
    return tensor


MATRIX = aslinearoperator(np.diag(np.arange(1.0, 21.0)))
FUNCTIONS = {
    # data
    "examples=5: give a whole number from 10 to 4990": lambda: mnist(5),
    "examples=5000: give a whole number from 10 to 4990": lambda: mnist(5000),
    "examples='100': give a whole number": lambda: mnist("100"),
    "examples=100.0: give a whole number": lambda: mnist(100.0),
    "seed=-1: give a whole number of at least 0": lambda: mnist(100, seed=-1),
    "seed=None: give a whole number": lambda: mnist(100, seed=None),
    "classes=21: give a whole number from 2 to 20": lambda: data(classes=21),  # N smaller than C
    "classes=1: give a whole number from 2 to 20": lambda: data(classes=1),
    "classes=True: give a whole number": lambda: data(classes=True),
    "examples=0: give a whole number of at least 2": lambda: data(examples=0),
    "dimension=0: give a whole number of at least 1": lambda: data(dimension=0),
    "cluster_std=0: give a positive finite number": lambda: data(cluster_std=0),
    "cluster_std=nan: give a positive finite number": lambda: data(cluster_std=math.nan),
    "cluster_std='1': give a positive finite number": lambda: data(cluster_std="1"),
    "separation=-1: give at least 0": lambda: data(separation=-1),
    "separation=nan: give at least 0": lambda: data(separation=math.nan),
    "no more classes than dimension=2": lambda: data(separation=1.0, dimension=2),
    # networks
    "sizes=[]: give at least input and output width": lambda: fully_connected([], seed=0),
    "sizes=[4]: give at least input and output width": lambda: fully_connected([4], seed=0),
    "sizes=[4, 0, 3], entry 1=0: give a whole number of at least 1": lambda: fully_connected([4, 0, 3], seed=0),
    "sizes=[4, 2.5], entry 1=2.5: give a whole number": lambda: fully_connected([4, 2.5], seed=0),
    "activation='swish' is unknown: give one of relu, tanh": lambda: network(activation="swish"),
    "scale=-0.1: give a positive finite number": lambda: network(scale=-0.1),
    "seed='a': give a whole number": lambda: fully_connected([4, 3], seed="a"),
    "width=0: give a whole number of at least 1": lambda: alexnet(0, seed=0),
    "classes=1: give a whole number of at least 2": lambda: alexnet(4, 1, seed=0),
    "filters=(8,)": lambda: convolutional((8,), seed=0),
    # training
    "batch_size=21: give a whole number from 0 to 20": lambda: trained(batch_size=21),
    "batch_size=-1: give a whole number from 0 to 20": lambda: trained(batch_size=-1),
    "iterations=-1: give a whole number of at least 0": lambda: trained(iterations=-1),
    "iterations=1.5: give a whole number": lambda: trained(iterations=1.5),
    "step_size=0: give a positive finite number": lambda: trained(step_size=0),
    "step_size=-0.1: give a positive finite number": lambda: trained(step_size=-0.1),
    "step_size=inf: give a positive finite number": lambda: trained(step_size=math.inf),
    "step_size='0.1': give a positive finite number": lambda: trained(step_size="0.1"),
    "seed=-3: give a whole number": lambda: trained(seed=-3),
    "inputs: contains NaN or infinite values": lambda: trained(inputs=with_nan(data().inputs)),
    "targets: 19 given for 20 inputs": lambda: trained(targets=data().targets[:19]),
    "targets: class indices from 1 to 3, but the model has outputs 0 to 2": lambda: trained(targets=data().targets + 1),
    # the risk
    "model: an nn.Module is needed, got 'net'": lambda: risk(model="net"),
    "model: its parameters are on the device 'meta'": lambda: risk(model=network().to("meta")),
    "inputs are on meta, targets on cpu, the model on cpu": lambda: risk(inputs=data().inputs.to("meta")),
    "model: its parameters are torch.float16; float32 or float64 is needed": lambda: risk(model=network().half()),
    "inputs: dtype torch.float32 differs from the model's": lambda: risk(inputs=data().inputs.float()),
    "inputs: a tensor or a list of tensors is needed": lambda: risk(inputs=[[1.0] * 4] * 20),
    "there must be at least one batch": lambda: risk(inputs=data().inputs[:0], targets=data().targets[:0]),
    "targets: 5 given for 20 inputs": lambda: risk(targets=data().targets[:5]),
    "from 0 to 2, got torch.int64 (20,) from 1 to 3": lambda: risk(targets=data().targets + 1),
    "got torch.int64 (20,) from -1 to 1": lambda: risk(targets=data().targets - 1),
    "targets: cross-entropy needs int64 class indices": lambda: risk(targets=data().targets.double()),
    "targets: mse needs the outputs' shape (N, *(3,)), got (20,)": lambda: risk(loss="mse"),
    "loss='hinge' is unknown: give one of 'cross_entropy', 'mse', 'binary_cross_entropy' or a callable": lambda: risk(
        loss="hinge"
    ),
    "parameters=['first.weight']: give names, at least one of 0.weight": lambda: risk(parameters=["first.weight"]),
    "parameters=[]: give names": lambda: risk(parameters=[]),
    "output='softmax' is unknown: give one of": lambda: risk().ggn("softmax"),
    "vector: shape (3,) given, (43,) needed": lambda: risk().at(torch.zeros(3)),
    "H @ V: V has shape (3,), (43,) or (43, k) needed": lambda: risk().hessian() @ torch.zeros(3),
    # spectra
    "method='qr' is unknown: give 'auto', 'dense' or 'gram'": lambda: spectrum(risk().hessian(), "qr"),
    "tolerance=-1: it must not be negative": lambda: spectrum(risk().hessian()).count_negative(-1),
    "k=0: give a whole number from 1 to 20": lambda: top_eigenpairs(MATRIX, 0),
    "k=21: give a whole number from 1 to 20": lambda: top_eigenpairs(MATRIX, 21),
    "k=1.5: give a whole number from 1 to 20": lambda: top_eigenpairs(MATRIX, 1.5),
    "which='BE' is unknown: give one of 'LA', 'SA', 'LM'": lambda: top_eigenpairs(MATRIX, 1, "BE"),
    "tolerance=-1.0: give a positive finite number": lambda: top_eigenpairs(MATRIX, 1, tolerance=-1.0),
    "max_products=2: k=3 pairs need at least as many": lambda: top_eigenpairs(MATRIX, 3, max_products=2),
    "max_products=0: give a whole number of at least 1": lambda: top_eigenpairs(MATRIX, 3, max_products=0),
    "probes=0: give a whole number of at least 1": lambda: spectral_density(MATRIX, 0),
    "probes=2.0: give a whole number of at least 1": lambda: spectral_density(MATRIX, 2.0),
    "steps=-5: give a whole number of at least 1": lambda: spectral_density(MATRIX, 2, -5),
    "width=0: give a positive finite number": lambda: spectral_density(MATRIX, 2, 5).density(np.zeros(3), 0),
    "rule='knee' is unknown: give one of 'gap'": lambda: count_outliers([2.0, 1.0], "knee"),
    "cutoff: rule='threshold' needs one": lambda: count_outliers([2.0, 1.0], "threshold"),
    "eigenvalues: finite numbers (M,) are needed": lambda: count_outliers([2.0, math.nan], "gap"),
    "eigenvalues: a rule needs at least two": lambda: count_outliers([], "gap"),
    # random matrices and lines
    "ratio=0: give a positive finite number": lambda: MarchenkoPastur(0),
    "ratio=nan: give a positive finite number": lambda: MarchenkoPastur(math.nan),
    "variance=-1: give a positive finite number": lambda: MarchenkoPastur(0.5, -1),
    "ell=0.0: population eigenvalues must be positive": lambda: spike_location(0, 0.5),
    "beta=3: give 1 (real data) or 2 (complex data)": lambda: TracyWidom(3),
    "q=1.5: probabilities must lie between 0 and 1": lambda: TracyWidom(1).ppf(1.5),
    "start: shape (3,) given, (43,) needed": lambda: along_line(network(), torch.zeros(3), torch.zeros(43), [0], len),
    "positions=[0.0, 0.5]: give one for each of 2 losses": lambda: barrier([0, 0.5], [1, 2]),
    # the store
    "jobs=0: give a whole number of at least 1": lambda: Store("absent").sweep("x", barrier, [], run=True, jobs=0),
}


@pytest.mark.parametrize("message", FUNCTIONS)
def test_function(message):
    with pytest.raises(ValueError) as caught:
        FUNCTIONS[message]()
    assert message in str(caught.value) and "\n" not in str(caught.value)


OTHERS = {
    "op: a CurvatureOperator (risk.hessian(), risk.ggn(), ...) is needed": (TypeError, lambda: spectrum(MATRIX)),
    "parameters of x: Object of type Tensor is not JSON serializable; give numbers": (
        TypeError, lambda: Store("absent").load("x", {"w": torch.zeros(2)})),
    "two evaluations of the model differ: call model.eval()": (
        RuntimeError, lambda: risk(model=torch.nn.Sequential(network(), torch.nn.Dropout(0.5)))),
}  # fmt: skip


@pytest.mark.parametrize("message", OTHERS)
def test_other_errors(message):
    kind, call = OTHERS[message]
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("step_size", [1e200, 1e300])
def test_divergence_names_the_step(step_size):
    message = rf"training diverged at iteration [12]: .*step_size={step_size:.0e}".replace("+", r"\+")
    with pytest.raises(DivergenceError, match=message):
        trained(step_size=step_size, iterations=50)


def test_a_record_never_holds_what_is_not_a_number():
    """Whatever the step, training ends with finite records or with the step at which it diverged."""
    for step_size in 10.0 ** np.arange(0, 309, 44):
        try:
            history = trained(step_size=float(step_size), iterations=30, record=range(30))
        except DivergenceError as error:
            assert "diverged at iteration" in str(error)
        else:
            assert np.isfinite(history.losses).all() and np.isfinite(history.gradient_norms).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: risk().hessian().to_dense(), r"H: 43 x 43 needs .* GiB and .* GiB are free; use"),
        (lambda: spectrum(risk().hessian(), "dense"), r"H: eigenvalues of a matrix of order 43 need .* GiB"),
        (
            lambda: spectrum(risk().hessian(), "gram"),
            r"eigenvalues of a matrix of order \d+ need .* dense: order 43",
        ),
        (lambda: top_eigenpairs(MATRIX, 3), r"k=3: 20 vectors of length M=20 need .* ask for less"),
        (
            lambda: spectral_density(MATRIX, 4, 10),
            r"probes=4, steps=10: 56 vectors of length M=20 need .*",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_allocated(monkeypatch, call, message):
    for module in (dense, lanczos, spectrum_module):
        monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match=message):
        call()


COMMANDS = {
    "notebook '99' is not there: 0": ["run", "99"],
    "sede is not a parameter (did you mean 'seed'?)": ["run", "01", "-p", "sede=5"],
    "-p seed: give NAME=VALUE": ["run", "01", "-p", "seed"],
    "-p =5: give NAME=VALUE": ["run", "01", "-p", "=5"],
    "jobs = '-2' is not valid: give a whole number >= 1": ["run", "01", "--jobs", "-2"],
    "invalid choice: 'huge' (choose from": ["run", "01", "--scale", "huge"],
    "invalid choice: 'walk'": ["walk"],
}


@pytest.mark.parametrize("message", COMMANDS)
def test_command(message, capsys):
    try:
        status = main(COMMANDS[message])
    except SystemExit as error:
        status = error.code
    assert status == 2 and message in capsys.readouterr().err


def test_the_table_is_as_long_as_promised():
    assert len(NOTEBOOKS) >= 60 and len(FUNCTIONS) + len(OTHERS) + len(COMMANDS) >= 60
