"""One launch: the plan's stages run on Ray."""
