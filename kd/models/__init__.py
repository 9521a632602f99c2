"""Models: any of timm's by name, and the few that timm lacks, one family a file."""
