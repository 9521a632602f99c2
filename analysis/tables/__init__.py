"""What is said of grids, as documents."""
