"""What the tests of interrupted runs run in processes of their own, to be killed."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from hesslib import EmpiricalRisk, spectrum
from hesslib._files import StorageError
from hesslib.book import store as store_module
from hesslib.book.store import Store
from hesslib.curvature.operators import CurvatureOperator
from hesslib.experiments.data import blobs
from hesslib.experiments.training import train

PHASES = ("training", "assembly", "eigenvalues", "writing")


class Skip(torch.nn.Module):
    """A network without closed form, so that its Hessian is assembled row by row."""

    def __init__(self, width, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = torch.nn.Linear(8, width), torch.nn.Linear(width, width)
        self.third = torch.nn.Linear(width, 3)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        return self.third(x + torch.tanh(self.second(x)))


def note(folder, text):
    """One line into the log; a line is written by one system call, so that a kill cannot cut it."""
    with (folder / "log").open("a") as log:
        log.write(text + "\n")


def unit(folder, seed, mark=lambda phase: None):
    """Train, assemble, find the eigenvalues, each going on from where it was; a noise array makes the file large."""
    note(folder, f"unit {seed}")
    data, model = blobs(60, 3, 8, seed=seed), Skip(16, seed).double()
    mark("training")

    def measure(model):
        note(folder, "record")
        with torch.no_grad():
            return {"loss": float(F.cross_entropy(model(data.inputs), data.targets))}

    options = {"step_size": 0.2, "iterations": 200, "batch_size": 20, "seed": seed, "record": range(0, 200, 20)}
    history = train(model, data.inputs, data.targets, measure=measure, checkpoint=folder / f"{seed}.npz", **options)
    mark("assembly")
    risk = EmpiricalRisk(model, data.inputs, data.targets)
    values = spectrum(risk.hessian(), "dense", checkpoint=folder / "rows", progress=False).eigenvalues
    noise = np.random.default_rng(seed).standard_normal(50_000)
    return {"eigenvalues": values, "loss": history.measures[-1]["loss"], "noise": noise}


def units(folder, seeds, pipe=None):
    """All units, stored; what is begun is told to the pipe."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # the usual one is a semaphore of the system, which a kill leaks
    if pipe is not None:
        slow_files()
        spy(folder, pipe.send)
    for seed in seeds:
        function = lambda seed: unit(folder, seed, pipe.send if pipe else lambda phase: None)
        Store(folder / "store").run("unit", function, {"seed": seed}, closure="unit")


class Halves:
    """A file into which larger pieces go in two halves, with time in between to be struck."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        half = len(data) // 2 if len(data) > 200 else 0
        if half:
            self.file.write(data[:half])
            self.file.flush()
            time.sleep(0.01)
        return half + self.file.write(data[half:])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def slow_files():
    """Files are put in place slowly, to be struck or met there."""
    replace, opened = Path.replace, Path.open

    def slow_replace(self, target):
        time.sleep(0.01)
        replace(self, target)
        time.sleep(0.01)

    def slow_open(self, mode="r", *args, **options):
        file = opened(self, mode, *args, **options)
        return Halves(file) if "w" in mode else file

    Path.replace, Path.open = slow_replace, slow_open


def spy(folder, mark):
    """Have the library's own steps tell when they begin."""
    eigvalsh, product = torch.linalg.eigvalsh, CurvatureOperator.product

    def marked_eigvalsh(*args, **options):
        mark("eigenvalues")
        return eigvalsh(*args, **options)

    def noted_product(self, vectors):
        note(folder, "rows")
        return product(self, vectors)

    class MarkedLock(store_module.FileLock):
        def acquire(self, *args, **options):
            mark("writing")
            return super().acquire(*args, **options)

    torch.linalg.eigvalsh, CurvatureOperator.product = marked_eigvalsh, noted_product
    store_module.FileLock = MarkedLock


def bulky(seed, size):
    """A result that does not compress, and shows which process made it."""
    return {"noise": np.random.default_rng(seed).standard_normal(size), "process": os.getpid()}


def many_results(folder, seeds, pipe):
    """Results of many settings into a store that others write into too."""
    slow_files()
    pipe.recv()
    for seed in seeds:
        Store(folder).run("bulky", bulky, {"seed": seed, "size": 3000})


def storage_error(function):
    """The message of the StorageError that a function raises."""
    try:
        function()
    except StorageError as error:
        return str(error)
    return "stored"
