"""Which program this is: its version, its commands, what is installed of it."""
