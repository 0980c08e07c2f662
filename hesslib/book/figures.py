"""One figure style for the whole book, legible on light, dark and printed pages."""

from __future__ import annotations

import csv
import html
import io
import re
import sys
from functools import cache

import matplotlib as mpl
import numpy as np
from matplotlib import textpath
from matplotlib.backends import backend_agg
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from .payload import NUMBERS, PAGE

# One colour per quantity throughout; mid-tones of the Okabe-Ito palette, distinct to colour-blind
# readers and with enough contrast on white and on the dark page alike.
COLORS = {"H": "#0f7fc0", "G": "#c9682a", "R": "#1f9a70", "start": "#8a8a8a", "end": "#0f7fc0", "theory": "#b0528f"}
SERIES = ["#0f7fc0", "#c9682a", "#1f9a70", "#b0528f", "#a58a12", "#7a6fd0"]
GREYS = ["#8a8a8a", "#8c510a", "#01665e", "#5e4fa2"]  # for what has no colour of its own
INK = "#1a1b1c"  # becomes the colour of the page's text
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # of the same width, where the first is not there

WIDE, THIRD = (5.2, 3.5), (3.2, 3.0)  # inches of a panel that stands alone, and of three in a row

STYLE = {
    "figure.figsize": (4.5, 3.3),
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.prop_cycle": mpl.cycler(color=SERIES),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
}
mpl.rcParams.update(STYLE)
# One parser of mathematics for all renderers, so that a label is parsed once and not for each picture it stands in.
textpath.MathTextParser = backend_agg.MathTextParser = cache(textpath.MathTextParser)


def panel(title: str = "", xlabel: str = "", ylabel: str = "", size: tuple[float, float] | None = None, **axes):
    """A new one-panel figure in the book's style; returns its axes.

    Panels are small on purpose: on a wide page they stand side by side, on a phone below each other. Of those with
    ``size=THIRD`` three stand in a row.
    """
    ax = Figure(figsize=size).subplots()
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, **axes)
    return ax


def signed_log(values: np.ndarray, floor: float) -> np.ndarray:
    """sign(v) log10(1 + abs(v) / floor): linear within the floor, decades beyond it."""
    return np.sign(values) * np.log10(1 + np.abs(values) / floor)


