"""Storages read into frames."""
