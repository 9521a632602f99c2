"""How documents are written, and where to."""
