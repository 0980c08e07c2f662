"""The executed notebooks agree with their sources, and take their parameters as they say."""

import ast
import re
import subprocess
import sys

import nbformat
import papermill
import pytest

from hesslib.book import payload, runner
from hesslib.book.paths import ROOT
from hesslib.book.provenance import chapter_code
from tests.kit.offline import environment

SOURCES = runner.sources([])
IDS = [s.stem for s in SOURCES]
pairs = pytest.mark.parametrize("source", SOURCES, ids=IDS)


def executed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pairs
def test_source_and_notebook_agree(source):
    ours, theirs = runner.read(source), executed(source)
    cells = lambda node: [(c.cell_type, c.source, c.id) for c in node.cells]
    assert cells(ours) == cells(theirs), f"the text has changed: python -m hesslib run {source.stem}"


@pairs
def test_every_cell_ran_in_order_without_error(source):
    cells = [c for c in executed(source).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not [o for c in cells for o in c.outputs if o.output_type == "error"]


@pairs
def test_the_stamp_is_current(source):
    stamp = executed(source).metadata["hesslib"]
    assert stamp["source"] == runner.source_hash(source), "the text has changed: python -m hesslib run"
    assert stamp["code"] == chapter_code(source.stem), "its code has changed: python -m hesslib run"


@pairs
def test_papermill_finds_each_parameter_with_type_default_and_help(source):
    found = papermill.inspect_notebook(str(source.with_suffix(".ipynb")))
    cell = next(c for c in runner.read(source).cells if "parameters" in c.metadata.get("tags", []))
    lines = cell.source.splitlines()
    assert len(found) == len(lines) and "scale" in found
    for name, p in found.items():
        assert p["inferred_type_name"] in ("int", "float", "str", "list", "bool"), name
        assert p["default"] and len(p["help"]) > 8, name
    resolve_cell = next(c.source for c in runner.read(source).cells if "resolve(" in c.source and c.cell_type == "code")
    assert set(found) == {"scale"} | set(re.findall(r"^    (\w+)=", resolve_cell, re.M))


@pairs
def test_the_notebook_is_clean_and_small(source):
    path = source.with_suffix(".ipynb")
    text = path.read_text()
    assert len(text) < 400_000  # pictures and text; what else a page shows of figures lies in the pack
    assert not re.search(r'"/(home|root|work|tmp|usr)/', text)
    assert not re.search(r"\bat 0x[0-9a-f]{6}", text)  # an object as it prints: another address in each run
    nb = executed(source)
    assert not {"papermill", "widgets"} & set(nb.metadata)
    for cell in nb.cells:
        assert not {"papermill", "execution"} & set(cell.metadata)
        for output in cell.get("outputs", []):
            assert not {"text/html", payload.PAGE, payload.NUMBERS} & set(output.get("data", {}))


@pairs
def test_the_pack_holds_each_figure_of_the_notebook(source):
    path, nb = source.with_suffix(".ipynb"), executed(source)
    figures = payload.read(path, nb.cells)
    assert payload.pack_path(path).stat().st_size < 400_000
    pictures = [o for c in nb.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert list(figures) == [payload.name_of(o) for o in pictures if "packed" in o.metadata]
    assert len(figures) == len(pictures) > 0


ROLE = re.compile(r"\{(glue|ref|numref|doc|cite|term|eq)[:\w]*\}|^:::|^ *```\{|^\([\w-]+\)=$", re.M)


def cells_of(source, kind):
    return [c for c in runner.read(source).cells if c.cell_type == kind]


def lines(cells):
    """Lines of code: without imports, the parameters and their ranges, and without the words of texts."""
    count = 0
    for cell in cells:
        if "parameters" in cell.metadata.get("tags", []):
            continue
        code = set()
        for statement in ast.parse(cell.source).body:
            call = getattr(statement, "value", None)
            if (
                isinstance(statement, ast.Import | ast.ImportFrom)
                or getattr(getattr(call, "func", 0), "id", "") == "resolve"
            ):
                continue
            words = (n for n in ast.walk(statement) if isinstance(n, ast.Constant) and isinstance(n.value, str))
            text = {i for n in words for i in range(n.lineno, n.end_lineno) if n.end_lineno > n.lineno}
            code |= set(range(statement.lineno, statement.end_lineno + 1)) - text
        count += sum(bool(line.strip()) for i, line in enumerate(cell.source.splitlines(), 1) if i in code)
    return count


def folded(cell):
    return "hide-input" in cell.metadata.get("tags", [])


@pairs
def test_no_chapter_has_roles_that_the_book_alone_can_read(source):
    assert not ROLE.search("\n\n".join(c.source for c in cells_of(source, "markdown")))


@pairs
def test_visible_cells_are_short_enough_to_read(source):
    for cell in cells_of(source, "code"):
        if not {"hide-input", "remove-cell"} & set(cell.metadata.get("tags", [])):
            assert len(cell.source.splitlines()) <= 16, cell.source
            # as many signs as a page at 1300 px shows in a line
            assert max(map(len, cell.source.splitlines()), default=0) <= 88, cell.source


@pairs
def test_a_chapter_is_of_one_sitting_and_shows_its_code(source):
    code = cells_of(source, "code")
    assert len(source.read_text().splitlines()) <= 650
    for cell in code:
        assert len(cell.source.splitlines()) <= 30, cell.source
    visible = [c for c in code if not folded(c)]
    assert lines(visible) >= lines(code) / 2, f"{lines(visible)} of {lines(code)} lines are visible"


@pairs
def test_each_figure_has_a_caption_and_a_folded_cell_is_folded_in_jupyter(source):
    marks = [o.metadata.get("hesslib", {}) for c in executed(source).cells for o in c.get("outputs", [])
             if "metadata" in o]  # fmt: skip
    shown = [m["figure"] for m in marks if "figure" in m]
    assert shown == [m["caption"] for m in marks if "caption" in m] and len(set(shown)) == len(shown) > 0
    for cell in executed(source).cells:
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == folded(cell)


@pairs
def test_text_has_numbers_in_every_door(source):
    read_by_all(executed(source))


def read_by_all(node):
    """No role that one program alone understands, no number that is missing, and no check that has failed."""
    printed = "".join(o.text for c in node.cells for o in c.get("outputs", []) if o.output_type == "stream")
    assert ": FAIL" not in printed, printed
    shown = [c.source for c in node.cells if c.cell_type == "markdown"]
    shown += [
        o.data["text/markdown"]
        for c in node.cells
        for o in c.get("outputs", [])
        if "text/markdown" in o.get("data", {})
    ]
    for text in map("".join, shown):
        assert not ROLE.search(text), text
        prose = "\n".join(line for line in text.splitlines() if not line.startswith(("|", "*")))
        assert not re.search(r"\bnan\b|not run\b|\d+e[-+]\d", prose), text


def command(*arguments, cwd):
    """Run a module without network; none of ours may even ask for it."""
    line, log = [sys.executable, "-m", *arguments], cwd / "network"
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment(log), timeout=600)
    assert not log.exists(), log.read_text()
    return done


@pytest.mark.slow
def test_our_command_runs_a_chapter_with_other_parameters(tmp_path):
    """One chapter by the command; all of them, with other parameters each, run in JupyterLab (``tests/pages``)."""
    line = ["run", "11", "--scale", "smoke", "-p", "widths=[5]", "-p", "seed=1", "-o", str(tmp_path)]
    done = command("hesslib", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    nb = nbformat.read(tmp_path / "11_zeros.ipynb", as_version=4)
    assert any("# Parameters" in c.source for c in nb.cells)
    read_by_all(nb)


@pytest.mark.slow
def test_plain_papermill_takes_the_readme_line(tmp_path):
    notebook = str(ROOT / "notebooks" / "01_spectrum.ipynb")
    preset = str(ROOT / "notebooks" / "presets" / "smoke.yml")
    line = ["papermill", notebook, "out.ipynb", "-f", preset, "-p", "hidden", "[8, 8]", "-p", "seed", "5"]
    done = command(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "out.ipynb").read_text()
    assert "M = 6,442" in text
    shown = [
        o.data for c in nbformat.reads(text, 4).cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert shown and all("text/html" not in data and payload.PAGE in data for data in shown)  # a viewer takes the PNG


@pytest.mark.slow
def test_plain_papermill_stops_at_a_misspelt_name(tmp_path):
    notebook = ROOT / "notebooks" / "01_spectrum.ipynb"
    before = notebook.read_bytes()
    done = command("papermill", str(notebook), "out.ipynb", "-p", "sede", "5", cwd=tmp_path)
    assert done.returncode != 0
    assert "sede = 5 is not a parameter of this notebook (did you mean 'seed'?)" in done.stderr
    assert notebook.read_bytes() == before


@pytest.mark.slow
def test_our_command_refuses_before_anything_runs(tmp_path):
    done = command("hesslib", "run", "01", "-p", "sede=5", "-o", str(tmp_path / "runs"), cwd=tmp_path)
    assert done.returncode == 2 and "sede is not a parameter (did you mean 'seed'?); valid names: scale" in done.stderr
    assert not (tmp_path / "runs").exists()
    missing = command("hesslib", "run", "99", cwd=tmp_path)
    assert missing.returncode == 2 and "01_spectrum" in missing.stderr


@pytest.mark.slow
def test_a_failing_notebook_keeps_the_earlier_output(tmp_path):
    (tmp_path / "01_spectrum.ipynb").write_text("earlier")
    done = command("hesslib", "run", "01", "-p", "seed=-1", "-o", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1 and "seed = -1 is not valid" in done.stdout
    assert (tmp_path / "01_spectrum.ipynb").read_text() == "earlier"
