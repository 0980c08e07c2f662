"""The words of a chapter with their numbers: made by its code, shown as Markdown, so every reader sees the same."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from .judging import mean_interval
from .numbers import written
from .paths import ROOT
from .provenance import made_here

FIELD = r"\{([A-Za-z_]\w*)(?::([^{}]*))?\}"


class Estimate:
    """One number for each independent run, and what they say together; without any it is 'not run'."""

    def __init__(self, values: Iterable[float] = (), of: str = "") -> None:
        self.values = np.array([v for v in values if v is not None], dtype=float)
        self.of = of  # the stored runs that it is made of, named where they are missing
        self.count = len(self.values)

    def __bool__(self) -> bool:
        return self.count > 0

    def __len__(self) -> int:
        return self.count

    def _of(self, function: Any) -> float:
        return float(function(self.values)) if self.count else math.nan

    @property
    def mean(self) -> float:
        """Their mean."""
        return self._of(np.mean)

    @property
    def median(self) -> float:
        """Their median."""
        return self._of(np.median)

    @property
    def low(self) -> float:
        """The smallest."""
        return self._of(np.min)

    @property
    def high(self) -> float:
        """The largest."""
        return self._of(np.max)

    @property
    def sd(self) -> float:
        """Their standard deviation, 0 for a single run."""
        return float(self.values.std(ddof=1)) if self.count > 1 else self._of(np.std)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, by Student's t; without an end for fewer than two runs."""
        return mean_interval(self.values) if self.count > 1 else (-math.inf, math.inf)

    def __format__(self, spec: str) -> str:
        if not self:
            return "not run"
        spec = spec.replace("d", ".1f") or ".3g"
        if self.count == 1:
            return format(self.mean, spec)
        if self.high - self.low <= 1e-9 * max(abs(self.low), abs(self.high)):  # the same in each run
            count = self.mean.is_integer() and abs(self.mean) < 1e6 and spec[-1] in "fg"
            return f"{int(self.mean):,}" if count and not spec.startswith("+") else format(self.mean, spec)
        if spec[-1] in "eg" and self.sd > 1e-4 * abs(self.mean):
            return self._rounded(spec)
        mean, sd = format(self.mean, spec), format(self.sd, spec.removeprefix("+"))
        if not re.search("[1-9]", sd):  # '± 0.0' would say that there is none: give its first digit
            digits = f".{-math.floor(math.log10(self.sd))}f"
            mean, sd = format(self.mean, "+" * spec.startswith("+") + digits), format(self.sd, digits)
        return f"{mean} ± {sd}"

    def _rounded(self, spec: str) -> str:
        """Mean and deviation to the same place, the second digit of the deviation, and with one power of ten."""
        plain = not self.mean or 1e-3 <= abs(self.mean) < 1e6
        power = 0 if plain else math.floor(math.log10(abs(self.mean)))
        decimals = max(0, 1 + power - math.floor(math.log10(self.sd)))
        end, sign = f"e{power:+03d}" if power else "", "+" * spec.startswith("+")
        write = lambda v, sign="": f"{v / 10.0**power:{sign},.{decimals}f}"
        both = f"{write(self.mean, sign)} ± {write(self.sd)}"
        return f"({both}){end}" if power else both

    def __str__(self) -> str:
        return format(self, "")


def missing(value: Any) -> bool:
    """Whether there is nothing to write: None, NaN, or an ``Estimate`` of no run."""
    number = value.mean if isinstance(value, Estimate) else value
    return number is None or (isinstance(number, float | np.floating) and math.isnan(number))


def fields(text: str) -> set[str]:
    """The names in braces of a text, without those that are arguments of a TeX command."""
    found: set[str] = set()
    fill_with(text, lambda name, spec, whole: found.add(name) or whole)
    return found


def fill_with(text: str, put: Any) -> str:
    """Replace each field of a text; within mathematics braces behind a command, ``_`` or ``^`` belong to TeX."""
    parts = re.split(r"(\$[^$]+\$)", text)
    for i, part in enumerate(parts):
        head = r"(?<![\w^}])" if i % 2 else ""
        parts[i] = re.sub(head + FIELD, lambda m: put(m[1], m[2] or "", m[0]), part)
        if i % 2:  # a power of ten within mathematics is in mathematics already
            parts[i] = "$" + parts[i].replace("$", "").replace("−", "-") + "$"
    return "".join(parts)


def fill(text: str, **values: Any) -> str:
    """A text with its numbers in it, each by the rule of ``written``; for captions, and for parts of a text.

    Raises:
        ValueError: a name in braces that is not given, or a value that the text does not use.
    """
    wanted = fields(text)
    if unknown := wanted - values.keys():
        raise ValueError(f"{', '.join(sorted(unknown))}: in the text, but not given")
    if unused := values.keys() - wanted:
        raise ValueError(f"{', '.join(sorted(unused))}: given, but not in the text")
    return fill_with(text, lambda name, spec, whole: written(values[name], spec))


