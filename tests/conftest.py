"""One browser for all tests of a process (the library allows no second), and marks by what a test needs."""

import shutil

import pytest

chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


MARKS = {"browser": "browser", "cluster": "distributed", "html": "slow", "lab": "slow"}  # by fixture
SHARED = ("html", "ledger", "now")  # what takes long to make: the tests that need it run in one process


def fixtures_of(item):
    """What a test asks for; doctests and the cells of notebooks may ask for nothing."""
    return set(getattr(item, "fixturenames", ()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, mark in MARKS.items():
            if fixture in fixtures_of(item):
                item.add_marker(mark)
        for fixture in set(SHARED) & fixtures_of(item):
            item.add_marker(pytest.mark.xdist_group(fixture))
        if item.path.suffix == ".ipynb":  # a notebook's cells run in one kernel
            item.add_marker(pytest.mark.xdist_group(item.path.name))
            item.add_marker("slow")
    # What takes one process longest begins first, or the other processes wait for it at the end.
    items.sort(key=lambda item: (not {"html", "lab"} & fixtures_of(item), item.get_closest_marker("slow") is None))
