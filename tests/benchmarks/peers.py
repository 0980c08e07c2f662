"""``make bench``: hesslib and its peers on the same work, in one run.

Each measurement is a process of its own, so that one contender's memory and caches are not another's,
and the contenders take turns. A process builds the problem, warms the libraries up on a small one, times
the work once, and reports seconds, peak resident memory and the error against an exact answer. Products are timed many
times over after a first one, which compiles what is compiled and is reported apart.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hesslib import EmpiricalRisk, spectrum, top_eigenpairs
from hesslib._files import replacing
from hesslib.book.paths import ROOT
from hesslib.book.provenance import code_hash, device_name, versions
from hesslib.experiments.data import blobs, mnist
from hesslib.experiments.models import fully_connected
from hesslib.experiments.training import train

OUTPUT = ROOT / "book" / "benchmark.json"
MEMORY_LIMIT = 18 * 2**30  # a contender that wants more is stopped by the system and reported as failing
COLUMNS = 32  # of the convolutional network's dense matrix, where every column costs the same
PRODUCTS = 20  # that are timed together


# -- problems -------------------------------------------------------------------------------------------


def mlp(small: bool = False):
    """100-30-30-10 on 1,000 points of Gaussian clusters, trained."""
    data = blobs(50 if small else 1000, 10, 100, seed=0)
    model = fully_connected([100, 30, 30, 10], scale=0.1, seed=0)
    train(model, data.inputs, data.targets, step_size=0.1, iterations=200, progress=False)
    return model, data.inputs, data.targets


def wide(small: bool = False):
    """784-70-10 on 1,000 MNIST digits, trained."""
    data = mnist(50 if small else 1000, seed=0)
    model = fully_connected([784, 3 if small else 70, 10], seed=0)
    train(model, data.inputs, data.targets, step_size=0.1, iterations=200, progress=False)
    return model, data.inputs, data.targets


def convolutional(small: bool = False):
    """Two convolutions with ReLU and max-pooling, two Linear layers, 11,978 parameters, 1,000 MNIST digits."""
    data = mnist(20 if small else 1000, seed=0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    ).double()  # fmt: skip
    return model, data.inputs.view(-1, 1, 28, 28), data.targets


class Block(nn.Module):
    """Two convolutions with batch normalisation, and what goes around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])

    def forward(self, x):
        return F.relu(x + self.norms[1](self.second(F.relu(self.norms[0](self.first(x))))))


def residual(small: bool = False):
    """Two residual blocks with batch normalisation in evaluation mode, 9,674 parameters, 200 MNIST digits."""
    data = mnist(20 if small else 200, seed=0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), Block(16), Block(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    return model.double().eval(), data.inputs.view(-1, 1, 28, 28), data.targets


# -- contenders -----------------------------------------------------------------------------------------


def our_dense(model, x, y):
    """Hesslib: to_dense."""
    return EmpiricalRisk(model, x, y).hessian().to_dense(progress=False)


def our_spectrum(model, x, y):
    """Hesslib: spectrum, certificates included."""
    return spectrum(EmpiricalRisk(model, x, y).hessian(), progress=False).eigenvalues


def our_top(model, x, y):
    """Hesslib: top_eigenpairs."""
    return top_eigenpairs(EmpiricalRisk(model, x, y).hessian(), 10).eigenvalues


def curvlinops_operator(model, x, y):
    """The Hessian of curvlinops."""
    from curvlinops import HessianLinearOperator

    parameters = curvlinops_parameters(HessianLinearOperator, model)
    return HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False)