def signed_log_axis(ax, floor: float, low: float, high: float) -> None:
    """Label the y axis of a panel whose data went through ``signed_log``."""
    ax.signed_log_floor = floor  # so that the downloads hold the values themselves
    top, first = int(np.ceil(np.log10(max(high, floor)))), int(np.log10(floor)) + 1
    sides = 2 if low < -10 * floor else 1
    step = max(1, sides * (top - first + 1) // 6)
    positive = [10.0**e for e in range(top, first - 1, -step)]
    negative = [-v for v in positive if v <= 10 * -low]
    ticks = sorted(negative + [0.0] + positive)
    ax.set_yticks(signed_log(np.array(ticks), floor))
    name = lambda v: "0" if v == 0 else f"{'−' if v < 0 else ''}$10^{{{int(round(np.log10(abs(v))))}}}$"
    ax.set_yticklabels([name(v) for v in ticks])


def thin(x: np.ndarray, y: np.ndarray, points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``points`` of a monotone curve, evenly along it, with both ends: what a line can show."""
    if len(x) <= points:
        return x, y
    scale = lambda v: (v - v.min()) / max(np.ptp(v), 1e-300)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(scale(x)), np.diff(scale(y))))])
    keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(x) - 1))
    keep = np.union1d(keep, [0, len(x) - 1])
    return x[keep], y[keep]


def thousands(ax) -> None:
    """Write the x axis as 1,000."""
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))


def sparse_ticks(axis) -> None:
    """On a logarithmic axis of less than two powers of ten, name these and 2 and 5 times them, in full.

    Where fewer than two of these are in view, name every tick.
    """
    if axis.get_scale() != "log":
        return
    low, high = sorted(axis.get_view_interval())
    named = [c * 10.0**e for e in range(-20, 20) for c in (1, 2, 5) if low <= c * 10.0**e <= high]
    short = sum(f"{v:e}"[0] == "1" for v in named) < 2
    wanted = lambda v: short and (len(named) < 2 or np.isclose(v, named).any())
    axis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:,g}" if wanted(v) else ""))
    if short:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))


def drawn(ax) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """What a panel shows, as (series, x, y): lines, points, outlines of bands, corners of steps, bars, small images."""
    found = []
    for line in ax.lines:
        if line.get_transform() == ax.transData:  # not those drawn across the whole panel
            found.append((line.get_label(), *np.asarray(line.get_xydata(), dtype=float).T))
    for points in ax.collections:
        if isinstance(points, ContourSet):
            ways = [] if points.filled else zip(points.levels, points.get_paths())
            found += [(f"{level:g}", *np.asarray(way.vertices, dtype=float).T) for level, way in ways]
            continue
        vertices = points.get_offsets() if len(points.get_offsets()) > 1 else points.get_paths()[0].vertices
        found.append((points.get_label(), *np.asarray(vertices, dtype=float).T))
    for patch in ax.patches:
        vertices = patch.get_patch_transform().transform(patch.get_path().vertices)
        found.append((patch.get_label(), *vertices.T))
    for strength in (image.strength for image in ax.images if image.strength.size < 400):  # as numbers, if small
        found += [(f"row {i}", np.arange(len(row)), row) for i, row in enumerate(strength)]
    floor = getattr(ax, "signed_log_floor", None)
    values = lambda y: y if floor is None else np.sign(y) * floor * (10 ** np.abs(y) - 1)
    return [("" if str(name).startswith("_") else str(name), x, values(y)) for name, x, y in found]


def picture(name: str, alt: str, cells: str) -> str:
    """HTML of a figure: its panels side by side where there is room, the last row in the middle."""
    style = "display:flex;flex-wrap:wrap;justify-content:center;gap:8px"
    head = f'role="img" aria-label="{html.escape(alt)}" data-name="{name}" class="hesslib-figure" style="{style}"'
    return f"<div {head}>{cells}</div>"


def one_style(group: re.Match) -> str:
    """A group of markers with their style said once, if they have the same."""
    styles = set(re.findall(r' style="([^"]*)"', group[2]))
    if len(styles) != 1:
        return group[0]
    bare = re.sub(r' style="[^"]*"', "", group[2])
    return f'<g clip-path="{group[1]}" style="{styles.pop()}">{bare}</g>'


def page_type() -> str:
    """The type that a figure's HTML has: HTML if a reader sits at this kernel, else one that no viewer shows.

    Viewers that run nothing strip SVG and scripts from HTML, so in a file the PNG is what they should take. Where a
    reader sits the kernel may ask for input; papermill and its like forbid it.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return "text/html" if getattr(getattr(shell, "kernel", None), "_allow_stdin", False) else PAGE


class Panels:
    """Panels as one picture: SVG that follows the page's colours, PNG elsewhere, its alt text where neither shows."""

    def __init__(self, name: str, alt: str, *panels) -> None:
        if len(alt) < 40:
            raise ValueError(f"alt={alt!r}: say in a sentence what {name} shows")
        self.name, self.alt, self.figures = name, alt, [ax.figure for ax in panels]
        if len(panels) == 1 and tuple(self.figures[0].get_size_inches()) == STYLE["figure.figsize"]:
            self.figures[0].set_size_inches(WIDE)
        for figure in self.figures:
            for ax in figure.axes:
                sparse_ticks(ax.xaxis)
                sparse_ticks(ax.yaxis)
            ConstrainedLayoutEngine().execute(figure)  # once, not anew for each format

    def svg(self, index: int) -> str:
        """One panel as an SVG element that can stand within a page."""
        buffer = io.StringIO()
        prefix = f"{self.name}-{index}"
        with mpl.rc_context({"svg.hashsalt": prefix}):
            self.figures[index].savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        text = re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.S)
        # Hundredths of a point are enough, and a path on one line lets equal lines of two frames be shared.
        short = lambda m: re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", m[0]))
        text = re.sub(r' (d|x|y|transform)="[^"]*"', short, text)
        text = re.sub(r'<g clip-path="([^"]*)">\s*((?:<use [^>]*/>\s*)+)</g>', one_style, text)
        text = text.replace("'DejaVu Sans'", FONTS)
        text = text[text.index("<svg") :].replace(INK, "currentColor")
        text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
        text = re.sub(r"(url\(|href=\")#", rf"\1#{prefix}-", text)
        width, height = (72 * v for v in self.figures[index].get_size_inches())
        head = (
            f'<svg viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-hidden="true" style="width:100%;height:auto">'
        )
        return head + text[text.index(">") + 1 :]

    def png(self) -> bytes:
        """The panels on white, at most three side by side, and of four two."""
        images = []
        for figure in self.figures:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=90, facecolor="white")
            images.append(Image.open(buffer).convert("RGB"))
        beside = 2 if len(images) == 4 else 3
        rows = [images[i : i + beside] for i in range(0, len(images), beside)]
        wide, high = max(sum(i.width for i in row) for row in rows), [max(i.height for i in row) for row in rows]
        whole = Image.new("RGB", (wide, sum(high)), "white")
        for r, row in enumerate(rows):
            for i, image in enumerate(row):
                whole.paste(image, (sum(im.width for im in row[:i]), sum(high[:r])))
        out = io.BytesIO()
        whole.quantize(64, dither=Image.Dither.NONE).save(out, "png", optimize=True)
        return out.getvalue()

    def cells(self) -> str:
        """The panels as HTML. No panel is drawn much larger than another, so that all have one size of type."""
        widths = [min(100 * figure.get_size_inches()[0] / 1.25, 700) for figure in self.figures]
        box = lambda i, width: f'<div style="flex:1 1 {0.75 * width:.0f}px;max-width:{width:.0f}px">{self.svg(i)}</div>'
        return "\n".join(box(i, width) for i, width in enumerate(widths))

    def numbers(self, **columns) -> str:
        """What is drawn, as lines of CSV: the given columns, panel, series, x, y."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        for i, figure in enumerate(self.figures):
            ax = figure.axes[0]
            for name, xs, ys in drawn(ax):
                for x, y in zip(xs, ys):
                    writer.writerow([*columns.values(), ax.get_title() or i + 1, name, f"{x:.6g}", f"{y:.6g}"])
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        page = picture(self.name, self.alt, self.cells())
        numbers = "panel,series,x,y\n" + self.numbers()
        return {page_type(): page, "image/png": self.png(), "text/plain": self.alt, NUMBERS: numbers}


def figure(name: str, *panels, caption: str, alt: str) -> None:
    """Show panels as one figure, with its caption below it.

    Args:
        name: of the figure, unique in its chapter; letters, digits and underscores.
        panels: axes made by ``panel``.
        caption: Markdown; the book numbers it.
        alt: what is drawn in this run, for who cannot see it (at least 40 characters).
    """
    place(name, Panels(name, alt, *panels), caption)


def place(name: str, shown, caption: str) -> None:
    """Show a figure and its caption as outputs that programs find by the figure's name."""
    from IPython.display import Markdown, display

    if len(caption) < 20:
        raise ValueError(f"caption={caption!r}: say in a sentence what {name} is")
    bundle = shown._repr_mimebundle_()
    metadata = {"hesslib": {"figure": name}, "image/png": {"alt": bundle["text/plain"]}}
    display(bundle, raw=True, metadata=metadata)
    display(Markdown(f"**Figure.** {' '.join(caption.split())}"), metadata={"hesslib": {"caption": name}})


