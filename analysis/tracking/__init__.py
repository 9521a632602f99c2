"""Grids at Weights & Biases."""
