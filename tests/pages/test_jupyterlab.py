"""JupyterLab itself: each chapter opened and run with other parameters than its own, its text read, each slider moved.

This is the one run of every chapter at other parameters: nothing may fail, no text may show what only the book
understands, and no kernel may ask for the network.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from hesslib.book.paths import ROOT
from tests.chapters.test_pipeline import read_by_all
from tests.kit.offline import environment
from tests.pages.test_html import CHAPTERS

# Two groups, each with a server of its own: one alone keeps a process busy long after the other tests have ended.
HALVES = [pytest.param(c, marks=pytest.mark.xdist_group(f"lab {i % 2}")) for i, c in enumerate(CHAPTERS)]
OTHER = {  # parameters unlike the standard ones
    "00_tour": {"hidden": 3, "seed": 1},
    "01_spectrum": {"data": "blobs", "hidden": [3], "seed": 4},
    "02_ggn": {"examples": 25, "seed": 1},
    "03_data": {"classes": [2], "tolerance": 0.05},
    "04_size": {"widths": [3], "seed": 2},
    "05_algorithm": {"filters": [2, 2], "seed": 3},
    "06_basins": {"small_batch": 10, "seed": 2},
    "07_random_matrix": {"ratio": 2.0, "seed": 1},
    "08_examples": {"weight": 0.1, "seed": 1},
    "09_population": {"examples": 60, "seed": 1},
    "10_after": {"steps": [3.0], "seed": 1},
    "11_zeros": {"widths": [5], "seed": 1},
    "12_noise": {"batches": [16], "seed": 1},
    "13_today": {"optimizer": "SGD", "seed": 1},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """A server with every chapter at smoke scale and other parameters; yields its address and its folder."""
    pytest.importorskip("jupyterlab")
    home = tmp_path_factory.mktemp("lab")
    (home / "work").mkdir()
    for chapter in CHAPTERS:
        node = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
        place = next(i for i, c in enumerate(node.cells) if "parameters" in c.metadata.get("tags", []))
        given = "".join(f"{k} = {v!r}\n" for k, v in ({"scale": "smoke"} | OTHER[chapter]).items())
        node.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
        last = [c for c in node.cells if c.cell_type == "code"][-1]
        last.outputs, last.execution_count = [], None  # what it has in the end is of this run
        nbformat.write(node, home / "work" / f"{chapter}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{k}_DIR": str(home / k) for k in ("CONFIG", "DATA", "RUNTIME")}
    settings = {
        "ip": "127.0.0.1",
        "port": port,
        "root_dir": home / "work",
        "disable_check_xsrf": True,
        "open_browser": False,
        "allow_root": True,
    }
    command = [sys.executable, "-m", "jupyterlab", "--IdentityProvider.token=", "--ServerApp.password="]
    command += [f"--ServerApp.{k}={v}" for k, v in settings.items()]
    asked = home / "network"
    variables = environment(asked, **places, OMP_NUM_THREADS="1")
    variables["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
    server = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, "JupyterLab did not start"
                time.sleep(0.5)
        yield address, home / "work"
        assert not asked.exists(), asked.read_text()
    finally:
        server.terminate()
        server.wait(30)


def when_done(page, path):
    """The notebook as JupyterLab saves it, once its last cell has run."""
    end = time.monotonic() + 300
    while True:
        page.wait_for_timeout(2000)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        assert time.monotonic() < end, f"{path.name} has not ended"
        try:
            node = nbformat.read(path, as_version=4)
        except nbformat.reader.NotJSONError:
            continue  # it is just being written
        code = [c for c in node.cells if c.cell_type == "code"]
        failed = [o for c in code for o in c.outputs if o.output_type == "error"]
        assert not failed, failed
        if code[-1].execution_count and code[-1].outputs:
            return node


@pytest.mark.parametrize("chapter", HALVES)
def test_a_chapter_runs_with_other_parameters_and_its_sliders_recompute(lab, browser, chapter):
    address, folder = lab
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto(f"{address}/lab/tree/{chapter}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    # Opened but not run, a figure is its PNG, and nothing is left of widgets.
    page.wait_for_selector("img[src^='data:image/png']", state="attached", timeout=60_000)
    assert not page.query_selector("text=Error displaying widget")
    page.wait_for_selector("text=/Python 3.*Idle/", timeout=120_000)
    page.click(".jp-Notebook .jp-Cell")
    page.keyboard.press("Escape")
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells >> nth=0")
    page.wait_for_selector(".widget-slider [role=slider]", state="attached", timeout=300_000)
    read_by_all(when_done(page, folder / f"{chapter}.ipynb"))
    sliders = page.query_selector_all(".widget-slider [role=slider]")
    assert sliders
    for number in range(len(sliders)):
        output = page.locator(".jp-OutputArea-output", has=page.locator(".widget-slider")).nth(0)
        look = lambda o=output: re.sub(r"\s+", " ", o.inner_text())
        before = look()
        slider = page.query_selector_all(".widget-slider [role=slider]")[number]
        slider.focus()
        last = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        page.keyboard.press("ArrowLeft" if last else "ArrowRight")
        end = time.monotonic() + 60
        while look() == before or "computing" in look():
            assert time.monotonic() < end, f"slider {number} of {chapter} changed nothing"
            page.wait_for_timeout(100)
        assert not re.search(r"\w*Error:", look()), look()
    page.close()
    for session in json.load(urllib.request.urlopen(f"{address}/api/sessions")):  # a kernel lives on without its page
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/sessions/{session['id']}", method="DELETE"))
