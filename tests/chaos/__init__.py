"""`make chaos`: a grid under kills, to its end, against the same grid left alone."""
