"""From records to tables: reads the storage alone, and imports neither the grid nor the learning."""
