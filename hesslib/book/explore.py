"""Figures that a reader can move: recomputed where there is a kernel, prepared frames where there is none."""

from __future__ import annotations

import ctypes
import html
import inspect
import itertools
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .._progress import bar
from .figures import Panels, page_type, picture, place
from .payload import NUMBERS, PAGE

PLAYS = 5  # values of the first control from which on it has a button that plays them
LIMIT = 700_000  # characters of one exploration's HTML; a page has at most 1.5 MB in all

# Without a kernel the sliders choose among prepared frames. Equal lines of the frames' SVG are kept once.
SCRIPT = """(box => {
  const data = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  const inputs = [...box.querySelectorAll('input')];
  const turn = () => {
    let index = 0;
    inputs.forEach((input, i) => {
      const text = data.values[i][input.value];
      index = index * data.values[i].length + Number(input.value);
      input.setAttribute('aria-valuetext', text);
      input.nextElementSibling.textContent = text;
    });
    const picture = box.querySelector('[role=img]');
    picture.innerHTML = data.frames[index].map(i => data.lines[i]).join('\\n');
    picture.setAttribute('aria-label', data.alts[index]);
    box.querySelector('[role=status]').textContent = data.sentences[index];
  };
  inputs.forEach(input => input.addEventListener('input', turn));
  const button = box.querySelector('button'), first = inputs[0];
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = '▶ play'; };
  const step = () => {
    if (first.value === first.max) return stop();
    first.value++;
    turn();
  };
  if (button) button.addEventListener('click', () => {
    if (timer) return stop();
    if (first.value === first.max) first.value = -1;
    timer = setInterval(step, 700);
    button.textContent = '❚❚ pause';
    step();
  });
  box.querySelector('.hesslib-controls').hidden = false;
})(document.currentScript.parentElement)"""


def explore(
    fn: Callable[..., tuple],
    controls: dict[str, Sequence],
    *,
    name: str,
    alt: str,
    caption: str,
    start: dict[str, Any] | None = None,
    frames: Callable[..., tuple | None] | None = None,
    live: dict[str, Sequence] | None = None,
    labels: dict[str, str] | None = None,
) -> None:
    """Show a figure with a slider for each control, and its caption below it.

    With a kernel, releasing a slider calls ``fn`` anew; 'computing' is shown meanwhile, and a newer
    choice interrupts the call under way, whose result is dropped. In the book, which has no kernel, the
    sliders choose among frames prepared here, one for each combination of the controls' values::

        def turn(width, seed=0):
            r = sized(width, seed=seed, **setting)
            ax = figures.panel("", "rank", "eigenvalue", ylim=(0, 3))  # fixed limits: what moves is the data
            ax.plot(*figures.thin(rank, r["eigenvalues"], 150))
            return f"{width} units: the largest eigenvalue is {r['eigenvalues'][-1]:.2f}.", ax


        explore(
            turn,
            {"width": [10, 20, 30, 50, 70]},
            name="fig_turn",
            alt="Eigenvalues in ascending order.",
            caption="The spectrum of networks with a hidden layer of 10 to 70 units.",
            live={"width": range(2, 101), "seed": range(10)},
        )

    Args:
        fn: called with a value for each control, by keyword; returns a sentence with the numbers of this
            frame (at least 20 characters), and one or more panels (``figures.panel``). It draws the same
            axes for every value, and leaves nothing behind when interrupted between two lines of Python.
        controls: for each parameter of ``fn`` the values of its slider, in order.
        name: name of the figure; letters, digits and underscores.
        alt: what the figure shows whatever the values; with the frame's sentence it is its alt text.
        caption: Markdown; the book numbers it.
        start: the values of the first frame, which is all that shows without scripts and in print;
            by default the first value of each control.
        frames: another function for the prepared frames, for instance one that reads stored results;
            it may return None where there is none, and the frame then says 'not run'. By default ``fn``.
        live: other values where there is a kernel: a finer range for a control, or sliders for further
            parameters of ``fn``, which start at their defaults.
        labels: text beside a slider, where the name of the parameter does not say enough.

    Raises:
        ValueError: an argument as above is missing or out of place, or the frames are too large for a page.
    """
    made = Exploration(fn, controls, name, alt, start or {}, frames or fn, live or {}, labels or {})
    place(name, made, caption)


