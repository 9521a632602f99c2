"""The nodes of a Ray, and how they are divided."""
