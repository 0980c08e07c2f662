"""``make cost``: what each method costs against M, N and C, measured and fitted.

Networks 100-h-h-C on random inputs, which cost what trained ones do. Time is processor time of one thread, so that
other work on the machine disturbs it little; memory is the highest use above what there was before.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from hesslib import EmpiricalRisk, spectral_density, spectrum, top_eigenpairs
from hesslib._files import replacing
from hesslib._progress import bar
from hesslib.book.paths import ROOT
from hesslib.book.provenance import code_hash, device_name, versions
from hesslib.experiments.models import alexnet, fully_connected

OUTPUT = ROOT / "book" / "method_costs.json"
DIMENSION, CLASSES = 100, 10
SIZES = (1e3, 3.1e3, 1e4, 3.1e4, 1e5, 3.1e5, 1e6)
FLOOR = 0.002  # seconds; what is shorter is overhead and not fitted
PROBES, STEPS = 2, 20

# What is timed, after one product with the same operator has set it up; the largest M for which it is; and M and N
# around which N and C are varied.
METHODS = {
    "gradient": (lambda op: op.risk.gradient(), 1e6, 1e5, 2000),
    "product, closed form": (lambda op: op.product(unit(op)), 1e6, 1e5, 2000),
    "product, automatic differentiation": (lambda op: op._autograd_product(unit(op)), 1e6, 1e5, 2000),
    "matrix, closed form": (lambda op: op.to_dense(progress=False), 1e4, 3.1e3, 1000),
    "matrix, M products": (lambda op: columns(op), 1e4, 1e3, 200),
    "all eigenvalues of H from the matrix": (lambda op: spectrum(op, "dense", progress=False), 1e4, 3.1e3, 200),
    "all eigenvalues of G from its Gram matrix": (
        lambda op: spectrum(op.risk.ggn(), "gram", progress=False), 1e6, 1e4, 200),
    "ten largest eigenpairs": (lambda op: top_eigenpairs(op, 10, progress=False), 1e6, 1e5, 500),
    f"density, {PROBES} probes of {STEPS} steps": (
        lambda op: spectral_density(op, PROBES, STEPS, progress=False), 1e6, 1e5, 500),
}  # fmt: skip


def columns(op) -> torch.Tensor:
    """The matrix from products with unit vectors, 64 at a time."""
    basis = torch.eye(op.shape[0], dtype=torch.float64)
    return torch.cat([op._autograd_product(part) for part in basis.split(64)])


def unit(op) -> torch.Tensor:
    """One row (1, M)."""
    return torch.ones(1, op.shape[0], dtype=torch.float64)


def problem(m: float, n: int, c: int):
    """The Hessian of a network 100-h-h-C with about M parameters, at N random examples."""
    b = DIMENSION + 2 + c  # h h + b h + c = M
    h = max(1, round((-b + (b * b + 4 * (m - c)) ** 0.5) / 2))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, DIMENSION, dtype=torch.float64, generator=generator)
    y = torch.randint(c, (n,), generator=generator)
    return EmpiricalRisk(fully_connected([DIMENSION, h, h, c], seed=0), x, y).hessian()


def memory(key: str) -> int:
    """An entry of this process's status in bytes: VmRSS, or VmHWM, the highest since the last reset (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def measure(work, op) -> tuple[float, int]:
    """Processor seconds (the best of five runs if they are short) and bytes above the start."""
    op.product(unit(op))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before, times = memory("VmRSS"), []
    while not times or (len(times) < 5 and times[0] < 1):
        start = time.process_time()
        work(op)
        times.append(time.process_time() - start)
    return min(times), max(0, memory("VmHWM") - before)


def points(largest: float, middle: float, examples: int) -> list[tuple[float, int, int]]:
    """The settings (M, N, C) of a method: M varied up to the largest, N and C around the middle."""
    found = [(m, examples, CLASSES) for m in SIZES if m <= largest]
    found += [(middle, int(examples * f), CLASSES) for f in (0.25, 0.5, 2)]
    return found + [(middle, examples, c) for c in (2, 5, 20)]


def fitted(rows: list[dict], what: str, floor: float) -> dict | None:
    """Least squares of log(what) on log M, log N and log C, over what is above the floor."""
    rows = [r for r in rows if r[what] >= floor]
    if len(rows) < 5:
        return None
    design = np.log([[np.e, r["M"], r["N"], r["C"]] for r in rows])
    varied = [0, *(i for i in (1, 2, 3) if np.ptp(design[:, i]) > 0)]
    solution = np.zeros(4)
    target = np.log([r[what] for r in rows])
    solution[varied] = np.linalg.lstsq(design[:, varied], target, rcond=None)[0]
    worst = float(np.exp(np.abs(design @ solution - target).max()))
    powers = {name: float(solution[i]) if i in varied else None for i, name in ((1, "M"), (2, "N"), (3, "C"))}
    return {"constant": float(np.exp(solution[0])), **powers, "points": len(rows), "worst_factor": worst}


