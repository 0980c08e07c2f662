"""The claims ledger on the pages: its table, its explanations, and verdicts and numbers within the text.

Everything comes from ``book/claims.json``, which ``python -m hesslib claims --acknowledge`` writes and a test holds
against the stored results; so building the pages needs neither torch nor the results.
"""

import json
import re
from html import escape
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

LOG = logging.getLogger(__name__)
PAGE = "book/claims"
VERDICTS = ("holds", "holds in part", "does not hold", "not run")

# Rows are found by text, verdict and chapter; without script the whole table stands.
FILTER = """
<script>
(() => {
  const bar = document.querySelector(".ledger-filter"), rows = [...document.querySelectorAll(".ledger tbody tr")];
  const [text, verdict, chapter] = bar.querySelectorAll("input, select"), count = bar.querySelector("output");
  const show = () => {
    const words = text.value.toLowerCase().split(/\\s+/);
    for (const row of rows)
      row.hidden = !(words.every(w => row.textContent.toLowerCase().includes(w)) &&
        (!verdict.value || row.dataset.verdict === verdict.value) &&
        (!chapter.value || row.dataset.chapter === chapter.value));
    count.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length + " claims";
  };
  bar.addEventListener("input", show);
  bar.hidden = false;
  show();
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


def badge(claim: dict) -> str:
    """The verdict, coloured."""
    return f'<span class="verdict {nodes.make_id(claim["verdict"])}">{claim["verdict"]}</span>'


def row(claim: dict, here: str, pages: set[str]) -> str:
    """One claim as a row of the table."""
    checks = asked = ""
    for c in claim["checks"]:
        mark = {True: " ✓", False: " ✗", None: ""}[c["passed"]]
        checks += f"<p>{escape(c['measured'])}{mark}</p>"
        asked += f"<p>{escape(c['quantity'])}: <b>{escape(c['measured'])}</b>, asked {escape(c['demand'])}{mark}.<br>"
        asked += f"<code>{escape(c['expression'])}</code> on {escape(c['results'])}</p>"
    where, made = escape(claim["chapter"]), source(claim)
    if made and made[0] in pages:
        where = f'<a href="{relative(here, made[0])}#{made[1]}">{where}</a>'
    why = f'<a href="#why-{claim["id"]}">why</a>' if claim["why"] else ""
    section = ("Section " if claim["section"][0].isdigit() else "") + claim["section"]
    seeds = f"{claim['seeds']} seed{'s' * (claim['seeds'] > 1)}, scale {claim['scale']}" if claim["seeds"] else ""
    if claim["date"]:
        asked += f"<p>Computed {claim['date']} on {escape(claim['device'])}, by "
        asked += f"<code>{escape(claim['source'].get('function', ''))}</code>.</p>"
    return (
        f'<tr id="claim-{claim["id"]}" data-verdict="{claim["verdict"]}" data-chapter="{claim["chapter"]}">'
        f'<td data-head="Claim">{escape(claim["statement"])}<small>{escape(section)}; {where}; '
        f"<code>{claim['id']}</code></small></td>"
        f'<td data-head="Paper">{escape(claim["paper"])}</td>'
        f'<td data-head="Measured">{checks}<details><summary>what, how</summary>{asked}</details></td>'
        f'<td data-head="Verdict">{badge(claim)}<small>{seeds} {why}</small></td></tr>'
    )


class ClaimsTable(SphinxDirective):
    """Every claim with its verdict, to be filtered by text, verdict and chapter."""

    def run(self) -> list[nodes.Node]:
        claims = read(self.env)["claims"]
        options = lambda values: "".join(f"<option>{v}</option>" for v in values)
        chapters = sorted({c["chapter"] for c in claims})
        rows = "".join(row(c, self.env.docname, self.env.found_docs) for c in claims)
        text = (
            '<form class="ledger-filter" hidden onsubmit="return false"><label>Find <input type="search"></label>'
            f'<label>Verdict <select><option value="">all</option>{options(VERDICTS)}</select></label>'
            f'<label>Chapter <select><option value="">all</option>{options(chapters)}</select></label>'
            '<output aria-live="polite"></output></form>'
            '<table class="ledger"><thead><tr><th>Claim</th><th>Paper</th><th>Measured</th><th>Verdict</th></tr>'
            f"</thead><tbody>{rows}</tbody></table>"
        )
        return [nodes.raw("", text + FILTER, format="html")]


class ClaimsWhy(SphinxDirective):
    """A paragraph for each claim with the verdict given as argument."""

    required_arguments, final_argument_whitespace = 1, True

    def run(self) -> list[nodes.Node]:
        found = []
        for claim in read(self.env)["claims"]:
            if claim["verdict"] == self.arguments[0]:
                found.append(nodes.paragraph("", "", nodes.strong("", claim["statement"]), ids=[f"why-{claim['id']}"]))
                found[-1] += nodes.Text(f" {claim['why']} ")
                found[-1] += nodes.reference("", "Row", refuri=f"#claim-{claim['id']}", internal=True)
        return found or [nodes.paragraph("", "None.")]


def verdict(claim: dict, here: str) -> nodes.reference:
    """The verdict in the text of a page, linked to its row."""
    refuri = f"{relative(here, PAGE)}#claim-{claim['id']}"
    classes = ["verdict", nodes.make_id(claim["verdict"])]
    return nodes.reference("", claim["verdict"], internal=True, refuri=refuri, classes=classes)


def add_verdicts(app, doctree) -> None:
    """A section with a chapter's claims and their verdicts, before its limits."""
    here = app.env.docname
    claims = [c for c in read(app.env)["claims"] if here == f"notebooks/{c['chapter']}"]
    limits = next((s for s in doctree.findall(nodes.section) if s[0].astext() == "Limits"), None)
    if limits is None or not claims:
        return
    found = nodes.bullet_list()
    for claim in claims:
        line = nodes.paragraph("", "", nodes.Text(f"{claim['statement']} "), verdict(claim, here))
        telling = [c for c in claim["checks"] if c["passed"] is False] or claim["checks"][:1]
        asked = "; ".join(f"{c['quantity']}: {c['measured']}, asked {c['demand']}" for c in telling)
        line += nodes.Text(f" ({asked})")
        found += nodes.list_item("", line)
    text = (
        "Computed from the stored results, as mean and standard deviation over runs; where something is asked "
        "‘on average’ the mean alone is judged. Of a claim that holds in part or not, only what fails is shown. "
        "A verdict links to its row in the ledger, which says how and why."
    )
    section = nodes.section("", nodes.title("", "Verdicts"), nodes.paragraph("", text), found, ids=["verdicts"])
    limits.parent.insert(limits.parent.index(limits), section)


