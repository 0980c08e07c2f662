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