def show(text: str, **metadata: Any) -> None:
    """Show Markdown as the output of a cell, with what programs read of it."""
    from IPython.display import Markdown, display

    display(Markdown(text), metadata={"hesslib": metadata})


def say(text: str, **values: Any) -> None:
    """Show paragraphs with their numbers, and keep the numbers under their names for sweeps.

    A paragraph with a number that is missing (None, NaN, an ``Estimate`` of no run) is left out, and one sentence says
    so. Words that depend on the run are computed and given as values too::

        say("The largest of {M:,} eigenvalues is {top:.2f}, {word} its value at the start.", M=M, top=top, word=word)

    Args:
        text: paragraphs of Markdown and mathematics, parted by blank lines, with ``{name}`` or ``{name:.2f}``.
        values: a number, an ``Estimate`` or words for each name.

    Raises:
        ValueError: a name in braces that is not given, or a value that the text does not use.
    """
    lines = [line.strip() if line.strip() else "" for line in text.strip().splitlines()]
    paragraphs = re.split(r"\n\n+", "\n".join(lines))
    fill(text, **values)
    kept, without = [], {}
    for paragraph in paragraphs:
        names = fields(paragraph)
        gaps = sorted(name for name in names if missing(values[name]))
        if gaps:
            without |= {getattr(values[g], "of", "").split(":")[0] or f"`{g}`": None for g in gaps}
        else:
            kept.append(fill(paragraph, **{name: values[name] for name in names}))
    left = len(paragraphs) - len(kept)
    if left:
        what = "A paragraph is" if left == 1 else f"{left} paragraphs are"
        kept.append(f"*{what} left out: what it needs of {', '.join(without)} is not computed, or not defined.*")
    show("\n\n".join(kept), numbers={n: kept_number(v) for n, v in values.items() if kept_number(v) is not None})


def kept_number(value: Any) -> float | int | bool | None:
    """What a sweep keeps of a value: a finite number, of an ``Estimate`` its mean; of words nothing."""
    value = value.mean if isinstance(value, Estimate) else value
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def check(
    statement: str, value: Any, *, below: float | None = None, above: float | None = None, otherwise: str = "FAIL"
) -> None:
    """Print whether a statement holds: ``statement: pass``, or ``statement: FAIL (value)``.

    Args:
        statement: what is checked, in words, with its bound.
        value: a number to be held against ``below`` or ``above``; without them the truth itself.
        below: the value must be less.
        above: the value must be more.
        otherwise: what is printed when it does not hold and no code is to blame, as 'does not hold'.
    """
    held = bool(value) if below is None and above is None else True
    held = held and (below is None or bool(value < below)) and (above is None or bool(value > above))
    number = "" if below is None and above is None else f" ({value:.3g})"
    print(f"{statement}: {'pass' if held else otherwise + number}")


def learnt(loss: float, classes: int) -> bool:
    """Whether a network has learnt: its cross-entropy is below a tenth of that of a guess among the classes."""
    return bool(loss < math.log(classes) / 10)


def standard(p: Any) -> dict[str, Any]:
    """The parameters of the standard run of this scale: the literals of the chapter whose parameters these are."""
    presets = getattr(p, "presets", {})
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")):
        text = path.read_text(encoding="utf-8").partition('tags=["parameters"')[2]
        body = ast.parse(text.partition("\n")[2].partition("\n# %%")[0]).body
        literals = {n.target.id: ast.literal_eval(n.value) for n in body if isinstance(n, ast.AnnAssign)}
        if literals.keys() == vars(p).keys():
            return {n: presets[n] if n in presets and v in (0, "", []) else v for n, v in literals.items()}
    return {}


def this_run(p: Any) -> None:
    """Name in a box the parameters that differ from the standard run of this scale; without any there is no box."""
    usual = standard(p)
    other = {n: v for n, v in vars(p).items() if n in usual and n != "scale" and v != usual[n]}
    if other:
        names = ", ".join(f"`{n} = {v!r}` (standard: `{usual[n]!r}`)" for n, v in other.items())
        show(
            f"> **This run** differs from the standard one at scale {p.scale}: {names}. "
            "What the page says of stored runs holds of those, made with the parameters named beside them.",
            box="this run",
        )


def foot(p: Any, *runs: Any) -> None:
    """Print what the page was made with: versions, machine, scale, seed, and a line for each set of stored runs."""
    print(made_here())
    print(f"scale {p.scale}" + (f", seed {p.seed}" if hasattr(p, "seed") else ""))
    for one in runs:
        print(getattr(one, "label", one))
