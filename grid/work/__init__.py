"""What a stage does, free of Ray."""
