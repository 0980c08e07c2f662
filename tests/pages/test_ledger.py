"""The ledger's page and roles, built alone; its filter in a browser."""

import json
import shutil
import subprocess
import sys

import pytest

from hesslib.book.paths import ROOT

CONF = """
import sys
sys.path.insert(0, {folder!r})
extensions = ["myst_parser", "ledger"]
html_static_path = ["webassets"]
"""
CHAPTER = """# A chapter

## Over seeds

{{claim}}`bulk-end` {{number}}`{number}:.1f` {extra}

## Limits
"""


def build(folder, extra=""):
    (folder / "book").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "webassets").mkdir()
    for name in ("claims.md", "claims.json"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    (folder / "conf.py").write_text(CONF.format(folder=str(ROOT / "book" / "extensions")))
    (folder / "index.md").write_text("# Index\n\n```{toctree}\nbook/claims\nnotebooks/01_spectrum\n```\n")
    (folder / "notebooks" / "01_spectrum.md").write_text(CHAPTER.format(number="q-bulk-end", extra=extra))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(folder), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done, folder / "html"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    done, out = build(tmp_path_factory.mktemp("ledger"))
    assert done.returncode == 0, done.stderr
    return out


SHOWN = json.loads((ROOT / "book" / "claims.json").read_text())


def test_table_and_roles_show_what_is_acknowledged(html):
    page = (html / "book" / "claims.html").read_text()
    assert page.count('<tr id="claim-') == len(SHOWN["claims"])
    for verdict in ("holds", "holds in part", "does not hold"):
        count = [c["verdict"] for c in SHOWN["claims"]].count(verdict)
        assert page.count(f'data-verdict="{verdict}"') == count
        assert f"{count} {verdict.replace('holds', 'hold').replace('does', 'do')}" in " ".join(page.split())
    for claim in SHOWN["claims"]:
        assert (f'id="why-{claim["id"]}"' in page) == bool(claim["why"])
    assert 'href="../notebooks/01_spectrum.html#over-seeds"' in page
    chapter = (html / "notebooks" / "01_spectrum.html").read_text()
    verdict = next(c["verdict"] for c in SHOWN["claims"] if c["id"] == "bulk-end")
    assert f'href="../book/claims.html#claim-bulk-end">{verdict}</a>' in chapter
    assert f"</a> {SHOWN['numbers']['q-bulk-end']['mean']:.1f}<" in chapter


def test_unknown_names_and_lost_sections_stop_the_build(tmp_path):
    done, _ = build(tmp_path / "a", "{claim}`no-such` {number}`nor-this`")
    assert done.returncode != 0 and "'no-such' is not in the ledger" in done.stderr and "'nor-this'" in done.stderr
    folder = tmp_path / "b"
    done, _ = build(folder)
    assert done.returncode == 0
    text = (folder / "notebooks" / "01_spectrum.md").read_text()
    (folder / "notebooks" / "01_spectrum.md").write_text(text.replace("Over seeds", "Otherwise"))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-E", str(folder), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "01_spectrum has no section #over-seeds" in done.stderr


def test_rows_are_filtered_without_a_kernel(browser, html):
    page = browser.new_page()
    page.goto((html / "book" / "claims.html").as_uri())
    seen = lambda: page.locator(".ledger tbody tr:visible").count()
    everything = len(SHOWN["claims"])
    assert seen() == everything and page.inner_text(".ledger-filter output") == f"{everything} of {everything} claims"
    page.get_by_label("Verdict").select_option("does not hold")
    assert seen() == [c["verdict"] for c in SHOWN["claims"]].count("does not hold") > 0
    page.get_by_label("Verdict").select_option("")
    page.get_by_label("Find").fill("table 1 tanh")
    assert seen() == 4
    page.get_by_label("Chapter").select_option("04_size")
    assert seen() == 0
    page.close()


def test_a_chapter_lists_its_verdicts_before_its_limits(html):
    text = (html / "notebooks" / "01_spectrum.html").read_text()
    section = text[text.index('id="verdicts"') : text.index('id="limits"')]
    for claim in SHOWN["claims"]:
        assert (f'#claim-{claim["id"]}"' in section) == (claim["chapter"] == "01_spectrum")
