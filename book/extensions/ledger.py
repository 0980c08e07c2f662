"""The claims ledger on the pages: its grid and list, and verdicts and numbers within the text.

Everything comes from ``book/claims.json``, which ``python -m hesslib claims --acknowledge`` writes and a test holds
against the stored results; so building the pages needs neither torch nor the results.
"""

import json
import re
from html import escape
from pathlib import Path, PurePosixPath

import yaml
from docutils import nodes
from hessbook import kit
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

LOG = logging.getLogger(__name__)
PAGE = "book/claims"
MARKS = {"holds": "✓", "does not hold": "✗", "undecided": "?", "one run": "1", "premise not met": "∅", "not run": "·"}

# Claims are found by text, verdict and chapter; without script the whole list stands. A link to a claim opens its fold.
FILTER = """
<script>
(() => {
  const bar = document.querySelector(".ledger-filter"), all = [...document.querySelectorAll(".ledger-claim")];
  const [text, verdict, chapter] = bar.querySelectorAll("input, select"), count = bar.querySelector("output");
  const show = () => {
    const words = text.value.toLowerCase().split(/\\s+/);
    for (const claim of all)
      claim.hidden = !(words.every(w => claim.textContent.toLowerCase().includes(w)) &&
        (!verdict.value || claim.dataset.verdict === verdict.value) &&
        (!chapter.value || claim.dataset.chapter === chapter.value));
    for (const section of document.querySelectorAll("section.ledger-chapter"))
      section.hidden = !section.querySelector(".ledger-claim:not([hidden])");
    count.textContent = all.filter(claim => !claim.hidden).length + " of " + all.length + " verdicts";
  };
  const open = () => {
    const claim = location.hash.startsWith("#claim-") && document.getElementById(location.hash.slice(1));
    if (!claim) return;
    if (claim.hidden) { bar.reset(); show(); }
    claim.querySelector("details").open = true;
    claim.scrollIntoView();
  };
  bar.addEventListener("input", show);
  addEventListener("hashchange", open);
  bar.hidden = false;
  show();
  open();
})();
</script>
"""


def read(env) -> dict:
    """What the book shows; noted as a dependency of the page that asks."""
    path = Path(env.srcdir) / "book" / "claims.json"
    env.note_dependency(str(path))
    return json.loads(path.read_text(encoding="utf-8"))


def relative(here: str, target: str) -> str:
    """The address of a page as seen from another."""
    up = "../" * (len(PurePosixPath(here).parts) - 1)
    return f"{up}{target}.html"


def source(claim: dict) -> tuple[str, str] | None:
    """Page and anchor of the section that makes a claim's results."""
    made = claim["source"]
    return (f"notebooks/{made['notebook']}", nodes.make_id(made["section"])) if made else None


def chapters(env, claims: list[dict]) -> dict[str, str]:
    """The chapters that have claims, in order, with their titles where the notebook is there."""
    found = {}
    for name in sorted({c["chapter"] for c in claims}):
        path, title = Path(env.srcdir) / "notebooks" / f"{name}.ipynb", None
        if path.exists():
            title = re.search(r'^\s*"# (.+?)(?:\\n)?",?$', path.read_text(encoding="utf-8"), re.M)
        number = re.match(r"\d+", name)
        found[name] = f"Chapter {int(number[0])}. {title[1]}" if title and number else name
    return found


def badge(claim: dict) -> str:
    """The verdict, coloured, with its mark."""
    verdict = claim["verdict"]
    mark = f'<span aria-hidden="true">{MARKS[verdict]}</span>'
    return f'<span class="verdict {nodes.make_id(verdict)}">{mark} {verdict}</span>'


def said(claim: dict) -> str:
    """The statement and its part, as text."""
    return claim["statement"] + (f" ({claim['part']})" if claim["part"] else "")


