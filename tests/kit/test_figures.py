import re
from types import SimpleNamespace

import IPython
import numpy as np
import pytest

from hesslib.book import figures
from hesslib.book.payload import PAGE


def example():
    ax = figures.panel("a title", "rank", "value")
    ax.plot([1, 2, 3], [1, 4, 9], label="series")
    ax.legend()
    return ax


def test_a_figure_has_every_form_and_follows_the_page():
    bundle = figures.Panels(
        "fig_x", "Squares of the first three whole numbers, rising.", example(), example()
    )._repr_mimebundle_()
    html = bundle[PAGE]
    assert html.count("<svg ") == 2 and 'aria-label="Squares' in html
    assert "currentColor" in html and figures.INK not in html
    assert 'id="fig_x-0-' in html and 'id="fig_x-1-' in html
    ids = [part.split('"')[0] for part in html.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert bundle["image/png"].startswith(b"\x89PNG") and bundle["text/plain"].startswith("Squares")


@pytest.mark.parametrize(("asks", "kind"), [(True, "text/html"), (False, PAGE)])
def test_a_reader_at_the_kernel_sees_the_html_and_a_file_shows_the_png(monkeypatch, asks, kind):
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=asks))
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    bundle = figures.Panels("fig_x", "Squares of the first three whole numbers, rising.", example())._repr_mimebundle_()
    assert set(bundle) == {kind, "image/png", "text/plain", "text/csv"}


def test_the_same_figure_is_the_same_text():
    make = lambda: figures.Panels("fig_x", "Squares of the first three whole numbers, rising.", example()).svg(0)
    assert make() == make()


def test_a_figure_without_alt_text_is_refused():
    with pytest.raises(ValueError, match="alt='squares'"):
        figures.Panels("fig_x", "squares", example())


def test_thinning_keeps_ends_and_shape():
    x = np.arange(1, 5001)
    y = np.where(x < 4990, 0.0, (x - 4989.0) ** 2)
    tx, ty = figures.thin(x, y)
    assert len(tx) < 500 and (tx[0], tx[-1]) == (1, 5000) and set(y[4988:]) <= set(ty)
    assert np.abs(np.interp(x, tx, ty) - y).max() < 0.02 * y.max()


def test_signed_log_is_odd_and_linear_at_zero():
    v = np.array([-1.0, -1e-8, 0, 1e-8, 1.0])
    w = figures.signed_log(v, 1e-6)
    np.testing.assert_allclose(w, -w[::-1])
    assert w[3] == pytest.approx(1e-2 / np.log(10), rel=0.01) and w[4] == pytest.approx(6, rel=1e-6)


def test_every_label_has_a_font_that_every_reader_has():
    ax = example()
    ax.set_title("$10^{-3}$ and words")
    svg = figures.Panels("fig_x", "Squares of the first three whole numbers, rising.", ax).svg(0)
    families = re.findall(r"font(?:-family)?: ([^;\"]*)", svg)
    assert families and all(family.endswith("sans-serif") for family in families)


def test_ranks_go_by_magnitude_and_negative_eigenvalues_are_rings():
    ax = figures.panel()
    figures.ranked(ax, [1e-3, -0.5, 2.0, 0.0, 1e-20], label="H")
    dots, rings = ax.lines
    assert dots.get_xydata().tolist() == [[1, 2.0], [3, 1e-3]] and rings.get_xydata().tolist() == [[2, 0.5]]
    assert rings.get_markerfacecolor() == "none" != dots.get_markerfacecolor()
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log") and rings.get_label() == "H, negative"
    many = figures.panel()
    figures.ranked(many, np.geomspace(1, 1e-6, 5000))
    assert len(many.lines[0].get_xdata()) < 260 and many.lines[0].get_xdata()[:40].tolist() == list(range(1, 41))


def test_a_band_is_median_and_range():
    ax = figures.panel()
    figures.band(ax, [1, 2], [[1, 5], [2, 9], [9, 6]], color="red", label="runs")
    assert ax.lines[0].get_ydata().tolist() == [2, 6]
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 9
    figures.band(ax, [1, 2], [[1, 5]], color="red")
    assert len(ax.collections) == 1, "one run has no band"


