"""Curvature of the empirical risk: operators, dense matrices, exact spectra."""
