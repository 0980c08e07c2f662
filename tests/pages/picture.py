"""Makes the picture of README.md from the built pages: the tour in the middle of training."""

from playwright.sync_api import sync_playwright

from hesslib.book.paths import ROOT
from tests.conftest import FLAGS, chromium

PAGE = ROOT / "_build" / "html" / "notebooks" / "00_tour.html"


def main() -> None:
    """Open the page, move the slider, and write ``book/webassets/page.png``."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.goto(PAGE.as_uri(), timeout=300_000)
        slider = page.locator(".hesslib-explore input[type=range]").first
        slider.fill(str(int(slider.get_attribute("max")) * 2 // 3))
        page.wait_for_timeout(1000)
        page.mouse.move(0, 0)
        page.screenshot(path=ROOT / "book" / "webassets" / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
