"""How a chapter's page is put together from what its cells show, and how one notebook becomes a file of its own."""

import json
import re
import sys

import nbformat
import pytest

from hesslib.book import page, runner
from hesslib.book.parameters import ParameterError
from hesslib.book.paths import ROOT

sys.path.insert(0, str(ROOT / "book" / "extensions"))
import chapter
import hessbook


def text(words, **mark):
    return {"output_type": "display_data", "data": {"text/markdown": [words]}, "metadata": {"hesslib": mark}}


def code(source, *outputs, tags=()):
    return {"cell_type": "code", "source": source, "outputs": list(outputs), "metadata": {"tags": list(tags)}}


PICTURE = {"output_type": "display_data", "data": {"image/png": "iVBO"}, "metadata": {"hesslib": {"figure": "fig_a"}}}
PRINTED = {"output_type": "stream", "name": "stdout", "text": "a check: pass"}


def built(*cells):
    """Sources of the cells of the page, those of code in brackets."""
    made = chapter.rebuild([{"cell_type": "markdown", "metadata": {}, "source": "# Title"}, *cells], "topic")
    assert made[0]["source"] == "(topic)=\n# Title"
    return [f"[{c['source']}]" if c["cell_type"] == "code" else c["source"] for c in made[1:]], made[1:]


def test_text_and_figures_stand_above_folded_code_and_below_visible_code():
    drawn = code("figures.figure()", PICTURE, text("**Figure.** A *caption*.", caption="fig_a"), tags=["hide-input"])
    sources, cells = built(drawn, code("say()", text("Words.", numbers={})))
    figure = "```{hesslib-figure} fig_a\n:name: fig-a\nA *caption*.\n```"
    assert sources == [figure, "[figures.figure()]", "[say()]", "Words."]
    assert cells[1]["metadata"]["figures"] == ["fig_a"] and not cells[1]["outputs"]
    assert cells[1]["metadata"]["mystnb"]["code_prompt_show"] == "Code: the figure above"


def test_printed_lines_stay_with_their_cell():
    sources, cells = built(code("check()", PRINTED, text("Words."), tags=["hide-input"]))
    assert sources == ["[check()]", "Words."] and cells[0]["outputs"] == [PRINTED]
    sources, _ = built(code("verdicts()", text("Table."), PRINTED, tags=["hide-input"]))
    assert sources == ["Table.", "[verdicts()]"]


def test_code_on_the_way_to_results_can_stand_at_the_end():
    way = [code("p = 1", text("A box."), tags=["hide-input", "end"]), code("x = 2", tags=["end"])]
    sources, _ = built(*way, code("say()", text("Result."), tags=["hide-input"]), code("foot(p)", PRINTED))
    assert sources == ["A box.", "Result.", "[say()]", "## The code of this page", "[p = 1]", "[x = 2]", "[foot(p)]"]


@pytest.mark.parametrize(
    ("source", "tags", "name"),
    [
        ("# Three laws at once.\nx = 1", [], "Three laws at once"),
        ("seed: int = 0", ["parameters"], "parameters"),
        ("# Parameters\nseed = 5\n", ["injected-parameters"], "parameters of this run"),
        ("import numpy as np", [], "imports"),
        ("import numpy as np\nresolve(globals())", [], "what the parameters may be"),
        ('say("""words""")', [], "the text above"),
        ('check("it is so", True)', [], "checks"),
        ("foot(p)", [], "versions and machine"),
        ('verdicts("01_x")\nfoot(p)', [], "verdicts, versions and machine"),
        ("# fmt: off\n# isort: off\nimport numpy as np", [], "imports"),
        ("x = 2", [], "details"),
    ],
)
def test_folded_code_has_a_name(source, tags, name):
    assert chapter.fold_name(source, tags, []) == f"Code: {name}"


def test_words_to_the_formatter_are_not_shown():
    _, cells = built(code("# fmt: off\nx = [1,\n     2]  # fmt: skip\ny = '# fmt: off'"))
    assert chapter.text_of(cells[-1]["source"]) == "x = [1,\n     2]\ny = '# fmt: off'"


@pytest.fixture
def run(tmp_path):
    """The tour as papermill writes it: its own parameters, a bar among the outputs."""
    node = nbformat.read(ROOT / "notebooks" / "00_tour.ipynb", as_version=4)
    figures = page.read(ROOT / "notebooks" / "00_tour.ipynb", node.cells)
    page.put_back(node.cells, figures)
    cell = nbformat.v4.new_code_cell('# Parameters\nscale = "smoke"\nseed = 7\n')
    cell.metadata.tags = ["injected-parameters"]
    at = next(i for i, c in enumerate(node.cells) if "parameters" in c.metadata.get("tags", []))
    node.cells.insert(at + 1, cell)
    node.cells[-1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="H: 15% after 00:02"))
    nbformat.write(node, tmp_path / "out.ipynb")
    return tmp_path / "out.ipynb"


def test_make_it_again_has_the_parameters_of_the_run(run):
    line = hessbook.command(run)
    assert "-p scale smoke" in line and "-p seed 7" in line and "-p iterations 100" in line and "-p hidden 20" in line
    assert "scale" not in hessbook.command(ROOT / "notebooks" / "00_tour.ipynb")


@pytest.mark.slow
def test_a_run_becomes_one_file_that_needs_nothing_else(run):
    made = page.write_page(run)
    words = made.read_text(encoding="utf-8")
    article = words[words.index("<main") :]
    assert made == run.with_suffix(".html") and "15% after" not in words
    assert not re.search(r'<(link|img|iframe)\b[^>]*(href|src)="(?!data:)|<script[^>]* src=', words)
    for address in re.findall(r'<a\b[^>]*href="([^"]*)"', article):
        assert re.match(r"#|https?:|data:text/csv", address), address
    again = re.sub(r"<[^>]+>", "", re.search(r"make it again</summary>(.*?)</details>", article, re.S)[1])
    assert "notebooks/00_tour.ipynb" in again and "-p seed 7" in again
    frames = json.loads(re.search(r'<script type="application/json">(.*?)</script>', article, re.S)[1])
    assert len(frames["frames"]) > 5 and "MathJax" in words and "Code: parameters of this run" in article


def test_what_is_no_executed_notebook_is_named(tmp_path):
    (tmp_path / "words.ipynb").write_text("words")
    with pytest.raises(ParameterError, match=r"words\.ipynb"):
        page.write_page(tmp_path / "words.ipynb")
    nbformat.write(runner.read(ROOT / "notebooks" / "00_tour.py"), tmp_path / "new.ipynb")
    with pytest.raises(ParameterError, match="has not been executed"):
        page.write_page(tmp_path / "new.ipynb")


def test_runs_with_other_parameters_have_folders_of_their_own():
    names = [{"seed": 1}, {"seed": 11}, {"hidden": [8, 8]}, {"hidden": "[8, 8"}, {"data": "a/b"}, {"data": "a_b"}]
    folders = [runner.folder_name(q) for q in names]
    assert len(set(folders)) == len(names) and folders[0] == "seed=1" and not any("/" in f for f in folders)
