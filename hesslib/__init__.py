"""Exact curvature of neural networks.

The package under *The Hessian of Over-Parametrized Networks, an executable book*.
"""

from .curvature.blocks import Blocks, blocks
from .curvature.density import SpectralDensity, spectral_density
from .curvature.ggn import ggn_spectrum
from .curvature.jacobian import jacobian
from .curvature.lanczos import Eigenpairs, top_eigenpairs
from .curvature.operators import CurvatureOperator
from .curvature.outliers import count_outliers
from .curvature.risk import EmpiricalRisk
from .curvature.route import Route, select_route
from .curvature.spectrum import Spectrum, spectrum
from .curvature.trace import ValueWithError, diagonal, trace

__version__ = "0.1.0"
__all__ = [
    "Blocks",
    "CurvatureOperator",
    "Eigenpairs",
    "EmpiricalRisk",
    "Route",
    "SpectralDensity",
    "Spectrum",
    "ValueWithError",
    "blocks",
    "count_outliers",
    "diagonal",
    "ggn_spectrum",
    "jacobian",
    "select_route",
    "spectral_density",
    "spectrum",
    "top_eigenpairs",
    "trace",
]
