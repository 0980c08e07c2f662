"""What shows that work goes on: a bar in a terminal and in Jupyter, a line for each step in a log."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from tqdm import std

DELAY = 2  # seconds before anything is shown
AGAIN = 600  # seconds until a step that still runs is mentioned again in a log


class Lines(std.tqdm):
    """The bar of a log: one line with the remaining time for each step of over two seconds."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.due = 0.0
        super().__init__(*args, **{**options, "file": io.StringIO()})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the line if it is due and there is work left."""
        state, n, total = self.format_dict, self.n, self.total or 0
        if state["elapsed"] >= self.due and n < total:
            self.due = state["elapsed"] + AGAIN
            done, spent = n - state["initial"], self.format_interval(state["elapsed"])
            known = done and not state["prefix"].endswith("at most")  # of a limit that is seldom reached
            left = self.format_interval(state["elapsed"] / done * (total - n)) if known else None
            remaining = f"about {left} left" if known else "remaining time not known"
            print(f"{state['prefix']}: {n / total:.0%} after {spent}, {remaining}", file=sys.stderr, flush=True)


class Later(std.tqdm):
    """The bar of Jupyter, made when it is first shown.

    Its widgets are dozens of messages to the page. Hundreds of short computations in a cell, whose bars nobody ever
    sees, would send thousands, and among so many some are dropped, even the one that says that the cell is done.
    """

    def __init__(self, *args: Any, style: type[std.tqdm], **options: Any) -> None:
        self.style = style
        self.shown: Any = None
        super().__init__(*args, **{**options, "file": io.StringIO()})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Bring the bar of the page to where this one is."""
        if self.shown is None:
            self.shown = self.style(total=self.total, initial=self.initial, desc=self.desc, unit=self.unit)
            self.shown.start_t = self.start_t
        self.shown.n = self.n
        self.shown.refresh()

    def close(self) -> None:
        """End the bar of the page too, if there is one."""
        super().close()
        if self.shown is not None:
            self.shown.close()


def _style() -> type[std.tqdm]:
    """The kind of bar that suits where this process writes to."""
    app = sys.modules.get("ipykernel.kernelapp")
    kernel = app is not None and app.IPKernelApp.initialized()
    if kernel:
        starter = " ".join(psutil.Process(os.getppid()).cmdline()) if psutil.pid_exists(os.getppid()) else ""
        if not os.environ.get("HESSLIB_LINES") and "papermill" not in starter:
            from tqdm.notebook import tqdm

            return tqdm
    return std.tqdm if sys.stderr.isatty() and not kernel else Lines


def bar(items: Any = None, *, desc: str, show: bool | None = None, **options: Any) -> std.tqdm:
    """A ``tqdm`` over items, or by hand with ``total=``; appears after two seconds, with ``show=False`` never."""
    style, options = _style(), {"desc": desc, "delay": DELAY, "mininterval": 0.5, "disable": show is False, **options}
    return Later(items, style=style, **options) if style.__module__ == "tqdm.notebook" else style(items, **options)


@contextmanager
def waiting(desc: str, seconds: float, show: bool | None = None) -> Iterator[None]:
    """A bar over one call that is expected to take so many seconds; a clock moves it, and it waits at the end."""
    if show is False or seconds < DELAY:
        yield
        return
    ended = threading.Event()
    with bar(total=max(2, round(seconds)), desc=desc, unit="s") as shown:

        def tick() -> None:
            while not ended.wait(1):
                shown.update(1 if shown.n < shown.total - 1 else 0)

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            ended.set()
            clock.join()
