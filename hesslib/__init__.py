"""Exact curvature of neural networks.

The package under *The Hessian of Over-Parametrized Networks, an executable book*.
"""

from .curvature.risk import EmpiricalRisk
from .curvature.spectrum import Spectrum, spectrum

__version__ = "0.1.0"
__all__ = ["EmpiricalRisk", "Spectrum", "spectrum"]
