"""Explorations: frames without a kernel, recomputation with one, and what is refused."""

import json
import re
import threading
import time

import pytest

from hesslib.book import figures
from hesslib.book.explore import Exploration, Newest

ALT = "Multiples of the first whole numbers, on a straight line."


def line(slope, shift=0):
    ax = figures.panel("", "x", "y", xlim=(0, 4), ylim=(0, 20))
    ax.plot([0, 1, 2, 3], [shift, shift + slope, shift + 2 * slope, shift + 3 * slope], label="line")
    return f"The slope is {slope} and the shift {shift}.", ax


def make(fn=line, controls=None, name="fig_x", alt=ALT, start=None, frames=None, live=None, labels=None):
    controls = {"slope": [1, 2, 3], "shift": [0, 4]} if controls is None else controls
    return Exploration(fn, controls, name, alt, start or {}, frames or fn, live or {}, labels or {})


def data_of(exploration):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', exploration.html, re.S)[1])


def test_a_frame_for_each_combination_each_with_its_own_picture_and_alt_text():
    found = make()
    data = data_of(found)
    assert data["values"] == [["1", "2", "3"], ["0", "4"]] and len(data["frames"]) == 6
    pictures = {"\n".join(data["lines"][i] for i in frame) for frame in data["frames"]}
    assert len(pictures) == 6 and all(p.count("<svg") == 1 for p in pictures)
    assert data["alts"][5] == f"{ALT} The slope is 3 and the shift 4." and len(set(data["alts"])) == 6


def test_the_first_frame_is_in_the_page_and_is_that_of_the_start():
    found = make(start={"slope": 2, "shift": 4})
    page = re.sub(r"<script.*?</script>", "", found.html, flags=re.S)
    assert "The slope is 2 and the shift 4." in page and page.count("<svg") == 1
    assert re.findall(r'value="(\d)"', page) == ["1", "1"] and "http://" not in page.replace("http://www.w3.org", "")
    data = data_of(found)
    assert "\n".join(data["lines"][i] for i in data["frames"][found.first]) in page


def test_a_slider_with_many_values_can_be_played_and_a_minus_sign_is_one():
    few, many = make(), make(controls={"slope": [-2, -1, 0, 1, 2]})
    assert "<button" not in few.html and many.html.count('<button type="button">▶ play</button>') == 1
    assert data_of(many)["sentences"][0] == "The slope is −2 and the shift 0."


def test_equal_lines_are_kept_once_so_that_frames_are_small():
    many = make(controls={"slope": [1 + i / 10 for i in range(40)]})
    one = len(figures.Panels("fig_x", ALT, line(1)[1]).svg(0))
    assert len(many.html) < 2 * one + 40 * 1500


def test_the_same_call_gives_the_same_text():
    assert make().html == make().html and make().csv == make().csv


def test_numbers_of_every_frame_can_be_taken_home():
    rows = [r.split(",") for r in make().csv.splitlines()]
    assert rows[0] == ["slope", "shift", "panel", "series", "x", "y"] and len(rows) == 1 + 6 * 4
    assert ["3", "4", "1", "line", "2", "10"] in rows


def test_stored_frames_may_be_missing():
    found = make(frames=lambda slope, shift: line(slope, shift) if slope < 3 else None)
    data = data_of(found)
    assert data["sentences"][5] == "slope 3, shift 4: not run." and data["frames"][5] == []
    nothing = make(frames=lambda slope, shift: None)
    assert "not run" in nothing.html and "image/png" not in nothing._repr_mimebundle_()


