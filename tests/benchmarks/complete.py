"""Every eigenvalue of G of AlexNet (and of ResNet-18): seconds, processor seconds and the highest memory.

``python -m tests.benchmarks.complete [alexnet|resnet18] [EXAMPLES]`` prints what it measured and keeps it in
``book/complete_costs.json``, which the page on the benchmark shows. It needs CIFAR-10 in the data folder
(``hesslib.experiments.data``); two cores are enough.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import date

import numpy as np
import torch

from hesslib import EmpiricalRisk, ggn_spectrum
from hesslib._files import replacing
from hesslib.book.paths import ROOT
from hesslib.book.provenance import commit, device_name
from hesslib.experiments.data import cifar10
from hesslib.experiments.models import alexnet
from tests.curvature.test_ggn import resnet18

OUTPUT = ROOT / "book" / "complete_costs.json"


def measure(name: str, examples: int) -> dict:
    """The spectrum of a network at its random start, over the first training images."""
    data = cifar10()
    x, y = data.inputs[:examples].double(), data.targets[:examples].clone()
    del data
    torch.manual_seed(0)
    model = alexnet(64, seed=0, dtype=torch.float64) if name == "alexnet" else resnet18().double().eval()
    op = EmpiricalRisk(model, x, y).ggn()
    start = time.process_time()
    s = ggn_spectrum(op)
    return {
        "M": len(s.eigenvalues),
        "N": examples,
        "seconds": round(s.seconds, 1),
        "processor_seconds": round(time.process_time() - start, 1),
        "threads": torch.get_num_threads(),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "nonzero": int((s.eigenvalues > 1e-14 * s.eigenvalues[-1]).sum()),
        "largest": float(np.max(s.eigenvalues)),
        "certificates": s.certificates,
        "reason": s.reason,
        "device": device_name(),
        "commit": commit()[0],
        "date": date.today().isoformat(),
    }


if __name__ == "__main__":
    network = sys.argv[1] if len(sys.argv) > 1 else "alexnet"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else {"alexnet": 1000, "resnet18": 100}[network]
    kept = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    kept[network] = measure(network, count)
    print(json.dumps(kept[network]))
    with replacing(OUTPUT, "w") as file:
        file.write(json.dumps(kept, indent=1, sort_keys=True) + "\n")