def multiply_adds(model: torch.nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds of the Linear and convolutional layers for one example, by the layers' own shapes."""
    total, hooks = [], []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            count = lambda layer, _, out: total.append(out[0].numel() * layer.weight[0].numel())
            hooks.append(layer.register_forward_hook(count))
    with torch.no_grad():
        model(x[:1])
    for hook in hooks:
        hook.remove()
    return sum(total)


def resnet18() -> tuple[int, int]:
    """Parameters and multiply-adds for one example of ResNet-18 in its usual form for 32 x 32 images."""
    layers = [(3, 64, 3, 32)]  # channels in and out, width of the filter, width of the map
    for width, size in ((64, 32), (128, 16), (256, 8), (512, 4)):
        before = layers[-1][1]
        layers += [(before, width, 3, size)] + [(width, width, 3, size)] * 3
        layers += [(before, width, 1, size)] if before != width else []
    layers.append((512, 10, 1, 1))
    weights = sum(i * o * k * k for i, o, k, _ in layers)
    normalised = 2 * sum(o for _, o, _, _ in layers[:-1])
    # the shortcuts' convolutions precede nothing: their place among the layers does not matter here
    return weights + normalised + 10, sum(i * o * k * k * s * s for i, o, k, s in layers)


def predictions(seconds: float, gradients: float) -> list[dict]:
    """What is ahead for two larger models.

    Args:
        seconds: of a product for each example and multiply-add of the model, as measured here.
        gradients: cost of a product in units of a gradient, which takes the model's multiply-adds three times: once
            forwards, and backwards for the layers' inputs and their weights.
    """
    m, f = resnet18()
    models = [
        {"model": "ResNet-18, CIFAR-10", "M": m, "N": 50_000, "F": f},
        # a transformer multiplies and adds about once for each parameter and token
        {"model": "1e9 parameters, 1e6 tokens", "M": 10**9, "N": 10**6, "F": 10**9},
    ]
    for row in models:
        row["multiply_adds"] = 3 * gradients * row["N"] * row["F"]
        row["seconds_here"] = seconds * row["N"] * row["F"]
        row["matrix_bytes"] = 8 * row["M"] ** 2
        row["basis_bytes"] = 4 * 120 * row["M"]
        row["density_bytes"] = 4 * 10 * 80 * row["M"]
        row["traffic_bytes"] = 2 * 4 * row["M"]
    return models


def product_cost(width: int, examples: int = 50) -> dict:
    """Seconds of a gradient and of a product on a convolutional network in single precision, the best of three."""
    x = torch.randn(examples, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    risk = EmpiricalRisk(alexnet(width, seed=0), x, torch.arange(examples) % 10)
    op, times = risk.hessian(), {}
    row = torch.ones(1, op.shape[0])
    for name, call in (("product", lambda: op._autograd_product(row)), ("gradient", risk.gradient)):
        times[name] = []
        for _ in range(4):  # the first sets it up
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    seconds, f = min(times["product"][1:]), multiply_adds(risk.model, x)
    each = seconds / (examples * f)
    return {"M": op.shape[0], "F": f, "seconds_each": each, "gradients": seconds / min(times["gradient"][1:])}


def run(output: Path = OUTPUT) -> dict:
    """Measure every method at every setting, fit, predict, and write the JSON that the book's page shows."""
    torch.set_num_threads(1)
    load = os.getloadavg()[1]
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(),
        "versions": versions(),
        "code": code_hash(),
        "classes": CLASSES,
        "floor": FLOOR,
        "cores": os.cpu_count(),
        "methods": {},
    }
    work = [(name, call, setting) for name, (call, *where) in METHODS.items() for setting in points(*where)]
    rows: dict[str, list[dict]] = {name: [] for name in METHODS}
    for name, call, (m, n, c) in bar(work, desc="cost"):
        op = problem(m, n, c)
        seconds, used = measure(call, op)
        rows[name].append({"M": op.shape[0], "N": n, "C": c, "seconds": seconds, "bytes": used})
    for name, found in rows.items():
        fits = {"seconds": fitted(found, "seconds", FLOOR), "bytes": fitted(found, "bytes", 2**22)}
        report["methods"][name] = {"rows": found, "fit": fits, "N": METHODS[name][3]}
    # a small convolutional network, and a larger one that shows how well its cost for each multiply-add carries over
    report["product"], report["check"] = product_cost(16), product_cost(64)
    report["predictions"] = predictions(report["product"]["seconds_each"], report["product"]["gradients"])
    report["load"] = max(load, os.getloadavg()[1])
    with replacing(output, "w") as file:
        file.write(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    run()
