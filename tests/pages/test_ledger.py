"""The ledger's page and roles, built alone; its filter in a browser."""

import json
import shutil
import subprocess
import sys

import pytest

from hesslib.book import judging
from hesslib.book.paths import ROOT

CONF = """
import sys
sys.path.insert(0, {folder!r})
extensions = ["myst_parser", "ledger"]
html_static_path = ["webassets"]
"""
CHAPTER = """# A chapter

## {section}

{{claim}}`{claim}` {{number}}`{number}:.1f` {extra}

## Limits
"""
SHOWN = json.loads((ROOT / "book" / "claims.json").read_text())
# a claim whose results are stored, and the chapter whose section makes them
ONE = next(c for c in SHOWN["claims"] if c["source"] and c["source"]["notebook"] == c["chapter"] and c["stored"])
NUMBER = next(iter(SHOWN["numbers"]))


def build(folder, extra=""):
    (folder / "book" / "claims").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "webassets").mkdir()
    for name in ("claims.md", "claims.json", "claims/same.yml"):
        shutil.copy(ROOT / "book" / name, folder / "book" / name)
    (folder / "conf.py").write_text(CONF.format(folder=str(ROOT / "book" / "extensions")))
    (folder / "index.md").write_text(f"# Index\n\n```{{toctree}}\nbook/claims\nnotebooks/{ONE['chapter']}\n```\n")
    sections = {c["source"]["section"] for c in SHOWN["claims"] if c["source"].get("notebook") == ONE["chapter"]}
    text = CHAPTER.format(section=ONE["source"]["section"], claim=ONE["id"], number=NUMBER, extra=extra)
    text += "\n".join(f"\n## {s}\n\ntext" for s in sorted(sections - {ONE["source"]["section"]}))
    (folder / "notebooks" / f"{ONE['chapter']}.md").write_text(text)
    return sphinx(folder), folder / "html"


def sphinx(folder, *options):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *options, str(folder), str(folder / "html")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    done, out = build(tmp_path_factory.mktemp("ledger"))
    assert done.returncode == 0, done.stderr
    return out


def test_page_and_roles_show_what_is_acknowledged(ledger):
    page = (ledger / "book" / "claims.html").read_text()
    claims = SHOWN["claims"]
    for claim in claims:
        part = page.split(f'id="claim-{claim["id"]}"')
        assert len(part) == 2 and page.count(f'href="#claim-{claim["id"]}"') == 1, claim["id"]
        entry = part[1].split('<div class="ledger-claim"')[0]
        assert f'data-verdict="{claim["verdict"]}"' in entry
        terms = [
            "Source" if claim["later"] else "The paper",
            "Deciding quantity",
            "Bound",
            "Why this bound",
            "Registered",
            "Runs",
        ]
        terms += ["Measured"] if claim["measured"] else []
        assert all(f"<dt>{term}</dt>" in entry for term in terms), claim["id"]
        assert ('class="explains"' in entry) == bool(claim["explains"])
    for verdict in judging.VERDICTS:
        count = [c["verdict"] for c in claims].count(verdict)
        assert page.count(f'data-verdict="{verdict}"') == count
        assert (f"{count} {verdict}</li>" in page) == (count > 0)
    link = f"../notebooks/{ONE['chapter']}.html#"
    assert f'href="{link}' in page
    chapter = (ledger / "notebooks" / f"{ONE['chapter']}.html").read_text()
    assert f'href="../book/claims.html#claim-{ONE["id"]}">{ONE["verdict"]}</a>' in chapter
    assert f"</a> {SHOWN['numbers'][NUMBER]['mean']:.1f}<" in chapter


def test_every_verdict_has_a_mark_and_a_colour():
    sys.path.insert(0, str(ROOT / "book" / "extensions"))
    from ledger import MARKS

    style = (ROOT / "book" / "webassets" / "ledger.css").read_text()
    assert tuple(MARKS) == judging.VERDICTS and len(set(MARKS.values())) == len(MARKS)
    assert all(f".square.{v.replace(' ', '-')} " in style for v in judging.VERDICTS if v != "not run")


def test_unknown_names_and_lost_sections_stop_the_build(tmp_path):
    done, _ = build(tmp_path / "a", "{claim}`no-such` {number}`nor-this`")
    assert done.returncode != 0 and "'no-such' is not in the ledger" in done.stderr and "'nor-this'" in done.stderr
    folder = tmp_path / "a"
    path = folder / "notebooks" / f"{ONE['chapter']}.md"
    path.write_text(path.read_text().replace(ONE["source"]["section"], "Otherwise"))
    done = sphinx(folder, "-E")
    assert done.returncode != 0 and f"{ONE['chapter']} has no section #" in done.stderr


def test_claims_are_filtered_without_a_kernel(browser, ledger):
    page = browser.new_page()
    page.goto((ledger / "book" / "claims.html").as_uri())
    seen = lambda: page.locator(".ledger-claim:visible").count()
    everything = len(SHOWN["claims"])
    assert seen() == everything and page.inner_text(".ledger-filter output") == f"{everything} of {everything} verdicts"
    verdict = SHOWN["claims"][-1]["verdict"]
    page.get_by_label("Verdict").select_option(verdict)
    assert seen() == [c["verdict"] for c in SHOWN["claims"]].count(verdict) > 0
    page.get_by_label("Verdict").select_option("")
    page.get_by_label("Find").fill("digits-better")
    assert seen() == 1
    page.get_by_label("Chapter").select_option(ONE["chapter"])
    assert seen() == 0 and page.locator("section.ledger-chapter:visible").count() == 0
    page.get_by_label("Find").fill("")
    page.get_by_label("Chapter").select_option("06_basins")
    assert page.locator("section.ledger-chapter:visible").count() == 1
    page.close()


def test_a_square_leads_to_its_claim_and_opens_it(browser, ledger):
    page = browser.new_page()
    page.goto((ledger / "book" / "claims.html").as_uri())
    square = page.locator(f'a.square[href="#claim-{ONE["id"]}"]')
    assert ONE["verdict"] in square.inner_text() and ONE["statement"] in square.inner_text()
    page.get_by_label("Find").fill("no such words")
    square.click()
    page.wait_for_selector(f"#claim-{ONE['id']} details[open] dl")
    page.close()


def test_a_chapter_without_verdicts_of_its_own_lists_them_before_its_limits(ledger):
    text = (ledger / "notebooks" / f"{ONE['chapter']}.html").read_text()
    section = text[text.index('id="verdicts"') : text.index('id="limits"')]
    for claim in SHOWN["claims"]:
        assert (f'#claim-{claim["id"]}"' in section) == (claim["chapter"] == ONE["chapter"])
