"""The first use of each glossary term on a page leads to the glossary."""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

GLOSSARY = "book/glossary"
NOT_PROSE = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.table, nodes.raw)


def terms(app) -> list[str]:
    """The glossary's entries, as they are written there."""
    text = (Path(app.srcdir) / f"{GLOSSARY}.md").read_text(encoding="utf-8")
    return re.findall(r"^(\S.*)\n  \S", text.partition(":::{glossary}\n")[2], re.M)


def pattern(entries: list[str]) -> re.Pattern:
    """Finds each of the entries as a group of its own, also in the plural and whatever the case."""

    def forms(entry: str) -> str:
        endings = {"y": "(?:y|ies)", "um": "(?:um|a)"}
        ending = next((e for e in endings if entry.endswith(e)), "")
        stem = re.escape(entry.removesuffix(ending)).replace("'", "['’]").replace(r"\ ", r"\s+")
        return stem + endings.get(ending, "(?:s|es)?")

    return re.compile(rf"(?<![\w-])(?:{'|'.join(f'({forms(e)})' for e in entries)})(?![\w-])", re.I)


def link_terms(app, doctree) -> None:
    """Turn the first use of each term in the prose of a page into a link."""
    if app.env.docname == GLOSSARY:
        return
    entries = sorted(terms(app), key=len, reverse=True)  # of two that fit the longer one
    find, left = pattern(entries), set(entries)
    for text in list(doctree.findall(nodes.Text)):
        above, node = [], text.parent
        while node is not None:
            above.append(node)
            node = node.parent
        apart = (*NOT_PROSE, addnodes.pending_xref, addnodes.desc_signature)
        if any(isinstance(n, apart) or "cell" in n.get("classes", []) for n in above):
            continue
        parts, end = [], 0
        for match in find.finditer(text):
            entry = entries[match.lastindex - 1]
            if entry in left:
                left.discard(entry)
                label = nodes.inline("", match[0], classes=["xref", "std", "std-term"])
                options = {"refdomain": "std", "reftype": "term", "reftarget": entry, "refexplicit": True}
                link = addnodes.pending_xref("", label, refdoc=app.env.docname, refwarn=True, **options)
                parts += [nodes.Text(text[end : match.start()]), link]
                end = match.end()
        if parts:
            text.parent.replace(text, [p for p in (*parts, nodes.Text(text[end:])) if p.astext()])


def setup(app):
    app.connect("doctree-read", link_terms)
    return {"parallel_read_safe": True, "version": "1"}
