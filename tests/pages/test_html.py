"""The built pages: complete, quiet, self-contained, and right in a browser."""

import csv
import functools
import json
import math
import re
import shutil
import subprocess
from html import unescape as html_text
from html.parser import HTMLParser

import pytest

from hesslib.book import payload
from hesslib.book.paths import ROOT

from .conftest import build

CHAPTERS = sorted(p.stem for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
chapters = pytest.mark.parametrize("chapter", CHAPTERS)


def pages(html):
    return [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]


class Collector(HTMLParser):
    """Tags with their attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@functools.cache
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


def test_the_book_is_built_once(request, html):
    """Where several processes run the tests, all that need the pages are in one (pytest-xdist's mark in the name)."""
    assert "html" in request.node.nodeid.partition("@")[2] or not hasattr(request.config, "workerinput")


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


@chapters
def test_numbers_of_every_figure_can_be_downloaded(html, chapter):
    page = html / "notebooks" / f"{chapter}.html"
    text = page.read_text(encoding="utf-8")
    names = re.findall(r'data-name="(\w+)"', text)
    assert names and len(names) == len(set(names))
    for name in names:
        assert f'href="../numbers/{chapter}-{name}.csv" download' in text
        rows = list(csv.reader((html / "numbers" / f"{chapter}-{name}.csv").open(encoding="utf-8")))
        assert rows[0][-4:] == ["panel", "series", "x", "y"] and len(rows) > 2, name
        numbers = [float(v) for row in rows[1:] for v in row[-2:]]
        assert sum(map(math.isfinite, numbers)) > 0.9 * len(numbers), name
        assert f'href="#cell-{name}"' in text and f'id="cell-{name}"' in text, name


@chapters
def test_a_page_shows_what_the_pack_holds(html, chapter):
    text = (html / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8")
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    figures = payload.read(path, json.loads(path.read_text())["cells"])
    assert sorted(figures) == sorted(re.findall(r'data-name="(\w+)"', text))
    for name, (_, figure) in figures.items():
        assert figure.html in text, name
        assert (html / "numbers" / f"{chapter}-{name}.csv").read_text(encoding="utf-8") == figure.csv


def test_a_lost_pack_stops_the_build_with_one_message_and_leaves_pictures(tmp_path):
    files = subprocess.check_output(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], text=True
    )
    for name in filter(None, files.split("\0")):
        if not name.startswith(("tests/", ".git")) and (ROOT / name).exists():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "copy" / name)
    packs = [
        payload.pack_path(tmp_path / "copy" / "notebooks" / f"{c}.ipynb") for c in ("07_random_matrix", "10_after")
    ]
    packs[0].unlink()
    packs[1].write_bytes(packs[1].read_bytes()[:5000])
    done, pages = build(tmp_path / "copy", tmp_path / "out")
    said = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert done.returncode != 0 and len(said) == 2
    assert "07_random_matrix.zip is missing; figures stand still" in said[0] and "hesslib run 07" in said[0]
    assert "10_after.zip is damaged" in said[1]
    for chapter, count in (("07_random_matrix", 5), ("10_after", 5), ("00_tour", 0)):
        text = (pages / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8")
        assert len(re.findall(r'<img [^>]*src="(?:\.\./_images/[^>]*png"|data:image/png)', text)) == count


@chapters
def test_the_command_below_each_figure_names_every_parameter(html, chapter):
    text = (html / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8")
    notebook = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text())
    cell = next("".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    declared = re.findall(r"^(\w+):", cell, re.M)
    blocks = re.findall(r"<summary>make it again</summary>(.*?)</details>", text, re.S)
    assert len(blocks) == len(re.findall(r"data-name=", text))
    for block in blocks:
        line = re.sub(r"<[^>]+>", "", block)
        assert f"papermill notebooks/{chapter}.ipynb out.ipynb" in line
        assert ["scale", *re.findall(r"-p (\w+) ", line)] == declared


@chapters
def test_each_chapter_can_be_moved_and_each_frame_is_described(html, chapter):
    text = (html / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8")
    boxes = text.split('<div class="hesslib-explore">')[1:]
    assert boxes, "no exploration"
    for box in boxes:
        data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', box, re.S)[1])
        count = math.prod(map(len, data["values"]))
        pictures = {"\n".join(data["lines"][i] for i in frame) for frame in data["frames"]}
        assert len(data["frames"]) == len(data["alts"]) == len(data["sentences"]) == count > 1
        assert len(set(data["alts"])) == count and min(map(len, data["alts"])) > 60
        assert len(pictures) > 1 and "src=" not in re.sub(r"<script type.*?</script>", "", box, flags=re.S)[:20000]


@chapters
def test_each_chapter_says_what_it_costs(html, chapter):
    text = (html / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8")
    line = re.search(r'<p class="hesslib-cost">(.*?)</p>', text)[1]
    cost, measured = r"\d+ s, \d\.\d GiB; ", json.loads((ROOT / "book" / "chapter_costs.json").read_text()).get(chapter)
    assert re.search(rf"memory: {f'smoke {cost}quick {cost}' if measured else ''}paper ", line), line


def test_every_parameter_is_on_the_page_of_parameters(html):
    text = (html / "book" / "parameters.html").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        notebook = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text())
        cell = next("".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
        part = text[text.index(f'id="parameters-{chapter}"') :]
        for name in re.findall(r"^(\w+):", cell, re.M):
            assert f'<span class="pre">{name}</span></code>' in part, (chapter, name)


def test_the_tour_leads_to_the_chapters_of_its_findings_and_to_the_ledger(html):
    text = (html / "notebooks" / "00_tour.html").read_text(encoding="utf-8")
    article = text[text.index('<article class="bd-article"') :]
    for page in [*(f"{chapter}.html" for chapter in CHAPTERS[1:7]), "../book/claims.html"]:
        assert f'href="{page}' in article, page


def test_no_punctuation_is_parted_from_its_formula(html):
    """On a narrow page a full stop could else begin a line."""
    formula = r'<span class="math notranslate nohighlight">[^<]*</span>'
    for page in pages(html):
        text = re.sub(r'<li class="toc-h.*?</a>', "", page.read_text(encoding="utf-8"), flags=re.S)
        text = re.sub(rf'<span class="joined">\(?{formula}[^<]*</span>', "", text)
        assert not re.search(rf"{formula}[.,;:)]", text), page.name


def test_each_verdict_of_a_chapter_says_what_was_asked(html):
    """In the chapter's own table, or in the list that the build makes where it has none."""
    claims = json.loads((ROOT / "book" / "claims.json").read_text())["claims"]
    for chapter in sorted({c["chapter"] for c in claims}):
        page = (html / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8")
        section = page.split('<section id="verdicts">')[1].split("</section>")[0]
        rows = re.findall(r"<tr.*?</tr>", section.partition("<tbody>")[2], re.S)
        lines = rows or re.findall(r"<li>(.*?)</li>", section, re.S)
        here = [c for c in claims if c["chapter"] == chapter]
        assert len(lines) == len(here), chapter
        for line, claim in zip(lines, here, strict=True):
            text = " ".join(html_text(re.sub(r"<[^>]+>", "", line)).split())
            assert claim["bound"] in text and claim["verdict"] in text, claim["id"]
            assert f'href="../book/claims.html#claim-{claim["id"]}"' in line, claim["id"]


def test_numbers_are_not_parted_from_their_signs(html):
    for page in (html / "notebooks").glob("*.html"):
        article = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        prose = re.sub(r"<(pre|code|script|table|svg)\b.*?</\1>", "", article, flags=re.S)
        for paragraph in re.findall(r"<p>(.*?)</p>", prose, re.S):
            assert not re.search(r"\d( %| ± )", re.sub(r"<[^>]*>", "", paragraph)), (page.name, paragraph[:200])


def test_the_page_of_provenance_counts_the_labels(html):
    text = (html / "book" / "provenance.html").read_text(encoding="utf-8")
    rows = [re.findall(r"<p>(.*?)</p>", row) for row in re.findall(r"<tr.*?</tr>", text, re.S)]
    shown = {row[0]: row[2] for row in rows if len(row) == 7}
    for path in sorted((ROOT / "book" / "results").glob("*.jsonl")):
        assert re.fullmatch(r"\d+|(\d+ by this code, )?\d+ confirmed", shown[path.stem]), path.stem
        assert sum(map(int, re.findall(r"\d+", shown[path.stem]))) == len(path.read_text().splitlines()), path.stem


def test_a_stale_label_is_shown_as_such():
    import sys

    sys.path.insert(0, str(ROOT / "book" / "extensions"))
    from hessbook import count_states

    labels = [{"closure": "now"}, {"closure": "then"}, {"closure": "now"}]
    assert count_states(labels, "now", {"now"}) == "2 by this code, 1 stale, not used"
    assert count_states(labels, "now", {"now", "then"}) == "2 by this code, 1 confirmed"
    assert count_states(labels[:1], "now", {"now"}) == "1" and count_states([], "now", {"now"}) == "not run"
