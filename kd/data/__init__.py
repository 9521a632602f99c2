"""Image classification data in memory: what exists (catalog), reading it, splitting it, and its random views."""