class ClaimsGrid(SphinxDirective):
    """The verdicts at one glance: a row for each chapter, a square for each verdict, and how many there are of each."""

    def run(self) -> list[nodes.Node]:
        claims = read(self.env)["claims"]
        found = [c["verdict"] for c in claims]
        key = "".join(
            f'<li><span class="square {nodes.make_id(v)}" aria-hidden="true">{mark}</span> {found.count(v)} {v}</li>'
            for v, mark in MARKS.items()
            if v in found
        )
        rows = ""
        for chapter, title in chapters(self.env, claims).items():
            squares = "".join(
                f'<li><a class="square {nodes.make_id(c["verdict"])}" href="#claim-{c["id"]}" '
                f'title="{escape(said(c), quote=True)} {c["verdict"]}"><span aria-hidden="true">{MARKS[c["verdict"]]}'
                f'</span><span class="said">{escape(said(c))} {c["verdict"]}</span></a></li>'
                for c in claims
                if c["chapter"] == chapter
            )
            rows += f'<div class="chapter"><span class="label">{escape(title)}</span><ul>{squares}</ul></div>'
        return [nodes.raw("", f'<div class="ledger-grid"><ul class="key">{key}</ul>{rows}</div>', format="html")]


class ClaimsSame(SphinxDirective):
    """What 'the same' means, from the table that the claims refer to."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "book" / "claims" / "same.yml"
        self.env.note_dependency(str(path))
        lines = nodes.bullet_list()
        for rule in yaml.safe_load(path.read_text(encoding="utf-8")).values():
            words = f"{rule['words'][0].upper()}{rule['words'][1:]}."
            lines += nodes.list_item("", nodes.paragraph("", words))
        return [lines]


def facts(claim: dict, here: str, pages: set[str]) -> list[tuple[str, str]]:
    """What the fold of a claim says, as terms and HTML."""
    words, plural = escape, lambda n, word: f"{n} {word}{'s' * (n != 1)}"
    method = {"mean": "mean", "share": "share of the runs", "median": "median"}[claim["statistic"]]
    method += ", of logarithms" if claim["scale"] == "log" else ""
    runs = f"{plural(claim['runs'], 'independent run')}, {plural(claim['stored'], 'stored result')}"
    quoted = "" if claim["paper"] == "not in the paper" else f": “{claim['paper']}”"
    found = [("Source" if claim["later"] else "The paper", words(claim["section"] + quoted))]
    found += [("Later literature", "This claim is not the paper's.")] if claim["later"] else []
    found += [("Setting", words(claim["setting"]))] if claim["setting"] else []
    found += [("Deciding quantity", f"{words(claim['quantity'])}<br><code>{words(claim['expression'])}</code>")]
    found += [("Premises", "<br>".join(map(words, claim["premises"])))] if claim["premises"] else []
    if claim["measured"]:
        interval = ", with 95 % interval" if claim["interval"] else ""
        found += [("Measured", f"{words(claim['measured'])} ({method}{interval})")]
    found += [("Bound", words(claim["bound"])), ("Why this bound", words(claim["why"]))]
    known = "The bound was set with the results known."
    found += [("Registered", known if claim["registered"] == "known" else words(claim["registered"]))]
    made = source(claim)
    where = f"<code>{words(claim['results'])}</code>"
    if made and made[0] in pages:
        where = f'<a href="{relative(here, made[0])}#{made[1]}">{where}</a>'
    where += "".join(f", {words(k)} = {words(json.dumps(v))}" for k, v in claim["where"].items())
    where += f"; {claim['left_out']} left out by the premises" if claim["left_out"] else ""
    none = "none that fulfils the premises" if claim["left_out"] else "none yet"
    found += [("Runs", f"{runs} of {where}" if claim["stored"] else f"{none} of {where}")]
    if claim["date"]:
        found += [("Computed", words(f"{claim['date']} on {claim['device']}"))]
    if claim["context"]:
        rows = "".join(f"<li>{words(c['quantity'])}: {words(c['measured'])}</li>" for c in claim["context"])
        found += [("For context", f"<ul>{rows}</ul>")]
    for old in claim["before"]:
        measured = f"measured {old['measured']}, " if "measured" in old else ""
        text = f"{old['bound']}: {measured}{old['verdict']}. {old['why']}"
        found += [("An older test", words(text))]
    return found


def entry(claim: dict, here: str, pages: set[str]) -> str:
    """One claim: its statement with verdict and number, and the fold."""
    rows = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in facts(claim, here, pages))
    explains = f'<p class="explains">{escape(claim["explains"])}</p>' if claim["explains"] else ""
    part = f" <em>({escape(claim['part'])})</em>" if claim["part"] else ""
    missing = "no run fulfils the premises" if claim["left_out"] else "not run"
    measured = f"{escape(claim['measured'])}, asked {escape(claim['bound'])}" if claim["measured"] else missing
    return (
        f'<div class="ledger-claim" id="claim-{claim["id"]}" data-verdict="{claim["verdict"]}" '
        f'data-chapter="{claim["chapter"]}"><p>{badge(claim)} {escape(claim["statement"])}{part}</p>{explains}'
        f"<details><summary>{measured}</summary><dl>{rows}<dt>Name</dt><dd><code>{claim['id']}</code></dd></dl></details></div>"
    )


class ClaimsList(SphinxDirective):
    """Every claim under its chapter, to be filtered by text, verdict and chapter."""

    def run(self) -> list[nodes.Node]:
        claims, here, pages = read(self.env)["claims"], self.env.docname, self.env.found_docs
        titles = chapters(self.env, claims)
        verdicts = [v for v in MARKS if any(c["verdict"] == v for c in claims)]
        option = lambda value, text: f'<option value="{value}">{escape(text)}</option>'
        bar = (
            '<form class="ledger-filter" hidden onsubmit="return false"><label>Find <input type="search"></label>'
            f"<label>Verdict <select>{option('', 'all')}{''.join(option(v, v) for v in verdicts)}</select></label>"
            f"<label>Chapter <select>{option('', 'all')}{''.join(option(*t) for t in titles.items())}</select></label>"
            '<output aria-live="polite"></output></form>'
        )
        found = [nodes.raw("", bar, format="html")]
        for chapter, title in titles.items():
            section = nodes.section("", nodes.title("", title), ids=[f"ledger-{nodes.make_id(chapter)}"])
            section["classes"] += ["ledger-chapter"]
            lines = "".join(entry(c, here, pages) for c in claims if c["chapter"] == chapter)
            section += nodes.raw("", lines, format="html")
            found.append(section)
        # the script comes last, when all that it moves is there
        found[-1] += nodes.raw("", FILTER, format="html")
        return found


def verdict(claim: dict, here: str) -> nodes.reference:
    """The verdict in the text of a page, linked to its claim in the ledger."""
    refuri = f"{relative(here, PAGE)}#claim-{claim['id']}"
    classes = ["verdict", nodes.make_id(claim["verdict"])]
    return nodes.reference("", claim["verdict"], internal=True, refuri=refuri, classes=classes)


def link_verdicts(table: nodes.table, claims: list[dict], here: str) -> None:
    """The verdicts of a chapter's own table, coloured and linked to their places in the ledger."""
    rows = [row for body in table.findall(nodes.tbody) for row in body]
    found = [next(iter(row[-1].findall(nodes.strong)), None) for row in rows]
    if [strong and strong.astext() for strong in found] != [claim["verdict"] for claim in claims]:
        LOG.warning("%s: its verdicts are not those of the ledger: python -m hesslib claims --acknowledge", here)
        return
    for strong, claim in zip(found, claims):
        strong.parent.replace(strong, verdict(claim, here))


