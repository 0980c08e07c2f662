"""The charts that the build of the pages draws from stored measurements."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from docutils import nodes

from hesslib.book.paths import ROOT

sys.path.insert(0, str(ROOT / "book" / "extensions"))
import charts
import hessbook

COSTS = json.loads((ROOT / "book" / "method_costs.json").read_text())


def test_a_panel_has_its_points_where_their_logarithms_are():
    text = charts.panel("a title", {"squares": [(1, 1), (10, 100), (100, 10000)]}, "x", "y", (0, 4))
    places = [tuple(map(float, p)) for p in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert places[1][0] == pytest.approx((places[0][0] + places[2][0]) / 2)
    assert places[1][1] == pytest.approx((places[0][1] + places[2][1]) / 2) and places[2][1] < places[0][1]
    assert [t for t in ("1", "10", "10²", "10³", "10⁴", "a title") if f">{t}</text>" not in text] == []


def test_decades_hold_the_values_and_a_size_just_beyond_makes_no_new_one():
    assert charts.decades([970, 1_000_878]) == (3, 6) and charts.decades([2e-3, 0.3]) == (-3, 0)
    assert charts.power(-3) == "10⁻³" and charts.power(1) == "10" and charts.power(0) == "1"


def test_bars_are_as_long_as_their_values_and_what_failed_has_none():
    text = charts.bars([("ours", 1.0, "1 s"), ("theirs <2>", 4.0, "4 s"), ("another", None, "failed")]).astext()
    assert re.findall(r"width:calc\(([\d.]+)%", text) == ["25.00", "100.00"]
    assert "theirs &lt;2&gt;" in text and text.count("<li") == 3 and "failed" in text


def test_every_method_and_contender_is_drawn_and_has_a_row_in_the_fold():
    drawn = hessbook.cost_lines(COSTS).astext()
    points = sum(len(hessbook.along_size(m, COSTS["classes"])) for m in COSTS["methods"].values())
    assert drawn.count("<polyline") == len(COSTS["methods"]) and drawn.count("<circle") == points
    env = SimpleNamespace(srcdir=str(ROOT), note_dependency=lambda path: None)
    directive = SimpleNamespace(env=env)
    found = hessbook.BenchmarkTable.run(directive)
    bars = "".join(node.astext() for node in found if isinstance(node, nodes.raw))
    tables = " ".join(node.astext() for node in found if isinstance(node, nodes.table))
    report = json.loads((ROOT / "book" / "benchmark.json").read_text())
    for line in (line for lines in report["tasks"].values() for line in lines):
        what = hessbook.SMALL_NAMES.sub(lambda name: name[0].lower(), line["what"])
        assert what in tables and what.replace("'", "&#x27;") in bars
    assert bars.count("<details") == bars.count("</details>") == len(report["tasks"])
