"""How much memory a stage's worker takes."""