def add_verdicts(app, doctree) -> None:
    """A section with a chapter's claims and their verdicts, before its limits, unless it shows them itself."""
    here = app.env.docname
    claims = [c for c in read(app.env)["claims"] if here == f"notebooks/{c['chapter']}"]
    titles = {s[0].astext(): s for s in doctree.findall(nodes.section)}
    if "Verdicts" in titles:
        for table in list(titles["Verdicts"].findall(nodes.table))[:1]:
            link_verdicts(table, claims, here)
        return
    if "Limits" not in titles or not claims:
        return
    found = nodes.bullet_list()
    for claim in claims:
        line = nodes.paragraph("", "", nodes.Text(f"{said(claim)} "), verdict(claim, here))
        measured = f"{claim['measured']}, " if claim["measured"] else ""
        line += nodes.Text(f" ({claim['quantity']}: {measured}asked {claim['bound']})")
        found += nodes.list_item("", line)
    text = (
        "From the stored runs, with the 95 % interval over independent ones. A verdict links to its place in the "
        "ledger, which says how and why."
    )
    section = nodes.section("", nodes.title("", "Verdicts"), nodes.paragraph("", text), found, ids=["verdicts"])
    limits = titles["Limits"]
    limits.parent.insert(limits.parent.index(limits), section)


