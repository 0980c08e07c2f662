"""Links to the glossary: the first use of a term on each page, and only that."""

import re
import runpy
from types import SimpleNamespace

from docutils.core import publish_doctree

from hesslib.book.paths import ROOT

terms = SimpleNamespace(**runpy.run_path(ROOT / "book" / "extensions" / "terms.py"))
APP = SimpleNamespace(srcdir=ROOT, env=SimpleNamespace(docname="notebooks/none"))
TEXT = """
A spectrum
==========

Of ``spectrum`` the `spectra <https://example.org>`_ are shown. The *Spectra* of a matrix; its spectrum,
Weyl’s inequality, the spectral
norm; a bulky re-seed of saddles. A barrier: see :math:`barrier` and a second barrier.
"""


def test_the_first_use_in_prose_is_linked():
    doctree = publish_doctree(TEXT)
    before = doctree.astext()
    terms.link_terms(APP, doctree)
    found = [(n.astext(), n["reftarget"]) for n in doctree.findall(terms.addnodes.pending_xref)]
    assert found == [
        ("Spectra", "spectrum"), ("Weyl’s inequality", "Weyl's inequality"), ("spectral\nnorm", "spectral norm"),
        ("saddles", "saddle"), ("barrier", "barrier"),
    ]  # fmt: skip
    assert doctree.astext() == before


def test_the_glossary_does_not_lead_to_itself():
    doctree = publish_doctree(TEXT)
    own = SimpleNamespace(srcdir=ROOT, env=SimpleNamespace(docname=terms.GLOSSARY))
    terms.link_terms(own, doctree)
    assert not list(doctree.findall(terms.addnodes.pending_xref))


def test_every_term_is_used_and_linked_at_most_once_on_a_page(html):
    seen = set()
    for page in [*(html / "notebooks").glob("*.html"), *(html / "book").glob("*.html")]:
        links = re.findall(r'glossary\.html#term-([^"]+)"', page.read_text(encoding="utf-8"))
        assert len(links) == len(set(links)), page.name
        seen |= set(links)
    words = {word.replace(" ", "-").replace("'", "-") for word in terms.terms(APP)}
    assert words - seen <= {"over-parametrised"}, words - seen  # a word of the title alone
