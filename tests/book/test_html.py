"""The built pages: complete, quiet, self-contained, and right in a browser."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hesslib.notebook.store import ROOT

pytestmark = pytest.mark.xdist_group("html")

# Chromium's own view of fonts under file://, and two messages of the theme that mean nothing.
HARMLESS = ("fontawesome", "net::ERR_FAILED", "theme mode", "THEBE_JS_URL")


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The book, built from the committed outputs with warnings as errors."""
    out = tmp_path_factory.mktemp("book")
    program = str(Path(sys.executable).with_name("jupyter-book"))
    command = [program, "build", str(ROOT), "--path-output", str(out), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out / "_build" / "html"


def pages(html):
    return [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]


class Collector(HTMLParser):
    """Tags with their attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def tags_of(page):
    collector = Collector()
    collector.feed(page.read_text(encoding="utf-8"))
    return collector.tags


def test_every_page_of_the_contents_is_there(html):
    names = {p.relative_to(html).as_posix() for p in pages(html)}
    chapters = {f"notebooks/{p.stem}.html" for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    prose = {f"book/{p.stem}.html" for p in (ROOT / "book").glob("*.md")}
    assert chapters | prose | {"index.html"} <= names


def test_pages_ask_nothing_of_a_network(html):
    for page in pages(html):
        for tag, attributes in tags_of(page):
            if tag in ("script", "img", "iframe", "source", "link"):
                address = attributes.get("src") or attributes.get("href") or ""
                assert not re.match(r"(https?:)?//", address), (page.name, tag, address)
        assert not re.search(r"url\(['\"]?https?:|import\(['\"]https?:", page.read_text(encoding="utf-8"))


def test_pages_are_light(html):
    for page in pages(html):
        assert page.stat().st_size < 1_500_000, page.name


def test_images_are_described(html):
    for page in pages(html):
        for tag, attributes in tags_of(page):
            if tag == "img":
                assert attributes.get("alt"), (page.name, attributes)
            if "hesslib-figure" in attributes.get("class", ""):
                assert len(attributes.get("aria-label", "")) > 40


def test_no_number_of_the_text_is_missing(html):
    for page in pages(html):
        text = re.sub(r"<(pre|code).*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)  # code may say nan
        assert "glue:" not in text, page.name
        assert not re.search(r"<strong>\s*</strong>|>nan<", text), page.name


chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "mode"), [(1300, "light"), (400, "dark")])
def test_pages_in_a_browser(html, browser, width, mode):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
    for path in pages(html):
        page, trouble = context.new_page(), []
        page.on("console", lambda m, t=trouble: t.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e, t=trouble: t.append(str(e)))
        page.on("request", lambda r, t=trouble: t.append(r.url) if r.url.startswith("http") else None)
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        trouble = [t for t in trouble if not any(h in t for h in HARMLESS)]
        assert not trouble, (path.name, trouble)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path.name} is wider than {width} px"
        if "math notranslate" in path.read_text(encoding="utf-8"):
            page.wait_for_selector("mjx-container svg", timeout=5000)
        for figure in page.query_selector_all(".hesslib-figure svg"):
            box = figure.bounding_box()
            assert box["width"] > 250 and box["x"] >= 0 and box["x"] + box["width"] <= width
        page.close()
    context.close()
