"""One trained student as a folder that others can use."""