def ranked(ax, eigenvalues, color: str = COLORS["H"], label: str = "", floor: float = 1e-14, points: int = 200) -> None:
    """Draw magnitudes of eigenvalues against their rank from the largest, both logarithmic; negative ones as rings.

    Magnitudes below ``floor`` times the largest are not drawn: say in words how many there are. Of many ranks those
    are drawn that can be told apart, about ``points``, and all of the first forty.
    """
    values = np.asarray(eigenvalues, dtype=float)
    values = values[np.argsort(-np.abs(values), kind="stable")]
    rank = np.arange(1, len(values) + 1)
    there = np.abs(values) > floor * np.abs(values[:1]).max(initial=0)
    last = max(1, int(there.sum()))
    spaced = np.geomspace(1, last, points).round() if last > points else rank[:last]
    keep = np.union1d(spaced, np.arange(1, min(40, last) + 1)).astype(int) - 1
    kinds = ((1, label, color, 3), (-1, f"{label}, negative" if label else "", "none", 6))
    for sign, name, face, size in kinds:
        chosen = keep[there[keep] & (sign * values[keep] > 0)]
        if len(chosen):
            style = {"marker": "o", "ls": "", "color": color, "markerfacecolor": face, "markersize": size}
            ax.plot(rank[chosen], np.abs(values[chosen]), label=name or None, **style)
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel(ax.get_xlabel() or "rank from the largest")
    ax.set_ylabel(ax.get_ylabel() or "magnitude of the eigenvalue")