def curvlinops_parameters(operator, model):
    """The parameters as an operator of curvlinops takes them: a list up to release 3.0, then a dict by name."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wanted = inspect.signature(operator.__init__).parameters["params"].annotation
    return named if "dict" in str(wanted).lower() else list(named.values())


def curvlinops_dense(model, x, y, columns=None, chunk=64):
    """Curvlinops: products with the unit vectors, 64 at a time."""
    op = curvlinops_operator(model, x, y)
    m = op.shape[0]
    eye = torch.eye(m, columns or m, dtype=torch.float64)
    return torch.cat([op @ part.contiguous() for part in eye.split(chunk, 1)], 1)


def curvlinops_top(model, x, y):
    """Curvlinops and scipy's eigsh at a relative residual of 1e-8."""
    from scipy.sparse.linalg import eigsh

    op = curvlinops_operator(model, x, y).to_scipy(dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(op.shape[0])
    return eigsh(op, 10, which="LA", tol=1e-8, v0=start, return_eigenvectors=True)[0][::-1]


def torch_function(model, x, y):
    """The risk as a function of the flat parameters, and those."""
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def risk(w):
        values = {n: v.view_as(p) for (n, p), v in zip(named.items(), w.split(sizes), strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    return risk, torch.cat([p.detach().flatten() for p in named.values()])


def torch_dense(model, x, y):
    """torch.func.hessian, as it comes."""
    risk, w = torch_function(model, x, y)
    return torch.func.hessian(risk)(w)


def torch_chunked(model, x, y, columns=None):
    """Torch.func: vmap over reverse-over-reverse products, 64 at a time."""
    risk, w = torch_function(model, x, y)
    _, pull = torch.func.vjp(torch.func.grad(risk), w)
    eye = torch.eye(columns or len(w), len(w), dtype=w.dtype)
    return torch.func.vmap(lambda v: pull(v)[0], chunk_size=64)(eye).T


def eigenthings_operator(model, x, y):
    """The Hessian of hessian-eigenthings, exact products."""
    from hessian_eigenthings import HessianOperator, supervised_loss

    return HessianOperator(model, [(x, y)], supervised_loss(nn.CrossEntropyLoss()))


def eigenthings_dense(model, x, y, columns=None):
    """Hessian-eigenthings: products with the unit vectors."""
    op = eigenthings_operator(model, x, y)
    m = sum(p.numel() for p in model.parameters())
    return torch.stack([op.matvec(v) for v in torch.eye(columns or m, m, dtype=torch.float64)], 1)


def eigenthings_top(model, x, y, steps=None):
    """Hessian-eigenthings: lanczos at its default number of steps."""
    from hessian_eigenthings import lanczos

    found = lanczos(eigenthings_operator(model, x, y), k=10, which="LA", seed=0, max_iter=steps)
    return np.sort(np.asarray(found.eigenvalues, dtype=float))[::-1]


def eigenthings_top_40(model, x, y):
    """Hessian-eigenthings: lanczos with 40 steps, enough for this accuracy."""
    return eigenthings_top(model, x, y, steps=40)


def pyhessian_top(model, x, y):
    """PyHessian: power iteration at its defaults."""
    from pyhessian import hessian

    torch.manual_seed(0)
    values, _ = hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False).eigenvalues(top_n=10)
    return np.array(values)


# Of products a contender makes the function that is timed.


def our_product(model, x, y):
    """Hesslib: products with H."""
    op = EmpiricalRisk(model, x, y).hessian()
    return lambda v: op @ v


def double_backward(model, x, y):
    """Torch.autograd: plain double backward."""
    parameters = list(model.parameters())

    def product(v):
        loss = F.cross_entropy(model(x), y)
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        dot = torch.cat([g.reshape(-1) for g in slopes]) @ v
        return torch.cat([p.reshape(-1) for p in torch.autograd.grad(dot, parameters)])

    return product


def torch_product(model, x, y):
    """Torch.func: reverse over reverse."""
    risk, w = torch_function(model, x, y)
    return lambda v: torch.func.vjp(torch.func.grad(risk), w)[1](v)[0]


def compiled_product(model, x, y):
    """torch.compile of reverse over reverse."""
    product = torch.compile(torch_product(model, x, y))
    return lambda v: product(v).detach()


def curvlinops_product(model, x, y):
    """Curvlinops: products with the Hessian."""
    op = curvlinops_operator(model, x, y)
    return lambda v: op @ v


PRODUCT_PEERS = ["double_backward", "torch_product", "compiled_product", "curvlinops_product"]
TASKS = {
    "dense, 100-30-30-10": (
        mlp,
        "our_dense",
        ["curvlinops_dense", "torch_dense", "torch_chunked", "eigenthings_dense"],
    ),
    "top ten, 784-70-10": (
        wide,
        "our_top",
        ["curvlinops_top", "eigenthings_top", "eigenthings_top_40", "pyhessian_top"],
    ),
    "all eigenvalues, 784-70-10": (wide, "our_spectrum", []),
    "dense, two convolutions": (
        convolutional,
        "our_dense",
        ["curvlinops_dense", "torch_chunked", "eigenthings_dense"],
    ),
    f"{PRODUCTS} products, 784-70-10": (wide, "our_product", PRODUCT_PEERS),
    f"{PRODUCTS} products, two convolutions": (convolutional, "our_product", PRODUCT_PEERS),
    f"{PRODUCTS} products, residual network": (residual, "our_product", PRODUCT_PEERS),
}


def partial(task: str, contender: str) -> bool:
    """Whether a contender is timed on some columns and its time scaled up to all of them."""
    return task == "dense, two convolutions" and contender != "our_dense"


# -- one measurement ------------------------------------------------------------------------------------


def measure(task: str, contender: str, folder: Path) -> dict:
    """Time one contender once; called in a process of its own."""
    make, work = TASKS[task][0], globals()[contender]
    if "products" in task:
        return measure_products(task, contender, folder)
    options = {"columns": COLUMNS} if partial(task, contender) else {}
    work(*make(small=True))
    problem = make()
    before = memory_peak()
    start = time.perf_counter()
    found = work(*problem, **options)
    seconds = time.perf_counter() - start
    found = np.asarray(found)
    result = {"seconds": seconds, "peak_gib": memory_peak(), "above_start_gib": memory_peak() - before}
    if options:
        result |= {"seconds": seconds * len(found) / COLUMNS, "columns": COLUMNS, "of": len(found)}
    exact = folder / f"{task.split(',')[1].strip()}-{'dense' if found.ndim == 2 else 'values'}.npy"
    if contender in ("our_spectrum", "our_dense") and not exact.exists():
        np.save(exact, found)
    if exact.exists():
        true = np.load(exact, mmap_mode="r", allow_pickle=False)
        true = true[:, : found.shape[1]] if found.ndim == 2 else np.sort(true)[::-1][: len(found)]
        top = np.sort(found)[::-1] if found.ndim == 1 else found
        result["error"] = float(np.abs(top - true).max() / np.abs(true).max())
    return result


def measure_products(task: str, contender: str, folder: Path) -> dict:
    """Time products with one vector, the first of them and all else that is done once apart."""
    model, x, y = TASKS[task][0]()
    count = sum(p.numel() for p in model.parameters())
    v = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before, start = memory_peak(), time.perf_counter()
    product = globals()[contender](model, x, y)
    product(v)
    first, start = time.perf_counter() - start, time.perf_counter()
    for _ in range(PRODUCTS):
        found = product(v)
    result = {"seconds": time.perf_counter() - start, "first_seconds": first}
    result |= {"peak_gib": memory_peak(), "above_start_gib": memory_peak() - before}
    exact, found = folder / f"{task.split(',')[1].strip()}-product.npy", np.asarray(found)
    if contender == "our_product" and not exact.exists():
        np.save(exact, found)
    if exact.exists():
        true = np.load(exact, allow_pickle=False)
        result["error"] = float(np.abs(found - true).max() / np.abs(true).max())
    return result


def memory_peak() -> float:
    """The highest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matrix_product_speed() -> float:
    """Multiply-adds a second of a large float64 matrix product, the best of five."""
    a = torch.rand(2048, 2048, dtype=torch.float64)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2048**3 / min(times[1:])


def child(task: str, contender: str, folder: Path) -> dict:
    """Run ``measure`` in a new process."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    command = [sys.executable, "-m", "tests.benchmarks.peers", task, contender, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    reason = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
    return {"failed": reason[:300]}


def run(rounds: int = 3, output: Path = OUTPUT) -> dict:
    """The whole benchmark; prints a line per contender and writes the JSON that the book's page shows."""
    import tempfile

    speed = matrix_product_speed()
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(),
        "versions": versions()
        | {p: _version(p) for p in ("curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian")},
        "code": code_hash(),
        "rounds": rounds,
        "matrix_product_gflops": 2 * speed / 1e9,
        "tasks": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child("all eigenvalues, 784-70-10", "our_spectrum", folder)  # the exact answer, and a warm file cache
        for task, (_, ours, peers) in TASKS.items():
            results: dict[str, list[dict]] = {c: [] for c in [ours, *peers]}
            for _ in range(rounds):
                for contender, found in results.items():
                    if not (found and "failed" in found[-1]):
                        found.append(child(task, contender, folder))
            report["tasks"][task] = [summary(task, c, f) for c, f in results.items()]
            for line in report["tasks"][task]:
                print(f"{task:<28} {line['what']:<75} {line.get('seconds', line.get('failed'))}", flush=True)
    m = 4270
    report["limit"] = {"what": "M M N multiply-adds, 100-30-30-10", "seconds": m * m * 1000 / speed}
    with replacing(output, "w") as file:
        file.write(json.dumps(report, indent=1) + "\n")
    return report


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def summary(task: str, contender: str, found: list[dict]) -> dict:
    """Medians over the rounds of one contender."""
    line = {"contender": contender, "what": globals()[contender].__doc__.splitlines()[0].rstrip(".")}
    good = [f for f in found if "failed" not in f]
    if not good:
        return line | {"failed": found[-1]["failed"]}
    line |= {
        "seconds": median(f["seconds"] for f in good),
        "all_seconds": [round(f["seconds"], 3) for f in good],
    }
    line |= {
        key: median(f[key] for f in good) for key in ("peak_gib", "above_start_gib", "first_seconds") if key in good[0]
    }
    errors = [f["error"] for f in good if "error" in f]
    line |= {"error": max(errors)} if errors else {}
    return line | ({"columns": good[0]["columns"], "of": good[0]["of"]} if "columns" in good[0] else {})


if __name__ == "__main__":
    if len(sys.argv) == 4:  # one measurement, in a process of its own
        print(json.dumps(measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
    else:
        run()
