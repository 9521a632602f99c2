"""What is computed of records."""
