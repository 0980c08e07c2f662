"""Charts of stored measurements as HTML and SVG, drawn while the pages are built, without a plotting library."""

import math
from html import escape

from docutils import nodes

COLORS = ("#0f7fc0", "#c9682a", "#1f9a70", "#b0528f", "#a58a12", "#7a6fd0")  # those of hesslib.book.figures
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 280, 265, 52, 12, 26, 44  # points of a panel, and of its margins
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Series = dict[str, list[tuple[float, float]]]


def decades(values: list[float]) -> tuple[int, int]:
    """The powers of ten that positive values lie between, or next to."""
    return math.floor(math.log10(min(values)) + 0.05), math.ceil(math.log10(max(values)) - 0.05)


def power(exponent: int) -> str:
    """A power of ten as text; 1 and 10 without their exponents."""
    if exponent in (0, 1):
        return "10"[: exponent + 1]
    return "10" + str(exponent).translate(SUPERSCRIPT)


def panel(title: str, series: Series, xlabel: str, ylabel: str, y_range: tuple[int, int]) -> str:
    """Lines with points on two logarithmic axes, and their names below; follows the colours of the page."""
    low, high = decades([x for points in series.values() for x, _ in points])
    bottom, top = y_range
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    across = lambda x: LEFT + (right - LEFT) * (math.log10(x) - low) / max(high - low, 1)
    up = lambda y: floor - (floor - TOP) * (math.log10(y) - bottom) / max(top - bottom, 1)
    words = lambda x, y, text, more="": f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
    middle, ink = 'text-anchor="middle"', 'stroke="currentColor"'
    drawn = [words((LEFT + right) / 2, 14, title, middle)]
    for e in range(low, high + 1):
        x = across(10.0**e)
        drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}" {ink} opacity="0.12"/>')
        drawn.append(words(x, floor + 15, power(e), middle))
    for e in range(bottom, top + 1):
        y = up(10.0**e)
        drawn.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" {ink} opacity="0.12"/>')
        drawn.append(words(LEFT - 6, y + 4, power(e), 'text-anchor="end"'))
    drawn.append(words((LEFT + right) / 2, HEIGHT - 10, xlabel, middle))
    turn = f'{middle} transform="rotate(-90 12 {(TOP + floor) / 2})"'
    drawn.append(words(12, (TOP + floor) / 2, ylabel, turn))
    drawn.append(f'<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" {ink}/>')
    for points, color in zip(series.values(), COLORS):
        places = [(across(x), up(y)) for x, y in points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{way}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>' for x, y in places]
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{"".join(drawn)}</svg>'
    key = "".join(f'<li style="--mark:{color}">{escape(name)}</li>' for name, color in zip(series, COLORS))
    return f'<div class="chart-panel">{svg}<ul class="chart-key">{key}</ul></div>'


def lines(panels: dict[str, Series], xlabel: str, ylabel: str, alt: str) -> nodes.raw:
    """Panels side by side with one vertical axis."""
    y_range = decades([y for series in panels.values() for points in series.values() for _, y in points])
    drawn = "".join(panel(title, series, xlabel, ylabel, y_range) for title, series in panels.items())
    text = f'<div class="chart" role="group" aria-label="{escape(alt, quote=True)}">{drawn}</div>'
    return nodes.raw("", text, format="html")


def bars(rows: list[tuple[str, float | None, str]]) -> nodes.raw:
    """A bar for each row, from zero on a linear axis: its name, its length (None draws none), what stands behind it."""
    longest = max(length for _, length, _ in rows if length is not None)
    drawn = ""
    for i, (name, length, text) in enumerate(rows):
        share = 0 if length is None else 100 * length / longest
        bar = (
            f'<span class="bar" aria-hidden="true" style="width:calc({share:.2f}% * 0.62 + 2px)"></span>'
            if share
            else ""
        )
        first = ' class="ours"' if i == 0 else ""
        drawn += (
            f'<li{first}><span class="name">{escape(name)}</span>{bar}<span class="value">{escape(text)}</span></li>'
        )
    return nodes.raw("", f'<ul class="bars">{drawn}</ul>', format="html")


def folded(summary: str, *content: nodes.Node) -> list[nodes.Node]:
    """Nodes in a fold."""
    start = nodes.raw("", f'<details class="numbers"><summary>{escape(summary)}</summary>', format="html")
    return [start, *content, nodes.raw("", "</details>", format="html")]