class Verdict(SphinxRole):
    """``{claim}`id```: the verdict with its colour, linked to its place in the ledger; of a claim in parts, each."""

    def run(self):
        claims = [c for c in read(self.env)["claims"] if self.text in (c["id"], c["of_statement"])]
        if not claims:
            return [], [self.inliner.reporter.error(f"claim {self.text!r} is not in the ledger", line=self.lineno)]
        found: list[nodes.Node] = []
        for claim in claims:
            part = f" ({claim['part']})" if len(claims) > 1 else ""
            found += [nodes.Text(", ")] if found else []
            found += [verdict(claim, self.env.docname), nodes.Text(part)]
        return found, []


class Number(SphinxRole):
    """``{number}`id:.2f``` or ``{number}`id.low:.2f```: a number of the ledger, by default its mean."""

    def run(self):
        match = re.fullmatch(r"([\w-]+)(?:\.(\w+))?(?::(.+))?", self.text)
        found = match and read(self.env)["numbers"].get(match[1])
        if not found:
            return [], [self.inliner.reporter.error(f"number {self.text!r} is not in the ledger", line=self.lineno)]
        text = kit("numbers").typeset(format(found[match[2] or "mean"], match[3] or ".3g"), tex=False)
        return [nodes.Text(text)], []


class Count(SphinxRole):
    """``{claims-count}`verdict```: ``all``, ``statements`` (parts as one), ``own`` (of the paper), ``known``."""

    def run(self):
        claims = read(self.env)["claims"]
        named = lambda some: len({c["of_statement"] or c["id"] for c in some})
        counts = {"all": len(claims), "statements": named(claims), "own": named(c for c in claims if not c["later"])}
        counts["known"] = sum(c["registered"] == "known" for c in claims)
        number = counts.get(self.text, [c["verdict"] for c in claims].count(self.text))
        return [nodes.Text(str(number))], []


def check_anchors(app, env) -> None:
    """Warn of a claim whose section is no longer there."""
    for claim in json.loads((Path(app.srcdir) / "book" / "claims.json").read_text(encoding="utf-8"))["claims"]:
        made = source(claim)
        if made and made[0] in env.found_docs:
            ids = {i for s in env.get_doctree(made[0]).findall(nodes.section) for i in s["ids"]}
            if made[1] not in ids:
                LOG.warning("claim %s: %s has no section #%s", claim["id"], *made)


def setup(app):
    app.add_directive("claims-grid", ClaimsGrid)
    app.add_directive("claims-same", ClaimsSame)
    app.add_directive("claims-list", ClaimsList)
    app.add_role("claim", Verdict())
    app.add_role("number", Number())
    app.add_role("claims-count", Count())
    app.add_css_file("ledger.css")
    app.connect("doctree-read", add_verdicts, priority=400)  # before the table of contents is taken
    app.connect("env-check-consistency", check_anchors)
    return {"parallel_read_safe": True, "version": "1"}
