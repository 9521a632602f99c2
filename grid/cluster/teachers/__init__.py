"""Teachers, as worker groups of Ray Train."""
