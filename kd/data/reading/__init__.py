"""Formats of data sets, a reader a file."""
