"""Data, networks and training of the experiments."""
