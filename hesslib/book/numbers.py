"""How numbers are written: one rule for the text of chapters, their tables and the ledger of claims."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)(?=%?(?:$|[^\w.]))")
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def typeset(text: str, tex: bool = True) -> str:
    """Computer notation as it is printed: a true minus sign, powers of ten, a space before the per cent sign.

    Powers of ten are mathematics in TeX for Markdown, else plain letters.
    """
    ten = lambda n: rf"$\times10^{{{int(n)}}}$" if tex else f"×10{str(int(n)).translate(SUPERSCRIPT)}"

    def one(match: re.Match) -> str:
        mantissa, _, power = match[0].partition("e")
        if not re.search(r"[1-9]|inf", mantissa):
            return mantissa.removeprefix("-")
        if power and tex:
            return f"${mantissa}" + ten(power)[1:]
        return mantissa.replace("-", "−").replace("inf", "∞") + (ten(power) if power else "")

    both = re.sub(r"(?<=\d\))e([+-]\d+)", lambda m: ten(m[1]), NUMBER.sub(one, text))  # (2.3 ± 0.4)e-05
    return re.sub(r"(?<=[\d$])%", " %", both)


def prose(text: str) -> str:
    """A sentence of the ledger as it is printed: its numbers typeset, a true minus between terms."""
    powers = re.sub(r"(?<![\d.])1×10", "10", typeset(text.strip(), tex=False))
    return re.sub(r"(?<=[\w)]) - (?=[\w(])", "\u00a0−\u00a0", powers)


def devices(labels: Iterable[dict[str, Any]]) -> str:
    """The machines that labels name, each once; older labels speak of '1 threads'."""
    return "; ".join(sorted({re.sub(r"\b1 threads\b", "1 thread", label["device"]) for label in labels}))


def written(value: Any, spec: str = "", tex: bool = True) -> str:
    """A number, or an ``Estimate``, as prose and tables write it; words stay as they are."""
    value = value.item() if hasattr(value, "item") else value  # of numpy, which the build of the pages does without
    if isinstance(value, str):
        return format(value, spec)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not run"
    whole = isinstance(value, int) and not isinstance(value, bool)
    default = "," if whole else ".3g" if isinstance(value, float) else ""
    return typeset(format(value, spec or default), tex)


def rounding(value: float, decimals: int | None = None, digits: int = 3) -> str:
    """How a number is formatted: with some digits or the given decimals; powers of ten for very large and small."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return ".1e"
    if decimals is None:
        decimals = 0 if value == round(value) else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f",.{decimals}f"


def measurement(value: float, interval: tuple[float, float] | None, form: str = "", percent: bool = False) -> str:
    """A statistic with its interval as text: two digits of the interval's half width, or as ``form`` says."""
    low, high = interval or (value, value)
    half, times = (high - low) / 2, 100 if percent else 1
    decimals, digits = None, 3
    if low > 0 and high > 3 * low:
        digits = 2  # a ratio known to a factor: each number has two digits
    elif half > 1e-9 * abs(value) and math.isfinite(half):
        decimals = 0 if percent else max(0, 1 - math.floor(math.log10(half)))
    text = lambda v: written(float(times * v), form or rounding(times * v, decimals, digits), tex=False)
    unit = " %" if percent else ""
    return f"{text(value)}{unit}" + (f" ({text(low)} to {text(high)}{unit})" if interval else "")
