"""Ratios measured in one run: `make bench`. Apart from the tests, which assert no time."""
