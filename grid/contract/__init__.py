"""What grid and analysis both must know, said once: rules that would drift apart in two places. Standard library only,
and nothing of either side."""