def tinted(ax, strength, colors, **image) -> None:
    """Draw an image: at each point one of the colours, in five steps the more opaque the stronger, from 0 to 1."""
    tint = to_rgba_array(np.ravel(colors)).reshape(*np.shape(strength), 4)
    tint[..., 3] = np.round(5 * np.clip(strength, 0, 1)) / 5
    ax.imshow(tint, interpolation="none", **image).strength = np.asarray(strength)
    ax.grid(False)


def matrix(ax, entries, decades: float = 3) -> None:
    """Draw each entry of a matrix as a point, on a logarithmic scale of some decades; blue positive, orange not."""
    entries = np.asarray(entries)
    share = np.abs(entries) / np.abs(entries).max()
    colors = np.where(entries > 0, COLORS["H"], COLORS["G"])
    tinted(ax, 1 + np.log10(share.clip(1e-99)) / decades, colors)
    ax.set(xticks=[], yticks=[])


def band(ax, x, curves, color: str, label: str = "", **line) -> None:
    """Draw the median of several runs' curves, (runs, points), and the band from the least to the most."""
    curves = np.atleast_2d(np.asarray(curves, dtype=float))
    if len(curves) > 1:
        ax.fill_between(x, curves.min(0), curves.max(0), color=color, alpha=0.25, lw=0)
    ax.plot(x, np.median(curves, 0), color=color, label=label or None, **line)


def density(ax, values, law, bins: int = 30, label: str = "sample", name: str = "Marchenko-Pastur") -> None:
    """Draw a histogram of the eigenvalues that are not zero, as a density over all of them, and a law's density.

    Args:
        values: ascending eigenvalues; those at zero count in the density and are not drawn.
        law: with ``pdf`` and ``edges``, as those of ``hesslib.theory``.
        bins: of the histogram.
        label, name: of the eigenvalues and of the law in the legend.
    """
    kept, ends = values[values > 0], np.ravel(law.edges)
    low, high = min(kept[0], ends[0]), max(kept[-1], ends[-1])
    weights = np.full(len(kept), bins / (high - low) / len(values))
    ax.hist(kept, bins, (low, high), weights=weights, color=COLORS["G"], alpha=0.5, label=label)
    x = np.linspace(max(ends[0], 1e-3 * ends[-1]), ends[-1], 300)
    ax.plot(x, law.pdf(x), color=COLORS["theory"], label=name)
    ax.legend()


