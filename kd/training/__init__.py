"""The training loop, and what goes on in it."""