class Verdict(SphinxRole):
    """``{claim}`id```: the verdict with its number, linked to its row."""

    def run(self):
        claims = {c["id"]: c for c in read(self.env)["claims"]}
        if self.text not in claims:
            return [], [self.inliner.reporter.error(f"claim {self.text!r} is not in the ledger", line=self.lineno)]
        return [verdict(claims[self.text], self.env.docname)], []


class Number(SphinxRole):
    """``{number}`id:.2f``` or ``{number}`id.low:.2f```: a number of the ledger, by default its mean."""

    def run(self):
        match = re.fullmatch(r"([\w-]+)(?:\.(\w+))?(?::(.+))?", self.text)
        found = match and read(self.env)["numbers"].get(match[1])
        if not found:
            return [], [self.inliner.reporter.error(f"number {self.text!r} is not in the ledger", line=self.lineno)]
        return [nodes.Text(format(found[match[2] or "mean"], match[3] or ".3g"))], []


class Count(SphinxRole):
    """``{claims-count}`verdict```: how many claims have a verdict; ``all`` counts them all."""

    def run(self):
        verdicts = [c["verdict"] for c in read(self.env)["claims"]]
        number = len(verdicts) if self.text == "all" else verdicts.count(self.text)
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
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("claims-why", ClaimsWhy)
    app.add_role("claim", Verdict())
    app.add_role("number", Number())
    app.add_role("claims-count", Count())
    app.add_css_file("ledger.css")
    app.connect("doctree-read", add_verdicts, priority=400)  # before the table of contents is taken
    app.connect("env-check-consistency", check_anchors)
    return {"parallel_read_safe": True, "version": "1"}