def contours(ax, x, y, values, color: str = COLORS["H"], most: int = 9) -> None:
    """Draw positive values (y, x) on a grid as filled contours, at most five named: the lower the more opaque.

    Levels are 1 and 3 times powers of ten, at most ``most`` of them; round numbers where fewer than three of these fit.
    """
    low, high = np.min(values), np.max(values)
    levels = [c * 10.0**e for e in range(-12, 12) for c in (1, 3) if low < c * 10.0**e < high]
    if len(levels) < 3:
        levels = [v for v in MaxNLocator(6).tick_values(low, high) if low < v < high]
    levels = levels[:: -(-len(levels) // most) or 1]
    shades = [(*to_rgb(color), a) for a in np.linspace(0.75, 0.03, len(levels) + 1)]
    ax.contourf(x, y, values, [0, *levels, np.inf], colors=shades)
    if levels:
        lines = ax.contour(x, y, values, levels, colors=INK, linewidths=0.5)
        ax.clabel(lines, levels[:: 2 if len(levels) > 4 else 1], fmt="%g", fontsize=8)
    ax.grid(False)


def smooth_density(ax, eigenvalues, color: str, label: str = "", width: float = 0.01) -> None:
    """Draw the density of eigenvalues: each a normal curve, ``width`` of the largest wide; the axis is logarithmic.

    It ends at a tenth of the height that a single eigenvalue has.
    """
    values = np.asarray(eigenvalues, dtype=float)
    sigma = width * (np.abs(values).max() or 1.0)
    x = np.linspace(values.min() - 5 * sigma, values.max() + 5 * sigma, 400)
    one = 1 / (sigma * np.sqrt(2 * np.pi) * len(values))
    y = one * np.exp(-0.5 * ((x[:, None] - values) / sigma) ** 2).sum(1)
    seen = y > one / 10
    for part in np.split(np.arange(400), np.flatnonzero(np.diff(seen)) + 1):
        if seen[part[0]]:
            ax.plot(x[part], y[part], color=color, label=label or None)
            label = ""
    ax.set_yscale("log")


def law_ranks(ax, law, count: int, top: float, above: int = 0, **style) -> None:
    """Draw a law as eigenvalues against rank: how many of ``count`` it puts above each value, from 1e-6 ``top`` up.

    Args:
        law: with ``cdf``.
        count: number of eigenvalues.
        top: the largest of them.
        above: how many more lie above, which the law does not describe.
        style: of the line.
    """
    x = np.geomspace(top * 1e-6, top * 1.5, 300)
    rank = count * (1 - law.cdf(x)) + above
    seen = (rank > 0.3) & (np.diff(rank, prepend=np.inf) != 0)
    ax.plot(rank[seen], x[seen], **style)


def here_and_stored(draw, here, stored, here_title: str = "this run", stored_title: str = "stored runs", **labels):
    """The same drawing of this run's data and of stored data, as two panels; 'not run' where there is none.

    Args:
        draw: called as ``draw(ax, data)``.
        here, stored: the data of each; None or empty where there are no runs.
        here_title, stored_title: the panels' titles.
        labels: for both panels, as in ``panel``.
    """
    panels = []
    for data, title in ((here, here_title), (stored, stored_title)):
        ax = panel(title, **labels)
        if data is None or (hasattr(data, "__len__") and len(data) == 0):
            ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center")
        else:
            draw(ax, data)
        panels.append(ax)
    return tuple(panels)


def table(head: list[str], rows: list[list], fold: str = "") -> None:
    """Show a table: a heading for each column, and rows of text or numbers already formatted.

    Long ones that a figure shows are folded, under the words of ``fold``.
    """
    from IPython.display import Markdown, display

    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    display(Markdown(f"<details><summary>{fold}</summary>\n\n{text}\n\n</details>" if fold else text))
