"""Rules that draw the line between outliers and bulk (paper, Appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RULES = ("gap", "ratio", "elbow", "threshold")


def count_outliers(
    eigenvalues: ArrayLike, rule: Literal["gap", "ratio", "elbow", "threshold"], cutoff: float | None = None
) -> int:
    """Number of large eigenvalues, by one of the paper's rules.

    With ``lambda_1 >= lambda_2 >= ...`` the count is

    * ``"gap"``: the i with the largest ``lambda_i - lambda_{i+1}``, where negative eigenvalues count as zero;
    * ``"ratio"``: the i with the largest ``lambda_i / lambda_{i+1}``, among eigenvalues above ``cutoff`` (default:
      1e-6 of the largest, since below rounding error ratios mean nothing);
    * ``"elbow"``: the number of eigenvalues before the elbow, the point of the scree plot (rank, log lambda) furthest
      below the chord between its ends, both axes scaled to [0, 1], over eigenvalues above ``cutoff`` (as for ratio);
      0 if none lies below the chord;
    * ``"threshold"``: the number of eigenvalues above ``cutoff``, which must then be given.

    With fewer than three eigenvalues above the cutoff, ``"ratio"`` and ``"elbow"`` count them all.

    Args:
        eigenvalues: (M,), in any order.
        rule: the name of the rule.
        cutoff: see above; positive for ``"ratio"`` and ``"elbow"``, not used by ``"gap"``.

    Raises:
        ValueError: unknown rule, missing or wrong cutoff, or no positive eigenvalue to count.

    Example:
        >>> count_outliers([5.0, 4.0, 0.1, 0.09, 0.0], "gap")
        2
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is unknown: give one of {', '.join(map(repr, RULES))}")
    values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"eigenvalues: finite numbers (M,) are needed, got shape {values.shape}, or NaN or infinity")
    if cutoff is not None and not (np.isfinite(cutoff) and (rule == "threshold" or cutoff > 0)):
        raise ValueError(f"cutoff={cutoff}: give a {'finite' if rule == 'threshold' else 'positive'} number")
    if rule == "threshold":
        if cutoff is None:
            raise ValueError("cutoff: rule='threshold' needs one")
        return int((values > cutoff).sum())
    if len(values) < 2 or not values[0] > 0:
        raise ValueError("eigenvalues: a rule needs at least two, and a positive one among them")
    if rule == "gap":
        return int(np.argmax(-np.diff(values.clip(0)))) + 1
    values = values[values > (1e-6 * values[0] if cutoff is None else cutoff)]
    if len(values) < 3:
        return len(values)
    if rule == "ratio":
        return int(np.argmax(values[:-1] / values[1:])) + 1
    x = np.linspace(0, 1, len(values))
    y = np.log(values / values[-1]) / np.log(values[0] / values[-1]) if values[0] > values[-1] else 1 - x
    return int(np.argmax(1 - x - y))