def test_text_of_a_frame_cannot_break_the_page():
    def hostile(slope):
        return f'{slope} </script><b> & "quotes" in the sentence', line(slope)[1]

    page = make(hostile, {"slope": [1, 2]}).html
    assert page.count("</script>") == 2 and "<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": {}}, "at least one parameter"),
        ({"controls": {"slope": [1]}}, "slope=.1.: give at least two values"),
        ({"controls": {"slope": [1, 1]}}, "each once"),
        ({"controls": {"slop": [1, 2]}}, "do not fit line"),
        ({"start": {"slope": 9}}, "start: slope=9 is not among"),
        ({"live": {"slope": [5, 6]}}, "live: slope lacks the value of the start, 1"),
        ({"live": {"seed": [5, 6]}}, "do not fit line"),
        ({"controls": {"slope": [1, 2]}, "live": {"shift": [5, 6]}}, "live: shift lacks the value of the start, 0"),
        ({"labels": {"seed": "x"}}, "labels: seed is not a control"),
        ({"name": "a figure"}, "name='a figure'"),
        ({"alt": "a line"}, "alt='a line"),
        ({"fn": lambda slope, shift: line(slope)[1]}, "give a sentence"),
        ({"fn": lambda slope, shift: ("short", line(slope)[1])}, "give a sentence"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_too_large_for_a_page_is_refused(monkeypatch):
    monkeypatch.setattr("hesslib.book.explore.LIMIT", 5000)
    with pytest.raises(ValueError, match=r"6 frames make .* give fewer values"):
        make()


def wait(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_slider_recomputes_with_the_live_values():
    calls = []

    def noted(slope, shift=0):
        calls.append((slope, shift))
        return line(slope, shift)

    found = make(noted, {"slope": [1, 2]}, live={"slope": [1, 1.5, 2], "shift": [0, 7]})
    assert calls == [(1, 0), (2, 0)]
    slope, shift, status, picture = found.widget().children
    before = picture.value
    slope.value = 1.5
    wait(lambda: "slope is 1.5 and the shift 0" in status.value)
    assert picture.value != before and "slope is 1.5" in picture.value
    shift.value = 7
    wait(lambda: "slope is 1.5 and the shift 7" in status.value)
    assert calls[2:] == [(1.5, 0), (1.5, 7)]


def test_a_failing_computation_is_reported_and_the_next_one_works():
    def picky(slope):
        if slope == 2:
            raise ValueError("two is <too> large")
        return line(slope)

    found = make(picky, {"slope": [1, 3]}, live={"slope": [1, 2, 3]})
    slope, status, _ = found.widget().children
    slope.value = 2
    wait(lambda: status.value == "ValueError: two is &lt;too&gt; large")
    slope.value = 3
    wait(lambda: "slope is 3" in status.value)


def test_the_newest_choice_interrupts_and_earlier_ones_are_never_shown():
    began, finished, shown = [], [], []

    def slow(value):
        began.append(value)
        end = time.monotonic() + 30
        while value < 5 and time.monotonic() < end:  # only the last choice ends by itself
            sum(range(100))
        finished.append(value)
        return str(value), "done"

    newest = Newest(slow, lambda *found: shown.append(found))
    newest.ask(0)
    wait(lambda: began == [0])
    start = time.monotonic()
    for value in range(1, 6):
        newest.ask(value)
    wait(lambda: ("5", "done") in shown)
    assert time.monotonic() - start < 5, "the stale computation ran on"
    assert finished == [5] and [s for s in shown if s[0]] == [("5", "done")]
    assert shown[0] == ("", "<em>computing …</em>"), "nothing says that it is busy"
    newest.thread.join()


def test_interrupting_again_and_again_leaves_no_thread_and_no_lock_behind():
    shown = []

    def short(value):
        for _ in range(2000):
            pass
        return str(value), "done"

    newest = Newest(short, lambda *found: shown.append(found))
    for value in range(300):
        newest.ask(value)
        if value % 3 == 0:
            time.sleep(0.0005)
    wait(lambda: ("299", "done") in shown)
    newest.thread.join()
    assert newest.lock.acquire(timeout=1) and threading.active_count() < 20
    order = [int(s[0]) for s in shown if s[0]]
    assert order == sorted(order)


def test_sliders_are_shown_only_to_a_reader_at_the_kernel(monkeypatch):
    view = "application/vnd.jupyter.widget-view+json"
    assert view not in make()._repr_mimebundle_() and "image/png" in make()._repr_mimebundle_()
    monkeypatch.setattr("hesslib.book.explore.page_type", lambda: "text/html")
    assert next(iter(make()._repr_mimebundle_())) == view
