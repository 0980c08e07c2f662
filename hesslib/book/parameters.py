"""Notebook parameters that cannot be mistyped.

A notebook declares its parameters twice, each time for another reader: as literals in the tagged cell
that papermill overwrites, and in the next cell as ranges given to ``resolve``, which checks whatever
arrived. So a misspelt name, a wrong type or a value out of range stops a notebook in its first cells,
under plain ``papermill`` too.
"""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

SCALES = ("smoke", "quick", "paper")


class ParameterError(ValueError):
    """A parameter is unknown or its value not valid; the message says which and what is valid."""

    def _render_traceback_(self) -> list[str]:  # Jupyter shows the message, not the way to it
        return [f"ParameterError: {self}"]


@dataclass(frozen=True)
class Range:
    """What a parameter may be: a type, bounds or choices, and its values at the three scales."""

    type: type
    low: float | None = None
    high: float | None = None
    choices: tuple = ()
    many: bool = False
    presets: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(map(repr, self.choices))
        kind = {int: "whole number", float: "number"}[self.type]
        bounds = [f">= {self.low}"] if self.low is not None else []
        bounds += [f"<= {self.high}"] if self.high is not None else []
        text = " ".join([kind, " and ".join(bounds)]).strip()
        return f"a list of at least one {text}" if self.many else f"a {text}"

    def check(self, name: str, value: Any) -> Any:
        """The value in its proper type. Raises ``ParameterError``."""
        if self.many:
            if isinstance(value, str):  # papermill's -p hands lists over as text
                try:
                    value = ast.literal_eval(value)
                except (ValueError, SyntaxError):
                    pass
            if not isinstance(value, list | tuple) or not value:
                raise ParameterError(f"{name} = {value!r} is not valid: give {self}")
            one = Range(self.type, self.low, self.high, self.choices)
            return [one.check(name, v) for v in value]
        if self.type is float and type(value) is int:
            value = float(value)
        bad = type(value) is not self.type or (self.choices and value not in self.choices)
        bad = bad or (self.low is not None and not value >= self.low)
        bad = bad or (self.high is not None and not value <= self.high)
        if bad:
            raise ParameterError(f"{name} = {value!r} is not valid: give {self}")
        return value


def integer(low: int | None = None, high: int | None = None, **presets: int) -> Range:
    """A whole number within bounds; with presets (smoke=, quick=, paper=) 0 asks for the scale's own."""
    return Range(int, low, high, presets=presets)


def integers(low: int | None = None, high: int | None = None, **presets: list[int]) -> Range:
    """A list of whole numbers; with presets an empty list asks for the scale's own."""
    return Range(int, low, high, many=True, presets=presets)


def real(low: float | None = None, high: float | None = None, **presets: float) -> Range:
    """A number within bounds; with presets 0 asks for the scale's own."""
    return Range(float, low, high, presets=presets)


def reals(low: float | None = None, high: float | None = None, **presets: list[float]) -> Range:
    """A list of numbers; with presets an empty list asks for the scale's own."""
    return Range(float, low, high, many=True, presets=presets)


def choice(*values: Any, **presets: Any) -> Range:
    """One of the given values; with presets an empty text asks for the scale's own."""
    return Range(type(values[0]), choices=values, presets=presets)


class Values(SimpleNamespace):
    """A run's parameters as attributes, and beside them the presets of its scale."""

    __slots__ = ("presets",)


def resolve(namespace: dict[str, Any], **ranges: Range) -> Values:
    """Check a notebook's parameters and fill in the presets of its scale.

    Args:
        namespace: the notebook's ``globals()``.
        ranges: what each parameter may be. ``scale`` is always one of them.

    Returns:
        the values, as attributes.

    Raises:
        ParameterError: an injected name that is not declared, a wrong type, a value out of range.
    """
    ranges = {"scale": choice(*SCALES), **ranges}
    for name, value in injected(namespace).items():
        if name not in ranges:
            raise ParameterError(f"{name} = {value!r} is not a parameter of this notebook{suggestion(name, ranges)}")
    missing = [name for name in ranges if name not in namespace]
    if missing:
        raise ParameterError(f"{', '.join(missing)}: not set; run the cell tagged 'parameters' first")
    scale = ranges["scale"].check("scale", namespace["scale"])
    result = {}
    for name, allowed in ranges.items():
        value = namespace[name]
        unset = value in (0, "", "[]") or value == []
        if allowed.presets and unset and not isinstance(value, bool):
            value = allowed.presets[scale]
        result[name] = allowed.check(name, value)
    if scale != "paper" and "OMP_NUM_THREADS" not in os.environ:
        one_thread()
    values = Values(**result)
    values.presets = {name: allowed.presets[scale] for name, allowed in ranges.items() if allowed.presets}
    return values


def one_thread() -> None:
    """Compute on one thread: on small matrices threads wait for each other, beside other work for minutes."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message about a misspelt name: what may be meant, and what is valid."""
    near = difflib.get_close_matches(name, known, 1)
    return f"{f' (did you mean {near[0]!r}?)' if near else ''}; valid names: {', '.join(known)}"


def injected(namespace: dict[str, Any]) -> dict[str, Any]:
    """Names and values in the cell that papermill put in, found in the kernel's input history."""
    found = {}
    for source in namespace.get("In", []):
        if source.startswith("# Parameters"):
            for node in ast.parse(source).body:
                for target in node.targets if isinstance(node, ast.Assign) else []:
                    if isinstance(target, ast.Name):
                        found[target.id] = namespace.get(target.id)
    return found
