"""A run again, on another processor: files stay while it shows the same, and change when a number does."""

import json
import re
import shutil

import nbformat
import pytest

from hesslib.book import payload, rerun, runner
from hesslib.book.payload import NUMBERS, PAGE
from hesslib.book.provenance import chapter_code

SAID = "text/markdown"


@pytest.fixture(params=["00_tour", "07_random_matrix"])
def stored(request, tmp_path):
    """A chapter as it is stored, stamped as if it had been run today."""
    output = tmp_path / f"{request.param}.ipynb"
    payload.pack_path(output).parent.mkdir()
    shutil.copy(runner.NOTEBOOKS / output.name, output)
    shutil.copy(payload.pack_path(runner.NOTEBOOKS / output.name), payload.pack_path(output))
    node = nbformat.read(output, as_version=4)
    source = runner.NOTEBOOKS / f"{request.param}.py"
    node.metadata.hesslib |= {"source": runner.source_hash(source), "code": chapter_code(request.param)}
    nbformat.write(node, output)
    return output


def fresh(output):
    """The notebook as a run leaves it: its figures still in the cells, the forms of an output in the kernel's order."""
    node = nbformat.read(output, as_version=4)
    figures = payload.read(output, node.cells)
    for out in [o for c in node.cells for o in c.get("outputs", []) if "data" in o]:
        out.data = nbformat.from_dict(dict(reversed(out.data.items())))
        if out.metadata.pop("packed", None):
            figure = figures[payload.name_of(out)][1]
            out.data |= {PAGE: figure.html, NUMBERS: figure.csv}
    return node


def outputs(node, kind):
    return [o for c in node.cells for o in c.get("outputs", []) if kind in o.get("data", {})]


def scaled(text, factor):
    """A text with the last number in it, of more than one digit, multiplied."""
    at = list(re.finditer(r"\d+\.\d+(e-?\d+)?", text))[-1]
    return text[: at.start()] + repr(float(at[0]) * factor) + text[at.end() :]


def kept(output, node):
    """Whether saving a run leaves both files as they are."""
    files = output, payload.pack_path(output)
    before = [f.read_bytes() for f in files]
    runner.save(node, output)
    return before == [f.read_bytes() for f in files]


def test_what_only_another_machine_changes_is_no_change(stored):
    node = fresh(stored)
    node.metadata.hesslib |= {"date": "2100-01-01", "seconds": 1, "device": "another", "versions": {"numpy": "9"}}
    for cell in node.cells:
        if re.search(r"\b(made_here|foot)\(", cell.source):
            cell.outputs[0].text = "computed on another"
    for out in outputs(node, "image/png"):
        out.data["image/png"] = "iVBO"
        out.data[PAGE] = re.sub(r'(<path d="M )\d+', r"\g<1>7", out.data[PAGE])
    assert kept(stored, node)


@pytest.mark.parametrize(("change", "expected"), [(1e-9, True), (1e-4, False)])
@pytest.mark.parametrize("kind", [NUMBERS, SAID, "text/plain"])
def test_a_number_changes_the_files_beyond_the_tolerance(stored, kind, change, expected):
    node = fresh(stored)
    shown = [o for o in outputs(node, kind) if re.search(r"\d+\.\d+", o.data[kind])]
    out = shown[-1]
    if kind == NUMBERS:  # as the page shows it, six digits
        head, row = out.data[kind].rstrip("\n").rsplit(",", 1)
        out.data[kind] = f"{head},{float(row) * (1 + change):.6g}\n"
    else:
        out.data[kind] = scaled(out.data[kind], 1 + change)
    assert kept(stored, node) == expected


@pytest.mark.parametrize("part", ["sentences", "alts", "values"])
def test_a_frame_that_says_something_else_changes_the_files(stored, part):
    node = fresh(stored)
    out = next(o for o in outputs(node, PAGE) if '<script type="application/json">' in o.data[PAGE])
    html = out.data[PAGE]
    text = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1]
    data = json.loads(text)
    data["lines"][0] += " "  # the drawing may differ
    same = html.replace(text, json.dumps(data))
    data[part][-1] = [*data[part][-1][:-1], "x"] if part == "values" else "x"
    assert rerun.words(same) == rerun.words(html) != rerun.words(html.replace(text, json.dumps(data)))
    out.data[PAGE] = html.replace(text, json.dumps(data))
    assert not kept(stored, node)
    assert kept(stored, fresh(stored))


@pytest.mark.parametrize("key", ["source", "code"])
def test_another_source_or_code_changes_the_files(stored, key):
    node = fresh(stored)
    node.metadata.hesslib[key] = "0" * 12
    assert not kept(stored, node)


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:1000])])
def test_a_run_repairs_a_lost_pack(stored, harm):
    node, figures = fresh(stored), payload.read(stored, fresh(stored).cells)
    harm(payload.pack_path(stored))
    runner.save(node, stored)
    assert payload.read(stored, nbformat.read(stored, as_version=4).cells) == figures


def test_rounding_is_no_change_and_a_lost_point_is_one():
    curve = lambda *points: "panel,series,x,y\n" + "".join(f"1,a,{i},{y}\n" for i, y in enumerate(points))
    assert rerun.same_curves(curve(1, 3e-17, 0.999999), curve(1, -8e-17, 1))  # against the largest, and a last digit
    assert rerun.same_curves(curve("nan", "inf"), curve("nan", "inf"))
    for other in (curve(1, 1e-9, 1), curve(1, 0), curve(1, "nan", 1), curve(1, 0, 1).replace(",a,", ",b,")):
        assert not rerun.same_curves(curve(1, 0, 1), other)
    assert rerun.same_text("residual 3.1e-16, at most", "residual 2e-16, at most")
    assert not rerun.same_text("holds, 0.95", "does not hold, 0.95") and not rerun.same_text("1, 2", "1")


def test_a_text_that_arrived_in_pieces_is_one_text(stored):
    node = fresh(stored)
    out = next(o for c in node.cells for o in c.get("outputs", []) if o.output_type == "stream" and len(o.text) > 20)
    cell = next(c for c in node.cells if out in c.get("outputs", []))
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=t) for t in (out.text[:9], out.text[9:])]
    bar = nbformat.v4.new_output("stream", name="stderr", text="bar")
    cell.outputs = [pieces[0], bar, pieces[1]]
    cleaned = runner.clean(node, runner.NOTEBOOKS / f"{stored.stem}.py", 1.0)
    assert [o.text for o in cell.outputs] == [out.text]
    assert kept(stored, cleaned)
