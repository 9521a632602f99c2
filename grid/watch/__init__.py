"""What people are shown of a grid: before it runs, while it runs, and from another terminal."""
