"""Take each guard of ``guards.yml`` out of a copy of the project and see its test fail: ``make guards``.

A test that has never been seen to fail may test nothing. Prints a line for each guard; the exit status is the number
of tests that noticed nothing. ``python -m tests.kit.guards sweep kill`` tries those whose file or test contains one
of the words.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml

from hesslib.book.paths import ROOT

LIMIT = 600  # seconds; without its guard a run may also wait for ever


class Guard(NamedTuple):
    """The test below ``tests`` that must fail when a file below ``hesslib`` has other code in one place."""

    test: str
    file: str
    code: str
    without: str


GUARDS = [Guard(**entry) for entry in yaml.safe_load(Path(__file__).with_suffix(".yml").read_text())]


def tried(guard: Guard, copy: Path) -> str:
    """What the guard's test did without it: 'fails', or what else happened."""
    path = copy / "hesslib" / guard.file
    before = path.read_text()
    path.write_text(before.replace(guard.code, guard.without))
    line = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", f"tests/{guard.test}"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    process = subprocess.Popen(
        line, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return "fails: waits for ever"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        path.write_text(before)
    # 1: tests failed; others stand for errors of another kind, as of the syntax
    reason = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    found = {0: "NOTICES NOTHING", 1: "fails"}.get(process.returncode, f"pytest ends with {process.returncode}")
    return f"{found}: {reason[0].partition(' - ')[2][:90]}" if reason else found


def main(wanted: list[str]) -> int:
    """Try every guard in a copy of the files that git tracks."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # some tests take the rights from a process, which must still read its code
        tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
        for name in filter(None, tracked.stdout.split("\0")):
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        for guard in GUARDS:
            if wanted and not any(w in guard.file or w in guard.test for w in wanted):
                continue
            found = tried(guard, Path(folder))
            missed += not found.startswith("fails")
            print(f"{guard.file:24} {guard.test.partition('::')[2][:60]:60} {found}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
