"""Exact curvature of neural networks.

The package under *The Hessian of Over-Parametrized Networks, an executable book*.
"""

from .curvature.density import SpectralDensity, spectral_density
from .curvature.ggn import ggn_spectrum
from .curvature.lanczos import Eigenpairs, top_eigenpairs
from .curvature.operators import CurvatureOperator
from .curvature.outliers import count_outliers
from .curvature.risk import EmpiricalRisk
from .curvature.spectrum import Spectrum, spectrum

__version__ = "0.1.0"
__all__ = [
    "CurvatureOperator",
    "Eigenpairs",
    "EmpiricalRisk",
    "SpectralDensity",
    "Spectrum",
    "count_outliers",
    "ggn_spectrum",
    "spectral_density",
    "spectrum",
    "top_eigenpairs",
]
