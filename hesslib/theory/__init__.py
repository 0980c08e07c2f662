"""Random-matrix laws: what the spectrum of a sample covariance matrix of M parameters and N examples should be."""

from .marchenko_pastur import DeformedMarchenkoPastur, MarchenkoPastur, distance
from .spikes import spike_deviation, spike_location, spike_overlap, spiked_wishart
from .tracy_widom import TracyWidom, edge_scale

__all__ = [
    "DeformedMarchenkoPastur",
    "MarchenkoPastur",
    "TracyWidom",
    "distance",
    "edge_scale",
    "spike_deviation",
    "spike_location",
    "spike_overlap",
    "spiked_wishart",
]
