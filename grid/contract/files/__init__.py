"""Where a storage has what, and how its files are read and written on a disk."""
