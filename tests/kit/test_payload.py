"""Figures beside their notebook: packed in the same bytes, tied to their cells, and refused if they are not whole."""

import io
import json
import re
import time

import pytest

from hesslib.book import payload
from hesslib.book.payload import NUMBERS, PAGE, PackError, Payload

PAYLOADS = {
    "fig_b": Payload("<div>Güney</div>", "panel,series,x,y\n1,a,1,2\n"),
    "fig_a": Payload("<div></div>" * 50, "panel,series,x,y\n1,a,3,4\n"),
}


def cells(payloads=PAYLOADS):
    """A text cell, and a cell for each figure as a kernel without a reader leaves it."""
    made = [{"cell_type": "markdown", "source": "text"}]
    for name, (html, csv) in payloads.items():
        data = {PAGE: html, NUMBERS: csv, "image/png": "iVBO", "text/plain": name}
        made.append({"outputs": [{"data": data, "metadata": {"hesslib": {"figure": name}}}]})
    return made


def packed(payloads):
    file = io.BytesIO()
    payload.write(file, payloads)
    return file.getvalue()


@pytest.fixture
def notebook(tmp_path):
    """The path of a notebook beside which a pack lies, and its cells."""
    path, made = tmp_path / "01_x.ipynb", cells()
    payload.pack_path(path).parent.mkdir()
    payload.pack_path(path).write_bytes(packed(payload.take_out(made)))
    return path, made


def test_a_cell_keeps_picture_and_text_and_finds_its_payload_again(notebook):
    path, made = notebook
    assert [list(c["outputs"][0]["data"]) for c in made[1:]] == [["image/png", "text/plain"]] * 2
    assert payload.read(path, made) == {"fig_b": (1, PAYLOADS["fig_b"]), "fig_a": (2, PAYLOADS["fig_a"])}


def test_a_notebook_that_holds_its_figures_itself_needs_no_pack(tmp_path):
    made = cells()
    data = made[2]["outputs"][0]["data"]
    data["text/html"] = data.pop(PAGE)  # as saved in Jupyter, and in lines
    data[NUMBERS] = data[NUMBERS].splitlines(keepends=True)
    found = payload.read(tmp_path / "out.ipynb", json.loads(json.dumps(made)))
    assert {name: figure for name, (_, figure) in found.items()} == PAYLOADS


def test_the_same_figures_are_the_same_bytes(monkeypatch):
    first = packed(PAYLOADS)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((2033, 5, 18, 0, 0, 0, 2, 138, 0)))
    assert packed(dict(reversed(PAYLOADS.items()))) == first
    assert packed(PAYLOADS | {"fig_a": PAYLOADS["fig_b"]}) != first


def test_a_missing_pack_is_named(notebook):
    path, made = notebook
    payload.pack_path(path).unlink()
    with pytest.raises(PackError, match=r"figures/01_x\.zip is missing$"):
        payload.read(path, made)


@pytest.mark.parametrize("other", [{"fig_b": PAYLOADS["fig_b"]}, PAYLOADS | {"fig_a": PAYLOADS["fig_b"]}])
def test_a_pack_of_another_run_is_named(notebook, other):
    path, made = notebook
    payload.pack_path(path).write_bytes(packed(other))
    with pytest.raises(PackError, match=r"01_x\.zip .*fig_a.* of another run than the notebook"):
        payload.read(path, made)


def test_damage_is_noticed_wherever_it_is(notebook):
    path, made = notebook
    whole, expected = payload.pack_path(path).read_bytes(), payload.read(path, made)
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            payload.pack_path(path).write_bytes(damaged)
            try:
                assert payload.read(path, made) == expected  # such as a changed date
            except PackError as error:
                assert re.search(r"01_x\.zip (is damaged|lacks|holds)", str(error))
