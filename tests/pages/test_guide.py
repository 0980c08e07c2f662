"""The guide to the package: each block of code on its pages runs, in order, and prints what the page shows."""

import contextlib
import doctest
import io
import re
import runpy

import pytest
import torch

from hesslib.book.paths import ROOT

PAGES = ("own_network", "traps")
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page):
    """The code of a page, each with the text shown below it, and its line."""
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.M | re.S)
    return [(m[1], m[2] or "", text[: m.start()].count("\n") + 1) for m in found]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_it_shows(page):
    names, state = {"__name__": page}, torch.random.get_rng_state()
    try:
        for code, shown, line in blocks(page):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, f"{page}.md, block at line {line}", "exec"), names)
            alike = doctest.OutputChecker().check_output(shown, printed.getvalue(), LOOSE)
            assert alike, f"{page}.md, line {line}: shown\n{shown}printed\n{printed.getvalue()}"
    finally:
        torch.random.set_rng_state(state)


@pytest.mark.parametrize("page", PAGES)
def test_all_code_of_a_page_is_run(page):
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    fences = re.findall(r"^ *`{3,}([^\s`]+)", text, re.M)
    assert fences.count("python") == len(blocks(page)) > 5
    assert fences.count("text") == sum(bool(shown) for _, shown, _ in blocks(page))
    assert set(fences) <= {"python", "text", "bash"}


def test_the_reference_has_every_exported_name():
    text = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for package in ("hesslib", "hesslib/theory"):
        source = (ROOT / package / "__init__.py").read_text(encoding="utf-8")
        for name in re.findall(r'^    "(\w+)",$', source, re.M):
            assert re.search(rf"^```{{api}} [\w.]+ {name}$", text, re.M), name


def test_an_entry_has_signature_arguments_members_and_source():
    api = runpy.run_path(ROOT / "book" / "extensions" / "api.py")
    text = api["entry"](ROOT, "hesslib.curvature.risk", "EmpiricalRisk")
    parts = (
        ".. py:class:: hesslib.EmpiricalRisk(model: nn.Module",
        ":raises ValueError:",
        ":param model:",
        ".. py:method:: hesslib.EmpiricalRisk.ggn(output: Literal['logits', 'probability']='logits')",
        ":pyobject: EmpiricalRisk",
    )
    for part in parts:
        assert part in text, part
    assert not any("(self" in head for head in re.findall(r"^ *\.\. py:.*", text, re.M))