class Exploration:
    """The frames of ``explore``, and the widget made from them where there is a kernel."""

    def __init__(self, fn, controls, name, alt, start, frames, live, labels) -> None:
        self.fn, self.name, self.alt, self.labels = fn, name, alt, labels
        self.controls = {k: list(v) for k, v in controls.items()}
        self.live = {k: list(v) for k, v in {**controls, **live}.items()}
        self.start = {k: start.get(k, v[0]) for k, v in self.controls.items() if v}
        self._check(start, frames)
        grid = [dict(zip(self.controls, q)) for q in itertools.product(*self.controls.values())]
        self.frames = [self._frame(frames, q) for q in bar(grid, desc=name)]
        self.first = grid.index(self.start)
        self.html = self._html()
        if len(self.html) > LIMIT:
            raise ValueError(
                f"{name}: {len(grid)} frames make {len(self.html):,} characters of HTML, over {LIMIT:,}; "
                "give fewer values, or draw fewer points (figures.thin)"
            )
        rows = (panels.numbers(**q) for q, (_, panels) in zip(grid, self.frames) if panels)
        self.csv = ",".join([*self.controls, "panel", "series", "x", "y"]) + "\n" + "".join(rows)

    def _check(self, start, frames) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name={self.name!r}: give letters, digits and underscores")
        if not self.controls:
            raise ValueError("controls={}: give at least one parameter with its values")
        for parameter, values in self.live.items():
            both = (self.controls.get(parameter, values), values)
            if any(len(v) < 2 or len(set(map(repr, v))) < len(v) for v in both):
                raise ValueError(f"{parameter}={values!r}: give at least two values, each once")
        for function, given in ((self.fn, self.live), (frames, self.controls)):
            try:
                inspect.signature(function).bind(**given)
            except TypeError as error:
                raise ValueError(f"controls={list(given)} do not fit {function.__name__}: {error}") from error
        for parameter, value in start.items():
            if value not in self.controls.get(parameter, []):
                raise ValueError(f"start: {parameter}={value!r} is not among the values of the controls")
        for parameter, values in self.live.items():
            if self.first_value(parameter) not in values:
                raise ValueError(f"live: {parameter} lacks the value of the start, {self.first_value(parameter)!r}")
        unknown = set(self.labels) - set(self.live)
        if unknown:
            raise ValueError(f"labels: {', '.join(unknown)} is not a control")

    def first_value(self, parameter: str) -> Any:
        """What a slider starts at: a control at the start, a further parameter at its default."""
        return self.start.get(parameter, inspect.signature(self.fn).parameters[parameter].default)

    def _frame(self, function, values) -> tuple[str, Panels | None]:
        """The sentence and the panels of one frame."""
        found = function(**values)
        if found is None:
            return ", ".join(f"{self.label(k)} {text(v)}" for k, v in values.items()) + ": not run.", None
        if not isinstance(found, tuple) or len(found) < 2 or not isinstance(found[0], str) or len(found[0]) < 20:
            raise ValueError(f"{function.__name__} returned {found!r}: give a sentence and at least one panel")
        sentence = re.sub(r"(?<![\w.-])-(?=\.?\d)", "−", found[0])
        return sentence, Panels(self.name, f"{self.alt} {sentence}", *found[1:])

    def label(self, parameter: str) -> str:
        """The text beside a slider."""
        return self.labels.get(parameter, parameter.replace("_", " "))

    def _picture(self, sentence, panels) -> str:
        cells = panels.cells() if panels else ""
        return picture(self.name, f"{self.alt} {sentence}", cells)

    def _html(self) -> str:
        index, rows, sentences, alts = {}, [], [], []
        for sentence, panels in self.frames:
            lines = panels.cells().splitlines() if panels else []
            rows.append([index.setdefault(line, len(index)) for line in lines])
            sentences.append(sentence)
            alts.append(f"{self.alt} {sentence}")
        values = [[text(v) for v in vs] for vs in self.controls.values()]
        data = {"values": values, "lines": list(index), "frames": rows, "alts": alts, "sentences": sentences}
        packed = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")  # nothing may end the script early
        inputs = []
        for parameter, vs in self.controls.items():
            at = vs.index(self.start[parameter])
            inputs.append(
                f'<label>{html.escape(self.label(parameter))} <input type="range" min="0" max="{len(vs) - 1}" step="1" '
                f'value="{at}" autocomplete="off" aria-valuetext="{html.escape(text(vs[at]))}"> '
                f'<span aria-hidden="true">{html.escape(text(vs[at]))}</span></label>'
            )
        play = '<button type="button">▶ play</button> ' if len(values[0]) >= PLAYS else ""
        return (
            f'<div class="hesslib-explore"><div class="hesslib-controls" hidden>{play}{" ".join(inputs)}</div>\n'
            f'<p role="status">{html.escape(self.frames[self.first][0])}</p>\n'
            f"{self._picture(*self.frames[self.first])}\n"
            f'<script type="application/json">{packed}</script>\n'
            f"<script>{SCRIPT}</script></div>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        sentence, panels = self.frames[self.first]
        bundle = {page_type(): self.html, "text/plain": f"{self.alt} {sentence}", NUMBERS: self.csv}
        if page_type() != PAGE:  # without a reader at the kernel no slider would move; viewers then take the PNG
            view = "application/vnd.jupyter.widget-view+json"
            bundle = {view: self.widget()._repr_mimebundle_()[view]} | bundle
        return bundle | ({"image/png": panels.png()} if panels else {})

    def widget(self):
        """Sliders that call the function anew when released (an ``ipywidgets.VBox``)."""
        import ipywidgets

        first = self.frames[self.first]
        shown = ipywidgets.HTML(self._picture(*first))
        status = ipywidgets.HTML(html.escape(first[0]))

        def compute(values):
            frame = self._frame(self.fn, values)
            return self._picture(*frame), html.escape(frame[0])

        def show(new, message):
            if new:
                shown.value = new
            status.value = message

        newest = Newest(compute, show)
        sliders = {}
        for parameter, values in self.live.items():
            sliders[parameter] = ipywidgets.SelectionSlider(
                options=[(text(v), v) for v in values],
                value=self.first_value(parameter),
                description=self.label(parameter),
                continuous_update=False,
                style={"description_width": "initial"},
                layout={"width": "auto", "max_width": "520px"},
            )
        for slider in sliders.values():
            slider.observe(lambda _: newest.ask({k: s.value for k, s in sliders.items()}), "value")
        return ipywidgets.VBox([*sliders.values(), status, shown])


class Stale(BaseException):
    """Raised within a computation whose result nobody waits for any more."""


class Newest:
    """Computes in the background what was asked for last; whatever is under way then is interrupted.

    A thread of its own keeps the kernel free to hear of the next choice. Python delivers the interruption
    between two bytecodes, so a single long call into a library ends first.
    """

    def __init__(self, compute: Callable[[Any], tuple[str, str]], show: Callable[[str, str], None]) -> None:
        self.compute, self.show = compute, show
        self.lock, self.asked, self.thread, self.running = threading.Lock(), 0, None, None

    def ask(self, values: Any) -> None:
        """Compute for these values, and for no earlier ones."""
        with self.lock:
            self.asked += 1
            if self.running is not None:
                raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
                raise_in(ctypes.c_ulong(self.running), ctypes.py_object(Stale))
                self.running = None
            arguments = (self.asked, values, self.thread)
            self.thread = threading.Thread(target=self._work, args=arguments, daemon=True)
        self.show("", "<em>computing …</em>")
        self.thread.start()

    def _work(self, ticket: int, values: Any, before: threading.Thread | None) -> None:
        try:
            if before is not None:
                before.join()
            with self.lock:
                if ticket != self.asked:
                    return
                self.running = threading.get_ident()
            try:
                result = self.compute(values)
            except Exception as error:  # a slider may ask for what cannot be: say so and live on
                result = "", html.escape(f"{type(error).__name__}: {error}")
            with self.lock:
                self.running = None
                if ticket == self.asked:
                    self.show(*result)
        except Stale:
            pass


def text(value: Any) -> str:
    """A value as it stands beside a slider."""
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
