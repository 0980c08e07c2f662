"""JupyterLab itself: each chapter opened, run with a real kernel, a slider moved, the figure seen to change."""

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
from tests.pages.test_html import CHAPTERS

pytestmark = pytest.mark.xdist_group("lab")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """A server with every chapter at smoke scale; yields its address."""
    pytest.importorskip("jupyterlab")
    home = tmp_path_factory.mktemp("lab")
    (home / "work").mkdir()
    for chapter in CHAPTERS:
        node = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
        cell = next(c for c in node.cells if "parameters" in c.metadata.get("tags", []))
        cell.source = cell.source.replace('scale: str = "quick"', 'scale: str = "smoke"')
        assert '"smoke"  #' in cell.source
        nbformat.write(node, home / "work" / f"{chapter}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{k}_DIR": str(home / k) for k in ("CONFIG", "DATA", "RUNTIME")}
    settings = {"ip": "127.0.0.1", "port": port, "root_dir": home / "work", "open_browser": False, "allow_root": True}
    command = [sys.executable, "-m", "jupyterlab", "--IdentityProvider.token=", "--ServerApp.password="]
    command += [f"--ServerApp.{k}={v}" for k, v in settings.items()]
    environment = {**os.environ, **places, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, "JupyterLab did not start"
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_and_its_sliders_recompute(lab, browser, chapter):
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto(f"{lab}/lab/tree/{chapter}.ipynb?reset")
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
