"""Arguments out of range are refused with their name, their value and what is valid."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def whole(low: int, high: int | None = None, **arguments: Any) -> None:
    """Raise ``ValueError`` unless each argument is a whole number from low to high, where there is one."""
    for name, value in arguments.items():
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if not number or value < low or (high is not None and value > high):
            valid = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"{name}={value!r}: give a whole number {valid}")


def positive(**arguments: Any) -> None:
    """Raise ``ValueError`` unless each argument is a positive finite number."""
    for name, value in arguments.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not 0 < value < float("inf"):
            raise ValueError(f"{name}={value!r}: give a positive finite number")
