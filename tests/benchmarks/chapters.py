"""``make cost``: processor time and memory of the chapters, which their pages show.

``python -m tests.benchmarks.chapters 01 04`` measures these anew and leaves the others as they are.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from hesslib._files import replacing
from hesslib.book import runner
from hesslib.book.paths import ROOT
from hesslib.book.provenance import code_hash, device_name

OUTPUT = ROOT / "book" / "chapter_costs.json"


class Peak:
    """The most memory that the processes started from here held at a time, sampled."""

    def __init__(self) -> None:
        self.gib, self.ended = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.2):
            held = 0
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    held += process.memory_info().rss
            self.gib = max(self.gib, held / 2**30)

    def stop(self) -> float:
        """End the watch; returns GiB."""
        self.ended.set()
        self.thread.join()
        return self.gib


def processor_seconds() -> float:
    """Processor time of the processes started from here that have ended: wall time depends on who else computes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(names: list[str], scales: tuple[str, ...] = ("smoke", "quick"), output: Path = OUTPUT) -> int:
    """Run chapters, all if none is named, and note what they cost; returns how many runs failed."""
    costs, failed = json.loads(output.read_text()) if output.exists() else {}, 0
    for source in runner.sources(names):
        for scale in scales:
            before, peak = processor_seconds(), Peak()
            with tempfile.TemporaryDirectory() as folder:
                (outcome,) = runner.run([source.stem], {"scale": scale}, output=Path(folder))
            gib, seconds = peak.stop(), processor_seconds() - before
            if outcome.state != "done":
                failed += 1
                continue
            made = {"seconds": round(seconds), "gib": round(gib, 2), "device": device_name()}
            made["state"] = f"{runner.source_hash(source)} {code_hash()}"
            costs.setdefault(source.stem, {})[scale] = made
            with replacing(output, "w") as file:
                file.write(json.dumps(costs, indent=1, sort_keys=True) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(measure(sys.argv[1:]))
