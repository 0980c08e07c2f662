"""Without a network. That every chapter runs so is tested where the chapters are run, in tests/chapters."""

import subprocess
import sys

from .offline import environment


def python(code, log, **changes):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment(log, **changes), timeout=300)


def test_the_guard_sees_every_way_out(tmp_path):
    code = (
        "import urllib.request, socket\n"
        "for address in ('http://example.org', 'http://192.0.2.1'):\n"
        "    try: urllib.request.urlopen(address)\n"
        "    except OSError as error: print(error)\n"
    )
    done = python(code, tmp_path / "log")
    assert done.stdout.count("Network is unreachable") == 2, done.stderr
    assert (tmp_path / "log").read_text().split() == ["example.org", "192.0.2.1"]


def test_a_download_that_cannot_happen_says_what_to_place_where(tmp_path):
    code = "from hesslib.experiments.data import cifar10, mnist\nmnist(10)\ncifar10()"
    done = python(code, tmp_path / "log", HESSLIB_DATA=str(tmp_path / "cache"))
    message = done.stderr.strip().splitlines()[-1]
    assert f"CIFAR-10 is not in {tmp_path / 'cache' / 'cifar-10-batches-bin'} and could not be downloaded" in message
    assert "Place the six files of the official binary version there (data_batch_1.bin" in message
    assert set((tmp_path / "log").read_text().split()) == {"www.cs.toronto.edu"}  # the digits ask for nothing
