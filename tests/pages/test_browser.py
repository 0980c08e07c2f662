"""The built pages in a browser: quiet, accessible, moved by keyboard; as files and from a server."""

import pytest

from hesslib.book.paths import ROOT
from tests.pages.test_html import CHAPTERS, pages

# Chromium's own view of fonts under file://, and two messages of the theme that mean nothing.
HARMLESS = ("fontawesome", "net::ERR_FAILED", "theme mode", "THEBE_JS_URL")
NAMES = [f"book/{p.stem}.html" for p in sorted((ROOT / "book").glob("*.md"))]
NAMES += [f"notebooks/{c}.html" for c in CHAPTERS]

# The theme gives wide blocks of code the focus only some time after the page has come to rest.
SCROLLS_BY_KEYBOARD = """[...document.querySelectorAll("pre, mjx-container[display=true]")].every((block) =>
    block.tabIndex == 0 || (block.scrollWidth <= block.clientWidth && block.scrollHeight <= block.clientHeight)
)"""


@pytest.fixture
def opened(browser):
    """Opens a page and notes what goes wrong on it."""
    contexts = []

    def open_(address, width=1300, mode="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode))
        page, trouble = contexts[-1].new_page(), []
        own = address.split("/")[:3]
        page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("request", lambda r: trouble.append(r.url) if foreign(r.url, own) else None)
        page.goto(address)
        page.trouble = lambda: [t for t in trouble if not any(h in t for h in HARMLESS)]
        return page

    yield open_
    for context in contexts:
        context.close()


def foreign(url, own):
    """Whether an address leads elsewhere than the book."""
    return not url.startswith(("data:", "blob:", "about:")) and url.split("/")[:3] != own


def test_the_list_of_pages_is_whole(html):
    others = {"index.html", "search.html", "genindex.html"}
    assert {p.relative_to(html).as_posix() for p in pages(html)} <= {*NAMES, *others}


def test_the_front_door_leads_to_the_tour(site, opened):
    opened(f"{site}/index.html").wait_for_url("**/notebooks/00_tour.html", timeout=20_000)


def move_every_slider(page):
    """Each slider moves by keyboard, and changes the frame that is seen."""
    boxes = page.query_selector_all(".hesslib-explore")
    assert boxes
    for box in boxes:
        for slider in box.query_selector_all("input[type=range]"):
            look = lambda b=box, s=slider: (
                b.query_selector(".hesslib-figure").inner_html(),
                b.query_selector(".hesslib-figure").get_attribute("aria-label"),
                b.query_selector("[role=status]").inner_text(),
                s.get_attribute("aria-valuetext"),
            )
            slider.focus()
            page.keyboard.press("Home")
            seen = [look()]
            for _ in range(int(slider.get_attribute("max"))):
                page.keyboard.press("ArrowRight")
                seen.append(look())
            for pictures, alts, sentences, values in [zip(*seen)]:
                assert len(set(alts)) == len(set(sentences)) == len(set(values)) == len(seen)
                assert len(set(pictures)) > 1
            assert box.query_selector(".hesslib-figure svg").is_visible()


@pytest.mark.parametrize(("site", "width", "mode"), [("file", 1300, "light"), ("http", 400, "dark")], indirect=["site"])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_quiet_whole_and_accessible(site, opened, name, width, mode):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(f"{site}/{name}", width, mode)
    if page.query_selector(".math"):
        page.wait_for_selector("mjx-container svg", state="attached", timeout=20_000)  # the first may be folded away
    page.wait_for_function(SCROLLS_BY_KEYBOARD, timeout=20_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"wider than {width} px"
    for figure in page.query_selector_all(".hesslib-figure svg"):
        box = figure.bounding_box()
        assert box["width"] > 220 and box["x"] >= 0 and box["x"] + box["width"] <= width
    if name.startswith("notebooks/"):
        move_every_slider(page)
    assert not page.trouble()
    faults = axe.Axe().run(page).response["violations"]  # asks for the style sheets again, in vain from a file
    grave = [
        (f["id"], n["target"], n["failureSummary"][:200])
        for f in faults
        if f["impact"] in ("serious", "critical")
        for n in f["nodes"]
    ]
    assert not grave


def test_play_moves_the_tour_to_its_end_and_pauses(site, opened):
    page = opened(f"{site}/notebooks/00_tour.html")
    box = page.query_selector(".hesslib-explore")
    button, slider = box.query_selector("button"), box.query_selector("input[type=range]")
    button.click()
    page.wait_for_function("s => Number(s.value) >= 2", arg=slider, timeout=20_000)
    assert "pause" in button.inner_text()
    button.click()
    place = slider.input_value()
    page.wait_for_timeout(1500)
    assert slider.input_value() == place and "play" in button.inner_text() and not page.trouble()


def test_the_first_frame_needs_no_script(browser, html):
    context = browser.new_context(java_script_enabled=False)
    for chapter in CHAPTERS:
        page = context.new_page()
        page.goto((html / "notebooks" / f"{chapter}.html").as_uri())
        for box in page.query_selector_all(".hesslib-explore"):
            assert box.query_selector(".hesslib-figure svg").is_visible()
            assert box.query_selector("[role=status]").is_visible()
            assert not box.query_selector("input").is_visible(), "a slider that does nothing"
        page.close()
    context.close()


def test_search_finds_a_term(site, opened):
    page = opened(f"{site}/search.html?q=Weyl")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    assert "ggn" in " ".join(a.get_attribute("href") for a in page.query_selector_all("ul.search li a"))
    if site.startswith("http"):  # from a file the excerpts cannot be fetched, the list is there all the same
        assert not page.trouble()