def test_here_and_stored_are_drawn_alike_and_what_is_not_run_says_so():
    draw = lambda ax, data: ax.plot(data)
    here, stored = figures.here_and_stored(draw, [1, 2], [], "now", "then", xlabel="rank")
    assert len(here.lines) == 1 and here.get_title() == "now" and stored.get_xlabel() == "rank"
    assert not stored.lines and stored.texts[0].get_text() == "not run"


def test_a_figure_and_its_caption_are_found_by_its_name(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda what, raw=False, metadata=None: shown.append((what, metadata))
    )
    alt = "Squares of the first three whole numbers, rising."
    figures.figure("fig_x", example(), caption="The squares\n  of whole numbers.", alt=alt)
    (bundle, first), (caption, second) = shown
    assert first == {"hesslib": {"figure": "fig_x"}, "image/png": {"alt": alt}} and "image/png" in bundle
    assert second == {"hesslib": {"caption": "fig_x"}} and caption.data == "**Figure.** The squares of whole numbers."
    with pytest.raises(ValueError, match="say in a sentence what fig_x is"):
        figures.figure("fig_x", example(), caption="", alt=alt)


def test_markers_of_one_style_say_it_once():
    svg = figures.Panels("fig_x", "Squares of the first three whole numbers, rising.", dotted()).svg(0)
    marks = re.findall(r"<use [^>]*/>", svg[svg.index('<g clip-path="') :])
    assert len(marks) >= 3 and not any("style" in mark for mark in marks[:3])


def dotted():
    ax = figures.panel()
    ax.plot([1, 2, 3], [1, 4, 9], "o")
    ax.grid(False)
    return ax


def test_contours_are_named_by_level_and_can_be_downloaded():
    ax = figures.panel("loss")
    x, y = np.linspace(-1, 1, 9), np.linspace(0, 1, 7)
    figures.contours(ax, x, y, 0.05 + x**2 + 4 * y[:, None] ** 2)
    series = [name for name, *_ in figures.drawn(ax)]
    assert series == ["0.1", "0.3", "1", "3"]
    way = dict((name, (a, b)) for name, a, b in figures.drawn(ax))["1"]
    assert len(way[0]) > 3 and way[0] == pytest.approx(way[0].clip(-1, 1))
    flat = figures.panel("nearly flat")
    figures.contours(flat, x, y, 2.3 + 0.01 * x**2 + 0 * y[:, None])
    assert len(figures.drawn(flat)) >= 3
    figures.contours(figures.panel("flat"), x, y, np.full((7, 9), 2.3))


def test_a_density_gives_each_eigenvalue_its_share():
    ax = figures.panel("density")
    figures.smooth_density(ax, np.array([0.0] * 98 + [0.5, 1.0]), "C0", "start")
    curves = figures.drawn(ax)
    assert curves[0][0] == "start" and all(np.isfinite(y).all() for _, _, y in curves)
    assert sum(np.trapezoid(y, x) for _, x, y in curves) == pytest.approx(1, abs=0.02)
    x, y = np.concatenate([c[1] for c in curves]), np.concatenate([c[2] for c in curves])
    assert y[np.argmin(abs(x - 1))] == pytest.approx(0.01 / (0.01 * np.sqrt(2 * np.pi)), rel=0.05)
    assert not ((x > 0.7) & (x < 0.8)).any()


def test_a_short_logarithmic_axis_names_few_ticks():
    short, long = (figures.panel("ticks", xlim=limits, xscale="log") for limits in ((0.015, 0.7), (0.015, 70)))
    figures.Panels("fig_ticks", "Two empty panels whose horizontal axes are logarithmic.", short, long)
    names = lambda ax: [t.get_text() for t in ax.xaxis.get_minorticklabels() if t.get_text()]
    short.figure.canvas.draw(), long.figure.canvas.draw()
    assert names(short) == ["0.02", "0.05", "0.2", "0.5"] and names(long) == []
